"""Options and arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from calib.progressbar import bar
from daemon.config import ControlConfig

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that a run was, or is being, written to.")]
Certificate = Annotated[
    Path | None,
    typer.Option("--certificate", help="Your own certificate, NAME.key_secret of `seqd keys`; for tcp://."),
]
ServerKey = Annotated[Path | None, typer.Option("--server-key", help="The daemon's public key, NAME.key; for tcp://.")]
ControlAddress = Annotated[str, typer.Option("--control", help="Control address of the daemon.")]
CONTROL = ControlConfig().endpoint
"""Control address of a daemon that is not configured otherwise."""

AnswerTimeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for an answer.")]


def progress_bar() -> Progress:
    """A progress bar on the standard error, so that the standard output holds results only."""
    return bar(Console(stderr=True))
