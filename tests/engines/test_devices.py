"""Drivers and the kernels around a network: on every GPU there is, and on a double of the driver's library."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from engines import devices
from engines.buffered import HEADER, DeviceTile
from engines.devices.driver import whole_pages
from engines.devices.host import HostDriver
from engines.devices.probe import Cuda, CudaDevice, DriverLibrary, probe
from engines.errors import EngineError
from engines.kernels import ptx
from engines.kernels.launcher import KernelLauncher
from engines.network import centres
from engines.network.centres import read_centres
from engines.strips import Strip
from tests.doubles.kernels import HostKernels, driver_library

KERNELS = Path(devices.__file__).parent.parent / "kernels"
SOURCES = ("normalise", "readout", "strips")
DOUBLE = "DOUBLE_OF_CUDA"
"""Set where this file runs on the double."""

SHAPE = (37, 51)


def no_gpu():
    try:
        probe()
    except EngineError as error:
        return str(error)
    return None


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels' double needs g++")


def driver_class():
    """The driver class of GPUs, or a reason to skip."""
    if reason := no_gpu():
        pytest.skip(reason)
    pytest.importorskip("pycuda")
    return import_module("engines.devices.pycuda").PycudaDriver


@pytest.fixture
def open_driver():
    return driver_class()


@pytest.fixture
def driver(open_driver):
    opened = open_driver()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["host", "pycuda"])
def any_driver(request, library):
    """A host that runs the kernels' sources, or a GPU."""
    if request.param != "host":
        opened = driver_class()()
    elif shutil.which("g++") is not None:
        opened = HostKernels(library)
    else:
        pytest.skip("the kernels' double needs g++")
    yield opened
    opened.close()


@pytest.mark.skipif(find_spec("pycuda") is None, reason="pycuda is not installed")
@pytest.mark.skipif(DOUBLE in os.environ or no_gpu() is None, reason="there is a GPU, or its double")
@needs_compiler
def test_drivers_on_a_double_of_the_library(tmp_path):
    """These tests once more, in a process that finds the double where it looks for NVIDIA's library."""
    driver_library(tmp_path)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), DOUBLE: "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout
    assert int(re.findall(r"(\d+) passed", ended.stdout)[-1]) > 20, ended.stdout


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
def test_machine_without_a_driver_is_told_in_one_line():
    with pytest.raises(EngineError, match=r"^no NVIDIA driver: libcuda\.so\.1 not found$"):
        probe()
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        devices.open_cuda()


def test_device_that_is_not_there_is_refused():
    found = Cuda("580.1", (13, 0), (CudaDevice("a GPU", (9, 0)),))
    assert found.device(0).name == "a GPU"
    for index in (-1, 1):
        with pytest.raises(EngineError, match=f"^no GPU {index}: there are 1, counted from 0$"):
            found.device(index)


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 100_000])
def test_pages_are_whole_and_cleared(size):
    memory = whole_pages(size)
    assert memory.ctypes.data % 4096 == 0
    assert memory.nbytes % 4096 == 0
    assert 0 < memory.nbytes >= size
    assert not memory.any()
    assert memory[:size].ctypes.data == memory.ctypes.data


def test_host_runs_no_kernels():
    with pytest.raises(EngineError, match="no CUDA kernels"):
        HostDriver().kernels(ptx("normalise"), ["normalise"])


def test_gpu_is_described(driver):
    found = probe().devices[0]
    assert (driver.info.name, driver.info.compute_capability) == (found.name, found.compute_capability)
    assert driver.info.multiprocessors > 0
    assert driver.info.memory_bytes > 2**30
    assert driver.info.driver == probe().driver


def test_some_driver_is_opened():
    if reason := no_gpu():
        pytest.skip(reason)
    opened = devices.open_cuda()
    assert opened.info.name == probe().devices[0].name
    opened.close()
    with pytest.raises(EngineError, match="no GPU 99"):
        devices.open_cuda(99)


def synchronised(driver, stream):
    done = driver.event()
    driver.record(done, stream)
    driver.synchronize(done)


def put(driver, array):
    """A copy in device memory; its address."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    host, address, stream = driver.pinned(flat.size), driver.allocate(flat.size), driver.stream()
    host[:] = flat
    driver.upload(address, host, stream)
    synchronised(driver, stream)
    driver.unpin(host)
    return address


def got(driver, address, shape, kind):
    """A copy of device memory."""
    host, stream = driver.pinned(int(np.prod(shape)) * np.dtype(kind).itemsize), driver.stream()
    driver.download(host, address, stream)
    synchronised(driver, stream)
    copied = host.view(kind).reshape(shape).copy()
    driver.unpin(host)
    return copied


def test_what_is_copied_to_the_device_comes_back(driver):
    values = np.random.default_rng(1).random(100_001)
    address = put(driver, values)
    np.testing.assert_array_equal(got(driver, address, values.shape, values.dtype), values)
    stream = driver.stream()
    driver.clear(address, 80, stream)
    synchronised(driver, stream)
    assert not got(driver, address, 10, np.float64).any()
    assert got(driver, address, 11, np.float64)[10] == values[10]
    driver.free(address)


def test_nothing_is_copied_of_nothing(driver):
    address, host, stream = driver.allocate(0), driver.pinned(0), driver.stream()
    driver.upload(address, host, stream)
    driver.download(host, address, stream)
    driver.clear(address, 0, stream)
    synchronised(driver, stream)


def test_streams_wait_for_events_of_others(driver):
    first, second = driver.stream(), driver.stream()
    number = 2**24
    source, host, target = driver.pinned(number), driver.pinned(number), driver.allocate(number)
    for value in range(1, 6):
        source[:] = value
        uploaded = driver.event()
        driver.upload(target, source, first)
        driver.record(uploaded, first)
        driver.wait_for(uploaded, second)
        driver.download(host, target, second)
        synchronised(driver, second)
        assert (host == value).all()


def test_time_between_events_is_measured(driver):
    stream, size = driver.stream(), 2**26
    address = driver.allocate(size)
    start, stop = driver.event(timing=True), driver.event(timing=True)
    driver.record(start, stream)
    for _ in range(10):
        driver.clear(address, size, stream)
    driver.record(stop, stream)
    driver.synchronize(stop)
    assert 0 < driver.elapsed_ms(start, stop) < 1000


def test_stream_is_a_number_for_other_libraries(driver):
    assert isinstance(int(driver.stream()), int)
    assert int(driver.stream()) != 0


def test_another_thread_may_wait(driver):
    stream, done = driver.stream(), driver.event()
    driver.clear(driver.allocate(1000), 1000, stream)
    driver.record(done, stream)
    failed = []

    def wait():
        try:
            driver.attach()
            driver.synchronize(done)
            driver.detach()
        except EngineError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(60)
    assert not failed


def test_graph_does_again_what_was_captured(driver):
    stream = driver.stream()
    address = put(driver, np.ones(100, np.uint8))
    graph = driver.capture(stream, lambda: driver.clear(address, 50, stream))
    assert graph is not None
    assert got(driver, address, 100, np.uint8).sum() == 100, "what is captured does not run"
    driver.replay(graph, stream)
    synchronised(driver, stream)
    assert got(driver, address, 100, np.uint8).sum() == 50


def test_what_cannot_be_captured_gives_no_graph_and_leaves_the_stream_usable(driver):
    stream, address = driver.stream(), driver.allocate(100)

    def refused():
        driver.clear(address, 10, stream)
        raise EngineError("refused")

    assert driver.capture(stream, refused) is None

    def wrong():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        driver.capture(stream, wrong)
    driver.clear(address, 100, stream)
    synchronised(driver, stream)
    assert not got(driver, address, 100, np.uint8).any()


@pytest.mark.skipif(DOUBLE not in os.environ, reason="only the double cannot capture a launch")
def test_what_the_device_does_not_capture_gives_no_graph(driver):
    stream = driver.stream()
    (kernel,) = driver.kernels(ptx("strips"), ["keep_rows"]).values()
    values = (0, 0, *[np.int32(0)] * 6)
    launch = partial(driver.launch, kernel, grid=(1, 1, 1), block=32, arguments=values, stream=stream)
    assert driver.capture(stream, launch) is None
    launch()


def test_memory_that_there_is_not_is_refused_and_the_device_goes_on(driver):
    with pytest.raises(EngineError, match=r"^GPU: cuMemAlloc.*(CUDA_ERROR_OUT_OF_MEMORY|out of memory)"):
        driver.allocate(2**50)
    assert got(driver, put(driver, np.arange(5)), 5, np.int64).tolist() == [0, 1, 2, 3, 4]


def test_what_is_no_kernel_is_refused(driver):
    with pytest.raises(EngineError, match=r"^GPU: cuModuleLoadData"):
        driver.kernels(b"no PTX", ["normalise"])
    with pytest.raises(EngineError, match=r"^GPU: cuModuleGetFunction"):
        driver.kernels(ptx("normalise"), ["nothing"])


def test_more_shared_memory_than_the_device_has_is_refused(driver):
    (kernel,) = driver.kernels(ptx("strips"), ["keep_rows"]).values()
    values = [np.int32(0)] * 6
    for shared in (64 * 1024, 0):
        driver.launch(
            kernel, grid=(1, 1, 1), block=32, arguments=(0, 0, *values), stream=driver.stream(), shared=shared
        )
    with pytest.raises(EngineError, match=r"^GPU: cuFuncSetAttribute"):
        driver.launch(kernel, grid=(1, 1, 1), block=32, arguments=(0, 0, *values), stream=driver.stream(), shared=2**20)


def test_arrays_outlive_the_driver(open_driver):
    driver = open_driver()
    memory = driver.pinned(10_000)
    memory[:] = 3
    driver.allocate(1000)
    driver.kernels(ptx("normalise"), ["normalise"])
    driver.event()
    driver.stream()
    driver.close()
    driver.close()
    assert memory.sum() == 30_000
    again = open_driver()
    assert got(again, put(again, memory), 10_000, np.uint8).sum() == 30_000
    again.close()


@pytest.mark.skipif(DOUBLE not in os.environ, reason="only the double counts")
def test_nothing_stays_on_the_device(open_driver):
    import ctypes

    live = ctypes.CDLL("libcuda.so.1").double_live
    assert live() == 0
    driver = open_driver()
    stream, address = driver.stream(), put(driver, np.ones(10))
    driver.kernels(ptx("normalise"), ["normalise"])
    driver.capture(stream, lambda: driver.clear(address, 10, stream))
    driver.pinned(100)
    assert live() >= 7
    driver.close()
    assert live() == 0


def test_error_of_the_library_names_the_call():
    if reason := no_gpu():
        pytest.skip(reason)
    with pytest.raises(EngineError, match=r"^GPU: cuMemHostUnregister: (CUDA_ERROR_\w+|error \d+)$"):
        DriverLibrary().call("cuMemHostUnregister", None)


def tile_of(driver, *, positions, probabilities, pixels, offset, gain, capacity):
    header = np.zeros(1, HEADER)
    header["offset"], header["gain"], header["clusters"] = offset, gain, positions.shape[1]
    return DeviceTile(
        header=put(driver, header),
        pixels=put(driver, pixels),
        positions=put(driver, positions),
        centres=put(driver, np.full((capacity, 4), 7, np.float32)),
        capacity=capacity,
        probabilities=put(driver, probabilities),
        superresolved=0,
    )


@pytest.fixture(scope="module")
def numbers():
    random = np.random.default_rng(1)
    return {
        "positions": random.uniform(-8, 60, (4, 300, 2)).astype(np.float32),
        "probabilities": random.random((5, *SHAPE), np.float32),
        "pixels": random.integers(0, 2**16, (4, *SHAPE), np.uint16),
        "offset": np.array([90, 100, 110, 120], np.float32),
        "gain": np.array([0.01, 0.012, 0.3, 1e-6], np.float32),
        "capacity": 1000,
    }


@pytest.mark.parametrize("strip", [Strip(0, 37, 0, 37), Strip(11, 30, 14, 27)])
def test_pixels_are_normalised_to_the_bit(any_driver, numbers, strip):
    rows = strip.input_stop - strip.input_start
    images = put(any_driver, np.zeros((4, rows, SHAPE[1]), np.float16))
    tile, stream = tile_of(any_driver, **numbers), any_driver.stream()
    KernelLauncher(any_driver, shape=SHAPE).normalise(tile, strip, images, stream)
    synchronised(any_driver, stream)
    counts = numbers["pixels"][:, strip.input_start : strip.input_stop].astype(np.float32)
    expected = (counts - numbers["offset"][:, None, None]) * numbers["gain"][:, None, None]
    found = got(any_driver, images, (4, rows, SHAPE[1]), np.float16)
    np.testing.assert_array_equal(found, expected.astype(np.float16))


def test_positions_are_read_out_as_on_the_processor(any_driver, numbers):
    tile, stream = tile_of(any_driver, **numbers), any_driver.stream()
    KernelLauncher(any_driver, shape=SHAPE).read_out(tile, stream)
    synchronised(any_driver, stream)
    found = got(any_driver, tile.centres, (1000, 4), np.float32)
    np.testing.assert_allclose(found[:300], read_centres(numbers["probabilities"], numbers["positions"]), atol=2e-6)
    assert (found[300:] == 7).all(), "nothing is written beyond the last cluster"


def test_position_that_is_no_number_reads_nothing(any_driver, numbers):
    positions = np.full((4, 3, 2), np.nan, np.float32)
    positions[:, 1] = np.inf
    positions[:, 2] = -np.inf
    tile, stream = tile_of(any_driver, **{**numbers, "positions": positions}), any_driver.stream()
    KernelLauncher(any_driver, shape=SHAPE).read_out(tile, stream)
    synchronised(any_driver, stream)
    assert not got(any_driver, tile.centres, (3, 4), np.float32).any()


@pytest.mark.parametrize("scale", [1, 2])
def test_rows_that_are_kept_are_laid_in_place(any_driver, scale):
    strip, (height, width) = Strip(11, 30, 14, 27), SHAPE
    source = np.random.default_rng(1).random((5, 19 * scale, width * scale), np.float32)
    target = np.zeros((5, height * scale, width * scale), np.float32)
    at, stream = put(any_driver, target), any_driver.stream()
    KernelLauncher(any_driver, shape=SHAPE).copy_kept_rows(
        put(any_driver, source), at, strip, stream, planes=5, scale=scale
    )
    synchronised(any_driver, stream)
    target[:, 14 * scale : 27 * scale] = source[:, 3 * scale : 16 * scale]
    np.testing.assert_array_equal(got(any_driver, at, target.shape, np.float32), target)


def test_constants_of_the_read_out_are_the_same():
    source = (KERNELS / "readout.cu").read_text()
    assert f"READ_SIGMA_PX = {centres.READ_SIGMA_PX}f;" in source
    assert f"FIRST_TAP = {centres.TAPS[0]}, TAPS = {len(centres.TAPS)};" in source
    assert f"OUTSIDE_PX = {centres.OUTSIDE_PX}.f;" in source


def instructions(text):
    """PTX without comments: what a compiler says about itself is no part of the kernel."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("//")]


@pytest.mark.parametrize("name", SOURCES)
def test_ptx_was_compiled_from_the_source(name):
    """``make kernels`` compiles it anew."""
    source = (KERNELS / f"{name}.cu").read_bytes() + (KERNELS / "header.cuh").read_bytes()
    compiled = ptx(name).decode()
    assert compiled.splitlines()[0] == f"// {hashlib.sha256(source).hexdigest()}"
    command = source.decode().splitlines()[0].removeprefix("// ").split()
    version = re.search(r"release [\d.]+, (V[\d.]+)", compiled)
    assert version is not None
    compiler = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if compiler is None:
        return
    told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    if version[1] not in told:
        return
    again = subprocess.run(
        [compiler, *command[1:], "-o", "-", str(KERNELS / f"{name}.cu")], capture_output=True, text=True, check=True
    )
    assert instructions(again.stdout) == instructions(compiled)
