"""Kernels in CUDA C++, and what they were compiled to; ``make kernels`` compiles them anew.

The first line of a ``.cu`` file is the command that compiles it; the first line of a ``.ptx`` file names the hash
of what it was compiled from.
"""

from pathlib import Path


def ptx(name: str) -> bytes:
    """A compiled source of this folder."""
    return (Path(__file__).parent / f"{name}.ptx").read_bytes()
