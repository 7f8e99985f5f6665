"""The run report: one HTML file that needs nothing else, drawn anew as the run goes on."""
