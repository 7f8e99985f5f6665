"""The choice of an engine: the first backend that opens and gives the golden answer."""

from dataclasses import dataclass, replace

from engines.backends import EngineOptions, open_backend
from engines.bundle import Bundle
from engines.contract import Engine
from engines.devices.probe import probe
from engines.errors import EngineError
from engines.golden import GoldenResult, check_golden

AUTO = ("tensorrt", "torch", "openvino")
"""Order in which ``auto`` tries them."""

ON_GPU = frozenset({"tensorrt", "torch"})
"""Those that ``auto`` takes on a GPU only."""


@dataclass(frozen=True)
class Selection:
    """An engine, and why it is this one."""

    engine: Engine
    reason: str
    passed_over: dict[str, str]
    """Why not, by backend that was tried before."""
    golden: GoldenResult
    """How it answered the bundle's golden tile."""


def select_engine(bundle: Bundle, *, backend: str, shape: tuple[int, int], options: EngineOptions) -> Selection:
    """Open the engine of a configuration and hold it against the golden tile.

    Parameters
    ----------
    backend : a backend's name, or ``auto`` for the first of :data:`AUTO` that works here.
    shape : (H, W) of the tiles.

    Raises
    ------
    EngineError : the backend, or all that ``auto`` tries, cannot be opened or gives other answers; one line
        that says why of each.
    """
    if backend != "auto":
        engine, golden = _checked(backend, bundle, shape, options)
        return Selection(engine, "configured", {}, golden)
    passed_over: dict[str, str] = {}
    for name in AUTO:
        try:
            if name in ON_GPU:
                probe()
            engine, golden = _checked(name, bundle, shape, replace(options, gpu=name in ON_GPU))
        except EngineError as error:
            passed_over[name] = str(error)
        else:
            return Selection(engine, f"first of {', '.join(AUTO)} that works here", passed_over, golden)
    raise EngineError(f"no engine works here: {'; '.join(passed_over.values())}")


def _checked(name: str, bundle: Bundle, shape: tuple[int, int], options: EngineOptions) -> tuple[Engine, GoldenResult]:
    engine = open_backend(name, bundle, shape=shape, options=options)
    try:
        return engine, check_golden(engine, bundle)
    except BaseException:
        engine.close()
        raise
