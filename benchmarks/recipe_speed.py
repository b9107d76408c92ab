"""How fast a step of denoising is, against the code and network of another commit.

    python benchmarks/recipe_speed.py REVISION [--rounds 5] [--steps 4] [--avx2]

Both train from their released weights on the same random pictures, 32 crops of 128 pixels with one
thread, in processes of their own that take turns. Whether the encoder is trained is as in their
params.yaml. `unet` is the present network without the transformer, which is that of commits before
it had one, but for their smaller encoder, EfficientNet-Lite0; `now` is the present network. What
counts is seconds of processor time of a step, since other work may run beside it; ratios are of the
medians over the rounds. `--avx2` makes torch, oneDNN and MKL compute as on a processor that has
AVX2 and no bfloat16.

Writes benchmarks/results/recipe_speed.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "recipe_speed.json"
TARGET = 1.5
BATCH, SIDE = 32, 128
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def measure(which: str, precision: str, steps: int) -> float:
    """Median seconds of processor time of a step, with the code of this process's folder."""
    import colorized  # noqa: F401  before torch

    # isort: split
    import numpy as np
    import torch

    from colorized.params import load_params
    from pipelines.train import _settings

    params = load_params(Path("params.yaml"))
    same = {"precision": precision, "steps": 10**6, "batch_size": BATCH, "crop_size": SIDE}
    if which != "before":
        same |= {"objective": "denoise", "levels": 1, "film": 0.0}
    params = params.model_copy(update={"train": params.train.model_copy(update=same)})
    settings = _settings(params, torch.device("cpu"))
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 256, (64, SIDE, SIDE, *c), dtype=np.uint8) for c in ((), (2,))]
    if which == "before":  # modules as they lay then
        from colorized.checkpoint import RELEASED, load_weights
        from colorized.dataset import Shard

        from colorized.training import TrainState, train

        state = TrainState(load_weights(RELEASED).denoiser, settings)
    else:
        from colorized.data.dataset import Shard
        from colorized.model.weights import RELEASED, load_weights
        from colorized.training.loop import TrainState, train

        weights = load_weights(RELEASED)
        denoiser = weights.denoiser
        if which == "unet":
            denoiser = dataclasses.replace(weights.config, depth=0).build()
        state = TrainState(denoiser, weights.config, settings)
    training = train(state, Shard(*planes))
    for _ in range(2):
        next(training)
    seconds = []
    for _ in range(steps):
        began = time.process_time()
        next(training)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("revision", nargs="?", help="commit to compare with, before the packages")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of each round")
    parser.add_argument("--avx2", action="store_true", help="no AVX-512, no bfloat16")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--measure", choices=("before", "unet", "now"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    precision = "float32" if options.avx2 else "auto"
    if options.measure:
        print(measure(options.measure, precision, options.steps))
        return
    if not options.revision:
        parser.error("a commit to compare with is needed")
    rows: dict[str, list[float]] = {"before": [], "unet": [], "now": []}
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["git", "clone", "-q", str(ROOT), name], check=True)
        subprocess.run(["git", "checkout", "-q", options.revision], cwd=name, check=True)
        for _ in range(options.rounds):
            for which, seconds in rows.items():
                tree = name if which == "before" else str(ROOT)
                done = subprocess.run(
                    [
                        *(sys.executable, "-W", "ignore", __file__, "--measure", which),
                        *("--steps", str(options.steps), *["--avx2"] * options.avx2),
                    ],
                    cwd=tree,
                    env={**os.environ, "PYTHONPATH": tree, **(AVX2 if options.avx2 else {})},
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                seconds.append(float(done.stdout))
                print(which, seconds[-1], flush=True)
    found = {which: round(statistics.median(seconds), 3) for which, seconds in rows.items()}
    results: dict[str, Any] = {
        "revision": options.revision,
        "avx2": options.avx2,
        "load_before": round(os.getloadavg()[0], 1),
        "rounds": options.rounds,
        "processor_seconds_of_a_step": found,
        "target_ratio": TARGET,
        "ratio": {which: round(found["before"] / found[which], 2) for which in ("unet", "now")},
    }
    print(json.dumps(results, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {(error.stderr or str(error)).strip().splitlines()[-1]}")
