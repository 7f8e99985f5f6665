"""Writing forms of a finished run, from its archived images and its output folder.

::

    forms/<form>/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.<csv|tif>      one file a channel
    forms/<form>/L001/C<cycle>.1/s_<lane>_<tile>.<csv|tif>                merged
    sr/L001/C<cycle>.1/...                                                the super-resolved form

The run is not changed, and the same run always gives the same forms.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from seqd_client.runinfo import CHANNELS, TileId

from calib.runfolder.images import read_frames
from daemon.calling.enginechoice import select_configured
from daemon.config import EngineConfig
from daemon.errors import OutputError
from daemon.outputs.pictures.calledimage import CalledImage
from daemon.outputs.pictures.forms import coordinates, marked_image, probabilities, superresolved
from daemon.record.committed import CommittedRun
from daemon.record.durable import write_durably
from daemon.record.runfiles import RunFiles
from daemon.record.templates import load_template
from engines.bundles.bundle import load_bundle
from engines.contract import Engine, Request


class Form(StrEnum):
    """A kind of file that shows a called tile-cycle as a picture or table; see ``docs/reference/forms.md``."""

    COORDINATES = "coordinates"
    """Position, base and quality of each called cluster, as CSV."""
    PROBABILITIES = "probabilities"
    """The network's probability maps, float32 TIFF."""
    MARKED = "marked"
    """The fluorescence image with the calls marked on it, 8-bit RGB TIFF."""
    SUPERRESOLVED = "superresolved"
    """The network's super-resolved images, float32 TIFF."""


DRAW: dict[Form, Callable[[CalledImage, int | None], bytes]] = {
    Form.COORDINATES: coordinates,
    Form.PROBABILITIES: probabilities,
    Form.MARKED: marked_image,
    Form.SUPERRESOLVED: superresolved,
}
"""Function that makes the content of a form's file, for one channel, or for all four where the channel is None."""

NETWORK_FORMS = frozenset({Form.PROBABILITIES, Form.SUPERRESOLVED})
"""Forms for which the network computes the images again; the others need the calls only."""


def emit(
    folder: Path,
    run: CommittedRun,
    *,
    forms: Collection[Form],
    merged: bool,
    engine: EngineConfig,
    progress: Callable[[], None],
) -> None:
    """Write forms of every tile-cycle that was called, each file whole or not at all.

    Parameters
    ----------
    folder : run folder with the archived images.
    merged : write one file for the four channels, else one for each.
    engine : the network and device that the run was called with.
    progress : called after each tile-cycle.

    Raises
    ------
    RunFolderError : an image of a tile-cycle that was called is missing or damaged.
    OutputError : the run's files are damaged, or a form cannot be written.
    BundleError, EngineError : the network cannot be used.
    """
    images = _called(folder, run)
    opened = None
    if NETWORK_FORMS.intersection(forms):
        opened = select_configured(load_bundle(engine.bundle), engine, run.info).engine
        images = _with_maps(images, opened, forms, engine.timeout_s)
    with nullcontext() if opened is None else closing(opened):
        for image in images:
            for form in forms:
                _write(run.files, form, image, merged=merged)
            progress()


def form_folder(files: RunFiles, form: Form) -> Path:
    """Folder of a form's files."""
    return files.root / "sr" if form is Form.SUPERRESOLVED else files.root / "forms" / form


def form_path(files: RunFiles, form: Form, tile: TileId, cycle: int, channel: int | None) -> Path:
    """One file of a form; below the form's folder, folders and names are as those of the frames."""
    ending = "csv" if form is Form.COORDINATES else "tif"
    of = "" if channel is None else f"_{CHANNELS[channel]}"
    return form_folder(files, form) / f"L{tile.lane:03d}" / f"C{cycle}.1" / f"s_{tile}{of}.{ending}"


def _called(folder: Path, run: CommittedRun) -> Iterator[CalledImage]:
    shape = (run.info.height, run.info.width)
    for tile in run.info.tiles:
        template = load_template(run.files.template_of(tile), shape)
        for cycle, drift in run.ledger.drift(tile).items():
            pixels = read_frames(folder, tile, cycle, shape=shape)
            yield CalledImage(tile, cycle, pixels, template, drift, run.calls(tile, cycle))


def _with_maps(
    images: Iterable[CalledImage], engine: Engine, forms: Collection[Form], timeout_s: float
) -> Iterator[CalledImage]:
    """The images with the network's maps. While the files of one are written, the engine computes the next ones."""
    in_flight: deque[Callable[[], CalledImage]] = deque()
    for image in images:
        if len(in_flight) == engine.info.slots:
            yield in_flight.popleft()()
        in_flight.append(_submitted(image, engine, forms, timeout_s))
    while in_flight:
        yield in_flight.popleft()()


def _submitted(
    image: CalledImage, engine: Engine, forms: Collection[Form], timeout_s: float
) -> Callable[[], CalledImage]:
    """Start computing an image; the returned function waits for the result."""
    slot = engine.lease(timeout_s)
    slot.pixels[...] = image.pixels
    normalisation = image.template.normalisation
    request = Request(
        normalisation.offset,
        normalisation.gain,
        probabilities=Form.PROBABILITIES in forms,
        superresolved=Form.SUPERRESOLVED in forms,
    )
    engine.submit(slot, request)
    return lambda: replace(image, maps=engine.collect(slot, timeout_s))


def _write(files: RunFiles, form: Form, image: CalledImage, *, merged: bool) -> None:
    for channel in (None,) if merged else range(len(CHANNELS)):
        path = form_path(files, form, image.tile, image.cycle, channel)
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            write_durably(path, DRAW[form](image, channel))
        except OSError as error:
            raise OutputError(f"form {path}: {error.strerror or error}") from error
