"""The benchmark measures whether calling becomes slower if a consumer subscribes but does not read.

One run is repeated, alternately without and with the consumer.
``python -m tests.benchmarks.consumer [--pairs N] [--cycles N]`` prints every pair and the median ratio of the speeds.
The claim is a ratio above 0.97. If runs without a consumer differ from each other by more than 3 %, the claim cannot be
decided. The consumer subscribes before the run begins and reads after its end, more than a minute later. The daemon
keeps 128 messages for it, and buffers of the system keep some 200 more. A run of 100 cycles has 800 messages, so the
daemon must drop some; a run of 40 cycles drops none. Processor time is printed too, since other programs disturb it
less than wall-clock time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import tomli_w
import zmq
from rich.console import Console
from rich.table import Table
from seqd_client.sockets import connect

SEQD = (sys.executable, "-m", "daemon.cli")
RUN, SIZE, TILES, DENSITY_K_MM2 = "CONSUMED", 128, 8, 284
CHANNELS = 4
QUEUE_BYTES = 10**6
CLAIM = 0.97
RUN_LIMIT_S = 1800


@dataclass(frozen=True)
class RunMeasurement:
    """The figures of one run."""

    called_s: float
    """Seconds from the opening of the engine to the end of the run."""
    processor_s: float
    """Processor time of the daemon, seconds."""
    read: int
    """Messages that the consumer received after the end of the run."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The same run with and without a consumer that does not read.")
    parser.add_argument(
        "--pairs", type=int, default=5, help="number of pairs of runs, one with and one without a consumer; at least 3"
    )
    parser.add_argument("--cycles", type=int, default=100, help="cycles of each run")
    arguments = parser.parse_args()
    pairs, cycles = max(3, arguments.pairs), arguments.cycles
    without: list[RunMeasurement] = []
    consumed: list[RunMeasurement] = []
    with TemporaryDirectory(prefix="seqd-", dir="/tmp") as scratch:
        images = Path(scratch) / "images"
        simulated = ["--run", RUN, "--tiles", TILES, "--cycles", cycles, "--size", SIZE, "--density", DENSITY_K_MM2]
        subprocess.run([*SEQD, "calib", "simulate", str(images), *map(str, simulated)], check=True, capture_output=True)
        for pair in range(pairs):
            # The order alternates, so that a machine that becomes slower favours neither.
            for there in (False, True) if pair % 2 == 0 else (True, False):
                (consumed if there else without).append(_measured(images, Path(scratch) / f"{pair}{there:d}", there))
    _show(without, consumed, cycles)


def _show(without: list[RunMeasurement], consumed: list[RunMeasurement], cycles: int) -> None:
    published = TILES * (cycles + 1) + 2
    title = (
        f"{TILES} tiles of {SIZE}² px, {cycles} cycles, {DENSITY_K_MM2} K/mm²: {TILES * cycles * CHANNELS} frames a run"
    )
    table = Table("", "without a consumer", "with one", "ratio", "messages dropped", title=title)
    speeds, works = [], []
    for number, (free, watched) in enumerate(zip(without, consumed, strict=True), 1):
        speeds.append(free.called_s / watched.called_s)
        works.append(watched.processor_s / free.processor_s)
        rates = [f"{TILES * cycles / run.called_s:.2f} tile-cycles/s" for run in (free, watched)]
        table.add_row(f"pair {number}", *rates, f"{speeds[-1]:.3f}", f"{published - watched.read} of {published}")
        table.add_row("", f"{free.processor_s:.1f} s processor", f"{watched.processor_s:.1f} s", f"{works[-1]:.3f}", "")
    console = Console()
    console.print(table)
    speed = statistics.median(speeds)
    times = [run.called_s for run in without]
    noise = max(times) / min(times) - 1
    verdict = "the claim holds" if speed > CLAIM else "the claim does not hold"
    if noise > 1 - CLAIM:
        verdict = "not decided, this machine is too noisy"
    console.print(
        f"speed with such a consumer, relative to the speed without: {speed:.3f}, median of {len(speeds)} pairs "
        f"(processor time: {statistics.median(works):.3f}); runs without a consumer differ by {noise:.1%}; "
        f"a ratio above {CLAIM} is claimed: {verdict}"
    )


def _measured(images: Path, folder: Path, consumed: bool) -> RunMeasurement:
    folder.mkdir()
    addresses = {name: f"ipc://{folder}/{name}" for name in ("frames", "recovery", "calls", "control", "command")}
    settings = {
        "output": str(folder / "runs"),
        "controller": {name: addresses[name] for name in ("frames", "recovery")},
        "stream": {"calls": addresses["calls"], "queue": QUEUE_BYTES},
        "control": {"endpoint": addresses["control"], "command": addresses["command"]},
        "log": {"format": "json"},
    }
    config, log = folder / "seqd.toml", folder / "daemon.log"
    config.write_text(tomli_w.dumps(settings))
    camera = [*SEQD, "camera", str(images), "--frames", addresses["frames"], "--recovery", addresses["recovery"]]
    with zmq.Context() as context, context.socket(zmq.SUB) as consumer:
        if consumed:
            consumer.setsockopt(zmq.SUBSCRIBE, b"")
            connect(consumer, addresses["calls"], queue=1)
        with log.open("wb") as file, _process([*SEQD, "run", "--config", str(config)], file.fileno()) as daemon:
            subprocess.run(camera, check=True, capture_output=True, timeout=RUN_LIMIT_S)
            deadline = time.monotonic() + 60
            while (ended := _first_logged_s(log, "run ended")) is None:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the run did not end: {log.read_text().splitlines()[-1]}")
                time.sleep(0.1)
            processor_s = _processor_s(daemon.pid)
            read = 0
            while consumer.poll(500):
                consumer.recv_multipart()
                read += 1
    began = _first_logged_s(log, "engine")
    assert began is not None, "the log has no event for the engine's opening"
    return RunMeasurement(ended - began, processor_s, read)


def _first_logged_s(log: Path, name: str) -> float | None:
    """Time at which an event was first logged, seconds since 1970; None if it was not logged."""
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return next(
        (datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["event"] == name), None
    )


def _processor_s(process: int) -> float:
    """Processor time of a living process, user and system; proc(5)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _process(command: list[str], log: int) -> Iterator["subprocess.Popen[bytes]"]:
    started = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()


if __name__ == "__main__":
    main()
