"""Exporting a run: reads, samples and run folders, of what is committed at any time."""
