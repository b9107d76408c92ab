"""Files and folders appear whole, or the old ones stay and nothing else is left."""

from pathlib import Path

import pytest

from colorized import atomic

LONG = "n" * 255


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "folder" / LONG
    atomic.write(target, "old\r\n")
    assert target.read_bytes() == b"old\r\n"
    with pytest.raises(ZeroDivisionError), atomic.replacing(target) as partial:
        partial.write_text(f"half {1 / 0}")
    assert target.read_bytes() == b"old\r\n"
    with pytest.raises(FileNotFoundError), atomic.replacing(target):
        pass  # nothing was written
    atomic.write(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (tmp_path / "folder.partial" / "of a killed process").mkdir(parents=True)
    with atomic.replacing_folder(target) as partial:
        assert not list(partial.iterdir())
        (partial / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic.replacing_folder(target) as partial:
        (partial / "b").write_text(f"half {1 / 0}")
    assert [path.name for path in target.iterdir()] == ["a"]
    with atomic.replacing_folder(target) as partial:
        (partial / "c").write_text("new")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [target]
