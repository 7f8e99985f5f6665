"""The engine that a run is called with: as configured, as the run was begun, or the one that may take over."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from seqd_client.runinfo import RunInfo

from calib.jointfit.fitdevice import Place, choose_place
from daemon.config import EngineConfig
from engines.backends import EngineOptions
from engines.bundles.bundle import Bundle
from engines.engineselection import Selection, select_engine

ON_GPU = {"auto": None, "cpu": False, "gpu": True}
"""Option by setting."""


@dataclass(frozen=True)
class Chosen:
    """An engine, and where cycles are fitted."""

    selection: Selection
    place: Place

    @property
    def facts(self) -> dict[str, object]:
        """What must be the same for the same images to give the same calls."""
        info = self.selection.engine.info
        return {
            "backend": info.backend,
            "gpu": info.gpu,
            "software": info.software,
            "precision": info.precision,
            "strips": info.strips,
            "fit": self.place.name,
        }


def choose(
    bundle: Bundle, config: EngineConfig, info: RunInfo, *, begun_with: Mapping[str, object] | None = None
) -> Chosen:
    """The engine of a configuration.

    Parameters
    ----------
    begun_with : facts of the engine that the run was begun with; ``auto`` is this one.

    Raises
    ------
    EngineError, EngineLostError : it cannot be opened.
    """
    if begun_with is None or config.backend != "auto":
        return Chosen(select_configured(bundle, config, info), choose_place())
    begun = {"backend": begun_with["backend"], "device": "gpu" if begun_with["gpu"] else "cpu"}
    selection = select_configured(bundle, config.model_copy(update=begun), info)
    return Chosen(replace(selection, reason="the run was begun with it"), choose_place())


def choose_fallback(bundle: Bundle, config: EngineConfig, info: RunInfo) -> Chosen:
    """The embedded engine and the joint fit, both on the CPU; threads, slots and strips are as configured.

    Raises
    ------
    EngineError : it cannot be opened.
    """
    embedded = config.model_copy(update={"backend": "openvino", "device": "cpu", "precision": "auto"})
    selection = replace(select_configured(bundle, embedded, info), reason="fallback")
    return Chosen(selection, Place("cpu", "where the engine is", np.asarray))


def select_configured(bundle: Bundle, config: EngineConfig, info: RunInfo) -> Selection:
    """The engine for tiles of a run; its options are settings of the same names."""
    settings = config.model_dump(include={field.name for field in fields(EngineOptions)})
    options = EngineOptions(**settings, gpu=ON_GPU[config.device])
    return select_engine(bundle, backend=config.backend, shape=(info.height, info.width), options=options)
