"""Training samples from labelled runs: random crops of real frames with the labels beside them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import TileId

from calib.offline.labels.labelfiles import TileLabels, labels_path, read_labels
from calib.offline.training.settings import SettingsError
from calib.offline.training.trainingsamples import IGNORED, Sample
from calib.runfolder.images import RunFolderError, read_frames, read_run_info

_Pixel = TypeVar("_Pixel", np.float32, np.int64)

IGNORED_PX = 1.5
"""Pixels this close to a cluster whose base is not known are left out of the loss."""

HELD_OUT_SHARE = 0.2
"""Share of a tile's rows, at its bottom, that training never uses."""


@dataclass(frozen=True)
class LabelledTile:
    """A tile whose clusters and bases are known."""

    root: Path
    """Run folder."""
    run: str
    tile: TileId
    shape: tuple[int, int]
    labels: TileLabels

    @cached_property
    def cycles(self) -> NDArray[np.int64]:
        """1-based cycles that are registered."""
        return 1 + np.flatnonzero(np.isfinite(self.labels.drift_px).all(axis=1))

    @cached_property
    def identity(self) -> str:
        """Run, tile and a hash of the labels."""
        known = self.labels.positions.tobytes() + self.labels.bases.tobytes()
        return f"{self.run} {self.tile} {hashlib.sha256(known).hexdigest()[:12]}"

    def rows(self, size: int, *, held_out: bool) -> range:
        """Rows of the tile from which patches of ``size`` are cut.

        Validation uses the lowest rows of the image; training uses the others.

        Raises
        ------
        SettingsError : the tile is too small for both.
        """
        height, width = self.shape
        kept = max(size, round(HELD_OUT_SHARE * height))
        if height - kept < size or width < size:
            raise SettingsError(
                f"patch_px {size}: tile {self.tile} of run {self.run} is {height} × {width} px, "
                f"training and validation need {2 * size} × {size}"
            )
        return range(height - kept, height) if held_out else range(height - kept)


def read_labelled(roots: Sequence[Path], *, patch_px: int) -> tuple[LabelledTile, ...]:
    """All labelled tiles of run folders.

    Raises
    ------
    RunFolderError : a folder has no labelled tile, or its labels are not as documented.
    SettingsError : a tile is too small for patches of ``patch_px``.
    """
    found = []
    for root in roots:
        info = read_run_info(root)
        tiles = [tile for tile in info.tiles if labels_path(root, tile, ".json").exists()]
        if not tiles:
            raise RunFolderError(f"run folder {root}: no tile is labelled; seqd calib label writes labels")
        for tile in tiles:
            labelled = LabelledTile(root, info.run, tile, (info.height, info.width), read_labels(root, tile))
            labelled.rows(patch_px, held_out=False)
            if len(labelled.cycles) == 0:
                raise RunFolderError(f"run folder {root}: no cycle of tile {tile} is registered in its labels")
            found.append(labelled)
    return tuple(found)


def labelled_sample(labelled: LabelledTile, *, rng: np.random.Generator, size: int, held_out: bool) -> Sample:
    """A random crop of a random cycle, turned and mirrored at random.

    A labelled run has no super-resolved images.

    Raises
    ------
    RunFolderError : a frame cannot be read or is not of the declared size.
    """
    labels = labelled.labels
    cycle = int(rng.choice(labelled.cycles))
    rows = labelled.rows(size, held_out=held_out)
    top = int(rng.integers(rows.start, rows.stop - size, endpoint=True))
    left = int(rng.integers(0, labelled.shape[1] - size, endpoint=True))
    frames = read_frames(labelled.root, labelled.tile, cycle, shape=labelled.shape)[
        :, top : top + size, left : left + size
    ]
    # Where each channel of this crop shows the clusters, (4, 1, 2).
    shown = (labels.drift_px[cycle - 1] + labels.channel_shift_px - np.array([top, left], np.float32))[:, None]
    classes = np.zeros((size, size), np.int64)
    base = labels.bases[:, cycle - 1]
    pixels = np.rint((labels.positions + shown)[base, np.arange(len(base))]).astype(np.int64)
    inside = np.all((pixels >= 0) & (pixels < size), axis=1)
    classes[tuple(pixels[inside].T)] = base[inside] + 1
    classes[_near(np.concatenate(labels.removed_positions + shown), size)] = IGNORED
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    return Sample(
        images=_turned(labels.normalisation.apply(frames), turns, mirrored),
        classes=_turned(classes, turns, mirrored),
        superresolved=None,
    )


def _near(positions: NDArray[np.float32], size: int) -> NDArray[np.bool_]:
    """(size, size) pixels whose centre lies within :data:`IGNORED_PX` of a position."""
    reach = int(np.ceil(IGNORED_PX))
    taps = np.arange(-reach, reach + 1)
    around = np.stack(np.meshgrid(taps, taps, indexing="ij"), axis=-1).reshape(-1, 2)
    pixels = np.rint(positions)[:, None] + around
    near = np.linalg.norm(pixels - positions[:, None], axis=2) <= IGNORED_PX
    inside = np.all((pixels >= 0) & (pixels < size), axis=2)
    mask = np.zeros((size, size), bool)
    mask[tuple(pixels[near & inside].astype(np.int64).T)] = True
    return mask


def _turned(image: NDArray[_Pixel], turns: int, mirrored: bool) -> NDArray[_Pixel]:
    turned = np.rot90(image, turns, axes=(-2, -1))
    return np.ascontiguousarray(np.flip(turned, axis=-1) if mirrored else turned)
