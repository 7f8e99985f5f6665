"""``seqd drain``: stop the daemon when it has committed what it holds."""

from typing import Annotated

import typer

from daemon.cli.keys import Own, Server
from daemon.client import ControlClient
from daemon.config import ControlConfig
from daemon.errors import RunError
from daemon.security.keys import load_client_keys
from daemon.wire.messages import Drain, Refused


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
