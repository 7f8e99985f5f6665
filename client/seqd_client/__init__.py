"""Clients of seqd: the wire protocol, the imaging controller's side and the consumer's side."""

__version__ = "0.1.0"
