"""Tile images in, calls out, with an engine that is opened again when it fails."""
