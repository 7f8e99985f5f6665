"""The run folder of archived images: ``RunInfo.xml`` and one TIFF a frame.

::

    RunInfo.xml
    Images/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif      uint16
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calib.flowcell import Naming, layout_of
from engines.architecture import CHANNELS
from engines.errors import SeqdError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
"""A name that is safe as a file name: run, flow cell, instrument."""

Lane = Annotated[int, Field(ge=1, le=64)]
Tile = Annotated[int, Field(ge=1, le=999_999)]
MOST_CYCLES, MOST_READS = 5000, 16
Cycle = Annotated[int, Field(ge=1, le=MOST_CYCLES)]
Pixels = Annotated[int, Field(ge=8, le=16384)]

RUN_INFO = "RunInfo.xml"


class RunFolderError(SeqdError):
    """A run folder is missing, incomplete or not of the documented layout."""

    exit_code: ClassVar[int] = 3


class Read(BaseModel):
    """Consecutive cycles of one read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: Annotated[int, Field(ge=1, le=MOST_READS)]
    cycles: Cycle
    index: bool = False
    """Whether it reads the sample index."""


def parse_reads(structure: str) -> tuple[Read, ...]:
    """Reads as Picard writes their structure: cycles and T for a read of the template or B for an index, 151T8B8B151T.

    Raises
    ------
    ValueError : it is not of this form, or has a read of no cycles or more than a run may have.
    """
    parts = re.findall(r"([0-9]{1,4})([TB])", structure)
    if "".join(cycles + kind for cycles, kind in parts) != structure or not parts:
        raise ValueError(f"read structure {structure!r}: not cycles and T or B for each read, such as 151T8B8B151T")
    if len(parts) > MOST_READS or not all(1 <= int(cycles) <= MOST_CYCLES for cycles, _ in parts):
        raise ValueError(f"read structure {structure!r}: not 1 to {MOST_READS} reads of 1 to {MOST_CYCLES} cycles")
    return tuple(
        Read(number=number, cycles=int(each), index=kind == "B") for number, (each, kind) in enumerate(parts, 1)
    )


class TileId(BaseModel):
    """One tile of the flow cell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lane: Lane
    tile: Tile

    def __str__(self) -> str:
        return f"{self.lane}_{self.tile}"


class RunInfo(BaseModel):
    """What is known of a run before its first frame."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Name
    number: Annotated[int, Field(ge=0, le=10**9)] = 1
    flowcell: Name
    instrument: Name
    date: Annotated[str, Field(pattern=r"^[0-9A-Za-z :/.+-]{0,40}$")] = ""
    reads: Annotated[tuple[Read, ...], Field(min_length=1, max_length=MOST_READS)]
    tiles: Annotated[tuple[TileId, ...], Field(min_length=1, max_length=100_000)]
    height: Pixels
    width: Pixels
    pixel_um: Annotated[float, Field(gt=0, le=100)] | None = None
    """Edge of a pixel on the flow cell; cluster densities are not known without it."""

    @model_validator(mode="after")
    def _unique(self) -> "RunInfo":
        if len(set(self.tiles)) != len(self.tiles):
            raise ValueError("a tile is listed twice")
        if len({read.number for read in self.reads}) != len(self.reads):
            raise ValueError("a read number is used twice")
        if self.cycles > MOST_CYCLES:
            raise ValueError(f"{self.cycles} cycles, at most {MOST_CYCLES} are allowed")
        return self

    def label(self, read: Read) -> str:
        """``R1``, ``R2``, ... of reads of the template, ``I1``, ``I2``, ... of index reads, each counted for itself."""
        alike = [other for other in self.reads if other.index == read.index]
        return f"{'I' if read.index else 'R'}{1 + alike.index(read)}"

    @property
    def cycles(self) -> int:
        """Cycles of all reads."""
        return sum(read.cycles for read in self.reads)

    def cycles_of(self, read: Read) -> range:
        """1-based cycles of a read."""
        before = self.reads[: self.reads.index(read)]
        first = 1 + sum(earlier.cycles for earlier in before)
        return range(first, first + read.cycles)


def image_path(root: Path, tile: TileId, cycle: int, channel: str) -> Path:
    """Where a frame is archived."""
    return root / "Images" / f"L{tile.lane:03d}" / f"C{cycle}.1" / f"s_{tile}_{channel}.tif"


def read_image(path: Path) -> NDArray[np.uint16]:
    """One archived frame, (H, W).

    Raises
    ------
    RunFolderError : it cannot be read or is not a two-dimensional uint16 image.
    """
    try:
        image = tifffile.imread(path)
    except OSError as error:
        raise RunFolderError(f"image {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes the reader raise anything
        raise RunFolderError(f"image {path}: not a readable TIFF: {error}") from error
    if image.ndim != 2 or image.dtype != np.uint16:
        raise RunFolderError(f"image {path}: {image.ndim}-dimensional {image.dtype}, a frame is 2-dimensional uint16")
    return np.asarray(image)


def read_frames(root: Path, tile: TileId, cycle: int, *, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Frames (4, H, W) of a tile in a 1-based cycle.

    Parameters
    ----------
    shape : (H, W) that the run declares.

    Raises
    ------
    RunFolderError : a frame is missing, damaged or of another size.
    """
    frames = []
    for channel in CHANNELS:
        path = image_path(root, tile, cycle, channel)
        frame = read_image(path)
        if frame.shape != shape:
            raise RunFolderError(
                f"image {path}: {frame.shape[0]}×{frame.shape[1]} px, the run declares {shape[0]}×{shape[1]}"
            )
        frames.append(frame)
    return np.stack(frames)


def read_run_info(root: Path) -> RunInfo:
    """Read ``RunInfo.xml``.

    Raises
    ------
    RunFolderError : the file is missing, not XML, or lacks or contradicts what a run needs.
    """
    path = root / RUN_INFO
    try:
        document = ElementTree.parse(path).getroot()
    except OSError as error:
        raise RunFolderError(f"run folder {root}: cannot read {RUN_INFO}: {error.strerror}") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise RunFolderError(f"{path}: not XML: {error}") from error
    try:
        return _parsed(document, root)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunFolderError(f"{path}: {place or 'run'}: {first['msg']}") from error
    except (KeyError, ValueError) as error:
        raise RunFolderError(f"{path}: {error}") from error


def run_info_xml(info: RunInfo) -> bytes:
    """Content of ``RunInfo.xml`` (version 2, as Illumina's software reads it)."""
    document = ElementTree.Element("RunInfo", Version="2")
    run = ElementTree.SubElement(document, "Run", Id=info.run, Number=str(info.number))
    for tag, text in (("Flowcell", info.flowcell), ("Instrument", info.instrument), ("Date", info.date)):
        ElementTree.SubElement(run, tag).text = text
    reads = ElementTree.SubElement(run, "Reads")
    for read in info.reads:
        ElementTree.SubElement(
            reads,
            "Read",
            Number=str(read.number),
            NumCycles=str(read.cycles),
            IsIndexedRead="Y" if read.index else "N",
        )
    layout = layout_of(info.tiles)
    flowcell = ElementTree.SubElement(
        run,
        "FlowcellLayout",
        LaneCount=str(layout.lanes),
        SurfaceCount=str(layout.surfaces),
        SwathCount=str(layout.swaths),
        TileCount=str(layout.tiles),
    )
    if layout.naming is Naming.FIVE_DIGIT:
        flowcell.attrib |= {"SectionPerLane": str(layout.sections), "LanePerSection": "1"}
    tile_set = ElementTree.SubElement(flowcell, "TileSet", TileNamingConvention=layout.naming)
    tiles = ElementTree.SubElement(tile_set, "Tiles")
    for tile in info.tiles:
        ElementTree.SubElement(tiles, "Tile").text = str(tile)
    dimensions = ElementTree.SubElement(run, "ImageDimensions", Width=str(info.width), Height=str(info.height))
    if info.pixel_um is not None:
        dimensions.set("PixelSizeUm", f"{info.pixel_um:g}")
    channels = ElementTree.SubElement(run, "ImageChannels")
    for channel in CHANNELS:
        ElementTree.SubElement(channels, "Name").text = channel
    ElementTree.indent(document)
    return bytes(ElementTree.tostring(document, encoding="utf-8", xml_declaration=True))


def _parsed(document: ElementTree.Element, root: Path) -> RunInfo:
    run = _required(document, "Run")
    tiles = tuple(_tile(tile.text or "") for tile in run.iterfind("FlowcellLayout/TileSet/Tiles/Tile"))
    height, width = _dimensions(run, root)
    pixel_um = run.find("ImageDimensions[@PixelSizeUm]")
    return RunInfo(
        run=run.get("Id", ""),
        number=int(run.get("Number", "1")),
        flowcell=run.findtext("Flowcell") or run.get("Id", ""),
        instrument=run.findtext("Instrument") or "unknown",
        date=run.findtext("Date", ""),
        reads=tuple(
            Read(
                number=int(read.get("Number", "0")),
                cycles=int(read.get("NumCycles", "0")),
                index=read.get("IsIndexedRead", "N") == "Y",
            )
            for read in run.iterfind("Reads/Read")
        ),
        tiles=tiles,
        height=height,
        width=width,
        pixel_um=None if pixel_um is None else float(pixel_um.get("PixelSizeUm", "")),
    )


def _dimensions(run: ElementTree.Element, root: Path) -> tuple[int, int]:
    """Height and width as declared, or as the first image that is there has them."""
    declared = run.find("ImageDimensions")
    if declared is not None:
        return int(declared.get("Height", "0")), int(declared.get("Width", "0"))
    for path in sorted(root.glob("Images/L*/C1.1/s_*.tif")):
        height, width = read_image(path).shape
        return height, width
    raise ValueError("<ImageDimensions> is missing and there are no images of cycle 1")


def _required(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = element.find(tag)
    if found is None:
        raise ValueError(f"<{tag}> is missing in <{element.tag}>")
    return found


def _tile(text: str) -> TileId:
    lane, separator, tile = text.strip().partition("_")
    if not separator or not lane.isdigit() or not tile.isdigit():
        raise ValueError(f"tile {text!r} is not <lane>_<tile>")
    return TileId(lane=int(lane), tile=int(tile))
