"""Stage 3: LAB shards → models/colorized.safetensors, with curves and grids in MLflow."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colorized import devices, plots
from colorized.data import index, streaming
from colorized.data.dataset import Pictures, open_shard
from colorized.model.denoiser import Denoiser
from colorized.model.draw import draw_chroma
from colorized.model.weights import RELEASED, ModelConfig, load_tensors, load_weights, save_weights
from colorized.params import Params
from colorized.progress import Progress
from colorized.tracking import (
    PARENT,
    FileRun,
    Registry,
    Run,
    TrackingError,
    open_run,
    system_metrics,
    versions,
)
from colorized.training import fit, recipe
from colorized.training.checkpoint import load_checkpoint
from colorized.training.distributed import open_processes
from colorized.training.finish import Finish, FinishSettings
from colorized.training.grid import validation_grid
from colorized.training.history import History
from colorized.training.housekeeping import remove_finished
from colorized.training.loop import OutOfMemory, Step, TrainSettings, TrainState
from colorized.training.recipe import FINISHED, Recipe
from colorized.training.stopping import StopOnSignal
from pipelines import stage

# These may change when a training resumes: they only distribute the work.
FREE = ("workers", "accumulate")
CURVES = stage.REPORTS / "training.csv"
CHUNK_CACHE_BYTES = 4 << 30


def main(params: Params) -> None:
    """Train or fine-tune, resuming a stopped run of the same parameters, data and code."""
    processes = open_processes(params.train.device)
    torch.set_num_threads(params.train.threads or torch.get_num_threads())
    stats = index.read_stats(stage.LAB)
    config, denoiser, initial = _start(params, stats)
    # The index holds the sha256 of every picture, and where each crop was cut from it.
    described = b"".join((stage.LAB / name).read_bytes() for name in ("stats.json", "index.csv"))
    digest = hashlib.sha256(described).hexdigest()
    values = params.model_dump(include={"model", "diffusion", "train", "finish"}) | {
        "data": digest,
        "initial_weights": initial,
    }
    values["train"] = {key: v for key, v in values["train"].items() if key not in FREE}
    made = recipe.make(values)
    about = {
        "data_sha256": digest,
        "init": params.train.init,
        "initial_weights_sha256": initial,
        "train": params.train.model_dump(),
        "finish": params.finish.model_dump(),
    }
    folder = stage.CHECKPOINTS / made.fingerprint
    finish = params.train.objective == "finish"
    if finish:
        config = config.finished(params.finish.sampling_sigmas, params.finish.guidance)
    if processes.main and os.environ.get(stage.AGAIN) and (folder / FINISHED).exists():
        shutil.rmtree(folder)
    if processes.share((folder / FINISHED).exists()):
        if processes.main:
            _publish_finished(denoiser, config, about, folder)
        processes.close()
        return

    settings = _settings(params, processes.device)
    objective = None
    if finish:
        weighed = FinishSettings(
            **params.finish.model_dump(exclude={"sigmas", "sampling_sigmas", "guidance"})
        )
        taught = dataclasses.replace(config, few_step_sigmas=tuple(params.finish.sigmas))
        objective = Finish(taught, weighed, processes, params.train.seed)
    denoiser.to(processes.device)
    state = TrainState(denoiser, config, settings, processes, objective)
    try:
        train = functools.partial(
            fit.fit,
            state,
            _open_train(stats),
            open_shard(stage.LAB, "val"),
            folder,
            validate_every=params.train.validate_every,
            checkpoint_every=params.train.checkpoint_every,
            workers=params.train.workers,
            should_stop=StopOnSignal(),
        )
        if processes.main:
            _lead(params, train, state, config, stats, about, made)
        else:  # the first one logs
            train(log=lambda step, numbers: None)
    except OutOfMemory as error:
        raise ValueError(str(error)) from error
    processes.close()


def _lead(
    params: Params,
    train: Callable[..., None],
    state: TrainState,
    config: ModelConfig,
    stats: Mapping[str, Any],
    about: Mapping[str, Any],
    made: Recipe,
) -> None:
    """Train as the first process, which logs the run and writes grids, weights and curves."""
    folder = stage.CHECKPOINTS / made.fingerprint
    val_shard = open_shard(stage.LAB, "val")
    if not (folder / fit.GOOD).exists() and (why := recipe.why_not(made, stage.CHECKPOINTS)):
        print(why)
    history = History(folder)
    made.save(folder)
    minutes = params.train.minutes
    total, unit = (60 * minutes, "s") if minutes else (params.train.steps, "steps")
    with _open_run(params, stats, about, folder) as run, Progress("training", unit, total) as shown:

        def on_step(step: Step) -> None:
            done = state.seconds if minutes else step.number
            if not shown.begun:  # the first step of this process, of a resumed run not the first
                shown.begin(done)
            at = f", step {step.number}" if minutes else ""
            shown.update(done, f"{at}, loss {step.loss:.3f}")

        def log(step: int, numbers: Mapping[str, float]) -> None:
            history.add(step, numbers)
            run.metrics(step, {**numbers, **system_metrics()})
            loss = f"loss {numbers['loss']:.3f}, " if "loss" in numbers else ""
            print(f"step {step}: {loss}validation {numbers['val_loss']:.3f}", flush=True)

        def draw(lightness: NDArray[np.float32]) -> NDArray[np.float32]:
            return draw_chroma(state.ema, config, lightness, config.sampling)

        def on_validate(step: int) -> None:
            path = folder / "grids" / f"step-{step:06d}.png"
            plots.save(path, validation_grid(draw, val_shard))
            run.file(path, "grids")

        train(
            log=log,
            on_step=on_step,
            on_validate=on_validate,
            on_restore=lambda line: print(line, flush=True),
        )
        noted = _publish(state.ema, config, about, history)
        run.file(stage.WEIGHTS, "weights")
        for kept in (fit.LAST, fit.BEST):
            run.file(folder / kept, "checkpoints")
        steps = {kept: load_checkpoint(folder / kept)["step"] for kept in (fit.LAST, fit.BEST)}
        run.tags({f"{Path(kept).stem}_step": str(step) for kept, step in steps.items()} | noted)
        first, final = history.rows[0], history.rows[state.step]
        figures = {"loss": final["loss"], "val_loss": final["val_loss"]}
        figures["val_loss before training"] = first["val_loss"]
        run.describe("Training", figures, f"grids/step-{state.step:06d}.png")
    noted |= {"run_id": run.run_id, "data_md5": versions.data_md5(stage.ROOT)}
    noted |= versions.describe(stage.ROOT)
    (folder / FINISHED).write_text(json.dumps(noted) + "\n", encoding="utf-8")
    removed = remove_finished(stage.CHECKPOINTS, params.keep.trainings)
    if isinstance(run, Run):
        try:
            removed += Registry(stage.ROOT).remove_checkpoints(params.keep.trainings)
        except TrackingError as error:
            print(f"warning: checkpoints of earlier runs stay: {error}", file=sys.stderr)
    for line in removed:
        print(f"removed: {line}")


def _publish(
    denoiser: Denoiser, config: ModelConfig, about: Mapping[str, Any], history: History
) -> dict[str, str]:
    """Write weights and curves; the hashes of the weights, as DVC and marks name them."""
    save_weights(stage.WEIGHTS, denoiser.network.state_dict(), config, dict(about))
    history.publish(CURVES)
    written = stage.WEIGHTS.read_bytes()
    return {f"weights_{kind}": hashlib.new(kind, written).hexdigest() for kind in ("sha256", "md5")}


def _publish_finished(
    denoiser: Denoiser, config: ModelConfig, about: Mapping[str, Any], folder: Path
) -> None:
    """Write the results of a training that was finished before; its run is not changed."""
    path = folder / fit.LAST
    load_tensors(denoiser.network, load_checkpoint(path)["ema"], str(path))
    _publish(denoiser, config, about, History(folder))
    run_id = json.loads((folder / FINISHED).read_text(encoding="utf-8"))["run_id"]
    print(f"trained before, with these parameters, data and code: run {run_id}, {folder}")


def _start(params: Params, stats: Mapping[str, Any]) -> tuple[ModelConfig, Denoiser, str]:
    """The denoiser to train, and the sha256 of the weights it starts from, if any."""
    a, b = stats["ab_std"]
    one, two, three = params.model.channels
    config = ModelConfig(
        channels=(one, two, three),
        **params.model.model_dump(exclude={"channels"}),
        **params.diffusion.model_dump(),
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
    for key in ("channels", "time_channels", "width", "depth", "schedule", "T"):
        wanted, found = getattr(config, key), getattr(weights.config, key)
        if wanted != found:
            raise ValueError(
                f"{path}: was trained with {key} {found}, params.yaml asks for {wanted}"
            )
    # What the weights know of larger pictures than these crops is not forgotten.
    size = max(weights.config.work_size, params.train.crop_size)
    config = dataclasses.replace(weights.config, work_size=size)
    return config, weights.denoiser, hashlib.sha256(path.read_bytes()).hexdigest()


def _open_train(stats: Mapping[str, Any]) -> Pictures:
    """The training split, from where the preprocess stage put it."""
    stored = stats["storage"]
    if not stored:
        return open_shard(stage.LAB, "train")
    # The cache must hold the chunks that are mixed; a larger one saves downloads.
    return streaming.open_stream(stored["url"], stage.CHUNKS, CHUNK_CACHE_BYTES, stored["sha256"])


def _settings(params: Params, device: torch.device) -> TrainSettings:
    """The values of params.yaml by their names there, except these two."""
    names = {field.name for field in dataclasses.fields(TrainSettings)}
    return TrainSettings(
        **params.train.model_dump(include=names),
        learning_rate=params.train.lr,
        bfloat16=devices.use_bfloat16(params.train.precision, device),
    )


def _open_run(
    params: Params, stats: Mapping[str, Any], about: Mapping[str, Any], folder: Path
) -> Run | FileRun:
    """The run of the checkpoint folder: the one that was stopped, or a new one."""
    tags = {
        "stage": "train",
        "data_md5": versions.data_md5(stage.ROOT),
        "data_sha256": about["data_sha256"],
        "fingerprint": folder.name,
        **versions.describe(stage.ROOT),
        **stage.surroundings(),
    }
    # The other stages' parameters do not distinguish trainings.
    values = params.model_dump(exclude={"sample", "evaluate", "promote", "keep"})
    note = folder / "run_id"
    run = open_run(
        stage.ROOT,
        f"train {params.train.init}, {params.train.steps} steps",
        values,
        tags,
        parent=os.environ.get(PARENT),
        resumed=note.read_text().strip() if note.exists() else None,
    )
    note.write_text(run.run_id + "\n")
    versions.log(run, stage.ROOT)
    profile = {key: stats[key] for key in ("photographs", "crops", "left_out", "image_size")}
    run.dataset(params.data.source, tags["data_md5"], "data/lab", profile)
    if stage.DATASET.is_dir():
        run.file(stage.DATASET, "dataset")
    return run


if __name__ == "__main__":
    stage.run(main)
