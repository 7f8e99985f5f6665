"""A Hopper multiprocessor on a processor."""
