"""Learning from images: simulation, training and evaluation. The running daemon imports none of it."""
