"""Opening ZeroMQ sockets, with errors a person can act on."""

from pathlib import Path

import zmq

from daemon.errors import RunError


def bind(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Bind a socket, making the folder of an ipc address.

    Raises
    ------
    RunError : the address is in use or cannot be made.
    """
    try:
        if endpoint.startswith("ipc://"):
            path = Path(endpoint.removeprefix("ipc://"))
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        socket.setsockopt(zmq.IPV6, 1)
        socket.bind(endpoint)
        if endpoint.startswith("ipc://"):
            path.chmod(0o660)
    except (zmq.ZMQError, OSError) as error:
        socket.close()
        raise RunError(f"socket {endpoint}: {getattr(error, 'strerror', None) or error}") from error


def connect(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Connect a socket; the other end may come later.

    Raises
    ------
    RunError : the address is not one.
    """
    try:
        socket.setsockopt(zmq.IPV6, 1)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise RunError(f"socket {endpoint}: {error.strerror}") from error
