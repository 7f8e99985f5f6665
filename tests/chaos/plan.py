"""What befalls each run: drawn from the seed alone, so that a case is the same whatever else is run."""

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

GOLDEN = 0.6180339887498949
"""Steps of this share of an interval cover it evenly, however many are taken."""


class Kind(StrEnum):
    """Kinds of disturbance."""

    KILL = "kill"
    """SIGKILL at an instant of every stage."""
    DEATH = "death"
    """SIGKILL at a change of the output folder, writes torn."""
    POWER = "power"
    """The same, and what was not synced is lost."""
    ERROR = "error"
    """The system refuses to write, for a while or until the daemon ends."""
    DISK = "disk"
    """A full disk, until there is room or until the daemon ends."""
    FRAMES = "frames"
    """Faults of the controller."""
    MIXTURE = "mixture"
    """Several of them."""


WEIGHTS = {
    Kind.KILL: 20,
    Kind.DEATH: 20,
    Kind.POWER: 20,
    Kind.ERROR: 15,
    Kind.DISK: 5,
    Kind.FRAMES: 12,
    Kind.MIXTURE: 8,
}


@dataclass(frozen=True)
class Stage:
    """What of a daemon's life follows a line of its log."""

    event: str
    lasts_s: float
    last_cycle: bool = False
    """Whether the line of the last cycle is meant, which FASTQ is written after."""
    drained: bool = False
    """Whether the daemon is asked to stop first."""


STAGES = {
    "starting": Stage("", 0.9),
    "opening": Stage("ready", 0.4),
    "template": Stage("run", 0.8),
    "calling": Stage("template", 0.6),
    "committing": Stage("cycle", 0.2),
    "draining": Stage("template", 0.1, drained=True),
    "fastq": Stage("cycle", 0.04, last_cycle=True),
}


@dataclass(frozen=True)
class Kill:
    """SIGKILL so long after a stage began."""

    stage: str
    after_s: float


@dataclass(frozen=True)
class Blow:
    """SIGKILL at a change of the output folder."""

    ending: str
    """Of the paths that are aimed at; empty for all."""
    at: float
    """Share of the changes that an undisturbed run makes of them."""
    permille: int
    """Of the change that is made before."""


@dataclass(frozen=True)
class Failing:
    """Calls that fail."""

    name: str
    classes: str
    at: float
    """From which share of an undisturbed run's changes on."""
    seconds: float
    """How long; below 0 until the daemon ends."""


@dataclass(frozen=True)
class Start:
    """One start of the daemon, and what ends it."""

    kill: Kill | None = None
    blow: Blow | None = None
    failing: Failing | None = None
    power: int | None = None
    """What is lost with the power after its end: 0 all that was not synced, else the seed of what is."""


@dataclass(frozen=True)
class Full:
    """A small disk."""

    room: float
    """Share of what an undisturbed run takes at most."""
    freed_after_s: float
    """How long after the start there is room for all; below 0 when the daemon has ended."""


@dataclass(frozen=True)
class Case:
    """One disturbed run."""

    kind: Kind
    index: int
    starts: tuple[Start, ...] = ()
    """Disturbed ones; after them the daemon is started undisturbed."""
    faults: str = ""
    """Of the controller."""
    tile_s: float = 0.0
    """Seconds between its tile images."""
    full: Full | None = None
    may_miss: bool = False
    """Whether the controller loses frames for good."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index}"


ERRORS = (
    ("ENOSPC", "wn"),
    ("ENOSPC", "wson"),
    ("EIO", "s"),
    ("EIO", "w"),
    ("EIO", "wson"),
    ("EACCES", "on"),
    ("EACCES", "n"),
    ("EROFS", "won"),
    ("ENOSPC", "s"),
)
"""Error and classes of calls, see :class:`tests.chaos.shim.Error`."""

ENDINGS = (
    "",
    ".bcls",
    ".fastq.gz.tmp",
    "run.db-wal",
    ".image.tmp",
    ".npz.tmp",
    "/tiles",
    "run.db",
    ".chastity",
    "/spool",
    ".locs.tmp",
    "/fastq",
    "run.db-journal",
    ".xml.tmp",
    ".json.tmp",
    ".bcl.tmp",
    ".filter.tmp",
    "Complete.txt.tmp",
    "/L001",
    ".1",
)
"""Of paths: what a run writes, each aimed at as often, as most changes are the ledger's."""

FRAMES = {
    "drop": "drop=0.2",
    "duplicate": "duplicate=0.3",
    "reorder": "reorder=0.3",
    "delay": "delay=0.2,delay_images=3",
    "corrupt": "corrupt=0.2",
    "truncate": "truncate=0.2",
    "clock": "clock=0.5",
    "resend_drop": "drop=0.2,resend_drop=0.3",
    "ring": "drop=0.2,ring=6",
    "pause": "pause=0.2,pause_s=0.4",
    "crash": "crash=0.15,crash_s=0.4",
    "crash_skip": "crash=0.15,crash_s=0.4,crash_skip=0.7",
}
"""For each fault of the controller, what is asked for."""

LOSSY = ("ring", "crash", "crash_skip")
"""Faults that lose frames for good."""

HARMLESS = ("drop", "duplicate", "reorder", "delay", "corrupt", "truncate", "clock")
"""Faults that a run comes through with every call."""


def plan(seed: int, runs: int) -> list[Case]:
    """The cases of a campaign: each kind once, then by weight, in an order that any beginning of is a fair sample."""
    kinds, drawn = list(Kind), dict.fromkeys(Kind, 0)
    for _ in range(runs - len(kinds)):
        kinds.append(max(WEIGHTS, key=lambda kind: WEIGHTS[kind] / (1 + kinds.count(kind))))
    cases = []
    for kind in kinds[:runs]:
        cases.append(case(seed, kind, drawn[kind]))
        drawn[kind] += 1
    return cases


def case(seed: int, kind: Kind, index: int) -> Case:
    """One case; the same for the same arguments."""
    luck = Random(f"{seed} {kind} {index}")
    # The first start is struck at instants that cover the run evenly; the others anywhere early.
    even = (Random(f"{seed} {kind}").random() + index * GOLDEN) % 1
    drawn = Case(kind, index, tile_s=luck.choice((0.0, 0.0, 0.05)))
    match kind:
        case Kind.KILL:
            stages = list(STAGES)
            first = _kill(luck, stages[index % len(stages)])
            return replace(drawn, starts=(first, *(_kill(luck, luck.choice(stages)) for _ in range(luck.randrange(3)))))
        case Kind.DEATH:
            return replace(drawn, starts=_blows(luck, ENDINGS[index % len(ENDINGS)], even))
        case Kind.POWER:
            return replace(
                drawn,
                starts=tuple(_powerless(luck, start) for start in _blows(luck, ENDINGS[index % len(ENDINGS)], even)),
            )
        case Kind.ERROR:
            return replace(drawn, starts=(Start(failing=_failing(luck, ERRORS[index % len(ERRORS)], even)),))
        case Kind.DISK:
            full = Full(room=luck.uniform(0.02, 1), freed_after_s=luck.choice((-1.0, luck.uniform(1, 3))))
            return replace(drawn, full=full, starts=(Start(),))
        case Kind.FRAMES:
            name = list(FRAMES)[index % len(FRAMES)]
            return replace(drawn, faults=_faults(luck, FRAMES[name]), may_miss=name in LOSSY)
        case Kind.MIXTURE:
            return replace(drawn, starts=_mixed(luck, even), faults=_faults(luck, FRAMES[luck.choice(HARMLESS)]))


def _kill(luck: Random, stage: str) -> Start:
    return Start(kill=Kill(stage, luck.uniform(0, STAGES[stage].lasts_s)))


def _blows(luck: Random, ending: str, at: float) -> tuple[Start, ...]:
    aims = [(ending, at), *((luck.choice(ENDINGS), luck.random() ** 2) for _ in range(luck.randrange(3)))]
    return tuple(Start(blow=Blow(*aim, permille=luck.choice((0, 1000, luck.randrange(1, 1000))))) for aim in aims)


def _powerless(luck: Random, start: Start) -> Start:
    return replace(start, power=luck.choice((0, luck.randrange(1, 2**31))))


def _failing(luck: Random, error: tuple[str, str], at: float) -> Failing:
    return Failing(*error, at=at, seconds=luck.choice((-1.0, luck.uniform(0.05, 1.5))))


def _mixed(luck: Random, at: float) -> tuple[Start, ...]:
    """An error that passes, then a death; with the power or without, and kills where it stays."""
    passing = replace(_failing(luck, luck.choice(ERRORS), at * 0.7), seconds=luck.uniform(0.05, 0.5))
    starts = tuple(replace(start, failing=passing) for start in _blows(luck, luck.choice(ENDINGS), at))
    if luck.random() < 0.5:
        # What a kill from outside interrupts is not in the journal: no power loss after one.
        return tuple(_powerless(luck, start) for start in starts)
    return (*starts, _kill(luck, luck.choice(list(STAGES))))


def _faults(luck: Random, faults: str) -> str:
    return f"{faults},seed={luck.randrange(2**31)}"
