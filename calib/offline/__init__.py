"""Learning from images: simulation, training and evaluation. The running daemon imports nothing from here."""
