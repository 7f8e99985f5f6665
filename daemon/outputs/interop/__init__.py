"""Figures of a run as Illumina's viewers and libraries read them: InterOp files, and the CSV of ``interop_summary``."""
