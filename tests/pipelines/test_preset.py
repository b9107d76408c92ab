"""Presets: the named values change, all else stays, and a bad one changes nothing."""

import shutil
from pathlib import Path

import pytest

from colorized.params import ParamsError
from pipelines import preset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


@pytest.mark.parametrize("name", [path.stem for path in preset.PRESETS.glob("*.yaml")])
def test_every_preset_gives_valid_params_and_keeps_comments(name: str, params: Path) -> None:
    before = params.read_text()
    changes = preset.apply(name, params)
    after = params.read_text()
    assert len(changes) > 5
    assert [line.partition(" #")[2] for line in after.splitlines()] == [
        line.partition(" #")[2] for line in before.splitlines()
    ]
    assert preset.apply(name, params) == []
    assert params.read_text() == after


def test_a_result_that_is_not_valid_changes_nothing(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preset, "PRESETS", tmp_path)
    (tmp_path / "bad.yaml").write_text("train:\n  lr: fast\n")
    before = params.read_text()
    with pytest.raises(ParamsError, match=r"train\.lr"):
        preset.apply("bad", params)
    assert params.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "bad.yaml"}


@pytest.mark.parametrize("text", ["train: [", "seed: 1\n", "other: 1\n"])
def test_a_file_that_is_not_valid_is_named(params: Path, text: str) -> None:
    params.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        preset.apply("kaggle", params)
    assert params.read_text() == text
