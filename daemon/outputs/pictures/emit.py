"""Emitting forms of a finished run, from its archived images and its output folder.

::

    forms/<form>/L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.<csv|tif>      one file a channel
    forms/<form>/L001/C<cycle>.1/s_<lane>_<tile>.<csv|tif>                merged
    sr/L001/C<cycle>.1/...                                                the super-resolved form

Nothing of the run is changed, and the same forms come out whenever they are asked for.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from seqd_client.runinfo import CHANNELS, RunInfo, TileId

from calib.runfolder.images import read_frames
from daemon.calling.enginechoice import select_configured
from daemon.config import EngineConfig
from daemon.errors import OutputError
from daemon.outputs.pictures.calledimage import CalledImage
from daemon.outputs.pictures.forms import coordinates, marked, probabilities, superresolved
from daemon.record.durable import write_durably
from daemon.record.ledger import Ledger
from daemon.record.runfiles import RunFiles
from daemon.record.templates import load_template
from daemon.record.tilefile import read_cycles
from engines.bundles.bundle import load_bundle
from engines.contract import Engine, Request


class Form(StrEnum):
    """What can be emitted of a called tile-cycle."""

    COORDINATES = "coordinates"
    """Where each called cluster is, its base and its quality, as CSV."""
    PROBABILITIES = "probabilities"
    """The network's probability maps, float32 TIFF."""
    MARKED = "marked"
    """The fluorescence image with the calls marked on it, 8-bit RGB TIFF."""
    SUPERRESOLVED = "superresolved"
    """The network's super-resolved images, float32 TIFF."""


DRAW: dict[Form, Callable[[CalledImage, int | None], bytes]] = {
    Form.COORDINATES: coordinates,
    Form.PROBABILITIES: probabilities,
    Form.MARKED: marked,
    Form.SUPERRESOLVED: superresolved,
}
"""Gives the content of a form's file, of one channel or for None of all."""

OF_NETWORK = frozenset({Form.PROBABILITIES, Form.SUPERRESOLVED})
"""Forms that the network is asked for again; the others are drawn from what was called."""


def emit(
    folder: Path,
    files: RunFiles,
    info: RunInfo,
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
    merged : one file for the four channels, else one for each.
    engine : the network and device that the run was called with.
    progress : told of every tile-cycle emitted.

    Raises
    ------
    RunFolderError : an image of a tile-cycle that was called is missing or damaged.
    OutputError : the run's files are damaged, or a form cannot be written.
    BundleError, EngineError : the network cannot be used.
    """
    with ExitStack() as opened:
        ledger = opened.enter_context(closing(Ledger(files.ledger)))
        images = _called(folder, files, info, ledger)
        if OF_NETWORK.intersection(forms):
            images = _with_maps(
                images,
                opened.enter_context(closing(select_configured(load_bundle(engine.bundle), engine, info).engine)),
                forms,
                engine.timeout_s,
            )
        for image in images:
            for form in forms:
                _write(files, form, image, merged=merged)
            progress()


def form_folder(files: RunFiles, form: Form) -> Path:
    """Where a form's files lie."""
    return files.root / "sr" if form is Form.SUPERRESOLVED else files.root / "forms" / form


def form_path(files: RunFiles, form: Form, tile: TileId, cycle: int, channel: int | None) -> Path:
    """One file of a form; its folders and name are those of the frames."""
    ending = "csv" if form is Form.COORDINATES else "tif"
    of = "" if channel is None else f"_{CHANNELS[channel]}"
    return form_folder(files, form) / f"L{tile.lane:03d}" / f"C{cycle}.1" / f"s_{tile}{of}.{ending}"


def _called(folder: Path, files: RunFiles, info: RunInfo, ledger: Ledger) -> Iterator[CalledImage]:
    shape = (info.height, info.width)
    for tile in info.tiles:
        template = load_template(files.template_of(tile), shape)
        for cycle, drift in ledger.drift(tile).items():
            pixels = read_frames(folder, tile, cycle, shape=shape)
            (calls,) = read_cycles(files.calls_of(tile), range(cycle, cycle + 1))
            yield CalledImage(tile, cycle, pixels, template, drift, calls)


def _with_maps(
    images: Iterable[CalledImage], engine: Engine, forms: Collection[Form], timeout_s: float
) -> Iterator[CalledImage]:
    """The images with what the network shows; while one is written the engine computes the next."""
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
    """Start computing an image; what is returned waits for it."""
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
