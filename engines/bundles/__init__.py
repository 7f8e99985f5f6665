"""Bundles: a trained network with all that is needed to run it, and the golden tile that proves an engine."""
