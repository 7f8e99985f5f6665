import errno
import time

import numpy as np
import pytest
from seqd_client.runinfo import TileId

from daemon.intake.spiller import Spiller
from daemon.intake.tileimages import TileImage
from daemon.record.storageretry import StorageRetry
from daemon.watching.liveness import Liveness
from daemon.watching.troubles import Troubles

TILE = TileId(lane=1, tile=1101)
IMAGE = TileImage(TILE, 3, np.zeros((4, 8, 8), np.uint16))


class Disk:
    """A spool whose disk fails for a while."""

    def __init__(self, failures):
        self.failures, self.images = failures, set()

    def put(self, tile, cycle, pixels):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.images.add((tile, cycle))

    def drop(self, tile, cycle):
        self.images.discard((tile, cycle))


def moved(spiller):
    """The tile-cycle whose image has moved; None when its writing failed."""
    deadline = time.monotonic() + 10
    while spiller.busy and time.monotonic() < deadline:
        if (done := spiller.poll()) is not None:
            return done
        time.sleep(0.01)
    return None


@pytest.fixture
def impatient():
    return StorageRetry(Troubles(), Liveness(), lambda *_: None, lambda: False, retry_for_s=0)


def test_image_that_could_not_be_moved_can_be_started_again(impatient):
    disk = Disk(failures=2)
    with Spiller(disk, {}, impatient) as spiller:
        spiller.start(IMAGE)
        assert moved(spiller) is None
        assert not spiller.busy
        while disk.failures:
            spiller.start(IMAGE)
            moved(spiller)
        spiller.start(IMAGE)
        assert moved(spiller) == (TILE, 3)
    assert disk.images == {(TILE, 3)}


def test_image_that_was_called_while_it_was_moved_is_not_left_behind(impatient):
    disk = Disk(failures=0)
    with Spiller(disk, {TILE: 3}, impatient) as spiller:
        spiller.start(IMAGE)
        assert moved(spiller) == (TILE, 3)
    assert disk.images == set()
