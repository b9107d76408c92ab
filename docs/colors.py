"""The tables of docs/colors.md, from what the benchmarks wrote.

python docs/colors.py           writes the tables between their markers
python docs/colors.py --check   exits with 1 when they are not the ones that belong there
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "docs" / "colors.md"
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> dict[str, Any]:
    """A benchmark's results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def upsampling() -> str:
    """Error of each method near edges, as a share of that of linear interpolation."""
    sets = [read("upsampling"), read("upsampling-photos")]
    heads = [f"{s['photographs']} photographs, {s['enlarged']:.0f} ×" for s in sets]
    lines = [f"| error near edges | {' | '.join(heads)} |", "| --- | ---: | ---: |"]
    errors = " | ".join(f"{s['quality']['linear']['error']:.2f}" for s in sets)
    lines.append(f"| linear interpolation, CIELAB units | {errors} |")
    for method in (m for m in sets[0]["quality"] if m != "linear"):
        shares = " | ".join(f"{s['quality'][method]['over_linear']:.2f}" for s in sets)
        lines.append(f"| {method}, as a share of it | {shares} |")
    speed = sets[0]["speed"]
    return "\n".join(lines) + (
        f"\n\nThe first are those of `data/sample`, the second 256 pixels high. A scan of "
        f"{speed['megapixels']:.0f} megapixels takes {speed['over_linear']:.0f} times as long as "
        f"OpenCV's linear interpolation, {speed['guide_to_rows']:.1f} s on the machine that made "
        f"this table, with {sets[0]['threads']} thread(s)."
    )


def candidates() -> str:
    """Which candidate comes first, and how they differ."""
    found = read("hints")
    c = found["candidates"]
    rows = {
        "error of the first": f"{c['first']:.1f}",
        "mean error of all draws": f"{c['mean']:.1f}",
        "photographs where the first is better than the mean": f"{c['first_better']:.0%}",
        "error of the best of those picked": f"{c['best_picked']:.1f}",
        "mean distance of two that are picked": f"{c['apart_picked']:.1f}",
        "mean distance of any two": f"{c['apart_any']:.1f}",
        "correlation of uncertainty and mean error, over the pixels": f"{c['correlation']:.2f}",
    }
    head = f"{found['photographs']} photographs, 8 of 16 draws; CIELAB units"
    return _table(head, rows)


def hints() -> str:
    """Whether hints are met and what they do to the rest."""
    found = read("hints")
    h = found["hints"]
    surfaces = found["surfaces"].values()
    rows = {
        "CIEDE2000 at hints in true colors": (
            f"{h['at_true_hints_with']:.2f} (without them {h['at_true_hints_without']:.1f})"
        ),
        "CIEDE2000 at hints in random colors": (
            f"{h['at_odd_hints_with']:.2f} (without them {h['at_odd_hints_without']:.1f})"
        ),
        "the worst photograph": f"{h['at_hints_worst_photograph']:.2f}",
        "CIEDE2000 of the rest against its true colors, no hints": f"{h['elsewhere_none']:.1f}",
        "the same, with five hints in true colors": f"{h['elsewhere_true']:.1f}",
        f"shift of the hint's surface, mean of {len(surfaces)}": (
            f"{sum(s['surface'] for s in surfaces) / len(surfaces):.2f}"
        ),
        "shift of everything else": (
            f"{sum(s['elsewhere'] for s in surfaces) / len(surfaces):.2f}"
        ),
    }
    return _table(f"{found['photographs']} photographs, five hints each", rows)


def _table(head: str, rows: dict[str, str]) -> str:
    lines = [f"| {head} | |", "| --- | ---: |"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows.items()])


def renew(text: str) -> str:
    """The text with the tables that belong there."""
    for table in (upsampling, candidates, hints):
        begin = f"<!-- {table.__name__}: begin (docs/colors.py) -->\n"
        end = f"<!-- {table.__name__}: end -->"
        head, found, rest = text.partition(begin)
        _, found_end, tail = rest.partition(end)
        if not (found and found_end):
            raise ValueError(f"the markers {begin.strip()} and {end} must be there, in this order")
        text = f"{head}{begin}{table()}\n{end}{tail}"
    return text


def main() -> int:
    """Write or check; 1 when text and results disagree, or one of them cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    try:
        found = TEXT.read_text(encoding="utf-8")
        wanted = renew(found)
    except KeyError as error:
        print(f"error: {RESULTS}: lacks {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wanted != found and check:
        print(f"error: {TEXT} disagrees with {RESULTS}: run docs/colors.py", file=sys.stderr)
        return 1
    TEXT.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
