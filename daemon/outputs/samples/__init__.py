"""Demultiplexing: which sample each cluster belongs to, from sample sheets and read barcodes."""
