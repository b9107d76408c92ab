"""Devices and number formats by name, and how busy a device is."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from typing import Any

import torch


def open_device(name: str) -> torch.device:
    """The device of this name.

    Raises ValueError when the name is not that of a device, or this machine lacks the device.
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
    """Whether to compute in bfloat16: as named, or for `auto` where the device supports it.

    A processor without instructions for it computes bfloat16 several times slower than float32.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # A torch that does not say what the processor can do computes in float32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    # ATEN_CPU_CAPABILITY=avx2 keeps torch from them.
    told = torch.backends.cpu.get_cpu_capability() != "AVX2"
    return device.type == "cpu" and told and bool(capabilities.get("avx512_bf16"))


class Meter:
    """How busy a device is between one reading and the next."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Start a new reading."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """`device_utilization`, 0 … 1, and `peak_memory_gb` of this process so far.

        Of a processor it is this process's time over that of the threads torch may use; of a CUDA
        GPU what its driver says of the last second, left out where nvidia-ml-py is not installed.
        """
        if self.device.type == "cuda":
            values = {"peak_memory_gb": torch.cuda.max_memory_allocated(self.device) / 1e9}
            with contextlib.suppress(ModuleNotFoundError, RuntimeError):
                values["device_utilization"] = torch.cuda.utilization(self.device) / 100
            return values
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        values = {"peak_memory_gb": peak * (1 if sys.platform == "darwin" else 1024) / 1e9}
        if self.device.type == "cpu":
            wall = (time.perf_counter() - self._wall) * torch.get_num_threads()
            values["device_utilization"] = (time.process_time() - self._processor) / wall
        return values
