"""The consumer's side of the protocol: control requests, and the calls of a run as they are committed."""
