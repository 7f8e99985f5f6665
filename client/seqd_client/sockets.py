"""Opening ZeroMQ sockets: their keys and bounds, with errors a person can act on."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import zmq

from seqd_client.errors import SocketError
from seqd_client.keys import ClientKeys, ServerKeys

FRAMES, RECOVERY = "ipc:///run/seqd/frames", "ipc:///run/seqd/recovery"
"""Where a controller publishes frames, and where it answers, if nothing else is configured."""

IPC_PATH_BYTES = 107
"""The system's limit for a socket's path."""

TCP = re.compile(r"tcp://(?P<host>\*|\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253}):(?P<port>[0-9]{1,5})")

LARGEST_PART = 16384 * 16384 * 2
"""Bytes of the largest part of a message, the pixels of a frame."""

HANDSHAKE_MS = 10_000
"""Milliseconds in which a connection must prove its key; otherwise it is closed."""

QUEUE = 128
"""Messages kept for one peer, each way."""


def checked_address(address: str) -> str:
    """Give the address back; raises :class:`ValueError` where it is not valid."""
    ipc = address.startswith("ipc://") and 0 < len(address.removeprefix("ipc://").encode()) <= IPC_PATH_BYTES
    tcp = TCP.fullmatch(address)
    if not ipc and not (tcp and 0 < int(tcp["port"]) < 2**16):
        raise ValueError(f"an address is needed: ipc://PATH of at most {IPC_PATH_BYTES} bytes, or tcp://HOST:PORT")
    return address


def beyond_this_machine(address: str) -> bool:
    """Whether an address lies on another machine, or can be reached from one."""
    tcp = TCP.fullmatch(address)
    if tcp is None:
        return not address.startswith("ipc://")
    try:
        return not ip_address(tcp["host"].strip("[]")).is_loopback
    except ValueError:
        return tcp["host"] != "localhost"


def bind(
    socket: "zmq.Socket[bytes]",
    endpoint: str,
    *,
    keys: ServerKeys | None = None,
    queue: int = QUEUE,
    largest_part: int = LARGEST_PART,
) -> None:
    """Bind a socket; makes the folder of an ipc address, and the socket file with mode 0660.

    Bind before you start threads that make files, because the file mode mask of the process changes for a moment.

    Parameters
    ----------
    keys : its keys on a TCP address; the file mode protects an ipc address.
    queue : messages kept for one peer, each way.
    largest_part : bytes of the largest part of a message; the sender of a larger part is disconnected.

    Raises
    ------
    SocketError : the address is in use or cannot be made, or it can be reached from other machines and has no keys.
    """
    with _opening(socket, endpoint, keys, queue, largest_part):
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        before = os.umask(0o117)
        try:
            socket.bind(endpoint)
        finally:
            os.umask(before)


def connect(
    socket: "zmq.Socket[bytes]",
    endpoint: str,
    *,
    keys: ClientKeys | None = None,
    queue: int = QUEUE,
    largest_part: int = LARGEST_PART,
) -> None:
    """Connect a socket; the other end may come later.

    Parameters
    ----------
    keys : its keys on a TCP address.
    queue, largest_part : as for :func:`bind`.

    Raises
    ------
    SocketError : the address is not valid, or it is on another machine and has no keys.
    """
    with _opening(socket, endpoint, keys, queue, largest_part):
        socket.connect(endpoint)


@contextmanager
def _opening(
    socket: "zmq.Socket[bytes]", endpoint: str, keys: ServerKeys | ClientKeys | None, queue: int, largest_part: int
) -> Iterator[None]:
    """Set keys and limits of a socket that is then bound or connected; an error closes it and becomes SocketError."""
    try:
        if keys is None and beyond_this_machine(endpoint):
            raise SocketError(f"socket {endpoint}: an address beyond this machine needs keys; `seqd keys` makes them")
        if keys is not None and endpoint.startswith("tcp://"):
            keys.apply(socket)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.SNDHWM, queue)
        socket.setsockopt(zmq.RCVHWM, queue)
        socket.setsockopt(zmq.MAXMSGSIZE, largest_part)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        yield
    except (zmq.ZMQError, OSError, SocketError) as error:
        socket.close()
        if isinstance(error, SocketError):
            raise
        raise SocketError(f"socket {endpoint}: {zmq.strerror(error.errno or 0)}") from error
