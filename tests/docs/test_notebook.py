"""notebooks/colorize.ipynb runs and shows what it says; `jupyter execute --inplace` renews it."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "colorize.ipynb"

pytestmark = pytest.mark.slow


def check(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/jpeg" in o.get("data", {}) for o in outputs) >= 9
    said = "".join(o.text for o in outputs if o.output_type == "stream")
    assert "largest change of L*, of 100: 0." in said


def test_what_is_kept_was_run() -> None:
    check(nbformat.read(NOTEBOOK, as_version=4))
    assert NOTEBOOK.stat().st_size < 1_500_000
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")


def test_it_runs_and_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a real kernel, whose settings and history stay out of the user's folders."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), path])))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where).execute()
    check(notebook)
