"""The package makes the calls and scores of clusters from their signals in every cycle."""
