"""The processes that train together: this one, or all that `accelerate launch` or torchrun began.

Each holds the whole state and computes its slice of every batch. Gradients are averaged between
them, so all make the same step and stay equal; what must be decided once, the clock's time or that
training is to stop, is agreed upon. The first process does what happens once: it reads and writes
checkpoints, validates and logs.

One process needs torch alone. Several need Hugging Face accelerate, which finds the others by the
variables both launchers set: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. They talk
over NCCL on CUDA, over gloo on processors.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from colorized.devices import open_device

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


def open_processes(device: str) -> Processes:
    """This process among those that the launcher began, on the device of this name.

    Raises
    ------
    ValueError
        When the machine lacks the device, has fewer GPUs than processes, or the launcher began one
        process where several were asked for.
    ModuleNotFoundError
        When there are several processes and accelerate is not installed.
    """
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        # accelerate does so with --cpu and leaves the rest to MPI.
        raise ValueError("the launcher began one process of several: use torchrun on processors")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(open_device(device))
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    elif device != "cpu":
        raise ValueError(f"device {device!r}: several processes need cpu, or cuda for a GPU each")
    return Accelerated(open_device(device))


class Processes:
    """This process alone; what it has in common with others is what it has."""

    rank = 0
    world = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def main(self) -> bool:
        """Whether this is the process that does what happens once."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over the processes, the same in each."""
        return value

    def mean_gradients(self, module: nn.Module) -> None:
        """Average the gradients of a module over the processes."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def share(self, value: T) -> T:
        """The first process's value, in each."""
        return value

    def close(self) -> None:
        """Shut down the process group."""


class Accelerated(Processes):
    """One of several processes, by Hugging Face accelerate."""

    def __init__(self, device: torch.device) -> None:
        from accelerate import Accelerator

        # Mixed precision is set by the training, whatever the number of processes.
        self.accelerator: Accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
        super().__init__(self.accelerator.device)
        self.rank = self.accelerator.process_index
        self.world = self.accelerator.num_processes

    def mean(self, value: Tensor) -> Tensor:
        """See `Processes`."""
        mean: Tensor = self.accelerator.reduce(value.detach().clone(), "mean")
        return mean

    def mean_gradients(self, module: nn.Module) -> None:
        """See `Processes`."""
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.mean(torch.cat([g.flatten() for g in gradients]))
        for g, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g))

    def any(self, flag: bool) -> bool:
        """See `Processes`."""
        return self.mean(torch.tensor(float(flag), device=self.device)).item() > 0

    def share(self, value: T) -> T:
        """See `Processes`."""
        from accelerate.utils import broadcast_object_list

        held = [value]
        broadcast_object_list(held)
        return held[0]

    def close(self) -> None:
        """See `Processes`."""
        self.accelerator.end_training()
