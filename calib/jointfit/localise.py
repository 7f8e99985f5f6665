"""The template by joint localisation: all clusters of a tile fitted together over its first cycles.

Every cycle lights about a quarter of the clusters in each channel, so clusters that share pixels
separate over the cycles, as in localisation microscopy. The search starts with the clusters for which the
network's evidence is strong. In every round it fits the light of all clusters in all images, and moves clusters,
images and spot widths so that the residual becomes smaller. It adds clusters where the residual is
significant and the network has seen a cluster, splits clusters whose light comes from two places, and
removes spurious clusters (:mod:`calib.jointfit.modelselection`) every few rounds.

``docs/benchmarks/template-constants.md`` shows how much each constant matters.
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
"""Sigma of the spots at the start, its lower and its upper bound; the bounds are a little wider than the range of
widths that the network is trained with."""

WIDTH_ROUNDS = 3
"""First rounds, in which no cluster is added: with a wrong width, the search would add clusters to fit the spots."""

ROUNDS = 17
ADD_UNTIL = 12
"""Clusters are added in rounds before this one."""

SPLIT_AT = frozenset({6, 8, 10})
"""Clusters are split in these rounds."""

SELECT_AT = frozenset({6, 9, 12, 14, 15})
"""Spurious clusters are removed in these rounds."""

ONE_BASE_FROM = 7
"""From this round on, the ridge expects that each cluster shows one base in each cycle."""

MAX_WIDTH_LIGHT = 3.0
"""Largest weight of a spot in the estimate of widths, as a multiple of the median light."""

STEP = 0.7
MAX_STEP_PX = 0.3
"""Damping and largest length of a Gauss-Newton step; both keep crowded fits from oscillating."""

ADD_SIGNIFICANCE = 2.5
"""A cluster is added where the mean residual of the cycles exceeds this many standard deviations of the noise."""

ADD_MAX_CYCLE = 7.5
"""In the mean of :data:`ADD_SIGNIFICANCE`, one cycle counts at most this much, so that a flash of light in one cycle
adds no cluster."""

ADD_SUPPORT = 0.15
"""A cluster is added only where the network sees one in at least this share of the cycles, because the texture of
tissue also leaves a residual."""

ADD_APART_PX = 0.6
"""Smallest distance of an added cluster from every other."""

COINCIDENCE_PX = 0.45
"""Two clusters closer than this cannot be told apart; the dimmer one is removed."""

SPLIT_PX = 0.2
"""A cluster is split if the places that its light comes from spread by more than this."""

SPLIT_NOISE = 2.5
"""The variance of the places that noise causes, multiplied by this, is added to the square of :data:`SPLIT_PX`."""

SPLIT_STEP_PX = (0.3, 0.7)
"""Smallest and largest distance by which each half of a split cluster is moved."""

SPREAD_STEP = 3
"""Only every third row and column is used to measure the noise; a tile of ten cycles has enough pixels."""


@dataclass
class _Fit:
    """The state of the search, changed in every round."""

    positions: NDArray[np.float64]
    """(n, 2) y and x."""
    light: NDArray[np.float64]
    """(n, cycles, 4) peak height of each spot, normalised units."""
    shifts: NDArray[np.float64]
    """(cycles, 4, 2) shift y and x of every image."""
    sigma: NDArray[np.float64]
    """(4,) width of the spots in each channel, pixels."""
    noise: NDArray[np.float64]
    """(4,) noise of a pixel in each channel, normalised units."""
    backgrounds: NDArray[np.float32]
    """(cycles, 4, H, W)."""


@dataclass(frozen=True)
class _Residual:
    """The part of the images that a round's fit does not explain."""

    images: NDArray[np.float32]
    """(cycles, 4, H, W)."""
    moments: NDArray[np.float64]
    """(n, cycles, 4, 2) light of each cluster times the step by which the cluster would move if there were only this
    image."""


def localise(
    images: NDArray[np.float32],
    *,
    drift_px: NDArray[np.float32],
    channel_shift_px: NDArray[np.float32],
    seeds: NDArray[np.float32],
    support: NDArray[np.float32],
    on_progress: Callable[[], None] = lambda: None,
) -> Scene:
    """Find the clusters of a tile.

    Parameters
    ----------
    images : (cycles, 4, H, W) in normalised units.
    drift_px, channel_shift_px : (cycles, 2) and (4, 2) from :func:`calib.registration.align`.
    seeds : (n, 2) clusters that the network is sure of, see :func:`calib.template.detections.merge`.
    support : (H, W) share of the cycles in which the network sees a cluster near the pixel.
    on_progress : called after every image, so that a watchdog sees progress.

    Returns
    -------
    The scene, ordered by y, then x. It includes clusters just outside the image whose light reaches into it.
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
        residual = _round(fit, images, left, on_progress, one_base=index >= ONE_BASE_FROM)
        fit.noise = _spread(residual.images)
        split = _split(fit, residual) if index in SPLIT_AT else np.zeros((0, 2))
        _move(fit, residual)
        added = _left_over(fit, residual, support) if WIDTH_ROUNDS <= index < ADD_UNTIL else np.zeros((0, 2))
        if index in SELECT_AT:
            _keep(fit, ~spurious_clusters(fit.positions, fit.light, fit.sigma, fit.noise))
        _append(fit, np.concatenate([split, added]))
        _keep(fit, ~_coinciding(fit))
    return _scene(fit)


def _round(
    fit: _Fit,
    images: NDArray[np.float32],
    left: NDArray[np.float32],
    on_progress: Callable[[], None],
    *,
    one_base: bool,
) -> _Residual:
    """Fit the light of every image, and write the residual images to ``left``."""
    shape = (images.shape[2], images.shape[3])
    neighbours = Neighbours.find(fit.positions, fit.sigma)
    channel_shift = fit.shifts.mean(axis=0)
    expected = np.zeros_like(fit.light)
    if one_base:
        crosstalk = estimate_crosstalk(fit.light)
        shown = usual_brightness(fit.light, crosstalk)
        expected = np.moveaxis(expected_light(np.moveaxis(fit.light, -1, 0), shown, crosstalk), 0, -1)
    brightest = MAX_WIDTH_LIGHT * float(np.median(fit.light.max(axis=2))) or np.inf
    moments = np.zeros((*fit.light.shape, 2))
    # Each image is a stack of one image for the solver.
    sigmas = fit.sigma[:, None].copy()
    overlap = [
        overlaps((fit.positions + channel_shift[channel])[None], neighbours, sigmas[channel], shape)
        for channel in range(4)
    ]

    def fit_image(cycle: int, channel: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return two arrays over the lit spots: their true minus their assumed width, and their light as weights."""
        sigma = sigmas[channel]
        spots = Spots((fit.positions + fit.shifts[cycle, channel])[None], sigma, shape)
        above = images[cycle, [channel]] - fit.backgrounds[cycle, channel]
        ridge = RIDGE * np.pi * sigma[:, None] ** 2
        wanted = spots.read(above) + ridge * expected[:, cycle, channel]
        light = solve(overlap[channel], ridge, wanted, fit.light[None, :, cycle, channel])
        rest = above - spots.draw(light)
        y, x, squared = (moment[0] for moment in spots.read_moments(rest))
        # The gradient of a spot is its height times distance over sigma²; its square integrates to pi / 2.
        moments[:, cycle, channel] = np.stack([y, x], axis=1) / (np.pi / 2 * sigma**2)
        fit.backgrounds[cycle, channel] += background_step(rest, fit.noise[[channel]])[0]
        fit.light[:, cycle, channel] = light[0]
        left[cycle, channel] = rest[0]
        on_progress()
        shown = light[0] > 0
        return squared[shown] / (np.pi * sigma**3 * light[0, shown]), np.minimum(light[0, shown], brightest)

    widths = in_parallel(fit_image, [(cycle, channel) for cycle in range(len(images)) for channel in range(4)])
    for channel in range(4):
        wider, lit = (np.concatenate(of_cycles) for of_cycles in zip(*widths[channel::4], strict=True))
        step = STEP * np.clip(_weighted_median(wider, lit**2), -0.2, 0.2)
        fit.sigma[channel] = np.clip(fit.sigma[channel] + step, MIN_SIGMA_PX, MAX_SIGMA_PX)
    return _Residual(left, moments)


def _move(fit: _Fit, residual: _Residual) -> None:
    """Gauss-Newton steps of clusters and images, weighted by light and noise."""
    lit = np.maximum(fit.light, 0) / fit.noise**2
    pull = lit[..., None] * residual.moments
    weight = (lit * np.maximum(fit.light, 0))[..., None]
    # The constant keeps clusters of little light where they are.
    steps = pull.sum(axis=(1, 2)) / (weight.sum(axis=(1, 2)) + 2 / np.pi)
    fit.positions += STEP * np.clip(steps, -MAX_STEP_PX, MAX_STEP_PX)
    shifts = np.clip(pull.sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-9), -MAX_STEP_PX, MAX_STEP_PX)
    # The mean shift of all images is removed, because moving the clusters has the same effect.
    fit.shifts += STEP * (shifts - shifts.mean(axis=(0, 1)))


def _split(fit: _Fit, residual: _Residual) -> NDArray[np.float64]:
    """Move every cluster whose light comes from two places to one of them, and return the (m, 2) other places.

    Each image in which a cluster is lit shows where its light comes from. The largest eigenvalue of
    the weighted covariance of these places is compared with the variance that noise explains.
    """
    lit = np.maximum(fit.light, 0)
    used = np.where(lit > 0.3 * lit.max(axis=2, keepdims=True), lit / fit.noise, 0.0)
    total = (used**2).sum(axis=(1, 2)) + 1e-9
    places = np.clip(residual.moments / np.maximum(lit, 1e-9)[..., None], -2, 2)
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


def _left_over(fit: _Fit, residual: _Residual, support: NDArray[np.float32]) -> NDArray[np.float64]:
    """(m, 2) places where the residual is significant on average over the cycles."""

    def brightest_of(cycle: int) -> NDArray[np.float32]:
        brightest = np.full(support.shape, -np.inf, np.float32)
        for channel, image in enumerate(residual.images[cycle]):
            sigma = float(fit.sigma[channel])
            # Multiplied by this factor, a normalised Gaussian filter has noise of variance 1.
            matched = gaussian_filter(image, sigma) * (2 * np.sqrt(np.pi) * sigma / fit.noise[channel])
            moved = shift(matched, -fit.shifts[cycle, channel], order=1, mode="nearest")
            np.maximum(brightest, moved, out=brightest)
        return np.asarray(np.minimum(brightest, ADD_MAX_CYCLE) / len(residual.images), np.float32)

    mean = np.zeros(support.shape, np.float32)
    for brightest in in_parallel(brightest_of, [(cycle,) for cycle in range(len(residual.images))]):
        mean += brightest
    peaks = (mean == maximum_filter(mean, 3)) & (mean > ADD_SIGNIFICANCE) & (support > ADD_SUPPORT)
    places = np.argwhere(peaks).astype(np.float64)
    if len(places) == 0:
        return places.reshape(0, 2)
    return np.asarray(places[cKDTree(fit.positions).query(places)[0] > ADD_APART_PX])


def _coinciding(fit: _Fit) -> NDArray[np.bool_]:
    """(n,) whether a cluster has moved onto a brighter one."""
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
    """The value below which half of the weight lies; 0 if there are no values. Dust and debris hardly change it."""
    if len(values) == 0:
        return 0.0
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(below, below[-1] / 2)]])


def _pixel_noise(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(4,) noise of a pixel, from differences of neighbouring pixels, which spots change little."""
    return np.asarray(_spread(np.diff(images, axis=3)) / np.sqrt(2))


def _spread(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(4,) robust standard deviation about zero; at least 1e-6, because later steps divide by it."""
    some = images[:, :, ::SPREAD_STEP, ::SPREAD_STEP]
    spread = [1.4826 * float(np.median(np.abs(some[:, channel]))) for channel in range(4)]
    return np.asarray(np.maximum(spread, 1e-6), np.float64)
