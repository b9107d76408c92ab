"""What the benchmarks measured of the model, as tables in docs/model.md and the model card.

python docs/model.py           writes each table between its two markers
python docs/model.py --check   exits with 1 when one is not what the results say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FILES = {"speed": "peers"}
"""Results of tables that are not of the file of their own name."""
SIDES = {"scenes": 96, "objects": 64, "photos": 256}


def _rows(*rows: tuple[object, ...]) -> str:
    head, *body = rows
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *body]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in lines)


def _quality(found: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        ("pictures", "N", "FID", "gray", "ratio", "KID", "gray", "ΔCF", "PSNR", "ΔE", "diversity")
    ]
    for name, side in SIDES.items():
        ours, gray = found[name]["released"], found[name]["monochrome"]
        rows.append(
            (
                f"{name}, {side} px",
                found[name]["n"],
                f"{ours['fid']:.1f}",
                f"{gray['fid']:.1f}",
                f"{ours['fid_over_monochrome']:.2f}",
                f"{ours['kid']:.4f}",
                f"{gray['kid']:.4f}",
                f"{ours['delta_colorfulness_share']:.0%}",
                f"{ours['psnr']:.1f}",
                f"{ours['delta_e']:.1f}",
                f"{ours['diversity']:.1f}",
            )
        )
    return _rows(*rows)


def _invariance(found: dict[str, Any]) -> str:
    return f"N {found['n']}; 1 is what another seed changes.\n\n" + _rows(
        ("version", "difference, CIELAB units", "over that of seeds"),
        ("another seed", f"{found['median_difference']['seeds']:.1f}", "1.00"),
        *(
            (name, f"{found['median_difference'][name]:.1f}", f"{ratio:.2f}")
            for name, ratio in found["ratio_to_seeds"].items()
        ),
    )


def _train_speed(found: dict[str, Any]) -> str:
    return f"Threads: {found['threads']}; crops of {found['crop']} pixels.\n\n" + _rows(
        ("", "parameters", "chroma, px", "pictures / s", "peak memory"),
        *(
            (
                name,
                f"{row['parameters'] / 1e6:.2f} M",
                row["chroma_side"],
                f"{row['pictures_per_second']:.1f}",
                f"{row['peak_memory_gb']:.2f} GB",
            )
            for name, row in found["methods"].items()
        ),
    )


def _architectures(found: dict[str, Any]) -> str:
    minutes = {row["processor_minutes"] for row in found.values()}
    ns = {row["n"] for row in found.values()}
    gray = next(iter(found.values()))["fid_monochrome"]
    return f"{minutes.pop():g} minutes each; FID of N {ns.pop()}, gray {gray:.1f}.\n\n" + _rows(
        ("network", "parameters", "crops seen", "error of v", "at t = 0.95 T", "FID"),
        *(
            (
                name,
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['pictures_seen']:,}",
                f"{row['val_error']:.3f}",
                f"{row['val_error_t0.95']:.3f}",
                f"{row['fid']:.1f}",
            )
            for name, row in found.items()
        ),
    )


def _steps(found: dict[str, Any]) -> str:
    def line(name: str, row: dict[str, float]) -> tuple[object, ...]:
        return (
            name,
            row["steps"],
            row["evaluations"],
            f"{row['fid']:.1f}",
            f"{row['fid'] / found['reference']['fid']:.2f}",
            f"{row['kid']:.4f}",
            f"{row['colorfulness_share']:.0%}",
        )

    return f"N {found['n']}; gray has FID {found['fid_monochrome']:.1f}.\n\n" + _rows(
        ("sampler", "steps", "evaluations", "FID", "of ancestral", "KID", "colorfulness"),
        line("ancestral", found["reference"]),
        *(line("DPM-Solver++(2M)", row) for row in found["rows"]),
    )


def _peers(found: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        (
            "method",
            "parameters",
            "crops seen",
            "s / picture",
            *(f"{n}: FID, KID, ΔCF" for n in SIDES),
        )
    ]
    for name in found["scenes"]:
        if name in ("n", "size"):
            continue
        about = found["methods"].get(name)
        cells = [found[side][name] for side in SIDES]
        rows.append(
            (
                name,
                f"{about['parameters'] / 1e6:.2f} M" if about else "",
                f"{about['pictures_seen']:,}" if about else "",
                f"{cells[-1]['seconds_per_picture']:.2f}" if about else "",
                *(
                    f"{c['fid']:.1f}, {c['kid']:.4f}, {c['delta_colorfulness_share']:.0%}"
                    for c in cells
                ),
            )
        )
    minutes = {about["minutes"] for about in found["methods"].values()}
    ns = ", ".join(f"{name} N {found[name]['n']}" for name in SIDES)
    return f"{minutes.pop():g} minutes of training each; {ns}.\n\n" + _rows(*rows)


def _speed(found: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = [
        ("peer", "its FID", "steps", "pictures / s", "our FID", "steps", "pictures / s", "ratio")
    ]
    for name, row in found["speed_at_equal_fid"].items():
        ours = row["ours"]
        cells = ("not reached", "", "", "")
        if ours:
            cells = (
                f"{ours['fid']:.1f}",
                ours["steps"],
                f"{ours['pictures_per_second']:.1f}",
                f"{row['ratio']:.1f}",
            )
        peer = row["peer"]
        rows.append(
            (
                name,
                f"{peer['fid']:.1f}",
                peer["steps"],
                f"{peer['pictures_per_second']:.1f}",
                *cells,
            )
        )
    return f"Objects, N {found['steps']['n']}.\n\n" + _rows(*rows)


def _distill(found: dict[str, Any]) -> str:
    return (
        f"{found['minutes']:g} minutes of one processor core, {found['pictures_seen']:,} crops; "
        f"N {found['n']}, gray has FID {found['fid_monochrome']:.1f}.\n\n"
    ) + _rows(
        ("network", "evaluations", "FID", "KID", "colorfulness"),
        *(
            (
                row["network"],
                row["evaluations"],
                f"{row['fid']:.1f}",
                f"{row['kid']:.4f}",
                f"{row['colorfulness_share']:.0%}",
            )
            for row in found["rows"]
        ),
    )


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "architectures": _architectures,
    "quality": _quality,
    "peers": _peers,
    "speed": _speed,
    "steps": _steps,
    "distill": _distill,
    "invariance": _invariance,
    "train_speed": _train_speed,
}
TEXTS = {
    ROOT / "docs" / "model.md": tuple(TABLES),
    ROOT / "models" / "released" / "README.md": ("quality",),
}


def renew(text: str, names: tuple[str, ...]) -> str:
    """The text with the tables of these results.

    Raises
    ------
    ValueError
        When a table's markers are not there.
    """
    for name in names:
        begin, end = f"<!-- {name}: begin (docs/model.py) -->", f"<!-- {name}: end -->"
        head, first, rest = text.partition(begin)
        _, second, tail = rest.partition(end)
        if not (first and second):
            raise ValueError(f"the markers {begin} and {end} must be there, in this order")
        found = json.loads((RESULTS / f"{FILES.get(name, name)}.json").read_text(encoding="utf-8"))
        text = f"{head}{begin}\n{TABLES[name](found)}\n{end}{tail}"
    return text


def main() -> int:
    """Write or check; 1 when texts and results disagree, or one of them cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, names in TEXTS.items():
        try:
            found = path.read_text(encoding="utf-8")
            wanted = renew(found, names)
        except (OSError, ValueError, KeyError) as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            return 1
        if wanted != found:
            if check:
                print(f"error: {path} disagrees with {RESULTS}", file=sys.stderr)
                return 1
            path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
