"""What is on the disk of a run, and how it gets there so that it outlives a power cut."""
