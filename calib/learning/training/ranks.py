"""The processes of a data-parallel training, as ``torchrun`` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from calib.learning.training.hardware import choose_device
from calib.learning.training.settings import Device, SettingsError


@dataclass(frozen=True)
class Ranks:
    """A process among those that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and shows progress."""
        return self.rank == 0

    def share(self, patches: int) -> range:
        """Which of the patches of a step are this process's.

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

    def parallel(self, model: nn.Module) -> Any:  # noqa: ANN401 (a module, called with whatever it takes)
        """The module with its gradients averaged over the processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)


@contextmanager
def joined(wanted: Device) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, or stand alone without it.

    Raises
    ------
    SettingsError : this process has no such device.
    """
    if not distributed.is_torchelastic_launched():
        yield Ranks(choose_device(wanted))
        return
    device = choose_device(wanted, local_rank=int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
