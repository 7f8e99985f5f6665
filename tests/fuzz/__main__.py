"""``python -m tests.fuzz codec|control --minutes 10 [--seed 1]``: random messages, guided by coverage (libFuzzer).

Starts from the golden messages. Anything but a refusal (an exception, no answer within 5 s, growing memory) ends it
with the input that did it, and an exit code other than 0. Needs the package ``atheris``.
"""

import argparse
import copy
import gc
import random
import resource
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

from tests.support.places import GOLDEN

with atheris.instrument_imports(
    include=["seqd_client.wire", "daemon.serving.requests", "calib.runfolder.images", "msgpack"]
):
    import msgpack
    import zmq
    from seqd_client.wire.codec import WireError, decode, encode
    from seqd_client.wire.messages import MESSAGES

    from daemon.config import ControlConfig, SecurityConfig
    from daemon.serving.gate import Gate
    from daemon.serving.requests import RequestServer
    from daemon.watching.runstatus import RunStatus

ANSWER_MS = 5000
MOST_RSS_MB = 1024
WARM = 20_000
"""Inputs after which memory is looked at first."""

MOST_GROWTH = 1.1

ODD = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**64 - 1,
    0.5,
    float("nan"),
    "",
    "../x",
    "A",
    "x" * 200,
    b"",
    b"\0",
    [],
    {},
    [[[]]],
)
"""Values that a field may be given instead of its own."""


def parts_of(data: bytes) -> list[bytes]:
    """Input as message parts: each a length (u32, taken modulo what is left) and its bytes, as in a golden file."""
    parts = []
    while len(data) >= 4:
        length = struct.unpack_from("<I", data)[0] % (len(data) - 3)
        parts.append(data[4 : 4 + length])
        data = data[4 + length :]
    return parts


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """A change that keeps the header msgpack half of the time, libFuzzer's own else."""
    chance = random.Random(seed)
    parts = parts_of(data)
    if len(parts) != 3 or chance.random() < 0.5:
        return bytes(atheris.Mutate(data, max_size))
    try:
        header = msgpack.unpackb(parts[1])
    except (ValueError, msgpack.UnpackException):
        return bytes(atheris.Mutate(data, max_size))
    change(header, chance)
    parts[1] = msgpack.packb(header)
    if chance.random() < 0.2:
        parts[0] = chance.choice(sorted(MESSAGES)).encode()
    return joined(parts)[:max_size]


def change(header: object, chance: random.Random) -> None:
    """Replace, remove or add one value somewhere in a header."""
    while isinstance(header, dict | list) and header:
        keys = list(header) if isinstance(header, dict) else list(range(len(header)))
        key = chance.choice(keys)
        inner = header[key]
        if isinstance(inner, dict | list) and chance.random() < 0.7:
            header = inner
            continue
        match chance.randrange(4):
            case 0:
                del header[key]
            case 1 if isinstance(inner, int):
                header[key] = (inner + chance.choice((-1, 1, 256, -256))) % 2**64
            case 2 if isinstance(header, list):
                header.append(inner)
            case _:
                header[key] = copy.deepcopy(chance.choice(ODD))
        return


def joined(parts: list[bytes]) -> bytes:
    """Message parts as :func:`parts_of` takes them apart; a length is that of the part modulo what is left."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def codec(data: bytes) -> None:
    """What is decoded comes back the same; everything else is a refusal."""
    try:
        message, payload = decode(parts_of(data))
    except WireError:
        return
    if decode(encode(message, payload)) != (message, payload):
        raise AssertionError(f"{message} does not come back")


def control(folder: Path) -> Callable[[bytes], None]:
    """Every message to the control socket is answered by one that can be read."""
    endpoint = f"ipc://{folder}/control"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    status = RunStatus("fuzz")
    config = ControlConfig(endpoint=endpoint, command=f"ipc://{folder}/command")
    RequestServer(context, config, status, lambda: None, Gate(context, SecurityConfig(), status.counters))
    client = context.socket(zmq.DEALER)
    client.connect(endpoint)

    def send(data: bytes) -> None:
        parts = parts_of(data)
        if not parts:
            return
        client.send_multipart(parts)
        if not client.poll(ANSWER_MS):
            raise AssertionError(f"no answer to {parts!r:.200}")
        decode(client.recv_multipart())

    return send


class Memory:
    """Fails when resident memory grows after the first inputs."""

    def __init__(self) -> None:
        self._inputs, self._first_kib = 0, 0

    def look(self) -> None:
        """Call with every input."""
        self._inputs += 1
        if self._inputs % WARM:
            return
        gc.collect()
        kib = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
        self._first_kib = self._first_kib or kib
        if kib > MOST_GROWTH * self._first_kib:
            raise AssertionError(f"resident memory grew from {self._first_kib} to {kib} KiB")
        looks = self._inputs // WARM
        if looks & (looks - 1) == 0:
            print(f"{self._inputs} inputs: {kib} KiB resident", flush=True)


def main() -> None:
    """Fuzz for as long as was asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["codec", "control"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    memory = Memory()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for golden in GOLDEN.glob("*.bin"):
            (corpus / golden.stem).write_bytes(golden.read_bytes())
        words = sorted({*MESSAGES, *(name for kind in MESSAGES.values() for name in kind.model_fields)})
        dictionary = Path(scratch) / "words"
        dictionary.write_text("".join(f'"{word}"\n' for word in words))
        target = codec if asked.target == "codec" else control(Path(scratch))

        def one(data: bytes) -> None:
            target(data)
            memory.look()

        options = [
            f"-max_total_time={int(60 * asked.minutes)}",
            f"-seed={asked.seed}",
            f"-rss_limit_mb={MOST_RSS_MB}",
            f"-dict={dictionary}",
            "-timeout=10",
            "-max_len=4096",
            "-print_final_stats=1",
            str(corpus),
        ]
        atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutated)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
