"""Writes the golden messages and the JSON schema of the status again: ``python -m tests.client.regenerate``.

A golden file holds the three parts of a message, each as u32 length (little-endian) and bytes. Commit a changed golden
message only together with a new protocol version, or as a new kind of message.
"""

import json
import struct
import zlib

from seqd_client.runinfo import Read, RunInfo, TileId
from seqd_client.status import Status
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import (
    Accepted,
    Calls,
    CycleEnd,
    Done,
    Drain,
    Event,
    Frame,
    Gone,
    Hold,
    Idle,
    Kept,
    Message,
    Position,
    Refused,
    Release,
    Replay,
    Resend,
    RunEnd,
    RunStart,
    StatusAnswer,
    StatusQuery,
    Sync,
    Template,
    TileProgress,
    TilesAnswer,
    TilesQuery,
)

from tests.support.places import DOCS, GOLDEN

RUN = "20260301_SEQ1_0042_FC7"
INFO = RunInfo(
    run=RUN,
    number=42,
    flowcell="FC7",
    instrument="SEQ1",
    date="2026-03-01",
    reads=(Read(number=1, cycles=100), Read(number=2, cycles=8, index=True)),
    tiles=(TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)),
    height=8,
    width=10,
)
A_TILE = {"lane": 1, "tile": 1101}
TILE = {"run": RUN, **A_TILE}
FRAME = {**TILE, "cycle": 7, "channel": "G"}
NOON = 1772366400_000000000
PIXELS = struct.pack("<80H", *(100 + 257 * index for index in range(80)))
POSITIONS = struct.pack("<6f", 1.5, 2.0, 7.25, 3.0, 9.0, 6.75)
STATUS = b'{"v":1,"state":"waiting"}'

EXAMPLES: list[tuple[Message, bytes]] = [
    (RunStart(run=RUN, seq=0, info=INFO), b""),
    (Frame(**FRAME, seq=57, height=8, width=10, t_ns=NOON, crc32=zlib.crc32(PIXELS)), PIXELS),
    (CycleEnd(run=RUN, seq=63, cycle=7), b""),
    (RunEnd(run=RUN, seq=973), b""),
    (Sync(), b""),
    (Position(run=RUN, seq=63, cycle=7, ended=False), b""),
    (Idle(), b""),
    (Resend(**FRAME), b""),
    (Gone(**FRAME), b""),
    (Hold(run=RUN), b""),
    (Release(run=RUN), b""),
    (Kept(run=RUN, cycle=7), b""),
    (Done(run=RUN), b""),
    (Calls(**TILE, seq=17, cycle=7, n=4), bytes([40 << 2 | 0, 37 << 2 | 3, 0, 12 << 2 | 1])),
    (Template(**TILE, seq=9, n=3), POSITIONS),
    (
        Event(
            run=RUN, seq=2, t_ns=NOON, level="info", run_state="running", text=f"run {RUN} taken up with openvino f32"
        ),
        b"",
    ),
    (StatusQuery(), b""),
    (StatusAnswer(), STATUS),
    (TilesQuery(), b""),
    (TilesAnswer(run=RUN, tiles=(TileProgress(**A_TILE, cycle=7), TileProgress(lane=1, tile=1102, cycle=0))), b""),
    (Replay(**A_TILE, cycle=7), b""),
    (Drain(), b""),
    (Accepted(), b""),
    (Refused(reason="tile 1_1101, cycle 7: not committed"), b""),
]

for message, payload in EXAMPLES:
    parts = [bytes(part) for part in encode(message, payload)]
    content = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    (GOLDEN / f"{message.topic}.bin").write_bytes(content)
(DOCS / "reference" / "status.schema.json").write_text(json.dumps(Status.model_json_schema(), indent=2) + "\n", "utf-8")
