"""Clients of a running daemon: control requests and the stream of calls, blocking or for asyncio."""

from seqd_client.consumer.clients import AsyncCallsStream, AsyncControlClient, CallsStream, ControlClient
from seqd_client.consumer.runfollower import MissedError

__all__ = ["AsyncCallsStream", "AsyncControlClient", "CallsStream", "ControlClient", "MissedError"]
