"""Joint training of the network's base-call and super-resolution branches on simulated tiles and labelled runs."""
