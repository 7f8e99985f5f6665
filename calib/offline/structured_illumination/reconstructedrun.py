"""Reconstructing the structured frames of a run folder.

::

    Structured/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif       read: 9 pages, three phases of each orientation
    Superresolved/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif    written: 2H × 2W, float32
    Superresolved/report.json                                      written: the fitted stripes, and what was refused
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from seqd_client.runinfo import CHANNELS, RunInfo, TileId

from calib.offline.simulation.simulatedrun import structured_path
from calib.offline.structured_illumination.pattern import ORIENTATIONS, PHASES, Stripes
from calib.offline.structured_illumination.reconstruction import reconstruct
from calib.offline.structured_illumination.spectrum import Otf, ReconstructionError
from calib.runfolder.images import SUPERRESOLVED, RunFolderError, image_path, read_run_info

REPORT = "report.json"


class StripesReport(BaseModel):
    """Fitted stripes of one orientation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period_px: float
    """Camera pixels."""
    angle_deg: float
    """Direction across the stripes, from x to y."""
    phases_rad: tuple[float, float, float]
    """At the centre of the frame's first pixel."""
    modulation: float

    @classmethod
    def from_stripes(cls, stripes: Stripes) -> "StripesReport":
        """Report of a fit."""
        a, b, c = stripes.phases.tolist()
        return cls(
            period_px=1 / stripes.frequency,
            angle_deg=stripes.angle_deg,
            phases_rad=(a, b, c),
            modulation=stripes.modulation,
        )


class ImageReport(BaseModel):
    """Result for one tile, cycle and channel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tile: str
    cycle: int
    channel: str
    stripes: tuple[StripesReport, ...] = ()
    """Stripes of each orientation; empty if the image was refused."""
    refused: str | None = None
    """Reason why there is no image; None if there is one."""


class Report(BaseModel):
    """A run's reconstruction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    wiener: float
    images: tuple[ImageReport, ...]


def superresolved_path(root: Path, tile: TileId, cycle: int, channel: str) -> Path:
    """Where a super-resolved image lies, (2H, 2W) float32."""
    return root / SUPERRESOLVED / image_path(root, tile, cycle, channel).relative_to(root / "Images")


def read_structured(path: Path, info: RunInfo) -> NDArray[np.uint16]:
    """The nine frames of one tile, cycle and channel, (9, H, W).

    Raises
    ------
    RunFolderError : they cannot be read, or are not what the run declares.
    """
    try:
        frames = tifffile.imread(path)
    except OSError as error:
        raise RunFolderError(f"frames {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes the reader raise anything
        raise RunFolderError(f"frames {path}: not a readable TIFF: {error}") from error
    declared = (ORIENTATIONS * PHASES, info.height, info.width)
    if frames.shape != declared or frames.dtype != np.uint16:
        shown = " × ".join(map(str, frames.shape))
        raise RunFolderError(f"frames {path}: {shown} {frames.dtype}, must be {' × '.join(map(str, declared))} uint16")
    return np.asarray(frames)


def reconstruct_run(
    root: Path, otfs: tuple[Otf, Otf, Otf, Otf], *, wiener: float, progress: Callable[[int], None]
) -> Report:
    """Reconstruct every structured image of a run; images that cannot be reconstructed are reported and left out.

    Parameters
    ----------
    otfs : one for each channel, A, C, G, T.
    wiener : noise over signal, see :func:`reconstruct`.
    progress : called with the number of images that are done.

    Raises
    ------
    RunFolderError : frames are missing or damaged.
    ReconstructionError : every image was refused.
    """
    info = read_run_info(root)
    images: list[ImageReport] = []
    for tile in info.tiles:
        for cycle in range(1, info.cycles + 1):
            for channel, otf in zip(CHANNELS, otfs, strict=True):
                frames = read_structured(structured_path(root, tile, cycle, channel), info)
                try:
                    done = reconstruct(frames, otf, wiener=wiener)
                except ReconstructionError as error:
                    refused = ImageReport(tile=str(tile), cycle=cycle, channel=channel, refused=str(error))
                    images.append(refused)
                else:
                    stripes = tuple(StripesReport.from_stripes(one) for one in done.stripes)
                    images.append(ImageReport(tile=str(tile), cycle=cycle, channel=channel, stripes=stripes))
                    path = superresolved_path(root, tile, cycle, channel)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    tifffile.imwrite(path, done.image)
                progress(len(images))
    report = Report(run=info.run, wiener=wiener, images=tuple(images))
    (root / SUPERRESOLVED).mkdir(exist_ok=True)
    (root / SUPERRESOLVED / REPORT).write_text(report.model_dump_json(indent=2), "utf-8")
    if all(image.refused for image in images):
        raise ReconstructionError(f"run {info.run}: none of {len(images)} images fits; the first: {images[0].refused}")
    return report
