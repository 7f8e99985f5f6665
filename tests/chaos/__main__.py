"""``python -m tests.chaos``: the campaign, its failing cases as they come, and its table."""

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.chaos.campaign import carry_all, prepare, table
from tests.chaos.carry import Outcome
from tests.chaos.plan import Kind, case, plan
from tests.chaos.smalldisk import NAMESPACE, may_mount

INSIDE = "CHAOS_INSIDE"
"""Set when this process may mount."""
WIDTH = 160


def main() -> int:
    """Run the campaign; 0 when nothing was wrong."""
    options = _options()
    if INSIDE not in os.environ and may_mount():
        arguments = [*NAMESPACE, sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
        os.execvpe(arguments[0], arguments, os.environ | {INSIDE: "1"})
    cases = [options.case] if options.case else plan(options.seed, options.runs)
    console = Console(width=WIDTH, soft_wrap=True, highlight=False, markup=False)
    if INSIDE not in os.environ:
        cases = [one for one in cases if one.kind is not Kind.DISK]
        console.print("disk: left out, this machine lets nobody mount in a namespace")
    folder = Path(tempfile.mkdtemp(prefix="seqd-chaos-"))

    def show(outcome: Outcome) -> None:
        if not outcome.found:
            return
        console.print(f"{outcome.case.name}: python -m tests.chaos --seed {options.seed} --case {outcome.case.name}")
        console.print(f"  {folder / outcome.case.name}")
        for finding in outcome.found:
            console.print(f"  {finding.wrong}: {finding.text}")

    outcomes = carry_all(cases, prepare(folder), jobs=options.jobs, minutes=options.minutes, show=show)
    wrong = sum(bool(outcome.found) for outcome in outcomes)
    with ExitStack() as stack:
        consoles = [console]
        if options.table:
            consoles.append(Console(width=WIDTH, file=stack.enter_context(options.table.open("w"))))
        for one in consoles:
            one.print(table(outcomes))
            one.print(f"{len(outcomes)} of {len(cases)} runs carried out, {wrong} wrong, seed {options.seed}")
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong or not outcomes else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="same seed, same faults")
    parser.add_argument("--minutes", type=float, default=60, help="no run is begun later")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--table", type=Path, help="file to write the table to, as Markdown")
    parser.add_argument("--case", help="carry out one case alone, as in power-3")
    options = parser.parse_args()
    if options.case:
        kind, _, index = options.case.partition("-")
        if kind not in list(Kind) or not index.isdigit():
            parser.error(f"--case {options.case}: KIND-NUMBER is needed, the kind one of {', '.join(Kind)}")
        options.case = case(options.seed, Kind(kind), int(index))
    return options


if __name__ == "__main__":
    sys.exit(main())
