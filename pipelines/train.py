"""Stage 3: LAB shards → models/colorized.safetensors, with curves and grids in MLflow."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from ruamel.yaml import YAML

import colorized
from colorized import color, devices, plots
from colorized.color import resample
from colorized.data import index, streaming
from colorized.data.dataset import Pictures, Shard, open_shard
from colorized.model.denoiser import Denoiser
from colorized.model.draw import draw_chroma
from colorized.model.weights import RELEASED, ModelConfig, load_weights, save_weights
from colorized.params import Params
from colorized.tracking import PARENT, UNSENT, FileRun, Run, installed, system_metrics
from colorized.training import fit
from colorized.training.checkpoint import load_checkpoint
from colorized.training.distributed import open_processes
from colorized.training.loop import OutOfMemory, Step, TrainSettings, TrainState
from pipelines import stage

CODE = (
    "data/dataset",
    "model/denoiser",
    "model/encoder",
    "model/imagenet",
    "model/schedule",
    "model/unet",
    "training/loop",
)
# What may change between a stop and the next start: only who computes what.
FREE = ("workers", "accumulate")
CURVES = stage.REPORTS / "training.csv"
GRID_PICTURES = 4
CHUNK_CACHE_BYTES = 4 << 30


def main(params: Params) -> None:
    """Train or fine-tune, resuming a stopped run of the same parameters, data and code."""
    processes = open_processes(params.train.device)
    stats = index.read_stats(stage.LAB)
    config, denoiser, initial = _start(params, stats)
    # The index holds the sha256 of every picture, and where each crop was cut from it.
    described = b"".join((stage.LAB / name).read_bytes() for name in ("stats.json", "index.csv"))
    digest = hashlib.sha256(described).hexdigest()
    values = params.model_dump(include={"model", "diffusion", "train"}) | {
        "data": digest,
        "initial_weights": initial,
    }
    values["train"] = {key: v for key, v in values["train"].items() if key not in FREE}
    modules = Path(colorized.__file__).parent
    name = fit.fingerprint(values, [modules / f"{module}.py" for module in CODE])
    folder = stage.CHECKPOINTS / name

    settings = _settings(params, processes.device)
    state = TrainState(denoiser.to(processes.device), config, settings, processes)
    try:
        if processes.main:
            _lead(params, state, config, stats, Identity(digest, initial, name), folder)
        else:
            _follow(params, state, stats, folder)
    except OutOfMemory as error:
        raise ValueError(str(error)) from error
    processes.close()


@dataclass(frozen=True)
class Identity:
    """What tells this training from others: sha256 of its data and first weights, fingerprint."""

    data: str
    initial: str
    fingerprint: str


def _follow(params: Params, state: TrainState, stats: Mapping[str, Any], folder: Path) -> None:
    """Train as one of several processes that is not the first: that one logs and writes."""
    asked = _StopOnSignal()
    fit.fit(
        state,
        _open_train(stats),
        open_shard(stage.LAB, "val"),
        folder,
        validate_every=params.train.validate_every,
        checkpoint_every=params.train.checkpoint_every,
        log=lambda step, numbers: None,
        workers=params.train.workers,
        should_stop=lambda: asked.stop,
    )


def _lead(
    params: Params,
    state: TrainState,
    config: ModelConfig,
    stats: Mapping[str, Any],
    identity: Identity,
    folder: Path,
) -> None:
    """Train as the only process, or the first: with the run's log, grids, weights and curves."""
    train_pictures, val_shard = _open_train(stats), open_shard(stage.LAB, "val")
    history = _History(CURVES, folder / "history.jsonl")
    asked = _StopOnSignal()
    tags = {
        "git_sha": _git_sha(),
        "mlflow.source.git.commit": _git_sha(),
        "data_md5": _data_md5(),
        "data_sha256": identity.data,
        "fingerprint": identity.fingerprint,
        **_around(),
    }
    run = _open_run(params, tags, folder)
    profile = {key: stats[key] for key in ("photographs", "crops", "left_out", "image_size")}
    run.dataset(params.data.source, tags["data_md5"], "data/lab", profile)
    if stage.DATASET.is_dir():
        run.folder(stage.DATASET, "dataset")
    with _Bar(state) as bar, run:

        def log(step: int, numbers: Mapping[str, float]) -> None:
            history.add(step, numbers)
            run.metrics(step, {**numbers, **system_metrics()})
            bar.say(
                f"step {step}: loss {numbers['loss']:.3f}, validation {numbers['val_loss']:.3f}"
            )

        def on_validate(step: int) -> None:
            path = folder / "grids" / f"step-{step:06d}.png"
            plots.save(path, _grid(state.ema, val_shard, config))
            run.file(path, "grids")

        fit.fit(
            state,
            train_pictures,
            val_shard,
            folder,
            validate_every=params.train.validate_every,
            checkpoint_every=params.train.checkpoint_every,
            log=log,
            workers=params.train.workers,
            on_step=bar.update,
            on_validate=on_validate,
            on_restore=bar.say,
            should_stop=lambda: asked.stop,
        )
        about = {
            "data_sha256": identity.data,
            "init": params.train.init,
            "initial_weights_sha256": identity.initial,
            "train": params.train.model_dump(),
        }
        save_weights(stage.WEIGHTS, state.ema.network.state_dict(), config, about)
        history.publish()
        run.file(stage.WEIGHTS, "weights")
        for kept in (fit.LAST, fit.BEST):
            run.file(folder / kept, "checkpoints")
        run.tags(
            {
                f"{Path(kept).stem}_step": str(_step_of(folder / kept))
                for kept in (fit.LAST, fit.BEST)
            }
        )
        trained = stage.WEIGHTS.read_bytes()
        # By these the weights are found: in DVC's cache, and from the marks of a photograph.
        sha256, md5 = (hashlib.new(kind, trained).hexdigest() for kind in ("sha256", "md5"))
        run.tags({"weights_sha256": sha256, "weights_md5": md5})
        final = history.rows[state.step]
        shown = {key: final[key] for key in ("loss", "val_loss")}
        run.describe("Training", shown, f"grids/step-{state.step:06d}.png")
    about_run = {
        "run_id": run.run_id,
        "fingerprint": identity.fingerprint,
        "weights_sha256": sha256,
        "git_sha": tags["git_sha"],
        "data_md5": tags["data_md5"],
    }
    stage.RUN.write_text(json.dumps(about_run) + "\n", encoding="utf-8")


def _start(params: Params, stats: Mapping[str, Any]) -> tuple[ModelConfig, Denoiser, str]:
    """The denoiser to train, and the sha256 of the weights it starts from, if any."""
    a, b = stats["ab_std"]
    config = ModelConfig(
        channels=(params.model.channels[0], params.model.channels[1], params.model.channels[2]),
        time_channels=params.model.time_channels,
        schedule=params.diffusion.schedule,
        T=params.diffusion.T,
        ab_std=(a, b),
        work_size=params.train.crop_size,
    )
    torch.manual_seed(params.train.seed)  # of fresh layers
    if params.train.init in ("scratch", "imagenet"):
        denoiser = config.build()
        if params.train.init == "imagenet":
            from colorized.model.imagenet import load_imagenet_encoder

            load_imagenet_encoder(denoiser.network.encoder)
        return config, denoiser, ""
    released = params.train.init == "released"
    path = RELEASED if released else stage.ROOT / params.train.init
    weights = load_weights(path)
    for key in ("channels", "time_channels", "schedule", "T"):
        wanted, found = getattr(config, key), getattr(weights.config, key)
        if wanted != found:
            raise ValueError(
                f"{path}: was trained with {key} {found}, params.yaml asks for {wanted}"
            )
    # The scale of chroma is part of what the weights know; that of pictures is what they see now.
    config = dataclasses.replace(weights.config, work_size=params.train.crop_size)
    return config, weights.denoiser, hashlib.sha256(path.read_bytes()).hexdigest()


def _open_train(stats: Mapping[str, Any]) -> Pictures:
    """The training split, from where the preprocess stage put it."""
    stored = stats["storage"]
    if not stored:
        return open_shard(stage.LAB, "train")
    # A stream's cache must hold the chunks that are mixed; what more there is saves fetching.
    return streaming.open_stream(stored["url"], stage.CHUNKS, CHUNK_CACHE_BYTES, stored["sha256"])


def _settings(params: Params, device: torch.device) -> TrainSettings:
    t = params.train
    return TrainSettings(
        steps=t.steps,
        minutes=t.minutes,
        batch_size=t.batch_size,
        accumulate=t.accumulate,
        crop_size=t.crop_size,
        min_crop=t.min_crop,
        learning_rate=t.lr,
        warmup_steps=t.warmup_steps,
        cooldown_steps=t.cooldown_steps,
        weight_decay=t.weight_decay,
        clip_norm=t.clip_norm,
        spike=t.spike,
        restores=t.restores,
        ema_decay=t.ema_decay,
        condition_dropout=t.condition_dropout,
        noise_shift=t.noise_shift,
        encoder_lr_scale=t.encoder_lr_scale,
        bfloat16=devices.use_bfloat16(t.precision, device),
        compile=t.compile,
        seed=t.seed,
    )


def _open_run(params: Params, tags: Mapping[str, str], folder: Path) -> Run | FileRun:
    """The run of the checkpoint folder: the one that was stopped, or a new one."""
    # What the other stages do does not tell trainings apart.
    values = params.model_dump(exclude={"sample", "evaluate", "promote"})
    title = f"train {tags['fingerprint']}"
    if not installed():
        path = folder / "run.jsonl"
        print(f"MLflow is not installed: the run is kept in {path}, for `colorized import-run`")
        return FileRun.open(path, title, values, tags)
    note = folder / "run_id"
    parent = os.environ.get(PARENT)
    run = None
    if note.exists():
        run = Run.reopen(stage.ROOT, note.read_text().strip(), parent)
    if run is None:
        run = Run.start(stage.ROOT, title, values, tags, parent)
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(run.run_id + "\n")
    run.keep(folder / UNSENT)
    return run


def _around() -> dict[str, str]:
    """What this training is part of."""
    flow = os.environ.get("PREFECT__FLOW_RUN_ID")
    return {"prefect_flow_run": flow} if flow else {}


def _grid(denoiser: Denoiser, shard: Shard, config: ModelConfig) -> plots.Picture:
    """A few validation pictures, colored by the averaged weights as they are now."""
    count = min(GRID_PICTURES, len(shard))
    rows = np.linspace(0, len(shard) - 1, count).astype(np.int64)
    batch = shard.batch(rows)
    L = batch.lightness[:, 0].numpy()
    small = draw_chroma(denoiser, config, L, config.sampling)
    size = L.shape[-1]
    cells = []
    for i in range(count):
        ab = np.stack([resample.resize(small[i, ..., c], size, size) for c in range(2)], -1)
        true = batch.ab[i].permute(1, 2, 0).numpy()
        cells.append([color.recombine(L[i], c) for c in (np.zeros_like(ab), ab, true)])
    return plots.grid(cells, ["monochrome", "model", "true"])


def _git_sha() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=stage.ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _data_md5() -> str:
    """DVC's hash of data/lab, as dvc.lock has it after the preprocess stage."""
    lock = stage.ROOT / "dvc.lock"
    if not lock.exists():
        return "unknown"
    stages = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))["stages"]
    outs = stages.get("preprocess", {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == "data/lab"), "unknown")


def _step_of(path: Path) -> int:
    return int(load_checkpoint(path)["step"])


@dataclass
class _History:
    """The log of a run, kept beside its checkpoints so that a resumed run still has its start."""

    csv_path: Path
    kept: Path
    rows: dict[int, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kept.exists():
            for line in self.kept.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # half of the last line of a run that was killed
                self.rows[int(row["step"])] = row

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.rows[step] = {"step": step, **values}
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        with open(self.kept, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[step]) + "\n")

    def publish(self) -> None:
        """Write the table and the plot that DVC shows; timings stay out, so that it repeats."""
        rows = [self.rows[step] for step in sorted(self.rows)]
        names = [name for name in rows[0] if name not in (*fit.TIMINGS, "restores")]
        self.csv_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.csv_path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        steps = [row["step"] for row in rows]
        plots.save_curves(
            self.csv_path.with_suffix(".png"),
            {name: (steps, [row[name] for row in rows]) for name in ("loss", "val_loss")},
            xlabel="step",
            ylabel="mean squared error of v (predicting 0: 1)",
        )


class _StopOnSignal:
    """The first Ctrl-C or SIGTERM asks training to stop after its step; a second one stops it."""

    def __init__(self) -> None:
        self.stop = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.stop = True
        signal.signal(number, signal.default_int_handler)


class _Bar:
    """Progress of training, in steps or in minutes of its budget: rate, loss, time left."""

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self.minutes = state.settings.minutes
        self.started: tuple[int, float] | None = None
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            *([] if self.minutes else [MofNCompleteColumn()]),
            TextColumn("{task.fields[rate]:.1f} pictures/s, loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        total = 60 * self.minutes or state.settings.steps
        self.task = self.progress.add_task("", total=total, loss=float("nan"), rate=0.0)

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar; without a terminal it is all that is seen."""
        self.progress.console.print(text, highlight=False, soft_wrap=True)

    def update(self, step: Step) -> None:
        now = time.perf_counter()
        done = int(self.state.seconds) if self.minutes else step.number
        if self.started is None:  # the first step of this process, of a resumed run not the first
            self.started = step.number, now
            self.progress.reset(self.task, completed=done, loss=step.loss, rate=0.0)
            return
        first, began = self.started
        rate = (step.number - first) * self.state.settings.batch_size / (now - began)
        self.progress.update(self.task, completed=done, loss=step.loss, rate=rate)


if __name__ == "__main__":
    stage.run(main)
