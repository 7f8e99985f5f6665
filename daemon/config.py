"""The configuration: one TOML file. Unknown settings are refused, and every value has bounds.

``systemd/seqd.toml`` is the commented example.
"""

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


class Section(BaseModel):
    """A section of the file; a setting that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ControllerConfig(Section):
    """The imaging controller."""

    frames: Endpoint = FRAMES
    """Address where the controller publishes frames."""
    recovery: Endpoint = RECOVERY
    """Address where the controller answers the daemon's requests."""
    resend_after_s: Annotated[float, Field(ge=0.05, le=600)] = 1.0
    """The daemon requests an overdue frame again after this time, and repeats the request at this interval."""
    missing_after_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    """A frame counts as missing when this time has passed since it was first requested. 0 means twice the time that a
    cycle takes to image, at least 10 s and at most 600 s."""
    silent_after_s: Annotated[float, Field(ge=1, le=10 * 86400)] = 6 * 3600.0
    """The daemon gives a run up when the controller has sent nothing for this time."""


class MemoryConfig(Section):
    """Bounds on frames in memory, bytes."""

    spill_above: Annotated[int, Field(ge=2**16)] = 2**30
    """Above this, complete tile images move to the spool on disk."""
    refuse_above: Annotated[int, Field(ge=2**17)] = 2 * 2**30
    """Above this, frames of new tile images are refused, and requested again later."""

    @model_validator(mode="after")
    def _ordered(self) -> "MemoryConfig":
        if self.spill_above >= self.refuse_above:
            raise ValueError("spill_above must be less than refuse_above")
        return self


class SpoolConfig(Section):
    """Bounds on tile images in the spool, bytes; images that wait for a template do not count."""

    limit: Annotated[int, Field(ge=2**17)] = 64 * 2**30
    """Above this, no more images move to the spool."""
    hold_above: Annotated[int, Field(ge=2**16)] = 16 * 2**30
    """Above this, the daemon asks the controller to hold the flow cell."""
    release_below: Annotated[int, Field(ge=0)] = 4 * 2**30
    """Below this, the daemon asks the controller to release it."""

    @model_validator(mode="after")
    def _ordered(self) -> "SpoolConfig":
        if not self.release_below < self.hold_above < self.limit:
            raise ValueError("release_below must be less than hold_above, and hold_above must be less than limit")
        return self


class FaultsConfig(Section):
    """What the daemon does about faults that can pass."""

    retry_for_s: Annotated[float, Field(ge=0, le=30 * 86400)] = 3600.0
    """For this time the daemon tries again to write a file when the disk is full, a permission is lost or the disk
    fails."""
    engine_restarts: Annotated[int, Field(ge=0, le=20)] = 5
    """Number of attempts to open an engine again after it failed."""
    engine_backoff_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    """Pause before the second of these attempts; each later pause is twice as long, up to 600 s."""
    fallback: Literal["none", "cpu"] = "none"
    """The fallback when an engine cannot be opened again. ``none``: the run ends, and the next start of the daemon
    continues it. ``cpu``: the embedded engine, OpenVINO on the CPU, reads the rest of the run; its numbers, and so
    some calls, differ slightly."""


class EngineConfig(Section):
    """The network and its device."""

    backend: Literal["auto", "tensorrt", "torch", "openvino"] = "auto"
    """``auto``: the fastest engine that ``seqd qualify`` found good on this machine, else OpenVINO."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """``auto``: a GPU, if the backend can use one on this machine."""
    bundle: Path = DEFAULT_BUNDLE
    """Folder of the bundle."""
    precision: Literal["auto", "f32", "bf16", "f16", "int8"] = "auto"
    """``auto``: the best of ``f32``, ``bf16`` and ``f16`` that the device computes in hardware. ``int8``: the bundle's
    quantised network, on OpenVINO only."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Number of processor threads; 0 lets the device choose."""
    slots: Annotated[int, Field(ge=2, le=16)] = 2
    """Number of tile images in the engine at once."""
    strip_px: Annotated[int, Field(ge=0, le=2**28)] = 0
    """Tiles with more pixels are computed in strips of about this size; 0 lets the backend choose."""
    timeout_s: Annotated[float, Field(ge=1, le=3600)] = 300.0
    """An engine that needs longer for one tile image has failed."""


class CallingConfig(Section):
    """From images to calls."""

    template_cycles: Annotated[int, Field(ge=1, le=25)] = 10
    """Number of cycles from which a tile's template is made. Their calls are made after the template."""
    readout: Readout = Readout.FUSED
    """What the calls are made from. ``network``: the network's evidence. ``fit``: the joint fit of a tile's clusters.
    ``fused``: both."""
    chastity_failures: Annotated[int, Field(ge=0, le=25)] = 1
    """A cluster passes the filter if its chastity is below 0.6 in at most this many of its first 25 cycles."""
    binned_quality: bool = False
    """Whether only the scores 2, 12, 24 and 40 are used. The phasing correction then weighs earlier calls by
    these rounded scores."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("an absolute path is needed")
    return path


Absolute = Annotated[Path, AfterValidator(_absolute)]
"""A path that does not depend on the working directory."""


class SinksConfig(Section):
    """Outputs that the daemon writes during the run; ``seqd export`` writes the same files at any time later."""

    folder: Absolute | None = None
    """Folder for the sinks' run folders; without this setting, sinks write to the run's own folder."""
    fastq: bool = True
    """FASTQ of each tile and read, written at the end of the read."""
    bcl: Literal["off", "plain", "gzip"] = "plain"
    """Base calls of an Illumina run folder, written cycle by cycle. ``gzip`` makes them smaller; some programs cannot
    read them then."""
    interop: bool = True
    """InterOp files of quality, tiles, intensities and errors."""
    report: bool = True
    """One page with figures and pictures."""
    control: Absolute | None = None
    """FASTA of the spike-in; its reads show the error rate. A run keeps the spike-in that it was begun with."""

    @property
    def fixed_for_a_run(self) -> dict[str, object]:
        """Settings that must not change during a run: its files would be in two formats or two folders."""
        return self.model_dump(mode="json", include={"folder", "fastq", "bcl"})


class StreamConfig(Section):
    """The stream of committed calls."""

    calls: Endpoint = "ipc:///run/seqd/calls"
    """Address where the daemon publishes calls."""
    queue: Annotated[int, Field(ge=10**6, le=2**34)] = 2**28
    """Bytes of messages that may wait for one slow consumer. The same number of bytes may wait to be sent. A
    message that does not fit, or is larger than 1/128 of this, is not streamed; consumers can ask for it."""


class ControlConfig(Section):
    """Requests to the daemon."""

    endpoint: Endpoint = "ipc:///run/seqd/control"
    """Address for the requests status, tiles and replay."""
    command: Endpoint = "ipc:///run/seqd/command"
    """Address for the command drain."""


class SecurityConfig(Section):
    """CURVE keys. Without a certificate, only ``ipc://`` and loopback TCP are allowed; with one, all TCP uses CURVE."""

    certificate: Path | None = None
    """Certificate of the daemon, with its secret key; ``seqd keys`` makes one."""
    observers: Path | None = None
    """Folder with the public keys (``*.key``) of those who may read ``stream.calls`` and ``control.endpoint``."""
    operators: Path | None = None
    """Folder with the public keys of those who may use ``control.command``."""
    controller: Path | None = None
    """Public key of the imaging controller."""

    @model_validator(mode="after")
    def _certificate_for_keys(self) -> "SecurityConfig":
        if self.certificate is None and any((self.observers, self.operators, self.controller)):
            raise ValueError("observers, operators and controller need the setting certificate; `seqd keys` makes one")
        return self


class LogConfig(Section):
    """The log, on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """``auto``: text on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
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
            raise ValueError("frames, recovery, calls, control and command must have different addresses")
        for setting, (address, others) in addresses.items():
            curve = beyond_this_machine(address) or (self.security.certificate and address.startswith("tcp://"))
            if curve and (self.security.certificate is None or getattr(self.security, others) is None):
                raise ValueError(
                    f"{setting} = {address!r}: this address needs keys: set certificate and {others} in [security]; "
                    "`seqd keys` makes certificates"
                )
        return self


def load_config(path: Path) -> Config:
    """Read a configuration file.

    Raises
    ------
    ConfigError : one line that names the setting, its value and the allowed values.
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
    """The first of the errors: the setting, its value, and the allowed values."""
    first = error.errors(include_url=False)[0]
    setting = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "extra_forbidden":
            return f"{setting} is not a setting; see systemd/seqd.toml"
        case "model_type":
            return f"{setting} = {first['input']!r}: this is a section; write [{setting}] on a line before its settings"
        case "value_error" if isinstance(first["input"], dict):
            return f"{setting + ': ' if setting else ''}{first['ctx']['error']}"
        case "value_error":
            return f"{setting} = {first['input']!r}: {first['ctx']['error']}"
        case _:
            return f"{setting} = {first['input']!r}: {first['msg']}"
