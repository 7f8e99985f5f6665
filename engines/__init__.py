"""The network on a device: its definition, its bundle, one contract, several backends."""
