"""Which network learns most in the same time: the comparison behind docs/model.md.

    python benchmarks/architectures.py PICTURES WORK [--minutes 8] [--n 250] [--networks concat,…]

Three networks are trained from the same seed on the same crops of 64 pixels, each for the same
minutes of processor time on one thread:

* concat: a U-Net that sees L beside the noisy chroma, at every step, as Palette does. It has no
  encoder, and wider levels in its place.
* scratch: `ChromaUNet` from fresh weights.
* imagenet: `ChromaUNet` whose encoder starts from EfficientNet-Lite0 as trained on ImageNet.

For each: pictures seen, parameters, validation error of v (predicting 0 scores 1), also at
t = 0.95 T, where the colors are chosen, and FID on held-back objects. PICTURES is as for
`pipelines.release`, which makes the shards in WORK/lab. Writes
benchmarks/results/architectures.json, or NAME.json with --result NAME.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from held_back import RESULTS, RGB, SIZES, Pictures
from torch import Tensor, nn

from colorized import color
from colorized.color import resample
from colorized.data.dataset import open_shard
from colorized.evaluation import metrics
from colorized.inference.colorizer import Colorizer
from colorized.model import unet
from colorized.model.denoiser import Denoiser
from colorized.model.imagenet import load_imagenet_encoder
from colorized.model.schedule import Schedule
from colorized.model.weights import ModelConfig, Weights
from colorized.options import UNTUNED
from colorized.training import loop
from pipelines import release

SIDE = SIZES["objects"]
NETWORKS = ("imagenet", "concat", "scratch")


class ConcatUNet(nn.Module):
    """The peer: L and noisy chroma side by side at the input, everything at every step."""

    def __init__(self, channels: tuple[int, int, int] = (80, 144, 192), time: int = 128) -> None:
        super().__init__()
        c4, c8, c16 = channels
        self.encoder = nn.Module()  # none: nothing learns at a rate of its own
        self.time = nn.Sequential(nn.Linear(64, time), nn.SiLU(), nn.Linear(time, time))
        self.stem = nn.Conv2d(4 * 2 + 16, c4, 3, padding=1)
        self.down4 = unet.ResidualBlock(c4, time)
        self.to8 = nn.Conv2d(c4, c8, 3, stride=2, padding=1)
        self.down8 = unet.ResidualBlock(c8, time)
        self.to16 = nn.Conv2d(c8, c16, 3, stride=2, padding=1)
        self.middle1 = unet.ResidualBlock(c16, time)
        self.attention = unet.SelfAttention(c16)
        self.middle2 = unet.ResidualBlock(c16, time)
        self.from16 = nn.Conv2d(c16, c8, 1)
        self.up8 = unet.ResidualBlock(c8, time)
        self.from8 = nn.Conv2d(c8, c4, 1)
        self.up4 = unet.ResidualBlock(c4, time)
        self.out = nn.Conv2d(c4, 8, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def encode(self, lightness: Tensor) -> tuple[Tensor]:
        """L in about -1 … 1, four by four pixels as channels: no network."""
        return (F.pixel_unshuffle(lightness / 50 - 1, 4),)

    def forward(self, x: Tensor, noise_level: Tensor, cond: tuple[Tensor]) -> Tensor:
        """As `ChromaUNet.forward`."""
        time = F.silu(self.time(unet.fourier(noise_level).to(x.dtype)))
        h4 = self.down4(self.stem(torch.cat([F.pixel_unshuffle(x, 2), cond[0]], 1)), time)
        h8 = self.down8(self.to8(h4), time)
        h = self.middle2(self.attention(self.middle1(self.to16(h8), time)), time)
        h = self.up8(F.interpolate(self.from16(h), scale_factor=2.0) + h8, time)
        h = self.up4(F.interpolate(self.from8(h), scale_factor=2.0) + h4, time)
        return F.pixel_shuffle(self.out(h), 2)


def network(name: str) -> nn.Module:
    """A fresh network of one of the three kinds."""
    torch.manual_seed(0)
    if name == "concat":
        return ConcatUNet()
    made = unet.ChromaUNet((64, 112, 128), 128)
    if name == "imagenet":
        load_imagenet_encoder(made.encoder)
    return made


def colored(denoiser: Denoiser, config: ModelConfig, some: Pictures) -> list[RGB]:
    """The pictures in the network's colors, 10 steps, without guidance."""
    L = np.stack([lab[..., 0] for lab in some.labs])
    colorizer = Colorizer(Weights(denoiser, config))
    parts = [colorizer.draw(L[i : i + 50], UNTUNED.override(seed=i)) for i in range(0, len(L), 50)]
    return [
        color.recombine(light, resample.resize(ab, *light.shape))
        for light, ab in zip(L, np.concatenate(parts), strict=True)
    ]


def main() -> None:
    """Train the three, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("work", type=Path, help="holds, or gets, the shards of pipelines.release")
    parser.add_argument("--minutes", type=float, default=8.0, help="of processor time, each")
    parser.add_argument("--n", type=int, default=250)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, with commas between")
    parser.add_argument("--result", default="architectures", help="name of the JSON file")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.networks.split(",")
    for name in names:
        if name not in NETWORKS:
            raise ValueError(f"--networks: {name!r} is none of {', '.join(NETWORKS)}")
    lab = options.work / "lab"
    if not (lab / "done").exists():
        release.build_shards(options.pictures, lab)
        (lab / "done").touch()
    some = Pictures.load(options.pictures, "objects", options.n, metrics.InceptionExtractor())
    shards = open_shard(lab, "train"), open_shard(lab, "val")

    results = {}
    for name in names:
        made = network(name)
        config = ModelConfig((64, 112, 128), 128, "cosine", 1000, release.AB_STD, SIDE)
        denoiser = Denoiser(made, Schedule("cosine", 1000), release.AB_STD)  # type: ignore[arg-type]
        settings = release.settings(
            release.Phase(SIDE, 64, steps=1, minutes=options.minutes, cools=True),
            torch.device("cpu"),
        )
        state = loop.TrainState(denoiser, settings)
        for _ in loop.train(state, shards[0], clock=time.process_time):
            pass
        errors = loop.validate(state.ema, shards[1], seed=0)
        results[name] = {
            "parameters": sum(p.numel() for p in made.parameters()),
            "processor_minutes": options.minutes,
            "pictures_seen": state.step * settings.batch_size,
            "val_error": errors["mean"],
            "val_error_t0.95": errors["t0.95"],
            "fid": some.fid(colored(state.ema, config, some)),
            "fid_monochrome": some.fid(some.mono),
            "n": len(some.labs),
        }
        print(name, json.dumps({k: round(v, 4) for k, v in results[name].items()}), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.result}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
