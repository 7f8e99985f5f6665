"""The network in INT8, made from a bundle and images of the user; it is kept if its calls are as good."""
