"""A small training that several test modules run."""

import dataclasses
from typing import Any

import numpy as np
import torch

from colorized.data.dataset import Shard
from colorized.model.weights import ModelConfig
from colorized.training.loop import TrainSettings, TrainState

SETTINGS = TrainSettings(
    steps=4,
    batch_size=2,
    crop_size=32,
    levels=2,
    film=0.5,
    learning_rate=3e-3,
    warmup_steps=1,
    cooldown_steps=1,
    weight_decay=0.01,
    clip_norm=1.0,
    ema_decay=0.95,
    condition_dropout=0.05,
    noise_shift=1.0,
    encoder_lr_scale=0.5,
    bfloat16=False,
    seed=0,
)


def fresh(shard: Shard, **changes: Any) -> TrainState:
    """A new state, as a new process would make it."""
    a, b = np.sqrt(((shard.ab.astype(float) - 128) ** 2).mean((0, 1, 2))).tolist()
    config = ModelConfig((8, 16, 32), 16, 32, 1, "cosine", 100, (a, b), 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = config.build()
    return TrainState(denoiser, config, dataclasses.replace(SETTINGS, **changes))


def noise(count: int, size: int) -> Shard:
    """Pictures of random levels."""
    rng = np.random.default_rng(0)
    L, ab = (rng.integers(0, 256, (count, size, size, n), dtype=np.uint8) for n in (1, 2))
    return Shard(L[..., 0], ab)
