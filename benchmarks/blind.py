"""Are colors possible? A blind look at colored photographs, shuffled among true ones.

    python benchmarks/blind.py draw PHOTOGRAPHS SHEETS [--variant TEMPERATURE,SATURATION …]
    python benchmarks/blind.py count SHEETS GRADES

The first command draws numbered sheets of held-back photographs of people, indoors and outdoors
into the folder SHEETS: each colored from its L* with each variant, or the defaults of the weights,
and among them half as many others in their true colors. No colored photograph is seen in its true
colors, or a viewer would judge what differs and not what cannot be. What is which is in
SHEETS.json. Someone who has not seen that grades all:

0   nothing has a color that it cannot have (gray or green skin, a coat of two colors without a
    reason, cyan on white), even at a close look; pale colors, and others than the true ones, are
    possible
1   a blemish that a casual viewer would not notice at this size
2   a casual viewer would notice within two seconds

GRADES has a line for each picture, its number, its grade and any words. The second command counts
the grades of each variant and of the true photographs, which tell how strict the viewer was, and
writes results/blind.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from held_back import RESULTS, held_back
from quality import Quality, on_sheet

from colorized import color, plots
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import RELEASED, load_weights

COLUMNS, ROWS = 4, 3
TRUE = "true"
GRADES = ("0", "1", "2")


def shuffled(
    colored: Sequence[str], true: Sequence[str], names: Sequence[str], seed: int = 0
) -> list[tuple[str, str]]:
    """What the sheets show, in order: a photograph and one of the names, or `TRUE`."""
    every = [(p, name) for p in colored for name in names] + [(p, TRUE) for p in true]
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[i] for i in order]


def count(shown: list[tuple[str, str]], grades: Path) -> dict[str, dict[str, int]]:
    """How often each name has each grade.

    Raises
    ------
    ValueError
        Naming a line that is none, a number that is no picture's, or a picture without a grade.
    """
    given: dict[int, str] = {}
    for line in filter(str.strip, grades.read_text(encoding="utf-8").splitlines()):
        number, grade, *_ = [*line.split(), ""]
        if not number.isdecimal() or grade not in GRADES:
            raise ValueError(f"{grades}: not a number and a grade: {line!r}")
        given[int(number)] = grade
    numbers = range(1, len(shown) + 1)
    if wrong := sorted(given.keys() - set(numbers)):
        raise ValueError(f"{grades}: there is no picture {wrong[0]}")
    if missing := sorted(set(numbers) - given.keys()):
        raise ValueError(f"{grades}: no grade of picture {missing[0]}")
    counts = Counter((name, given[number]) for number, (_, name) in enumerate(shown, 1))
    return {name: {g: counts[name, g] for g in GRADES} for name in sorted({n for _, n in shown})}


def variant(text: str) -> tuple[float, float]:
    """Temperature and saturation, "0.8,1.2"."""
    temperature, saturation = map(float, text.split(","))
    return temperature, saturation


def draw(given: argparse.Namespace) -> None:
    """Write the sheets, and what is on them beside their folder."""
    sampler = ChromaSampler(load_weights(given.weights))
    own = sampler.defaults.temperature, sampler.defaults.saturation
    looks = {
        f"{temperature:g},{saturation:g}": Quality(
            sampler, sampler.defaults.override(temperature=temperature, saturation=saturation)
        )
        for temperature, saturation in given.variant or [own]
    }
    held = held_back(given.photographs, given.split, given.n)
    colored = [p.name for p in on_sheet(held, given.pictures)]
    others = [p for p in held if p.name not in colored]
    true = [p.name for p in on_sheet(others, given.pictures // 2)]
    photographs = {p.name: p for p in held}
    shown = shuffled(colored, true, list(looks))
    size = COLUMNS * ROWS
    for start in range(0, len(shown), size):
        cells = []
        for number, (picture, name) in enumerate(shown[start : start + size], start + 1):
            p = photographs[picture]
            rgb = color.recombine(p.L, p.ab) if name == TRUE else looks[name].color(p, p.L)
            cells.append(plots.grid([[rgb]], [str(number)]))
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % COLUMNS)
        rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
        plots.save(given.sheets / f"{start // size + 1:02d}.png", np.vstack(rows))
    key = {"split": given.split, "pictures": len(colored), "shown": shown}
    given.sheets.with_suffix(".json").write_text(json.dumps(key) + "\n")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw")
    drawing.add_argument("photographs", type=Path)
    drawing.add_argument("sheets", type=Path)
    drawing.add_argument(
        "--variant", action="append", type=variant, metavar="TEMPERATURE,SATURATION"
    )
    drawing.add_argument("--weights", type=Path, default=RELEASED)
    drawing.add_argument("--split", choices=("val", "test"), default="test")
    drawing.add_argument("--n", type=int, default=1000, help="photographs to choose from")
    drawing.add_argument("--pictures", type=int, default=60)
    counting = commands.add_parser("count")
    counting.add_argument("sheets", type=Path)
    counting.add_argument("grades", type=Path)
    given = parser.parse_args()
    if given.command == "draw":
        draw(given)
        return
    key = json.loads(given.sheets.with_suffix(".json").read_text(encoding="utf-8"))
    found = key | {"shown": count(key["shown"], given.grades)}
    print(json.dumps(found, indent=1))
    (RESULTS / "blind.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
