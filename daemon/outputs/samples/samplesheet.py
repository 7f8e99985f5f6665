"""Files that declare samples: Illumina's sample sheet, version 2, and a plain list of names and barcodes.

::

    [Header]                                            name    barcode   barcode2
    FileFormatVersion,2                                 alpha   ACGTACGT  TTGGCCAA
    [BCLConvert_Settings]
    BarcodeMismatchesIndex1,1
    OverrideCycles,Y151;I8;I8;Y151
    [BCLConvert_Data]
    Lane,Sample_ID,Index,Index2,Sample_Project
    1,alpha,ACGTACGT,TTGGCCAA,

Only the three sections above are read from a sheet; the others are for other programs. An unknown setting is refused,
as by bcl-convert, because its effect would be missing. Source: Illumina, "BCL Convert: Sample Sheet".
"""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError
from seqd_client.runinfo import RunInfo

from daemon.outputs.samples.samples import BclConvert, Picard, Sample, SampleError, Samples

MAX_BYTES = 4 << 20
MAX_BARCODES = 10_000
MAX_CELL = 500
"""Characters."""

RESERVED = ("all", "default", "none", "undetermined", "unknown")
"""Sample names that bcl-convert reserves."""

MISMATCHES = {"barcodemismatchesindex1": "index1", "barcodemismatchesindex2": "index2"}
HARMLESS = ("softwareversion", "fastqcompressionformat")
"""Settings that are ignored, because they do not change the reads."""

SHEET_COLUMNS = ("lane", "sample_id", "index", "index2", "sample_project")
LIST_COLUMNS = ("name", "barcode", "barcode2")

COMPLEMENT = str.maketrans("ACGT", "TGCA")

Rows = list[list[str]]


def read_samples(path: Path, info: RunInfo, *, reverse_complement_index2: bool = False) -> Samples:
    """The samples that a file declares.

    With a sample sheet bcl-convert's rule applies, with the sheet's settings; with a list of names and barcodes,
    Picard's.

    Parameters
    ----------
    info : run that ``OverrideCycles`` has to fit.
    reverse_complement_index2 : whether the file gives the second barcodes as their reverse complements.

    Raises
    ------
    SampleError : the file cannot be read, or is neither a sample sheet nor such a list.
    """
    rows = _rows(path)
    rule: Picard | BclConvert = Picard()
    if rows[0][0].startswith("["):
        samples, rule = _from_sheet(path, rows, info)
    else:
        samples = _samples(path, rows[0], rows[1:], LIST_COLUMNS, required=("name", "barcode"))
    if reverse_complement_index2:
        turned = ((first, second.translate(COMPLEMENT)[::-1]) for first, second in (one.barcodes for one in samples))
        samples = tuple(
            sample.model_copy(update={"barcodes": barcodes}) for sample, barcodes in zip(samples, turned, strict=True)
        )
    return Samples(samples=samples, rule=rule, source=str(path))


def _rows(path: Path) -> Rows:
    """The cells of every line that is not empty, without surrounding white space."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SampleError(f"samples {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise SampleError(f"samples {path}: more than the {MAX_BYTES} bytes that are allowed")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SampleError(f"samples {path}: byte {error.start} is not UTF-8") from error
    tabs = bool(lines) and "\t" in lines[0]
    try:
        read = [
            [cell.strip() for cell in row] for row in csv.reader(lines, delimiter="\t" if tabs else ",", strict=True)
        ]
    except csv.Error as error:
        raise SampleError(f"samples {path}: not comma-separated: {error}") from error
    rows = [row for row in read if any(row)]
    if not rows:
        raise SampleError(f"samples {path}: the file is empty")
    if (longest := max(len(cell) for row in rows for cell in row)) > MAX_CELL:
        raise SampleError(f"samples {path}: a cell of {longest} letters, at most {MAX_CELL} are allowed")
    return rows


def _from_sheet(path: Path, rows: Rows, info: RunInfo) -> tuple[tuple[Sample, ...], BclConvert]:
    sections = _sections(rows)
    header = {row[0].casefold(): _cell(row, 1) for row in sections.get("header", [])}
    if header.get("fileformatversion") != "2":
        raise SampleError(f"sample sheet {path}: [Header] has no FileFormatVersion,2; only version 2 can be read")
    if "bclconvert_data" not in sections:
        raise SampleError(f"sample sheet {path}: there is no section [BCLConvert_Data]")
    rule, override = _settings(path, sections.get("bclconvert_settings", []))
    columns, *table = sections["bclconvert_data"] or [[]]
    samples = _samples(path, columns, table, SHEET_COLUMNS, required=("sample_id", "index"))
    if override:
        _check_override(path, override, samples, info)
    return samples, rule


def _sections(rows: Rows) -> dict[str, Rows]:
    sections: dict[str, Rows] = {}
    for row in rows:
        if row[0].startswith("["):
            within = sections.setdefault(row[0].strip("[]").casefold(), [])
        else:
            within.append(row)
    return sections


def _settings(path: Path, rows: Rows) -> tuple[BclConvert, str]:
    mismatches, override = {}, ""
    for row in rows:
        name, value = row[0], _cell(row, 1)
        match name.casefold():
            case "overridecycles":
                override = value
            case key if key in MISMATCHES:
                if value not in ("0", "1", "2"):
                    raise SampleError(f"sample sheet {path}: {name} {value!r}, allowed are 0, 1 and 2")
                mismatches[MISMATCHES[key]] = int(value)
            case key if key not in HARMLESS:
                raise SampleError(
                    f"sample sheet {path}: setting {name} is not supported; allowed are BarcodeMismatchesIndex1, "
                    "BarcodeMismatchesIndex2 and OverrideCycles"
                )
    return BclConvert(**mismatches), override


def _samples(
    path: Path, columns: list[str], table: Rows, known: tuple[str, ...], *, required: tuple[str, str]
) -> tuple[Sample, ...]:
    """The samples of a table; each row of the table has one barcode."""
    names = [column.casefold() for column in columns]
    while names and not names[-1]:  # spreadsheets add commas at the end
        names.pop()
    for name in names:
        if name not in known or names.count(name) > 1:
            raise SampleError(f"samples {path}: column {name!r}; allowed are {', '.join(known)}, each once")
    if missing := [name for name in required if name not in names]:
        raise SampleError(f"samples {path}: there is no column {missing[0]!r}; the columns are {', '.join(names)}")
    if not 0 < len(table) <= MAX_BARCODES:
        raise SampleError(f"samples {path}: {len(table)} barcodes, allowed are 1 to {MAX_BARCODES}")
    for row in table:
        if any(row[len(names) :]):
            raise SampleError(f"samples {path}: row {','.join(row)!r} has more cells than the {len(names)} columns")
    return tuple(_sample(path, dict(zip(names, row, strict=False)), *required) for row in table)


def _sample(path: Path, row: Mapping[str, str], name_column: str, barcode_column: str) -> Sample:
    name = row.get(name_column, "")
    barcodes = row.get(barcode_column, ""), row.get("index2", "") or row.get("barcode2", "")
    if not barcodes[0]:
        raise SampleError(f"samples {path}: sample {name!r} has no {barcode_column}")
    for barcode in barcodes:
        if not set(barcode) <= set("ACGT"):
            raise SampleError(f"samples {path}: sample {name!r}: barcode {barcode!r}; allowed are A, C, G and T")
    if name.casefold() in RESERVED:
        raise SampleError(f"samples {path}: sample {name!r}: the name is reserved, as are {', '.join(RESERVED)}")
    given = {"name": name, "barcodes": barcodes, "lane": row.get("lane") or None}
    try:
        return Sample.model_validate(given | {"project": row.get("sample_project", "")})
    except ValidationError as error:
        first = error.errors()[0]
        raise SampleError(
            f"samples {path}: sample {name!r}: {first['loc'][0]} {first['input']!r}: {first['msg']}"
        ) from error


def _check_override(path: Path, override: str, samples: Iterable[Sample], info: RunInfo) -> None:
    """Accept only a mask that changes nothing: template reads whole, and index reads as long as the barcodes."""
    lengths = {tuple(map(len, sample.barcodes)) for sample in samples}
    for length in lengths:
        left = iter(length)
        expected = [_mask(read.cycles, next(left, 0) if read.index else None) for read in info.reads]
        if [_mask_parts(part) for part in override.split(";")] != [_mask_parts(part) for part in expected]:
            raise SampleError(
                f"sample sheet {path}: OverrideCycles {override} is not supported; with barcodes of "
                f"{'+'.join(map(str, filter(None, length)))} bases it has to be {';'.join(expected)} in this run"
            )


def _mask(cycles: int, compared: int | None) -> str:
    """Mask of a read of which the first ``compared`` cycles are compared with barcodes.

    None stands for a template read, of which all cycles are used.
    """
    return f"Y{cycles}" if compared is None else f"I{compared}N{cycles - compared}"


def _mask_parts(mask: str) -> list[tuple[str, int]] | None:
    """Letters and numbers of cycles of a mask, without letters that have 0 cycles; None if the text is no mask."""
    if not re.fullmatch(r"([YIUN]\d{1,5})+", mask):
        return None
    parts = [(letter, int(cycles)) for letter, cycles in re.findall(r"([YIUN])(\d+)", mask)]
    return [(letter, cycles) for letter, cycles in parts if cycles]


def _cell(row: list[str], at: int) -> str:
    return row[at] if at < len(row) else ""
