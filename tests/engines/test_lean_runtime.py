"""The real lean runtime: its names anywhere, what it refuses on a GPU."""

import subprocess
import sys

import pytest

from engines.devices.probe import probe
from engines.errors import EngineError
from engines.tensorrt import api
from engines.tensorrt.api import Log

trt = pytest.importorskip("tensorrt_lean_bindings")

ONLY_TO_BUILD = {"Builder", "OnnxParser", "NetworkDefinitionCreationFlag"}


def test_names_are_those_of_the_lean_runtime():
    def names(protocol):
        return {name for name in (*vars(protocol), *protocol.__annotations__) if not name.startswith("_")}

    assert {name for name in names(api.TensorRT) if not hasattr(trt, name)} == ONLY_TO_BUILD
    for protocol, real in (
        (api.Runtime, trt.Runtime),
        (api.CudaEngine, trt.ICudaEngine),
        (api.Context, trt.IExecutionContext),
    ):
        assert not {name for name in names(protocol) if not hasattr(real, name)}
    for enumeration, members in (
        (trt.DataType, {"HALF", "FLOAT"}),
        (trt.BuilderFlag, {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}),
        (trt.MemoryPoolType, {"WORKSPACE"}),
        (trt.ProfilingVerbosity, {"DETAILED"}),
        (trt.LayerInformationFormat, {"JSON"}),
    ):
        assert members <= set(enumeration.__members__)
    assert not api.can_build(trt)


def test_full_library_that_cannot_be_loaded_is_told_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise RuntimeError('built for another Python\\nsee above')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"^TensorRT: tensorrt cannot be loaded: built for another Python$"):
        api.load_tensorrt()


def test_errors_of_the_real_library_reach_the_log():
    log = Log(trt)

    def fail():
        log.logger.log(trt.ILogger.WARNING, "less")
        log.logger.log(trt.ILogger.INTERNAL_ERROR, "Error Code 2\nin detail")
        return False

    with pytest.raises(EngineError, match=r"^TensorRT: this failed: Error Code 2$"):
        log.check("this", fail)
    log.check("that", lambda: True)


def test_lean_runtime_is_found_where_the_full_library_is_not():
    found = api.load_tensorrt()
    assert found.__version__.split(".")[0] in ("10", "11")


def has_gpu():
    try:
        return bool(probe().devices)
    except EngineError:
        return False


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("content", ["b''", "bytes(4096)", "b'ftrt' + random.Random(1).randbytes(100_000)"])
def test_real_runtime_refuses_what_is_no_plan(content):
    """In a process of its own: a crash would be one."""
    program = f"""
import random
from engines.devices import open_cuda
from engines.errors import EngineError
from engines.tensorrt.api import load_tensorrt
from engines.tensorrt.api import LoadedPlan
driver = open_cuda()
try:
    LoadedPlan(load_tensorrt(), {content})
except EngineError as error:
    print(error)
driver.close()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("TensorRT: loading a plan failed")
    assert len(ended.stdout.splitlines()) == 1
