"""Fit of quality scores: the run-time modules call runs whose truth is known, and each readout gets a table."""
