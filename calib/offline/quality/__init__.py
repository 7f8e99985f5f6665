"""Fitting quality scores: calls whose truth is known, through the run-time modules, to a table for each readout."""
