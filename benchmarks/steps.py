"""FID against the number of evaluations: few, against 250 of ancestral sampling.

    python benchmarks/steps.py PICTURES [--weights FILE] [--n 500] [--guidance W]

PICTURES holds the folder `objects`; N of those that no training sees, at 64 pixels, are colored by
the default sampler in 1 to 20 steps, and by DDPM's ancestral sampling in 250, with the same seeds.
Guidance asks the network twice in each step. Writes benchmarks/results/steps.json and the plot
docs/pictures/steps.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from held_back import RESULTS, ROOT, SIZES, Pictures

from colorized import checkpoint, color, metrics
from colorized.colorizer import Colorizer
from colorized.devices import open_device
from colorized.job import GUIDANCE, TEMPERATURE

SAMPLER, STEPS = "dpm_solver_pp_2m", (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
REFERENCE, REFERENCE_STEPS = "ddpm", 250
NAME = "objects"
TOLERANCE = 1.05
"""A FID within this factor of the reference's is as good."""


def plot(path: Path, rows: list[dict[str, float]], reference: float, monochrome: float) -> None:
    """FID over steps, with the lines of the reference and of no colors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    steps = [row["steps"] for row in rows]
    axes.plot(steps, [row["fid"] for row in rows], "o-", label="DPM-Solver++(2M), the default")
    axes.axhline(reference, color="black", label=f"ancestral sampling, {REFERENCE_STEPS} steps")
    axes.axhspan(reference, TOLERANCE * reference, color="black", alpha=0.1, label="within 5 %")
    axes.axhline(monochrome, color="gray", linestyle=":", label="monochrome")
    axes.set(xlabel="steps", ylabel="FID", xscale="log", xticks=steps, ylim=(0, None))
    axes.set_xticklabels([str(step) for step in steps])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Measure, print a table, write it and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, default=checkpoint.RELEASED)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "pictures" / "steps.png")
    options = parser.parse_args()
    weights = checkpoint.load_weights(options.weights, open_device(options.device))
    colorizer = Colorizer(weights)
    some = Pictures.load(options.pictures, NAME, options.n, metrics.InceptionExtractor())

    def fid(sampler: str, steps: int) -> float:
        drawn = [
            colorizer.colorize(
                lab[..., 0],
                steps=steps,
                seed=i,
                sampler=sampler,
                guidance=options.guidance,
                temperature=options.temperature,
            )
            for i, lab in enumerate(some.labs)
        ]
        pairs = zip(some.labs, drawn, strict=True)
        return some.fid([color.recombine(lab[..., 0], ab) for lab, ab in pairs])

    asked = 1 if options.guidance == 1 else 2
    reference = fid(REFERENCE, REFERENCE_STEPS)
    print(f"{REFERENCE}, {REFERENCE_STEPS} steps: {reference:.2f}", flush=True)
    rows: list[dict[str, float]] = []
    for steps in STEPS:
        found = fid(SAMPLER, steps)
        row = {"steps": steps, "evaluations": asked * steps, "fid": found}
        rows.append({**row, "fid_over_reference": found / reference})
        print(json.dumps(rows[-1]), flush=True)
    monochrome = some.fid(some.mono)
    enough = [row["steps"] for row in rows if row["fid_over_reference"] <= TOLERANCE]
    results: dict[str, Any] = {
        "pictures": NAME,
        "size": SIZES[NAME],
        "n": len(some.labs),
        "guidance": options.guidance,
        "temperature": options.temperature,
        "parameters": sum(p.numel() for p in weights.denoiser.network.parameters()),
        "threads": torch.get_num_threads(),
        "reference": {"sampler": REFERENCE, "steps": REFERENCE_STEPS, "fid": reference},
        "sampler": SAMPLER,
        "steps": rows,
        "fid_monochrome": monochrome,
        "fewest_steps_within_5_percent": min(enough, default=None),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "steps.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(options.plot, rows, reference, monochrome)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
