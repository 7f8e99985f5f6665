"""Code that several commands of ``seqd calib`` use."""

from collections.abc import Iterator
from contextlib import contextmanager

from seqd_client.errors import SeqdError


class UsageError(SeqdError):
    """An option cannot be used."""

    exit_code = 2


@contextmanager
def learning_installed(what: str, *, extra: str = "train") -> Iterator[None]:
    """If an import in the ``with`` block does not find a library, name the extra that the user must install.

    Raises
    ------
    UsageError : an import in the block did not find its library.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"calib", "engines", "daemon"}:
            raise
        raise UsageError(f"{what} needs {error.name}: pip install 'seqd[{extra}]'") from error
