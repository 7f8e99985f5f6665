"""The choice of a run's engine and fit device: as configured, as the run was begun, or the fallback."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from seqd_client.runinfo import RunInfo

from calib.jointfit.fitdevice import FitDevice, choose_fit_device, cpu_device
from daemon.config import EngineConfig
from daemon.qualification.qualificationrecord import read_qualified
from engines.backends import EngineOptions
from engines.bundles.bundle import Bundle
from engines.engineselection import Selection, select_engine

ON_GPU = {"auto": None, "cpu": False, "gpu": True}
"""The engine's option ``gpu`` for each value of the setting `[engine] device`."""

BEGUN_WITH = "the run was begun with it"


@dataclass(frozen=True)
class Chosen:
    """An open engine and the device that fits cycles."""

    selection: Selection
    fit_device: FitDevice

    @property
    def facts(self) -> dict[str, object]:
        """Facts that must be the same for the same images to give the same calls."""
        info = self.selection.engine.info
        return {
            "backend": info.backend,
            "gpu": info.gpu,
            "software": info.software,
            "precision": info.precision,
            "strips": info.strips,
            "fit": self.fit_device.name,
        }


def choose(
    bundle: Bundle, config: EngineConfig, info: RunInfo, *, begun_with: Mapping[str, object] | None = None
) -> Chosen:
    """Open the engine of a configuration and choose the fit device.

    Parameters
    ----------
    begun_with : facts of the engine that the run was begun with; ``auto`` and the fit device follow them.

    Raises
    ------
    EngineError, EngineLostError : the engine cannot be opened.
    """
    if begun_with is None:
        refusal = read_qualified(bundle.hash).cupy.refusal
        return Chosen(select_configured(bundle, config, info), choose_fit_device(refusal=refusal))
    if config.backend == "auto":
        begun = {"backend": begun_with["backend"], "device": "gpu" if begun_with["gpu"] else "cpu"}
        selection = select_configured(bundle, config.model_copy(update=begun), info)
        selection = replace(selection, reason=BEGUN_WITH)
    else:
        selection = select_configured(bundle, config, info)
    return Chosen(selection, choose_fit_device(refusal="" if begun_with.get("fit") == "gpu" else BEGUN_WITH))


def choose_fallback(bundle: Bundle, config: EngineConfig, info: RunInfo) -> Chosen:
    """Open the embedded engine, with the joint fit on the CPU too; threads, slots and strips are as configured.

    Raises
    ------
    EngineError : the engine cannot be opened.
    """
    embedded = config.model_copy(update={"backend": "openvino", "device": "cpu", "precision": "auto"})
    selection = replace(select_configured(bundle, embedded, info), reason="fallback")
    return Chosen(selection, cpu_device("the fallback engine runs on the CPU"))


def select_configured(bundle: Bundle, config: EngineConfig, info: RunInfo) -> Selection:
    """Open the engine for tiles of a run; its options are settings of the same names."""
    settings = config.model_dump(include={field.name for field in fields(EngineOptions)})
    return select_engine(
        bundle,
        backend=config.backend,
        shape=(info.height, info.width),
        options=EngineOptions(**settings, gpu=ON_GPU[config.device]),
        qualified=read_qualified(bundle.hash).engines if config.backend == "auto" else {},
    )
