"""A long run of small tiles through the real daemon, to show that its resources do not grow.

Prints resident memory, threads, sockets and file descriptors after the first tile-cycles and at the end (medians of
several samples), and their ratio. Ends with 1 where a resource grew by more than a twentieth.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

import tomli_w
from seqd_client.consumer import ControlClient
from seqd_client.errors import UnreachableError

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run

RUN, TILES, CYCLES, SHAPE = "SOAK", 4, 500, (48, 48)
SETTLED = 200
"""Tile-cycles before the first sample; the files of every tile are open by then."""

SAMPLES = 25
"""Samples of each median; one sample may count a file that is open only for a moment."""

MAX_RATIO = 1.05
POLL_S = 0.2


@dataclass(frozen=True)
class Resources:
    """Resources that a process holds."""

    memory_kib: int
    threads: int
    sockets: int
    descriptors: int


def resources(pid: int) -> Resources:
    """The resources of a process, from ``/proc``."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    opened = [path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return Resources(
        memory_kib=int(status["VmRSS"].split()[0]),
        threads=int(status["Threads"]),
        sockets=sum(name.startswith("socket:") for name in opened),
        descriptors=len(opened),
    )


def soak(folder: Path) -> list[Resources]:
    """The daemon's resources in samples from :data:`SETTLED` tile-cycles on."""
    write_simulated_run(
        folder / "images",
        Conditions(),
        run=RUN,
        tiles=TILES,
        cycles=CYCLES,
        shape=SHAPE,
        seed=8,
        progress=lambda _: None,
    )
    addresses = {name: f"ipc://{folder}/{name}" for name in ("frames", "recovery", "calls", "control", "command")}
    settings = {
        "output": str(folder / "runs"),
        "controller": {name: addresses[name] for name in ("frames", "recovery")},
        "stream": {"calls": addresses["calls"]},
        "control": {"endpoint": addresses["control"], "command": addresses["command"]},
    }
    config = folder / "seqd.toml"
    config.write_text(tomli_w.dumps(settings))
    seqd = [sys.executable, "-m", "daemon.cli"]
    camera = ["camera", str(folder / "images"), "--frames", addresses["frames"], "--recovery", addresses["recovery"]]
    samples = []
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([*seqd, *camera], stdout=log, stderr=log) as controller,
        subprocess.Popen([*seqd, "run", "--once", "--config", str(config)], stdout=log, stderr=log) as daemon,
        ControlClient(addresses["control"]) as client,
    ):
        while daemon.poll() is None:
            time.sleep(POLL_S)
            try:
                cycle = client.status().cycle
            except UnreachableError:
                continue
            if SETTLED // TILES <= cycle < CYCLES:
                samples.append(resources(daemon.pid))
        controller.wait(60)
        if daemon.returncode or not samples:
            raise SystemExit(f"the daemon ended with {daemon.returncode}:\n{(folder / 'log').read_text()}")
    return samples


def medians(samples: list[Resources]) -> Resources:
    """The median of each resource."""
    return Resources(*(int(median(values)) for values in zip(*map(astuple, samples), strict=True)))


def main() -> None:
    """Soak and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        samples = soak(Path(scratch))
    first, last = medians(samples[:SAMPLES]), medians(samples[-SAMPLES:])
    print(f"{TILES * CYCLES} tile-cycles of {SHAPE[0]}×{SHAPE[1]} px in {time.monotonic() - began:.0f} s")
    grown = False
    for field, before, after in zip(fields(Resources), astuple(first), astuple(last), strict=True):
        grown |= after > MAX_RATIO * before
        print(f"{field.name:12} {before:8} after {SETTLED}, {after:8} at the end: {after / before:.3f}")
    raise SystemExit(1 if grown else 0)


if __name__ == "__main__":
    main()
