"""Output forms: what a called run shows of each tile and cycle, as coordinates, maps and pictures."""
