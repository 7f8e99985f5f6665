"""Calls of a run that a control was spiked into: its reads have errors at rates that are known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

SHARE = 0.05
FIRST, LAST = 0.001, 0.03
"""Error rates in the first and last cycle of each read."""


def random_genome(length: int = 5386, *, seed: int = 174) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 4, length, np.uint8)


def fasta(genome: NDArray[np.uint8], name: str = "control") -> str:
    letters = np.frombuffer(b"ACGT", np.uint8)[genome].tobytes().decode()
    return f">{name} spiked in\n" + "\n".join(letters[at : at + 70] for at in range(0, len(letters), 70)) + "\n"


@dataclass
class SpikeIn:
    """Every tile's calls; the first clusters are not the control's, any are."""

    info: RunInfo
    clusters: int
    genome: NDArray[np.uint8]
    seed: int = 11

    def __post_init__(self) -> None:
        self.control = np.random.default_rng(self.seed).random(self.clusters) < SHARE
        """(n,) clusters that are the control's, the same of each tile."""
        self.rates = np.concatenate([np.linspace(FIRST, LAST, read.cycles) for read in self.info.reads])
        """(cycles,) error rates."""
        self._calls: dict[TileId, NDArray[np.uint8]] = {}
        self.wrong: dict[TileId, NDArray[np.bool_]] = {}
        """(cycles, n) bases of the control's clusters that are read wrong."""

    def __call__(self, tile: TileId, cycle: int) -> NDArray[np.uint8]:
        if tile not in self._calls:
            self._calls[tile] = self._make(tile)
        return self._calls[tile][cycle - 1]

    def _make(self, tile: TileId) -> NDArray[np.uint8]:
        rng = np.random.default_rng((self.seed, tile.lane, tile.tile))
        bases = rng.integers(0, 4, (self.info.cycles, self.clusters), np.uint8)
        own = np.flatnonzero(self.control)
        for read in self.info.reads:
            if not read.index:
                starts = rng.integers(0, len(self.genome) - read.cycles + 1, len(own))
                truth = self.genome[starts + np.arange(read.cycles)[:, None]]
                backward = rng.random(len(own)) < 0.5
                truth[:, backward] = 3 - truth[::-1, backward]
                bases[self.info.cycles_of(read).start - 1 : self.info.cycles_of(read).stop - 1, own] = truth
        wrong = (rng.random(bases.shape) < self.rates[:, None]) & self.control
        self.wrong[tile] = wrong
        shifted = (bases + rng.integers(1, 4, bases.shape, np.uint8)) & 3
        return np.where(wrong, shifted, bases).astype(np.uint8) | (rng.integers(25, 41, bases.shape, np.uint8) << 2)
