"""docs/python.md: every example runs, in the order of the page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from colorized.model.released import RELEASED

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    with Image.open(ROOT / "data" / "sample" / "archive" / "black-canyon.jpg") as image:
        small = image.convert("L").resize((90, 120))
    small.save("photo.jpg")
    small.save("scans/a.png")
    shutil.copy(RELEASED, "mine.safetensors")
    names: dict[str, object] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S):
        exec(compile(code, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "in-color/a.png done" in printed
    assert "(120, 90, 2) float32" in printed
    assert printed.endswith("missing.jpg: No such file or directory\n")
    assert len(list(tmp_path.glob("photo-*"))) == 5


def test_what_is_public_is_documented() -> None:
    import colorized

    for name in colorized.__all__:
        assert name in PAGE, name
        assert getattr(colorized, name) is not None
