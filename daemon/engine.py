"""The engine that a configuration asks for."""

from dataclasses import fields

from calib.runfolder import RunInfo
from daemon.config import EngineConfig
from engines.backends import EngineOptions
from engines.bundle import Bundle
from engines.selection import Selection, select_engine

ON_GPU = {"auto": None, "cpu": False, "gpu": True}
"""Option by setting."""


def select_configured(bundle: Bundle, config: EngineConfig, info: RunInfo) -> Selection:
    """The engine for tiles of a run; its options are settings of the same names."""
    settings = config.model_dump(include={field.name for field in fields(EngineOptions)})
    options = EngineOptions(**settings, gpu=ON_GPU[config.device])
    return select_engine(bundle, backend=config.backend, shape=(info.height, info.width), options=options)
