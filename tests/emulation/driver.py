"""A driver whose kernels are compiled for the processor and run on an emulated GPU; see ``machine.h``."""

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np

from engines.devices.driver import DeviceInfo
from engines.errors import EngineError
from tests.doubles.kernels import HostKernels

KERNELS = Path(__file__).parents[2] / "engines" / "kernels"
HERE = Path(__file__).parent
INCLUDES = next(
    (path for path in (Path("/usr/local/cuda/include"), Path("/usr/include")) if (path / "cuda_fp16.h").exists()), None
)
COMPILER = shutil.which("g++")

MISSING = (
    "g++ is not installed" if COMPILER is None else "CUDA's headers are not installed" if INCLUDES is None else None
)
"""Why nothing can be emulated here."""

POISON = 0x7B
GUARD = 1 << 16
"""Bytes before and after all device memory that nothing may write to."""

ALIGNMENT = 256
"""Of device memory, as CUDA allocates it."""


class _Dim(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in "xyz"]


class _Launch(ctypes.Structure):
    """``machine::Launch``."""

    _fields_ = [
        ("grid", _Dim),
        ("threads", ctypes.c_uint32),
        ("shared", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("memory", ctypes.c_void_p),
        ("ranges", ctypes.c_uint64),
        ("sizes", ctypes.c_void_p),
        ("arguments", ctypes.c_uint64),
    ]


class EmulatedDriver(HostKernels):
    """A GPU of compute capability 9.0 on host memory; kernels that need no such GPU run without the emulation.

    Device memory begins poisoned, and stores beside it are found after every launch.

    Parameters
    ----------
    folder : for compiled libraries, which are kept.
    seed : of the order in which threads, copies and matrix instructions run.
    sources : folder of the kernels' sources and of what they were compiled to.
    """

    def __init__(self, folder, *, seed=0, multiprocessors=2, sources=KERNELS):
        super().__init__(folder)
        self.info = DeviceInfo("emulated Hopper", (9, 0), multiprocessors, 1 << 34, "none")
        self._folder, self._seeds, self._sources = folder, np.random.default_rng(seed), sources
        self._whole, self._emulated = {}, {}

    def allocate(self, size):
        whole = np.full(size + 2 * GUARD + ALIGNMENT, POISON, np.uint8)
        first = GUARD + -(whole.ctypes.data + GUARD) % ALIGNMENT
        memory = whole[first : first + size]
        address = int(whole.ctypes.data) + first
        self._memory[address], self._whole[address] = memory, (whole, first, size)
        return address

    def free(self, address):
        super().free(address)
        del self._whole[address]

    def kernels(self, ptx, names):
        if b".visible .entry" in ptx:
            return super().kernels(ptx, names)
        library = ctypes.CDLL(str(_compiled(self._source_of(ptx), tuple(names), self._folder)))
        found = {name: getattr(library, f"emulated_{name}") for name in names}
        for function in found.values():
            function.restype = ctypes.c_char_p
        self._emulated.update(found)
        return found

    def launch(self, kernel, *, grid, block, arguments, stream, shared=0):
        if kernel in self._emulated.values():
            self._emulate(kernel, grid, block, arguments, shared)
        else:
            super().launch(kernel, grid=grid, block=block, arguments=arguments, stream=stream, shared=shared)
        for whole, first, size in self._whole.values():
            for guard in (whole[first - GUARD : first], whole[first + size : first + size + GUARD]):
                if (guard != POISON).any():
                    raise EngineError(f"a store beside {size} bytes of device memory")

    def close(self):
        super().close()
        self._whole.clear()

    def _emulate(self, kernel, grid, block, arguments, shared):
        values = [np.asarray(value if isinstance(value, np.generic) else np.uint64(value)) for value in arguments]
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        sizes = np.array([value.nbytes for value in values], np.uint64)
        memory = np.array([(address, len(array)) for address, array in self._memory.items()], np.uint64).reshape(-1, 2)
        launch = _Launch(
            _Dim(*grid),
            block,
            shared,
            int(self._seeds.integers(1 << 62)),
            memory.ctypes.data,
            len(memory),
            sizes.ctypes.data,
            len(sizes),
        )
        error = kernel(ctypes.byref(launch), ctypes.c_void_p(pointers.ctypes.data))
        if error is not None:
            raise EngineError(f"kernel {kernel.__name__.removeprefix('emulated_')}: {error.decode()}")

    def _source_of(self, compiled):
        """The source of machine code or PTX."""
        for path in self._sources.iterdir():
            if path.suffix in (".cubin", ".ptx") and path.read_bytes() == compiled:
                return path.with_suffix(".cu")
        raise EngineError("machine code of no source here")


def _compiled(source, names, folder):
    """The library of a source's kernels."""
    headers = sorted([*HERE.glob("*.h"), *HERE.glob("*.cuh"), *source.parent.glob("*.cuh")])
    library = folder / f"{source.stem}-{_hash([source, HERE / 'machine.cpp', *headers])}.so"
    if library.exists():
        return library
    machine = folder / f"machine-{_hash([HERE / 'machine.cpp', HERE / 'machine.h'])}.o"
    if not machine.exists():
        _compile(machine, "-O2", "-march=native", "-c", str(HERE / "machine.cpp"))
    # A copy, so that what is included from beside the source is looked for in the stand-ins first.
    shutil.copy(source, folder / source.name)
    main = folder / f"{source.stem}.cpp"
    kernels = "".join(f"EMULATED({name})\n" for name in names)
    main.write_text(f'#include "cuda_on_host.h"\n#include "{source.name}"\n{kernels}', "utf-8")
    _compile(library, "-O1", "-shared", f"-I{HERE}", f"-I{source.parent}", str(main), str(machine))
    return library


def _compile(to, *arguments):
    fresh = to.with_name(f"fresh-{to.name}")
    command = [COMPILER, "-std=c++20", "-fno-strict-aliasing", "-fPIC", "-w", "-isystem", str(INCLUDES)]
    done = subprocess.run([*command, *arguments, "-o", str(fresh)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{arguments[-1]}: {done.stderr}")
    fresh.rename(to)


def _hash(paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
