"""Clients of seqd: an imaging controller that sends camera frames, and consumers that follow the calls."""

from seqd_client.consumer import AsyncCallsStream, AsyncControlClient, CallsStream, ControlClient, MissedError
from seqd_client.controller import Controller
from seqd_client.errors import ControllerError, KeysError, SeqdError, SocketError, UnreachableError
from seqd_client.keys import ClientKeys, ServerKeys, load_client_keys, load_server_keys
from seqd_client.runinfo import CHANNELS, Read, RunInfo, TileId, parse_reads
from seqd_client.status import RunState, Status
from seqd_client.wire.messages import Calls, Event, Replay, StatusQuery, Template, TilesAnswer, TilesQuery

__version__ = "0.1.0"

__all__ = [
    "CHANNELS",
    "AsyncCallsStream",
    "AsyncControlClient",
    "Calls",
    "CallsStream",
    "ClientKeys",
    "ControlClient",
    "Controller",
    "ControllerError",
    "Event",
    "KeysError",
    "MissedError",
    "Read",
    "Replay",
    "RunInfo",
    "RunState",
    "SeqdError",
    "ServerKeys",
    "SocketError",
    "Status",
    "StatusQuery",
    "Template",
    "TileId",
    "TilesAnswer",
    "TilesQuery",
    "UnreachableError",
    "load_client_keys",
    "load_server_keys",
    "parse_reads",
]
