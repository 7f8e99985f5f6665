"""The template by joint localisation: all clusters of a tile fitted together over its first cycles.

Every cycle lights about a quarter of the clusters in each channel, so clusters that share pixels
separate over the cycles, as in localisation microscopy. From the clusters that the network is sure
of, rounds of: fit the light of all clusters in all images; move clusters, images and spot widths
along what is left over; add clusters where light is left over and the network has seen something;
split clusters whose light comes from two places; and, every few rounds, take out those that are not
one more cluster (:mod:`calib.jointfit.modelselection`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, shift
from scipy.spatial import cKDTree

from calib.crosstalk import estimate_crosstalk
from calib.jointfit.colourprior import expected_light, usual_brightness
from calib.jointfit.fitcycle import RIDGE, background_step, start_background
from calib.jointfit.gaussianspots import Spots
from calib.jointfit.modelselection import spurious_clusters
from calib.jointfit.neighbours import Neighbours, overlaps
from calib.jointfit.scene import Scene
from calib.jointfit.smoothing import in_parallel
from calib.jointfit.solve import solve

SIGMA_START_PX, MIN_SIGMA_PX, MAX_SIGMA_PX = 1.3, 0.6, 4.0

WIDTH_ROUNDS = 3
"""First rounds, in which only positions, shifts and widths move: a wrong width would be mended with clusters."""

ADD_UNTIL = 12
SPLIT_AT = frozenset({6, 8, 10})
SELECT_AT = frozenset({6, 9, 12, 14, 15})
CHEMISTRY_FROM = 7
ROUNDS = 17

MAX_WIDTH_WEIGHT = 3.0
"""Light, in shares of the usual, above which a spot says no more about widths."""

STEP = 0.7
MAX_STEP_PX = 0.3

ADD_SIGNIFICANCE = 2.5
"""Light left over, in noises and averaged over the cycles, from which a cluster is added."""

ADD_MAX_CYCLE = 7.5
"""What one cycle counts at most in that average, so that a flash in one cycle is no cluster."""

ADD_SUPPORT = 0.15
"""Share of the cycles in which the network must see something there: texture is left over too."""

ADD_APART_PX = 0.6
COINCIDENCE_PX = 0.45
"""Two clusters closer than this cannot be told apart."""

SPLIT_PX = 0.2
"""Spread of a cluster's light, beyond what noise explains, from which it is split."""

SPLIT_NOISE = 2.5
SPLIT_STEP_PX = (0.3, 0.7)


SPREAD_STEP = 3
"""Every so manyth row and column says how far residuals spread; a tile of ten cycles has pixels in plenty."""


@dataclass
class _Fit:
    """What moves from round to round."""

    positions: NDArray[np.float64]
    """(n, 2)."""
    light: NDArray[np.float64]
    """(n, cycles, 4)."""
    shifts: NDArray[np.float64]
    """(cycles, 4, 2) of every image."""
    sigma: NDArray[np.float64]
    """(4,)."""
    noise: NDArray[np.float64]
    """(4,) of a pixel."""
    backgrounds: NDArray[np.float32]
    """(cycles, 4, H, W)."""


@dataclass(frozen=True)
class _Rest:
    """What a round's fit leaves over."""

    images: NDArray[np.float32]
    """(cycles, 4, H, W)."""
    along: NDArray[np.float64]
    """(n, cycles, 4, 2) distance that each image would move each cluster, times its light: pixels × height."""


def localise(
    images: NDArray[np.float32],
    *,
    drift_px: NDArray[np.float32],
    channel_shift_px: NDArray[np.float32],
    seeds: NDArray[np.float32],
    support: NDArray[np.float32],
    worked: Callable[[], None] = lambda: None,
) -> Scene:
    """Find the clusters of a tile.

    Parameters
    ----------
    images : (cycles, 4, H, W) in normalised units.
    drift_px, channel_shift_px : (cycles, 2) and (4, 2) from :func:`calib.registration.align`.
    seeds : (n, 2) clusters that the network is sure of, see :func:`calib.template.detections.merge`.
    support : (H, W) share of the cycles in which the network sees a cluster near the pixel.
    worked : called now and then, so that a watchdog sees progress.

    Returns
    -------
    The scene, ordered by y, then x. Clusters just outside the image are among it: their light
    reaches in.
    """
    cycles = len(images)
    fit = _Fit(
        positions=seeds.astype(np.float64),
        light=np.zeros((len(seeds), cycles, 4)),
        shifts=(drift_px[:, None] + channel_shift_px[None]).astype(np.float64),
        sigma=np.full(4, SIGMA_START_PX),
        noise=_pixel_noise(images),
        backgrounds=np.broadcast_to(start_background(images), images.shape).copy(),
    )
    left = np.empty_like(images)
    for index in range(ROUNDS):
        if len(fit.positions) == 0:
            break
        rest = _round(fit, images, left, worked, chemistry=index >= CHEMISTRY_FROM)
        fit.noise = _spread(rest.images)
        split = _split(fit, rest) if index in SPLIT_AT else np.zeros((0, 2))
        _move(fit, rest)
        added = _left_over(fit, rest, support) if WIDTH_ROUNDS <= index < ADD_UNTIL else np.zeros((0, 2))
        if index in SELECT_AT:
            _keep(fit, ~spurious_clusters(fit.positions, fit.light, fit.sigma, fit.noise))
        _append(fit, np.concatenate([split, added]))
        _keep(fit, ~_coinciding(fit))
    return _scene(fit)


def _round(
    fit: _Fit, images: NDArray[np.float32], left: NDArray[np.float32], worked: Callable[[], None], *, chemistry: bool
) -> _Rest:
    """Fit the light of every image, and see what is left over; that is written to ``left``."""
    shape = (images.shape[2], images.shape[3])
    neighbours = Neighbours.within(fit.positions, fit.sigma)
    channel_shift = fit.shifts.mean(axis=0)
    expected = np.zeros_like(fit.light)
    if chemistry:
        crosstalk = estimate_crosstalk(fit.light)
        shown = usual_brightness(fit.light, crosstalk)
        expected = np.moveaxis(expected_light(np.moveaxis(fit.light, -1, 0), shown, crosstalk), 0, -1)
    brightest = MAX_WIDTH_WEIGHT * float(np.median(fit.light.max(axis=2))) or np.inf
    along = np.zeros((*fit.light.shape, 2))
    # Of stacks of one image.
    sigmas = fit.sigma[:, None].copy()
    overlap = [
        overlaps((fit.positions + channel_shift[channel])[None], neighbours, sigmas[channel], shape)
        for channel in range(4)
    ]

    def fit_image(cycle: int, channel: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns how much wider the lit spots are than they are taken to be, and their light."""
        sigma = sigmas[channel]
        spots = Spots((fit.positions + fit.shifts[cycle, channel])[None], sigma, shape)
        above = images[cycle, [channel]] - fit.backgrounds[cycle, channel]
        ridge = RIDGE * np.pi * sigma[:, None] ** 2
        wanted = spots.read(above) + ridge * expected[:, cycle, channel]
        light = solve(overlap[channel], ridge, wanted, fit.light[None, :, cycle, channel])
        rest = above - spots.draw(light)
        y, x, squared = (moment[0] for moment in spots.read_moments(rest))
        # The gradient of a spot is its height times distance over sigma²; its square integrates to pi / 2.
        along[:, cycle, channel] = np.stack([y, x], axis=1) / (np.pi / 2 * sigma**2)
        fit.backgrounds[cycle, channel] += background_step(rest, fit.noise[[channel]])[0]
        fit.light[:, cycle, channel] = light[0]
        left[cycle, channel] = rest[0]
        worked()
        shown = light[0] > 0
        return squared[shown] / (np.pi * sigma**3 * light[0, shown]), np.minimum(light[0, shown], brightest)

    widths = in_parallel(fit_image, [(cycle, channel) for cycle in range(len(images)) for channel in range(4)])
    for channel in range(4):
        wider, lit = (np.concatenate(of_cycles) for of_cycles in zip(*widths[channel::4], strict=True))
        step = STEP * np.clip(_weighted_median(wider, lit**2), -0.2, 0.2)
        fit.sigma[channel] = np.clip(fit.sigma[channel] + step, MIN_SIGMA_PX, MAX_SIGMA_PX)
    return _Rest(left, along)


def _move(fit: _Fit, rest: _Rest) -> None:
    """Gauss-Newton steps of clusters and images, weighted by light and noise."""
    lit = np.maximum(fit.light, 0) / fit.noise**2
    pull = lit[..., None] * rest.along
    weight = (lit * np.maximum(fit.light, 0))[..., None]
    # A cluster that hardly shows has no say about where it is.
    steps = pull.sum(axis=(1, 2)) / (weight.sum(axis=(1, 2)) + 2 / np.pi)
    fit.positions += STEP * np.clip(steps, -MAX_STEP_PX, MAX_STEP_PX)
    shifts = np.clip(pull.sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-9), -MAX_STEP_PX, MAX_STEP_PX)
    # What all images share is where the clusters are.
    fit.shifts += STEP * (shifts - shifts.mean(axis=(0, 1)))


def _split(fit: _Fit, rest: _Rest) -> NDArray[np.float64]:
    """Move clusters whose light comes from two places to one of them; returns (m, 2) the others.

    Each image in which a cluster is lit says where its light comes from; the largest eigenvalue of
    the weighted covariance of these places is compared with what noise explains.
    """
    lit = np.maximum(fit.light, 0)
    used = np.where(lit > 0.3 * lit.max(axis=2, keepdims=True), lit / fit.noise, 0.0)
    total = (used**2).sum(axis=(1, 2)) + 1e-9
    places = np.clip(rest.along / np.maximum(lit, 1e-9)[..., None], -2, 2)
    mean = (used[..., None] ** 2 * places).sum(axis=(1, 2)) / total[:, None]
    away = places - mean[:, None, None]
    yy, xx, yx = ((used**2 * away[..., a] * away[..., b]).sum(axis=(1, 2)) / total for a, b in ((0, 0), (1, 1), (0, 1)))
    largest = (yy + xx + np.sqrt((yy - xx) ** 2 + 4 * yx**2)) / 2
    by_noise = (used > 0).sum(axis=(1, 2)) * (2 / np.pi) / total
    two = largest > SPLIT_PX**2 + SPLIT_NOISE * by_noise
    angle = np.arctan2(2 * yx, yy - xx)[two] / 2
    reach = np.clip(np.sqrt(largest[two] - by_noise[two]), *SPLIT_STEP_PX)
    step = reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    others = fit.positions[two] - step
    fit.positions[two] += step
    return np.asarray(others)


def _left_over(fit: _Fit, rest: _Rest, support: NDArray[np.float32]) -> NDArray[np.float64]:
    """(m, 2) places where the light left over is significant, averaged over the cycles."""

    def brightest_of(cycle: int) -> NDArray[np.float32]:
        brightest = np.full(support.shape, -np.inf, np.float32)
        for channel, image in enumerate(rest.images[cycle]):
            sigma = float(fit.sigma[channel])
            # A normalised Gaussian filter times this has the noise of one pixel.
            matched = gaussian_filter(image, sigma) * (2 * np.sqrt(np.pi) * sigma / fit.noise[channel])
            moved = shift(matched, -fit.shifts[cycle, channel], order=1, mode="nearest")
            np.maximum(brightest, moved, out=brightest)
        return np.asarray(np.minimum(brightest, ADD_MAX_CYCLE) / len(rest.images), np.float32)

    mean = np.zeros(support.shape, np.float32)
    for brightest in in_parallel(brightest_of, [(cycle,) for cycle in range(len(rest.images))]):
        mean += brightest
    peaks = (mean == maximum_filter(mean, 3)) & (mean > ADD_SIGNIFICANCE) & (support > ADD_SUPPORT)
    places = np.argwhere(peaks).astype(np.float64)
    if len(places) == 0:
        return places.reshape(0, 2)
    return np.asarray(places[cKDTree(fit.positions).query(places)[0] > ADD_APART_PX])


def _coinciding(fit: _Fit) -> NDArray[np.bool_]:
    """(n,) clusters that have moved onto a brighter one."""
    light = fit.light.max(axis=2).sum(axis=1)
    gone = np.zeros(len(light), bool)
    pairs = cKDTree(fit.positions).query_pairs(COINCIDENCE_PX, output_type="ndarray")
    gone[np.where(light[pairs[:, 0]] < light[pairs[:, 1]], pairs[:, 0], pairs[:, 1])] = True
    return gone


def _keep(fit: _Fit, kept: NDArray[np.bool_]) -> None:
    fit.positions, fit.light = fit.positions[kept], fit.light[kept]


def _append(fit: _Fit, positions: NDArray[np.float64]) -> None:
    fit.positions = np.concatenate([fit.positions, positions])
    fit.light = np.concatenate([fit.light, np.zeros((len(positions), *fit.light.shape[1:]))])


def _scene(fit: _Fit) -> Scene:
    order = np.lexsort((fit.positions[:, 1], fit.positions[:, 0]))
    fit.positions, fit.light = fit.positions[order], fit.light[order]
    crosstalk = estimate_crosstalk(fit.light)
    channel_shift = fit.shifts.mean(axis=0)
    return Scene(
        positions=fit.positions,
        brightness=np.maximum(usual_brightness(fit.light, crosstalk), 0),
        channel_shift_px=channel_shift - channel_shift.mean(axis=0),
        sigma_px=fit.sigma,
        noise=fit.noise,
        crosstalk=crosstalk,
    )


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Value with half of the weight below it, so that things of another shape do not move it; 0 for none."""
    if len(values) == 0:
        return 0.0
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(below, below[-1] / 2)]])


def _pixel_noise(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(4,) from differences of neighbouring pixels, which spots hardly touch."""
    return np.asarray(_spread(np.diff(images, axis=3)) / np.sqrt(2))


def _spread(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(4,) robust standard deviation about zero; at least a trace, so that blank images divide nothing by zero."""
    some = images[:, :, ::SPREAD_STEP, ::SPREAD_STEP]
    spread = [1.4826 * float(np.median(np.abs(some[:, channel]))) for channel in range(4)]
    return np.asarray(np.maximum(spread, 1e-6), np.float64)
