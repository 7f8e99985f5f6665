"""Labels for training, from images of a known reference: positions of the clusters and their true bases."""
