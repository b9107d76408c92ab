"""What tells trainings apart, and what is kept of those that ended."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest
import structure
import torch

import colorized
from colorized.training import recipe
from colorized.training.housekeeping import remove_finished
from colorized.training.recipe import Recipe

CODE = '''
"""A module."""
def double(x: int) -> int:
    """Twice x."""
    return 2 * x  # of course
'''


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda s: s.replace("# of course", ""), True),
        (lambda s: s.replace("Twice x.", "x, twice."), True),
        (lambda s: s.replace('"""A module."""', ""), True),
        (lambda s: s.replace("2 * x", "(2 *  x)"), True),
        (lambda s: s.replace("2 * x", "3 * x"), False),
        (lambda s: s.replace("int:", "float:"), False),
    ],
)
def test_meaning_of_code(change: object, same: bool) -> None:
    assert callable(change)
    assert (recipe.meaning(change(CODE)) == recipe.meaning(CODE)) is same


def test_fingerprint_changes_with_every_value_and_with_the_code() -> None:
    first = Recipe({"train.lr": 1e-4, "data": "a"}, {"model/unet": "0"})
    others = [
        Recipe({"train.lr": 2e-4, "data": "a"}, {"model/unet": "0"}),
        Recipe({"train.lr": 1e-4, "data": "b"}, {"model/unet": "0"}),
        Recipe({"train.lr": 1e-4, "data": "a"}, {"model/unet": "1"}),
    ]
    assert len({one.fingerprint for one in (first, *others)}) == 4
    assert Recipe({"data": "a", "train.lr": 1e-4}, {"model/unet": "0"}).fingerprint == (
        first.fingerprint
    )
    made = recipe.make({"train": {"lr": 1e-4}, "data": "a"})
    assert made.values == first.values
    assert set(made.code) == set(recipe.CODE)


def test_code_is_whole() -> None:
    """All that its modules import is in it, but for what changes no number."""
    package = Path(colorized.__file__).parent
    used = set()
    for name in recipe.CODE:
        for imported in structure.imports(ast.parse((package / f"{name}.py").read_text()).body):
            parts = imported.split(".")[1:]
            places = {"/".join(parts[:k]) for k in range(1, len(parts) + 1)}
            used |= {place for place in places if (package / f"{place}.py").is_file()}
    assert used - set(recipe.CODE) == {"model/weights", "options", "text", "training/distributed"}


def test_why_a_training_begins_at_step_0_is_said(tmp_path: Path) -> None:
    old = recipe.make({"train": {"lr": 1e-4, "seed": 0}})
    assert recipe.why_not(old, tmp_path) == ""
    folder = tmp_path / old.fingerprint
    old.save(folder)
    torch.save({"step": 1200}, folder / "last.pt")
    new = Recipe({**old.values, "train.lr": 2e-4}, {**old.code, "model/unet": "other"})
    assert recipe.why_not(new, tmp_path) == (
        f"begins at step 0: does not go on from {folder}, stopped after step 1200, for these "
        "changed: train.lr 0.0001 → 0.0002, colorized/model/unet.py"
    )
    (folder / "last.pt").write_bytes(b"half")  # the note must not stop the new training
    assert recipe.why_not(new, tmp_path) == ""
    torch.save({"step": 1200}, folder / "last.pt")
    assert recipe.why_not(new, tmp_path)
    (folder / recipe.FINISHED).write_text("{}")  # nothing to go on from
    assert recipe.why_not(new, tmp_path) == ""


def test_checkpoints_of_the_last_trainings_are_kept(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "older")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pt").write_bytes(bytes(2_000_000))
        path = tmp_path / name / recipe.FINISHED
        path.write_text(json.dumps({}))
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "last.pt").touch()
    expected = [f"{tmp_path}/old: 2 MB", f"{tmp_path}/older: 2 MB"]
    assert remove_finished(tmp_path, 1, dry_run=True) == expected
    assert len(list(tmp_path.iterdir())) == 4
    assert remove_finished(tmp_path, 1) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"new", "stopped"}
