"""Training as a generator of steps.

`train` changes the weights and yields; the caller logs, validates, saves or stops. What is
minimized is an `Objective`: here the denoising loss; `colorized.training.finish` has the other. All
that a step draws at random comes from (seed, number of its batch), so a run resumed from a
checkpoint repeats, bit for bit, what the uninterrupted one would have done. It is drawn for the
whole batch; each of several processes, and each piece of a batch that is accumulated, takes its
slice, so that how a batch is shared out changes no more than the rounding of sums.
"""

from __future__ import annotations

import copy
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from colorized.data.dataset import (
    Batch,
    CropBatches,
    Pictures,
    batches,
    chroma_target,
    step_seed,
)
from colorized.model.denoiser import Denoiser, drop_condition, simple_loss, stratified_sigmas
from colorized.model.weights import ModelConfig, load_tensors
from colorized.text import out_of_memory
from colorized.training.distributed import Processes

VALIDATION_TIMES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Fixed noise levels, as shares of T."""

RECENT = 64
"""Number of steps whose losses define a spike."""


@dataclass(frozen=True)
class TrainSettings:
    """See the section `train` of params.yaml, where each value has its comment."""

    steps: int
    batch_size: int
    crop_size: int
    levels: int
    film: float
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
    accumulate: int = 1
    compile: bool = False
    minutes: float = 0.0
    loss_spike_factor: float = 0.0
    max_rollbacks: int = 0


class Diverged(FloatingPointError):
    """Loss spike, or a loss that is not finite: the step was skipped.

    `place` is the number of its batch, from 0.
    """

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


class OutOfMemory(MemoryError):
    """Out of memory: the step was skipped; the message names the settings that help."""


@dataclass(frozen=True)
class Step:
    """What one optimizer step did; `number` counts from 1."""

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """Other numbers of the objective, by name."""


class Objective(Protocol):
    """What training minimizes; `betas` are the decay rates of Adam's moments."""

    betas: tuple[float, float]

    def backward(self, state: TrainState, batch: Batch, place: int) -> dict[str, float]:
        """Add the gradients of this process's slice of batch `place` to the denoiser's parameters.

        Raises Diverged when training cannot go on from here.

        Returns
        -------
        dict
            `loss`, which tells a spike, and whatever else is worth logging; means over the
            processes.
        """

    def update(self, state: TrainState, rate: float) -> None:
        """Called after each optimizer step, with the learning rate as a share of its highest."""

    def state_dict(self) -> dict[str, Any]:
        """What changes in training besides the denoiser."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`'s values."""


class TrainState:
    """Everything that changes in training: weights, their average, optimizer, counts.

    Raises ValueError when the batch cannot be shared out among the processes and their pieces.

    Parameters
    ----------
    denoiser
        On the device of `processes`.
    config
        Says the schedule of its noise and the scale of chroma.
    processes
        Those that train together; by default this one alone.
    objective
        By default the denoising loss.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        config: ModelConfig,
        settings: TrainSettings,
        processes: Processes | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.config = config
        self.settings = settings
        self.processes = processes or Processes(next(denoiser.parameters()).device)
        if settings.batch_size % (self.processes.world * settings.accumulate):
            raise ValueError(
                f"batch_size {settings.batch_size} cannot be shared out evenly among "
                f"{self.processes.world} processes and {settings.accumulate} pieces (accumulate)"
            )
        self.denoiser = denoiser.train().requires_grad_(True)
        if not settings.encoder_lr_scale:
            denoiser.network.encoder.requires_grad_(False)  # no gradients that nobody needs
        self.denoiser.network.to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.objective = objective or Denoising(self.denoiser, settings)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(denoiser, settings.encoder_lr_scale),
            lr=settings.learning_rate,
            betas=self.objective.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.step = 0
        self.skipped = 0
        """Batches that were left out after a spike; step k sees batch k + skipped, from 0."""
        self.seconds = 0.0
        """Spent in training, over all processes that went on from one another."""
        self.recent: deque[float] = deque(maxlen=RECENT)

    def done(self) -> bool:
        """Whether all steps are made, or all minutes spent."""
        if self.settings.minutes:
            return self.seconds >= 60 * self.settings.minutes
        return self.step >= self.settings.steps

    def state_dict(self) -> dict[str, Any]:
        """All of it, for `save_checkpoint`."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "recent": list(self.recent),
            "network": self.denoiser.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`'s values.

        Raises CheckpointError, naming the tensor that does not belong to this network or that it
        lacks.
        """
        load_tensors(self.denoiser.network, state["network"], "network")
        load_tensors(self.ema.network, state["ema"], "ema")
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        self.step = int(state["step"])
        self.skipped = int(state["skipped"])
        self.seconds = float(state["seconds"])
        self.recent = deque(state["recent"], maxlen=RECENT)


def train(
    state: TrainState,
    pictures: Pictures,
    workers: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Step]:
    """Run optimizer steps from state.step + 1 until the state is done, yielding after each.

    Parameters
    ----------
    workers
        Processes that prepare batches ahead; they change no number.
    clock
        Seconds, by which `minutes` are counted; what the caller does between steps counts too.

    Raises
    ------
    Diverged
        When the loss or its gradient is no longer finite, or the loss is `loss_spike_factor` times
        the median of the last `RECENT` steps; the weights are those before that step.
    OutOfMemory
        The weights are those before that step.
    """
    settings, processes = state.settings, state.processes
    if state.done():
        return
    crops = CropBatches(
        pictures,
        settings.batch_size,
        settings.crop_size,
        settings.film,
        settings.seed,
        processes.rank,
        processes.world,
    )
    end = sys.maxsize if settings.minutes else settings.steps + state.skipped
    places = range(state.step + state.skipped, end)
    feed = batches(crops, places, workers, processes.device)
    before = clock()
    for place in places:
        with _reraise_out_of_memory(state):
            batch = next(feed)
            now = clock()
            state.seconds += now - before
            before = now
            if settings.minutes:  # by one clock, or the processes' learning rates would differ
                state.seconds = processes.share(state.seconds)
            rate = learning_rate(settings, state.step, state.seconds)
            for group in state.optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            state.optimizer.zero_grad(set_to_none=True)
            parts = state.objective.backward(state, batch, place)
        loss = parts.pop("loss")
        norm = nn.utils.clip_grad_norm_(state.denoiser.parameters(), settings.clip_norm).item()
        trouble = _trouble(state, loss, norm)
        if trouble:
            raise Diverged(f"step {state.step + 1}: the loss {trouble}", place)
        state.optimizer.step()
        state.objective.update(state, rate / settings.learning_rate)
        state.step += 1
        state.recent.append(loss)
        _update_average(state)
        yield Step(state.step, loss, norm, rate, parts)
        if state.done():
            return


@contextmanager
def _reraise_out_of_memory(state: TrainState) -> Iterator[None]:
    """Reraise an out-of-memory error as an `OutOfMemory`."""
    settings = state.settings
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        pieces = ""
        if isinstance(state.objective, Denoising):
            pieces = (
                f"double train.accumulate (now {settings.accumulate}), which computes the same in "
                "smaller pieces, or "
            )
        raise OutOfMemory(
            f"step {state.step + 1}: out of memory: {pieces}lower train.batch_size "
            f"({settings.batch_size}) or train.crop_size ({settings.crop_size})"
        ) from error


class Denoising:
    """‖F(x_t, t, L) - v‖² at `levels` noise levels of each picture, which is encoded once."""

    betas = (0.9, 0.99)

    def __init__(self, denoiser: Denoiser, settings: TrainSettings) -> None:
        loss = _Loss(denoiser, settings.levels)
        if settings.compile:
            loss.compile()
        self.loss = loss

    def backward(self, state: TrainState, batch: Batch, place: int) -> dict[str, float]:
        """See `Objective`; the batch goes through the network in `accumulate` pieces."""
        settings, processes = state.settings, state.processes
        device = processes.device
        x_0 = chroma_target(batch, state.config.ab_std)
        # Drawn for the whole batch, so that how it is shared out changes no draw.
        B, K = settings.batch_size, settings.levels
        generator = torch.Generator().manual_seed(step_seed(settings.seed, place, "noise"))
        noise = torch.randn((B, K, *x_0.shape[1:]), generator=generator)
        sigma = stratified_sigmas(state.config.noise(), B * K, generator, settings.noise_shift)
        sigma = sigma.view(B, K)
        keep = torch.rand(B, generator=generator) >= settings.condition_dropout

        size = len(x_0) // settings.accumulate
        total = torch.zeros((), device=device)
        for i in range(settings.accumulate):
            mine = slice(i * size, (i + 1) * size)
            first = processes.rank * len(x_0)
            drawn = slice(first + mine.start, first + mine.stop)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
                loss = self.loss(
                    batch.seen[mine],
                    x_0[mine],
                    sigma[drawn].to(device, torch.float32),
                    noise[drawn].to(device),
                    keep[drawn].to(device),
                )
            loss = loss / settings.accumulate
            loss.backward()
            total += loss.detach()
        processes.mean_gradients(state.denoiser)
        return {"loss": processes.mean(total).item()}

    def update(self, state: TrainState, rate: float) -> None:
        """Nothing: there is no more to train."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: nothing changes but the denoiser."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


class _Loss(nn.Module):
    """The loss of a piece of a batch, as a module: what a compiler and the processes wrap.

    sigma and noise are (B, K) and (B, K, 2, h, w); the other arguments (B, …).
    """

    def __init__(self, denoiser: Denoiser, levels: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.levels = levels

    def forward(
        self, lightness: Tensor, x_0: Tensor, sigma: Tensor, noise: Tensor, keep: Tensor
    ) -> Tensor:
        cond = drop_condition(self.denoiser.encode(lightness), keep)
        cond = tuple(c.repeat_interleave(self.levels, 0) for c in cond)
        x_0 = x_0.repeat_interleave(self.levels, 0)
        return simple_loss(self.denoiser, x_0, cond, sigma.flatten(), noise.flatten(0, 1)).mean()


def _trouble(state: TrainState, loss: float, norm: float) -> str:
    """What is wrong with a step's loss and gradient; empty when nothing is."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return f"became {loss}, its gradient {norm}"
    if state.settings.loss_spike_factor and len(state.recent) == RECENT:
        usual = statistics.median(state.recent)
        if loss > state.settings.loss_spike_factor * usual:
            return f"leapt to {loss:.3g} from {usual:.3g}"
    return ""


def _parameter_groups(denoiser: Denoiser, encoder_lr_scale: float) -> list[dict[str, Any]]:
    """The encoder apart: folded, its weights have no normalization that absorbs large steps."""
    encoder = list(denoiser.network.encoder.parameters())
    known = {id(p) for p in encoder}
    others = [p for p in denoiser.parameters() if id(p) not in known]
    return [
        {"params": others, "lr_scale": 1.0},
        {"params": encoder, "lr_scale": encoder_lr_scale},
    ]


def learning_rate(settings: TrainSettings, step: int, seconds: float = 0.0) -> float:
    """Rate of step number `step` (from 0): linear warm-up, constant, linear cool-down to 0.

    When `minutes` are given, the cool-down takes the share of them that `cooldown_steps` has of
    `steps`, and begins by the `seconds` that training has lasted.
    """
    up = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    left: float = settings.steps - step
    if settings.minutes:
        left = max(0.0, 1 - seconds / (60 * settings.minutes)) * settings.steps
    down = min(1.0, left / max(1, settings.cooldown_steps))
    return settings.learning_rate * min(up, down)


@torch.no_grad()
def validate(
    denoiser: Denoiser, config: ModelConfig, shard: Pictures, seed: int, pictures: int = 64
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
    x_0 = chroma_target(batch, config.ab_std).to(device)
    errors = {}
    cond = denoiser.encode(batch.lightness.to(device))
    for i, share in enumerate(VALIDATION_TIMES):
        generator = torch.Generator().manual_seed(step_seed(seed, i, "validate"))
        noise = torch.randn(x_0.shape, generator=generator).to(device)
        level = config.noise().sigma[max(1, round(share * config.T))].item()
        sigma = torch.full((len(x_0),), level, device=device)
        errors[f"t{share}"] = simple_loss(denoiser, x_0, cond, sigma, noise).mean().item()
    errors["mean"] = sum(errors.values()) / len(errors)
    return errors


def _update_average(state: TrainState) -> None:
    """Exponential moving average, faster at first so that the start is soon forgotten."""
    decay = min(state.settings.ema_decay, (1 + state.step) / (10 + state.step))
    averaged: list[Tensor] = list(state.ema.parameters())
    current: list[Tensor] = list(state.denoiser.parameters())
    get_ema_multi_avg_fn(decay)(averaged, current, state.step)
