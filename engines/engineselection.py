"""The choice of an engine: the first backend that opens and gives the golden answer."""

from dataclasses import dataclass, replace

from engines.backends import EngineOptions, open_backend
from engines.bundles.bundle import Bundle
from engines.bundles.golden import GoldenResult, check_golden
from engines.contract import Engine
from engines.devices.probe import probe
from engines.errors import EngineError, EngineLostError


@dataclass(frozen=True)
class Candidate:
    """A backend on a kind of device."""

    backend: str
    gpu: bool

    def __str__(self) -> str:
        return f"{self.backend} on {'a GPU' if self.gpu else 'the CPU'}"


CANDIDATES = {
    "auto": (Candidate("tensorrt", True), Candidate("torch", True), Candidate("openvino", False)),
    "tensorrt": (Candidate("tensorrt", True),),
    "torch": (Candidate("torch", True), Candidate("torch", False)),
    "openvino": (Candidate("openvino", False),),
}
"""What is tried, in this order, by setting."""


@dataclass(frozen=True)
class Selection:
    """An engine, and why it is this one."""

    engine: Engine
    reason: str
    passed_over: dict[str, str]
    """Why not, by backend and device that were tried before."""
    golden: GoldenResult
    """How it answered the bundle's golden tile."""


def select_engine(bundle: Bundle, *, backend: str, shape: tuple[int, int], options: EngineOptions) -> Selection:
    """Open the engine of a configuration and hold it against the golden tile.

    Parameters
    ----------
    backend : one of :data:`CANDIDATES`.
    shape : (H, W) of the tiles.

    Raises
    ------
    EngineError : whatever is tried cannot be opened or gives other answers; one line that says why of each.
    """
    if backend not in CANDIDATES:
        raise EngineError(f"engine {backend}: there is no such backend; there is {', '.join(CANDIDATES)}")
    tried = [candidate for candidate in CANDIDATES[backend] if options.gpu in (None, candidate.gpu)]
    if not tried:
        raise EngineError(f"engine {backend}: it does not run on {'a GPU' if options.gpu else 'the CPU'}")
    passed_over: dict[str, str] = {}
    for candidate in tried:
        try:
            if candidate.gpu:
                probe()
            engine, golden = _checked(candidate.backend, bundle, shape, replace(options, gpu=candidate.gpu))
        except (EngineError, EngineLostError) as error:
            if len(tried) == 1:
                raise
            passed_over[str(candidate)] = str(error)
        else:
            reason = f"first that works here of {', '.join(map(str, tried))}" if len(tried) > 1 else "configured"
            return Selection(engine, reason, passed_over, golden)
    raise EngineError(f"no engine works here: {'; '.join(passed_over.values())}")


def _checked(name: str, bundle: Bundle, shape: tuple[int, int], options: EngineOptions) -> tuple[Engine, GoldenResult]:
    engine = open_backend(name, bundle, shape=shape, options=options)
    try:
        return engine, check_golden(engine, bundle)
    except BaseException:
        engine.close()
        raise
