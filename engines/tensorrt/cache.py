"""The cache of TensorRT plans.

A plan contains machine code that the daemon runs. Therefore a file in the cache is checked before it is trusted.
"""

import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from seqd_client.errors import validation_text

from engines.errors import EngineError


@dataclass(frozen=True)
class Inspected:
    """Layers of a plan."""

    layers: int
    convolutions: int


def read_trusted(path: Path) -> bytes | None:
    """A file's content, or None where there is no such file.

    File and folder must belong to root or to the user of this process, and no other user may be able to
    write to them. The open file is checked, so it cannot be exchanged between check and reading.

    Raises
    ------
    EngineError : somebody else could have written the file, or it cannot be read.
    """
    try:
        _check(path.parent, path.parent.stat(), stat.S_ISDIR, "a folder")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor), stat.S_ISREG, "a file")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from error


def _check(path: Path, status: os.stat_result, is_kind: object, kind: str) -> None:
    assert callable(is_kind)
    if not is_kind(status.st_mode):
        raise EngineError(f"{path} is not trusted: it is not {kind}")
    if status.st_uid not in (0, os.geteuid()):
        raise EngineError(
            f"{path} is not trusted: it belongs to user {status.st_uid}, root or {os.geteuid()} is allowed"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f"{path} is not trusted: its mode is {stat.S_IMODE(status.st_mode):04o}, "
            "group and others must not be able to write"
        )


REBUILD_ADVICE = "remove it and run `seqd build` again"


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on."""

    graph: str
    """SHA-256 of the bundle's ONNX graph."""
    tensorrt: str
    """Version."""
    gpu: str
    compute_capability: tuple[int, int]
    driver: str
    """Version."""
    rows: int
    """Rows of the strip that is computed at once."""
    width: int
    superresolved: bool
    """Whether the plan computes super-resolved images besides the probabilities."""
    precision: str = "f16"

    @property
    def digest(self) -> str:
        """Name of its files."""
        return _digest(asdict(self))

    @property
    def timing_digest(self) -> str:
        """Name of the file of timing measurements; all graphs share the file."""
        return _digest([self.tensorrt, self.gpu, self.compute_capability, self.driver])

    @property
    def images(self) -> tuple[int, ...]:
        """Shape of the input ``images``, float16."""
        return (1, 4, self.rows, self.width)

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs by name, float32."""
        shapes: dict[str, tuple[int, ...]] = {"probabilities": (1, 5, self.rows, self.width)}
        if self.superresolved:
            shapes["superresolved"] = (1, 4, 2 * self.rows, 2 * self.width)
        return shapes

    def __str__(self) -> str:
        what = "calls and super-resolved images" if self.superresolved else "calls"
        return f"{what} of {self.rows}×{self.width} px on {self.gpu} with TensorRT {self.tensorrt}"


class PlanRecord(BaseModel):
    """The record that is stored with a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: PlanKey
    sha256: str
    """SHA-256 of the plan."""
    layers: int
    convolutions: int
    """Number of convolutions; all of them compute in FP16."""
    seconds: float
    """Duration of the build."""


@dataclass(frozen=True)
class KeptPlan:
    """A plan whose files are trusted and complete."""

    path: Path
    content: bytes
    record: PlanRecord


@dataclass(frozen=True)
class BuiltPlan:
    """The results of a build."""

    content: bytes
    timing: bytes
    inspected: Inspected
    seconds: float


def default_folder() -> Path:
    """``plans`` in the cache directory of systemd's unit where it has one, else ``seqd/plans`` in the user's cache."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0]) / "plans"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "seqd" / "plans"


class PlanCache:
    """Plans in a folder that only its owner can write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: PlanKey) -> KeptPlan | None:
        """The plan of a key, None where there is none.

        Raises
        ------
        EngineError : the files are not trusted, belong to another key, or were altered.
        """
        path, record_path = self._path(key, "plan"), self._path(key, "json")
        written = read_trusted(record_path)
        if written is None:
            return None
        try:
            record = PlanRecord.model_validate_json(written)
        except ValidationError as error:
            raise EngineError(
                f"{record_path} is not a plan's record: {validation_text(error)}; {REBUILD_ADVICE}"
            ) from error
        if record.key != key:
            raise EngineError(f"{record_path} is the record of another plan, for {record.key}; {REBUILD_ADVICE}")
        content = read_trusted(path)
        if content is None:
            return None
        found = hashlib.sha256(content).hexdigest()
        if found != record.sha256:
            raise EngineError(
                f"{path} has SHA-256 {found[:12]}…, its record says {record.sha256[:12]}…; {REBUILD_ADVICE}"
            )
        return KeptPlan(path, content, record)

    def store(self, key: PlanKey, built: BuiltPlan) -> KeptPlan:
        """Store a plan. The record is written last, and a plan without a record is ignored.

        Raises
        ------
        EngineError : the folder cannot be written to.
        """
        record = PlanRecord(
            key=key,
            sha256=hashlib.sha256(built.content).hexdigest(),
            layers=built.inspected.layers,
            convolutions=built.inspected.convolutions,
            seconds=round(built.seconds, 1),
        )
        self._path(key, "json").unlink(missing_ok=True)
        self._write(self._path(key, "plan"), built.content)
        self._write(self._timing_path(key), built.timing)
        self._write(self._path(key, "json"), record.model_dump_json(indent=2).encode() + b"\n")
        return KeptPlan(self._path(key, "plan"), built.content, record)

    def timing(self, key: PlanKey) -> bytes:
        """The measurements of earlier builds on this GPU; empty where there are none."""
        return read_trusted(self._timing_path(key)) or b""

    @contextmanager
    def build_lock(self) -> Iterator[None]:
        """Lock out builds by other processes, which would disturb each other's measurements.

        Raises
        ------
        EngineError : the folder cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError(f"plans {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _path(self, key: PlanKey, kind: str) -> Path:
        return self.folder / f"{key.digest}.{kind}"

    def _timing_path(self, key: PlanKey) -> Path:
        return self.folder / f"{key.timing_digest}.timing"

    def _write(self, path: Path, content: bytes) -> None:
        """Write a complete file or none; only its owner can access a file that :mod:`tempfile` makes."""
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=f".{path.name}.", delete=False) as file:
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise EngineError(f"plan {path}: {error.strerror}") from error


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
