"""Cutting a tile into strips of rows that give the same numbers as the whole."""

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
    an engine compile once; the last one overlaps its neighbour where rows do not divide evenly.

    Parameters
    ----------
    halo : rows that an output row depends on, to each side.
    most_px : pixels a strip should not exceed. A strip keeps at least ``2 * halo`` rows of its
        own all the same, so that the context never costs more than the content.
    """
    if height * width <= most_px or height <= 4 * halo:
        return [Strip(0, height, 0, height)]
    rows = max(most_px // width, 4 * halo)
    if rows >= height:
        return [Strip(0, height, 0, height)]
    kept = rows - 2 * halo
    strips, first = [], 0
    while first < height:
        start = min(max(first - halo, 0), height - rows)
        stop = start + rows
        last = height if stop == height else min(stop - halo, height)
        strips.append(Strip(start, stop, first, last))
        first = last
    assert kept > 0
    assert strips[-1].last == height
    return strips
