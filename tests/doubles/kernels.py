"""The kernels' sources, compiled for the processor: what a GPU would run, on memory of the host."""

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np

from engines.devices.host import HostDriver

FOLDER = Path(__file__).parent
SOURCES = FOLDER.parent.parent / "engines" / "kernels"
NAMES = ("normalise", "readout", "strips")


class HostKernels(HostDriver):
    """A host that runs the kernels around a network."""

    def __init__(self, folder):
        super().__init__()
        self._library = ctypes.CDLL(str(compiled(folder)))

    def kernels(self, ptx, names):
        assert b".visible .entry" in ptx
        return {name: getattr(self._library, f"run_{name}") for name in names}

    def launch(self, kernel, *, grid, block, arguments, stream, shared=0):
        values = [np.asarray(value if isinstance(value, np.generic) else np.uint64(value)) for value in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        kernel(addresses, *map(ctypes.c_uint, grid), ctypes.c_uint(block))


def compiled(folder):
    """A library of all kernels; compiled once a folder."""
    library = Path(folder) / "kernels.so"
    if not library.exists():
        _compile(library, kernels_source())
    return library


def driver_library(folder):
    """A double of NVIDIA's driver library that runs all kernels, as the file that a process loads."""
    library = Path(folder) / "libcuda.so.1"
    _compile(library, kernels_source() + (FOLDER / "libcuda.cpp").read_text())
    return library


def kernels_source():
    """C++ of all kernels, and of functions that run every thread of one."""
    # Included first, or what the kernels include would end up in their namespaces.
    lines = ["#include <cstdint>", '#include "cuda_fp16.h"', '#include "on_host.h"']
    for name in NAMES:
        source = SOURCES / f"{name}.cu"
        lines.append(f'namespace {name} {{\n#include "{source}"\n}}')
        for kernel in re.findall(r"__global__ void (\w+)\(", source.read_text()):
            lines.append(
                f'extern "C" void run_{kernel}(void** at, unsigned x, unsigned y, unsigned z, unsigned block) '
                f"{{ run_all({name}::{kernel}, at, {{x, y, z}}, block); }}\n"
                f'extern "C" const unsigned* sizes_{kernel}() {{ return sizes_of({name}::{kernel}); }}'
            )
    return "\n".join(lines) + "\n"


def _compile(library, source):
    command = ["g++", "-std=c++17", "-shared", "-fPIC", "-O2", "-x", "c++", f"-I{FOLDER}", "-o", str(library), "-"]
    subprocess.run([*command, f"-Wl,-soname,{library.name}", "-ldl"], input=source, text=True, check=True)
