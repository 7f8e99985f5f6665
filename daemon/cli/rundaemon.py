"""``seqd run`` and ``seqd drain``: start the daemon, and stop it."""

from pathlib import Path
from typing import Annotated

import typer
from seqd_client.consumer import ControlClient
from seqd_client.keys import load_client_keys
from seqd_client.wire.messages import Drain, Refused

from daemon.cli.options import AnswerTimeout, Certificate, ServerKey
from daemon.config import Config, ControlConfig, load_config
from daemon.errors import RunError
from daemon.service import Service
from daemon.watching.logs import configure_logs


def run(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; without it, the values in systemd/seqd.toml apply.")
    ] = None,
    once: Annotated[bool, typer.Option(help="End when the first run is finished.")] = False,
) -> None:
    """Run the daemon, which calls the frames that a controller sends. After SIGTERM it drains, and ends with code 0."""
    settings = load_config(config) if config else Config()
    configure_logs(settings.log)
    Service(settings).run(once=once)


def drain(
    command: Annotated[str, typer.Option(help="Command address of the daemon.")] = ControlConfig().command,
    certificate: Certificate = None,
    server_key: ServerKey = None,
    timeout: AnswerTimeout = 5.0,
) -> None:
    """Ask the daemon to accept no more frames, commit what it is calling and stop; the next start continues."""
    with ControlClient(command, timeout_s=timeout, keys=load_client_keys(certificate, server_key)) as client:
        answer, _ = client.ask(Drain())
    if isinstance(answer, Refused):
        raise RunError(f"daemon at {command}: refused: {answer.reason}")
    typer.echo("draining; `seqd status` shows the progress until the daemon ends")
