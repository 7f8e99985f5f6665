"""The classical pipeline: each cluster read alone. It makes the labels, and is what the network is measured against."""
