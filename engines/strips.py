"""The module cuts a tile into strips of rows; computing the strips gives the same numbers as computing the tile."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Strip:
    """Rows ``[input_start, input_stop)`` of the tile go through the network. From the result, the tile's rows
    ``[output_start, output_stop)`` are kept.
    """

    input_start: int
    input_stop: int
    output_start: int
    output_stop: int


def plan_strips(*, height: int, width: int, halo: int, most_px: int) -> list[Strip]:
    """Strips of equal height that cover a tile, each with ``halo`` rows of context on inner sides.

    Strips span the full width, so only rows need a halo. All strips have the same shape, so an engine compiles once.
    Where the number of rows cannot be divided evenly among the strips, the strips overlap a little more.

    Parameters
    ----------
    halo : rows that an output row depends on, to each side.
    most_px : pixels a strip should not exceed. But a strip has at least ``2 * halo`` rows besides its
        halo, so that at most half of its rows are halo.
    """
    number, rows = 1, height
    while rows * width > most_px:
        # Every inner edge adds a halo to both of its strips.
        fewer = math.ceil((height + 2 * halo * number) / (number + 1))
        if fewer < 4 * halo:
            break
        number, rows = number + 1, fewer
    strips, output_start = [], 0
    for index in range(number):
        input_start = index * (height - rows) // max(1, number - 1)
        input_stop = input_start + rows
        output_stop = height if index == number - 1 else input_stop - halo
        strips.append(Strip(input_start, input_stop, output_start, output_stop))
        output_start = output_stop
    return strips
