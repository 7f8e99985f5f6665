"""Runs written as the daemon writes them, of calls that the test makes up; no images and no daemon."""

import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId, parse_reads
from seqd_client.status import CycleStatus

from calib.phasing import NeighbourLight
from calib.runfolder.images import RUN_INFO, run_info_xml
from daemon.config import SinksConfig
from daemon.record.durable import write_durably
from daemon.record.ledger import Ledger
from daemon.record.ledgerreader import CycleRow, ImageRow, Start
from daemon.record.runfiles import RunFiles, filter_cycles
from daemon.record.tilefile import encode_locs, open_tile_file

FACTS: dict[str, object] = {
    "sinks": SinksConfig().fixed_for_a_run,
    "model": "8097c1aa953d" + 52 * "0",
    "threads": 0,
    "template_cycles": 10,
    "readout": "fused",
    "chastity_failures": 1,
    "binned_quality": False,
}
ENGINE: dict[str, object] = {
    "backend": "openvino",
    "gpu": False,
    "software": "OpenVINO 2026.1",
    "precision": "bf16",
    "strips": 1,
    "fit": "cpu",
}
NOON = 1772366400_000000000


def run_info(
    reads: str = "151T8B8B151T", *, tiles: tuple[int, ...] = (1101, 1102), lanes: int = 1, **changes: Any
) -> RunInfo:
    """A run of a read structure as Picard writes it: cycles and T for template or B for index."""
    facts: dict[str, Any] = {
        "run": "20260301_SEQ1_0042_FC7",
        "number": 42,
        "flowcell": "FC7",
        "instrument": "SEQ1",
        "date": "2026-03-01",
        "reads": parse_reads(reads),
        "tiles": tuple(TileId(lane=lane, tile=tile) for lane in range(1, lanes + 1) for tile in tiles),
        "height": 2048,
        "width": 2048,
        "pixel_um": 0.35,
    }
    return RunInfo(**facts | changes)


def random_calls(rng: np.random.Generator, clusters: int, *, no_calls: float = 0.01) -> NDArray[np.uint8]:
    """(n,) bytes of one cycle: every base, the scores of the default table, and some no-calls."""
    scores = rng.choice(np.array([2, 8, 12, 19, 24, 30, 33, 37, 40], np.uint8), clusters, p=[0.04] * 5 + [0.2] * 4)
    calls = (scores << 2) | rng.integers(0, 4, clusters, np.uint8)
    calls[rng.random(clusters) < no_calls] = 0
    return np.asarray(calls, np.uint8)


def write_run(
    root: Path,
    info: RunInfo,
    clusters: int | Callable[[TileId], int] = 200,
    *,
    calls: Callable[[TileId, int], NDArray[np.uint8]] | None = None,
    cycles: int | None = None,
    seed: int = 7,
    failing: float = 0.2,
    lost: Callable[[TileId, int], tuple[CycleStatus, str] | None] = lambda tile, cycle: None,
) -> RunFiles:
    """Write a run folder, every row and byte as the daemon would.

    Parameters
    ----------
    clusters : of each tile.
    calls : (n,) bytes of a tile's 1-based cycle; random ones where there is none.
    cycles : that are committed, of every tile; all of them where it is not said.
    failing : share of the clusters whose chastity is low.
    lost : status and reason of a tile's cycle that is not called.
    """
    files = RunFiles(root)
    files.create()
    write_durably(root / RUN_INFO, run_info_xml(info))
    with closing(Ledger(files.ledger)) as ledger:
        ledger.begin({"info": info.model_dump(mode="json"), **FACTS})
        ledger.start(Start(seqd="0.1.0", configuration=64 * "c", began_ns=NOON))
        ledger.use_engine(ENGINE, reason="", since_ns=NOON)
        for number, tile in enumerate(info.tiles):
            rng = np.random.default_rng((seed, number))
            there = clusters if isinstance(clusters, int) else clusters(tile)
            last = info.cycles if cycles is None else cycles
            _write_tile(files, ledger, info, tile, there, calls, last, rng, failing, lost)
    return files


def _write_tile(
    files: RunFiles,
    ledger: Ledger,
    info: RunInfo,
    tile: TileId,
    clusters: int,
    calls: Callable[[TileId, int], NDArray[np.uint8]] | None,
    cycles: int,
    rng: np.random.Generator,
    failing: float,
    lost: Callable[[TileId, int], tuple[CycleStatus, str] | None],
) -> None:
    positions = (rng.random((clusters, 2)) * (info.height - 1, info.width - 1)).astype(np.float32)
    locs = encode_locs(positions)
    write_durably(files.locs_of(tile), locs)
    ledger.commit_tile(tile, clusters, zlib.crc32(locs))
    low = rng.random(clusters) < failing
    with (
        closing(open_tile_file(files.calls_of(tile), clusters=clusters, cycles=0)) as called,
        closing(open_tile_file(files.chastity_of(tile), clusters=clusters, cycles=0)) as pure,
    ):
        for cycle in range(1, cycles + 1):
            content = random_calls(rng, clusters) if calls is None else calls(tile, cycle)
            status, reason = lost(tile, cycle) or (CycleStatus.CALLED, "")
            seen = status is CycleStatus.CALLED
            if not seen:
                content = np.zeros(clusters, np.uint8)
            called.put(cycle, content)
            crc32 = None
            if cycle <= filter_cycles(info):
                chastity = np.where(low, 40, 90).astype(np.uint8) if seen else np.full(clusters, 255, np.uint8)
                pure.put(cycle, chastity)
                crc32 = zlib.crc32(chastity.tobytes())
            # Each tile is a little otherwise, as are channels.
            other = (7 * tile.lane + tile.tile) % 11
            light = NeighbourLight(1.0, (0.002 + 0.0002 * other) * cycle, 0.001 * cycle)
            row = CycleRow(
                lane=tile.lane,
                tile=tile.tile,
                cycle=cycle,
                status=status,
                reason=reason,
                frames=0 if status is CycleStatus.MISSING else 4,
                crc32=zlib.crc32(content.tobytes()),
                chastity_crc32=crc32,
                drift_y=0.1 * cycle if seen else None,
                drift_x=-0.05 * cycle if seen else None,
                light_own=light.own if seen else None,
                light_behind=light.behind if seen else None,
                light_ahead=light.ahead if seen else None,
                engine_s=0.2 if seen else None,
                committed_ns=NOON + cycle * 60_000_000_000 + tile.tile * 1_000_000,
            )
            images = [
                ImageRow(
                    lane=tile.lane,
                    tile=tile.tile,
                    cycle=cycle,
                    channel=channel,
                    intensity=900.4 + 10 * other - 2 * cycle + channel,
                    called=800.0 - cycle + 20 * channel,
                    average=300.0 + 30 * channel,
                    focus_px=2.8 + 0.1 * channel,
                )
                for channel in range(4)
            ]
            ledger.commit(row, images if seen else [])
