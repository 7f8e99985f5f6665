"""Labels to train on from images of a known reference: where clusters are and what they really read."""
