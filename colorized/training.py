"""Training as a generator of steps.

`train` changes the weights and yields; whoever calls it logs, validates, saves or stops. All that
a step draws at random comes from (seed, step), so a run resumed from a checkpoint repeats, bit for
bit, what the uninterrupted one would have done.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colorized.dataset import Batch, CropBatches, Pictures, batches, step_seed
from colorized.diffusion import Denoiser, drop_condition, simple_loss, stratified_times

VALIDATION_TIMES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Fixed noise levels, as shares of T."""


@dataclass(frozen=True)
class TrainSettings:
    """See the section `train` of params.yaml, where each value has its comment."""

    steps: int
    batch_size: int
    crop_size: int
    min_crop: float
    learning_rate: float
    warmup_steps: int
    cooldown_steps: int
    weight_decay: float
    clip_norm: float
    ema_decay: float
    condition_dropout: float
    noise_shift: float
    encoder_lr_scale: float
    bfloat16: bool
    seed: int


@dataclass(frozen=True)
class Step:
    """What one optimizer step did; `number` counts from 1."""

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float


class TrainState:
    """Everything that changes in training: weights, their average, optimizer, step count."""

    def __init__(self, denoiser: Denoiser, settings: TrainSettings) -> None:
        self.settings = settings
        self.denoiser = denoiser.train().requires_grad_(True)
        self.denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(denoiser, settings.encoder_lr_scale),
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
        )
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """All of it, for `save_checkpoint`."""
        return {
            "step": self.step,
            "network": self.denoiser.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`'s values."""
        self.denoiser.network.load_state_dict(state["network"])
        self.ema.network.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def train(state: TrainState, pictures: Pictures, workers: int = 0) -> Iterator[Step]:
    """Run optimizer steps from state.step + 1 to settings.steps, yielding after each.

    Parameters
    ----------
    workers
        Processes that prepare batches ahead; they change no number.

    Raises
    ------
    FloatingPointError
        When the loss or its gradient is no longer finite; the weights are those before that step.
    """
    settings = state.settings
    device = next(state.denoiser.parameters()).device
    crops = CropBatches(
        pictures, settings.batch_size, settings.crop_size, settings.min_crop, settings.seed
    )
    for batch in batches(crops, range(state.step, settings.steps), workers, device):
        generator = torch.Generator().manual_seed(step_seed(settings.seed, state.step, "noise"))
        rate = learning_rate(settings, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            loss = _batch_loss(state.denoiser, batch, settings, generator, device)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(state.denoiser.parameters(), settings.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise FloatingPointError(
                f"step {state.step + 1}: the loss became {loss.item()}, its gradient {norm.item()}"
            )
        state.optimizer.step()
        state.step += 1
        _update_average(state)
        yield Step(state.step, loss.item(), norm.item(), rate)


def _parameter_groups(denoiser: Denoiser, encoder_lr_scale: float) -> list[dict[str, Any]]:
    """The encoder apart: folded, its weights have no normalization that absorbs large steps."""
    encoder = list(denoiser.network.encoder.parameters())
    known = {id(p) for p in encoder}
    others = [p for p in denoiser.parameters() if id(p) not in known]
    return [
        {"params": others, "lr_scale": 1.0},
        {"params": encoder, "lr_scale": encoder_lr_scale},
    ]


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Rate of step number `step` (from 0): linear warm-up, constant, linear cool-down to 0."""
    up = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    down = min(1.0, (settings.steps - step) / max(1, settings.cooldown_steps))
    return settings.learning_rate * min(up, down)


def chroma_target(batch: Batch, ab_std: tuple[float, float]) -> Tensor:
    """x_0 (B, 2, S/2, S/2): ab in units of its deviation, averaged over 2×2 pixels."""
    std = torch.tensor(ab_std, device=batch.ab.device).view(1, 2, 1, 1)
    return F.avg_pool2d(batch.ab / std, 2)


def chroma_8bit(batch: Batch) -> Tensor:
    """ab at the model's resolution as 8-bit values, what the variational bound is a bound on.

    uint8 (B, 2, S/2, S/2): a* + 128 and b* + 128, averaged over 2×2 pixels and rounded.
    """
    return (F.avg_pool2d(batch.ab, 2) + 128).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def validate(
    denoiser: Denoiser, shard: Pictures, seed: int, pictures: int = 64
) -> dict[str, float]:
    """Mean squared error of v at fixed noise levels, on fixed pictures with fixed noise, float32.

    Returns
    -------
    dict
        `t0.05` … `t0.95` for the shares of T, and `mean` over them; predicting 0 scores about 1.
    """
    device = next(denoiser.parameters()).device
    # Evenly spaced, as the crops of one photograph lie side by side.
    rows = np.linspace(0, len(shard) - 1, min(pictures, len(shard))).astype(np.int64)
    batch = shard.batch(rows)
    x_0 = chroma_target(batch, denoiser.ab_std).to(device)
    errors = {}
    cond = denoiser.encode(batch.lightness.to(device))
    for i, share in enumerate(VALIDATION_TIMES):
        generator = torch.Generator().manual_seed(step_seed(seed, i, "validate"))
        noise = torch.randn(x_0.shape, generator=generator).to(device)
        t = torch.full((len(x_0),), max(1, round(share * denoiser.schedule.T)), device=device)
        errors[f"t{share}"] = simple_loss(denoiser, x_0, cond, t, noise).mean().item()
    errors["mean"] = sum(errors.values()) / len(errors)
    return errors


def _batch_loss(
    denoiser: Denoiser,
    batch: Batch,
    settings: TrainSettings,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    x_0 = chroma_target(batch, denoiser.ab_std)
    B = len(x_0)
    noise = torch.randn(x_0.shape, generator=generator)
    t = stratified_times(denoiser.schedule.T, B, generator, settings.noise_shift)
    keep = torch.rand(B, generator=generator) >= settings.condition_dropout
    cond = drop_condition(denoiser.encode(batch.lightness), keep.to(device))
    return simple_loss(denoiser, x_0, cond, t.to(device), noise.to(device)).mean()


@torch.no_grad()
def _update_average(state: TrainState) -> None:
    """Exponential moving average, faster at first so that the start is soon forgotten."""
    decay = min(state.settings.ema_decay, (1 + state.step) / (10 + state.step))
    averaged: list[Tensor] = list(state.ema.parameters())
    current: list[Tensor] = list(state.denoiser.parameters())
    torch._foreach_lerp_(averaged, current, 1 - decay)
