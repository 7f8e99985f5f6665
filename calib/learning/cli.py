"""What the commands of ``seqd calib`` share."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines.errors import SeqdError


class UsageError(SeqdError):
    """An option cannot be used."""

    exit_code = 2


def bar() -> Progress:
    """A bar on standard error with what is done and what is left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
