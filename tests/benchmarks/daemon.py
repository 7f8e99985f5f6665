"""The share of the time of ``seqd call`` that each part of the work takes.

``make bench`` prints the table. The run is simulated, as long as 2 × 75 cycles.
"""

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

SEQD = (sys.executable, "-m", "daemon.cli")
RUN, SIZE, TILES, CYCLES, DENSITY_K_MM2 = "BENCH", 512, 1, 150, 120


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="seqd-") as scratch:
        images, output = Path(scratch) / "images", Path(scratch) / "runs"
        simulated = ["--run", RUN, "--tiles", TILES, "--cycles", CYCLES, "--size", SIZE, "--density", DENSITY_K_MM2]
        _seqd("calib", "simulate", images, *simulated)
        began = time.time()
        _seqd("call", images, "--output", output)
        wall = time.time() - began
        events = [json.loads(line) for line in (output / RUN / "daemon.log").read_text().splitlines()]
    _show(events, began, wall)


def _seqd(*arguments: object) -> None:
    subprocess.run([*SEQD, *map(str, arguments)], check=True, capture_output=True)


def _show(events: list[dict[str, Any]], began: float, wall: float) -> None:
    (engine,) = (event for event in events if event["event"] == "engine")
    (ended,) = (event for event in events if event["event"] == "run ended")
    templates = [event for event in events if event["event"] == "template"]
    opened, done = (datetime.fromisoformat(event["timestamp"]).timestamp() for event in (engine, ended))
    making = sum(event["seconds"] - event["engine_s"] for event in templates)
    busy = ended["engine_busy"] * (done - opened)
    title = f"seqd call, {SIZE}² px, {TILES} tile, {CYCLES} cycles, {DENSITY_K_MM2} K/mm², {engine['backend']} "
    table = Table("", "s", "% of the wall time", title=title + f"{engine['precision']} on {engine['device']}")
    rows = {
        "processes start, engine opens and answers the golden tile": opened - began,
        "engine computing": busy,
        "templates, without the engine's time": making,
        "between tiles: registration, fit, calls, files": done - opened - busy - making,
        "processes end": began + wall - done,
        "seqd call": wall,
    }
    for name, seconds in rows.items():
        table.add_row(name, f"{seconds:.1f}", f"{100 * seconds / wall:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
