"""Computes the numbers of a run for the InterOp files, the summary and the report, with its error rates by spike-in."""
