"""``seqd status``: show the state of the daemon."""

import time
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from seqd_client.consumer import ControlClient
from seqd_client.keys import load_client_keys
from seqd_client.status import Status

from daemon.cli.options import CONTROL, AnswerTimeout, Certificate, ControlAddress, ServerKey

REFRESH_S = 1.0


def status(
    control: ControlAddress = CONTROL,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (docs/reference/status.schema.json).")] = False,
    certificate: Certificate = None,
    server_key: ServerKey = None,
    timeout: AnswerTimeout = 5.0,
) -> None:
    """Show state, cycle, numbers of frames and tile-cycles, lag, and the engine in use."""
    with ControlClient(control, timeout_s=timeout, keys=load_client_keys(certificate, server_key)) as client:
        if as_json:
            typer.echo(client.status().model_dump_json(indent=None if watch else 2))
            while watch:
                time.sleep(REFRESH_S)
                typer.echo(client.status().model_dump_json())
            return
        console = Console()
        if not watch:
            console.print(_table(client.status()))
            return
        with Live(_table(client.status()), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH_S)
                live.update(_table(client.status()), refresh=True)


def _table(status: Status) -> RenderableType:
    counts, frames, lag = status.tile_cycles, status.frames, status.lag
    table = Table(show_header=False, title=f"seqd {status.version}", title_justify="left")
    table.add_row("state", ": ".join(filter(None, (status.state, status.phase or status.stop_reason, status.reason))))
    for trouble in status.troubles:
        table.add_row("waiting for", f"{trouble.text} ({_duration(trouble.since_s)})")
    table.add_row("run", status.run or "-")
    table.add_row("cycle", f"{status.cycle} of {status.cycles}")
    table.add_row(
        "tile-cycles",
        f"{counts.received} received = {counts.called} called + {counts.missing} missing + "
        f"{counts.failed} failed + {counts.pending} pending; {counts.expected} expected" + _unequal(counts.balanced),
    )
    table.add_row("speed", f"{status.tile_cycles_per_s:.2f} tile-cycles/s")
    table.add_row(
        "lag",
        f"{lag.cycles} cycles, {lag.tile_cycles} tile-cycles, {_size(lag.bytes)} in memory"
        + (", holding the flow cell" if lag.holding else ""),
    )
    spool, disk = status.spool, status.disk
    table.add_row(
        "spool", f"{spool.images} images, {_size(spool.bytes)} of {_size(spool.limit)}{_full(spool.full_in_s)}"
    )
    table.add_row("disk", f"{_size(disk.free)} free{_full(disk.full_in_s)}")
    table.add_row(
        "frames",
        f"{frames.received} received = {frames.accepted} accepted + {frames.duplicate} duplicate + "
        f"{frames.late} late + {sum(frames.refused.values())} refused; {frames.gaps} gaps, "
        f"{frames.resend_requested} requested again, {frames.gone} gone" + _unequal(frames.balanced),
    )
    table.add_row("refused", _counts(frames.refused))
    table.add_row(
        "clients",
        f"connections refused: {_counts(status.shut_out)}; requests refused: "
        f"{_counts(status.requests_refused)}; slowed: {status.slowed}",
    )
    table.add_row("clusters", f"{status.clusters}, of which {status.passing_filter} pass the filter so far")
    for name, sink in status.sinks.items():
        behind = f", {sink.behind} tile-cycles behind" if sink.behind else ""
        table.add_row(name, f"{sink.files} files{behind}")
    if engine := status.engine:
        table.add_row(
            "engine", f"{engine.backend} {engine.precision} on {engine.device}; at work {engine.busy:.0%} of the time"
        )
        table.add_row("chosen", engine.reason)
        if engine.restarts:
            table.add_row("opened again", f"{engine.restarts} times" + (", now a fallback" if engine.fallback else ""))
        if engine.fallback:
            table.add_row("fallback", engine.fallback)
        allowed = f"differs by {engine.golden_difference:.2g} at {engine.golden_positions} positions, which is allowed"
        table.add_row("golden tile", allowed if engine.golden_positions else "not compared: tiles are too small")
        for backend, why in engine.passed_over.items():
            table.add_row("passed over", f"{backend}: {why}")
        if status.fit:
            table.add_row("joint fit", f"on the {status.fit.place.upper()}: {status.fit.reason}")
        table.add_row("model", f"{engine.model} {engine.model_hash[:12]}")
    return table


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.items()) or "none"


def _unequal(balanced: bool) -> str:
    return "" if balanced else "; [bold red]these numbers do not add up[/]"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _full(seconds: float | None) -> str:
    return "" if seconds is None else f", full in {_duration(seconds)} at this rate"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
