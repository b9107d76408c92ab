"""docs/kaggle-faults.md: every fault on the way from Kaggle, brought about and run.

python docs/faults.py    runs all cases of tests/kaggle_cases.py and writes the table
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import kaggle_cases  # noqa: E402

TABLE = ROOT / "docs" / "kaggle-faults.md"
HEAD = """# What goes wrong between Kaggle and the arrays on disk

<!-- Written by docs/faults.py, which runs every case: edit that, not this. -->

`python -m pipelines.download` with `data.source: kaggle` runs twice for each row: once with the
fault, and once when it is over. The unmodified `kaggle` package speaks to a stand-in on this
machine, which serves an archive of the data set's layout made from real photographs; kills,
and disks that are full, are real. “Output” is `data/raw`, “download” is `data/downloads`. A line
that the stage says is shown as it is, but for the sizes. `tests/data/test_kaggle_faults.py` runs
all of it again and compares.

| fault | first run says | after it, on disk | second run |
|---|---|---|---|
"""


def main() -> None:
    if not kaggle_cases.can_mount():
        sys.exit("error: small disks cannot be mounted here, which some cases need: run as root")
    rows = []
    for case in kaggle_cases.CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(kaggle_cases.run_case(case, Path(folder)).row(case.fault))
    TABLE.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} cases in {TABLE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
