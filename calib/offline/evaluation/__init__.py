"""Holding calls against what is true: a simulation's truth, or a codebook."""
