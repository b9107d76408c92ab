"""Train the released weights: `python -m pipelines.release PICTURES WORK`.

PICTURES is a folder of color photographs, their shorter side at least 192 pixels; chroma of lossy
WebP is taken as it is stored (`colorized.color.subsampling`). Shards go to WORK/lab, checkpoints to
WORK/checkpoints, and the weights to WORK/colorized.safetensors. The embedded photographs are not
trained on: they measure the result. The same command resumes a stopped training.

There are two phases, whose lengths are `--minutes`: denoising, then the adversarial finish
(`colorized.training.finish`). `--init FILE` goes on from weights of this network. In several
processes: `torchrun --standalone --nproc-per-node N -m pipelines.release …`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colorized.color.subsampling import restore_chroma
from colorized.data import shards, sources
from colorized.data.dataset import open_shard
from colorized.devices import use_bfloat16
from colorized.model import weights
from colorized.model.imagenet import load_imagenet_encoder
from colorized.model.weights import ModelConfig
from colorized.training import fit
from colorized.training.distributed import Processes, open_processes
from colorized.training.finish import Finish, FinishSettings
from colorized.training.loop import TrainSettings, TrainState
from colorized.training.stopping import StopOnSignal

CROPS = sources.CropSettings(
    image_size=192,
    crops={"train": 2, "val": 1, "test": 1},
    min_scale=1.0,
    val_share=0.02,
    test_share=0.05,
    seed=0,
    min_chroma=2.0,
    lookalike_bits=8,
)
WORK_SIZE = 160
AB_STD = (12.0, 18.0)
"""About the root mean square of a* and b* over the training crops, CIELAB units."""
SIGMAS = (20291.0, 16.0, 2.0)
"""Noise levels of the finish: pure noise, and those of draws."""
SAMPLING_SIGMAS = (20291.0, 24.0, 2.0)
"""Those of sampling with the weights that come of it."""
GUIDANCE = 1.6
FINISH = FinishSettings(
    adversarial=1.0,
    squared_error=0.2,
    roughness=15.0,
    detail=6.0,
    denoising=1.5,
    window=128,
    critic_lr=4e-4,
)


def settings(
    device: torch.device, minutes: float, finish: bool, seed: int, batch_size: int
) -> TrainSettings:
    """The settings of a phase."""
    return TrainSettings(
        steps=10,  # a scale for the minutes: over the last cooldown_steps / steps the rate falls
        minutes=minutes,
        batch_size=batch_size,
        crop_size=WORK_SIZE,
        levels=2,
        film=0.35 if finish else 0.5,
        learning_rate=3e-4 if finish else 5e-4,
        warmup_steps=100 if finish else 200,
        cooldown_steps=4,
        weight_decay=0.0 if finish else 0.01,
        clip_norm=1.0,
        ema_decay=0.998,
        condition_dropout=0.05,
        noise_shift=16.0,
        encoder_lr_scale=0.2,
        bfloat16=use_bfloat16("auto", device),
        loss_spike_factor=5.0,
        max_rollbacks=5,
        seed=seed + finish,
    )


class Photographs(sources.Photographs):
    """Picture files whose chroma is what they store."""

    def decode(self, content: bytes, path: Path) -> NDArray[np.uint8]:
        """Of simple lossy WebP, the format of the photographs, without the decoder's blur."""
        rgb = super().decode(content, path)
        return restore_chroma(rgb) if content[8:16] == b"WEBPVP8 " else rgb


def photographs(folder: Path) -> Photographs:
    """All photographs below a folder."""
    listed = sources.photographs(sources.list_photographs(folder), folder)
    return Photographs(listed.root, listed.names, listed.digests)


def build_shards(pictures: Path, lab: Path) -> None:
    """Cut the crops of all photographs below `pictures`, unless they exist."""
    if (lab / "stats.json").exists():
        return
    report = shards.build_shards(photographs(pictures), lab, CROPS)
    print(f"{report.photographs} photographs, {len(report.rejects)} left out", flush=True)


def main() -> None:
    """Build the shards, train, write the weights."""
    parser = argparse.ArgumentParser(description="Train the released weights.")
    parser.add_argument("pictures", type=Path, help="folder of color photographs")
    parser.add_argument("work", type=Path, help="for shards, checkpoints and the weights")
    parser.add_argument(
        "--minutes", type=float, nargs=2, default=(600.0, 840.0), help="of each phase; 0 skips it"
    )
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--depth", type=int, help="transformer blocks of a new network, 6")
    parser.add_argument("--seed", type=int, default=0, help="of crops and noise")
    parser.add_argument("--batch-size", type=int, default=16, help="crops a step; 128 on a GPU")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, got {options.batch_size}")
    if options.init and options.depth is not None:
        parser.error("--depth is for a new network, not with --init")
    processes = open_processes(options.device)
    try:
        run(options, processes)
    finally:
        processes.close()


def run(options: argparse.Namespace, processes: Processes) -> None:
    """`main` in one of the processes."""
    lab = options.work / "lab"
    if processes.main and any(options.minutes):
        build_shards(options.pictures, lab)
    processes.share(None)  # the others wait for the shards

    if options.init:
        loaded = weights.load_weights(options.init)
        config, denoiser = loaded.config, loaded.denoiser
    else:
        config = ModelConfig(
            channels=(64, 112, 128),
            time_channels=128,
            width=256,
            depth=6 if options.depth is None else options.depth,
            schedule="cosine",
            T=1000,
            ab_std=AB_STD,
            work_size=WORK_SIZE,
        )
        torch.manual_seed(0)  # of fresh layers
        denoiser = config.build()
        load_imagenet_encoder(denoiser.network.encoder)
    denoiser.to(processes.device)

    def log(step: int, numbers: Mapping[str, float]) -> None:
        line = json.dumps({"step": step} | {k: round(v, 5) for k, v in numbers.items()})
        print(line, flush=True)
        with open(options.work / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    init = hashlib.sha256(options.init.read_bytes()).hexdigest() if options.init else ""
    should_stop = StopOnSignal()
    recipe: list[dict[str, Any]] = []
    for name, minutes in zip(("denoise", "finish"), options.minutes, strict=True):
        if not minutes:
            continue
        phase = settings(
            processes.device, minutes, name == "finish", options.seed, options.batch_size
        )
        values = dataclasses.asdict(phase)
        if name == "finish":
            config = config.finished(SAMPLING_SIGMAS, GUIDANCE)
            taught = dataclasses.replace(config, few_step_sigmas=SIGMAS)
            objective = Finish(taught, FINISH, processes, options.seed)
            state = TrainState(denoiser, config, phase, processes, objective)
            values |= dataclasses.asdict(FINISH) | {"sigmas": SIGMAS}
        else:
            state = TrainState(denoiser, config, phase, processes)
        if processes.main:
            print(f"{name}: {json.dumps(values)}", flush=True)
        recipe.append({"phase": name, **values})
        defining = {"init": init, "config": dataclasses.asdict(config), "phases": recipe}
        fit.fit(
            state,
            open_shard(lab, "train"),
            open_shard(lab, "val"),
            options.work / "checkpoints" / f"{name}-{fit.fingerprint(defining)}",
            validate_every=500,
            checkpoint_every=250,
            log=log,
            on_restore=lambda line: print(line, flush=True),
            should_stop=should_stop,
        )
        denoiser = state.ema
    if not processes.main:
        return
    path = options.work / "colorized.safetensors"
    options.work.mkdir(parents=True, exist_ok=True)
    tensors = denoiser.network.state_dict()
    weights.save_weights(path, tensors, config, {"train": recipe}, packed=True)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt as stop:
        sys.exit(str(stop) or "stopped")
    except (FloatingPointError, MemoryError, ModuleNotFoundError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
