"""The plan that a bundle needs on a GPU: from the cache, or built."""

from pathlib import Path

from engines.bundles.bundle import Bundle
from engines.contract import EngineOptions
from engines.devices.driver import DeviceInfo
from engines.errors import EngineError
from engines.strips import Strip, plan_strips
from engines.tensorrt.api import TensorRT, can_build
from engines.tensorrt.build import build_plan, cut_graph
from engines.tensorrt.cache import KeptPlan, PlanCache, PlanKey


class Plans:
    """The plans of a bundle on a GPU, for tiles of one shape (H, W)."""

    def __init__(
        self,
        trt: TensorRT,
        device: DeviceInfo,
        bundle: Bundle,
        *,
        shape: tuple[int, int],
        options: EngineOptions,
        folder: Path,
    ) -> None:
        if options.precision not in ("auto", "f16"):
            raise EngineError(f"engine tensorrt: it does not compute in {options.precision}; it does in f16")
        if options.gpu is False:
            raise EngineError("engine tensorrt: it runs on a GPU, and gpu = false was asked for")
        height, width = shape
        halo = bundle.model.architecture.halo
        # The halo of every strip is computed twice. A GPU has enough memory for whole tiles, so it computes these.
        most_px = options.strip_px or height * width
        self.strips: list[Strip] = plan_strips(height=height, width=width, halo=halo, most_px=most_px)
        self._trt, self._device, self._bundle, self._width = trt, device, bundle, width
        self._cache = PlanCache(folder)

    def key(self, *, superresolved: bool) -> PlanKey:
        """The key of the plan in the cache."""
        return PlanKey(
            graph=self._bundle.model.hashes.network,
            tensorrt=self._trt.__version__,
            gpu=self._device.name,
            compute_capability=self._device.compute_capability,
            driver=self._device.driver,
            rows=self.strips[0].input_stop - self.strips[0].input_start,
            width=self._width,
            superresolved=superresolved,
        )

    def kept(self, *, superresolved: bool) -> KeptPlan | None:
        """The plan, or None if it has not been built; raises :class:`EngineError` if its file is not trusted or was
        altered.
        """
        return self._cache.find(self.key(superresolved=superresolved))

    def plan(self, *, superresolved: bool) -> KeptPlan:
        """The plan; building it takes minutes.

        Raises
        ------
        EngineError : the kept plan is not trusted or was altered; or there is none, and it cannot be built.
        """
        key = self.key(superresolved=superresolved)
        if (kept := self._cache.find(key)) is not None:
            return kept
        if not can_build(self._trt):
            raise EngineError(
                f"no plan for {key} in {self._cache.folder}, and the lean runtime cannot build one: "
                "run `seqd build` where the full TensorRT is installed"
            )
        graph = cut_graph(self._bundle.network, key)
        with self._cache.build_lock():
            if (kept := self._cache.find(key)) is not None:  # Another process built it while this one waited.
                return kept
            # Kernels may use half of the memory as workspace; the activations of all layers need the other half.
            workspace = self._device.memory_bytes // 2
            built = build_plan(self._trt, graph, workspace_bytes=workspace, timing=self._cache.timing(key))
            return self._cache.store(key, built)
