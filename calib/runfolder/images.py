"""The run folder of archived images: ``RunInfo.xml`` and one TIFF a frame.

::

    RunInfo.xml
    Images/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif      uint16
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import ClassVar

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import ValidationError
from seqd_client.errors import SeqdError, validation_text
from seqd_client.runinfo import CHANNELS, Read, RunInfo, TileId

from calib.runfolder.tilenumbers import Naming, layout_of

RUN_INFO = "RunInfo.xml"
STRUCTURED, SUPERRESOLVED, LABELS, TRUTH = "Structured", "Superresolved", "Labels", "Truth"
"""Folders beside ``Images``: frames under structured illumination, images reconstructed from them, training labels, and
the truth of a simulated run."""


class RunFolderError(SeqdError):
    """A run folder is missing, incomplete or not of the documented layout."""

    exit_code: ClassVar[int] = 3


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


def check_images(root: Path, info: RunInfo) -> None:
    """Check the first image, so that no run starts with a wrong folder.

    Raises
    ------
    RunFolderError : cycle 1 has no image, or its first one is not of the size that ``RunInfo.xml`` says.
    """
    first = [image_path(root, tile, 1, channel) for tile in info.tiles for channel in CHANNELS]
    present = next((path for path in first if path.exists()), None)
    if present is None:
        raise RunFolderError(f"run folder {root}: no image of cycle 1, expected {first[0].relative_to(root)}")
    height, width = read_image(present).shape
    if (height, width) != (info.height, info.width):
        raise RunFolderError(f"image {present}: {height}×{width} px, RunInfo.xml declares {info.height}×{info.width}")


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
    RunFolderError : the file is missing or is not XML, or its entries are incomplete or contradict each other.
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
        raise RunFolderError(f"{path}: {validation_text(error, whole='run')}") from error
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
    """Height and width from ``RunInfo.xml`` or, if they are missing there, from the first image of cycle 1."""
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
