"""Comparison of calls with a simulation's truth or with a codebook."""
