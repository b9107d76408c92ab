"""Files of weights to use.

They are `.safetensors` files, the averaged (EMA) network in half precision, whose metadata holds
everything needed to rebuild the denoiser and to say where it comes from. A file is written beside
its target and moved into place, so that a file that has its name is whole.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from colorized import atomic
from colorized.model import packing
from colorized.model.denoiser import Denoiser
from colorized.model.header import (
    FORMAT,
    METADATA_KEY,
    not_safetensors,
    parse_header,
    parse_sampling,
    unusable,
)
from colorized.model.header import CheckpointError as CheckpointError
from colorized.model.released import RELEASED as RELEASED
from colorized.model.schedule import Schedule
from colorized.model.unet import STRIDE, ChromaUNet
from colorized.options import UNTUNED, SamplingOptions


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to rebuild a denoiser around its tensors.

    `work_size` is the shorter side, in pixels, of the lightness the network is shown, and
    `ab_std` the deviation of a* and b* in its training data, CIELAB units. `sampling` are the
    options that suit the weights. `few_step_sigmas` are the noise levels, falling, of the samplers
    `options.DRAWING`: pure noise, and those of draws; none where the network was not finished.
    """

    channels: tuple[int, int, int]
    time_channels: int
    width: int
    depth: int
    schedule: str
    T: int
    ab_std: tuple[float, float]
    work_size: int
    sampling: SamplingOptions = UNTUNED
    few_step_sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.work_size <= 0 or self.work_size % STRIDE:
            raise ValueError(f"work_size must be a multiple of {STRIDE}, got {self.work_size}")
        if len(self.ab_std) != 2 or min(self.ab_std) <= 0:
            raise ValueError(f"ab_std must be two positive numbers, got {list(self.ab_std)}")
        falling = [math.inf, *self.few_step_sigmas, 0.0]
        if any(a <= b for a, b in itertools.pairwise(falling)):
            raise ValueError(f"few_step_sigmas must fall, got {list(self.few_step_sigmas)}")
        self.noise()  # or it names what is wrong

    def build(self) -> Denoiser:
        """A denoiser of this shape with fresh weights."""
        return Denoiser(ChromaUNet(self.channels, self.time_channels, self.width, self.depth))

    def finished(self, sigmas: Sequence[float], guidance: float) -> ModelConfig:
        """This configuration for weights finished at these levels, behind a mean guided so."""
        options = replace(
            self.sampling, steps=len(sigmas), sampler="tinted_consistency", guidance=guidance
        )
        return replace(self, few_step_sigmas=tuple(sigmas), sampling=options)

    def noise(self) -> Schedule:
        """The schedule it is trained with."""
        return _schedule(self.schedule, self.T)


@functools.cache
def _schedule(name: Any, T: int) -> Schedule:
    return Schedule(name, T)


@dataclass(frozen=True)
class Weights:
    """A denoiser with what its file says about it."""

    denoiser: Denoiser
    config: ModelConfig
    about: Mapping[str, Any] = field(default_factory=dict)


def save_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    about: Mapping[str, Any],
    *,
    packed: bool = False,
) -> None:
    """Write network tensors in half precision with `config` and `about` in the metadata.

    `packed`: rounded, in half the space; see `packing`.
    """
    half = {name: t.detach().to("cpu", torch.float16).contiguous() for name, t in tensors.items()}
    broken = [name for name, t in half.items() if not torch.isfinite(t).all()]
    if broken:
        raise CheckpointError(f"{path}: not written, {broken[0]} is not finite in half precision")
    if packed:
        half = packing.pack(half)
    described = {
        "format": FORMAT,
        "config": asdict(config),
        "about": dict(about),
    }
    # One key only: safetensors writes several in an order that changes from run to run.
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True)}
    atomic.write(path, safetensors.torch.save(half, metadata))


def load_weights(path: Path, device: torch.device | str = "cpu") -> Weights:
    """Read weights written by `save_weights`; the network is in float32, in evaluation mode.

    Raises
    ------
    CheckpointError
        The file is missing, is no safetensors file (a pickle is never opened as one), carries no
        or another format's configuration, or lacks a tensor or holds one too many; names it.
    """
    tensors, metadata = _read(path)
    described = parse_header(path, metadata)
    try:
        values = described["config"]
        values["sampling"] = parse_sampling(values)
        values["few_step_sigmas"] = tuple(values.get("few_step_sigmas", ()))
        values["channels"] = tuple(values["channels"])
        values["ab_std"] = tuple(values["ab_std"])
        config = ModelConfig(**values)
        about = described["about"]
        denoiser = config.build()
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(path, error) from error
    load_tensors(denoiser.network, tensors, str(path))
    return Weights(denoiser.eval().requires_grad_(False).to(device), config, about)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a `.safetensors` file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return packing.unpack(tensors), file.metadata() or {}
    except ValueError as error:
        raise CheckpointError(f"{path}: tensor {error}") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise not_safetensors(path, error) from error


def load_tensors(network: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the network.

    Raises
    ------
    CheckpointError
        Naming the first tensor that is missing, unknown, of another shape or not finite.
    """
    own = network.state_dict()
    for name in sorted(own.keys() - tensors.keys()):
        raise CheckpointError(f"{source}: tensor {name} is missing")
    for name in sorted(tensors.keys() - own.keys()):
        raise CheckpointError(f"{source}: tensor {name} does not belong to this network")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{source}: tensor {name} is {tuple(tensor.shape)}, "
                f"this network needs {tuple(own[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{source}: tensor {name} is not finite")
    network.load_state_dict(dict(tensors))
