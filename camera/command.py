"""``seqd camera``: the simulated imaging controller."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from seqd_client.errors import KeysError
from seqd_client.keys import load_server_keys
from seqd_client.sockets import FRAMES, RECOVERY

from calib.progressbar import bar
from calib.runfolder.images import check_images, read_run_info
from camera.faults import FAULTS_HELP, parse_faults
from camera.simulatedcontroller import Pace, SimulatedController


def camera(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with archived images.")],
    frames: Annotated[str, typer.Option(help="Address to publish frames on.")] = FRAMES,
    recovery: Annotated[str, typer.Option(help="Address to answer on.")] = RECOVERY,
    tile_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds between tile images; 0 is as fast as the daemon takes them.")
    ] = 0.0,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a daemon.")] = 60.0,
    linger: Annotated[
        float, typer.Option(min=0, help="Seconds to wait after the run while the daemon is silent.")
    ] = 60.0,
    certificate: Annotated[
        Path | None, typer.Option(help="The controller's certificate, NAME.key_secret; for tcp://.")
    ] = None,
    daemons: Annotated[
        Path | None, typer.Option(help="Folder of the public keys of the allowed daemons; for tcp://.")
    ] = None,
    faults: Annotated[str, typer.Option(help=FAULTS_HELP)] = "",
) -> None:
    """Replay archived images as an imaging controller would send them."""
    asked = parse_faults(faults)
    if (certificate is None) != (daemons is None):
        raise KeysError("keys: both --certificate and --daemons are needed")
    keys = load_server_keys(certificate, "daemons", daemons) if certificate and daemons else None
    info = read_run_info(folder)
    check_images(folder, info)
    pace = Pace(tile_s=tile_seconds, wait_s=wait, linger_s=linger)
    with (
        SimulatedController(
            folder, info, frames=frames, recovery=recovery, pace=pace, faults=asked, keys=keys
        ) as controller,
        bar(Console(stderr=True)) as progress,
    ):
        task = progress.add_task("tile images taken", total=info.cycles * len(info.tiles))
        controller.run(lambda taken: progress.update(task, completed=taken))
