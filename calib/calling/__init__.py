"""Calls and scores of clusters, from their signals in every cycle."""
