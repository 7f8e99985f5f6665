"""Clients of a running daemon: control requests and the stream of calls, blocking or for asyncio."""

from seqd_client.consumer.asynchronous import AsyncCallsStream, AsyncControlClient
from seqd_client.consumer.blocking import CallsStream, ControlClient
from seqd_client.consumer.following import MissedError

__all__ = ["AsyncCallsStream", "AsyncControlClient", "CallsStream", "ControlClient", "MissedError"]
