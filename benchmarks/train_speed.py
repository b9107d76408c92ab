"""How fast our network trains, and in how much memory, against a diffusers peer.

    python benchmarks/train_speed.py [--rounds 5] [--seconds 15] [--device cpu] [--compile]

The peer (see `peers.py`) is diffusers' UNet2DModel with DDPMScheduler at about as many parameters,
on the same crops of 96 × 96 pixels, 32 a step, in the same number format, channels_last, with AdamW
and averaged weights. At equal resolution of the photograph, ours draws chroma at half of it, from L
at the whole; the peer draws ab at the whole with L concatenated, as published systems do. A second
peer has everything at half, L too. Each rate is the median of rounds in processes of their own, one
method after the other; on a machine that others use as well, look at the pictures per second of
processor time. Writes benchmarks/results/train_speed.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from held_back import RESULTS, ROOT
from peers import BATCH, CROP, DiffusersPeer, config, our_state, parameters, train_peer

from colorized.data.dataset import Shard
from colorized.devices import open_device, use_bfloat16
from colorized.training.loop import train

WARM_STEPS = 3
TARGET = 1.5
METHODS = ("ours", "diffusers", "diffusers_half")


def steps(name: str, device: torch.device) -> Iterator[Any]:
    """Endless training of a method on random pictures."""
    rng = np.random.default_rng(0)
    pictures = Shard(
        rng.integers(0, 256, (512, 128, 128), dtype=np.uint8),
        rng.integers(0, 256, (512, 128, 128, 2), dtype=np.uint8),
    )
    many = 10**6
    if name.startswith("ours"):
        state = our_state(device, imagenet=False, steps=many)
        if name == "ours_compiled":
            state.loss.compile()
        return train(state, pictures)
    peer = DiffusersPeer(parameters(config().build().network), half=name == "diffusers_half")
    return train_peer(peer, pictures, device, steps=many)


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

    count = parameters(config().build().network)
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
