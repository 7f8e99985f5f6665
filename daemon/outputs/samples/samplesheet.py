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

Of a sheet the three sections above are read; the others are for other programs. A setting that is not known is refused,
as by bcl-convert: it would ask for something that is not done. Source: Illumina, "BCL Convert: Sample Sheet".
"""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError
from seqd_client.runinfo import RunInfo

from daemon.outputs.samples.samples import BclConvert, Picard, Sample, SampleError, Samples

MOST_BYTES = 4 << 20
MOST_BARCODES = 10_000
MOST_LETTERS = 500
"""Of a cell."""

RESERVED = ("all", "default", "none", "undetermined", "unknown")
"""Names that bcl-convert keeps for itself."""

MISMATCHES = {"barcodemismatchesindex1": "index1", "barcodemismatchesindex2": "index2"}
HARMLESS = ("softwareversion", "fastqcompressionformat")
"""Settings that do not say what the reads are."""

COLUMNS = ("lane", "sample_id", "index", "index2", "sample_project")
WHITELIST = ("name", "barcode", "barcode2")

COMPLEMENT = str.maketrans("ACGT", "TGCA")

Rows = list[list[str]]


def read_samples(path: Path, info: RunInfo, *, reverse_complement_index2: bool = False) -> Samples:
    """The samples that a file declares.

    A sample sheet brings bcl-convert's rule, with its settings; a list of names and barcodes brings Picard's.

    Parameters
    ----------
    info : that ``OverrideCycles`` has to fit.
    reverse_complement_index2 : turn the second barcodes round, where the file has them as the other strand.

    Raises
    ------
    SampleError : the file cannot be read, or is neither.
    """
    rows = _rows(path)
    declared = _sheet(path, rows, info) if rows[0][0].startswith("[") else _whitelist(path, rows)
    if not reverse_complement_index2:
        return declared
    return declared.model_copy(update={"samples": tuple(map(_second_turned, declared.samples))})


def _rows(path: Path) -> Rows:
    """The cells of every line that has any, without white space around them."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SampleError(f"samples {path}: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise SampleError(f"samples {path}: more than {MOST_BYTES} bytes, the most that is read")
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
    if (longest := max(len(cell) for row in rows for cell in row)) > MOST_LETTERS:
        raise SampleError(f"samples {path}: a cell of {longest} letters, at most {MOST_LETTERS} are read")
    return rows


def _sheet(path: Path, rows: Rows, info: RunInfo) -> Samples:
    sections = _sections(rows)
    header = {row[0].casefold(): _cell(row, 1) for row in sections.get("header", [])}
    if header.get("fileformatversion") != "2":
        raise SampleError(
            f"sample sheet {path}: [Header] has no FileFormatVersion,2; version 2 is the one that is read"
        )
    if "bclconvert_data" not in sections:
        raise SampleError(f"sample sheet {path}: there is no section [BCLConvert_Data]")
    rule, override = _settings(path, sections.get("bclconvert_settings", []))
    columns, *table = sections["bclconvert_data"] or [[]]
    samples = _samples(path, columns, table, COLUMNS, required=("sample_id", "index"))
    if override:
        _check_override(path, override, samples, info)
    return Samples(samples=samples, rule=rule, source=str(path))


def _whitelist(path: Path, rows: Rows) -> Samples:
    samples = _samples(path, rows[0], rows[1:], WHITELIST, required=("name", "barcode"))
    return Samples(samples=samples, rule=Picard(), source=str(path))


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
    """One barcode a row; the columns have their names in either format."""
    names = [column.casefold() for column in columns]
    while names and not names[-1]:  # spreadsheets fill up with commas
        names.pop()
    for name in names:
        if name not in known or names.count(name) > 1:
            raise SampleError(f"samples {path}: column {name!r}; allowed are {', '.join(known)}, each once")
    if missing := [name for name in required if name not in names]:
        raise SampleError(f"samples {path}: there is no column {missing[0]!r}; the columns are {', '.join(names)}")
    if not 0 < len(table) <= MOST_BARCODES:
        raise SampleError(f"samples {path}: {len(table)} barcodes, allowed are 1 to {MOST_BARCODES}")
    rows = [_fields(path, names, row) for row in table]
    return tuple(_sample(path, row, *required) for row in rows)


def _fields(path: Path, names: list[str], row: list[str]) -> dict[str, str]:
    if any(row[len(names) :]):
        raise SampleError(f"samples {path}: row {','.join(row)!r} has more cells than the {len(names)} columns")
    return dict(zip(names, row, strict=False))


def _sample(path: Path, row: Mapping[str, str], name_column: str, barcode_column: str) -> Sample:
    name = row.get(name_column, "")
    barcodes = row.get(barcode_column, ""), row.get("index2", "") or row.get("barcode2", "")
    if not barcodes[0]:
        raise SampleError(f"samples {path}: sample {name!r} has no {barcode_column}")
    for barcode in barcodes:
        if not set(barcode) <= set("ACGT"):
            raise SampleError(f"samples {path}: sample {name!r}: barcode {barcode!r}; allowed are A, C, G and T")
    if name.casefold() in RESERVED:
        raise SampleError(f"samples {path}: sample {name!r}: names that are not allowed are {', '.join(RESERVED)}")
    given = {"name": name, "barcodes": barcodes, "lane": row.get("lane") or None}
    try:
        return Sample.model_validate(given | {"project": row.get("sample_project", "")})
    except ValidationError as error:
        first = error.errors()[0]
        raise SampleError(
            f"samples {path}: sample {name!r}: {first['loc'][0]} {first['input']!r}: {first['msg']}"
        ) from error


def _check_override(path: Path, override: str, samples: Iterable[Sample], info: RunInfo) -> None:
    """Accept it where it says what is done anyway: template reads whole, index reads as long as the barcodes."""
    lengths = {tuple(map(len, sample.barcodes)) for sample in samples}
    for length in lengths:
        left = iter(length)
        expected = [_mask(read.cycles, next(left, 0) if read.index else None) for read in info.reads]
        if [_mask_parts(part) for part in override.split(";")] != [_mask_parts(part) for part in expected]:
            raise SampleError(
                f"sample sheet {path}: OverrideCycles {override} is not supported; barcodes of "
                f"{'+'.join(map(str, filter(None, length)))} bases in this run allow {';'.join(expected)}"
            )


def _mask(cycles: int, compared: int | None) -> str:
    """How one read is taken: a template read (None) whole, an index read up to the end of the barcode."""
    if compared is None:
        return f"Y{cycles}"
    return f"I{compared}N{cycles - compared}"


def _mask_parts(mask: str) -> list[tuple[str, int]] | None:
    """Letters and cycles of a mask, the empty ones left out; None where it is no mask."""
    if not re.fullmatch(r"([YIUN]\d{1,5})+", mask):
        return None
    parts = [(letter, int(cycles)) for letter, cycles in re.findall(r"([YIUN])(\d+)", mask)]
    return [(letter, cycles) for letter, cycles in parts if cycles]


def _second_turned(sample: Sample) -> Sample:
    first, second = sample.barcodes
    return sample.model_copy(update={"barcodes": (first, second.translate(COMPLEMENT)[::-1])})


def _cell(row: list[str], at: int) -> str:
    return row[at] if at < len(row) else ""
