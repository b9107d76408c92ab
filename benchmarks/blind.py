"""Are colors possible? A blind look at colored photographs, shuffled among true ones.

    python benchmarks/blind.py PHOTOGRAPHS SHEETS [--variant TEMPERATURE,SATURATION …]
    python benchmarks/blind.py PHOTOGRAPHS SHEETS --grades FILE

The first command draws numbered sheets of held-back photographs of people, indoors and outdoors
into the folder SHEETS: each photograph as it is, and colored from its L* with each variant, or the
defaults of the weights. Someone who has not seen which is which grades all of them:

0   nothing has a color that it cannot have (gray or green skin, a coat of two colors without a
    reason, cyan on white), even at a close look; pale colors, and others than the true ones, are
    possible
1   a blemish that a casual viewer would not notice at this size
2   a casual viewer would notice within two seconds

FILE has a line for each picture, its number, its grade and any words. The second command counts the
grades of each variant and of the true photographs, which tell how strict the viewer was, and writes
results/blind.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from held_back import RESULTS, held_back
from quality import ON_SHEET, Quality

from colorized import color, plots
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights

COLUMNS, ROWS = 4, 3
TRUE = "true"


def shuffled(pictures: int, names: list[str], seed: int = 0) -> list[tuple[int, str]]:
    """Every picture under every name, shuffled: what the sheets show, in order."""
    every = [(picture, name) for picture in range(pictures) for name in names]
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[i] for i in order]


def count(shown: list[tuple[int, str]], grades: Path) -> dict[str, dict[str, int]]:
    """How often each name has each grade.

    Raises
    ------
    ValueError
        Naming the first line that is none, or a picture without a grade.
    """
    given: dict[int, str] = {}
    for line in grades.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        name, grade, *_ = [*line.split(), ""]
        if not name.isdecimal() or grade not in ("0", "1", "2"):
            raise ValueError(f"{grades}: not a number and a grade: {line!r}")
        given[int(name)] = grade
    missing = sorted(set(range(1, len(shown) + 1)) - given.keys())
    if missing:
        raise ValueError(f"{grades}: no grade of picture {missing[0]}")
    counts = {name: Counter[str]() for _, name in shown}
    for number, (_, name) in enumerate(shown, 1):
        counts[name][given[number]] += 1
    return {name: {grade: c[grade] for grade in ("0", "1", "2")} for name, c in counts.items()}


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("sheets", type=Path)
    parser.add_argument("--grades", type=Path)
    parser.add_argument("--variant", action="append", default=[], metavar="TEMPERATURE,SATURATION")
    parser.add_argument("--weights", type=Path, default=RELEASED)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--n", type=int, default=1000, help="photographs to choose the pictures of")
    parser.add_argument("--pictures", type=int, default=60)
    given = parser.parse_args()
    sampler = ChromaSampler(load_weights(given.weights))
    own = f"{sampler.defaults.temperature:g},{sampler.defaults.saturation:g}"
    variants = given.variant or [own]
    kinds = [
        [p for p in held_back(given.photographs, given.split, given.n) if p.kind == kind]
        for kind in ON_SHEET
    ]
    chosen = [p for some in kinds for p in some[: given.pictures // len(kinds)]]
    shown = shuffled(len(chosen), [TRUE, *variants])
    if given.grades:
        found = {"split": given.split, "pictures": len(chosen), **count(shown, given.grades)}
        print(json.dumps(found, indent=1))
        (RESULTS / "blind.json").write_text(json.dumps(found, indent=1) + "\n")
        return
    given.sheets.mkdir(parents=True, exist_ok=True)
    looks = {}
    for variant in variants:
        temperature, saturation = map(float, variant.split(","))
        options = dataclasses.replace(
            sampler.defaults, temperature=temperature, saturation=saturation
        )
        looks[variant] = Quality(sampler, options)
    for start in range(0, len(shown), COLUMNS * ROWS):
        cells = []
        for number, (picture, name) in enumerate(shown[start : start + COLUMNS * ROWS], start + 1):
            p = chosen[picture]
            rgb = color.recombine(p.L, p.ab) if name == TRUE else looks[name].color(p, p.L)
            cells.append(plots.grid([[rgb]], [str(number)]))
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % COLUMNS)
        rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
        plots.save(given.sheets / f"{start // (COLUMNS * ROWS) + 1:02d}.png", np.vstack(rows))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
