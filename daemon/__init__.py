"""The daemon: it receives frames over ZeroMQ and writes calls to files and streams."""

__version__ = "0.1.0"
