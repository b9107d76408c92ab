"""Pictures of every source: which there are, their split, and the crops cut from them."""

import hashlib
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import PHOTOS
from PIL import ExifTags, Image
from profiles import wide_profile

from colorized import color
from colorized.color import resample
from colorized.data import sources
from colorized.data.sources import CropSettings, Photographs, SourceError, Unusable

SETTINGS = CropSettings(32, {"train": 3, "val": 2, "test": 2}, 0.5, 0.2, 0.3, 0, 2.0, 8)


def photographs(root: Path, *names: str) -> Photographs:
    return sources.photographs([root / name for name in names], root)


class TestPhotographs:
    def test_crops_follow_from_the_seed(self) -> None:
        source = photographs(PHOTOS, "cat.jpg")
        first, again = (source.cut(0, 3, SETTINGS) for _ in range(2))
        assert first.boxes == again.boxes
        assert np.array_equal(first.L, again.L) and np.array_equal(first.ab, again.ab)
        other = source.cut(0, 3, replace(SETTINGS, seed=1))
        assert other.boxes[0] == first.boxes[0]  # the middle
        assert other.boxes[1:] != first.boxes[1:]

    def test_boxes_are_inside(self) -> None:
        rng = np.random.default_rng(0)
        for height, width in ((32, 32), (33, 100), (300, 200)):
            boxes = sources.crop_boxes(height, width, 50, 0.1, 48, rng)
            assert len(boxes) == 50
            for y, x, side in boxes:
                assert 0 <= y <= y + side <= height
                assert 0 <= x <= x + side <= width
                # Never enlarged to 48 pixels, but where the picture is smaller.
                assert min(48, height, width) <= side <= min(height, width)
            assert len(set(boxes)) > 1 or height == width == 32

    @pytest.mark.parametrize("suffix", ["png", "heic", "avif"])
    def test_orientation_and_profile_are_applied(self, suffix: str, tmp_path: Path) -> None:
        with Image.open(PHOTOS / "cat.jpg") as picture:
            rgb = np.asarray(picture.convert("RGB"))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # to be turned by 90° to the right when shown
        # In HEIC the container turns the picture, not EXIF, and Pillow's plugin cannot write that.
        upright = suffix == "heic"
        stored = Image.fromarray((rgb if upright else np.rot90(rgb))[..., [1, 0, 2]])
        options = {} if suffix == "png" else {"quality": 95}
        path = tmp_path / f"stored.{suffix}"
        # Red and green are exchanged in the pixels, and in the profile once more.
        stored.save(path, exif=exif, icc_profile=wide_profile(), **options)
        expected = photographs(PHOTOS, "cat.jpg").cut(0, 1, SETTINGS)
        found = photographs(tmp_path, path.name).cut(0, 1, SETTINGS)
        for a, b in ((expected.L, found.L), (expected.ab, found.ab)):
            assert np.abs(a.astype(int) - b).mean() < 1.5

    def test_a_file_is_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is hashed is what is cut, even if the file changes meanwhile."""
        shutil.copy(PHOTOS / "cat.jpg", tmp_path)
        source = photographs(tmp_path, "cat.jpg")
        expected = source.cut(0, 1, SETTINGS)
        read = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: (read(path), path.unlink())[0])
        assert np.array_equal(source.cut(0, 1, SETTINGS).L, expected.L)
        assert not (tmp_path / "cat.jpg").exists()

    def test_changed_and_removed_files_say_so(self, tmp_path: Path) -> None:
        for name in ("cat.jpg", "dogs.jpg"):
            shutil.copy(PHOTOS / name, tmp_path)
        source = photographs(tmp_path, "cat.jpg", "dogs.jpg")
        shutil.copy(PHOTOS / "moose.jpg", tmp_path / "cat.jpg")
        with pytest.raises(Unusable, match="changed since the download stage"):
            source.cut(0, 1, SETTINGS)
        (tmp_path / "dogs.jpg").unlink()
        with pytest.raises(Unusable, match="No such file"):
            source.cut(1, 1, SETTINGS)


class TestLabArrays:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Seven pictures of 64 pixels, as the Kaggle data set has them."""
        names = ("cat", "dogs", "dahlia", "moose", "goldfish", "macaw", "burj")
        lab8 = []
        for name in names:
            with Image.open(PHOTOS / f"{name}.jpg") as picture:
                rgb = np.asarray(picture.convert("RGB").resize((64, 64)))
            lab8.append(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))
        stacked = np.stack(lab8)
        np.save(tmp_path / "L.npy", stacked[..., 0])
        for part, rows in (("ab1", slice(0, 3)), ("ab2", slice(3, 5)), ("ab3", slice(5, 7))):
            np.save(tmp_path / f"{part}.npy", stacked[rows, ..., 1:])
        return tmp_path

    def test_smaller_crops_average_light(self, folder: Path) -> None:
        source = sources.LabArrays(folder)
        crops = source.cut(4, 2, SETTINGS)
        assert crops.L.shape == (2, 32, 32) and crops.ab.shape == (2, 32, 32, 2)
        rgb = source.rgb("picture-00004")
        expected = color.srgb_to_lab(resample.resize_rgb(rgb, 32, 32))
        assert np.abs(crops.L[0] / 2.55 - expected[..., 0]).mean() < 0.5
        assert np.abs(crops.ab[0] - 128.0 - expected[..., 1:]).mean() < 1

    def test_goes_to_another_process_without_the_pixels(self, folder: Path) -> None:
        source = sources.LabArrays(folder)
        sent = pickle.dumps(source)
        assert len(sent) < 2000
        again = pickle.loads(sent)
        assert np.array_equal(again.cut(5, 1, SETTINGS).ab, source.cut(5, 1, SETTINGS).ab)


class TestResize:
    def test_merged_pixels_add_up_their_light(self) -> None:
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (96, 47, 3), dtype=np.uint8)  # 3 and 1.5 to one
        coded = rgb.astype(np.float64) / 255
        linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
        mean = cv2.resize(linear, (32, 32), interpolation=cv2.INTER_AREA)
        expected = np.where(mean <= 0.0031308, mean * 12.92, 1.055 * mean ** (1 / 2.4) - 0.055)
        found = resample.resize_rgb(rgb, 32, 32)
        assert np.abs(found - expected).max() < 1e-4
        naive = cv2.resize(coded, (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(found - naive).max() > 0.05  # negative control

    def test_checkered_lightness_keeps_its_luminance(self) -> None:
        board = np.float32(100) * (np.indices((8, 8)).sum(0) % 2).astype(np.float32)
        found = resample.resize_lightness(board, 4, 4)
        assert found == pytest.approx(np.full((4, 4), 76.07), abs=0.01)  # L* of Y = 1/2

    def test_same_size_changes_nothing(self) -> None:
        plane = np.random.default_rng(0).random((5, 7), dtype=np.float32)
        assert np.array_equal(resample.resize(plane, 5, 7), plane)

    def test_growing_a_ramp_keeps_it_a_ramp(self) -> None:
        plane = np.tile(np.arange(8, dtype=np.float32), (4, 1))
        grown = resample.resize(plane, 12, 32)
        assert grown.shape == (12, 32)
        assert np.diff(grown[0])[8:-8] == pytest.approx(np.full(15, 0.25), abs=0.01)


class TestSplit:
    DIGESTS = tuple(hashlib.sha256(bytes([i, j])).hexdigest() for i in range(40) for j in range(50))

    def test_shares_are_about_right(self) -> None:
        found = [sources.split_of(digest, 0.1, 0.25) for digest in self.DIGESTS]
        assert found.count("test") / len(found) == pytest.approx(0.25, abs=0.03)
        assert found.count("val") / len(found) == pytest.approx(0.10, abs=0.03)

    def test_more_held_back_moves_nothing_out_of_test(self) -> None:
        for digest in self.DIGESTS[:200]:
            if sources.split_of(digest, 0.1, 0.25) == "test":
                assert sources.split_of(digest, 0.1, 0.30) == "test"


class TestLists:
    def test_pictures_below_a_folder_in_order(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        for name in ("b/2.jpg", "b/1.TIF", "a.heic", ".hidden.jpg", "notes.txt"):
            (tmp_path / name).touch()
        found = sources.list_photographs(tmp_path)
        assert [str(p.relative_to(tmp_path)) for p in found] == ["a.heic", "b/1.TIF", "b/2.jpg"]

    def test_folder_without_photographs(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="holds no photographs"):
            sources.list_photographs(tmp_path)
        with pytest.raises(SourceError, match="no such folder of photographs"):
            sources.list_photographs(tmp_path / "nowhere")

    def test_sample_is_the_list_without_the_archive(self) -> None:
        paths = sources.list_sample(PHOTOS.parent)
        assert {path.parent.name for path in paths} == {"photos", "photos-sharealike"}
        assert len(paths) > 100

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (None, "not the list of the embedded photographs"),
            ("name\nx.jpg\n", "not the list of the embedded photographs"),
            ("file\n", "lists no photographs"),
            ("file\nphotos/x.jpg\n", "x.jpg: listed in photos.csv but not there"),
        ],
    )
    def test_damaged_sample_is_named(self, tmp_path: Path, text: str | None, expected: str) -> None:
        if text is not None:
            (tmp_path / "photos.csv").write_text(text)
        with pytest.raises(SourceError, match=expected):
            sources.list_sample(tmp_path)
