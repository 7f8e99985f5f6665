"""``seqd calib reconstruct``."""

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from seqd_client.runinfo import CHANNELS

from calib.offline.cli import UsageError
from calib.offline.simulation.simulatedrun import read_conditions
from calib.offline.structured_illumination.reconstructedrun import Report, reconstruct_run
from calib.offline.structured_illumination.reconstruction import WIENER
from calib.offline.structured_illumination.spectrum import Otf, read_otf
from calib.progressbar import bar
from calib.runfolder.images import SUPERRESOLVED, RunFolderError, read_run_info


def reconstruct(
    folder: Annotated[Path, typer.Argument(help="Run folder with structured frames.")],
    sigma: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            help="Spot width of A, C, G and T: standard deviation, pixels. A simulated run has it in its conditions."
        ),
    ] = None,
    otf: Annotated[
        Path | None, typer.Option(help="Measured transfer function in place of --sigma: CSV, cycles a pixel and value.")
    ] = None,
    wiener: Annotated[
        float,
        typer.Option(min=1e-6, max=1, help="Assumed ratio of noise to signal; a larger value gives a smoother image."),
    ] = WIENER,
    overwrite: Annotated[bool, typer.Option(help="Replace existing super-resolved images.")] = False,
) -> None:
    """Reconstruct structured-illumination frames to super-resolved images, twice as fine."""
    info = read_run_info(folder)
    otfs = _otfs(folder, sigma, otf)
    if (folder / SUPERRESOLVED).exists():
        if not overwrite:
            raise UsageError(f"folder {folder}: holds {SUPERRESOLVED} already; use --overwrite to replace it")
        shutil.rmtree(folder / SUPERRESOLVED)
    with bar() as progress:
        task = progress.add_task("images reconstructed", total=len(info.tiles) * info.cycles * len(CHANNELS))
        report = reconstruct_run(
            folder, otfs, wiener=wiener, progress=lambda done: progress.update(task, completed=done)
        )
    Console().print(_table(report))


def _otfs(
    folder: Path, sigma: tuple[float, float, float, float] | None, path: Path | None
) -> tuple[Otf, Otf, Otf, Otf]:
    if sigma is not None and path is not None:
        raise UsageError("--sigma and --otf: give one of them")
    if path is not None:
        measured = read_otf(path)
        return measured, measured, measured, measured
    if sigma is None:
        try:
            sigma = read_conditions(folder).sigma_px
        except RunFolderError as error:
            raise UsageError(f"run folder {folder}: not a simulated one; give --sigma or --otf") from error
    if min(sigma) <= 0:
        raise UsageError(f"--sigma {min(sigma):g}: must be above 0")
    a, c, g, t = (Otf.gaussian(one) for one in sigma)
    return a, c, g, t


def _table(report: Report) -> Table:
    table = Table("channel", title=f"run {report.run}", title_justify="left")
    for column in ("images", "refused", "period, px", "modulation"):
        table.add_column(column, justify="right")
    for channel in CHANNELS:
        images = [image for image in report.images if image.channel == channel]
        fitted = [stripes for image in images for stripes in image.stripes]
        row = [channel, str(len(images)), str(sum(image.refused is not None for image in images))]
        if fitted:
            row.append(f"{np.median([one.period_px for one in fitted]):.3f}")
            row.append(f"{np.median([one.modulation for one in fitted]):.2f}")
        table.add_row(*row)
    return table
