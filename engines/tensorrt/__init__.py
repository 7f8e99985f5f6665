"""The network as TensorRT runs it: plans are built, kept, trusted, loaded and run here."""
