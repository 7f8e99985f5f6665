"""Carrying out one case: the controller, the daemon as often as it takes, what befalls them, and the checks."""

import signal
import sqlite3
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from seqd_client.status import CycleStatus, RunState

from calib.runfolder.images import read_run_info
from tests.chaos.checks import (
    Finding,
    Reference,
    Wrong,
    check_balance,
    check_ends,
    check_finished,
    check_kept,
    check_verified,
)
from tests.chaos.consumer import Consumer
from tests.chaos.daemonlog import DaemonLog, events
from tests.chaos.disk import Disk, read_tree, write_tree
from tests.chaos.journal import read_journal
from tests.chaos.ledger import read_ledger
from tests.chaos.plan import STAGES, Case, Start
from tests.chaos.shim import Death, Error, environment
from tests.chaos.smalldisk import Ballast, small_disk
from tests.support.processes import Bench, bench, outputs

TEMPLATE_CYCLES = 3
LIMIT_S = 120.0
"""A run that takes longer hangs."""
UNDISTURBED_STARTS = 2
"""So many must do, after the disturbed ones."""
LEFT_S = 8.0
"""Time the daemon gets to end by itself when the controller is gone."""
POLL_S = 0.005
TYPED = range(2, 10)
"""Exit codes of failures that say what failed."""
RETRY_S = 3.0
"""How long the daemon waits for a disk to get well."""


@dataclass(frozen=True)
class Setting:
    """What the cases of a campaign have in common."""

    folder: Path
    images: Path
    library: Path
    """Of the shim."""
    forgotten: str = ""
    """Daemons forget to sync paths that end so: a planted defect."""


@dataclass
class Outcome:
    """What became of a case."""

    case: Case
    starts: int = 0
    finished: bool = False
    typed: int = 0
    """Starts that ended in a failure that says what failed."""
    missing: int = 0
    found: list[Finding] = field(default_factory=list)


def undisturbed(setting: Setting) -> Reference:
    """The run that the others are held against."""
    here, info = _bench(setting.folder / "undisturbed"), read_run_info(setting.images)
    journal = here.folder / "journal"
    with (
        here.camera(setting.images) as camera,
        here.daemon("--once", env=environment(setting.library, here.runs, journal=journal)) as daemon,
    ):
        if daemon.wait(LIMIT_S) or camera.wait(LIMIT_S):
            raise RuntimeError(f"the undisturbed run failed, see {here.folder / 'daemon.log'}")
    run, changed = here.runs / info.run, tuple(change.path for change in read_journal(journal))
    return Reference(info, outputs(run), read_ledger(run), changed, TEMPLATE_CYCLES)


def carry(case: Case, setting: Setting, reference: Reference) -> Outcome:
    """Run a case and check what came out; all it leaves lies in a folder of its name."""
    here = _bench(setting.folder / case.name)
    with ExitStack() as stack:
        if case.full is not None:
            stack.enter_context(small_disk(here.runs))
        arguments = ("--faults", case.faults, "--tile-seconds", str(case.tile_s))
        camera = stack.enter_context(here.camera(setting.images, *arguments))
        consumer = stack.enter_context(Consumer(here.endpoint("calls")))
        carrier = _Carrier(case, setting, reference, here, camera, consumer)
        carrier.carry()
        return carrier.outcome


def _bench(folder: Path) -> Bench:
    folder.mkdir()
    sections: dict[str, dict[str, Any]] = {
        "calling": {"template_cycles": TEMPLATE_CYCLES},
        "engine": {"threads": 1},
        "controller": {"missing_after_s": 30.0},
        "faults": {"retry_for_s": RETRY_S},
    }
    here = bench(folder, **sections)
    here.runs.mkdir()
    return here


class _Carrier:
    """One case under way."""

    def __init__(
        self,
        case: Case,
        setting: Setting,
        reference: Reference,
        here: Bench,
        camera: "subprocess.Popen[bytes]",
        consumer: Consumer,
    ) -> None:
        self._case, self._setting, self._reference = case, setting, reference
        self._here, self._camera, self._consumer = here, camera, consumer
        self._run_folder = here.runs / reference.info.run
        self._log, self._journal = here.folder / "daemon.log", here.folder / "journal"
        self._loses_power = any(start.power is not None for start in case.starts)
        self._disk = Disk(here.runs)
        self._deadline_s = time.monotonic() + LIMIT_S
        self.outcome = Outcome(case)

    def carry(self) -> None:
        """Start the daemon until the run is finished or something is wrong, and check what there is then."""
        for start in (*self._case.starts, *[Start()] * UNDISTURBED_STARTS):
            self._start(start)
            if self.outcome.finished or self.outcome.found:
                break
        else:
            self._find(Wrong.ENDED, f"not finished after {self.outcome.starts} starts")
        self._check()

    def _start(self, start: Start) -> None:
        """One life of the daemon and what comes after it."""
        code = self._lived(start)
        self.outcome.starts += 1
        self._consumer.listen(0.05)
        if code is None:
            self._find(Wrong.HUNG, f"not finished after {LIMIT_S:g} s")
            return
        if code not in (0, -signal.SIGKILL, *TYPED):
            self._find(Wrong.ENDED, f"the daemon ended with {code}")
        if code in TYPED and not self._lasting(start):
            self._find(Wrong.ENDED, f"the daemon ended with {code}, and what failed had passed within {RETRY_S:g} s")
        if self._camera.poll():
            self._find(Wrong.ENDED, f"the controller ended with {self._camera.returncode}")
        self.outcome.typed += code in TYPED
        if start.power is not None:
            self._lose_power(Random(start.power) if start.power else None)
        self.outcome.found += check_kept(self._run_folder, self._consumer.told)
        # The controller leaves when the daemon has told it that all is written.
        said = [line["state"] for line in self._ends()][-1:]
        self.outcome.finished = self._camera.poll() == 0 or (code == 0 and said == [RunState.FINISHED])

    def _lived(self, start: Start) -> int | None:
        """Start the daemon, and see to what befalls it; its exit code, None when it hung."""
        log, began_s = DaemonLog(self._log), time.monotonic()
        kill_s = left_s = float("inf")
        full = self._case.full if self.outcome.starts == 0 else None
        ballast = Ballast(self._here.runs, full) if full else None
        stage = STAGES[start.kill.stage] if start.kill else None
        with self._here.daemon("--once", env=self._environment(start)) as daemon:
            while daemon.poll() is None:
                now = time.monotonic()
                if now > self._deadline_s:
                    return None
                if ballast:
                    ballast.tick(now - began_s)
                if start.kill and stage and log.reached(stage):
                    kill_s, stage = now + start.kill.after_s, None
                    if STAGES[start.kill.stage].drained:
                        daemon.terminate()
                if now >= kill_s:
                    daemon.kill()
                if self._camera.poll() is not None:
                    left_s = min(left_s, now + LEFT_S)
                if now > left_s:
                    left_s = float("inf")
                    daemon.terminate()
                self._consumer.listen(POLL_S)
        if ballast:
            ballast.free()
        return daemon.returncode

    def _lasting(self, start: Start) -> bool:
        """Whether what fails does until the daemon has ended."""
        full = self._case.full
        return bool((start.failing and start.failing.seconds < 0) or (full and full.freed_after_s < 0))

    def _environment(self, start: Start) -> dict[str, str]:
        blow, failing, changed = start.blow, start.failing, self._reference.changed
        if not (blow or failing or self._loses_power):
            return {}
        return environment(
            self._setting.library,
            self._here.runs,
            journal=self._journal if self._loses_power else None,
            death=Death(1 + int(blow.at * _number(changed, blow.ending)), blow.permille, blow.ending) if blow else None,
            error=Error(failing.name, failing.classes, 1 + int(failing.at * len(changed)), failing.seconds)
            if failing
            else None,
            forgotten=self._setting.forgotten,
        )

    def _lose_power(self, luck: Random | None) -> None:
        """Put in place of the output folder what the disk is bound to have kept of it."""
        for change in read_journal(self._journal):
            self._disk.change(change)
        if self._disk.now() != read_tree(self._here.runs):
            raise RuntimeError(f"{self._case.name}: the shim did not see every change of {self._here.runs}")
        write_tree(self._here.runs, self._disk.after_power_loss(luck))
        self._journal.unlink(missing_ok=True)
        self._disk = Disk(self._here.runs)

    def _check(self) -> None:
        found, reference = self.outcome.found, self._reference
        found += [Finding(Wrong.DUPLICATED, f"tile-cycle {key}: told of twice") for key in self._consumer.twice]
        if "Traceback" in self._log.read_text("utf-8", "replace"):
            self._find(Wrong.ENDED, f"there is a traceback in {self._log}")
        try:
            rows = read_ledger(self._run_folder)
        except (sqlite3.Error, ValueError) as error:
            self._find(Wrong.UNBALANCED, f"the ledger cannot be read: {error}")
            return
        self.outcome.missing = sum(row.status == CycleStatus.MISSING for row in rows.values())
        found += check_balance(rows, reference.info, self._ends())
        found += check_ends(self._ends(), self.outcome.typed)
        if self.outcome.finished:
            found += check_finished(self._run_folder, rows, reference, may_miss=self._case.may_miss)
            found += check_verified(self._run_folder)

    def _ends(self) -> list[dict[str, Any]]:
        """What the daemons said when they ended."""
        return [line for line in events(self._log.read_bytes()) if line["event"] == "run ended"]

    def _find(self, wrong: Wrong, text: str) -> None:
        self.outcome.found.append(Finding(wrong, text))


def _number(changed: tuple[str, ...], ending: str) -> int:
    return sum(path.endswith(ending) for path in changed)
