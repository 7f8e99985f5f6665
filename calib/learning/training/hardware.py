"""What a training computes on, and in which precision."""

import torch

from calib.learning.training.settings import Device, Precision, SettingsError


def choose_device(wanted: Device, *, local_rank: int = 0) -> torch.device:
    """The device of a process.

    Parameters
    ----------
    local_rank : which of this machine's processes it is; each has a GPU of its own.

    Raises
    ------
    SettingsError : a GPU is asked for, or needed for this process, and not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted is Device.CPU or (wanted is Device.AUTO and gpus == 0):
        return torch.device("cpu")
    if local_rank >= gpus:
        raise SettingsError(f"device {wanted}: process {local_rank} of this machine needs a GPU, PyTorch sees {gpus}")
    return torch.device("cuda", local_rank)


def choose_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    """What the convolutions compute in on a device."""
    explicit = {Precision.F32: torch.float32, Precision.BF16: torch.bfloat16, Precision.F16: torch.float16}
    if wanted is not Precision.AUTO:
        return explicit[wanted]
    return torch.bfloat16 if _computes_bf16(device) else torch.float32


def _computes_bf16(device: torch.device) -> bool:
    """Whether the device multiplies BF16 itself, not by way of FP32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
