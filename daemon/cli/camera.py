"""``seqd camera``: the simulated imaging controller."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calib.runfolder import read_run_info
from daemon.camera.controller import Controller, Pace, check_archive
from daemon.camera.faults import parse_faults
from daemon.cli.progress import bar
from daemon.config import ControllerConfig


def camera(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with archived images.")],
    frames: Annotated[str, typer.Option(help="Address to publish frames on.")] = ControllerConfig().frames,
    recovery: Annotated[str, typer.Option(help="Address to answer on.")] = ControllerConfig().recovery,
    tile_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds between tile images; 0 is as fast as the daemon takes them.")
    ] = 0.0,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a daemon.")] = 60.0,
    linger: Annotated[float, typer.Option(min=0, help="Seconds to stay after the run without hearing from it.")] = 60.0,
    keep_cycles: Annotated[int, typer.Option(min=1, help="Cycles that frames can be sent again from.")] = 5000,
    faults: Annotated[
        str, typer.Option(help="Faults by share of frames: drop, duplicate, reorder, corrupt, as in drop=0.05,seed=3.")
    ] = "",
) -> None:
    """Replay archived images as an imaging controller would send them."""
    info = read_run_info(folder)
    check_archive(folder, info)
    pace = Pace(tile_s=tile_seconds, wait_s=wait, linger_s=linger)
    options = {"frames": frames, "recovery": recovery, "pace": pace, "keep_cycles": keep_cycles}
    with (
        Controller(folder, info, faults=parse_faults(faults), **options) as controller,  # type: ignore[arg-type]
        bar(Console(stderr=True)) as progress,
    ):
        task = progress.add_task("tile images sent", total=info.cycles * len(info.tiles))
        controller.run(lambda sent: progress.update(task, completed=sent))
