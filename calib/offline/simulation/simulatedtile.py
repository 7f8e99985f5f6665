"""A simulated tile: clusters, their reads, and the frames that a camera takes of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import Read

from calib.fasta import Sequence
from calib.offline.simulation import background, chemistry, clusterlayout, illumination, obstructions, optics, sensor
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedreads import index_reads, template_reads

MARGIN_PX = 12
"""Clusters just outside a tile still shine into it."""

TAIL_WIDTH = 2.0
"""Width of the diffraction tail, in standard deviations of the spot in focus."""

_INSTRUMENT, _BUBBLES, _STRUCTURED, _SAMPLES = 1, 2, 3, 4
"""Numbers that keep apart the random generators of a tile; each part of the simulation has its own generator."""


@dataclass(frozen=True)
class SimulatedTile:
    """One tile with its truth.

    Clusters lie up to ``MARGIN_PX`` outside the tile as well; ``inside`` tells them apart.
    """

    conditions: Conditions
    shape: tuple[int, int]
    parts: tuple[Read, ...]
    """Reads that the cycles belong to; each starts with new strands."""
    positions_px: NDArray[np.float64]
    """(n, 2) y and x in the frame of the first cycle, before channel shifts."""
    reads: NDArray[np.uint8]
    """(n, cycles) bases 0-3, of all reads."""
    second_reads: NDArray[np.uint8]
    """(n, cycles) reads of a polyclonal cluster's second molecule."""
    second_share: NDArray[np.float64]
    """(n,) share of the light from the second read, 0 for monoclonal clusters."""
    brightness: NDArray[np.float64]
    """(n,) relative to the median cluster."""
    drift_px: NDArray[np.float64]
    """(cycles, 2) stage position of each cycle against the first."""
    focus_um: NDArray[np.float64]
    """(cycles,) focus of each cycle against the first."""
    glow_px: NDArray[np.float64]
    """(4, H, W) structures and glowing dust, expected photons a pixel."""
    transmission: NDArray[np.float64]
    """(H, W) light that dust lets through."""
    sensor: sensor.Sensor
    seed: int

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(n,) whether the centre of a cluster lies in the tile."""
        return np.asarray(
            np.all((self.positions_px >= -0.5) & (self.positions_px < np.array(self.shape) - 0.5), axis=1)
        )

    def cluster_light(self, cycle: int) -> NDArray[np.float64]:
        """(4, n) expected photons of each cluster in each channel, 1-based cycle."""
        conditions = self.conditions
        own, cycle = self._within(cycle)
        shares = (1 - self.second_share)[:, None] * self._shares(self.reads[:, own], cycle)
        mixed = self.second_share > 0
        shares[mixed] += self.second_share[mixed, None] * self._shares(self.second_reads[mixed, own], cycle)
        photons = conditions.photons * self.brightness * (1 - conditions.decay) ** (cycle - 1)
        if cycle == 1:
            photons = photons * conditions.first_cycle
        emitted = shares * np.array(conditions.channel_yield) * photons[:, None]
        return np.asarray(np.array(conditions.crosstalk) @ emitted.T)

    def channel_positions(self, cycle: int, channel: int) -> NDArray[np.float64]:
        """(n, 2) where the clusters appear in one frame."""
        conditions = self.conditions
        return optics.projected(
            positions_px=self.positions_px,
            shift_px=self.drift_px[cycle - 1] + np.array(conditions.channel_shift_px[channel]),
            magnification=conditions.channel_magnification[channel],
            shape=self.shape,
        )

    def spot_sigma(self, cycle: int, channel: int) -> float:
        """Standard deviation of the spots in one frame, pixels, with the focus of its cycle."""
        conditions = self.conditions
        return optics.defocused_sigma(
            sigma_px=conditions.sigma_px[channel],
            defocus_um=conditions.defocus_um[channel] + self.focus_um[cycle - 1],
            depth_um=conditions.focal_depth_um,
        )

    def images(self, cycle: int) -> NDArray[np.uint16]:
        """(4, H, W) frames of a cycle; the same at every call."""
        light = self.cluster_light(cycle)
        rng = np.random.default_rng([self.seed, cycle])
        cover = self._bubbles(cycle)
        return np.stack([self._frame(cycle, channel, light[channel], cover, rng) for channel in range(4)])

    def structured_images(self, cycle: int) -> NDArray[np.uint16]:
        """(4, 9, H, W) frames of a cycle under striped light: three phases of each of three orientations.

        The stripes lie still while the stage drifts, and light the clusters only: background and structures are
        taken to lie out of focus, where stripes have faded.

        Raises
        ------
        illumination.PatternError : the stripes are too narrow for the camera's pixels.
        """
        pattern = self.conditions.pattern
        carriers = illumination.carrier_frequencies(pattern, pixel_um=self.conditions.pixel_um)
        light = self.cluster_light(cycle)
        rng = _stream(self.seed, _STRUCTURED, cycle)
        cover = self._bubbles(cycle)
        frames = np.empty((4, illumination.ORIENTATIONS * illumination.PHASES, *self.shape), np.uint16)
        for index, phase in enumerate(illumination.phases(pattern).ravel()):
            lit = illumination.stripes(
                positions_px=self.positions_px + self.drift_px[cycle - 1],
                carrier_px=carriers[index // illumination.PHASES],
                phase_rad=phase,
                modulation=pattern.modulation,
            )
            for channel in range(4):
                frames[channel, index] = self._frame(cycle, channel, light[channel] * lit, cover, rng)
        return frames

    def _within(self, cycle: int) -> tuple[slice, int]:
        """Return the slice of the cycles of the read to which a 1-based cycle belongs, and its index in the read."""
        before = 0
        for part in self.parts:
            if cycle <= before + part.cycles:
                break
            before += part.cycles
        return slice(before, before + part.cycles), cycle - before

    def _shares(self, reads: NDArray[np.uint8], cycle: int) -> NDArray[np.float64]:
        """(n, 4) light of each base in a cycle for (n, cycles) bases, relative to that of a whole cluster."""
        conditions = self.conditions
        steps = {
            "cycle": cycle,
            "cycles": reads.shape[1],
            "phasing": conditions.phasing,
            "prephasing": conditions.prephasing,
        }
        shares = chemistry.emission(reads=reads, weights=chemistry.phasing_weights(**steps))
        if conditions.t_accumulation:
            weights = chemistry.accumulated_weights(**steps, carried=conditions.t_accumulation)
            shares[:, 3] = chemistry.emission(reads=reads, weights=weights)[:, 3]
        return shares

    def _bubbles(self, cycle: int) -> NDArray[np.float64] | None:
        """(H, W) cover of a cycle's bubbles; None where conditions have none."""
        conditions = self.conditions
        if not conditions.bubbles:
            return None
        return obstructions.bubbles(
            shape=self.shape,
            mean_number=conditions.bubbles,
            radius_px=conditions.bubble_radius_px,
            rng=_stream(self.seed, _BUBBLES, cycle),
        )

    def _frame(
        self,
        cycle: int,
        channel: int,
        light: NDArray[np.float64],
        cover: NDArray[np.float64] | None,
        rng: np.random.Generator,
    ) -> NDArray[np.uint16]:
        """(H, W) one frame, given the (n,) photons of the clusters in it."""
        conditions = self.conditions
        positions = self.channel_positions(cycle, channel)
        tail = conditions.airy_tail[channel]
        clusters = optics.spots(
            positions_px=positions,
            photons=light * (1 - tail),
            sigma_px=self.spot_sigma(cycle, channel),
            shape=self.shape,
        )
        if tail:
            clusters += optics.tails(
                positions_px=positions,
                photons=light * tail,
                width_px=max(1.0, TAIL_WIDTH * conditions.sigma_px[channel]),
                shape=self.shape,
            )
        profile = background.illumination(shape=self.shape, falloff=conditions.falloff)
        photons = (clusters + conditions.background_px[channel] + self.glow_px[channel]) * profile * self.transmission
        if cover is not None:
            photons = obstructions.seen_through(
                photons=photons, cover=cover, light=conditions.bubble_light, blur_px=conditions.bubble_blur_px
            )
        return sensor.expose(photons=photons, sensor=self.sensor, rng=rng)


def simulate_tile(
    conditions: Conditions,
    *,
    shape: tuple[int, int],
    cycles: int | tuple[Read, ...],
    seed: int,
    reference: tuple[Sequence, ...] | None = None,
    barcodes: tuple[str, ...] = (),
) -> SimulatedTile:
    """Place clusters on a tile, and give each cluster reads that are cut from a reference or consist of random bases.

    Parameters
    ----------
    cycles : cycles of the only read, or all reads.
    barcodes : bases of the index reads of each sample, one after the other; random ones where there are none. Reads and
        barcodes must satisfy :func:`calib.offline.simulation.simulatedreads.check_reads`.

    Raises
    ------
    FastaError : no stretch of the reference is as long as the read.
    """
    parts = (Read(number=1, cycles=cycles),) if isinstance(cycles, int) else cycles
    cycles = sum(part.cycles for part in parts)
    rng = np.random.default_rng(seed)
    positions = _positions(conditions, shape, rng)
    number = len(positions)
    indexed = np.repeat([part.index for part in parts], [part.cycles for part in parts])
    index, template = int(np.count_nonzero(indexed)), int(np.count_nonzero(~indexed))
    reads = np.empty((2, number, cycles), np.uint8)
    if reference is None:
        reads[..., ~indexed] = rng.choice(4, size=(2, number, template), p=conditions.composition)
    else:
        cut = template_reads(reference=reference, number=2 * number, reads=parts, rng=rng)
        reads[..., ~indexed] = cut.reshape(2, number, template)
    named = index_reads(barcodes=barcodes, number=2 * number, cycles=index, rng=_stream(seed, _SAMPLES))
    reads[..., indexed] = named.reshape(2, number, index)
    mixed = rng.random(number) < conditions.polyclonal
    steps = rng.uniform(-conditions.drift_px, conditions.drift_px, (cycles, 2))
    steps[0] = 0
    glow_px = np.zeros((4, *shape))
    if conditions.structures:
        colour = rng.uniform(0.1, 1, 4)
        glow_px = colour[:, None, None] * background.structures(
            shape=shape, number=conditions.structures, photons_px=conditions.structure_photons_px, rng=rng
        )
    # These effects have their own random stream, so that clusters and reads do not depend on them.
    instrument = _stream(seed, _INSTRUMENT)
    focus = instrument.uniform(-conditions.focus_drift_um, conditions.focus_drift_um, cycles)
    focus[0] = 0
    transmission, glow = obstructions.dust(
        shape=shape, number=conditions.dust, photons_px=conditions.dust_photons_px, rng=instrument
    )
    return SimulatedTile(
        conditions=conditions,
        shape=shape,
        parts=parts,
        positions_px=positions,
        reads=reads[0],
        second_reads=reads[1],
        second_share=np.where(mixed, rng.uniform(0.2, 0.5, number), 0.0),
        brightness=rng.lognormal(0, conditions.brightness_sigma, number),
        drift_px=steps.cumsum(axis=0),
        focus_um=focus.cumsum(),
        glow_px=glow_px + glow,
        transmission=transmission,
        sensor=sensor.sensor(
            shape=shape,
            counts_per_e=conditions.counts_per_e,
            gain_spread=conditions.gain_spread,
            offset=conditions.offset,
            offset_spread=conditions.offset_spread,
            read_noise_e=conditions.read_noise_e,
            read_noise_spread=conditions.read_noise_spread,
            rng=instrument,
        ),
        seed=seed,
    )


def _positions(conditions: Conditions, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, 2) clusters in the tile and its margin, as the conditions lay them out."""
    if conditions.grid is None:
        return clusterlayout.scattered(shape=shape, margin_px=MARGIN_PX, density_px2=conditions.density_px2, rng=rng)
    return clusterlayout.patterned(
        shape=shape,
        margin_px=MARGIN_PX,
        pitch_px=conditions.grid.pitch_um / conditions.pixel_um,
        jitter_px=conditions.grid.jitter_um / conditions.pixel_um,
        occupancy=conditions.grid.occupancy,
        angle_deg=conditions.grid.angle_deg,
        rng=rng,
    )


def _stream(seed: int, *purpose: int) -> np.random.Generator:
    """Generator of a tile for one purpose, independent of those for others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def superresolved(tile: SimulatedTile, cycle: int, *, gain: NDArray[np.float64]) -> NDArray[np.float32]:
    """Images of the clusters with twice as many pixels per side and spots half as wide, without noise and background.

    Parameters
    ----------
    cycle : 1-based.
    gain : (4,) units per photon, for each channel.

    Returns
    -------
    (4, 2H, 2W); a spot's peak is as high as in the frame.
    """
    light = tile.cluster_light(cycle)
    frames = []
    for channel in range(4):
        sigma = tile.conditions.sigma_px[channel]
        # Spots and pixels are both half as large, so sigma in pixels and the peak for the same light do not change.
        frames.append(
            optics.spots(
                positions_px=tile.channel_positions(cycle, channel) * 2 + 0.5,
                photons=light[channel] * gain[channel],
                sigma_px=sigma,
                shape=(2 * tile.shape[0], 2 * tile.shape[1]),
            )
        )
    return np.stack(frames).astype(np.float32)
