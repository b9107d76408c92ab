"""The embedded photographs: credited, licensed, small, in colour, and as their recipe says."""

import importlib.util
import io
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

DATA = Path(__file__).parents[2] / "data"
SAMPLE = DATA / "sample"


def load_build_sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_sample", DATA / "build_sample.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_sample = load_build_sample()
ROWS = build_sample.read_rows()
FILES = sorted(path for path in SAMPLE.rglob("*") if path.suffix in {".jpg", ".jpeg", ".png"})
PHOTOS = [path for path in FILES if path.parent.name in {"photos", "photos-sharealike"}]
ARCHIVE = [path for path in FILES if path.parent.name == "archive"]


def test_each_picture_has_exactly_one_row() -> None:
    files = sorted(path.relative_to(SAMPLE).as_posix() for path in FILES)
    assert sorted(row["file"] for row in ROWS) == files
    assert len(PHOTOS) > 100
    assert len(ARCHIVE) == 6


def test_names_are_unique_across_folders() -> None:
    assert len({path.stem for path in FILES}) == len(FILES)


def test_each_row_is_credited_and_licensed() -> None:
    for row in ROWS:
        for column in ("title", "author", "source_package", "path_in_package"):
            assert row[column].strip(), f"{row['file']}: {column} is empty"
        assert row["licence"] in build_sample.LICENCES, row["file"]


def test_sharealike_pictures_have_their_own_folder() -> None:
    for row in ROWS:
        in_folder = row["file"].startswith("photos-sharealike/")
        assert ("-SA-" in row["licence"]) == in_folder, row["file"]


def test_attribution_is_that_of_the_rows() -> None:
    text = (SAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert text == build_sample.attribution(ROWS)
    for row in ROWS:
        line = next(line for line in text.splitlines() if f"({row['file']})" in line)
        assert row["author"] in line and row["title"] in line
        assert build_sample.LICENCES[row["licence"]][1] in line


def test_pictures_are_small_and_carry_no_metadata() -> None:
    for path in FILES:
        with Image.open(path) as picture:
            assert min(picture.size) <= 512, path
            assert not picture.getexif(), path
            assert "icc_profile" not in picture.info, path
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 10e6


def color_beyond_tone(path: Path) -> float:
    """Mean distance of ab from a cubic in L fitted to the picture.

    A toned print has a color, but one that its lightness determines.
    """
    with Image.open(path) as picture:
        picture.thumbnail((128, 128))
        lightness, *chroma = rgb2lab(np.asarray(picture.convert("RGB"))).reshape(-1, 3).T
    residuals = [ab - np.polyval(np.polyfit(lightness, ab, 3), lightness) for ab in chroma]
    return float(np.hypot(*residuals).mean())


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_photographs_are_in_color(path: Path) -> None:
    assert color_beyond_tone(path) > 2


@pytest.mark.parametrize("path", ARCHIVE, ids=lambda path: path.stem)
def test_archive_photographs_are_monochrome(path: Path) -> None:
    assert color_beyond_tone(path) < 2


def test_encode_shrinks_turns_upright_and_drops_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    exif[0x010F] = "Camera"
    source = Image.new("RGB", (1200, 600), (200, 40, 40))
    file = io.BytesIO()
    source.save(file, "PNG", exif=exif)
    with Image.open(io.BytesIO(build_sample.encode(file.getvalue()))) as picture:
        assert picture.size == (512, 1024)
        assert not picture.getexif()
        assert np.allclose(np.asarray(picture).mean((0, 1)), (200, 40, 40), atol=2)


def test_encode_never_enlarges() -> None:
    file = io.BytesIO()
    Image.new("RGB", (300, 200)).save(file, "PNG")
    with Image.open(io.BytesIO(build_sample.encode(file.getvalue()))) as picture:
        assert picture.size == (300, 200)


def test_read_resource_finds_a_file_by_its_path() -> None:
    names = [b"\0\1\0\0\0\0" + name.encode("utf-16-be") for name in "dab"]
    tree = struct.pack(">IHIIQ", 0, 2, 1, 1, 0)  # root: one child, record 1
    tree += struct.pack(">IHIIQ", 0, 2, 2, 2, 0)  # d: two children from record 2
    tree += struct.pack(">IHIIQ", 8, 0, 0, 0, 0)  # d/a: content at 0
    tree += struct.pack(">IHIIQ", 16, 0, 0, 7, 0)  # d/b: content at 7
    data = b"\0\0\0\3one" + b"\0\0\0\5three"
    at = 20
    rcc = struct.pack(">4s4I", b"qres", 2, at, at + 88, at + 88 + len(data))
    rcc += tree + data + b"".join(names)
    assert build_sample.read_resource(rcc, "d/a") == b"one"
    assert build_sample.read_resource(rcc, "d/b") == b"three"
    with pytest.raises(KeyError, match="c"):
        build_sample.read_resource(rcc, "d/c")
    with pytest.raises(ValueError, match="d: "):
        build_sample.read_resource(rcc, "d")


def test_a_missing_package_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in SAMPLE.rglob("*")}
    monkeypatch.setattr("sys.argv", ["build_sample.py", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        build_sample.main()
    assert exit_.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and ROWS[0]["file"] in message
    assert {path: path.stat().st_mtime_ns for path in SAMPLE.rglob("*")} == before
