"""How much a reading speaks for each base: joint fit and network weighed by how structured the image is."""

import numpy as np
from numpy.typing import NDArray

from calib.calling.reading import Reading
from calib.jointfit.chemistry import SPREAD

FIT_LOSS = 0.8
"""Share of its weight that the fit loses where all that it left over is structure."""

NETWORK_WEIGHT = 4.0
"""Weight of the network's evidence there. Over noise alone the fit is all there is to know."""

EVIDENCE_FLOOR = 0.02
"""Evidence of the network that says nothing."""


def log_evidence(reading: Reading, shares: NDArray[np.floating], loudness: float = 1.0) -> NDArray[np.float64]:
    """(n, 4) log-likelihood of each base, up to what all four share; NaN for a cluster outside the image.

    A cluster shows its base's light with a Gaussian error of the chemistry's spread and the image's.
    Where the image has structure that no cluster explains, such as tissue, the network, which has
    learnt what clusters look like, is heard instead.

    Parameters
    ----------
    shares : (n, 4) the reading's, or the same after correction for phasing.
    loudness : factor on the variance of the shares that such a correction brings.
    """
    variance = loudness * (SPREAD**2 + reading.spread.astype(np.float64) ** 2)
    texture = reading.texture[:, None].astype(np.float64)
    heard = np.log(reading.centres.astype(np.float64) + EVIDENCE_FLOOR)
    fit = (shares - 0.5) / variance
    return np.asarray((1 - FIT_LOSS * texture) * fit + NETWORK_WEIGHT * texture**2 * heard)
