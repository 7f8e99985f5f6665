"""Outputs made from committed calls alone; they can be made again at any time."""
