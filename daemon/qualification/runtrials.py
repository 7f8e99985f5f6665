"""The trials of a qualification: each candidate in a child process with a time limit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from daemon.config import EngineConfig
from daemon.qualification.candidatetrial import Trial
from daemon.qualification.qualificationrecord import (
    CUPY,
    NUMPY,
    QualificationRecord,
    TrialResult,
    this_machine,
)
from engines.backends import BACKENDS
from engines.bundles.bundle import load_bundle
from engines.devices.probe import Cuda, CudaDevice
from engines.engineselection import CANDIDATES, Candidate

COMPARED = Candidate("torch", False)
"""A candidate that ``auto`` never takes; it is measured for comparison."""


def qualify(
    config: EngineConfig, *, size: tuple[int, int], limit_s: float, announce: Callable[[str], None]
) -> QualificationRecord:
    """Try all candidates, one after the other.

    Parameters
    ----------
    config : its bundle, precision, threads and strips are used.
    size : (H, W) of the full tiles.
    limit_s : time of each trial, after which the child process is killed.
    announce : takes the name of each candidate before its trial.

    Raises
    ------
    BundleError : the bundle cannot be used.
    """
    bundle = load_bundle(config.bundle)
    settings = config.model_dump(include={"precision", "threads", "strip_px"})
    gpus: list[Cuda] = []

    def tried(candidate: str, module: str, gpu: bool) -> TrialResult:
        announce(candidate)
        trial = Trial(module=module, gpu=gpu, bundle=bundle.folder, size=size, **settings)
        return run_trial(candidate, trial, limit_s=limit_s, gpus=gpus)

    engines = [
        tried(str(candidate), BACKENDS[candidate.backend], candidate.gpu)
        for candidate in (*CANDIDATES["auto"], COMPARED)
    ]
    fit_devices = [tried(NUMPY, "", False), tried(CUPY, "", True)]
    return QualificationRecord(
        machine=this_machine(bundle.hash, gpus[0] if gpus else None),
        date=datetime.now(UTC),
        size=size,
        engines=engines,
        fit_devices=fit_devices,
    )


def run_trial(candidate: str, trial: Trial, *, limit_s: float, gpus: list[Cuda]) -> TrialResult:
    """Try one candidate in a child process; a crash or a hang is a result.

    Parameters
    ----------
    gpus : takes the driver and its devices where the child finds a GPU.
    """
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        reports, errors = Path(folder) / "reports", Path(folder) / "errors"
        code = _run_child(trial, reports, errors, limit_s)
        facts: dict[str, object] = {}
        for line in reports.read_text().splitlines() if reports.exists() else ():
            facts |= json.loads(line)
        last_words = errors.read_text(errors="replace").strip().splitlines()[-1:]
    if isinstance(found := facts.pop("gpu", None), dict):
        devices = tuple(CudaDevice(device["name"], tuple(device["compute_capability"])) for device in found["devices"])
        gpus.append(Cuda(found["driver"], tuple(found["version"]), devices))
    during = facts.pop("step", "starting")
    if code is None:
        facts = {"result": "hung", "reason": f"hung after {limit_s:g} s, during: {during}"}
    elif code < 0:
        facts = {"result": "crashed", "reason": f"crashed with signal {-code}, during: {during}"}
    elif "result" not in facts:
        reason = f"ended with code {code}, during: {during}{''.join(f'; {line}' for line in last_words)}"
        facts = {"result": "failed", "reason": reason}
    return TrialResult.model_validate(
        {"candidate": candidate, "seconds": round(time.monotonic() - started, 1), **facts}
    )


def _run_child(trial: Trial, reports: Path, errors: Path, limit_s: float) -> int | None:
    """The exit code of the child, negative for a signal; None where it was killed at its limit."""
    # The child imports what this process would import, and nothing from its working directory.
    command = [sys.executable, "-P", "-m", "daemon.qualification.candidatetrial", str(reports)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        ) as child,
    ):
        try:
            child.communicate(trial.model_dump_json().encode(), timeout=limit_s)
            return child.returncode
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
