"""Figures of a run, from which InterOp files, summary and report are made; and its errors against a spike-in."""
