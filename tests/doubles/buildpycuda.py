"""Builds and installs pycuda where there is neither CUDA nor a GPU, so that its driver is tested on the double.

The headers come from NVIDIA's packages on PyPI; the double is the library that pycuda is linked to. A machine
with NVIDIA's driver finds that driver instead, since both have the same name.
"""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.doubles.kernels import driver_library

INCLUDE = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "include"


def main():
    if find_spec("pycuda") is not None or shutil.which("g++") is None:
        return
    pip = [sys.executable, "-m", "pip", "-q"]
    with tempfile.TemporaryDirectory() as folder:
        library = driver_library(folder)
        (library.parent / "libcuda.so").symlink_to(library.name)
        subprocess.run([*pip, "download", "--no-deps", "--no-binary=pycuda", "-d", folder, "pycuda"], check=True)
        (packed,) = Path(folder).glob("pycuda-*.tar.gz")
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
        source = packed.with_name(packed.name.removesuffix(".tar.gz"))
        settings = {
            "CUDA_ROOT": str(INCLUDE.parent),
            "CUDA_INC_DIR": [str(INCLUDE)],
            "CUDADRV_LIB_DIR": [folder],
            "CUDADRV_LIBNAME": ["cuda"],
            "CUDA_ENABLE_CURAND": False,
            "CXXFLAGS": ["-O0", "-g0"],
        }
        (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
        subprocess.run([*pip, "install", str(source)], check=True)


if __name__ == "__main__":
    main()
