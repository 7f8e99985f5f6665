"""Fitting all clusters of an image together, so that neighbours do not read each other's light."""
