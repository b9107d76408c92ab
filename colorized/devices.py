"""Names of devices and number formats → what torch is told."""

from __future__ import annotations

import torch


def open_device(name: str) -> torch.device:
    """The device of this name.

    Raises
    ------
    ValueError
        When the name is no device's or this machine lacks it.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is unknown: use cpu, cuda, cuda:0 or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name!r}: this machine has no Metal GPU")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {name!r} is not supported: use cpu, cuda, cuda:0 or mps")
    return device


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as told, or for `auto` where the device has instructions.

    A processor without them computes bfloat16 several times slower than float32.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
