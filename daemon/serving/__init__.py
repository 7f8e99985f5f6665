"""What other programs get from a running daemon: answers to requests, the stream of calls, and who may connect."""
