"""Answers to the requests of other programs, the stream of calls, and the keys of those who may connect."""
