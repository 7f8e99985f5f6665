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
    phasing, prephasing : probability a cycle.

    Returns
    -------
    (cycles,) shares, 0-based read position. With both rates 0 all strands show ``cycle - 1``.
    """
    step = np.array([phasing, 1 - phasing - prephasing, prephasing])
    shares = np.array([1.0])
    for _ in range(cycle):
        shares = np.convolve(shares, step)
    # Index k of `shares` is k synthesised bases, of which the last one is shown.
    shown = np.zeros(cycles)
    shown_shares = shares[1 : cycles + 1]
    shown[: len(shown_shares)] = shown_shares
    return shown


def emission(*, reads: NDArray[np.uint8], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each base in the light of every cluster.

    Parameters
    ----------
    reads : (n, cycles) bases 0-3.
    weights : (cycles,) from :func:`phasing_weights`.

    Returns
    -------
    (n, 4) shares that sum to at most 1.
    """
    shares = np.zeros((len(reads), 4))
    for position in np.flatnonzero(weights > 1e-6):
        shares[np.arange(len(reads)), reads[:, position]] += weights[position]
    return shares
