"""The template of a tile: its clusters, optics and geometry."""
