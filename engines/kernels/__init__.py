"""Kernels in CUDA C++ and the PTX that they were compiled to; ``make kernels`` compiles them again.

The first line of a ``.cu`` file is the command that compiles it. The first line of a ``.ptx`` file is the hash of
its source.
"""

from pathlib import Path


def ptx(name: str) -> bytes:
    """The PTX of a kernel source in this folder."""
    return (Path(__file__).parent / f"{name}.ptx").read_bytes()
