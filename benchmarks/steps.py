"""FID against the number of evaluations: few, against 250 of ancestral sampling.

    python benchmarks/steps.py PICTURES [--weights FILE] [--n 300] [--guidance W]

PICTURES holds the folder `objects`; N of those that no training sees, at 64 pixels, are colored by
the default sampler in 1 to 20 steps, and by DDPM's ancestral sampling in 250, with the same seeds.
Colorfulness tells what FID hides: that few steps give colors that are nearly gray. Writes
benchmarks/results/steps.json and the plot docs/pictures/steps.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from held_back import RESULTS, ROOT, SIZES, Pictures

from colorized.devices import open_device
from colorized.evaluation import inception
from colorized.inference.colorizer import ChromaSampler
from colorized.model.guidance import evaluations
from colorized.model.sampling import noise_levels
from colorized.model.weights import RELEASED, load_weights

CURVE = (1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 20)
REFERENCE, REFERENCE_STEPS = "ddpm", 250
NAME = "objects"
TOLERANCE = 1.05
"""A FID within this factor of the reference's is as good."""


def plot(
    path: Path, rows: list[dict[str, float]], reference: dict[str, float], monochrome: float
) -> None:
    """FID and colorfulness over evaluations, with the lines of the reference and of no colors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    asked = [row["evaluations"] for row in rows]
    left.plot(asked, [row["fid"] for row in rows], "o-", label="DPM-Solver++(2M), the default")
    left.axhline(reference["fid"], color="black", label=f"ancestral, {REFERENCE_STEPS} steps")
    left.axhspan(
        reference["fid"],
        TOLERANCE * reference["fid"],
        color="black",
        alpha=0.1,
        label="within 5 % of it",
    )
    left.axhline(monochrome, color="gray", linestyle=":", label="monochrome")
    left.set(ylabel="FID", ylim=(0, None))
    left.legend(frameon=False, fontsize="small", loc="lower right")
    right.plot(asked, [row["colorfulness_share"] for row in rows], "o-")
    right.axhline(reference["colorfulness_share"], color="black")
    right.axhline(1, color="gray", linestyle=":")
    right.set(ylabel="colorfulness, share of the true pictures'", ylim=(0, None))
    for axes in (left, right):
        axes.set(xlabel="evaluations of the network", xscale="log", xticks=asked)
        # One that would touch the number before it is left out.
        axes.set_xticklabels(
            [
                str(n) if n > 1.1 * before else ""
                for before, n in zip([0, *asked[:-1]], asked, strict=True)
            ]
        )
        axes.minorticks_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Measure, print a table, write it and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, default=RELEASED)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "pictures" / "steps.png")
    options = parser.parse_args()
    weights = load_weights(options.weights, open_device(options.device))
    colorizer = ChromaSampler(weights)
    how = colorizer.defaults.override(guidance=options.guidance, temperature=options.temperature)
    some = Pictures.load(options.pictures, NAME, options.n, inception.InceptionExtractor())

    def measure(sampler: str, steps: int) -> dict[str, float]:
        chosen = how.override(sampler=sampler, steps=steps)
        images = some.colored(
            colorizer, lambda L, seed: colorizer.draw(L, chosen.override(seed=seed))
        )
        asked = evaluations(noise_levels(chosen), how.guidance)
        return {"steps": steps, "evaluations": asked, **some.in_short(images)}

    reference = measure(REFERENCE, REFERENCE_STEPS)
    print(REFERENCE, json.dumps(reference), flush=True)
    rows = []
    for steps in CURVE:
        row = measure(how.sampler, steps)
        rows.append({**row, "fid_over_reference": row["fid"] / reference["fid"]})
        print(json.dumps(rows[-1]), flush=True)
    monochrome = some.fid(some.mono)
    enough = [row["evaluations"] for row in rows if row["fid_over_reference"] <= TOLERANCE]
    default = next(row for row in rows if row["steps"] == how.steps)
    results: dict[str, Any] = {
        "pictures": NAME,
        "size": SIZES[NAME],
        "n": len(some.labs),
        "guidance": how.guidance,
        "temperature": how.temperature,
        "parameters": sum(p.numel() for p in weights.denoiser.network.parameters()),
        "threads": torch.get_num_threads(),
        "reference": {"sampler": REFERENCE, **reference},
        "sampler": how.sampler,
        "default": default,
        "rows": rows,
        "fid_monochrome": monochrome,
        "fewest_evaluations_within_5_percent": min(enough, default=None),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "steps.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(options.plot, rows, reference, monochrome)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
