"""Conjugate gradients for the joint fit: linear cost, warm starts, all images of a stack at once."""

from calib.jointfit.arrays import Array, library_of
from calib.jointfit.neighbours import Overlap

ITERATIONS = 20
TOLERANCE = 1e-3


def solve(overlap: Overlap, ridge: Array, wanted: Array, start: Array) -> Array:
    """Solve ``(overlap + ridge) x = wanted`` by conjugate gradients with Jacobi preconditioning.

    The images of a stack are systems of their own; one that is solved waits for the others.

    Parameters
    ----------
    overlap : positive semidefinite.
    ridge : (b, 1).
    wanted, start : (b, n).
    """
    library = library_of(wanted)
    left_over, combined, advanced, turned = (library.fused(one) for one in (_left_over, _combined, _advanced, _turned))

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
        pushed = combined(overlap.others(direction), scale, direction)
        x, rest, step = advanced(x, rest, direction, pushed, scale, length, dot(direction, pushed), enough)
        before, length = length, dot(rest, step)
        direction = turned(step, direction, length, before, enough)
    return x


def _left_over(wanted: Array, others: Array, scale: Array, x: Array) -> Array:
    return wanted - (others + scale * x)


def _combined(start: Array, factor: Array, direction: Array) -> Array:
    return start + factor * direction


def _advanced(
    x: Array, rest: Array, direction: Array, pushed: Array, scale: Array, length: Array, weight: Array, enough: Array
) -> tuple[Array, Array, Array]:
    """The next solution, what it leaves over, and that preconditioned."""
    share = _ratio(length, weight, enough)
    rest = rest - share * pushed
    return x + share * direction, rest, rest / scale


def _turned(step: Array, direction: Array, length: Array, before: Array, enough: Array) -> Array:
    return step + _ratio(length, before, enough) * direction


def _ratio(length: Array, below: Array, enough: Array) -> Array:
    """``length / below``; 0 for a system that is solved, where both may be 0."""
    return (length > enough) * length / (below + (length <= enough))
