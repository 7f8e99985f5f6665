"""Host memory that a device can pin."""

import mmap

import numpy as np
from numpy.typing import NDArray


def whole_pages(size: int) -> NDArray[np.uint8]:
    """Zeroed memory of at least ``size`` bytes that begins and ends with a page and owns itself."""
    length = max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE
    memory = np.zeros(length + mmap.PAGESIZE, np.uint8)
    first = -memory.ctypes.data % mmap.PAGESIZE
    return memory[first : first + length]
