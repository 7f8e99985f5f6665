"""Joint training of both branches on simulated tiles."""
