"""What comes from a daemon, read; whatever cannot be is a daemon of another version."""

from pydantic import ValidationError

from seqd_client.errors import UnreachableError
from seqd_client.status import Status
from seqd_client.wire.codec import WireError, decode
from seqd_client.wire.messages import Calls, Event, Message, StatusAnswer, Template

Published = Calls | Template | Event
"""A message of the stream."""


def read_answer(endpoint: str, parts: list[bytes]) -> tuple[Message, bytes]:
    """The answer to a control request, and its payload.

    Raises
    ------
    UnreachableError : it is no message of this version.
    """
    try:
        return decode(parts)
    except WireError as error:
        raise UnreachableError(f"control socket {endpoint}: {error}; is it a seqd of this version?") from error


def read_status(answer: Message, payload: bytes) -> Status:
    """The status in an answer.

    Raises
    ------
    UnreachableError : there is none, or of another version.
    """
    if not isinstance(answer, StatusAnswer):
        raise UnreachableError(f"control socket: answered {answer.topic} to a status request")
    try:
        return Status.model_validate_json(payload)
    except ValidationError as error:
        raise UnreachableError("control socket: the status is of another version of seqd") from error


def read_published(endpoint: str, parts: list[bytes]) -> tuple[Published, bytes]:
    """A message of the stream, and its payload.

    Raises
    ------
    UnreachableError : it is none of this version.
    """
    try:
        message, payload = decode(parts)
    except WireError as error:
        raise UnreachableError(f"stream of calls {endpoint}: {error}; is it a seqd of this version?") from error
    if not isinstance(message, Published):
        raise UnreachableError(f"stream of calls {endpoint}: {message.topic} does not belong there")
    return message, payload
