"""Engines run the network on a device: the network, its bundle, the engine interface and its backends."""
