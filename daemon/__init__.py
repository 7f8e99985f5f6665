"""The running instrument: frames in over ZeroMQ, calls out to files and streams."""

__version__ = "0.1.0"
