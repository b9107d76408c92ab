"""Other ways to color, as a competent user would build them, and one way to train and use all.

* `DiffusersPeer`: diffusers' UNet2DModel on noisy ab with L concatenated, trained with
  DDPMScheduler (cosine schedule, v-prediction), sampled with DPM-Solver++(2M): the design of
  published systems, at about as many parameters as ours.
* `Regression`: our network, trained by L2 to give the chroma at once.
* `Ours`: our network as this project trains and samples it.

All see the same batches of the same crops, chroma in units of the same deviation, AdamW, averaged
weights, the same number format and channels_last.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from held_back import Lab
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from colorized.color import resample
from colorized.data.dataset import Batch, CropBatches, Pictures, batches, chroma_target
from colorized.devices import use_bfloat16
from colorized.evaluation._torchvision_shim import import_torchvision
from colorized.inference.colorizer import ChromaSampler, working_size
from colorized.model.imagenet import load_imagenet_encoder
from colorized.model.weights import RELEASED, ModelConfig, Weights, load_tensors, load_weights
from colorized.options import SamplingOptions
from colorized.training.loop import TrainSettings, TrainState, train
from pipelines.release import AB_STD, WORK_SIZE

BATCH, CROP, MIN_CROP = 32, 96, 0.7
T = 1000


class Method(Protocol):
    """A way to color one photograph."""

    def colorize(self, lightness: Lab, seed: int) -> Lab:
        """ab (H, W, 2) for L* (H, W)."""


class Peer(nn.Module):
    """What a generic loop trains: a loss of a batch."""

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """A scalar."""
        raise NotImplementedError


@functools.cache
def config() -> ModelConfig:
    """Of our network, as it is released, for this chroma and this scale."""
    released = load_weights(RELEASED).config
    return dataclasses.replace(released, ab_std=AB_STD, work_size=WORK_SIZE)


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds of work: of the processor, for each thread, so that what else runs does not count.

    A GPU's are those on the wall.
    """
    if device.type != "cpu":
        return time.perf_counter
    return lambda: time.process_time() / torch.get_num_threads()


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in module.parameters())


class DiffusersPeer(Peer):
    """See the module.

    Parameters
    ----------
    count
        Parameters to come near to.
    half
        Everything at half the resolution, chroma and the L that is concatenated: faster, and blind
        to the detail of L.
    """

    def __init__(self, count: int, half: bool = False) -> None:
        super().__init__()
        import_torchvision()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from diffusers import DDPMScheduler, UNet2DModel
        built = (
            UNet2DModel(
                in_channels=3,
                out_channels=2,
                layers_per_block=1,
                block_out_channels=(width, 2 * width, 3 * width, 3 * width),
                down_block_types=(*["DownBlock2D"] * 3, "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", *["UpBlock2D"] * 3),
                norm_num_groups=8,
                attention_head_dim=8,
            )
            for width in range(16, 129, 8)
        )
        self.unet: Any = min(built, key=lambda unet: abs(parameters(unet) - count))
        self.noising: Any = DDPMScheduler(
            T, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
        )
        self.half = half

    def _inputs(self, lightness: Tensor) -> Tensor:
        L = lightness / 50 - 1
        return F.avg_pool2d(L, 2) if self.half else L

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of v at uniform steps."""
        std = torch.tensor(AB_STD, device=batch.ab.device).view(1, 2, 1, 1)
        x_0 = chroma_target(batch, AB_STD) if self.half else batch.ab / std
        noise = torch.randn(x_0.shape, generator=generator).to(x_0.device)
        t = torch.randint(0, T, (len(x_0),), generator=generator).to(x_0.device)
        x_t = self.noising.add_noise(x_0, noise, t)
        v = self.unet(torch.cat([x_t, self._inputs(batch.lightness)], 1), t).sample
        return F.mse_loss(v.float(), self.noising.get_velocity(x_0, noise, t))

    @torch.inference_mode()
    def draw(self, lightness: Tensor, steps: int, seed: int) -> Tensor:
        """ab (B, 2, h, w) in CIELAB units for L* (B, 1, H, W)."""
        from diffusers import DPMSolverMultistepScheduler

        # The bound on λ is the one diffusers names for this schedule.
        solver: Any = DPMSolverMultistepScheduler.from_config(
            self.noising.config,
            algorithm_type="dpmsolver++",
            solver_order=2,
            lambda_min_clipped=-5.1,
        )
        solver.set_timesteps(steps)
        L = self._inputs(lightness)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((len(L), 2, *L.shape[2:]), generator=generator).to(L.device)
        for t in solver.timesteps:
            v = self.unet(torch.cat([x, L], 1), t.to(L.device)).sample
            x = solver.step(v, t, x).prev_sample
        return x * torch.tensor(AB_STD, device=x.device).view(1, 2, 1, 1)


class Regression(Peer):
    """Our network asked once, of no chroma at all, for the mean of what there may be."""

    def __init__(self) -> None:
        super().__init__()
        self.network = config().build().network
        load_imagenet_encoder(self.network.encoder)

    def forward(self, lightness: Tensor) -> Tensor:
        """x̂_0 (B, 2, H/2, W/2)."""
        B, _, H, W = lightness.shape
        x = torch.zeros((B, 2, H // 2, W // 2), device=lightness.device)
        estimate: Tensor = self.network(
            x, torch.zeros(B, device=x.device), self.network.encode(lightness)
        )
        return estimate

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of x_0."""
        return F.mse_loss(self(batch.lightness).float(), chroma_target(batch, AB_STD))

    @torch.inference_mode()
    def draw(self, lightness: Tensor, steps: int, seed: int) -> Tensor:
        """The same colors, whatever the seed."""
        return self(lightness) * torch.tensor(AB_STD, device=lightness.device).view(1, 2, 1, 1)


def train_peer(
    peer: Peer, pictures: Pictures, device: torch.device, *, minutes: float = 0, steps: int = 0
) -> Iterator[int]:
    """Train for so many minutes, or steps; yields after each step. Ends with the averaged weights.

    AdamW at 5e-4 after a warm-up of 300 steps, with a linear cool-down over the last third.
    """
    rate, warmup = 5e-4, 300
    bfloat16 = use_bfloat16("auto", device)
    peer.train().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(peer).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    crops = CropBatches(pictures, BATCH, CROP, MIN_CROP, seed=1)
    now = clock(device)
    began = now()
    for step, batch in enumerate(batches(crops, range(10**9), 0, device)):
        done = (now() - began) / (60 * minutes) if minutes else step / steps
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / warmup, 3 * (1 - done))
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = peer.loss(batch, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        decay = min(0.998, (1 + step) / (10 + step))
        averaged, current = list(average.parameters()), list(peer.parameters())
        get_ema_multi_avg_fn(decay)(averaged, current, step)
        yield step + 1
    peer.load_state_dict(average.state_dict())
    peer.eval().requires_grad_(False)


def our_settings(device: torch.device, *, minutes: float = 0, steps: int = 1) -> TrainSettings:
    """As the released weights are trained, at one size of crop; cool-down in the last third."""
    return TrainSettings(
        steps=steps if not minutes else 3000,
        minutes=minutes,
        batch_size=BATCH,
        crop_size=CROP,
        min_crop=MIN_CROP,
        learning_rate=1e-3,
        warmup_steps=300,
        cooldown_steps=1000,
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.998,
        condition_dropout=0.05,
        noise_shift=10.0,
        encoder_lr_scale=0.2,
        bfloat16=use_bfloat16("auto", device),
        seed=1,
    )


def our_state(device: torch.device, imagenet: bool, **length: Any) -> TrainState:
    """Our network before its first step, its encoder trained on ImageNet or not at all."""
    torch.manual_seed(0)
    denoiser = config().build()
    if imagenet:
        load_imagenet_encoder(denoiser.network.encoder)
    return TrainState(denoiser.to(device), config(), our_settings(device, **length))


@dataclasses.dataclass
class Ours:
    """Our weights with this project's sampler."""

    colorizer: ChromaSampler
    options: SamplingOptions

    def colorize(self, lightness: Lab, seed: int) -> Lab:
        """See `Method`."""
        return self.colorizer.colorize(lightness, self.options.override(seed=seed))


@dataclasses.dataclass
class Drawn:
    """A peer at the scale that ours works at, its chroma resized to the picture's own."""

    peer: Any
    steps: int

    def colorize(self, lightness: Lab, seed: int) -> Lab:
        """See `Method`."""
        height, width = lightness.shape
        small = resample.resize_lightness(lightness, *working_size(height, width, WORK_SIZE))
        device = next(self.peer.parameters()).device
        drawn = self.peer.draw(torch.from_numpy(small)[None, None].to(device), self.steps, seed)
        ab = drawn[0].float().cpu().numpy()
        return np.stack([resample.resize(c, height, width) for c in ab], axis=-1)


@dataclasses.dataclass
class Monochrome:
    """No colors at all."""

    def colorize(self, lightness: Lab, seed: int) -> Lab:
        """See `Method`."""
        return np.zeros((*lightness.shape, 2), np.float32)


def trained(
    name: str, pictures: Pictures, minutes: float, device: torch.device, folder: Path
) -> tuple[nn.Module, int]:
    """The method's network after so many minutes, and the steps it made; kept in `folder`."""
    kept = folder / f"{name}-{minutes:g}min.pt"
    count = parameters(config().build().network)
    peer: nn.Module
    if name.startswith("ours"):
        state = our_state(device, name == "ours_imagenet", minutes=minutes)
        peer = state.ema
    elif name == "regression":
        torch.manual_seed(0)
        peer = Regression()
    else:
        torch.manual_seed(0)
        peer = DiffusersPeer(count, half=name.endswith("half"))
    if kept.exists():
        found = torch.load(kept, weights_only=True, map_location=device)
        load_tensors(peer, found["weights"], str(kept))
        return peer.to(device).eval().requires_grad_(False), int(found["steps"])
    steps = 0
    if isinstance(peer, Peer):
        for step in train_peer(peer, pictures, device, minutes=minutes):
            steps = step
    else:
        for made in train(state, pictures, clock=clock(device)):
            steps = made.number
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": peer.state_dict(), "steps": steps}, kept)
    return peer, steps


def method(name: str, network: Any, options: SamplingOptions) -> Method:
    """A trained network as a way to color."""
    if name.startswith("ours"):
        return Ours(ChromaSampler(Weights(network, config())), options)
    return Drawn(network, options.steps)
