"""The run report: one HTML file that loads nothing else, and is written again as the run advances."""
