"""How fast a step of params.yaml's training is, against another commit's code and params.yaml.

    python benchmarks/recipe_speed.py REVISION [--rounds 5] [--steps 4] [--avx2]

Both train from the released weights on the same random pictures, in processes of their own that
take turns. What counts is crops per second of processor time, since other work may run beside it;
the ratio is of the medians over the rounds. `--avx2` makes torch, oneDNN and MKL compute as on a
processor that has AVX2 and no bfloat16. Writes benchmarks/results/recipe_speed.json.
"""

from __future__ import annotations

import argparse
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
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def measure(objective: str, precision: str, steps: int) -> dict[str, float]:
    """Crops per second of processor and clock, with the code and params.yaml of this process."""
    import colorized  # noqa: F401  before torch

    # isort: split
    import numpy as np
    import torch

    from colorized.data.dataset import Shard
    from colorized.model.weights import RELEASED, load_weights
    from colorized.params import load_params
    from colorized.training.distributed import Processes
    from colorized.training.finish import Finish, FinishSettings
    from colorized.training.loop import TrainState, train
    from pipelines.train import _settings

    params = load_params(Path("params.yaml"))
    t = params.train.model_copy(update={"precision": precision, "steps": 10**6, "minutes": 0.0})
    params = params.model_copy(update={"train": t})
    rng, size = np.random.default_rng(0), params.preprocess.image_size
    pictures = Shard(
        rng.integers(0, 256, (64, size, size), dtype=np.uint8),
        rng.integers(0, 256, (64, size, size, 2), dtype=np.uint8),
    )
    weights, processes = load_weights(RELEASED), Processes(torch.device("cpu"))
    config, how = weights.config, None
    if objective == "finish":
        values = params.finish.model_dump()
        beside = [values.pop(k) for k in ("sigmas", "guidance") if k in values]
        config = config.finished(*beside)
        how = Finish(config, FinishSettings(**values), processes, 0)
    settings = _settings(params, processes.device)
    training = train(TrainState(weights.denoiser, config, settings, processes, how), pictures)
    for _ in range(2):
        next(training)
    clock, processor = [], []
    for _ in range(steps):
        began, busy = time.perf_counter(), time.process_time()
        next(training)
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
    return {
        "crops_per_processor_second": t.batch_size / statistics.median(processor),
        "crops_per_second": t.batch_size / statistics.median(clock),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("revision", nargs="?", help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of each round")
    parser.add_argument("--avx2", action="store_true", help="no AVX-512, no bfloat16")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--measure", choices=("finish", "denoise"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    precision = "float32" if options.avx2 else "auto"
    if options.measure:
        print(json.dumps(measure(options.measure, precision, options.steps)))
        return
    if not options.revision:
        parser.error("a commit to compare with is needed")
    results: dict[str, Any] = {
        "revision": options.revision,
        "avx2": options.avx2,
        "threads": int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))),
        "load_before": round(os.getloadavg()[0], 1),
        "rounds": options.rounds,
        "target_ratio": TARGET,
    }
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["git", "clone", "-q", str(ROOT), name], check=True)
        subprocess.run(["git", "checkout", "-q", options.revision], cwd=name, check=True)
        trees = {"before": Path(name), "now": ROOT}
        for objective in ("finish", "denoise"):
            rows: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
            for _ in range(options.rounds):
                for which, tree in trees.items():
                    done = subprocess.run(
                        [
                            *(sys.executable, "-W", "ignore", __file__, "--measure", objective),
                            *("--steps", str(options.steps), *["--avx2"] * options.avx2),
                        ],
                        cwd=tree,
                        env={
                            **os.environ,
                            "PYTHONPATH": str(tree),
                            **(AVX2 if options.avx2 else {}),
                        },
                        capture_output=True, text=True, check=True,
                    )  # fmt: skip
                    rows[which].append(json.loads(done.stdout))
                    print(objective, which, rows[which][-1], flush=True)
            found: dict[str, Any] = {
                which: {
                    key: round(statistics.median(row[key] for row in many), 3) for key in many[0]
                }
                for which, many in rows.items()
            }
            key = "crops_per_processor_second"
            found["ratio"] = round(found["now"][key] / found["before"][key], 2)
            results[objective] = found
    print(json.dumps(results, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {(error.stderr or str(error)).strip().splitlines()[-1]}")
