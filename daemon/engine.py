"""The engine that a configuration asks for."""

from dataclasses import fields

from calib.runfolder import RunInfo
from daemon.config import EngineConfig
from engines.backends import EngineOptions, open_engine
from engines.bundle import Bundle
from engines.contract import Engine


def open_configured(bundle: Bundle, config: EngineConfig, info: RunInfo) -> Engine:
    """Open the engine for tiles of a run; its options are settings of the same names."""
    options = EngineOptions(**config.model_dump(include={field.name for field in fields(EngineOptions)}))
    return open_engine(bundle, shape=(info.height, info.width), options=options)
