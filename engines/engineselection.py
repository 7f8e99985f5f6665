"""The choice of an engine: a named backend, or the fastest one that is qualified on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engines.backends import EngineOptions, open_backend
from engines.bundles.bundle import Bundle
from engines.bundles.golden import GoldenResult, check_golden
from engines.contract import Engine
from engines.devices.probe import probe
from engines.errors import EngineError, EngineLostError

NOT_QUALIFIED = "not qualified on this machine; run `seqd qualify`"


@dataclass(frozen=True)
class Candidate:
    """A backend on a kind of device."""

    backend: str
    gpu: bool

    def __str__(self) -> str:
        return f"{self.backend} on {'a GPU' if self.gpu else 'the CPU'}"


EMBEDDED = Candidate("openvino", False)
"""The engine that every installation has."""

CANDIDATES = {
    "auto": (Candidate("tensorrt", True), Candidate("torch", True), EMBEDDED),
    "tensorrt": (Candidate("tensorrt", True),),
    "torch": (Candidate("torch", True), Candidate("torch", False)),
    "openvino": (EMBEDDED,),
}
"""The candidates of every value of the setting `[engine] backend`. If the setting names a backend, its candidates are
tried in this order."""


@dataclass(frozen=True)
class Verdict:
    """The result of testing a candidate on this machine with ``seqd qualify``."""

    refusal: str = ""
    """Why the candidate must not be used; empty for a qualified one."""
    tile_cycles_per_s: float = 0.0
    """Measured speed of a qualified candidate."""


@dataclass(frozen=True)
class Selection:
    """An open engine and the reason for it."""

    engine: Engine
    reason: str
    passed_over: dict[str, str]
    """Why each of the other candidates was not chosen, by the candidate's name."""
    golden: GoldenResult
    """How the engine's answer compares with the bundle's golden answer."""


def select_engine(
    bundle: Bundle,
    *,
    backend: str,
    shape: tuple[int, int],
    options: EngineOptions,
    qualified: Mapping[Candidate, Verdict],
) -> Selection:
    """Open the engine of a configuration and compare its answer with the golden one.

    Parameters
    ----------
    backend : one of :data:`CANDIDATES`; ``auto`` takes the fastest qualified candidate, else the embedded engine.
    shape : (H, W) of the tiles.
    qualified : verdicts for this machine; ``auto`` passes over a candidate without one.

    Raises
    ------
    EngineError : every candidate either cannot be opened or gives a wrong answer; the message has the reason for each.
    """
    if backend not in CANDIDATES:
        raise EngineError(f"engine {backend}: there is no such backend; the backends are {', '.join(CANDIDATES)}")
    candidates = [candidate for candidate in CANDIDATES[backend] if options.gpu in (None, candidate.gpu)]
    if not candidates:
        raise EngineError(f"engine {backend}: it does not run on {'a GPU' if options.gpu else 'the CPU'}")
    passed_over: dict[str, str] = {}
    if backend == "auto":
        tried, passed_over = _by_speed(candidates, qualified)
    else:
        tried = candidates
    for candidate in tried:
        try:
            if candidate.gpu:
                probe()
            engine, golden = _checked(candidate.backend, bundle, shape, replace(options, gpu=candidate.gpu))
        except (EngineError, EngineLostError) as error:
            if len(candidates) == 1:
                raise
            passed_over[str(candidate)] = str(error)
            continue
        if backend != "auto":
            reason = "configured" if len(candidates) == 1 else f"the first of {_names(candidates)} that works here"
        elif (verdict := qualified.get(candidate)) and not verdict.refusal:
            reason = f"the fastest engine that is qualified here, {verdict.tile_cycles_per_s:.3g} tile-cycles/s"
            for slower in tried[tried.index(candidate) + 1 :]:
                passed_over[str(slower)] = _slower(qualified.get(slower))
        else:
            reason = "the embedded engine; no other is qualified and works here"
        return Selection(engine, reason, passed_over, golden)
    raise EngineError(f"no engine works here: {'; '.join(f'{name}: {why}' for name, why in passed_over.items())}")


def _by_speed(
    candidates: list[Candidate], qualified: Mapping[Candidate, Verdict]
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates to try, with the fastest first, and why the other candidates are not tried.

    The embedded engine is always tried, if it is among the candidates.
    """
    verdicts = {candidate: qualified.get(candidate, Verdict(NOT_QUALIFIED)) for candidate in candidates}
    tried = [candidate for candidate, verdict in verdicts.items() if not verdict.refusal]
    tried.sort(key=lambda candidate: -verdicts[candidate].tile_cycles_per_s)
    if EMBEDDED in candidates and EMBEDDED not in tried:
        tried.append(EMBEDDED)
    return tried, {str(other): verdict.refusal for other, verdict in verdicts.items() if other not in tried}


def _slower(verdict: Verdict | None) -> str:
    if verdict is None:
        return NOT_QUALIFIED
    return verdict.refusal or f"slower, {verdict.tile_cycles_per_s:.3g} tile-cycles/s"


def _names(candidates: list[Candidate]) -> str:
    return ", ".join(map(str, candidates))


def _checked(name: str, bundle: Bundle, shape: tuple[int, int], options: EngineOptions) -> tuple[Engine, GoldenResult]:
    engine = open_backend(name, bundle, shape=shape, options=options)
    try:
        return engine, check_golden(engine, bundle)
    except BaseException:
        engine.close()
        raise
