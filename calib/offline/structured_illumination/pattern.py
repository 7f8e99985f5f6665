"""The module finds the stripes in the frames: carrier, phases and modulation of each orientation.

A frame n of one orientation is I_n = h * [O (1 + m cos(2 pi k r + phi_n))]: its spectrum holds the object three times:
as it is, and two copies moved by +k and by -k. The transfer function H weakens each of these three bands (Gustafsson
2000). The carrier is k, the spatial frequency of the stripes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import minimize
from scipy.signal.windows import tukey
from skimage.feature import peak_local_max

from calib.offline.structured_illumination.spectrum import Otf, ReconstructionError

PHASES = 3
ORIENTATIONS = 3
EQUAL_STEPS = np.array([0.0, 2 * np.pi / 3, 4 * np.pi / 3])

CANDIDATES = 8
"""Number of correlation peaks that are tried; in a sparse image a random peak can be higher than the carrier's."""

NEAREST_CARRIER = 0.35
"""Smallest carrier frequency that is searched for, as a share of the cutoff; stripes with a lower frequency improve the
resolution little."""

MIN_MODULATION = 0.25
MAX_MODULATION = 1.15
"""A fit is accepted if its modulation is in this range. A wrong carrier gives 0.02 to 0.2; above 1 the light would be
negative between the stripes, so the upper bound only leaves room for noise."""

PERIOD_TOLERANCE = 0.05
ANGLE_TOLERANCE_DEG = 10.0
"""The orientations are one grating turned by 60 degrees. Their frequencies may differ by this share, and the angles
between them may deviate from 60 degrees by this much."""

LOWEST = 0.15
"""Share of the cutoff below which background outweighs the object."""

FLATTENING = 0.01
"""In the search for carriers the spectra are divided by the squared transfer function. This share of its maximum is
added to the divisor, so that the divisor is not near 0."""

MIN_SEPARATION = 0.2
"""Smallest accepted ratio of the smallest to the largest singular value of the band matrix; for three equal phase steps
the ratio is 0.5."""


@dataclass(frozen=True)
class Stripes:
    """The fitted stripes of one orientation."""

    carrier: NDArray[np.float64]
    """(2,) y and x, cycles a camera pixel; x is not negative."""
    phases: NDArray[np.float64]
    """(3,) phase of each frame at pixel (0, 0), radians in 0 to 2 pi."""
    modulation: float

    @property
    def frequency(self) -> float:
        """Cycles a camera pixel."""
        return float(np.hypot(*self.carrier))

    @property
    def angle_deg(self) -> float:
        """Direction across the stripes, from x to y, -90 to 90."""
        return float(np.rad2deg(np.arctan2(*self.carrier)))


def fit_stripes(frames: NDArray[np.float64], otf: Otf) -> Stripes:
    """Fit the stripes of one orientation.

    The spectra of the frames hold an unmoved copy of the object and copies that the carrier has moved. Candidates for
    the carrier are the peaks of the cross-correlation of these copies. The fit takes the candidate at which the moved
    copy, moved back, is most similar to the unmoved one, after each is filtered with the transfer function of the
    other. It takes the phases that make the copies most similar; the steps need not be equal. The modulation is the
    coefficient of a regression of one copy on the other, over the frequencies at which the optics pass both, after the
    power of the noise is subtracted.

    Parameters
    ----------
    frames : (3, H, W) counts; a constant offset does no harm.

    Raises
    ------
    ReconstructionError : the frames are equal, the phases do not separate the bands, the carrier is beyond the
        cutoff, or the modulation is out of range.
    """
    if not np.ptp(frames, axis=0).any():
        raise ReconstructionError("stripes: the frames of an orientation are all alike")
    spectra = _spectra(frames)
    overlaps = [_Overlap.measure(spectra, carrier, otf) for carrier in _candidates(spectra, otf)]
    overlap = max(overlaps, key=lambda one: one.agreement(one.start()))
    carrier = overlap.carrier
    if np.hypot(*carrier) > otf.cutoff:
        raise ReconstructionError(
            f"stripes of {np.hypot(*carrier):.3f} cycles/px: beyond the support of the OTF, {otf.cutoff:.3f}"
        )
    phases = overlap.phases()
    gain = overlap.gain(phases)
    stripes = Stripes(carrier, (phases + np.angle(gain)) % (2 * np.pi), float(2 * abs(gain)))
    if not MIN_MODULATION <= stripes.modulation <= MAX_MODULATION:
        raise ReconstructionError(
            f"stripes of {stripes.frequency:.3f} cycles/px at {stripes.angle_deg:.1f} degrees: fitted modulation "
            f"{stripes.modulation:.2f}, must be {MIN_MODULATION:g} to {MAX_MODULATION:g}"
        )
    return stripes


def check_consistent(stripes: list[Stripes]) -> None:
    """Check that the orientations can be one grating, turned by 60 degrees.

    Raises
    ------
    ReconstructionError : periods or angles do not fit.
    """
    frequencies = np.array([one.frequency for one in stripes])
    gaps = np.diff(np.sort([one.angle_deg % 180 for one in stripes]))
    apart = np.append(gaps, 180 - gaps.sum())
    if np.ptp(frequencies) > PERIOD_TOLERANCE * frequencies.mean():
        shown = ", ".join(f"{one:.3f}" for one in frequencies)
        raise ReconstructionError(
            f"stripes of {shown} cycles/px: orientations may differ by {100 * PERIOD_TOLERANCE:g} % at most"
        )
    if np.abs(apart - 180 / ORIENTATIONS).max() > ANGLE_TOLERANCE_DEG:
        shown = ", ".join(f"{one.angle_deg:.1f}" for one in stripes)
        raise ReconstructionError(
            f"stripes at {shown} degrees: must lie 60 degrees apart, give or take {ANGLE_TOLERANCE_DEG:g}"
        )


def separated(spectra: NDArray[np.complex128], phases: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Separate the spectra of three frames into (3, H, W): the object, and the object moved by +k and by -k.

    Raises
    ------
    ReconstructionError : the phases are too much alike.
    """
    mixing = _mixing(phases)
    singular = np.linalg.svd(mixing, compute_uv=False)
    if singular[-1] < MIN_SEPARATION * singular[0]:
        shown = ", ".join(f"{phase % (2 * np.pi):.2f}" for phase in phases)
        raise ReconstructionError(f"phases {shown} rad: too much alike to separate the bands")
    return np.asarray(np.tensordot(np.linalg.inv(mixing), spectra, axes=1))


@dataclass(frozen=True)
class _Overlap:
    """Products of the frames, summed over the frequencies at which both the unmoved and the moved copy pass the
    optics.
    """

    carrier: NDArray[np.float64]
    """(2,) y and x, cycles a pixel."""
    unmoved: NDArray[np.complex128]
    """(3, 3) products of each pair of frames, filtered with the transfer function of the moved copy."""
    moved: NDArray[np.complex128]
    """(3, 3) products of each pair of frames that are moved back by the carrier, filtered with the transfer function of
    the unmoved copy."""
    between: NDArray[np.complex128]
    """(3, 3) products of the conjugate frames with the frames moved back."""
    noise: float
    """Power of the noise in ``unmoved``, for each frame."""

    @classmethod
    def measure(cls, spectra: NDArray[np.complex128], carrier: NDArray[np.float64], otf: Otf) -> "_Overlap":
        y, x = _frequencies(spectra.shape[1:])
        here, there = np.hypot(y, x), np.hypot(y + carrier[0], x + carrier[1])
        lowest = LOWEST * otf.cutoff
        both = (here > lowest) & (there > lowest) & (here < otf.cutoff) & (there < otf.cutoff)
        dark = here > 1.1 * otf.cutoff
        noise = float((np.abs(spectra[:, dark]) ** 2).mean()) if dark.any() else 0.0
        a = spectra[:, both] * otf.at(there[both])
        b = _moved(spectra, carrier)[:, both] * otf.at(here[both])
        noise *= float((otf.at(there[both]) ** 2).sum())
        return cls(carrier, a.conj() @ a.T, b.conj() @ b.T, a.conj() @ b.T, noise)

    def agreement(self, phases: NDArray[np.float64]) -> float:
        """Similarity of both copies, 0 to 1, if the frames have these phases."""
        even, odd = np.linalg.inv(_mixing(phases))[:2]
        power = np.real(even.conj() @ self.unmoved @ even) * np.real(odd.conj() @ self.moved @ odd)
        return float(np.abs(even.conj() @ self.between @ odd) ** 2 / power)

    def start(self) -> NDArray[np.float64]:
        """(3,) equal steps, forward or backward, whichever fits."""
        return EQUAL_STEPS if self.agreement(EQUAL_STEPS) >= self.agreement(-EQUAL_STEPS) else -EQUAL_STEPS

    def phases(self) -> NDArray[np.float64]:
        """(3,) phases of the frames at which both copies are most alike, the first one 0."""
        found = minimize(
            lambda steps: -self.agreement(np.array([0.0, *steps])),
            self.start()[1:],
            method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-9},
        )
        return np.array([0.0, *found.x])

    def gain(self, phases: NDArray[np.float64]) -> complex:
        """Half the modulation, with the phase of the first frame."""
        even, odd = np.linalg.inv(_mixing(phases))[:2]
        power = np.real(even.conj() @ self.unmoved @ even) - self.noise * (np.abs(even) ** 2).sum()
        if power <= 0:
            raise ReconstructionError("stripes: there is only noise where the bands overlap")
        return complex(even.conj() @ self.between @ odd / power)


def _mixing(phases: NDArray[np.float64]) -> NDArray[np.complex128]:
    """(3, 3) share of each band in each frame."""
    return np.stack([np.ones(PHASES), np.exp(1j * phases), np.exp(-1j * phases)], axis=1)


def _spectra(frames: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Spectra of the frames without their background, faded out towards the edges."""
    window = np.outer(tukey(frames.shape[1], 0.2), tukey(frames.shape[2], 0.2))
    return np.asarray(fft.fft2((frames - np.median(frames)) * window))


def _frequencies(shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequency along y and x of each pixel of a spectrum, (H, 1) and (1, W), cycles a pixel."""
    return fft.fftfreq(shape[0])[:, None], fft.fftfreq(shape[1])[None, :]


def _candidates(spectra: NDArray[np.complex128], otf: Otf) -> list[NDArray[np.float64]]:
    """Carriers, each (2,), at which the band moved by +k correlates most with the unmoved one, for equal steps."""
    y, x = _frequencies(spectra.shape[1:])
    radius = np.hypot(y, x)
    flattened = otf.at(radius) / (otf.at(radius) ** 2 + FLATTENING)
    flattened *= 1 - np.exp(-((radius / (LOWEST * otf.cutoff)) ** 2))
    even, odd = separated(spectra, EQUAL_STEPS)[:2] * flattened
    product = np.conj(fft.ifft2(even)) * fft.ifft2(odd)
    # Where more power overlaps, the correlation of unrelated bands is stronger too. Therefore the strength of a peak is
    # measured in standard deviations of the correlation of unrelated bands.
    chance = np.real(fft.fft2(fft.ifft2(np.abs(even) ** 2).conj() * fft.ifft2(np.abs(odd) ** 2)))
    strength = np.abs(fft.fft2(product)) / np.sqrt(np.maximum(chance, chance.max() * 1e-6))
    strength[radius < NEAREST_CARRIER * otf.cutoff] = 0
    peaks = peak_local_max(strength, min_distance=2, num_peaks=CANDIDATES, exclude_border=False)
    return [_refined(product, np.array([y[row, 0], x[0, column]])) for row, column in peaks]


def _refined(product: NDArray[np.complex128], coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequency near a coarse one at which a product of bands has most power; its x is not negative."""
    rows, columns = (np.arange(edge) for edge in product.shape)
    slow = product * np.exp(-2j * np.pi * (coarse[0] * rows[:, None] + coarse[1] * columns))
    # The remaining phase changes by less than one turn over the image, so that blocks may be summed.
    block = [max(1, edge // 32) for edge in product.shape]
    slow = np.add.reduceat(np.add.reduceat(slow, rows[:: block[0]], axis=0), columns[:: block[1]], axis=1)
    y, x = rows[:: block[0]], columns[:: block[1]]
    scale = np.abs(slow).sum()

    def negative_power(turns: NDArray[np.float64]) -> float:
        k = turns / product.shape
        return -float(np.abs(np.exp(-2j * np.pi * k[0] * y) @ slow @ np.exp(-2j * np.pi * k[1] * x)) / scale)

    simplex = np.array([[0, 0], [0.5, 0], [0, 0.5]])
    options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-9}
    found = coarse + minimize(negative_power, np.zeros(2), method="Nelder-Mead", options=options).x / product.shape
    return np.asarray(found if found[1] >= 0 else -found)


def _moved(band: NDArray[np.complex128], carrier: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Spectrum moved by -carrier, at sub-pixel precision: what lay at f + carrier lies at f."""
    rows, columns = np.arange(band.shape[-2])[:, None], np.arange(band.shape[-1])[None, :]
    ramp = np.exp(-2j * np.pi * (carrier[0] * rows + carrier[1] * columns))
    return np.asarray(fft.fft2(fft.ifft2(band) * ramp))
