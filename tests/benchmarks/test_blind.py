"""benchmarks/blind.py: pictures are shuffled, and every grade is counted where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest
from blind import count, shuffled


def test_grades_reach_what_was_graded(tmp_path: Path) -> None:
    colored, true = [f"{i}.webp" for i in range(30)], [f"{i}.webp" for i in range(30, 50)]
    shown = shuffled(colored, true, ["ours"])
    assert sorted(shown) == sorted([(p, "ours") for p in colored] + [(p, "true") for p in true])
    assert shown != sorted(shown) and shown == shuffled(colored, true, ["ours"])
    bad = {(p, "ours") for p in colored[:10]}
    lines = [f"{n} {2 if what in bad else 0} words" for n, what in enumerate(shown, 1)]
    grades = tmp_path / "grades.txt"
    grades.write_text("\n".join(lines[::-1]) + "\n\n")
    assert count(shown, grades) == {
        "true": {"0": 20, "1": 0, "2": 0},
        "ours": {"0": 20, "1": 0, "2": 10},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 0\n", "no grade of picture 2"),
        ("1 0\n2 0\n3 0\n", "no picture 3"),
        ("1 0\n2 3\n", "'2 3'"),
        ("1\n", "'1'"),
        ("x 0\n", "'x 0'"),
    ],
)
def test_bad_grades(tmp_path: Path, text: str, says: str) -> None:
    grades = tmp_path / "grades.txt"
    grades.write_text(text)
    with pytest.raises(ValueError, match=says):
        count([(0, "true"), (1, "true")], grades)
