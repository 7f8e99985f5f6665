"""The device of a training, and its precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from calib.offline.training.settings import Device, Precision, SettingsError


def choose_device(wanted: Device, *, local_rank: int = 0) -> torch.device:
    """The device of a process.

    Parameters
    ----------
    local_rank : number of this process on its machine; each process has its own GPU.

    Raises
    ------
    SettingsError : the settings or this process need a GPU that does not exist.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted is Device.CPU or (wanted is Device.AUTO and gpus == 0):
        return torch.device("cpu")
    if local_rank >= gpus:
        raise SettingsError(f"device {wanted}: process {local_rank} of this machine needs a GPU, PyTorch sees {gpus}")
    return torch.device("cuda", local_rank)


def choose_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    """Precision of the convolutions on a device."""
    explicit = {Precision.F32: torch.float32, Precision.BF16: torch.bfloat16, Precision.F16: torch.float16}
    if wanted is not Precision.AUTO:
        return explicit[wanted]
    return torch.bfloat16 if _computes_bf16(device) else torch.float32


def _computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply BF16 without conversion to FP32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


@dataclass(frozen=True)
class Process:
    """One of the processes that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and shows progress."""
        return self.rank == 0

    def share(self, patches: int) -> range:
        """Indices of the patches of a step that this process computes.

        Raises
        ------
        SettingsError : they cannot be dealt out evenly.
        """
        each, rest = divmod(patches, self.size)
        if rest:
            raise SettingsError(f"batch {patches}: {self.size} processes need a multiple of {self.size}")
        return range(self.rank * each, (self.rank + 1) * each)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same bits in each."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def parallel(self, model: nn.Module) -> Any:  # noqa: ANN401 (a module, which takes any arguments)
        """The module with its gradients averaged over the processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)


@contextmanager
def join_processes(wanted: Device) -> Iterator[Process]:
    """Join the processes that ``torchrun`` started, or work alone without it.

    Raises
    ------
    SettingsError : this process has no such device.
    """
    if not distributed.is_torchelastic_launched():
        yield Process(choose_device(wanted))
        return
    device = choose_device(wanted, local_rank=int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
