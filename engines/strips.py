"""Cutting a tile into strips of rows that give the same numbers as the whole."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Strip:
    """Rows ``[start, stop)`` go through the network, rows ``[first, last)`` of the result are kept."""

    start: int
    stop: int
    first: int
    last: int


def plan_strips(*, height: int, width: int, halo: int, most_px: int) -> list[Strip]:
    """Strips of equal height that cover a tile, each with ``halo`` rows of context on inner sides.

    Strips span the full width, so only rows need a halo. All strips have the same shape, which lets
    an engine compile once; where the rows do not divide evenly by their number, strips overlap a little more.

    Parameters
    ----------
    halo : rows that an output row depends on, to each side.
    most_px : pixels a strip should not exceed. A strip still keeps at least
        ``2 * halo`` own rows, so that the context never costs more than the content.
    """
    number, rows = 1, height
    while rows * width > most_px:
        # Every inner edge adds a halo to both of its strips.
        fewer = math.ceil((height + 2 * halo * number) / (number + 1))
        if fewer < 4 * halo:
            break
        number, rows = number + 1, fewer
    strips, first = [], 0
    for index in range(number):
        start = index * (height - rows) // max(1, number - 1)
        stop = start + rows
        last = height if index == number - 1 else stop - halo
        strips.append(Strip(start, stop, first, last))
        first = last
    return strips
