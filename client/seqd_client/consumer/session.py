"""One session of a consumer, as a series of steps. Blocking and asyncio programs do the same steps."""

import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from pydantic import ValidationError

from seqd_client.consumer.runfollower import Published, RunFollower
from seqd_client.errors import UnreachableError
from seqd_client.status import Status
from seqd_client.wire.codec import WireError, decode
from seqd_client.wire.messages import Message, Refused, StatusAnswer

POLL_S = 0.1
"""Seconds of one wait for the stream, and of the pause before a request is repeated."""

REPEAT_S = 3.0
"""Seconds after which a session repeats a request; the request is lost when the daemon was killed meanwhile."""


class Ask(NamedTuple):
    """Send a request and wait for its answer."""

    request: Message
    timeout_s: float


class Delivery(NamedTuple):
    """Give a message to the program."""

    message: Message
    payload: bytes


class Wait(Enum):
    """Wait for :data:`POLL_S`."""

    STREAM = auto()
    """Until a message of the stream comes."""
    PAUSE = auto()


class Session:
    """Follows the calls of a daemon.

    A program carries out the :meth:`steps` and puts into :attr:`reply` the parts of the message that came: the answer
    after an :class:`Ask`, the message of the stream after :attr:`Wait.STREAM`, None if none came in time.
    """

    def __init__(self, calls: str, control: str) -> None:
        self._calls, self._control = calls, control
        self._follower = RunFollower()
        self.reply: list[bytes] | None = None

    def steps(self, timeout_s: float) -> Iterator[Ask | Wait | Delivery]:
        """Steps until the run ends.

        Raises
        ------
        UnreachableError, MissedError : as for :meth:`seqd_client.CallsStream.messages`.
        """
        follower = self._follower
        follower.begin()
        alive_s = time.monotonic()
        while not follower.ended:
            if (request := follower.request) is not None:
                ask = Ask(request, min(REPEAT_S, timeout_s))
                yield ask
                try:
                    message, payload = self._answer(ask)
                except UnreachableError as error:
                    if time.monotonic() - alive_s > timeout_s:
                        text = f"stream of calls {self._calls}: given up after {timeout_s:g} s; {error}"
                        raise UnreachableError(text) from error
                    yield Wait.PAUSE
                    follower.silent()
                    continue
                status = read_status(message, payload) if isinstance(message, StatusAnswer) else None
                is_delivered = follower.answered(message, status)
                is_alive = is_delivered or follower.request is None
            else:
                yield Wait.STREAM
                if self.reply is None:
                    if time.monotonic() - alive_s > timeout_s / 2:
                        follower.silent()
                    continue
                message, payload = self._published(self.reply)
                is_delivered, is_alive = follower.published(message), True
            if is_delivered:
                yield Delivery(message, payload)
            if is_alive:
                # The program may have needed long to use the message. That time is not silence of the daemon.
                alive_s = time.monotonic()

    def _answer(self, ask: Ask) -> tuple[Message, bytes]:
        message, payload = read_answer(self._control, self.reply, ask.timeout_s)
        if isinstance(message, Refused):
            asked = ", ".join(f"{name} {value}" for name, value in ask.request)
            raise UnreachableError(f"control socket: {ask.request.topic} {asked}: {message.reason}")
        return message, payload

    def _published(self, parts: list[bytes]) -> tuple[Published, bytes]:
        try:
            message, payload = decode(parts)
        except WireError as error:
            raise UnreachableError(f"stream of calls {self._calls}: {error}; is it a seqd of this version?") from error
        if not isinstance(message, Published):
            raise UnreachableError(f"stream of calls {self._calls}: {message.topic} does not belong there")
        return message, payload


def read_answer(endpoint: str, parts: list[bytes] | None, timeout_s: float) -> tuple[Message, bytes]:
    """Read the answer to a control request, and its payload.

    Raises
    ------
    UnreachableError : none came within the timeout, or the daemon speaks another version of the protocol.
    """
    if parts is None:
        admitted = ", and does it allow this key" if endpoint.startswith("tcp://") else ""
        raise UnreachableError(
            f"control socket {endpoint}: no answer within {timeout_s:g} s; is `seqd run` running{admitted}?"
        )
    try:
        return decode(parts)
    except WireError as error:
        raise UnreachableError(f"control socket {endpoint}: {error}; is it a seqd of this version?") from error


def read_status(answer: Message, payload: bytes) -> Status:
    """Read the status in an answer.

    Raises
    ------
    UnreachableError : the answer has no status, or the status of another version of seqd.
    """
    if not isinstance(answer, StatusAnswer):
        raise UnreachableError(f"control socket: answered {answer.topic} to a status request")
    try:
        return Status.model_validate_json(payload)
    except ValidationError as error:
        raise UnreachableError("control socket: the status is of another version of seqd") from error
