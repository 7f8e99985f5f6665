"""Measurements behind what seqd claims to be fast; every figure is a ratio to something run beside it."""
