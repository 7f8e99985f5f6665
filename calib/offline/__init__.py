"""Simulation, training and evaluation. ``seqd run`` imports nothing from this package."""
