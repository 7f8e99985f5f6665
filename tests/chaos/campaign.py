"""Carrying out many cases, some at a time, and what they come to by kind."""

import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich import box
from rich.table import Table

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from tests.chaos.carry import Outcome, Setting, carry, undisturbed
from tests.chaos.checks import Wrong
from tests.chaos.plan import Case
from tests.chaos.shim import build

SIZE, DENSITY_K_MM2, TILES, CYCLES = 48, 150, 2, 6


def prepare(folder: Path) -> Setting:
    """Simulate the images and compile the shim, below ``folder``."""
    images = folder / "images"
    images.mkdir()
    conditions = Conditions(density_k_mm2=DENSITY_K_MM2)
    write_simulated_run(
        images,
        conditions,
        run="CHAOS",
        tiles=TILES,
        cycles=CYCLES,
        shape=(SIZE, SIZE),
        seed=1,
        progress=lambda done: None,
    )
    return Setting(folder, images, build(folder))


def carry_all(
    cases: Iterable[Case], setting: Setting, *, jobs: int, minutes: float, show: Callable[[Outcome], None]
) -> list[Outcome]:
    """Carry out cases until all are done or the time is over; ``show`` gets each one's outcome.

    Folders of cases that nothing is wrong with are removed.
    """
    reference = undisturbed(setting)
    deadline_s = time.monotonic() + 60 * minutes

    def carried(case: Case) -> Outcome | None:
        if time.monotonic() > deadline_s:
            return None
        outcome = carry(case, setting, reference)
        if not outcome.found:
            shutil.rmtree(setting.folder / case.name)
        show(outcome)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        return [outcome for outcome in pool.map(carried, cases) if outcome is not None]


def table(outcomes: list[Outcome]) -> Table:
    """What the cases came to, a row a kind and one for all."""
    columns = ("runs", "restarts", "finished", "typed failures", "missing tile-cycles", *Wrong)
    shown = Table("kind", *columns, box=box.MARKDOWN)
    for kind in dict.fromkeys(outcome.case.kind for outcome in outcomes):
        shown.add_row(kind, *map(str, _totals([outcome for outcome in outcomes if outcome.case.kind is kind])))
    shown.add_row("all", *map(str, _totals(outcomes)))
    return shown


def _totals(outcomes: list[Outcome]) -> list[int]:
    found = [finding.wrong for outcome in outcomes for finding in outcome.found]
    return [
        len(outcomes),
        sum(outcome.starts - 1 for outcome in outcomes),
        sum(outcome.finished for outcome in outcomes),
        sum(outcome.typed for outcome in outcomes),
        sum(outcome.missing for outcome in outcomes),
        *(found.count(wrong) for wrong in Wrong),
    ]
