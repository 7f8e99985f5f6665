"""The few things a double-buffered engine asks of a device, and who provides them."""
