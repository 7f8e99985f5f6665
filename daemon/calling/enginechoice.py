"""Chooses a run's engine and the device of the joint fit.

They are those of the configuration, those with which the run was begun, or the fallback.
"""

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

BEGUN_WITH = "the same as when the run was begun"


@dataclass(frozen=True)
class EngineChoice:
    """An open engine and the device on which the joint fit runs."""

    selection: Selection
    fit_device: FitDevice

    @property
    def facts(self) -> dict[str, object]:
        """The properties that decide the calls: with equal properties, the same images give the same calls."""
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
) -> EngineChoice:
    """Open the engine of a configuration and choose the fit device.

    Parameters
    ----------
    begun_with : facts of the engine with which the run was begun. They decide the fit device and, if the configured
        backend is ``auto``, the engine.

    Raises
    ------
    EngineError, EngineLostError : the engine cannot be opened.
    """
    if begun_with is None:
        refusal = read_qualified(bundle.hash).cupy.refusal
        return EngineChoice(select_configured(bundle, config, info), choose_fit_device(refusal=refusal))
    if config.backend == "auto":
        begun = {"backend": begun_with["backend"], "device": "gpu" if begun_with["gpu"] else "cpu"}
        selection = select_configured(bundle, config.model_copy(update=begun), info)
        selection = replace(selection, reason=BEGUN_WITH)
    else:
        selection = select_configured(bundle, config, info)
    return EngineChoice(selection, choose_fit_device(refusal="" if begun_with.get("fit") == "gpu" else BEGUN_WITH))


def choose_fallback(bundle: Bundle, config: EngineConfig, info: RunInfo) -> EngineChoice:
    """Open the embedded engine, with the joint fit on the CPU too; threads, slots and strips are as configured.

    Raises
    ------
    EngineError : the engine cannot be opened.
    """
    embedded = config.model_copy(update={"backend": "openvino", "device": "cpu", "precision": "auto"})
    selection = replace(select_configured(bundle, embedded, info), reason="fallback")
    return EngineChoice(selection, cpu_device("the fallback engine runs on the CPU"))


def select_configured(bundle: Bundle, config: EngineConfig, info: RunInfo) -> Selection:
    """Open the engine for tiles of a run. Each of its options has the value of the setting with the same name."""
    settings = config.model_dump(include={field.name for field in fields(EngineOptions)})
    return select_engine(
        bundle,
        backend=config.backend,
        shape=(info.height, info.width),
        options=EngineOptions(**settings, gpu=ON_GPU[config.device]),
        qualified=read_qualified(bundle.hash).engines if config.backend == "auto" else {},
    )
