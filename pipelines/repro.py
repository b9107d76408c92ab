"""`make repro`: run the pipeline, then print its metrics and where the results are."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from colorized.params import ParamsError, load_params
from pipelines import stage


def main() -> int:
    """`dvc repro`, the table of metrics, the picture grid, the MLflow command."""
    if not (stage.ROOT / ".dvc").is_dir():
        print("error: run this in the project's folder", file=sys.stderr)
        return 2
    try:
        # Before DVC, which removes a stage's old results before it starts the stage.
        load_params(stage.ROOT / "params.yaml")
    except ParamsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro"]) as process:
        # Ctrl-C reaches the stage itself, which ends cleanly; here we wait for that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
    if code != 0:
        return code
    table = Table("metric", "value")
    for name, value in json.loads(stage.METRICS.read_text(encoding="utf-8")).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    print(f"picture grid:     {stage.GRID}")
    print("runs and curves:  make ui")
    return 0


if __name__ == "__main__":
    sys.exit(main())
