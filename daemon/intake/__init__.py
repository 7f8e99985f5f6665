"""Frames in: from the controller's sockets to whole tile images."""
