"""The classical caller: it reads each cluster alone. It makes the labels, and the network is compared with it."""
