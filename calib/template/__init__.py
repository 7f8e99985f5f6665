"""The template: where the clusters of a tile are, and what else is known of it."""
