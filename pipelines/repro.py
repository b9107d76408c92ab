"""`make repro`: run the pipeline, then say how good the result is and where to look."""

from __future__ import annotations

import json
import subprocess
import sys

from pipelines import evaluate, stage


def main() -> int:
    """`dvc repro`, the table of metrics, the picture grid, the MLflow command."""
    if not (stage.ROOT / ".dvc").is_dir():
        print("error: run this in the project's folder", file=sys.stderr)
        return 2
    code = subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False).returncode
    if code != 0:
        return code
    evaluate.show(json.loads(evaluate.METRICS.read_text(encoding="utf-8")))
    print(f"picture grid:     {evaluate.GRID}")
    print("runs and curves:  make ui")
    return 0


if __name__ == "__main__":
    sys.exit(main())
