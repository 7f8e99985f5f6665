"""The multitask network: its shape, its PyTorch modules, its ONNX graph and its read-out."""
