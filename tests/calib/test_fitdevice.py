import re
import sys
from itertools import count
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from calib.jointfit.fitcycle import fit_cycle
from calib.jointfit.fitdevice import NO_DRIFT, choose_fit_device, crowded_tile
from engines.errors import EngineError, EngineLostError


@pytest.fixture
def cupy(monkeypatch):
    """Stands in for CuPy and its GPU: arrays put there are NumPy's."""
    module = ModuleType("cupy")
    module.cuda = SimpleNamespace(is_available=lambda: True)
    module.asarray = np.asarray
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_without_cupy_cycles_are_fitted_on_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    device = choose_fit_device()
    assert (device.name, device.reason) == ("cpu", "CuPy is not installed")
    images, scene = crowded_tile(64, 284)
    np.testing.assert_array_equal(device.fit(images, scene, NO_DRIFT).light, fit_cycle(images, scene, NO_DRIFT).light)


def test_cupy_that_cannot_be_loaded_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise RuntimeError('CUDA 99 is needed\\nbetter read the manual')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert (choose_fit_device().name, choose_fit_device().reason) == ("cpu", "CuPy cannot be loaded: CUDA 99 is needed")


def test_without_a_gpu_cycles_are_fitted_on_the_cpu(cupy):
    cupy.cuda.is_available = lambda: False
    assert (choose_fit_device().name, choose_fit_device().reason) == ("cpu", "CuPy finds no GPU")


def test_a_gpu_that_fits_as_the_cpu_does_is_used(cupy):
    device = choose_fit_device()
    assert device.name == "gpu"
    images, scene = crowded_tile(64, 284)
    np.testing.assert_array_equal(device.fit(images, scene, NO_DRIFT).light, fit_cycle(images, scene, NO_DRIFT).light)


def test_a_gpu_that_fits_otherwise_is_not_used(cupy):
    cupy.asarray = lambda images: np.float32(1.01) * images
    device = choose_fit_device()
    assert device.name == "cpu"
    assert re.fullmatch(
        r"the fit of a trial tile is off by 0\.0\d+ of a cluster's light, at most 0\.001 is allowed", device.reason
    )


def test_a_gpu_that_gives_other_bits_each_time_is_not_used(cupy):
    times = count()
    cupy.asarray = lambda images: images + np.float32(1e-6 * next(times))
    assert (
        choose_fit_device().reason
        == "two fits of the same trial tile differ, so a restart would change the bytes of later calls"
    )


def test_a_gpu_that_fails_is_not_used_and_fails_only_its_cycle(cupy):
    device = choose_fit_device()

    def fails(images):
        if images.size == 1:
            return images
        raise MemoryError("out of memory allocating 7 bytes\nof very few")

    cupy.asarray = fails
    assert choose_fit_device().reason == "joint fit on the GPU: MemoryError: out of memory allocating 7 bytes"
    images, scene = crowded_tile(64, 284)
    object.__setattr__(device, "to_device", fails)
    with pytest.raises(
        EngineError, match=r"joint fit on the GPU: MemoryError: out of memory allocating 7 bytes$"
    ) as caught:
        device.fit(images, scene, NO_DRIFT)
    assert not isinstance(caught.value, EngineLostError)


def test_a_gpu_that_fails_at_everything_is_lost(cupy):
    device = choose_fit_device()

    def gone(images):
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    object.__setattr__(device, "to_device", gone)
    with pytest.raises(
        EngineLostError, match=r"^joint fit on the GPU: RuntimeError: cudaErrorIllegalAddress: an illegal"
    ):
        device.fit(*crowded_tile(64, 284), NO_DRIFT)
