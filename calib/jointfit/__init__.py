"""Joint fit of all clusters of an image, so that a cluster does not get the light of its neighbours."""
