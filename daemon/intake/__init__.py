"""From the controller's sockets to whole tile images."""
