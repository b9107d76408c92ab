"""How believable the colors are, against peers that were given the same data and the same minutes.

    python benchmarks/quality.py PICTURES [--minutes 20] [--n 250] [--methods released,…]

PICTURES holds the folders `scenes`, `objects` and `photos`; up to N of each are measured on, which
no training here sees, at 96, 64 and 256 pixels (see `held_back.py`). Methods:

* `monochrome`: no colors, what any must beat;
* `regression`: our network trained by L2, asked once;
* `diffusers`: UNet2DModel on noisy ab with L concatenated, DDPMScheduler, DPM-Solver++ in 20 steps;
* `diffusers_half`: the same with all at half the resolution, which is faster and sees less of L;
* `ours_scratch`, `ours_imagenet`: this project's training, its encoder of L fresh or trained on
  ImageNet, and sampling with the defaults;
* `released`: the weights in models/released, or of --weights, trained for as long as their model
  card says.

Those that are trained here get M minutes each (of the processor, unless on a GPU) on the same
shards and the same machine; --lab FOLDER holds train_L.npy and train_ab.npy, which
`pipelines.release` writes, else they are made. Trained networks are kept in the folder of --work,
so that a stopped run goes on. At last the number of evaluations is varied, on objects, for
`ours_imagenet` and each diffusers peer: the rates at which both draw pictures of equal FID. With
--seen the pictures are of those that were trained on: how much is learned by heart. Writes
benchmarks/results/quality.json, or NAME.json with --result NAME.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers
from held_back import RESULTS, ROOT, SIZES, Pictures

from colorized import color, plots
from colorized.data.dataset import open_shard
from colorized.devices import open_device
from colorized.evaluation import inception, metrics
from colorized.inference.colorizer import ChromaSampler
from colorized.model.guidance import evaluations
from colorized.model.header import sampling_defaults
from colorized.model.sampling import noise_levels
from colorized.model.weights import RELEASED, load_weights
from colorized.options import SamplingOptions
from pipelines import release

TRAINED = ("regression", "diffusers", "diffusers_half", "ours_scratch", "ours_imagenet")
METHODS = ("monochrome", *TRAINED, "released")
PEER_STEPS = 20
DRAWS, DRAWN_PICTURES = 4, 16
CURVE = (1, 2, 4, 6, 10, 20, 30)
EQUAL = 1.02
"""FIDs no further apart than this factor count as equal."""
GRAY = 0.15
"""Colorfulness within this share of the true pictures' is that of a picture in color."""


def measure(
    method: peers.Method, some: Pictures, out: Path, label: str, clock: Callable[[], float]
) -> dict[str, float]:
    """Color all pictures; what they measure, how much draws differ, and seconds per picture."""
    images, seconds = [], []
    for i, lab in enumerate(some.labs):
        began = clock()
        ab = method.colorize(lab[..., 0], seed=i)
        seconds.append(clock() - began)
        images.append(color.recombine(lab[..., 0], ab))
    found = some.measure(images)
    found["diversity"] = float(
        np.mean(
            [
                metrics.diversity(
                    np.stack([method.colorize(lab[..., 0], seed=s) for s in range(DRAWS)])
                )
                for lab in some.labs[:DRAWN_PICTURES]
            ]
        )
    )
    found["seconds_per_picture"] = float(np.median(seconds))
    rows = [[some.mono[i], images[i], some.true[i]] for i in range(min(8, len(images)))]
    grid = plots.grid(rows, ["monochrome", label, "true"])
    plots.save(out / f"quality-{some.name}-{label}.png", grid)
    return found


def curve(
    method: str,
    network: Any,
    some: Pictures,
    options: SamplingOptions,
    clock: Callable[[], float],
) -> list[dict[str, float]]:
    """FID and pictures a second for each number of steps."""
    rows = []
    for steps in CURVE:
        colors = peers.method(method, network, options.override(steps=steps))
        seconds = []
        images = []
        for i, lab in enumerate(some.labs):
            began = clock()
            ab = colors.colorize(lab[..., 0], seed=i)
            seconds.append(clock() - began)
            images.append(color.recombine(lab[..., 0], ab))
        asked = steps
        if method.startswith("ours"):
            asked = evaluations(noise_levels(options.override(steps=steps)), options.guidance)
        rows.append(
            {
                "steps": steps,
                "evaluations": asked,
                "fid": some.fid(images),
                "colorfulness_share": some.colorfulness(images) / some.colorfulness(some.true),
                "pictures_per_second": 1 / float(np.median(seconds)),
            }
        )
        print(method, json.dumps(rows[-1]), flush=True)
    return rows


def at_equal_fid(ours: list[dict[str, float]], peer: list[dict[str, float]]) -> dict[str, Any]:
    """How fast each draws pictures as good as the peer's best, in the fewest steps it needs.

    Ours must be about as colorful as true pictures, or as the peer's are: FID hardly sees gray.
    """
    best = min(row["fid"] for row in peer)
    enough = [row for row in peer if row["fid"] <= EQUAL * best]
    other = max(enough, key=lambda row: row["pictures_per_second"])
    gap = max(GRAY, abs(other["colorfulness_share"] - 1))
    mine = max(
        (
            row
            for row in ours
            if row["fid"] <= EQUAL * best and abs(row["colorfulness_share"] - 1) <= gap
        ),
        key=lambda row: row["pictures_per_second"],
        default=None,
    )
    return {
        "fid": best,
        "equal_within": EQUAL,
        "ours": mine,
        "peer": other,
        "ratio": mine and mine["pictures_per_second"] / other["pictures_per_second"],
        "target_ratio": 5,
    }


def main() -> None:
    """Train, measure, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, default=RELEASED)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, for each method")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas between")
    parser.add_argument("--n", type=int, default=250, help="pictures of each folder, at most")
    parser.add_argument(
        "--seen", action="store_true", help="measure on pictures that were trained on"
    )
    parser.add_argument("--curve-n", type=int, default=250, help="objects for each number of steps")
    parser.add_argument("--steps", type=int, help="of our sampler")
    parser.add_argument("--guidance", type=float, help="of our sampler")
    parser.add_argument("--temperature", type=float, help="of our sampler")
    parser.add_argument("--lab", type=Path, help="folder of the shards to train on")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "benchmark")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--result", default="quality", help="name of the JSON file")
    options = parser.parse_args()
    methods = options.methods.split(",")
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"--methods: {name!r} is none of {', '.join(METHODS)}")
    device = open_device(options.device)
    clock = peers.clock(device)
    options.out.mkdir(parents=True, exist_ok=True)

    how = sampling_defaults(options.weights).override(
        steps=options.steps, guidance=options.guidance, temperature=options.temperature
    )
    ways: dict[str, peers.Method] = {}
    networks: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for name in methods:
        if name == "monochrome":
            ways[name] = peers.Monochrome()
        elif name == "released":
            weights = load_weights(options.weights, device)
            ways[name] = peers.Ours(ChromaSampler(weights), how)
            about[name] = {"parameters": peers.parameters(weights.denoiser.network)}
        else:
            lab = options.lab or options.work / "lab"
            if not (lab / "train_L.npy").exists():
                release.build_shards(options.pictures, lab)
            shard = open_shard(lab, "train")
            print(f"{name}: {options.minutes:g} minutes", flush=True)
            network, steps = peers.trained(name, shard, options.minutes, device, options.work)
            networks[name] = network
            asked = how.steps if name.startswith("ours") else PEER_STEPS
            ways[name] = peers.method(name, network, how.override(steps=asked))
            about[name] = {
                "parameters": peers.parameters(network),
                "minutes": options.minutes,
                "pictures_seen": steps * peers.BATCH,
            }

    extractor = inception.InceptionExtractor()
    results: dict[str, Any] = {"methods": about}
    for name in SIZES:
        some = Pictures.load(options.pictures, name, options.n, extractor, options.seen)
        table: dict[str, dict[str, float]] = {}
        for label, way in ways.items():
            table[label] = measure(way, some, options.out, label, clock)
            print(name, label, json.dumps({k: round(v, 4) for k, v in table[label].items()}))
        mono = some.fid(some.mono)
        for row in table.values():
            row["fid_over_monochrome"] = row["fid"] / mono
        results[name] = {"n": len(some.labs), "size": SIZES[name], **table}
    compared = [
        name for name in ("ours_imagenet", "diffusers", "diffusers_half") if name in networks
    ]
    if len(compared) > 1 and compared[0] == "ours_imagenet":
        some = Pictures.load(options.pictures, "objects", options.curve_n, extractor, options.seen)
        curves = {name: curve(name, networks[name], some, how, clock) for name in compared}
        results["steps"] = {"n": len(some.labs), "size": SIZES["objects"], **curves}
        results["speed_at_equal_fid"] = {
            name: at_equal_fid(curves["ours_imagenet"], curves[name]) for name in compared[1:]
        }
        print(json.dumps(results["speed_at_equal_fid"], indent=2))
    (options.out / f"{options.result}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
