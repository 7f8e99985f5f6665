"""A simulated imaging controller; it replays archived images with the production encoder."""
