"""Speed and memory of training, compared with a diffusers model.

    python benchmarks/train_speed.py [--rounds 5] [--seconds 15] [--device cpu] [--compile]

The peer is diffusers' UNet2DModel with DDPMScheduler (cosine schedule, v-prediction) at about as
many parameters, on the same crops of 96 × 96 pixels, 32 a step, in the same number format,
channels_last, with AdamW
and averaged weights. At equal resolution of the photograph, ours draws chroma at half of it, from L
at the whole; the peer draws ab at the whole with L concatenated, as published systems do. A second
peer has everything at half, L too. Each rate is the median of rounds in processes of their own, one
method after the other; on a machine that others use as well, look at the pictures per second of
processor time. Writes benchmarks/results/train_speed.json.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from held_back import RESULTS, ROOT
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from colorized.data.dataset import Batch, CropBatches, Pictures, Shard, batches, chroma_target
from colorized.devices import open_device, use_bfloat16
from colorized.evaluation._torchvision_shim import import_torchvision
from colorized.model.denoiser import Denoiser
from colorized.model.weights import RELEASED, load_weights
from colorized.training.loop import TrainState, train
from pipelines import release

BATCH, CROP, T = 32, 96, 1000
MANY = 10**6
AB_STD = release.AB_STD
CONFIG = load_weights(RELEASED).config
WARM_STEPS = 3
TARGET = 1.5
METHODS = ("ours", "diffusers", "diffusers_half")


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in module.parameters())


class DiffusersPeer(nn.Module):
    """UNet2DModel on noisy ab with L concatenated: the design of published systems.

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


def train_peer(peer: DiffusersPeer, pictures: Pictures, device: torch.device) -> Iterator[None]:
    """Train without end: AdamW, clipped gradients, averaged weights; yields after each step."""
    bfloat16 = use_bfloat16("auto", device)
    peer.train().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(peer).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=5e-4, betas=(0.9, 0.99), weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    crops = CropBatches(pictures, BATCH, CROP, film=0.0, seed=1)
    averaged, current = list(average.parameters()), list(peer.parameters())
    for step, batch in enumerate(batches(crops, range(MANY), 0, device)):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = peer.loss(batch, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        get_ema_multi_avg_fn(0.998)(averaged, current, step)
        yield


def train_ours(denoiser: Denoiser, pictures: Pictures, device: torch.device) -> Iterator[Any]:
    """Denoising training as `pipelines.release` does it, at the peer's batch and crop."""
    settings = dataclasses.replace(
        release.settings(device, 0, finish=False, seed=1, batch_size=BATCH),
        steps=MANY, crop_size=CROP, film=0.0, levels=1,
    )  # fmt: skip
    return train(TrainState(denoiser.to(device), CONFIG, settings), pictures)


def steps(name: str, device: torch.device) -> Iterator[Any]:
    """Endless training of a method on random pictures."""
    rng = np.random.default_rng(0)
    pictures = Shard(
        rng.integers(0, 256, (512, 128, 128), dtype=np.uint8),
        rng.integers(0, 256, (512, 128, 128, 2), dtype=np.uint8),
    )
    torch.manual_seed(0)
    ours = CONFIG.build()
    if name.startswith("ours"):
        if name == "ours_compiled":
            ours.network.compile()
        return train_ours(ours, pictures, device)
    peer = DiffusersPeer(parameters(ours.network), half=name == "diffusers_half")
    return train_peer(peer, pictures, device)


def resident() -> float:
    """GB in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def window(name: str, device: torch.device, seconds: float) -> dict[str, float]:
    """Pictures a second once warm, and the memory that training added to the process at most."""
    training = steps(name, device)
    before = resident()
    for _ in range(WARM_STEPS):
        next(training)
    _wait(device)
    count, began, busy = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        next(training)
        count += BATCH
    _wait(device)
    rate = count / (time.perf_counter() - began)
    busy = time.process_time() - busy
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9 - before
    return {
        "pictures_per_second": rate,
        "pictures_per_processor_second": count / busy,
        "peak_memory_gb": peak,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each round and method")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile of ours, too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--window", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = open_device(options.device)
    if options.window:
        print(json.dumps(window(options.window, device, options.seconds)))
        return

    methods = (*METHODS, *(["ours_compiled"] if options.compile else []))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for _ in range(options.rounds):
        for name in methods:
            command = [
                *(sys.executable, "-W", "ignore", __file__, "--window", name),
                *("--seconds", str(options.seconds), "--device", options.device),
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ValueError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, found[name][-1], flush=True)

    count = parameters(CONFIG.build().network)
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "bfloat16": use_bfloat16("auto", device),
        "crop": CROP,
        "batch_size": BATCH,
        "rounds": options.rounds,
        "target_ratio": TARGET,
        "methods": {},
    }
    for name in methods:
        middle = {key: statistics.median(row[key] for row in found[name]) for key in found[name][0]}
        half = name != "diffusers"
        results["methods"][name] = {
            "parameters": count
            if name.startswith("ours")
            else parameters(DiffusersPeer(count, half)),
            "chroma_side": CROP // 2 if half else CROP,
            "lightness_side": CROP // 2 if name == "diffusers_half" else CROP,
            **middle,
        }
    ours = results["methods"]["ours"]
    for name in methods[1:]:
        other = results["methods"][name]
        for key, suffix in (("pictures_per_second", ""), ("pictures_per_processor_second", "_cpu")):
            results[f"ratio_to_{name}{suffix}"] = ours[key] / other[key]
        results[f"memory_share_of_{name}"] = ours["peak_memory_gb"] / other["peak_memory_gb"]
    print(json.dumps(results, indent=2))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "train_speed.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
