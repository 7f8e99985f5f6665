"""From what each cycle shows of a cluster to its calls."""
