"""Writing a simulated run as a run folder, with the truth beside it.

::

    RunInfo.xml
    Images/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif
    Truth/conditions.json
    Truth/s_<lane>_<tile>.csv          y,x,read,polyclonal: clusters whose centre lies in the tile
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from calib.learning.simulation.conditions import Conditions
from calib.learning.simulation.tile import SimulatedTile, simulate_tile
from calib.runfolder import RUN_INFO, Read, RunFolderError, RunInfo, TileId, image_path, run_info_xml
from engines.architecture import CHANNELS

TRUTH = "Truth"


@dataclass(frozen=True)
class Truth:
    """What a tile's clusters really are."""

    positions: NDArray[np.float64]
    """(n, 2) y and x, pixels, in the first cycle and before channel shifts."""
    reads: NDArray[np.uint8]
    """(n, cycles) bases 0-3."""


def write_simulated_run(
    root: Path,
    conditions: Conditions,
    *,
    run: str,
    tiles: int,
    cycles: int,
    shape: tuple[int, int],
    seed: int,
    progress: Callable[[int], None],
) -> RunInfo:
    """Simulate a run and write it; ``progress`` gets the tile-cycles written."""
    info = RunInfo(
        run=run,
        flowcell="SIMULATED",
        instrument="SIM",
        reads=(Read(number=1, cycles=cycles),),
        tiles=tuple(TileId(lane=1, tile=1101 + index) for index in range(tiles)),
        height=shape[0],
        width=shape[1],
    )
    (root / TRUTH).mkdir(parents=True, exist_ok=True)
    (root / TRUTH / "conditions.json").write_text(conditions.model_dump_json(indent=2), "utf-8")
    (root / RUN_INFO).write_bytes(run_info_xml(info))
    for index, tile in enumerate(info.tiles):
        simulated = simulate_tile(conditions, shape=shape, cycles=cycles, seed=seed + index)
        _write_truth(root, tile, simulated)
        for cycle in range(1, cycles + 1):
            for channel, image in zip(CHANNELS, simulated.images(cycle), strict=True):
                path = image_path(root, tile, cycle, channel)
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, image)
            progress(index * cycles + cycle)
    return info


def read_truth(root: Path, tile: TileId) -> Truth:
    """Truth of a tile.

    Raises
    ------
    RunFolderError : the folder has none.
    """
    path = _truth_path(root, tile)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise RunFolderError(f"truth {path}: {error.strerror}") from error
    positions = np.array([(float(row["y"]), float(row["x"])) for row in rows]).reshape(-1, 2)
    reads = np.array([["ACGT".index(base) for base in row["read"]] for row in rows], np.uint8)
    return Truth(positions, reads)


def _write_truth(root: Path, tile: TileId, simulated: SimulatedTile) -> None:
    with _truth_path(root, tile).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["y", "x", "read", "polyclonal"])
        for index in np.flatnonzero(simulated.inside):
            y, x = simulated.positions_px[index]
            read = "".join("ACGT"[base] for base in simulated.reads[index])
            writer.writerow([f"{y:.3f}", f"{x:.3f}", read, int(simulated.second_share[index] > 0)])


def _truth_path(root: Path, tile: TileId) -> Path:
    return root / TRUTH / f"s_{tile}.csv"
