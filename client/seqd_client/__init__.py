"""Clients of seqd: the imaging controller's side and the consumer's side of its wire protocol."""

from seqd_client.consumer.asynchronous import AsyncCallsStream, AsyncControlClient
from seqd_client.consumer.blocking import CallsStream, ControlClient
from seqd_client.consumer.following import MissedError
from seqd_client.controller.controller import Controller
from seqd_client.errors import KeysError, PublishError, SeqdError, SocketError, UnreachableError
from seqd_client.keys import load_client_keys, load_server_keys
from seqd_client.runinfo import CHANNELS, Read, RunInfo, TileId, parse_reads
from seqd_client.wire.messages import Calls, Event, Template

__version__ = "0.1.0"

__all__ = [
    "CHANNELS",
    "AsyncCallsStream",
    "AsyncControlClient",
    "Calls",
    "CallsStream",
    "ControlClient",
    "Controller",
    "Event",
    "KeysError",
    "MissedError",
    "PublishError",
    "Read",
    "RunInfo",
    "SeqdError",
    "SocketError",
    "Template",
    "TileId",
    "UnreachableError",
    "load_client_keys",
    "load_server_keys",
    "parse_reads",
]
