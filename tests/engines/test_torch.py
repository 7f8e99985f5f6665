"""PyTorch's program on memory that a driver allocated, where PyTorch refuses."""

import numpy as np
import pytest

from engines.backends import EngineOptions
from engines.backends.torch import open_runner
from engines.buffered import HEADER
from engines.bundles.bundle import load_bundle
from engines.devices.host import HostDriver
from engines.errors import EngineError


def test_what_pytorch_refuses_is_an_error_of_the_engine_in_one_line(tiny_bundle):
    driver = HostDriver()
    runner = open_runner(driver, load_bundle(tiny_bundle), shape=(8, 8), options=EngineOptions(precision="f32"))
    tile = runner.buffers().device
    header = np.zeros(1, HEADER)
    header["clusters"] = -1
    driver.upload(tile.header, header.view(np.uint8), driver.stream())
    with pytest.raises(EngineError, match=r"^[^\n]*bound[^\n]*$"):
        runner._program.enqueue(tile, driver.stream())
    runner.close()
