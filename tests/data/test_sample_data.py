"""The embedded photographs: credited, licensed, small, in color, and as their recipe says."""

import csv
from pathlib import Path

from PIL import Image

DATA = Path(__file__).parents[2] / "data"
SAMPLE = DATA / "sample"


LICENCES = {
    "CC-BY-2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "public-domain": "https://creativecommons.org/publicdomain/mark/1.0/",
}
with open(SAMPLE / "photos.csv", newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))
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
        assert row["licence"] in LICENCES, row["file"]


def test_sharealike_pictures_have_their_own_folder() -> None:
    for row in ROWS:
        in_folder = row["file"].startswith("photos-sharealike/")
        assert ("-SA-" in row["licence"]) == in_folder, row["file"]


def test_attribution_is_that_of_the_rows() -> None:
    text = (SAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert sum(line.count(".jpg)") for line in text.splitlines()) == len(ROWS)
    for row in ROWS:
        line = next(line for line in text.splitlines() if f"({row['file']})" in line)
        assert row["author"] in line and row["title"] in line
        assert LICENCES[row["licence"]] in line


def test_pictures_are_small_and_carry_no_metadata() -> None:
    for path in FILES:
        with Image.open(path) as picture:
            assert min(picture.size) <= 512, path
            assert not picture.getexif(), path
            assert "icc_profile" not in picture.info, path
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 10e6
