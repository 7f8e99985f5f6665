"""A physics model of a four-colour sequencer: chemistry, optics and camera."""
