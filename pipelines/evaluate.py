"""Stage 5: measure the colors of the test split → reports/metrics.json and reports/grid.jpg."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from colorized import color, devices, plots, tracking
from colorized.color import resample
from colorized.data import index
from colorized.data.dataset import Shard, chroma_8bit, open_shard
from colorized.evaluation import inception, metrics
from colorized.inference.colorizer import ChromaSampler
from colorized.model.vlb import vlb_per_picture
from colorized.model.weights import Weights, load_weights
from colorized.params import Params
from pipelines import raw, stage
from pipelines.report import show

GRID_SIZE = 256
# Of the metrics, what tells runs apart; all of them are in the file that the run keeps.
HEADLINES = (
    "fid",
    "fid_monochrome",
    "kid",
    "colorfulness",
    "delta_colorfulness",
    "psnr",
    "delta_e",
    "diversity",
    "vlb_bits_per_dim",
    "seconds_per_image",
)


def main(params: Params) -> None:
    """Write and log the metrics of the crops that the sample stage colored."""
    colored, gray, true = (_load(name) for name in ("model", "monochrome", "true"))
    shard = open_shard(stage.LAB, "test")
    rows = index.holdout(stage.LAB, "test", params.sample.pictures)
    weights = load_weights(stage.WEIGHTS, devices.open_device(params.train.device))
    values: dict[str, Any] = {"n": len(true)} | _distances(params, colored, gray, true)
    values |= _per_picture(colored, true, shard, rows)
    values["diversity"] = float(np.mean([metrics.diversity(d) for d in _load("draws")]))
    values |= _bound(params, weights, shard)
    values |= json.loads((stage.SAMPLES / "timing.json").read_text(encoding="utf-8"))
    values["extractor_sha256"] = inception.EXTRACTOR_SHA256
    values = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}

    plots.save(stage.GRID, _grid(params, weights))
    stage.METRICS.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    _log(values)
    show(values)


def _load(name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.load(stage.SAMPLES / f"{name}.npy", mmap_mode="r")
    return array


def _distances(
    params: Params, colored: NDArray[Any], gray: NDArray[Any], true: NDArray[Any]
) -> dict[str, float]:
    """FID and KID against the same crops' true colors."""
    e = params.evaluate
    extractor = inception.InceptionExtractor()
    with Progress() as progress:
        task = progress.add_task("Inception features", total=3 * len(true))

        def features(images: NDArray[Any]) -> NDArray[np.float32]:
            return inception.cached_features(
                extractor,
                list(images),
                stage.FEATURES,
                progress=lambda n: progress.advance(task, n),
            )

        of_model, of_gray, of_true = features(colored), features(gray), features(true)
        progress.update(task, completed=3 * len(true))
    rng = np.random.default_rng(0)
    size = min(e.kid_subset_size, len(true))
    kid, kid_std = metrics.kid(of_model, of_true, e.kid_subsets, size, rng)
    return {
        "fid": metrics.frechet_distance(of_model, of_true),
        "fid_monochrome": metrics.frechet_distance(of_gray, of_true),
        "kid": kid,
        "kid_std": kid_std,
    }


def _per_picture(
    colored: NDArray[Any], true: NDArray[Any], shard: Shard, rows: NDArray[np.int64]
) -> dict[str, float]:
    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    def pairs() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        return zip(colored, true, strict=True)

    def lightness(row: int) -> NDArray[np.float32]:
        L: NDArray[np.float32] = shard.batch(np.array([row])).lightness[0, 0].numpy()
        return L

    ours, real = (mean(metrics.colorfulness(rgb) for rgb in all) for all in (colored, true))
    return {
        "colorfulness": ours,
        "colorfulness_real": real,
        "delta_colorfulness": abs(ours - real),
        "psnr": mean(metrics.psnr(a, b) for a, b in pairs()),
        "delta_e": mean(metrics.delta_e(a, b) for a, b in pairs()),
        "lightness_error_max": max(
            metrics.lightness_error(rgb, lightness(row))
            for rgb, row in zip(colored, rows, strict=True)
        ),
    }


def _bound(params: Params, weights: Weights, shard: Shard) -> dict[str, float]:
    """The variational bound, on evenly spaced crops."""
    e = params.evaluate
    denoiser = weights.denoiser
    rows = np.linspace(0, len(shard) - 1, min(e.vlb_pictures, len(shard))).astype(np.int64)
    batch = shard.batch(rows)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        device = next(denoiser.parameters()).device
        cond = denoiser.encode(batch.lightness.to(device))
        ab8 = chroma_8bit(batch).to(device)
        bits = vlb_per_picture(denoiser, weights.config, ab8, cond, generator, e.vlb_draws).numpy()
    # Crops of one photograph are alike: the standard error counts photographs.
    files = np.array([line["file"] for line in index.read_index(stage.LAB, "test")])[rows]
    means = np.array([bits[files == name].mean() for name in np.unique(files)])
    if len(means) < 2:
        raise ValueError("the bound's standard error needs at least 2 test photographs")
    error = means.std(ddof=1) / np.sqrt(len(means))
    return {"vlb_bits_per_dim": float(means.mean()), "vlb_standard_error": float(error)}


def _grid(params: Params, weights: Weights) -> plots.Picture:
    """The middle of as many test photographs as asked for, colored at 256 pixels."""
    colorizer = ChromaSampler(weights)
    p = params.sample
    options = colorizer.defaults.override(
        sampler=p.sampler,
        steps=p.steps,
        guidance=p.guidance,
        temperature=p.temperature,
        seed=p.seed,
    )
    source = raw.open_source()
    # The first crop of each photograph is its middle.
    first = {line["file"]: line for line in reversed(index.read_index(stage.LAB, "test"))}
    names = sorted(first)
    chosen = np.linspace(0, len(names) - 1, min(params.evaluate.grid_pictures, len(names)))
    cells = []
    for name in (names[round(i)] for i in chosen):
        y, x, side = (int(first[name][key]) for key in ("y", "x", "side"))
        rgb = source.rgb(name)[y : y + side, x : x + side]
        lab = color.srgb_to_lab(resample.resize_rgb(rgb, GRID_SIZE, GRID_SIZE))
        L, ab = lab[..., 0], lab[..., 1:]
        drawn = colorizer.colorize(L, options)
        cells.append([color.recombine(L, c) for c in (np.zeros_like(ab), drawn, ab)])
    return plots.grid(cells, ["monochrome", "colors by the model", "true colors"])


def _log(values: dict[str, Any]) -> None:
    """Add metrics and grid to the MLflow run that trained the weights, if this store has it."""
    about = json.loads(stage.RUN.read_text(encoding="utf-8"))
    run_id = about["run_id"]
    try:
        run = tracking.Run.reopen(stage.ROOT, run_id)
    except tracking.StoreAway as error:
        print(f"warning: not logged, but in {stage.METRICS}: {error}", file=sys.stderr)
        return
    if run is None:
        store = tracking.redact(tracking.tracking_uri(stage.ROOT))
        print(f"MLflow run {run_id} is not in {store}: not logged there")
        return
    run.keep(stage.CHECKPOINTS / about["fingerprint"] / tracking.UNSENT)
    run.metrics(0, {name: float(values[name]) for name in HEADLINES})
    run.tags({"extractor_sha256": values["extractor_sha256"], "test_pictures": str(values["n"])})
    run.file(stage.METRICS)
    run.file(stage.GRID)
    run.describe("Test pictures", {name: values[name] for name in HEADLINES}, stage.GRID.name)
    run.flush()


if __name__ == "__main__":
    stage.run(main)
