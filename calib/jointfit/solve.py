"""Conjugate gradients for the joint fit: linear cost, warm starts."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

ITERATIONS = 20
TOLERANCE = 1e-3


def solve(
    overlap: csr_matrix, ridge: float, wanted: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve ``(overlap + ridge) x = wanted`` by conjugate gradients with Jacobi preconditioning.

    Parameters
    ----------
    overlap : (n, n), positive semidefinite.
    wanted, start : (n,).
    """
    scale = overlap.diagonal() + ridge
    x = start.copy()
    rest = wanted - (overlap @ x + ridge * x)
    step = rest / scale
    direction = step.copy()
    length = rest @ step
    enough = TOLERANCE**2 * (wanted @ (wanted / scale))
    for _ in range(ITERATIONS):
        if length <= enough:
            break
        pushed = overlap @ direction + ridge * direction
        along = length / (direction @ pushed)
        x += along * direction
        rest -= along * pushed
        step = rest / scale
        before, length = length, rest @ step
        direction = step + (length / before) * direction
    return x
