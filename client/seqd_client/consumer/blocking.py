"""Clients for programs that wait; each client is for one thread."""

import time
from collections.abc import Iterator
from types import TracebackType

import zmq

from seqd_client.consumer.answers import read_answer, read_status
from seqd_client.consumer.following import Following
from seqd_client.consumer.session import Ask, Deliver, Listen, Pause, Reply, follow, no_answer, open_calls, open_control
from seqd_client.errors import UnreachableError
from seqd_client.keys import ClientKeys
from seqd_client.status import Status
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import Message, StatusQuery


class ControlClient:
    """Asks a daemon over its control socket.

    Parameters
    ----------
    endpoint : address of the control socket, ``[control] endpoint`` of the daemon's configuration.
    timeout_s : how long a request waits for its answer.
    keys : CURVE keys, for ``tcp://``.
    """

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0, keys: ClientKeys | None = None) -> None:
        self._endpoint, self._timeout_s, self._keys = endpoint, timeout_s, keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = open_control(self._context, endpoint, keys)

    def ask(self, request: Message, *, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """Send a request; returns its answer and the payload.

        Raises
        ------
        UnreachableError : no daemon answered in time.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            self._socket.send_multipart(encode(request))
            if not self._socket.poll(int(timeout_s * 1000)):
                raise no_answer(self._endpoint, timeout_s)
            parts = self._socket.recv_multipart()
        except BaseException:
            # An answer that comes too late must not be taken for the next one.
            self._socket.close()
            self._socket = open_control(self._context, self._endpoint, self._keys)
            raise
        return read_answer(self._endpoint, parts)

    def status(self) -> Status:
        """The daemon's status.

        Raises
        ------
        UnreachableError : no daemon of this version answered in time.
        """
        return read_status(*self.ask(StatusQuery()))

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()


class CallsStream:
    """The committed calls of a daemon: the template of every tile, then its cycles in order, none left out.

    The stream asks again for calls that were published before this consumer came, or were dropped for it.

    Parameters
    ----------
    calls : address of the stream, ``[stream] calls`` of the daemon's configuration.
    control : asks for what the stream does not have.
    """

    def __init__(self, calls: str, control: ControlClient, *, keys: ClientKeys | None = None) -> None:
        self._endpoint, self._control = calls, control
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = open_calls(self._context, calls, keys)
        self._following = Following()

    def messages(self, *, timeout_s: float) -> Iterator[tuple[Message, bytes]]:
        """Templates, calls and events until the run ends; the next call follows the next run.

        :func:`seqd_client.consumer.session.follow` describes the parameter and the errors.
        """
        steps, reply = follow(self._following, self._endpoint, timeout_s), None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration:
                return
            if isinstance(step, Deliver):
                yield step.message, step.payload
            reply = self._reply(step)

    def _reply(self, step: object) -> Reply:
        match step:
            case Ask(request, timeout_s):
                try:
                    return self._control.ask(request, timeout_s=timeout_s)
                except UnreachableError as error:
                    return error
            case Listen(timeout_s) if self._socket.poll(int(timeout_s * 1000)):
                return self._socket.recv_multipart()
            case Pause(seconds):
                time.sleep(seconds)
        return None

    def __enter__(self) -> "CallsStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()
