"""Following a daemon as a list of steps: the blocking and the asyncio client only carry them out."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import zmq

from seqd_client.consumer.answers import read_published
from seqd_client.consumer.following import Following
from seqd_client.errors import UnreachableError
from seqd_client.keys import ClientKeys
from seqd_client.sockets import connect
from seqd_client.wire.messages import Message, Refused

POLL_S = 0.1
"""Seconds between two looks at the clock, and before a request is repeated."""

REPEAT_S = 3.0
"""A request that has no answer after so many seconds is repeated: a daemon that was killed took it along."""

AnySocket = TypeVar("AnySocket", bound="zmq.Socket[Any]")
"""A blocking socket or one for asyncio, as its context makes them."""


@dataclass(frozen=True)
class Ask:
    """Ask the control socket; the reply is the answer and its payload, or the :class:`UnreachableError`."""

    request: Message
    timeout_s: float


@dataclass(frozen=True)
class Listen:
    """Wait for a message of the stream; the reply is its parts, or None when none came in time."""

    timeout_s: float


@dataclass(frozen=True)
class Pause:
    """Wait; there is no reply."""

    seconds: float


@dataclass(frozen=True)
class Deliver:
    """Hand a message to the consumer; there is no reply."""

    message: Message
    payload: bytes


Step = Ask | Listen | Pause | Deliver
Reply = tuple[Message, bytes] | UnreachableError | list[bytes] | None


def follow(following: Following, endpoint: str, timeout_s: float) -> Generator[Step, Any, None]:
    """The steps that deliver templates, calls and events until the run ends.

    Parameters
    ----------
    following : what was delivered so far.
    endpoint : address of the stream, for errors.
    timeout_s : how long the daemon may be away. A daemon that is started again within this time is followed further; a
        daemon that answers may be silent for as long as it likes.

    Raises
    ------
    UnreachableError : the daemon was away for longer, or refuses what it committed.
    MissedError : the daemon went on to another run before all calls of this one were delivered.
    """
    following.begin()
    well_s = time.monotonic()
    while not following.ended:
        if (request := following.request) is not None:
            reply = yield Ask(request, min(REPEAT_S, timeout_s))
            if not isinstance(reply, UnreachableError) and isinstance(reply[0], Refused):
                reply = _refused(request, reply[0])
            if isinstance(reply, UnreachableError):
                if time.monotonic() - well_s > timeout_s:
                    raise UnreachableError(
                        f"stream of calls {endpoint}: given up after {timeout_s:g} s; {reply}"
                    ) from reply
                yield Pause(POLL_S)
                following.silent()
                continue
            message, payload = reply
            deliver = following.answered(message, payload)
            well = deliver or following.request is None
        elif (parts := (yield Listen(POLL_S))) is not None:
            message, payload = read_published(endpoint, parts)
            deliver, well = following.published(message), True
        else:
            if time.monotonic() - well_s > timeout_s / 2:
                following.silent()
            continue
        if deliver:
            yield Deliver(message, payload)
        if well:
            well_s = time.monotonic()


def open_control(context: zmq.Context[AnySocket], endpoint: str, keys: ClientKeys | None) -> AnySocket:
    """A socket to a daemon's control endpoint; raises :class:`SocketError` where the address is none."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    connect(socket, endpoint, keys=keys)
    return socket


def open_calls(context: zmq.Context[AnySocket], endpoint: str, keys: ClientKeys | None) -> AnySocket:
    """A socket to a daemon's stream of calls; raises :class:`SocketError` where the address is none."""
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    connect(socket, endpoint, keys=keys)
    return socket


def no_answer(endpoint: str, timeout_s: float) -> UnreachableError:
    """The error of a request that has no answer in time."""
    admitted = ", and does it let this key in" if endpoint.startswith("tcp://") else ""
    return UnreachableError(
        f"control socket {endpoint}: no answer within {timeout_s:g} s; is `seqd run` running{admitted}?"
    )


def _refused(request: Message, answer: Refused) -> UnreachableError:
    asked = ", ".join(f"{name} {value}" for name, value in request)
    return UnreachableError(f"control socket: {request.topic} {asked}: {answer.reason}")
