"""The network in INT8: made from a bundle and images of one's own, kept where it reads no worse."""
