"""The configuration: one TOML file, closed and bounded. ``systemd/seqd.toml`` is the commented example."""

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from seqd_client.errors import SeqdError
from seqd_client.sockets import FRAMES, RECOVERY, beyond_this_machine, checked_address

from engines.bundles.bundle import DEFAULT_BUNDLE, Readout

Endpoint = Annotated[str, AfterValidator(checked_address)]
"""A ZeroMQ address: ``ipc://PATH`` or ``tcp://HOST:PORT``."""


class ConfigError(SeqdError):
    """The configuration cannot be used."""

    exit_code: ClassVar[int] = 2


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ControllerConfig(_Section):
    """The imaging controller."""

    frames: Endpoint = FRAMES
    """Where it publishes frames."""
    recovery: Endpoint = RECOVERY
    """Where it answers requests to send a frame again."""
    resend_after_s: Annotated[float, Field(ge=0.05, le=600)] = 1.0
    """A frame is asked for again when it is overdue by this long, and again each time this passes."""
    missing_after_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    """A frame that was asked for and did not come for this long is missing; 0 is twice the time that a cycle takes to
    image, from 10 s to 600 s."""
    silent_after_s: Annotated[float, Field(ge=1, le=10 * 86400)] = 6 * 3600.0
    """A run is given up when nothing of it came for this long."""


class MemoryConfig(_Section):
    """Bounds on frames in memory, bytes."""

    spill_above: Annotated[int, Field(ge=2**16)] = 2**30
    """Above this whole tile images are moved to the spool."""
    refuse_above: Annotated[int, Field(ge=2**17)] = 2 * 2**30
    """Frames of new tile images are refused above this, and asked for again later."""

    @model_validator(mode="after")
    def _ordered(self) -> "MemoryConfig":
        if self.spill_above >= self.refuse_above:
            raise ValueError("spill_above must be less than refuse_above")
        return self


class SpoolConfig(_Section):
    """Bounds on tile images that wait on disk to be called, bytes; those that a template is made from come besides."""

    limit: Annotated[int, Field(ge=2**17)] = 64 * 2**30
    """No more are moved there above this."""
    hold_above: Annotated[int, Field(ge=2**16)] = 16 * 2**30
    """The controller is asked to hold the flow cell above this."""
    release_below: Annotated[int, Field(ge=0)] = 4 * 2**30
    """The controller is asked to go on below this."""

    @model_validator(mode="after")
    def _ordered(self) -> "SpoolConfig":
        if not self.release_below < self.hold_above < self.limit:
            raise ValueError("release_below must be less than hold_above, and that less than limit")
        return self


class FaultsConfig(_Section):
    """What is waited out, and for how long."""

    retry_for_s: Annotated[float, Field(ge=0, le=30 * 86400)] = 3600.0
    """A file that cannot be written (disk full, permission lost, disk failing) is tried again for so long."""
    engine_restarts: Annotated[int, Field(ge=0, le=20)] = 5
    """An engine that fails is opened again; so often it is tried."""
    engine_backoff_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    """Pause before the second of these tries; each one after it is twice as long, up to 600 s."""
    fallback: Literal["none", "cpu"] = "none"
    """What takes over for the rest of a run whose engine cannot be opened again: ``cpu`` is the embedded engine, with
    other calls in the last bits; with ``none`` the run ends, and the next start goes on with it."""


class EngineConfig(_Section):
    """The network and its device."""

    backend: Literal["auto", "tensorrt", "torch", "openvino"] = "auto"
    """``auto``: the fastest engine that ``seqd qualify`` found good on this machine, else OpenVINO."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """``auto``: a GPU where the backend has one here."""
    bundle: Path = DEFAULT_BUNDLE
    """Folder of the bundle."""
    precision: Literal["auto", "f32", "bf16", "f16", "int8"] = "auto"
    """``auto`` is the best of the first three that the device computes natively; ``int8`` is the bundle's quantised
    network, on OpenVINO."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processor threads; 0 leaves it to the device."""
    slots: Annotated[int, Field(ge=2, le=16)] = 2
    """Tiles in the engine at once."""
    strip_px: Annotated[int, Field(ge=0, le=2**28)] = 0
    """Tiles of more pixels are run in strips of about this size; 0 leaves it to the backend."""
    timeout_s: Annotated[float, Field(ge=1, le=3600)] = 300.0
    """A tile that takes longer has failed."""


class CallingConfig(_Section):
    """From images to calls."""

    template_cycles: Annotated[int, Field(ge=1, le=25)] = 10
    """Cycles that a tile's template is made from; they are called once it stands."""
    readout: Readout = Readout.FUSED
    """What calls are made from: ``network``, ``fit`` (of all clusters together) or ``fused``."""
    chastity_failures: Annotated[int, Field(ge=0, le=25)] = 1
    """Of the first read's first 25 cycles, how many may be below chastity 0.6 in a cluster that passes the filter."""
    binned_quality: bool = False
    """Whether scores are 2, 12, 24 and 40 only; earlier calls are then believed by these where phasing is corrected."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("an absolute path is needed")
    return path


Absolute = Annotated[Path, AfterValidator(_absolute)]
"""A path that is the same wherever a process was started."""


class SinksConfig(_Section):
    """What is made of committed calls while the run goes on, and by ``seqd export`` at any time later."""

    folder: Absolute | None = None
    """Folder that run folders of sinks are written to; without it they lie in the run's own."""
    fastq: bool = True
    """FASTQ of each tile and read, at the end of the read."""
    bcl: Literal["off", "plain", "gzip"] = "plain"
    """An Illumina run folder, cycle by cycle; ``gzip`` makes it smaller, and some readers do not follow it."""
    interop: bool = True
    """InterOp files of quality, tiles, intensities and errors."""
    report: bool = True
    """A page of figures and pictures."""
    control: Absolute | None = None
    """FASTA of a control that is spiked in; its reads show the error rate. A run keeps the one it is begun with."""

    @property
    def settled(self) -> dict[str, object]:
        """What may not change while a run lasts: readers take no mixture, and nothing is left behind elsewhere."""
        return self.model_dump(mode="json", include={"folder", "fastq", "bcl"})


class StreamConfig(_Section):
    """The stream of committed calls."""

    calls: Endpoint = "ipc:///run/seqd/calls"
    queue: Annotated[int, Field(ge=10**6, le=2**34)] = 2**28
    """Bytes of messages kept for a slow consumer, and again of those that wait to be sent. What does not fit in, or
    takes more than 1/128 of it alone, is not streamed; consumers ask for it."""


class ControlConfig(_Section):
    """Requests to the daemon."""

    endpoint: Endpoint = "ipc:///run/seqd/control"
    """Where it is asked: status, tiles, replay."""
    command: Endpoint = "ipc:///run/seqd/command"
    """Where it is told: drain."""


class SecurityConfig(_Section):
    """CURVE keys, without which no TCP address is allowed but those of this machine; with them, every one has CURVE."""

    certificate: Path | None = None
    """The daemon's own, with its secret key; ``seqd keys`` makes one."""
    observers: Path | None = None
    """Folder of the public keys (``*.key``) that may read: ``stream.calls`` and ``control.endpoint``."""
    operators: Path | None = None
    """Folder of the public keys that may command: ``control.command``."""
    controller: Path | None = None
    """The public key of the imaging controller."""

    @model_validator(mode="after")
    def _one_identity(self) -> "SecurityConfig":
        if self.certificate is None and any((self.observers, self.operators, self.controller)):
            raise ValueError("certificate is needed beside the keys of others; `seqd keys` makes one")
        return self


class LogConfig(_Section):
    """Logging to standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """``auto``: for people on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Section):
    """Everything that can be set."""

    output: Path = Path("/var/lib/seqd/runs")
    """Folder that run folders are written to."""
    controller: ControllerConfig = ControllerConfig()
    memory: MemoryConfig = MemoryConfig()
    spool: SpoolConfig = SpoolConfig()
    faults: FaultsConfig = FaultsConfig()
    engine: EngineConfig = EngineConfig()
    calling: CallingConfig = CallingConfig()
    sinks: SinksConfig = SinksConfig()
    stream: StreamConfig = StreamConfig()
    control: ControlConfig = ControlConfig()
    security: SecurityConfig = SecurityConfig()
    log: LogConfig = LogConfig()

    @property
    def digest(self) -> str:
        """SHA-256 of all settings, as hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @model_validator(mode="after")
    def _five_addresses(self) -> "Config":
        addresses = {
            "controller.frames": (self.controller.frames, "controller"),
            "controller.recovery": (self.controller.recovery, "controller"),
            "stream.calls": (self.stream.calls, "observers"),
            "control.endpoint": (self.control.endpoint, "observers"),
            "control.command": (self.control.command, "operators"),
        }
        if len({address for address, _ in addresses.values()}) < len(addresses):
            raise ValueError("frames, recovery, calls, control and command need an address each; one is used twice")
        for setting, (address, others) in addresses.items():
            curve = beyond_this_machine(address) or (self.security.certificate and address.startswith("tcp://"))
            if curve and (self.security.certificate is None or getattr(self.security, others) is None):
                raise ValueError(
                    f"{setting} = {address!r}: this needs keys: set certificate and {others} in [security]; "
                    "`seqd keys` makes certificates"
                )
        return self


def load_config(path: Path) -> Config:
    """Read a configuration file.

    Raises
    ------
    ConfigError : one line that names the setting, its value and what is allowed.
    """
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path}: not TOML: {error}") from error
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"configuration {path}: {_explained(error)}") from error


def _explained(error: ValidationError) -> str:
    """The first of the errors: setting, value, and what is allowed."""
    first = error.errors(include_url=False)[0]
    setting = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "extra_forbidden":
            return f"{setting} is not a setting; see systemd/seqd.toml"
        case "model_type":
            return f"{setting} = {first['input']!r}: it is a section, written [{setting}]"
        case "value_error" if isinstance(first["input"], dict):
            return f"{setting + ': ' if setting else ''}{first['ctx']['error']}"
        case "value_error":
            return f"{setting} = {first['input']!r}: {first['ctx']['error']}"
        case _:
            return f"{setting} = {first['input']!r}: {first['msg']}"
