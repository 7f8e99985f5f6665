"""Clients of a running daemon: control requests and the stream of calls, blocking or for asyncio."""

from daemon.client.asynchronous import AsyncCallsStream, AsyncControlClient
from daemon.client.blocking import CallsStream, ControlClient
from daemon.client.following import MissedError

__all__ = ["AsyncCallsStream", "AsyncControlClient", "CallsStream", "ControlClient", "MissedError"]
