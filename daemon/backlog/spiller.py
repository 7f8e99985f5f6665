"""The thread that moves images to the spool, so that a slow disk delays no frame."""

import queue
from types import TracebackType

from calib.runfolder import TileId
from daemon.errors import OutputError
from daemon.intake.assembler import TileImage
from daemon.record.patience import Patience
from daemon.record.spool import Spool
from daemon.worker import Worker

POLL_S = 0.05
CLOSE_S = 10.0


class Spiller:
    """Writes one image at a time; the images come from one thread, and it learns there when they are on the disk."""

    def __init__(self, spool: Spool, patience: Patience) -> None:
        self._spool, self._patience = spool, patience
        self._given: queue.Queue[TileImage | None] = queue.Queue(1)
        self._moved: queue.SimpleQueue[tuple[TileId, int]] = queue.SimpleQueue()
        self._worker = Worker("spool", self._write)
        self.busy = False

    def give(self, image: TileImage) -> None:
        """Begin to move an image; only while not ``busy``."""
        self.busy = True
        self._given.put_nowait(image)

    def moved(self) -> tuple[TileId, int] | None:
        """The tile-cycle whose image has reached the disk, once."""
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
        self._given.put(None)
        self._worker.join(CLOSE_S)

    def _write(self) -> None:
        while (image := self._given.get()) is not None:
            tile, cycle, pixels = image.tile, image.cycle, image.pixels
            try:
                self._patience("spool", lambda: self._spool.put(tile, cycle, pixels))  # noqa: B023 - called at once
            except OutputError:
                # It stays in memory, and the controller is asked to hold when that is full.
                continue
            self._moved.put((tile, cycle))
