"""Speed of training and coloring beside other programs, with sleeping and spinning threads.

    python benchmarks/busy.py [--rounds 5] [--seconds 8] [--threads 2]

OpenMP's threads spin while they wait for each other unless OMP_WAIT_POLICY says otherwise, as
`import colorized` makes it say. Here both ways do the same work on a machine as it is, and beside
one busy loop for each core, in turns. What counts is the processor's
time for a piece of work beside the loops, over that without them: at most 1.3 with threads that
sleep. Training is a step of 32 crops of 96 pixels, with one thread as params.yaml has it, and with
several, `train_threads`; coloring is a photograph by the command's way, with one thread, and an
evaluation's draw of a crop, with several. The load of others is recorded;
measure on a machine that has none. Writes benchmarks/results/busy.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PHOTOGRAPH = ROOT / "data" / "sample" / "archive" / "dust-bowl-home.jpg"
TARGET = 1.3
WORK = ("train", "train_threads", "draw", "photograph")
# What libgomp does where neither variable is set; the first overrides our policy.
WAYS = {"sleeping": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}


def piece(name: str) -> Callable[[], object]:
    """A piece of work, ready to be done again and again."""
    import colorized  # before torch

    if name.startswith("train"):
        import torch
        from train_speed import steps

        training = steps("ours", torch.device("cpu"))
        return lambda: next(training)
    colorizer = colorized.Colorizer()
    if name == "photograph":
        return lambda: colorizer.colorize(PHOTOGRAPH)
    guide = colorizer.colorize(PHOTOGRAPH).pages[0].guide
    return lambda: colorizer.sampler.candidates(guide, 1)


def measure(name: str, rounds: int, seconds: float, threads: int) -> dict[str, dict[str, float]]:
    """Median seconds of the processor and of the clock for a piece of work, alone and beside."""
    work = piece(name)
    import torch

    torch.set_num_threads(1 if name == "train" else threads)
    work()
    work()
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "beside": []}
    for _ in range(rounds):
        for how, rows in found.items():
            with loops(len(os.sched_getaffinity(0)) if how == "beside" else 0):
                count, began, busy = 0, time.perf_counter(), time.process_time()
                while time.perf_counter() - began < seconds:
                    work()
                    count += 1
                took = time.process_time() - busy, time.perf_counter() - began
            rows.append((took[0] / count, took[1] / count))
    return {
        how: {
            "processor": statistics.median(row[0] for row in rows),
            "clock": statistics.median(row[1] for row in rows),
        }
        for how, rows in found.items()
    }


@contextmanager
def loops(count: int) -> Iterator[None]:
    """So many busy loops, for as long as this lasts."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--piece", choices=WORK, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.piece:
        found = measure(options.piece, options.rounds, options.seconds, options.threads)
        print(json.dumps(found))
        return
    results: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "threads": options.threads,
        "load_before": round(os.getloadavg()[0], 1),
        "rounds": options.rounds,
        "target": TARGET,
    }
    for name in WORK:
        results[name] = {}
        for way, variables in WAYS.items():
            done = subprocess.run(
                [
                    *(sys.executable, "-W", "ignore", __file__, "--piece", name),
                    *("--rounds", str(options.rounds), "--seconds", str(options.seconds)),
                    *("--threads", str(options.threads)),
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            took = json.loads(done.stdout)
            ratio = took["beside"]["processor"] / took["alone"]["processor"]
            results[name][way] = {
                "processor_seconds": round(took["alone"]["processor"], 4),
                "processor_seconds_beside": round(took["beside"]["processor"], 4),
                "clock_seconds_beside": round(took["beside"]["clock"], 4),
                "ratio": round(ratio, 2),
            }
            print(name, way, results[name][way], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "busy.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {error.stderr.strip().splitlines()[-1]}")
