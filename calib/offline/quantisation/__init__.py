"""The package makes the network in INT8 from a bundle and the user's images, and keeps it if the bounds of
:mod:`calib.offline.quantisation.bound` hold.
"""
