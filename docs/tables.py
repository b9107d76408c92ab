"""Tables of what was measured, in README.md, docs/ and the model card, between their markers.

python docs/tables.py [--check]   writes them all, or exits with 1 where one is out of date
python docs/tables.py exiftool    renews that of docs/archive.md too; needs ExifTool
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
METRICS = ROOT / "reports" / "metrics.json"
TEXTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "models" / "released" / "README.md",
]
MARKED = re.compile(
    r"(?P<begin><!-- (?P<name>\w+): begin \(docs/tables\.py\) -->\n)"
    r"(?P<old>.*?)(?P<end><!-- (?P=name): end -->)",
    re.S,
)


def table(head: str, rows: Iterable[str], intro: str = "") -> str:
    """Markdown of rows whose cells are divided by `|`; all but the first column are numbers."""
    rule = "| --- |" + " ---: |" * head.count("|")
    lines = [f"| {head} |", rule, *(f"| {row} |" for row in rows)]
    return "\n".join([*([intro, ""] if intro else []), *lines])


METRIC_ROWS = """\
| metric | value | meaning |
| --- | ---: | --- |
| `n` | {n} | test crops; so few that FID is biased upward: compare equal `n` only |
| `fid` | {fid:.1f} | distance of the colorized from the true crops, lower is better |
| `fid_monochrome` | {fid_monochrome:.1f} | the same for gray: the value to beat |
| `kid` | {kid:.4f} ± {kid_std:.4f} | like FID, but unbiased at small `n` |
| `colorfulness` | {colorfulness:.1f} | Hasler and Süsstrunk's measure; 0 is gray |
| `colorfulness_real` | {colorfulness_real:.1f} | the same of the true colors |
| `delta_colorfulness` | {delta_colorfulness:.1f} | the gap between the two |
| `psnr` | {psnr:.1f} dB | closeness to the true picture; favors timid colors |
| `delta_e` | {delta_e:.1f} | mean CIEDE2000 from the true color; 1 is just visible |
| `lightness_error_max` | {lightness_error_max:.2f} | largest change of L* (0 … 100) in any pixel: \
what rounding to 8 bits costs |
| `diversity` | {diversity:.1f} | deviation between colorings of one crop, CIELAB units; \
0 would be one answer only |
| `vlb_bits_per_dim` | {vlb_bits_per_dim:.2f} ± {vlb_standard_error:.2f} | upper bound on the bits \
per 8-bit chroma value, with its standard error |
| `nfe` | {nfe} | network evaluations per picture |
| `fid_released` | {fid_released:.1f} | of the weights training began at |"""


SETS = {
    "clean": "as they are",
    "film": "seen as film",
    "plates_green": "plates of 1905 to 1915, green exposure",
    "plates_blue": "the same, blue exposure",
}


def quality(found: dict[str, Any]) -> str:
    rows = []
    for name, words in SETS.items():
        for kind, row in found[name].items():
            if kind == "seconds":
                continue
            (k_low, k_high), (f_low, f_high) = row["kid_share_interval"], row["fid_share_interval"]
            rows.append(
                f"{words}{'' if kind == 'all' else f': {kind}'} | {row['n']} | {row['kid']:.4f} | "
                f"{row['kid_share']:.0%} ({k_low:.0%} … {k_high:.0%}) | {row['fid']:.1f} | "
                f"{row['fid_share']:.2f} ({f_low:.2f} … {f_high:.2f}) | "
                f"{row['colorfulness_share']:.0%} | {row['blotches']:.2f} | "
                f"{row['delta_e']:.1f} | {row['diversity']:.1f}"
            )
    head = (
        "photographs | N | KID | of gray's | FID | of gray's | colorfulness | blotches | ΔE | "
        "diversity"
    )
    o = found["options"]
    return table(
        head,
        rows,
        f"Split {found['split']}, {found['size']} px; {o['sampler']}, {o['steps']} step"
        f"{'s' if o['steps'] > 1 else ''}, guidance {o['guidance']:g}, temperature "
        f"{o['temperature']:g}, saturation {o['saturation']:g}.",
    )


def invariance(found: dict[str, Any]) -> str:
    median = found["median_difference"]
    return table(
        "version | difference, CIELAB units | over that of seeds",
        [
            f"another seed | {median['seeds']:.1f} | 1.00",
            *(f"{n} | {median[n]:.1f} | {r:.2f}" for n, r in found["ratio_to_seeds"].items()),
        ],
        f"N {found['n']}; 1 is what another seed changes.",
    )


def detail(found: dict[str, Any]) -> str:
    sets = new, larger, old = found["photographs"], found["larger"], found["plates"]
    bands = [
        f"{row[0]['from']} to {row[0]['to']} | "
        + " | ".join(f"{b['true']:.1f} | {b['ours'] / b['true']:.2f}" for b in row)
        for row in zip(*(of["bands"] for of in sets), strict=True)
    ]

    def shares(values: Iterable[float]) -> str:
        return " | ".join(f"{share:.0%}" for share in values)

    swaps = ["our colors | | " + shares(of["swaps"]["ours"] for of in sets)]
    for name, words in (
        ("ours_with_true_detail", "our colors with the true detail"),
        ("true_with_our_detail", "the true colors with our detail"),
    ):
        swaps += [
            f"{words} | {sigma} | " + shares(of["swaps"][name][sigma] for of in sets)
            for sigma in new["swaps"][name]
        ]
    at_scale = shares(of["swaps"]["true_at_our_scale"] for of in sets)
    swaps.append(f"the true colors at our scale | | {at_scale}")
    first = table(
        "σ, pixels of 256 | enlarged, true | ours, of it | not enlarged, true | ours, of it | "
        "plates, true | ours, of it",
        bands,
        f"Root mean square of chroma between two σ, CIELAB units; {new['n']} photographs of the "
        f"validation split, enlarged from 192 pixels, {larger['n']} others that need not be "
        f"enlarged, {old['n']} plates, green exposure.",
    )
    head = "KID, of gray's | finer than σ | enlarged | not enlarged | plates"
    return f"{first}\n\n{table(head, swaps)}"


def train_speed(found: dict[str, Any]) -> str:
    return table(
        " | parameters | chroma, px | pictures / s | peak memory",
        (
            f"{name} | {row['parameters'] / 1e6:.2f} M | {row['chroma_side']} | "
            f"{row['pictures_per_second']:.1f} | {row['peak_memory_gb']:.2f} GB"
            for name, row in found["methods"].items()
        ),
        f"Threads: {found['threads']}; crops of {found['crop']} pixels.",
    )


def candidates(found: dict[str, Any]) -> str:
    c = found["candidates"]
    rows = [
        f"error of the first | {c['first']:.1f}",
        f"mean error of all draws | {c['mean']:.1f}",
        f"photographs where the first is better than the mean | {c['first_better']:.0%}",
        f"error of the best of those picked | {c['best_picked']:.1f}",
        f"mean distance of two that are picked | {c['apart_picked']:.1f}",
        f"mean distance of any two | {c['apart_any']:.1f}",
        f"correlation of uncertainty and mean error, over the pixels | {c['correlation']:.2f}",
    ]
    return table(f"{found['photographs']} photographs, 8 of 16 draws; CIELAB units | ", rows)


def hints(found: dict[str, Any]) -> str:
    h, surfaces = found["hints"], found["surfaces"].values()
    shift = {key: sum(s[key] for s in surfaces) / len(surfaces) for key in ("surface", "elsewhere")}
    rows = [
        f"CIEDE2000 at hints in true colors | {h['at_true_hints_with']:.2f} "
        f"(without them {h['at_true_hints_without']:.1f})",
        f"CIEDE2000 at hints in random colors | {h['at_odd_hints_with']:.2f} "
        f"(without them {h['at_odd_hints_without']:.1f})",
        f"the worst photograph | {h['at_hints_worst_photograph']:.2f}",
        f"CIEDE2000 of the rest against its true colors, no hints | {h['elsewhere_none']:.1f}",
        f"the same, with five hints in true colors | {h['elsewhere_true']:.1f}",
        f"shift of the hint's surface, mean of {len(surfaces)} | {shift['surface']:.2f}",
        f"shift of everything else | {shift['elsewhere']:.2f}",
    ]
    return table(f"{found['photographs']} photographs, five hints each | ", rows)


def packages(found: dict[str, Any]) -> str:
    parts = {"torch": "torch, CPU build", "coloring": "coloring, beside torch"}
    lines = ["| part | MB | packages | of these |", "| --- | ---: | ---: | --- |"]
    for name, part in found["packages"].items():
        largest = ", ".join(f"{key} {mb:.0f}" for key, mb in part["largest"].items())
        size = part.get("mb_with_colorized", part["mb"])
        lines.append(
            f"| {parts.get(name, f'`{name}`')} | {size:.0f} | {part['packages']} | {largest} |"
        )
    return "\n".join(lines)


def exiftool() -> str:
    """ExifTool's view of a photograph with an archive's IPTC and EXIF, colored."""
    groups = ("XMP-iptcExt:all", "XMP-colorized:all", "IPTC:all", "IFD0:Artist")
    with TemporaryDirectory() as name:
        scan = Path(name) / "dust-bowl-home.jpg"
        scan.write_bytes((ROOT / "data" / "sample" / "archive" / scan.name).read_bytes())
        written = ["-IPTC:By-line=Dorothea Lange", "-EXIF:Artist=Dorothea Lange"]
        subprocess.run(["exiftool", "-q", "-overwrite_original", *written, scan], check=True)
        command = [sys.executable, "-m", "colorized", "colorize", scan, "-o", Path(name) / "out"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        shown = [f"-{group}" for group in (*groups, "ICC_Profile:ProfileDescription")]
        command = ["exiftool", "-a", "-G1", "-s", *shown, Path(name) / "out" / scan.name]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return f"\n```text\n{said}```\n"


# Table → the results it shows.
TABLES: dict[Callable[[dict[str, Any]], str], str] = {
    quality: "quality",
    invariance: "invariance",
    detail: "detail",
    train_speed: "train_speed",
    candidates: "hints",
    hints: "hints",
    packages: "start",
}


def made(with_exiftool: bool = False) -> dict[str, str]:
    """The tables by their names."""
    tables = {
        make.__name__: make(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
        for make, name in TABLES.items()
    }
    tables["metrics"] = METRIC_ROWS.format(**json.loads(METRICS.read_text(encoding="utf-8")))
    return tables | ({"exiftool": exiftool()} if with_exiftool else {})


def renew(text: str, tables: dict[str, str]) -> str:
    """The text with these tables between their markers; others stay."""

    def new(match: re.Match[str]) -> str:
        found = tables.get(match["name"])
        return match[0] if found is None else f"{match['begin']}{found}\n{match['end']}"

    return MARKED.sub(new, text)


def main() -> int:
    """Write or check; 1 when texts and results disagree, or one of them cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("more", nargs="?", choices=["exiftool"])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    code = 0
    try:
        tables = made(options.more == "exiftool")
        for path in TEXTS:
            found = path.read_text(encoding="utf-8")
            if (wanted := renew(found, tables)) == found:
                continue
            if options.check:
                print(f"error: {path} is out of date: run docs/tables.py", file=sys.stderr)
                code = 1
            else:
                path.write_text(wanted, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"error: a result lacks {error}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
