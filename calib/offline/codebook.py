"""Codebooks: the reads that a design allows."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.errors import SeqdError


class CodebookError(SeqdError):
    """A codebook cannot be read, or its codes are not of the length of the reads."""

    exit_code = 3


def read_codebook(path: Path) -> NDArray[np.uint8]:
    """(codes, length) letters of the ``code`` column of a CSV, each code once, in the order of the file.

    Raises
    ------
    CodebookError : it cannot be read, has no such column, no codes, or codes of several lengths or of other letters.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows, columns = list(table), table.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CodebookError(f"codebook {path}: {getattr(error, 'strerror', None) or error}") from error
    if "code" not in columns:
        raise CodebookError(f"codebook {path}: no column `code`")
    codes = list(dict.fromkeys((row["code"] or "").strip() for row in rows))
    if not codes:
        raise CodebookError(f"codebook {path}: no codes")
    if not codes[0]:
        raise CodebookError(f"codebook {path}: the first code is empty")
    if odd := [code for code in codes if len(code) != len(codes[0]) or set(code) - set("ACGT")]:
        raise CodebookError(f"codebook {path}: code {odd[0]!r}, {len(codes[0])} letters of ACGT are expected")
    return np.frombuffer("".join(codes).encode(), np.uint8).reshape(len(codes), -1)
