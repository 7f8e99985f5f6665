"""The devices an engine can run on, and the choice between them."""

from importlib import import_module

from seqd_client.errors import first_line

from engines.bundles.bundle import Bundle
from engines.contract import Engine, EngineOptions
from engines.errors import EngineError

__all__ = ["BACKENDS", "EngineOptions", "open_backend", "open_engine"]

BACKENDS = {name: f"engines.backends.{name}" for name in ("tensorrt", "torch", "openvino")}
"""Module by name; each has an ``open_engine`` and is imported only when it is asked for."""


def open_engine(bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> Engine:
    """Open the embedded engine for tiles of one shape (height, width)."""
    return open_backend("openvino", bundle, shape=shape, options=options)


def open_backend(name: str, bundle: Bundle, *, shape: tuple[int, int], options: EngineOptions) -> Engine:
    """Open a backend by name for tiles of one shape (height, width).

    Raises
    ------
    EngineError : there is no such backend, a package of it is missing or damaged, or its device cannot be used.
    """
    if name not in BACKENDS:
        raise EngineError(f"engine {name}: there is no such backend; the backends are {', '.join(BACKENDS)}")
    try:
        module = import_module(BACKENDS[name])
    except ModuleNotFoundError as error:
        raise EngineError(f"engine {name}: needs {error.name}, which is not installed") from error
    except Exception as error:  # A damaged installation may raise any type.
        raise EngineError(f"engine {name}: what it needs cannot be loaded: {first_line(error)}") from error
    engine: Engine = module.open_engine(bundle, shape=shape, options=options)
    return engine
