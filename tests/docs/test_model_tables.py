"""The tables of docs/model.md and the model card are what the benchmarks measured."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "model.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_model", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_results() -> None:
    subprocess.run([sys.executable, SCRIPT, "--check"], check=True)


def test_another_result_is_noticed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads((script.RESULTS / "quality.json").read_text(encoding="utf-8"))
    found["scenes"]["released"]["fid"] += 1
    (tmp_path / "quality.json").write_text(json.dumps(found))
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    card = (ROOT / "models" / "released" / "README.md").read_text(encoding="utf-8")
    assert script.renew(card, ("quality",)) != card


def test_missing_markers_are_named(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="quality: begin"):
        script.renew("no markers here", ("quality",))
