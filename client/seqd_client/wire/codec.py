"""The wire codec: pure functions between messages and multipart ZeroMQ frames.

::

    +---------+----------------------------+-----------------+
    | topic   | header                     | payload         |
    | ASCII   | msgpack map, "v" = 1       | raw bytes       |
    +---------+----------------------------+-----------------+
"""

import reprlib
import zlib
from enum import StrEnum
from typing import Any

import msgpack
from pydantic import ValidationError

from seqd_client.errors import validation_text
from seqd_client.wire.messages import MESSAGES, VERSION, Frame, Message

FIELDS_LIMIT = 32
"""Fields of a map in a header."""


class Refusal(StrEnum):
    """Why a message was not taken."""

    GARBAGE = "garbage"
    """Not three parts of topic, msgpack map and payload."""
    VERSION = "version"
    """Another protocol version."""
    TOPIC = "topic"
    """A topic that does not exist, or that does not belong on this socket."""
    HEADER = "header"
    """A field is missing, unknown, of the wrong type or out of bounds."""
    CHANNEL = "channel"
    """A channel other than A, C, G and T."""
    DTYPE = "dtype"
    """Pixels other than uint16."""
    SIZE = "size"
    """Payload or image are not of the declared size."""
    CHECKSUM = "checksum"
    """The payload is not what was sent."""
    FOREIGN_RUN = "foreign_run"
    """Another run's message."""
    UNKNOWN_TILE = "unknown_tile"
    """A tile the run does not declare."""
    UNKNOWN_CYCLE = "unknown_cycle"
    """A cycle the run does not declare."""
    MEMORY = "memory"
    """No memory is left for it now; it will be asked for again."""


class WireError(ValueError):
    """A message that is refused, with its reason."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


def encode(message: Message, payload: bytes | memoryview = b"") -> list[bytes | memoryview]:
    """Topic, header and payload of a message."""
    header = {"v": VERSION, **message.model_dump(mode="json")}
    return [message.topic.encode("ascii"), msgpack.packb(header), payload]


def decode(parts: list[bytes]) -> tuple[Message, bytes]:
    """Read a message and its payload; checks everything that does not depend on the run.

    Raises
    ------
    WireError : the message is refused; its ``refusal`` is the reason.
    """
    if len(parts) != 3:
        raise WireError(Refusal.GARBAGE, f"message has {len(parts)} parts, 3 are needed")
    topic, header, payload = parts
    kind = MESSAGES.get(topic.decode("ascii", "replace"))
    fields = _unpack(header, kind or Message)
    version = fields.pop("v", None)
    if type(version) is not int or version != VERSION:
        raise WireError(Refusal.VERSION, f"protocol version {reprlib.repr(version)[:40]}, this daemon speaks {VERSION}")
    if kind is None:
        raise WireError(Refusal.TOPIC, f"topic {topic[:40]!r} is unknown")
    message = _validated(kind, fields)
    if isinstance(message, Frame):
        _check_payload(message, payload)
    return message, payload


def _unpack(header: bytes, kind: type[Message]) -> dict[str, Any]:
    if len(header) > kind.header_limit:
        raise WireError(Refusal.GARBAGE, f"header of {len(header)} bytes, at most {kind.header_limit} are allowed")
    try:
        # msgpack allocates an array as soon as it has read the length, which may be false. An item has at least one
        # byte, so the length of the header limits the number of items.
        fields = msgpack.unpackb(
            header, max_array_len=min(kind.items_limit, len(header)), max_map_len=FIELDS_LIMIT, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(Refusal.GARBAGE, f"header is not msgpack: {error}") from error
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise WireError(Refusal.GARBAGE, "header is not a map of names")
    return fields


def _validated(kind: type[Message], fields: dict[str, Any]) -> Message:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        field = error.errors(include_url=False)[0]["loc"][:1]
        refusals = {"channel": Refusal.CHANNEL, "dtype": Refusal.DTYPE} if kind is Frame else {}
        text = validation_text(error, whole="header", shows_value=True)
        raise WireError(refusals.get("".join(map(str, field)), Refusal.HEADER), f"{kind.topic}: {text}") from error


def _check_payload(frame: Frame, payload: bytes) -> None:
    expected = frame.height * frame.width * 2
    if len(payload) != expected:
        raise WireError(
            Refusal.SIZE,
            f"tile {frame.lane}_{frame.tile}, cycle {frame.cycle}, channel {frame.channel}: "
            f"{len(payload)} bytes, {frame.height}×{frame.width} uint16 takes {expected}",
        )
    found = zlib.crc32(payload)
    if found != frame.crc32:
        raise WireError(
            Refusal.CHECKSUM,
            f"tile {frame.lane}_{frame.tile}, cycle {frame.cycle}, channel {frame.channel}: "
            f"CRC-32 {found:08x}, the header says {frame.crc32:08x}",
        )
