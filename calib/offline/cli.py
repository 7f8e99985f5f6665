"""What the commands of ``seqd calib`` share."""

from collections.abc import Iterator
from contextlib import contextmanager

from seqd_client.errors import SeqdError


class UsageError(SeqdError):
    """An option cannot be used."""

    exit_code = 2


@contextmanager
def learning_installed(what: str, *, extra: str = "train") -> Iterator[None]:
    """Name the extra to install if an import inside does not find a library.

    Raises
    ------
    UsageError : an import inside found no such library.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"calib", "engines", "daemon"}:
            raise
        raise UsageError(f"{what} needs {error.name}: pip install 'seqd[{extra}]'") from error
