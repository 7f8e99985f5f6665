import errno
from pathlib import Path

import numpy as np
import pytest
from seqd_client.runinfo import Read, RunInfo, TileId
from seqd_client.status import StopReason

from daemon.errors import OutputError
from daemon.record.runfiles import RunFiles
from daemon.record.spool import Spool

TILE, OTHER = TileId(lane=1, tile=1101), TileId(lane=2, tile=1101)
INFO = RunInfo(
    run="R1",
    flowcell="FC",
    instrument="SEQ",
    reads=(Read(number=1, cycles=9),),
    tiles=(TILE, OTHER),
    height=8,
    width=10,
)


def image(seed):
    return np.random.default_rng(seed).integers(0, 2**16, (4, 8, 10), np.uint16)


@pytest.fixture
def files(tmp_path):
    files = RunFiles(tmp_path / "R1")
    files.create()
    return files


@pytest.fixture
def spool(files):
    return Spool(files, INFO)


def test_image_is_read_back_as_it_was(spool):
    spool.put(TILE, 3, image(1)[:, ::-1])
    assert np.array_equal(spool.get(TILE, 3), image(1)[:, ::-1])


def test_image_may_be_put_again(spool):
    spool.put(TILE, 3, image(1))
    spool.put(TILE, 3, image(2))
    assert np.array_equal(spool.get(TILE, 3), image(2))


def test_next_start_finds_what_is_not_committed_and_removes_the_rest(spool, files):
    for tile, cycle in ((TILE, 2), (TILE, 3), (OTHER, 1)):
        spool.put(tile, cycle, image(cycle))
    files.spooled_signals(TILE, 3).write_bytes(b"signals")
    (files.spool / ".s_1_1101_C4.image.tmp").write_bytes(b"half an image")
    (files.spool / "s_0_1_C4.image").write_bytes(b"no lane has this number")
    after = Spool(files, INFO)
    assert after.recovered({TILE: 2}) == {(TILE, 3), (OTHER, 1)}
    assert np.array_equal(after.get(TILE, 3), image(3))
    assert {path.name for path in files.spool.iterdir()} == {"s_1_1101_C3.image", "s_2_1101_C1.image"}


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: content[:-33] + b"x" + content[-32:], bytes]
)
def test_damaged_image_is_not_called(damage, spool, files):
    spool.put(TILE, 3, image(3))
    path = files.spooled(TILE, 3)
    content = path.read_bytes()
    path.write_bytes(damage(content) if damage is not bytes else b"")
    with pytest.raises(OutputError, match="SHA-256"):
        spool.get(TILE, 3)
    assert Spool(files, INFO).recovered({}) == set()
    assert not path.exists()


def test_image_of_another_size_is_not_called(spool, files):
    Spool(files, INFO.model_copy(update={"height": 9})).put(TILE, 3, np.zeros((4, 9, 10), np.uint16))
    with pytest.raises(OutputError, match=r"not an image of shape \(4, 8, 10\)"):
        spool.get(TILE, 3)


def test_spool_is_kept_up_to_the_first_cycle_that_is_nowhere(spool):
    for cycle in (3, 4, 6):
        spool.put(TILE, cycle, image(cycle))
    assert [spool.kept_up_to(TILE, committed) for committed in (1, 2, 5)] == [1, 4, 6]
    spool.drop(TILE, 3)
    assert spool.kept_up_to(TILE, 2) == 2
    spool.drop(TILE, 3)


def test_image_that_cannot_be_read_just_now_is_not_taken_for_damaged(spool, files, monkeypatch):
    spool.put(TILE, 3, image(3))
    errors = [OSError(errno.EIO, "Input/output error")]
    read_bytes = Path.read_bytes

    def failing(path):
        if path.suffix == ".image" and errors:
            raise errors.pop()
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    after = Spool(files, INFO)
    with pytest.raises(OutputError) as caught:
        after.recovered({})
    assert caught.value.reason is StopReason.STORAGE_FAILED
    assert after.recovered({}) == {(TILE, 3)}
