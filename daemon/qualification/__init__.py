"""Installation qualification: engines and fit devices are tried on this machine, each in its own process."""
