"""TensorRT: plans, which are the network compiled for one GPU, are built, stored, checked, loaded and run here."""
