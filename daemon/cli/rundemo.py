"""``seqd demo``: simulate a run, call it, and compare the calls with the simulated sequences."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.callrun import ChildError


def demo(
    output: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("demo"),
    tiles: Annotated[int, typer.Option(min=1, max=96, help="Tiles to simulate.")] = 2,
    cycles: Annotated[int, typer.Option(min=1, max=500, help="Cycles to simulate.")] = 30,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Edge of a tile, pixels.")] = 256,
    density: Annotated[float, typer.Option(min=0, max=1000, help="Clusters, thousands per square millimetre.")] = 120,
) -> None:
    """Simulate a small run, call it with the real daemon, and compare the calls with the simulated sequences."""
    images, runs = output / "images", output / "runs"
    simulate = ["calib", "simulate", str(images), "--run", "DEMO", "--tiles", str(tiles), "--cycles", str(cycles)]
    _step([*simulate, "--size", str(size), "--density", str(density), "--overwrite"])
    # Without this, the daemon would continue the run of an earlier demo.
    shutil.rmtree(runs / "DEMO", ignore_errors=True)
    _step(["call", str(images), "--output", str(runs)])
    _step(["calib", "evaluate", str(images), str(runs / "DEMO" / "fastq")])


def _step(arguments: list[str]) -> None:
    typer.echo(f"\n$ seqd {' '.join(arguments)}")
    done = subprocess.run([sys.executable, "-m", "daemon.cli", *arguments], check=False)
    if done.returncode:
        raise ChildError(f"demo: `seqd {arguments[0]}` ended with exit code {done.returncode}", done.returncode)
