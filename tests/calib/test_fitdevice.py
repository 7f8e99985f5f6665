import re
import sys
from itertools import count
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from calib.jointfit.fitcycle import fit_cycle
from calib.jointfit.fitdevice import STILL, choose_place, crowded_tile
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
    place = choose_place()
    assert (place.name, place.reason) == ("cpu", "CuPy is not installed")
    images, scene = crowded_tile(64, 284)
    np.testing.assert_array_equal(place.fit(images, scene, STILL).light, fit_cycle(images, scene, STILL).light)


def test_cupy_that_cannot_be_loaded_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise RuntimeError('CUDA 99 is needed\\nbetter read the manual')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert (choose_place().name, choose_place().reason) == ("cpu", "CuPy cannot be loaded: CUDA 99 is needed")


def test_without_a_gpu_cycles_are_fitted_on_the_cpu(cupy):
    cupy.cuda.is_available = lambda: False
    assert (choose_place().name, choose_place().reason) == ("cpu", "CuPy finds no GPU")


def test_a_gpu_that_fits_as_the_cpu_does_is_used(cupy):
    place = choose_place()
    assert place.name == "gpu"
    images, scene = crowded_tile(64, 284)
    np.testing.assert_array_equal(place.fit(images, scene, STILL).light, fit_cycle(images, scene, STILL).light)


def test_a_gpu_that_fits_otherwise_is_not_used(cupy):
    cupy.asarray = lambda images: np.float32(1.01) * images
    place = choose_place()
    assert place.name == "cpu"
    assert re.fullmatch(
        r"CuPy's fit of a trial tile is off by 0\.0\d+ of a cluster's light, at most 0\.001 is allowed", place.reason
    )


def test_a_gpu_that_gives_other_bits_each_time_is_not_used(cupy):
    times = count()
    cupy.asarray = lambda images: images + np.float32(1e-6 * next(times))
    assert choose_place().reason == "CuPy fits a trial tile in two ways, so that a restart would change bytes"


def test_a_gpu_that_fails_is_not_used_and_fails_only_its_cycle(cupy):
    place = choose_place()

    def fails(images):
        if images.size == 1:
            return images
        raise MemoryError("out of memory allocating 7 bytes\nof very few")

    cupy.asarray = fails
    assert choose_place().reason == "CuPy fails: joint fit on the GPU: MemoryError: out of memory allocating 7 bytes"
    images, scene = crowded_tile(64, 284)
    object.__setattr__(place, "put", fails)
    with pytest.raises(
        EngineError, match=r"joint fit on the GPU: MemoryError: out of memory allocating 7 bytes$"
    ) as caught:
        place.fit(images, scene, STILL)
    assert not isinstance(caught.value, EngineLostError)


def test_a_gpu_that_fails_at_everything_is_lost(cupy):
    place = choose_place()

    def gone(images):
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    object.__setattr__(place, "put", gone)
    with pytest.raises(
        EngineLostError, match=r"^joint fit on the GPU: RuntimeError: cudaErrorIllegalAddress: an illegal"
    ):
        place.fit(*crowded_tile(64, 284), STILL)
