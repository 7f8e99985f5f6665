"""Pictures of a called run: for each tile and cycle, called clusters, marked images, and the network's maps."""
