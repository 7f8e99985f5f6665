"""The package builds, stores, checks, loads and runs TensorRT plans. A plan is the network compiled for one GPU."""
