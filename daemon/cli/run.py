"""``seqd run``: the daemon."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.config import Config, load_config
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
