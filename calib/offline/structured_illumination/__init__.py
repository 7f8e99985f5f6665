"""Structured-illumination reconstruction: nine striped frames to one image at twice the resolution."""
