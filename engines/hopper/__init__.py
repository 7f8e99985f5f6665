"""The network as kernels of our own for Hopper's matrix instructions; see ``engines/kernels/hopper.cu``."""
