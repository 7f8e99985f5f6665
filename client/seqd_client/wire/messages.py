"""Every message of the protocol; each field has bounds, and a message has no other fields."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seqd_client.runinfo import Channel, Cycle, Lane, Name, Pixels, RunInfo, Tile

VERSION = 1
"""Protocol version, the ``v`` of every header."""

TILES_HEADER_BYTES = 8 * 2**20
"""Maximum number of bytes of a header that lists the tiles of a run; 100,000 tiles take about 2 MB."""

TILES = 100_000

Sequence = Annotated[int, Field(ge=0, lt=2**63)]


class Message(BaseModel):
    """A header; ``topic`` is the first part of the multipart message."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    topic: ClassVar[str]
    header_limit: ClassVar[int] = 4096
    """Bytes of the header."""
    items_limit: ClassVar[int] = 16
    """Items of an array in the header."""


# Controller to daemon, PUB. A ``run_start`` and a ``frame`` are also answers on the recovery socket.


class RunStart(Message):
    """Says that a run begins or, as the answer to a ``sync``, that a run is under way."""

    topic = "run_start"
    header_limit = TILES_HEADER_BYTES
    items_limit = TILES
    run: Name
    seq: Sequence
    # Lists become tuples: msgpack has one kind of array, as JSON has.
    info: Annotated[RunInfo, Field(strict=False)]

    @model_validator(mode="after")
    def _one_run(self) -> "RunStart":
        if self.run != self.info.run:
            raise ValueError(f"run {self.run} is declared as {self.info.run}")
        return self


class Frame(Message):
    """One channel image; the payload is its pixels, rows first, little-endian."""

    topic = "frame"
    run: Name
    seq: Sequence
    lane: Lane
    tile: Tile
    cycle: Cycle
    channel: Channel
    height: Pixels
    width: Pixels
    dtype: Literal["uint16"] = "uint16"
    t_ns: Annotated[int, Field(ge=0, lt=2**63)]
    """Time of exposure, nanoseconds since 1970."""
    crc32: Annotated[int, Field(ge=0, lt=2**32)]
    """CRC-32 (zlib) of the payload."""


class CycleEnd(Message):
    """All frames of a cycle have been published."""

    topic = "cycle_end"
    run: Name
    seq: Sequence
    cycle: Cycle


class RunEnd(Message):
    """All frames of the run have been published."""

    topic = "run_end"
    run: Name
    seq: Sequence


# Daemon to controller, DEALER to ROUTER, and its answers.


class Sync(Message):
    """Asks how far the controller has published; answered by ``run_start`` and ``position``, or ``idle``."""

    topic = "sync"


class Position(Message):
    """How far the controller has published."""

    topic = "position"
    run: Name
    seq: Sequence
    """Sequence number of the last message published."""
    cycle: Annotated[int, Field(ge=0, le=5000)]
    """Last cycle that was published wholly."""
    ended: bool
    """Whether ``run_end`` has been published."""


class Idle(Message):
    """The controller has no run."""

    topic = "idle"


class Resend(Message):
    """Asks for one frame again; answered by the ``frame`` or ``gone``."""

    topic = "resend"
    run: Name
    lane: Lane
    tile: Tile
    cycle: Cycle
    channel: Channel


class Gone(Message):
    """The controller no longer has the frame that was asked for."""

    topic = "gone"
    run: Name
    lane: Lane
    tile: Tile
    cycle: Cycle
    channel: Channel


class Hold(Message):
    """Asks the controller to stop imaging and keep the flow cell safe."""

    topic = "hold"
    run: Name


class Release(Message):
    """Tells the controller that imaging may continue."""

    topic = "release"
    run: Name


class Kept(Message):
    """All frames up to this cycle are safe on the daemon's disk; the controller need not keep them any longer."""

    topic = "kept"
    run: Name
    cycle: Cycle


class Done(Message):
    """The daemon needs nothing more of the run."""

    topic = "done"
    run: Name


# Daemon to consumers, PUB.


class Calls(Message):
    """The committed calls of a tile-cycle; the payload is ``n`` bytes ``(Q << 2) | base``, 0 = no-call."""

    topic = "calls"
    run: Name
    seq: Sequence
    lane: Lane
    tile: Tile
    cycle: Cycle
    n: Annotated[int, Field(ge=0, lt=2**32)]


class Template(Message):
    """The positions of a tile's clusters; the payload is ``n`` pairs of float32 x and y, pixels."""

    topic = "template"
    run: Name
    seq: Sequence
    lane: Lane
    tile: Tile
    n: Annotated[int, Field(ge=0, lt=2**32)]


class Event(Message):
    """Something an operator should know; the payload is empty."""

    topic = "event"
    # Characters of a text take up to four bytes each.
    header_limit = 4 * 4096
    run: Annotated[str, Field(max_length=128)]
    seq: Sequence
    t_ns: Annotated[int, Field(ge=0, lt=2**63)]
    level: Literal["info", "warning", "error"]
    run_state: Annotated[str, Field(max_length=32)]
    """State of the run, as in the status."""
    text: Annotated[str, Field(max_length=2000)]


# Control, DEALER to ROUTER.


class StatusQuery(Message):
    """Asks for the status; answered by ``status_answer``."""

    topic = "status"


class StatusAnswer(Message):
    """The payload is the status as JSON (``docs/reference/status.schema.json``)."""

    topic = "status_answer"


class TilesQuery(Message):
    """Asks for the last committed cycle of every tile; answered by ``tiles_answer``."""

    topic = "tiles"


class TileProgress(BaseModel):
    """The last committed cycle of one tile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lane: Lane
    tile: Tile
    cycle: Annotated[int, Field(ge=0, le=5000)]
    """Last cycle that is committed, 0 when none is."""


class TilesAnswer(Message):
    """The tiles of the run that the daemon started or continued last; no tiles before the daemon's first run."""

    topic = "tiles_answer"
    header_limit = TILES_HEADER_BYTES
    items_limit = TILES
    run: Annotated[str, Field(max_length=128)]
    tiles: Annotated[tuple[TileProgress, ...], Field(strict=False, max_length=TILES)]


class Replay(Message):
    """Asks for committed calls again; answered by the ``calls`` message or ``refused``."""

    topic = "replay"
    lane: Lane
    tile: Tile
    cycle: Annotated[int, Field(ge=0, le=5000)]
    """1-based cycle; 0 asks for the ``template``."""


class Drain(Message):
    """Asks the daemon to finish what it holds and stop; answered by ``accepted``."""

    topic = "drain"


class Accepted(Message):
    """The command is being carried out."""

    topic = "accepted"


class Refused(Message):
    """The request cannot be answered, and why."""

    topic = "refused"
    header_limit = 4 * 4096
    reason: Annotated[str, Field(max_length=2000)]


MESSAGES: dict[str, type[Message]] = {kind.topic: kind for kind in Message.__subclasses__()}
"""Every kind of message by its topic."""
