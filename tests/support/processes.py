"""Real daemons and controllers for tests: own folder, own sockets, nothing outlives the block."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from seqd_client.consumer import ControlClient
from seqd_client.errors import UnreachableError
from seqd_client.status import Status

SEQD = [sys.executable, "-m", "daemon.cli"]
PATIENCE_S = 240.0
"""Seconds after which a process counts as hanging; below the time limit of a test."""


@dataclass
class Bench:
    """A scratch folder with a configuration."""

    folder: Path
    config: Path
    settings: dict

    def endpoint(self, name: str) -> str:
        return f"ipc://{self.folder}/{name}"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @contextmanager
    def daemon(self, *arguments: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
        command = [*SEQD, "run", "--config", str(self.config), *arguments]
        with process(command, self.folder / "daemon.log", env) as started:
            yield started

    @contextmanager
    def camera(self, images: Path, *arguments: str) -> Iterator[subprocess.Popen]:
        sockets = ["--frames", self.endpoint("frames"), "--recovery", self.endpoint("recovery")]
        command = [*SEQD, "camera", str(images), *sockets, *arguments]
        with process(command, self.folder / "camera.log", None) as started:
            yield started

    def status(self) -> Status:
        with ControlClient(self.endpoint("control"), timeout_s=5) as client:
            return client.status()

    def statuses(self) -> list[Status]:
        """The status, or nothing while nobody answers."""
        try:
            return [self.status()]
        except UnreachableError:
            return []

    def wait_for(self, condition: Callable[[Status], bool]) -> Status:
        deadline = time.monotonic() + PATIENCE_S
        status = None
        while time.monotonic() < deadline:
            try:
                status = self.status()
            except UnreachableError:
                continue
            if condition(status):
                return status
            time.sleep(0.05)
        raise AssertionError(
            f"waited {PATIENCE_S} s; last status {status}; log {(self.folder / 'daemon.log').read_text()}"
        )


def bench(folder: Path, **sections: dict) -> Bench:
    settings: dict = {
        "output": str(folder / "runs"),
        "controller": {
            "frames": f"ipc://{folder}/frames",
            "recovery": f"ipc://{folder}/recovery",
            "resend_after_s": 0.2,
            "missing_after_s": 5.0,
        },
        "stream": {"calls": f"ipc://{folder}/calls"},
        "control": {"endpoint": f"ipc://{folder}/control", "command": f"ipc://{folder}/command"},
        "calling": {"template_cycles": 4},
        # Views take time that most tests have no use for.
        "sinks": {"interop": False, "report": False},
        "log": {"format": "json"},
    }
    for section, values in sections.items():
        settings[section] = settings.get(section, {}) | values
    config = folder / "seqd.toml"
    config.write_text(tomli_w.dumps(settings))
    return Bench(folder, config, settings)


@contextmanager
def process(
    command: list[str], log: Path, env: dict[str, str] | None, *, cwd: Path | None = None
) -> Iterator[subprocess.Popen]:
    with log.open("ab") as file:
        started = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | (env or {}), cwd=cwd)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGKILL)
        started.wait(10)


def finish(started: subprocess.Popen) -> int:
    """Exit code of a process that should end by itself."""
    return started.wait(PATIENCE_S)


def outputs(run_folder: Path) -> dict[str, bytes]:
    """Bytes of everything that must be the same however a run went."""
    patterns = ("fastq/*.fastq.gz", "tiles/*.bcls", "tiles/*.locs", "tiles/*.chastity", "Data/**/s_*")
    files = [path for pattern in patterns for path in run_folder.glob(pattern)]
    return {str(path.relative_to(run_folder)): path.read_bytes() for path in sorted(files)}
