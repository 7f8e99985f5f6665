"""The sockets of a client, and how patient it is with the daemon at the other end."""

from typing import Any, TypeVar

import zmq

from seqd_client.errors import UnreachableError
from seqd_client.keys import ClientKeys
from seqd_client.sockets import connect
from seqd_client.wire.messages import Message, Refused

POLL_S = 0.1
"""Between looks at the clock, and before a request is repeated."""

REPEAT_S = 3.0
"""The stream repeats a request that was not answered for so long: a daemon that was killed took it along."""

AnySocket = TypeVar("AnySocket", bound="zmq.Socket[Any]")
"""A blocking socket or one for asyncio, as its context makes them."""


def open_control(context: zmq.Context[AnySocket], endpoint: str, keys: ClientKeys | None) -> AnySocket:
    """A socket to a daemon's control endpoint.

    Raises
    ------
    SocketError : the address is not one.
    """
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    connect(socket, endpoint, keys=keys)
    return socket


def open_calls(context: zmq.Context[AnySocket], endpoint: str, keys: ClientKeys | None) -> AnySocket:
    """A socket to a daemon's stream of calls.

    Raises
    ------
    SocketError : the address is not one.
    """
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    connect(socket, endpoint, keys=keys)
    return socket


def no_answer(endpoint: str, timeout_s: float) -> UnreachableError:
    """What is raised when a request has no answer in time."""
    admitted = ", and does it let this key in" if endpoint.startswith("tcp://") else ""
    return UnreachableError(
        f"control socket {endpoint}: no answer within {timeout_s:g} s; is `seqd run` running{admitted}?"
    )


def refused(request: Message, answer: Refused) -> UnreachableError:
    """What is raised when a request that should be answered is refused."""
    asked = ", ".join(f"{name} {value}" for name, value in request)
    return UnreachableError(f"control socket: {request.topic} {asked}: {answer.reason}")


def given_up(endpoint: str, timeout_s: float, error: UnreachableError) -> UnreachableError:
    """What is raised when the daemon was away for too long."""
    return UnreachableError(f"stream of calls {endpoint}: given up after {timeout_s:g} s; {error}")
