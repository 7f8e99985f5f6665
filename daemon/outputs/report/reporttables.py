"""Texts and tables of the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from seqd_client.status import CycleStatus

from daemon.outputs.figures.runmetrics import STATUSES, RunMetrics
from daemon.outputs.figures.summary import Summary
from daemon.outputs.report.speed import committed_hours
from daemon.record.ledgerreader import CycleRow

LISTED = 50
"""Maximum number of missing and failed tile-cycles that are listed one by one."""

UNKNOWN = "–"


@dataclass(frozen=True)
class Entry:
    """A named value with a note."""

    name: str
    value: str
    note: str = ""


def header(metrics: RunMetrics) -> list[Entry]:
    """Facts that identify the run."""
    info = metrics.info
    structure = " · ".join(f"{info.label(read)} {read.cycles}" for read in info.reads)
    lanes = len({tile.lane for tile in info.tiles})
    return [
        Entry("Instrument", info.instrument),
        Entry("Flow cell", info.flowcell),
        Entry("Date", info.date or UNKNOWN),
        Entry("Reads", structure),
        Entry("Tiles", f"{number(len(info.tiles))} in {lanes} lane{'s' * (lanes > 1)}"),
        Entry("Images", f"{info.height} × {info.width} px" + (f", {info.pixel_um:g} µm/px" if info.pixel_um else "")),
    ]


def finished(metrics: RunMetrics) -> bool:
    """Whether every tile-cycle is committed."""
    return int(metrics.known.min()) == metrics.info.cycles


def state(metrics: RunMetrics) -> str:
    """How far the run is."""
    if finished(metrics):
        return "finished"
    slowest, furthest = int(metrics.known.min()), int(metrics.known.max())
    if not furthest:
        return "waiting for the first cycle"
    ahead = f" (the furthest tile at {furthest})" if furthest > slowest else ""
    return f"running: cycle {slowest} of {metrics.info.cycles}{ahead}"


def counted(metrics: RunMetrics) -> dict[CycleStatus, int]:
    """Tile-cycles by status."""
    return {status: int(np.count_nonzero(metrics.status == STATUSES.index(status))) for status in CycleStatus}


def key_figures(metrics: RunMetrics, summary: Summary) -> list[Entry]:
    """The most important figures."""
    total, status = summary.total, counted(metrics)
    expected = "" if finished(metrics) else f"{bases(total.projected_bases)} expected"
    passing = 100 * summary.passing / summary.clusters if summary.clusters else None
    figures = [
        Entry("Clusters", number(summary.clusters), "" if summary.clusters else "filter not known yet"),
        Entry("Passing the filter", number(passing, 1, " %"), f"{number(summary.passing)} clusters"),
        Entry("Yield", bases(total.yield_bases), expected),
        Entry("≥ Q30", number(total.percent_q30, 1, " %")),
    ]
    if summary.density_k_mm2 is not None:
        figures.insert(2, Entry("Density", number(summary.density_k_mm2, 1), "K/mm²"))
    if total.percent_error is not None:
        aligned = number(total.percent_aligned, 2, " %")
        figures.append(Entry("Error rate", number(total.percent_error, 2, " %"), f"{aligned} of the control"))
    lost = f"{number(status[CycleStatus.MISSING])} missing, {number(status[CycleStatus.FAILED])} failed"
    called = number(status[CycleStatus.CALLED])
    figures.append(Entry("Tile-cycles called", called, f"of {number(metrics.status.size)}; {lost}"))
    hours = committed_hours(metrics)
    if len(hours) > 1 and hours[-1] > 0:
        figures.append(Entry("Throughput", number((len(hours) - 1) / hours[-1]), "tile-cycles an hour"))
    return figures


def troubles(metrics: RunMetrics) -> tuple[list[CycleRow], int]:
    """The first :data:`LISTED` tile-cycles that were not called, in the order of the cycles, and how many there are."""
    cycles, tiles = np.nonzero((metrics.status > STATUSES.index(CycleStatus.CALLED)).T)
    listed = list(zip(cycles[:LISTED].tolist(), tiles[:LISTED].tolist(), strict=True))
    found: dict[tuple[int, int], CycleRow] = {}
    for index in {index for _, index in listed}:
        first = min(cycle for cycle, of in listed if of == index)
        for row in metrics.run.ledger.rows(metrics.info.tiles[index], after=first):
            found[row.cycle - 1, index] = row
    return [found[at] for at in listed], len(cycles)


def provenance(metrics: RunMetrics) -> Iterator[Entry]:
    """Model, settings, engines and starts of the daemon that made the committed calls."""
    facts = metrics.run.facts
    last = int(metrics.committed_ns.max())
    starts = [start for start in metrics.run.ledger.starts() if start.began_ns <= last]
    engines = [engine for engine in metrics.run.ledger.engines() if engine.since_ns <= last]
    yield Entry("Model", str(facts.get("model", UNKNOWN)))
    for name, key in (("Readout", "readout"), ("Template", "template_cycles"), ("Binned scores", "binned_quality")):
        if key in facts:
            value = facts[key]
            yield Entry(name, f"{value} cycles" if key == "template_cycles" else _plain(value))
    for engine in engines:
        described = ", ".join(f"{key} {_plain(value)}" for key, value in engine.facts.items())
        took_over = f"; took over: {engine.reason}" if engine.reason else ""
        yield Entry("Engine", described + took_over, f"since {instant(engine.since_ns)}")
    for start in starts:
        yield Entry("Started", f"seqd {start.seqd}, configuration {start.configuration}", instant(start.began_ns))


def number(value: float | None, digits: int = 0, unit: str = "") -> str:
    """With thin spaces between thousands; a dash for what is not known."""
    if value is None or not np.isfinite(value):
        return UNKNOWN
    return f"{value:,.{digits}f}".replace(",", "\u202f") + unit


def bases(count: int) -> str:
    """Number of bases with a unit."""
    for size, unit in ((1e12, "Tb"), (1e9, "Gb"), (1e6, "Mb"), (1e3, "kb")):
        if count >= size:
            return f"{count / size:#.4g} {unit}"
    return f"{count} b"


def instant(ns: int) -> str:
    """Date and time in UTC, to the second."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
