"""notebooks/colorize.ipynb is what its script builds, and it runs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "colorize.ipynb"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_kept_is_what_is_built(build: ModuleType) -> None:
    """Its text and its code, cell by cell; pictures are of the weights of their day."""
    kept = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    assert [(c.id, c.cell_type, c.source) for c in kept.cells] == [
        (c.id, c.cell_type, c.source) for c in build.notebook().cells
    ]
    assert NOTEBOOK.stat().st_size < 1_500_000
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")


def test_it_runs_and_shows(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a real kernel, whose settings and history stay out of the user's folders."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), path])))
    built = build.notebook()
    build.run(built, ROOT / "notebooks")
    code = [cell for cell in built.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/jpeg" in o.get("data", {}) for o in outputs) >= 9
    said = "".join(o.text for o in outputs if o.output_type == "stream")
    assert "largest change of L*, of 100: 0." in said
