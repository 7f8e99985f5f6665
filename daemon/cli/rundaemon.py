"""``seqd run``: the daemon."""

from pathlib import Path
from typing import Annotated

import typer
from seqd_client.consumer import ControlClient
from seqd_client.keys import load_client_keys
from seqd_client.wire.messages import Drain, Refused

from daemon.cli.makekeys import Own, Server
from daemon.config import Config, ControlConfig, load_config
from daemon.errors import RunError
from daemon.service import Service
from daemon.watching.logs import configure_logs


def run(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; without one, the defaults of systemd/seqd.toml.")
    ] = None,
    once: Annotated[bool, typer.Option(help="End when the first run is finished.")] = False,
) -> None:
    """Run the daemon: frames in, calls out. SIGTERM drains what is held and ends with 0."""
    settings = load_config(config) if config else Config()
    configure_logs(settings.log)
    Service(settings).run(once=once)


def drain(
    command: Annotated[str, typer.Option(help="Command address of the daemon.")] = ControlConfig().command,
    certificate: Own = None,
    server_key: Server = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 5.0,
) -> None:
    """Ask the daemon to commit what it is calling, take in nothing new and stop; the next start goes on."""
    with ControlClient(command, timeout_s=timeout, keys=load_client_keys(certificate, server_key)) as client:
        answer, _ = client.ask(Drain())
    if isinstance(answer, Refused):
        raise RunError(f"daemon at {command}: refused: {answer.reason}")
    typer.echo("draining; `seqd status` shows how far it is until it ends")
