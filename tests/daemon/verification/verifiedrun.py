"""Facts and helpers of the tests of verification."""

import sqlite3
import subprocess
from contextlib import closing

from seqd_client.runinfo import Read, TileId

from daemon.outputs.sink import Encoding, encoded
from daemon.verification import verify_run
from tests.support.processes import SEQD

RUN = "VERIFIED"
FIRST, SECOND = TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)
READS = (Read(number=1, cycles=6), Read(number=2, cycles=3, index=True))
CYCLES = 9
FILTERED = 6
"""Cycles that decide about the chastity filter: the first read's."""
SIZE = 96
CALLING = {"template_cycles": 3}
SINKS = {"bcl": "off", "interop": False, "report": False}


def verified(folder):
    return verify_run(folder, progress=lambda done, of: None)


def lines(folder):
    return [str(difference) for difference in verified(folder).differences]


def seqd_verify(*arguments):
    return subprocess.run([*SEQD, "verify", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def state_of(folder):
    """Everything in a folder, with times of change."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            path.is_file() and path.read_bytes(),
        )
        for path in folder.rglob("*")
    }


def encode(pieces):
    return b"".join(encoded(pieces, Encoding.BGZF))


def fastq_of(files, tile, read):
    return files.root / "fastq" / f"s_{tile}_{'I' if read.index else 'R'}1.fastq.gz"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def change(files, statement, *values):
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as database:
        assert database.execute(statement, values).rowcount != 0


def clusters_of(files, tile):
    return int.from_bytes(files.calls_of(tile).read_bytes()[:4], "little")


def committed(files, tile):
    with closing(sqlite3.connect(files.ledger)) as database:
        return database.execute("SELECT max(cycle) FROM tile_cycle WHERE tile = ?", (tile.tile,)).fetchone()[0]
