"""What travels over ZeroMQ; ``docs/protocol.md`` is the specification."""
