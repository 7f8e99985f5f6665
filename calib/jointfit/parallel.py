"""Images of a template side by side: SciPy's filters and NumPy's arithmetic let other threads run."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

THREADS = min(8, len(os.sched_getaffinity(0)))
"""At most eight: each holds several images' worth of memory."""


def in_parallel(function: Callable[..., T], arguments: Sequence[tuple[int, ...]]) -> list[T]:
    """Results of calls that do not depend on each other, in the order of their arguments."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="template") as pool:
        return list(pool.map(lambda given: function(*given), arguments))
