import fcntl
import os
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from daemon.errors import OutputError
from daemon.record.durable import open_temporary, temporary, write_durably
from daemon.record.tilefile import open_tile_file, read_cycles

CLUSTERS = 5


def calls(cycle, clusters=CLUSTERS):
    return np.arange(clusters, dtype=np.uint8) + np.uint8(16 * cycle)


def written(path, cycles, clusters=CLUSTERS):
    """The path of a tile file with so many cycles."""
    file = open_tile_file(path, clusters=clusters, cycles=0)
    for cycle in range(1, cycles + 1):
        file.put(cycle, calls(cycle, clusters))
    file.close()
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s_1_1101.bcls"


def test_layout_is_the_number_of_clusters_and_then_a_byte_for_each_and_cycle(path):
    written(path, 2)
    assert path.read_bytes() == struct.pack("<I", CLUSTERS) + calls(1).tobytes() + calls(2).tobytes()


def test_appended_cycles_are_read_back(path):
    written(path, 4)
    read = read_cycles(path, range(2, 4))
    assert read.tolist() == [calls(2).tolist(), calls(3).tolist()]


def test_cycle_that_was_half_written_is_written_again(path):
    file = open_tile_file(path, clusters=CLUSTERS, cycles=0)
    file.put(1, calls(1))
    with path.open("ab") as torn:
        torn.write(calls(2).tobytes()[:3])
    file.put(2, calls(2))
    file.close()
    assert path.read_bytes() == struct.pack("<I", CLUSTERS) + calls(1).tobytes() + calls(2).tobytes()


def test_bytes_are_in_the_file_when_put_returns(path):
    file = open_tile_file(path, clusters=CLUSTERS, cycles=0)
    file.put(1, calls(1))
    assert read_cycles(path, range(1, 2)).tolist() == [calls(1).tolist()]
    file.close()


@pytest.mark.parametrize("tail", [b"", b"\x01", bytes(CLUSTERS - 1), bytes(3 * CLUSTERS + 2)])
def test_reopened_file_is_cut_after_what_was_committed_and_continued(path, tail):
    whole = written(path, 3).read_bytes()
    path.write_bytes(whole[: 4 + 2 * CLUSTERS] + tail)
    file = open_tile_file(path, clusters=CLUSTERS, cycles=2)
    assert path.read_bytes() == whole[: 4 + 2 * CLUSTERS]
    file.put(3, calls(3))
    file.close()
    assert path.read_bytes() == whole


def test_file_without_committed_cycles_is_begun_again(path):
    path.write_bytes(b"torn")
    open_tile_file(path, clusters=7, cycles=0).close()
    assert path.read_bytes() == struct.pack("<I", 7)


def test_file_shorter_than_the_ledger_says_is_refused_and_left_alone(path):
    content = written(path, 3).read_bytes()[:-1]
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"s_1_1101\.bcls: 18 bytes, the ledger has 3 cycles of 5 clusters"):
        open_tile_file(path, clusters=CLUSTERS, cycles=3)
    assert path.read_bytes() == content


def test_missing_file_is_refused_when_the_ledger_has_cycles(path):
    with pytest.raises(OutputError, match="0 bytes, the ledger has 1 cycles"):
        open_tile_file(path, clusters=CLUSTERS, cycles=1)


def test_file_of_another_number_of_clusters_is_refused(path):
    written(path, 4, clusters=6)
    with pytest.raises(OutputError, match="changed from outside"):
        open_tile_file(path, clusters=CLUSTERS, cycles=2)


def test_calls_of_another_number_of_clusters_are_not_written(path):
    file = open_tile_file(path, clusters=CLUSTERS, cycles=0)
    with pytest.raises(ValueError, match=r"calls of shape \(4,\), the tile has 5 clusters"):
        file.put(1, calls(1, clusters=4))
    file.close()
    assert path.stat().st_size == 4


@pytest.mark.parametrize("cycles", [range(3, 4), range(1, 4), range(2, 5)])
def test_cycles_that_are_not_there_are_not_read(path, cycles):
    written(path, 2)
    with pytest.raises(OutputError, match=f"cycles {cycles[0]}-{cycles[-1]} are not all there"):
        read_cycles(path, cycles)


def test_file_without_header_is_not_read(path):
    path.write_bytes(b"\x05\x00")
    with pytest.raises(OutputError, match="no header"):
        read_cycles(path, range(1, 2))


def test_tile_without_clusters_has_cycles_of_no_bytes(path):
    written(path, 3, clusters=0)
    open_tile_file(path, clusters=0, cycles=3).close()
    assert read_cycles(path, range(1, 4)).shape == (3, 0)
    assert path.stat().st_size == 4


def test_durable_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "provenance.json"
    for content in (b"one", b"another", b""):
        write_durably(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_leftover_of_a_killed_write_does_not_matter(tmp_path):
    (tmp_path / ".provenance.json.tmp").write_bytes(b"half of something long")
    write_durably(tmp_path / "provenance.json", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["provenance.json"]
    assert (tmp_path / "provenance.json").read_bytes() == b"whole"


def test_writers_of_one_name_never_leave_a_half_under_it(tmp_path):
    """One after the other, or refused; by a lock of the open file, so threads stand for processes."""
    path, contents = tmp_path / "s_1_1101.filter", [bytes([65 + number]) * 300_000 for number in range(4)]
    write_durably(path, contents[0])
    seen, refused = set(), []

    def write(content):
        for _ in range(30):
            try:
                write_durably(path, content[:150_000], content[150_000:])
            except BlockingIOError as error:
                refused.append(error.strerror)
            seen.add(path.read_bytes())

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert seen <= set(contents)
    assert set(refused) <= {"another process writes it"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_another_writer_names_meanwhile_is_not_emptied(tmp_path, monkeypatch):
    path, lock = tmp_path / "s_1_1101.filter", fcntl.flock
    temporary(path).write_bytes(b"the other's")

    def locked_late(descriptor, operation):
        if not path.exists():
            temporary(path).replace(path)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", locked_late)
    os.close(open_temporary(path))
    assert path.read_bytes() == b"the other's"
    assert temporary(path).read_bytes() == b""
