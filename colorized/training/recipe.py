"""What identifies a training: parameters, data, initial weights, and the code that trains.

Comments, docstrings and layout of the code do not count: a change of them neither restarts a
training nor prevents resuming it.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import colorized
from colorized import atomic
from colorized.training.checkpoint import load_checkpoint
from colorized.training.fit import LAST, fingerprint

CODE = (
    "color/lab",
    "color/resample",
    "data/dataset",
    "data/film",
    "model/denoiser",
    "model/encoder",
    "model/guidance",
    "model/imagenet",
    "model/sampling",
    "model/schedule",
    "model/unet",
    "training/critic",
    "training/finish",
    "training/loop",
)
"""Modules that decide what numbers come out of a training."""
RECIPE = "recipe.json"
FINISHED = "finished.json"
"""File beside the checkpoints of a finished training, with its results."""


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a training: flat values, and a digest of each module."""

    values: Mapping[str, Any]
    code: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits."""
        return fingerprint(asdict(self))

    def save(self, folder: Path) -> None:
        """Write it to a folder of checkpoints."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, sort_keys=True)
        atomic.write(folder / RECIPE, f"{text}\n".encode())


def make(values: Mapping[str, Any]) -> Recipe:
    """The recipe of these values, whose sections are flattened, and of the present code."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        section = value if isinstance(value, Mapping) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): v for name, v in section.items()}
    package = Path(colorized.__file__).parent
    code = {name: meaning((package / f"{name}.py").read_text(encoding="utf-8")) for name in CODE}
    return Recipe(flat, code)


def meaning(source: str) -> str:
    """16 hexadecimal digits of Python code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [n for n in node.body if not _is_text(n)] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def why_not(recipe: Recipe, checkpoints: Path) -> str:
    """Why a new training does not resume the last interrupted one; empty where none is readable."""
    stopped = [
        path for path in checkpoints.glob(f"*/{RECIPE}")
        if (path.parent / LAST).exists() and not (path.parent / FINISHED).exists()
    ]  # fmt: skip
    if not stopped:
        return ""
    path = max(stopped, key=lambda p: (p.parent / LAST).stat().st_mtime)
    try:
        other = Recipe(**json.loads(path.read_text(encoding="utf-8")))
        step = load_checkpoint(path.parent / LAST)["step"]
    except (OSError, ValueError, TypeError, KeyError):
        return ""  # a note must not stop the new training
    changed = [
        f"{key} {other.values.get(key)} → {recipe.values.get(key)}"
        for key in sorted({*other.values, *recipe.values})
        if other.values.get(key) != recipe.values.get(key)
    ]
    changed += [
        f"colorized/{name}.py" for name in CODE if other.code.get(name) != recipe.code.get(name)
    ]
    return (
        f"begins at step 0: does not go on from {path.parent}, stopped after step {step}, "
        f"for these changed: {', '.join(changed)}"
    )
