"""The output of a run: tile files, templates and ledger, committed together."""

import fcntl
import os
import time
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.quality import NO_CALL
from calib.runfolder import RUN_INFO, RunInfo, TileId, run_info_xml
from daemon.errors import RunError
from daemon.ledger import CycleRow, CycleStatus, Ledger
from daemon.locs import encode_locs
from daemon.runfiles import RunFiles
from daemon.status import Progress
from daemon.stream import Stream
from daemon.templates import TileTemplate, load_template, save_template
from daemon.tilefile import TileFile, open_tile_file, write_durably
from daemon.wire.messages import Calls, Template


@dataclass(frozen=True)
class CycleResult:
    """What became of one tile-cycle; ``calls`` is None for no-calls throughout."""

    cycle: int
    status: CycleStatus
    calls: NDArray[np.uint8] | None = None
    """(n,) bytes."""
    reason: str = ""
    drift_px: NDArray[np.float32] | None = None


class RunOutput:
    """Commits results: tile file synced, then ledger row, then progress and stream.

    One thread writes. What was committed before a kill is found again; what was not is cut off and
    done again, with the same result.
    """

    def __init__(
        self, files: RunFiles, info: RunInfo, facts: dict[str, object], progress: Progress, stream: Stream
    ) -> None:
        self.files, self.info = files, info
        self._progress, self._stream = progress, stream
        self._tile_files: dict[TileId, TileFile] = {}
        files.create()
        with ExitStack() as opened:
            opened.callback(os.close, _locked(files.root))
            self.ledger = Ledger(files.ledger)
            opened.callback(self.ledger.close)
            self.ledger.begin(facts)
            write_durably(files.root / RUN_INFO, run_info_xml(info))
            for stale in files.spool.iterdir():
                stale.unlink()  # their frames are asked for again
            self.committed = self.ledger.committed_cycles()
            self._clusters = self.ledger.tiles()
            for tile, clusters in self._clusters.items():
                file = open_tile_file(files.calls_of(tile), clusters=clusters, cycles=self.committed[tile])
                opened.callback(file.close)
                self._tile_files[tile] = file
            self._opened = opened.pop_all()

    def templates(self) -> dict[TileId, TileTemplate]:
        """Templates that stand."""
        shape = (self.info.height, self.info.width)
        return {tile: load_template(self.files.template_of(tile), shape) for tile in self._clusters}

    def commit_template(self, tile: TileId, template: TileTemplate, results: list[CycleResult]) -> None:
        """Commit a template and all cycles up to it, together or not at all."""
        positions = template.positions
        save_template(self.files.template_of(tile), template)
        write_durably(self.files.locs_of(tile), encode_locs(positions))
        file = open_tile_file(self.files.calls_of(tile), clusters=len(positions), cycles=0)
        self._opened.callback(file.close)
        self._tile_files[tile] = file
        written = [self._write(tile, result) for result in results]
        self.ledger.commit([row for row, _ in written], tile=tile, clusters=len(positions))
        self._progress.template(len(positions))
        header = Template(run=self.info.run, seq=0, lane=tile.lane, tile=tile.tile, n=len(positions))
        self._stream.send(header, positions[:, ::-1].astype("<f4").tobytes())
        for row, calls in written:
            self._announce(tile, row, calls)

    def commit(self, tile: TileId, result: CycleResult) -> None:
        """Commit one tile-cycle of a tile whose template stands."""
        row, calls = self._write(tile, result)
        self.ledger.commit([row])
        self._announce(tile, row, calls)

    def abandon(self) -> None:
        """Leave the files open when closing: a thread that cannot be stopped may still write."""
        self._opened.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def _write(self, tile: TileId, result: CycleResult) -> tuple[CycleRow, NDArray[np.uint8]]:
        file = self._tile_files[tile]
        calls = result.calls if result.calls is not None else np.full(file.clusters, NO_CALL, np.uint8)
        file.append(calls)
        drift = (None, None) if result.drift_px is None else tuple(float(value) for value in result.drift_px)
        row = CycleRow(
            lane=tile.lane,
            tile=tile.tile,
            cycle=result.cycle,
            status=result.status,
            reason=result.reason,
            crc32=zlib.crc32(calls.tobytes()),
            drift_y=drift[0],
            drift_x=drift[1],
            committed_ns=time.time_ns(),
        )
        return row, calls

    def _announce(self, tile: TileId, row: CycleRow, calls: NDArray[np.uint8]) -> None:
        self._progress.committed(tile, row.cycle, row.status)
        self.committed[tile] = row.cycle
        header = Calls(run=self.info.run, seq=0, lane=tile.lane, tile=tile.tile, cycle=row.cycle, n=len(calls))
        self._stream.send(header, calls.tobytes())


def _locked(folder: Path) -> int:
    """Descriptor that keeps other daemons out of a run folder until it is closed or the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RunError(f"run folder {folder}: another seqd writes to it") from None
    return descriptor
