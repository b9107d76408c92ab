"""The metrics of reports/metrics.json, as a table in README.md.

python docs/readme.py           writes the table between its two markers
python docs/readme.py --check   exits with 1 when it is not the one that belongs there
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
METRICS = ROOT / "reports" / "metrics.json"
BEGIN, END = "<!-- metrics: begin (docs/readme.py) -->", "<!-- metrics: end -->"

# What is shown, how, and how to read it.
ROWS = (
    ("n", "{n}", "test crops; a small number, so FID is biased upward: compare only equal `n`"),
    ("fid", "{fid:.1f}", "distance of the colorized crops from the true ones; lower is better"),
    ("fid_monochrome", "{fid_monochrome:.1f}", "the same for crops left gray: the value to beat"),
    (
        "kid",
        "{kid:.4f} ± {kid_std:.4f}",
        "like FID, but unbiased at small `n`; mean and deviation over random subsets",
    ),
    (
        "colorfulness",
        "{colorfulness:.1f}",
        "Hasler and Süsstrunk's measure, mean over crops; 0 is gray",
    ),
    ("colorfulness_real", "{colorfulness_real:.1f}", "the same of the true colors"),
    (
        "delta_colorfulness",
        "{delta_colorfulness:.1f}",
        "the gap between the two; 0 says how much color, not that it is in the right place",
    ),
    (
        "psnr",
        "{psnr:.1f} dB",
        "closeness to the one true picture; favors timid colors, so no measure of plausibility",
    ),
    (
        "delta_e",
        "{delta_e:.1f}",
        "mean CIEDE2000 difference from the true color; 1 is just visible; favors timidity too",
    ),
    (
        "lightness_error_max",
        "{lightness_error_max:.2f}",
        "largest change of L* (0 … 100) in any pixel: what rounding to 8 bits costs",
    ),
    (
        "diversity",
        "{diversity:.1f}",
        "deviation between several colorings of one crop, CIELAB units; 0 would be one answer only",
    ),
    (
        "vlb_bits_per_dim",
        "{vlb_bits_per_dim:.2f} ± {vlb_standard_error:.2f}",
        "upper bound on the bits per 8-bit chroma value, with its standard error; valid but loose",
    ),
    ("nfe", "{nfe}", "network evaluations per picture"),
    (
        "seconds_per_image",
        "{seconds_per_image:.2f} s",
        "median per crop, on the machine that made this table",
    ),
)


def table(metrics: Mapping[str, Any]) -> str:
    """Markdown for the numbers, with the network they were measured with below."""
    lines = ["| metric | value | meaning |", "| --- | ---: | --- |"]
    lines += [f"| `{name}` | {value.format(**metrics)} | {text} |" for name, value, text in ROWS]
    lines += ["", f"Features: `extractor_sha256` {metrics['extractor_sha256'][:16]}…"]
    return "\n".join(lines)


def renew(readme: str, metrics: Mapping[str, Any]) -> str:
    """The README with the table that belongs there."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the markers {BEGIN} and {END} must be there, in this order")
    return f"{head}{BEGIN}\n{table(metrics)}\n{END}{tail}"


def main() -> int:
    """Write or check; 1 when README and metrics disagree, or one of them cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    try:
        found = README.read_text(encoding="utf-8")
        wanted = renew(found, json.loads(METRICS.read_text(encoding="utf-8")))
    except KeyError as error:
        print(f"error: {METRICS}: lacks {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wanted == found:
        return 0
    if check:
        print(f"error: {README} disagrees with {METRICS}: run docs/readme.py", file=sys.stderr)
        return 1
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
