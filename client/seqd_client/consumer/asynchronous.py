"""Clients for programs in asyncio, as :mod:`seqd_client.consumer.blocking`; each client is for one event loop."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

import zmq.asyncio

from seqd_client.consumer.answers import read_answer, read_status
from seqd_client.consumer.following import Following
from seqd_client.consumer.session import Ask, Deliver, Listen, Pause, Reply, follow, no_answer, open_calls, open_control
from seqd_client.errors import UnreachableError
from seqd_client.keys import ClientKeys
from seqd_client.status import Status
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import Message, StatusQuery


class AsyncControlClient:
    """Asks a daemon over its control socket; see :class:`seqd_client.ControlClient`."""

    def __init__(self, endpoint: str, *, timeout_s: float = 5.0, keys: ClientKeys | None = None) -> None:
        self._endpoint, self._timeout_s, self._keys = endpoint, timeout_s, keys
        self._context = zmq.asyncio.Context()
        self._socket = open_control(self._context, endpoint, keys)
        self._asking = asyncio.Lock()

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """Send a request; returns its answer and the payload.

        Raises
        ------
        UnreachableError : no daemon answered in time.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        async with self._asking:
            try:
                await self._socket.send_multipart(encode(request))
                if not await self._socket.poll(int(timeout_s * 1000)):
                    raise no_answer(self._endpoint, timeout_s)
                parts = await self._socket.recv_multipart()
            except BaseException:
                # An answer that comes too late must not be taken for the next one.
                self._socket.close()
                self._socket = open_control(self._context, self._endpoint, self._keys)
                raise
        return read_answer(self._endpoint, parts)

    async def status(self) -> Status:
        """The daemon's status; raises :class:`UnreachableError` where no daemon of this version answered in time."""
        return read_status(*await self.ask(StatusQuery()))

    async def __aenter__(self) -> "AsyncControlClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()


class AsyncCallsStream:
    """The committed calls of a daemon; see :class:`seqd_client.CallsStream`."""

    def __init__(self, calls: str, control: AsyncControlClient, *, keys: ClientKeys | None = None) -> None:
        self._endpoint, self._control = calls, control
        self._context = zmq.asyncio.Context()
        self._socket = open_calls(self._context, calls, keys)
        self._following = Following()

    async def messages(self, *, timeout_s: float) -> AsyncIterator[tuple[Message, bytes]]:
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
            reply = await self._reply(step)

    async def _reply(self, step: object) -> Reply:
        match step:
            case Ask(request, timeout_s):
                try:
                    return await self._control.ask(request, timeout_s=timeout_s)
                except UnreachableError as error:
                    return error
            case Listen(timeout_s) if await self._socket.poll(int(timeout_s * 1000)):
                return await self._socket.recv_multipart()
            case Pause(seconds):
                await asyncio.sleep(seconds)
        return None

    async def __aenter__(self) -> "AsyncCallsStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()
