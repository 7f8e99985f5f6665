"""Chemistry: what every cluster emits in a cycle, given its read."""

import numpy as np
from numpy.typing import NDArray


def phasing_weights(*, cycle: int, cycles: int, phasing: float, prephasing: float) -> NDArray[np.float64]:
    """Share of a cluster's strands that show each read position.

    Every cycle a strand stays behind with probability ``phasing``, runs ahead by one with
    probability ``prephasing`` and otherwise advances by one.

    Parameters
    ----------
    cycle : 1-based cycle.
    cycles : positions of the read; strands that ran past it are dark.
    phasing, prephasing : probability per cycle.

    Returns
    -------
    (cycles,) shares, 0-based read position. With both rates 0 all strands show ``cycle - 1``.
    """
    step = np.array([phasing, 1 - phasing - prephasing, prephasing])
    shares = np.array([1.0])
    for _ in range(cycle):
        shares = np.convolve(shares, step)
    # `shares[k]` is the share of strands with k synthesised bases; such a strand shows the base at position k - 1.
    shown = np.zeros(cycles)
    shown_shares = shares[1 : cycles + 1]
    shown[: len(shown_shares)] = shown_shares
    return shown


def accumulated_weights(
    *, cycle: int, cycles: int, phasing: float, prephasing: float, carried: float
) -> NDArray[np.float64]:
    """Read positions that a dye shows when a share of its light stays on the strands from cycle to cycle.

    The share ``carried`` of a cycle's light is left in the next cycle, its square in the cycle after that, and so on.
    If a dye is incorporated in every cycle, its light adds up to (1 - carried^cycle) / (1 - carried).

    Parameters
    ----------
    cycle, cycles, phasing, prephasing : as for :func:`phasing_weights`.
    carried : share of the light carried over to the next cycle, below 1.

    Returns
    -------
    (cycles,) light from each read position, relative to the light of one incorporated dye; the sum may exceed 1.
    What is left of a cycle's light is ignored once it is below 1e-4.
    """
    weights = np.zeros(cycles)
    for back in range(cycle):
        left = carried**back
        if left < 1e-4:
            break
        weights += left * phasing_weights(cycle=cycle - back, cycles=cycles, phasing=phasing, prephasing=prephasing)
    return weights


def emission(*, reads: NDArray[np.uint8], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each base in the light of every cluster.

    Parameters
    ----------
    reads : (n, cycles) bases 0-3.
    weights : (cycles,) from :func:`phasing_weights`.

    Returns
    -------
    (n, 4) shares that sum to the sum of the weights.
    """
    shares = np.zeros((len(reads), 4))
    for position in np.flatnonzero(weights > 1e-6):
        shares[np.arange(len(reads)), reads[:, position]] += weights[position]
    return shares
