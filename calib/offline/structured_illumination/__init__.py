"""Structured illumination: reconstruction of one image with twice the resolution from nine striped frames."""
