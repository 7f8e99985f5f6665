"""The thread that moves images to the spool, so that a slow disk delays no frame."""

import queue
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType

from seqd_client.runinfo import TileId

from daemon.errors import OutputError
from daemon.intake.tileimages import TileImage
from daemon.record.spool import Spool
from daemon.record.storageretry import StorageRetry
from daemon.worker import Worker

POLL_S = 0.05
CLOSE_S = 10.0


class Spiller:
    """Writes one image at a time; the images come from one thread, and it learns there when they are on the disk."""

    def __init__(self, spool: Spool, committed: Mapping[TileId, int], retry: StorageRetry) -> None:
        """
        Parameters
        ----------
        committed : last committed cycle of each tile, kept up to date by the caller's thread.
        """
        self._spool, self._committed, self._retry = spool, committed, retry
        self._given: queue.Queue[TileImage | None] = queue.Queue(1)
        self._moved: queue.SimpleQueue[tuple[TileId, int] | None] = queue.SimpleQueue()
        self._worker = Worker("spool", self._write)
        self.busy = False

    def give(self, image: TileImage) -> None:
        """Begin to move an image; only while not ``busy``."""
        self.busy = True
        self._given.put_nowait(image)

    def moved(self) -> tuple[TileId, int] | None:
        """The tile-cycle whose image has reached the disk, once; one that did not can be given again."""
        self._worker.check()
        try:
            done = self._moved.get_nowait()
        except queue.Empty:
            return None
        self.busy = False
        return done

    def __enter__(self) -> "Spiller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(queue.Full):
            self._given.put(None, timeout=CLOSE_S)
        self._worker.join(CLOSE_S)

    def _write(self) -> None:
        while (image := self._given.get()) is not None:
            try:
                self._retry("spool", partial(self._spool.put, image.tile, image.cycle, image.pixels))
                if self._committed.get(image.tile, 0) >= image.cycle:
                    # It was called meanwhile.
                    self._retry("spool", partial(self._spool.drop, image.tile, image.cycle))
            except OutputError:
                # It stays in memory, and the controller is asked to hold when that is full.
                self._moved.put(None)
            else:
                self._moved.put((image.tile, image.cycle))
