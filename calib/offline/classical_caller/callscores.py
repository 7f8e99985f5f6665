"""Chastity, the filter by chastity, and a score for every call."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

MIN_CHASTITY = 0.6
FILTER_CYCLES = 25
MAX_FAILURES = 1
"""The filter of CASAVA, Illumina's older software: at most one of the first 25 cycles may have a lower chastity."""

HIGHEST, LOWEST = 40, 2
NO_CALL = 0
"""Quality of a no-call."""


def chastity(intensities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Purity of each call: strongest base over the sum of the two strongest.

    Parameters
    ----------
    intensities : (..., 4) corrected for cross-talk and phasing.

    Returns
    -------
    (...) in [0.5, 1]; NaN where no base is above zero or the cycle is missing.
    """
    second, top = np.moveaxis(np.sort(intensities, axis=-1)[..., 2:], -1, 0)
    total = top + np.maximum(second, 0)
    return np.asarray(np.divide(top, total, out=np.full_like(top, np.nan), where=top > 0), np.float32)


def passes_filter(purity: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) which clusters pass the filter, from their chastity (n, cycles); a missing cycle is a failure."""
    failures = ~(purity[:, :FILTER_CYCLES] >= MIN_CHASTITY)
    return np.asarray(failures.sum(axis=1) <= MAX_FAILURES)


def qualities(intensities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Phred score of the strongest base.

    A cluster's noise is the root mean square of what it shows in the bases that were not called, over
    all its cycles: shot noise, and the light of neighbours. The noise is taken as Gaussian. A call is wrong if the
    noise of two bases exceeds the distance between the two strongest; each of the three other bases can
    exceed it.

    Parameters
    ----------
    intensities : (n, cycles, 4) corrected for cross-talk and phasing; NaN where a cycle is missing.

    Returns
    -------
    (n, cycles) from 2 to 40; 0 where nothing was called.
    """
    ranked = np.sort(intensities, axis=2)
    others = np.nan_to_num(ranked[:, :, :3]) ** 2
    known = np.maximum(np.isfinite(ranked[:, :, 3]).sum(axis=1), 1)
    noise = np.sqrt(others.sum(axis=(1, 2)) / (3 * known))
    apart = (ranked[:, :, 3] - ranked[:, :, 2]) / (np.sqrt(2) * np.maximum(noise, 1e-9))[:, None]
    wrong = np.clip(3 * ndtr(-apart), 10 ** (-HIGHEST / 10), 1)
    phred = np.clip(np.rint(-10 * np.log10(wrong)), LOWEST, HIGHEST)
    return np.where(ranked[:, :, 3] > 0, np.nan_to_num(phred), NO_CALL).astype(np.uint8)
