"""Every fault between Kaggle and the arrays on disk, as docs/kaggle-faults.md says it ends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import kaggle_cases
import pytest
from kaggle_cases import CASES, Case, Outcome

TABLE = Path(__file__).resolve().parents[2] / "docs" / "kaggle-faults.md"


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[Outcome]]]:
    """The chosen cases, some at a time: much of what they do is to wait."""
    kaggle_cases.good()
    chosen = [
        item.callspec.params.get("case")
        for item in request.session.items
        if hasattr(item, "callspec")
    ]
    mounts = kaggle_cases.can_mount()
    with ThreadPoolExecutor(4) as pool:
        yield {
            case.fault: pool.submit(kaggle_cases.run_case, case, tmp_path_factory.mktemp("case"))
            for case in CASES
            if case in chosen and (mounts or not case.mounts)
        }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_fault(case: Case, outcomes: dict[str, Future[Outcome]]) -> None:
    if case.fault not in outcomes:
        pytest.skip("small disks cannot be mounted here, only by root")
    row = outcomes[case.fault].result().row(case.fault)
    assert row in TABLE.read_text(encoding="utf-8").splitlines()


def test_the_table_has_these_rows_and_no_others() -> None:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert [row.split(" | ")[0] for row in rows[1:]] == [f"| {case.fault}" for case in CASES]
