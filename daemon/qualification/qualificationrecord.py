"""The record of a qualification: a JSON file beside the TensorRT plans, read with the same checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from daemon import __version__
from daemon.record.durable import write_durably
from engines.devices.host import processor_name
from engines.devices.probe import Cuda, probe
from engines.engineselection import CANDIDATES, NOT_QUALIFIED, Candidate, Verdict
from engines.errors import EngineError
from engines.tensorrt.cache import default_folder, read_trusted

FILE_NAME = "qualification.json"

PACKAGES = ("cupy", "numpy", "openvino", "pycuda", "scipy", "tensorrt", "torch")
"""Packages whose versions the verdicts depend on; CuPy and TensorRT add the version of CUDA to the name."""

NUMPY, CUPY = "NumPy on the CPU", "CuPy on a GPU"
"""Names of the fit devices in the record."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Model):
    """Everything that a verdict depends on."""

    seqd: str
    model_hash: str
    """Hash of the bundle."""
    cpu: str
    packages: dict[str, str]
    """Version by package."""
    gpu: str = ""
    """Name and compute capability of the first GPU; empty where there is none."""
    driver: str = ""
    """Version of the GPU's driver."""


class Measured(_Model):
    """Figures of a candidate that passed."""

    software: str = ""
    precision: str = ""
    ms_per_tile: float
    """Time of one tile that is alone in the engine, or of one cycle's fit."""
    tile_cycles_per_s: float
    """Throughput with all slots in use."""
    copies_ms: float | None = None
    """Time of one tile's copies to the GPU and back; None on the CPU."""


class TrialResult(_Model):
    """The result of one candidate."""

    candidate: str
    result: Literal["qualified", "not opened", "failed", "wrong answer", "crashed", "hung"]
    reason: str = ""
    seconds: float
    """Duration of the trial."""
    measured: Measured | None = None

    @property
    def verdict(self) -> Verdict:
        """The result, in the form in which :mod:`engines.engineselection` uses it to choose an engine."""
        if self.measured is not None:
            return Verdict(tile_cycles_per_s=self.measured.tile_cycles_per_s)
        return Verdict(f"qualification: {self.reason}")


class QualificationRecord(_Model):
    """The results of all candidates on one machine."""

    machine: Machine
    date: datetime
    size: tuple[int, int]
    """Height and width of the tiles that speed was measured with, pixels."""
    engines: list[TrialResult]
    fit_devices: list[TrialResult]


@dataclass(frozen=True)
class Qualified:
    """Verdicts that hold for this machine now."""

    engines: Mapping[Candidate, Verdict]
    cupy: Verdict
    """Verdict on the joint fit on a GPU."""


def this_machine(model_hash: str, gpu: Cuda | None) -> Machine:
    """The facts of this machine; no package is imported for them."""
    versions = {}
    for distribution in distributions():
        name = (distribution.name or "").lower().replace("_", "-")
        if name in PACKAGES or name.startswith(("cupy-", "tensorrt-")):
            versions[name] = distribution.version
    facts = Machine(
        seqd=__version__, model_hash=model_hash, cpu=processor_name(), packages=dict(sorted(versions.items()))
    )
    if gpu is None:
        return facts
    device = gpu.device(0)
    capability = ".".join(map(str, device.compute_capability))
    return facts.model_copy(update={"gpu": f"{device.name} ({capability})", "driver": gpu.driver})


def record_path() -> Path:
    """The record's file."""
    return default_folder() / FILE_NAME


def write_record(record: QualificationRecord) -> Path:
    """Write the record durably; the folder is made for its owner alone.

    Raises
    ------
    OSError : the file cannot be written.
    """
    path = record_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(path, record.model_dump_json(indent=2).encode() + b"\n")
    return path


def read_qualified(model_hash: str) -> Qualified:
    """The verdicts for a bundle on this machine; every verdict is a refusal where no valid record exists."""
    try:
        record = _valid_record(model_hash)
    except EngineError as error:
        refusal = Verdict(f"the qualification is not used: {error}; run `seqd qualify`")
        return Qualified(dict.fromkeys(CANDIDATES["auto"], refusal), refusal)
    if record is None:
        return Qualified({}, Verdict(NOT_QUALIFIED))
    names = {str(candidate): candidate for candidate in CANDIDATES["auto"]}
    engines = {names[trial.candidate]: trial.verdict for trial in record.engines if trial.candidate in names}
    fits = {trial.candidate: trial.verdict for trial in record.fit_devices}
    cupy = fits.get(CUPY, Verdict(NOT_QUALIFIED))
    if not cupy.refusal and NUMPY in fits and cupy.tile_cycles_per_s < fits[NUMPY].tile_cycles_per_s:
        cupy = Verdict("qualification: CuPy is slower than NumPy")
    return Qualified(engines, cupy)


def _valid_record(model_hash: str) -> QualificationRecord | None:
    """The record; None where there is none.

    Raises
    ------
    EngineError : the file is not trusted or is no record, or the machine has changed since it was written.
    """
    path = record_path()
    content = read_trusted(path)
    if content is None:
        return None
    try:
        record = QualificationRecord.model_validate_json(content)
    except ValidationError as error:
        raise EngineError(f"{path} is not a qualification's record: {error.errors()[0]['msg']}") from error
    # The GPU is only probed if a trial has already used it with success.
    on_gpu = any(trial.measured and trial.candidate.endswith("a GPU") for trial in record.engines + record.fit_devices)
    now = this_machine(model_hash, probe() if on_gpu else None).model_dump()
    then = record.machine.model_dump()
    for fact in now if on_gpu else now.keys() - {"gpu", "driver"}:
        if now[fact] != then[fact]:
            raise EngineError(f"it was made with {_difference(fact, then[fact], now[fact])}")
    return record


def _difference(fact: str, then: object, now: object) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        changed = [name for name in sorted(then | now) if then.get(name) != now.get(name)]
        return ", ".join(f"{name} {then.get(name, 'absent')}, not {now.get(name, 'absent')}" for name in changed)
    return f"{fact.replace('_', ' ')} {then or 'absent'}, not {now or 'absent'}"
