"""Demultiplexing: the sample of each cluster, found by its index reads and a sample sheet, and reports about it."""
