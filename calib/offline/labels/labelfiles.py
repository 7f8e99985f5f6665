"""The label files of a tile, beside its images.

::

    Labels/s_<lane>_<tile>.csv             y,x,called,corrected: clusters whose read was found in the reference
    Labels/s_<lane>_<tile>_removed.csv     y,x,called: clusters whose read was not found there
    Labels/s_<lane>_<tile>_mask.tif        uint8, 1 at the pixel of a cluster's centre, 0 elsewhere
    Labels/s_<lane>_<tile>.json            geometry, brightness and counts: :class:`TileSummary`

Positions are pixels in the first cycle's frame and the mean of the channels. ``N`` in ``called`` is a no-call.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from seqd_client.errors import validation_text
from seqd_client.runinfo import CHANNELS, TileId

from calib.normalisation import Normalisation
from calib.offline.labels.sequencematch import Outcome
from calib.runfolder.images import LABELS, RunFolderError

Shift = tuple[float, float]
Four = tuple[float, float, float, float]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class TileLabels:
    """Positions, bases and geometry of a tile's clusters, for training."""

    positions: NDArray[np.float32]
    """(n, 2) y and x, pixels, in the first cycle's frame and the mean of the channels."""
    bases: NDArray[np.uint8]
    """(n, cycles) 0-3, corrected to the reference."""
    removed_positions: NDArray[np.float32]
    """(m, 2) clusters whose bases are not known."""
    drift_px: NDArray[np.float32]
    """(cycles, 2) shift of each cycle against the first; NaN where a cycle could not be registered."""
    channel_shift_px: NDArray[np.float32]
    """(4, 2) shift of each channel against the mean of the four."""
    normalisation: Normalisation


class TileSummary(BaseModel):
    """Content of a tile's JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    drift_px: tuple[Shift | None, ...]
    """Shift (y, x) of each cycle; null where registration failed."""
    channel_shift_px: tuple[Shift, Shift, Shift, Shift]
    offset: Four
    """Counts of background in each channel."""
    gain: Four
    """Normalised units per count."""
    clusters: _Count
    """Detected by the classical pipeline."""
    aligned_share: Annotated[float, Field(ge=0, le=1)]
    """Share of them found in the reference."""
    shuffled_share: Annotated[float, Field(ge=0, le=1)]
    """Share found when the bases of every read are shuffled: what chance alone finds."""
    removed: dict[Outcome, _Count]
    """Clusters left out, by reason."""
    corrected_bases: _Count
    """Called bases of the aligned clusters that differ from the reference."""
    corrected_by_cycle: tuple[_Count, ...]


def labels_path(root: Path, tile: TileId, ending: str) -> Path:
    """Path of a label file of a tile; ``ending`` is for example ``.csv`` or ``_mask.tif``."""
    return root / LABELS / f"s_{tile}{ending}"


def read_labels(root: Path, tile: TileId) -> TileLabels:
    """Labels of a tile.

    Raises
    ------
    RunFolderError : a file is missing or not as documented.
    """
    summary = read_summary(root, tile)
    cycles = len(summary.drift_px)
    path = labels_path(root, tile, ".csv")
    rows = _rows(path)
    corrected = [row.get("corrected", "") for row in rows]
    for read in corrected:
        if len(read) != cycles or not set(read) <= set(CHANNELS):
            raise RunFolderError(f"labels {path}: read {read!r} is not {cycles} bases of A, C, G, T")
    index = np.frombuffer("".join(corrected).encode(), np.uint8)
    bases = np.searchsorted(np.frombuffer("".join(CHANNELS).encode(), np.uint8), index)
    return TileLabels(
        positions=_positions(path, rows),
        bases=bases.astype(np.uint8).reshape(len(rows), cycles),
        removed_positions=_positions(path, _rows(labels_path(root, tile, "_removed.csv"))),
        drift_px=np.array([(np.nan, np.nan) if shift is None else shift for shift in summary.drift_px], np.float32),
        channel_shift_px=np.array(summary.channel_shift_px, np.float32),
        normalisation=Normalisation(np.array(summary.offset, np.float32), np.array(summary.gain, np.float32)),
    )


def read_summary(root: Path, tile: TileId) -> TileSummary:
    """Geometry and counts of a tile's labels.

    Raises
    ------
    RunFolderError : the file is missing or not as documented.
    """
    path = labels_path(root, tile, ".json")
    try:
        return TileSummary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RunFolderError(f"labels {path}: {error.strerror}; seqd calib label writes them") from error
    except ValidationError as error:
        raise RunFolderError(f"labels {path}: {validation_text(error)}") from error


def write_labels(
    root: Path,
    tile: TileId,
    summary: TileSummary,
    *,
    kept: Sequence[tuple[float, float, str, str]],
    removed: Sequence[tuple[float, float, str]],
    shape: tuple[int, int],
) -> None:
    """Write the files of a tile.

    Parameters
    ----------
    kept : y, x, called and corrected read of the clusters to train on.
    removed : y, x and called read of the others.
    shape : (H, W) of the mask.
    """
    path = labels_path(root, tile, ".csv")
    path.parent.mkdir(exist_ok=True)
    _write(path, ["y", "x", "called", "corrected"], kept)
    _write(labels_path(root, tile, "_removed.csv"), ["y", "x", "called"], removed)
    mask = np.zeros(shape, np.uint8)
    centres = np.rint(np.array([row[:2] for row in kept]).reshape(-1, 2)).astype(np.int64)
    centres = np.clip(centres, 0, np.array(shape) - 1)
    mask[centres[:, 0], centres[:, 1]] = 1
    tifffile.imwrite(labels_path(root, tile, "_mask.tif"), mask)
    labels_path(root, tile, ".json").write_text(summary.model_dump_json(indent=2), "utf-8")


def _write(path: Path, header: list[str], rows: Iterable[tuple[float | str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([f"{y:.3f}", f"{x:.3f}", *reads] for y, x, *reads in rows)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"labels {path}: {error}") from error
    if rows and not {"y", "x"} <= rows[0].keys():
        raise RunFolderError(f"labels {path}: columns {', '.join(map(str, rows[0]))}; y and x are needed")
    return rows


def _positions(path: Path, rows: list[dict[str, str]]) -> NDArray[np.float32]:
    try:
        return np.array([(float(row["y"]), float(row["x"])) for row in rows], np.float32).reshape(-1, 2)
    except ValueError as error:
        raise RunFolderError(f"labels {path}: {error}") from error
