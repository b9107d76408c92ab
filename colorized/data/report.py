"""The report of a data set: a page, a histogram of chroma, and a contact sheet of crops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from colorized import color, plots
from colorized.data import shards
from colorized.data.dataset import open_shard
from colorized.data.sources import SPLITS

ROWS, COLUMNS, THUMBNAIL = 6, 12, 96


def write(folder: Path, report: shards.Report, lab: Path) -> None:
    """Write README.md, chroma.png and contact-sheet.jpg to `folder`, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(_page(report), encoding="utf-8")
    centers = [2 * i + 1 for i in range(shards.CHROMA_BINS)]
    plots.save_curves(
        folder / "chroma.png",
        {"training split": (centers, report.chroma_histogram)},
        xlabel="chroma C*",
        ylabel="share of pixels",
    )
    _contact_sheet(folder / "contact-sheet.jpg", lab)


def _page(report: shards.Report) -> str:
    a, b = report.ab_std
    lines = [
        "# The data set",
        "",
        "| split | pictures | crops |",
        "| --- | ---: | ---: |",
        *(f"| {s} | {report.photographs[s]} | {report.crops[s]} |" for s in SPLITS),
        "",
        f"Crops are {report.image_size} pixels a side. Deviation of chroma from neutral gray in "
        f"the training split: a* {a:.2f}, b* {b:.2f}.",
        "",
        "![Shares of pixels over chroma C*, training split](chroma.png)",
        "",
        "![Evenly spaced crops of the three splits](contact-sheet.jpg)",
        "",
        "## Left out",
        "",
    ]
    if not report.rejects:
        return "\n".join([*lines, "Nothing."]) + "\n"
    lines += ["| | pictures |", "| --- | ---: |"]
    lines += [f"| {kind} | {count} |" for kind, count in report.left_out.items()]
    lines += ["", "| file | reason |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {_cell(why)} |" for name, why in report.rejects.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _contact_sheet(path: Path, lab: Path) -> None:
    """Two rows of crops of each split."""
    sheet = np.full((ROWS * THUMBNAIL, COLUMNS * THUMBNAIL, 3), 255, np.uint8)
    here = [split for split in SPLITS if (lab / f"{split}_L.npy").exists()]
    rows = ROWS // len(SPLITS)
    for band, split in enumerate(here):
        shard = open_shard(lab, split)
        count = min(rows * COLUMNS, len(shard))
        for i, number in enumerate(np.linspace(0, len(shard) - 1, count).astype(int)):
            lab8 = np.dstack([shard.L[number], shard.ab[number]])
            values = color.lab8_to_lab(lab8)
            rgb = Image.fromarray(color.recombine(values[..., 0], values[..., 1:]))
            small = rgb.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            y = (band * rows + i // COLUMNS) * THUMBNAIL
            x = i % COLUMNS * THUMBNAIL
            sheet[y : y + THUMBNAIL, x : x + THUMBNAIL] = np.asarray(small)
    plots.save(path, sheet)
