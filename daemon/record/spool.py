"""The spool: tile images that wait on disk until their calls are committed.

::

    4 × H × W uint16, little-endian | SHA-256 of them

Guaranteed: when :meth:`Spool.put` returns, the image is on the disk, and the next start of the daemon finds it. An
image is removed only after its tile-cycle is committed. A damaged or half-written image is removed at the start, and
its frames are asked for again.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId
from seqd_client.status import StopReason

from daemon.errors import OutputError
from daemon.record.durable import read_sealed, write_sealed
from daemon.record.runfiles import RunFiles

NAME = re.compile(r"s_(\d+)_(\d+)_C(\d+)\.image")


class Spool:
    """The spooled images of one run. Any thread may use it, but two threads must not use one image at the same time."""

    def __init__(self, files: RunFiles, info: RunInfo) -> None:
        self._files = files
        self._shape = (4, info.height, info.width)
        self._held: set[tuple[TileId, int]] = set()

    def put(self, tile: TileId, cycle: int, pixels: NDArray[np.uint16]) -> None:
        """Keep a (4, H, W) image, camera counts.

        Raises
        ------
        OSError : the image is not on the disk; the call may be repeated.
        """
        write_sealed(self._files.spooled(tile, cycle), np.ascontiguousarray(pixels, "<u2").data.cast("B"))
        self._held.add((tile, cycle))

    def get(self, tile: TileId, cycle: int) -> NDArray[np.uint16]:
        """The (4, H, W) image of a tile-cycle, camera counts.

        Raises
        ------
        OutputError : the image is missing or damaged.
        """
        content = read_sealed(self._files.spooled(tile, cycle))
        if len(content) != 2 * int(np.prod(self._shape)):
            raise OutputError(f"file {self._files.spooled(tile, cycle)}: not an image of shape {self._shape}")
        return np.frombuffer(content, "<u2").reshape(self._shape)

    def drop(self, tile: TileId, cycle: int) -> None:
        """Remove the image of a tile-cycle, if there is one."""
        if (tile, cycle) in self._held:
            self._files.spooled(tile, cycle).unlink(missing_ok=True)
            self._held.discard((tile, cycle))

    def kept_up_to(self, tile: TileId, committed: int) -> int:
        """Last cycle up to which every cycle of a tile is committed or in the spool.

        Parameters
        ----------
        committed : last committed cycle of the tile.
        """
        while (tile, committed + 1) in self._held:
            committed += 1
        return committed

    def recovered(self, committed: Mapping[TileId, int]) -> set[tuple[TileId, int]]:
        """Tile-cycles whose images are whole and still needed; everything else in the folder is removed.

        Parameters
        ----------
        committed : last committed cycle of each tile.

        Raises
        ------
        OSError, OutputError : the disk answers with an error; the call may be repeated.
        """
        self._held.clear()
        for path in self._files.spool.iterdir():
            key = self._needed(path, committed)
            if key is None:
                path.unlink(missing_ok=True)
            else:
                self._held.add(key)
        return set(self._held)

    def _needed(self, path: Path, committed: Mapping[TileId, int]) -> tuple[TileId, int] | None:
        """The tile-cycle of a file in the spool; None where the file is not whole or not needed any more."""
        named = NAME.fullmatch(path.name)
        if named is None:
            return None
        try:
            tile, cycle = TileId(lane=int(named[1]), tile=int(named[2])), int(named[3])
            if cycle <= committed.get(tile, 0):
                return None
            self.get(tile, cycle)
        except ValueError:
            return None
        except OutputError as error:
            if error.reason is not StopReason.OUTPUT_CHANGED:
                raise
            return None
        return tile, cycle
