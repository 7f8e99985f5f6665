"""``seqd tail``: print calls as they are committed."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from seqd_client.consumer import CallsStream, ControlClient
from seqd_client.keys import load_client_keys
from seqd_client.wire.messages import Calls, Event, Message, Template

from daemon.cli.options import CONTROL, Certificate, ControlAddress, ServerKey
from daemon.config import StreamConfig
from daemon.outputs.reads.recordbytes import letters as letters_of
from daemon.record.tilefile import HEADER, encode_locs

SHOWN = 40
"""Bases of a tile-cycle that are printed."""


def tail(
    calls: Annotated[str, typer.Option(help="Address of the daemon's stream.")] = StreamConfig().calls,
    control: ControlAddress = CONTROL,
    certificate: Certificate = None,
    server_key: ServerKey = None,
    write: Annotated[
        Path | None, typer.Option(help="Folder to write tile files to, with the same bytes as the daemon's.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for a daemon that does not answer, or is started again.")
    ] = 10.0,
) -> None:
    """Follow the calls of a run until it ends. Earlier calls are fetched first."""
    if write:
        write.mkdir(parents=True, exist_ok=True)
    keys = load_client_keys(certificate, server_key)
    with ControlClient(control, keys=keys) as client, CallsStream(calls, client, keys=keys) as stream:
        for message, payload in stream.messages(timeout_s=timeout):
            _show(message, payload)
            if write:
                _write(write, message, payload)


def _show(message: Message, payload: bytes) -> None:
    match message:
        case Calls():
            letters = letters_of(np.frombuffer(payload, np.uint8)[:SHOWN]).tobytes().decode()
            typer.echo(
                f"{message.run} tile {message.lane}_{message.tile} cycle {message.cycle:4d} n {message.n} {letters}"
            )
        case Template():
            typer.echo(f"{message.run} tile {message.lane}_{message.tile} template of {message.n} clusters")
        case Event():
            typer.echo(f"{message.level}: {message.text}")


def _write(folder: Path, message: Message, payload: bytes) -> None:
    match message:
        case Template():
            positions = np.frombuffer(payload, "<f4").reshape(-1, 2)[:, ::-1]
            (folder / f"s_{message.lane}_{message.tile}.locs").write_bytes(encode_locs(positions))
            (folder / f"s_{message.lane}_{message.tile}.bcls").write_bytes(HEADER.pack(message.n))
        case Calls():
            with (folder / f"s_{message.lane}_{message.tile}.bcls").open("ab") as file:
                file.write(payload)
