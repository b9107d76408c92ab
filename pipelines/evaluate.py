"""Stage 5: measure the colors of the test split → reports/metrics.json and reports/grid.jpg."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from colorized import color, devices, plots
from colorized.color import resample
from colorized.data import index
from colorized.data.dataset import open_shard
from colorized.evaluation import inception, measure, metrics
from colorized.inference.colorizer import ChromaSampler
from colorized.model.guidance import evaluations
from colorized.model.sampling import noise_levels
from colorized.model.weights import Weights, load_weights
from colorized.options import SamplingOptions
from colorized.params import Params
from colorized.progress import track
from colorized.tracking import (
    HEADLINES,
    FileRun,
    Registry,
    Run,
    TrackingError,
    installed,
    lineage,
    open_run,
    versions,
)
from pipelines import raw, stage
from pipelines.sample import sampling

GRID_SIZE = 256
OF_RELEASED = ("fid", "kid", "colorfulness", "delta_e")


def main(params: Params) -> None:
    """Write and log the metrics of the crops that the sample stage colored."""
    began = time.time()
    device = devices.open_device(params.train.device)
    weights = load_weights(stage.WEIGHTS, device)
    options = sampling(weights.config.sampling, params.sample)
    with _open_run(params, options, began) as run:
        values = {k: round(v, 6) for k, v in _measure(params, weights, options, device).items()}
        plots.save(stage.GRID, _grid(params, weights, options))
        stage.METRICS.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        timing = json.loads(stage.TIMING.read_text()) if stage.TIMING.exists() else {}
        headlines = {name: values[name] for name in HEADLINES}
        run.metrics(0, headlines | timing)
        run.file(stage.METRICS)
        run.file(stage.GRID)
        run.describe("Test pictures", headlines, stage.GRID.name)
    print(
        f"FID {values['fid']:.2f} on {values['n']} crops (released weights "
        f"{values['fid_released']:.2f}, no colors {values['fid_monochrome']:.2f})"
    )


def _measure(
    params: Params, weights: Weights, options: SamplingOptions, device: torch.device
) -> dict[str, Any]:
    e = params.evaluate
    sets = {name: _load(name) for name in ("model", "released", "monochrome", "true")}
    shard = open_shard(stage.LAB, "test")
    rows = index.holdout(stage.LAB, "test", params.sample.pictures)
    true = sets["true"]
    seen = measure.features(sets, stage.FEATURES, device)

    def table(name: str) -> dict[str, float]:
        found = measure.distances(seen[name], seen["true"], e.kid_subsets, e.kid_subset_size)
        return found | measure.per_picture(sets[name], true)

    released = table("released")
    values: dict[str, Any] = {"n": len(true)} | table("model")
    values |= {f"{name}_released": released[name] for name in OF_RELEASED}
    values["fid_monochrome"] = metrics.frechet_distance(seen["monochrome"], seen["true"])
    values["lightness_error_max"] = measure.lightness_error(sets["model"], shard, rows)
    values["diversity"] = float(np.mean([metrics.diversity(d) for d in _load("draws")]))
    photographs = np.array([line["file"] for line in index.read_index(stage.LAB, "test")])
    values |= measure.bound(weights, shard, photographs, e.vlb_pictures, e.vlb_draws)
    sigmas = noise_levels(options, weights.config.few_step_sigmas)
    values["nfe"] = evaluations(sigmas, options)
    return values


def _load(name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.load(stage.SAMPLES / f"{name}.npy", mmap_mode="r")
    return array


def _grid(params: Params, weights: Weights, options: SamplingOptions) -> plots.Picture:
    """The central squares of `evaluate.grid_pictures` test photographs, colored at 256 pixels."""
    colorizer = ChromaSampler(weights)
    source = raw.open_source()
    # The first crop of each photograph is its middle.
    first = {line["file"]: line for line in reversed(index.read_index(stage.LAB, "test"))}
    names = sorted(first)
    chosen = np.linspace(0, len(names) - 1, min(params.evaluate.grid_pictures, len(names)))
    cells = []
    for name in track([names[round(i)] for i in chosen], "picture grid", "photographs"):
        y, x, side = (int(first[name][key]) for key in ("y", "x", "side"))
        rgb = source.rgb(name)[y : y + side, x : x + side]
        lab = color.srgb_to_lab(resample.resize_rgb(rgb, GRID_SIZE, GRID_SIZE))
        L, ab = lab[..., 0], lab[..., 1:]
        drawn = colorizer.colorize(L, options)
        cells.append([color.recombine(L, c) for c in (np.zeros_like(ab), drawn, ab)])
    return plots.grid(cells, ["monochrome", "colors by the model", "true colors"])


def _open_run(params: Params, options: SamplingOptions, began: float) -> Run | FileRun:
    """A new run, a child of the one that trained the weights if that is known."""
    sha256 = hashlib.sha256(stage.WEIGHTS.read_bytes()).hexdigest()
    training = lineage.noted(stage.ROOT, sha256).get("run_id")
    if installed():
        try:
            found = Registry(stage.ROOT, create=True).find_run(sha256)
            training = found[0] if found else training
        except TrackingError as error:
            print(f"warning: the run of the weights is not looked up: {error}", file=sys.stderr)
    # Including the options of the weights that params.yaml leaves open.
    made_by = params.model_dump(exclude={"promote", "keep"})
    made_by["sample"] |= {name: v for name, v in asdict(options).items() if name != "saturation"}
    tags = {
        "stage": "evaluate",
        "evaluated_weights": sha256,
        "extractor_sha256": inception.EXTRACTOR_SHA256,
        "data_md5": versions.data_md5(stage.ROOT),
        **versions.describe(stage.ROOT),
        **stage.surroundings(),
    }
    run = open_run(
        stage.ROOT,
        f"evaluate {options.steps} steps, guidance {options.guidance:g}, "
        f"temperature {options.temperature:g}",
        made_by,
        tags,
        parent=training,
        started=began,
    )
    versions.log(run, stage.ROOT)
    return run


if __name__ == "__main__":
    stage.run(main)
