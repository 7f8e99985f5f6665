"""Joint training of both branches on simulated tiles and labelled runs."""
