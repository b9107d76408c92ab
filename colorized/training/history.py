"""The logged numbers of a training, kept beside its checkpoints for when it is resumed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from colorized import plots
from colorized.training.fit import TIMINGS

HISTORY = "history.jsonl"


class History:
    """Rows of numbers, by their step, kept in `HISTORY` of a folder of checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / HISTORY
        self.rows: dict[int, dict[str, float]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # half of the last line of a run that was killed
                self.rows[int(row["step"])] = row

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the numbers of a step."""
        self.rows[step] = {"step": step, **values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[step]) + "\n")

    def publish(self, path: Path) -> None:
        """Write the table at `path` and a plot beside it; timings stay out, so that it repeats."""
        rows = [self.rows[step] for step in sorted(self.rows)]
        names = [name for name in rows[-1] if name not in (*TIMINGS, "rollbacks")]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        curves = {}
        for name in ("loss", "val_loss"):
            points = [(row["step"], row[name]) for row in rows if name in row]
            curves[name] = ([x for x, _ in points], [y for _, y in points])
        plots.save_curves(
            path.with_suffix(".png"),
            curves,
            xlabel="step",
            ylabel="mean squared error of v (predicting 0: 1)",
        )
