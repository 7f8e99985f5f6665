"""``seqd calib simulate``."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from seqd_client.errors import validation_text
from seqd_client.runinfo import Read, parse_reads

from calib.fasta import read_fasta
from calib.offline.cli import UsageError
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.illumination import carrier_frequencies
from calib.offline.simulation.simulatedreads import check_reads
from calib.offline.simulation.simulatedrun import simulated_run_info, write_simulated_run
from calib.progressbar import bar
from calib.runfolder.images import LABELS, RUN_INFO, STRUCTURED, SUPERRESOLVED, TRUTH, RunFolderError


def simulate(
    folder: Annotated[Path, typer.Argument(help="Run folder to write.")],
    run: Annotated[str, typer.Option(help="Name of the run.")] = "SIM",
    tiles: Annotated[int, typer.Option(min=1, max=96)] = 1,
    cycles: Annotated[int | None, typer.Option(min=1, max=1000, help="Cycles of the only read, 30 by default.")] = None,
    reads: Annotated[
        str | None,
        typer.Option(
            help="Reads in place of --cycles, as 151T8B8B151T: T is a read of the template, B one of an index."
        ),
    ] = None,
    barcode: Annotated[
        list[str] | None, typer.Option(help="Bases of a sample in all index reads, I1 then I2; may be repeated.")
    ] = None,
    size: Annotated[int, typer.Option(min=32, max=8192, help="Edge of a tile, pixels.")] = 256,
    density: Annotated[
        float | None, typer.Option(min=0, max=3000, help="Clusters, thousands a square millimetre.")
    ] = None,
    conditions: Annotated[
        Path | None, typer.Option(help="JSON with any of the physical conditions; --density overrides it.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="FASTA to cut reads from; by default a sequence of random bases.")
    ] = None,
    structured: Annotated[
        bool, typer.Option(help="Write frames under structured illumination too: 3 orientations × 3 phases.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing run folder.")] = False,
) -> None:
    """Simulate a run: images in the documented layout, and the truth beside them."""
    physics = _conditions(conditions, density)
    genome = read_fasta(reference) if reference else None
    parts = _reads(reads, cycles)
    barcodes = tuple(barcode or ())
    # All checks are made before an existing run is removed.
    check_reads(parts, barcodes)
    try:
        cycles = simulated_run_info(physics, run=run, tiles=tiles, reads=parts, shape=(size, size)).cycles
    except ValidationError as error:
        raise UsageError(f"run {run}: {validation_text(error)}") from error
    if structured:
        carrier_frequencies(physics.pattern, pixel_um=physics.pixel_um)
    if (folder / RUN_INFO).exists():
        if not overwrite:
            raise UsageError(f"folder {folder}: holds a run already; use --overwrite to replace it")
        for part in ("Images", STRUCTURED, SUPERRESOLVED, LABELS, TRUTH):
            shutil.rmtree(folder / part, ignore_errors=True)
    with bar() as progress:
        task = progress.add_task("tile-cycles simulated", total=tiles * cycles)
        write_simulated_run(
            folder,
            physics,
            run=run,
            tiles=tiles,
            cycles=parts,
            shape=(size, size),
            seed=seed,
            progress=lambda done: progress.update(task, completed=done),
            reference=genome,
            barcodes=barcodes,
            structured=structured,
        )
    density = physics.density_px2 / physics.pixel_um**2 * 1000
    typer.echo(f"{folder}: {tiles} tiles × {cycles} cycles, {density:g} K clusters/mm²")


def _reads(structure: str | None, cycles: int | None) -> tuple[Read, ...]:
    if structure is None:
        return (Read(number=1, cycles=30 if cycles is None else cycles),)
    if cycles is not None:
        raise UsageError(f"--cycles {cycles}: --reads {structure} sets the cycles; leave one of them out")
    try:
        return parse_reads(structure)
    except ValueError as error:
        raise UsageError(f"--reads: {error}") from error


def _conditions(path: Path | None, density: float | None) -> Conditions:
    try:
        physics = Conditions.model_validate_json(path.read_bytes()) if path else Conditions()
    except OSError as error:
        raise RunFolderError(f"conditions {path}: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(f"conditions {path}: {validation_text(error)}") from error
    if density is not None and physics.grid is not None:
        raise UsageError(f"--density {density:g}: the grid of {path} sets the density; leave one of them out")
    return physics if density is None else physics.model_copy(update={"density_k_mm2": density})
