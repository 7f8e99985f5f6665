"""The multitask network: its architecture, its PyTorch modules, and the evidence that is read from its maps."""
