"""Writing a simulated run as a run folder, with the truth beside it.

::

    RunInfo.xml
    Images/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif
    Structured/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif    on request: 9 pages, orientation by orientation
    Truth/conditions.json
    Truth/seed.json                    seed of the first tile; each further tile of RunInfo.xml takes the next
    Truth/reference.fasta              what reads of the template are cut from
    Truth/barcodes.txt                 bases of the index reads, one line per sample; empty if they are random
    Truth/s_<lane>_<tile>.csv          y,x,read,polyclonal: clusters whose centre lies in the tile, bases of all cycles
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import ValidationError
from seqd_client.errors import validation_text
from seqd_client.runinfo import CHANNELS, Read, RunInfo, TileId

from calib.fasta import Sequence, read_fasta, write_fasta
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedreads import check_reads, cut_length, cut_reads, random_reference
from calib.offline.simulation.simulatedtile import SimulatedTile, simulate_tile
from calib.runfolder.images import RUN_INFO, STRUCTURED, TRUTH, RunFolderError, image_path, read_run_info, run_info_xml

REFERENCE_BASES = 20_000
"""Length of a random reference; it is longer if a cluster's reads need more."""


@dataclass(frozen=True)
class Truth:
    """True positions and bases of a tile's clusters."""

    positions: NDArray[np.float64]
    """(n, 2) y and x, pixels, in the first cycle and before channel shifts."""
    reads: NDArray[np.uint8]
    """(n, cycles) bases 0-3 of all cycles."""


def write_simulated_run(
    root: Path,
    conditions: Conditions,
    *,
    run: str,
    tiles: int,
    cycles: int | tuple[Read, ...],
    shape: tuple[int, int],
    seed: int,
    progress: Callable[[int], None],
    reference: tuple[Sequence, ...] | None = None,
    barcodes: tuple[str, ...] = (),
    structured: bool = False,
) -> RunInfo:
    """Simulate a run and write it.

    Parameters
    ----------
    cycles : cycles of the only read, or all reads.
    seed : seed of the first tile; the same seed gives the same run.
    progress : called with the number of tile-cycles written.
    reference : sequences that reads are cut from; if it is None, a reference of random bases is made.
    barcodes : bases of the index reads of each sample, one after the other; random ones where there are none.
    structured : whether to write the frames under striped light too.

    Raises
    ------
    pydantic.ValidationError : as by :func:`simulated_run_info`.
    FastaError : the reference is too short for the read.
    ReadsError : reads or barcodes cannot be simulated.
    PatternError : the stripes are too narrow for the camera's pixels.

    Only a PatternError can be raised after files have been written.
    """
    reads = (Read(number=1, cycles=cycles),) if isinstance(cycles, int) else cycles
    info = simulated_run_info(conditions, run=run, tiles=tiles, reads=reads, shape=shape)
    check_reads(reads, barcodes)
    if reference is None:
        reference = random_reference(
            length=max(REFERENCE_BASES, cut_length(reads)),
            composition=conditions.composition,
            rng=np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))),
        )
    # A reference that is too short is refused before anything is written.
    cut_reads(reference=reference, number=0, cycles=cut_length(reads), rng=np.random.default_rng())
    (root / TRUTH).mkdir(parents=True, exist_ok=True)
    (root / TRUTH / "conditions.json").write_text(conditions.model_dump_json(indent=2), "utf-8")
    (root / TRUTH / "seed.json").write_text(json.dumps({"seed": seed}), "utf-8")
    write_fasta(root / TRUTH / "reference.fasta", reference)
    _barcodes_path(root).write_text("".join(f"{barcode}\n" for barcode in barcodes), "utf-8")
    (root / RUN_INFO).write_bytes(run_info_xml(info))
    for index, tile in enumerate(info.tiles):
        simulated = simulate_tile(
            conditions, shape=shape, cycles=reads, seed=seed + index, reference=reference, barcodes=barcodes
        )
        _write_truth(root, tile, simulated)
        for cycle in range(1, info.cycles + 1):
            for channel, image in zip(CHANNELS, simulated.images(cycle), strict=True):
                _write_image(image_path(root, tile, cycle, channel), image)
            if structured:
                for channel, stack in zip(CHANNELS, simulated.structured_images(cycle), strict=True):
                    _write_image(structured_path(root, tile, cycle, channel), stack)
            progress(index * info.cycles + cycle)
    return info


def simulated_run_info(
    conditions: Conditions, *, run: str, tiles: int, reads: tuple[Read, ...], shape: tuple[int, int]
) -> RunInfo:
    """What is known of a simulated run before its first frame.

    Raises
    ------
    pydantic.ValidationError : the description of the run is not valid.
    """
    return RunInfo(
        run=run,
        flowcell="SIMULATED",
        instrument="SIM",
        reads=reads,
        tiles=tuple(TileId(lane=1, tile=1101 + index) for index in range(tiles)),
        height=shape[0],
        width=shape[1],
        pixel_um=conditions.pixel_um,
    )


def structured_path(root: Path, tile: TileId, cycle: int, channel: str) -> Path:
    """Where the frames of one channel under structured illumination are archived, (9, H, W) uint16."""
    return root / STRUCTURED / image_path(root, tile, cycle, channel).relative_to(root / "Images")


def read_conditions(root: Path) -> Conditions:
    """Conditions that a run was simulated under.

    Raises
    ------
    RunFolderError : the folder has none, or they are not of this version.
    """
    path = root / TRUTH / "conditions.json"
    try:
        return Conditions.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RunFolderError(f"conditions {path}: {error.strerror}") from error
    except ValidationError as error:
        raise RunFolderError(f"conditions {path}: {validation_text(error)}") from error


def simulated_tile_of(root: Path, tile: TileId) -> SimulatedTile:
    """Simulate the tile of a folder's images again.

    Raises
    ------
    RunFolderError : the folder is not a simulated run, lacks the tile, or was written by another version of seqd that
        simulates other clusters.
    """
    info = read_run_info(root)
    if tile not in info.tiles:
        raise RunFolderError(f"tile {tile}: not in run {info.run}, which has {', '.join(map(str, info.tiles))}")
    path = root / TRUTH / "seed.json"
    try:
        seed = int(json.loads(path.read_bytes())["seed"])
    except OSError as error:
        raise RunFolderError(f"seed {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f'seed {path}: the content must be {{"seed": a whole number}}') from error
    simulated = simulate_tile(
        read_conditions(root),
        shape=(info.height, info.width),
        cycles=info.reads,
        seed=seed + info.tiles.index(tile),
        reference=read_fasta(root / TRUTH / "reference.fasta"),
        barcodes=_read_barcodes(root),
    )
    truth, inside = read_truth(root, tile), simulated.inside
    if (
        len(truth.reads) != inside.sum()
        or truth.reads.tobytes() != simulated.reads[inside].tobytes()
        or not np.allclose(truth.positions, simulated.positions_px[inside], rtol=0, atol=1e-3)
    ):
        raise RunFolderError(f"tile {tile}: its truth in {root / TRUTH} is not what its seed and conditions give")
    return simulated


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
    if not rows:
        reads = reads.reshape(0, 0)
    return Truth(positions, reads)


def _write_truth(root: Path, tile: TileId, simulated: SimulatedTile) -> None:
    with _truth_path(root, tile).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["y", "x", "read", "polyclonal"])
        for index in np.flatnonzero(simulated.inside):
            y, x = simulated.positions_px[index]
            read = "".join("ACGT"[base] for base in simulated.reads[index])
            writer.writerow([f"{y:.3f}", f"{x:.3f}", read, int(simulated.second_share[index] > 0)])


def _write_image(path: Path, image: NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")


def _barcodes_path(root: Path) -> Path:
    return root / TRUTH / "barcodes.txt"


def _read_barcodes(root: Path) -> tuple[str, ...]:
    path = _barcodes_path(root)
    try:
        return tuple(path.read_text("utf-8").split())
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"barcodes {path}: {getattr(error, 'strerror', None) or error}") from error


def _truth_path(root: Path, tile: TileId) -> Path:
    return root / TRUTH / f"s_{tile}.csv"
