"""``seqd call``: an archived run through the real daemon, controller and sockets, in one command."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import tomli_w
import typer
from rich.console import Console
from seqd_client.consumer import ControlClient
from seqd_client.errors import SeqdError, UnreachableError
from seqd_client.runinfo import RunInfo
from seqd_client.status import CycleStatus, Status

from calib.runfolder.images import check_images, read_run_info
from daemon.cli.options import progress_bar
from daemon.cli.showsummary import show_summary
from daemon.config import Config, ConfigError, load_config
from daemon.errors import RunError
from daemon.outputs.pictures.emit import Form, emit, form_folder
from daemon.record.committed import open_run

POLL_S = 0.25
ANSWER_S = 0.5
"""Seconds to wait for an answer. The daemon needs less, but does not answer any more when it is about to end."""
MAX_SOCKET_FOLDER = 64
"""Maximum number of characters in the path of a temporary folder. In a longer path, sockets could not be made."""
STOP_S = 90.0
"""Seconds that the processes get to end."""


Process = subprocess.Popen[bytes]


class ChildError(SeqdError):
    """The daemon or the controller ended with an error; this has its message and its exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code  # type: ignore[misc]


def call(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with archived images.")],
    output: Annotated[Path, typer.Option(help="Folder to write the run to; an unfinished run in it is continued.")],
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; its output folder and addresses are not used.")
    ] = None,
    faults: Annotated[str, typer.Option(help="Faults of the controller, see `seqd camera --help`.")] = "",
    emitted: Annotated[
        list[Form] | None,
        typer.Option(
            "--emit", help="Form to write for every called tile and cycle, see docs/reference/forms.md; repeatable."
        ),
    ] = None,
    merged: Annotated[bool, typer.Option("--merged", help="One file for the four channels of a form.")] = False,
) -> None:
    """Call an archived run: starts a controller and a daemon, shows progress, prints where the FASTQ is."""
    if merged and not emitted:
        raise ConfigError("--merged: this option needs --emit")
    info = read_run_info(folder)
    check_images(folder, info)
    settings = load_config(config) if config else Config()
    run_folder = output / info.run
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output folder {output}: {error.strerror}") from error
    # The path of a socket has to be short, so a folder with a long path cannot be used.
    parent = tempfile.gettempdir() if len(tempfile.gettempdir()) < MAX_SOCKET_FOLDER else "/tmp"
    with tempfile.TemporaryDirectory(prefix="seqd-", dir=parent) as scratch:
        local = _local(settings, Path(scratch), output)
        path = Path(scratch) / "seqd.toml"
        path.write_text(tomli_w.dumps(local.model_dump(mode="json", exclude_none=True)), "utf-8")
        camera = ["camera", str(folder), "--frames", local.controller.frames, "--recovery", local.controller.recovery]
        with (
            _process(["run", "--config", str(path), "--once"], run_folder / "daemon.log") as daemon,
            _process([*camera, "--faults", faults], run_folder / "controller.log") as controller,
        ):
            last = _watch(daemon, controller, local, info, run_folder)
    with open_run(run_folder) as run:
        totals, expected = run.ledger.totals(), info.cycles * len(info.tiles)
        if (committed := sum(totals.values())) < expected:
            raise RunError(
                f"run {info.run}: stopped at {committed} of {expected} tile-cycles; run the same command again to "
                "continue"
            )
        show_summary(Console(), run, last)
        if not emitted:
            return
        forms, called = list(dict.fromkeys(emitted)), totals[CycleStatus.CALLED]
        with progress_bar() as progress:
            advance = partial(progress.advance, progress.add_task(f"{info.run} forms", total=called))
            emit(folder, run, forms=forms, merged=merged, engine=settings.engine, progress=advance)
        console = Console()
        console.print(f"forms of {called} tile-cycles, {expected - called} skipped (missing or failed):")
        for form in forms if called else ():
            console.out(f"  {form_folder(run.files, form)}", highlight=False)


def _local(settings: Config, scratch: Path, output: Path) -> Config:
    """The configuration with private addresses and another output folder."""
    fresh = settings.model_dump()
    fresh["output"] = output.resolve()
    fresh["controller"] |= {"frames": f"ipc://{scratch}/frames", "recovery": f"ipc://{scratch}/recovery"}
    fresh["stream"]["calls"] = f"ipc://{scratch}/calls"
    fresh["control"] = {"endpoint": f"ipc://{scratch}/control", "command": f"ipc://{scratch}/command"}
    fresh["security"] = {}
    fresh["log"]["format"] = "json"
    return Config.model_validate(fresh)


@contextmanager
def _process(arguments: list[str], log: Path) -> Iterator[Process]:
    """Run a ``seqd`` process that writes to a log; it is ended when the ``with`` block is left."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", *arguments], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _watch(daemon: Process, controller: Process, config: Config, info: RunInfo, run_folder: Path) -> Status | None:
    """Show progress until the daemon ends; return its last status, or None if the daemon ended before it gave one.

    Raises
    ------
    ChildError : a process ended with an error.
    """
    last: Status | None = None
    with ControlClient(config.control.endpoint, timeout_s=ANSWER_S) as client, progress_bar() as progress:
        task = progress.add_task(f"{info.run} tile-cycles", total=info.cycles * len(info.tiles))
        while daemon.poll() is None:
            if controller.poll():
                raise ChildError(_last_line(run_folder / "controller.log"), controller.returncode)
            try:
                current = client.status()
            except UnreachableError:
                continue
            if current.run == info.run:
                last, counts = current, current.tile_cycles
                progress.update(task, completed=counts.called + counts.missing + counts.failed)
            time.sleep(POLL_S)
        if daemon.returncode != 0:
            raise ChildError(_last_line(run_folder / "daemon.log"), daemon.returncode)
        progress.update(task, completed=info.cycles * len(info.tiles))
    return last


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    mine = [line.removeprefix("seqd: ") for line in lines if line.startswith("seqd: ")]
    return mine[-1] if mine else f"it ended early; see {log}"
