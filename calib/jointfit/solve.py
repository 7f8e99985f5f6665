"""Conjugate gradients for the joint fit: linear cost, warm starts, several images in one call."""

from calib.jointfit.arrays import Array, library_of
from calib.jointfit.neighbours import Overlap

ITERATIONS = 20
TOLERANCE = 1e-3


def solve(overlap: Overlap, ridge: Array, wanted: Array, start: Array) -> Array:
    """Solve ``(overlap + ridge) x = wanted`` by conjugate gradients with Jacobi preconditioning.

    Each of the b images is a separate system; a system that is solved does not change while the others continue.

    Parameters
    ----------
    overlap : positive semidefinite matrices.
    ridge : (b, 1) added to their diagonals.
    wanted, start : (b, n) right-hand sides and initial guesses.
    """
    library = library_of(wanted)
    left_over, combined, next_solution, next_direction = (
        library.fuse(one) for one in (_left_over, _combined, _next_solution, _next_direction)
    )

    def dot(a: Array, b: Array) -> Array:
        return library.dot(a, b, axis=1, keepdims=True)

    scale = overlap.own + ridge
    x = start
    rest = left_over(wanted, overlap.others(x), scale, x)
    step = direction = rest / scale
    length = dot(rest, step)
    enough = TOLERANCE**2 * dot(wanted, wanted / scale)
    most = library.to_host(enough)
    for _ in range(ITERATIONS):
        if (library.to_host(length) <= most).all():
            break
        product = combined(overlap.others(direction), scale, direction)
        x, rest, step = next_solution(x, rest, direction, product, scale, length, dot(direction, product), enough)
        before, length = length, dot(rest, step)
        direction = next_direction(step, direction, length, before, enough)
    return x


def _left_over(wanted: Array, others: Array, scale: Array, x: Array) -> Array:
    return wanted - (others + scale * x)


def _combined(start: Array, factor: Array, direction: Array) -> Array:
    return start + factor * direction


def _next_solution(
    x: Array, rest: Array, direction: Array, product: Array, scale: Array, length: Array, weight: Array, enough: Array
) -> tuple[Array, Array, Array]:
    """Return the next solution, its residual, and the preconditioned residual."""
    share = _ratio(length, weight, enough)
    rest = rest - share * product
    return x + share * direction, rest, rest / scale


def _next_direction(step: Array, direction: Array, length: Array, before: Array, enough: Array) -> Array:
    return step + _ratio(length, before, enough) * direction


def _ratio(length: Array, divisor: Array, enough: Array) -> Array:
    """``length / divisor``; 0 for a system whose squared residual is small ``enough``, where both may be 0."""
    return (length > enough) * length / (divisor + (length <= enough))
