"""What travels over ZeroMQ; ``docs/reference/protocol.md`` is the specification."""
