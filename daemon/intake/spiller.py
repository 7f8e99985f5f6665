"""The spiller: a thread that moves images to the spool, so that a slow disk delays no frame."""

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

CLOSE_S = 10.0


class Spiller:
    """Writes one image at a time in its own thread; another thread starts the writing and asks for its end."""

    def __init__(self, spool: Spool, committed: Mapping[TileId, int], retry: StorageRetry) -> None:
        """
        Parameters
        ----------
        committed : last committed cycle of each tile; it changes while cycles are committed.
        """
        self._spool, self._committed, self._retry = spool, committed, retry
        self._started: queue.Queue[TileImage | None] = queue.Queue(1)
        self._ended: queue.SimpleQueue[tuple[TileId, int] | None] = queue.SimpleQueue()
        self._worker = Worker("spool", self._write)
        self.busy = False

    def start(self, image: TileImage) -> None:
        """Start to move an image; the spiller must not be ``busy``."""
        self.busy = True
        self._started.put_nowait(image)

    def poll(self) -> tuple[TileId, int] | None:
        """The tile-cycle whose image has moved to the disk since the last poll; None if there is none.

        An image that could not be written is not returned, and may be started again.
        """
        self._worker.check()
        try:
            moved = self._ended.get_nowait()
        except queue.Empty:
            return None
        self.busy = False
        return moved

    def __enter__(self) -> "Spiller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(queue.Full):
            self._started.put(None, timeout=CLOSE_S)
        self._worker.join(CLOSE_S)

    def _write(self) -> None:
        while (image := self._started.get()) is not None:
            try:
                self._retry("spool", partial(self._spool.put, image.tile, image.cycle, image.pixels))
                if self._committed.get(image.tile, 0) >= image.cycle:
                    # The tile-cycle was called while its image was written.
                    self._retry("spool", partial(self._spool.drop, image.tile, image.cycle))
            except OutputError:
                # The image stays in memory; when memory is full, the controller is asked to hold.
                self._ended.put(None)
            else:
                self._ended.put((image.tile, image.cycle))
