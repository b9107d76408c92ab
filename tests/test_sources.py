"""Photographs → shards: splits, crops, what is left out, and that nothing is half-written."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image

from colorized import photo, resample, sources
from colorized.dataset import open_shard
from colorized.sources import SPLITS, CropSettings, SourceError

# Their hashes put these in all three splits.
NAMES = ("cat", "dogs", "dahlia", "moose", "goldfish", "macaw")
SETTINGS = CropSettings(32, {"train": 3, "val": 2, "test": 2}, 0.5, 0.2, 0.3, 0)
REJECTS = {
    "broken.jpg": "no picture of a known format",
    "copy.jpg": "the same picture as scans/",
    "gray.png": "monochrome (mean chroma under 2.0)",
    "tiny.png": "40×31, a side is under 32",
    "truncated.jpg": "cannot be read",
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root") / "scans"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(PHOTOS / f"{name}.jpg", folder)
    shutil.copy(PHOTOS / "cat.jpg", folder / "copy.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "truncated.jpg").write_bytes((PHOTOS / "burj.jpg").read_bytes()[:3000])
    with Image.open(PHOTOS / "burj.jpg") as picture:
        picture.convert("L").save(folder / "gray.png")
        picture.resize((40, 31)).save(folder / "tiny.png")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def built(scans: Path) -> tuple[Path, sources.Report]:
    out = scans.parent / "lab"
    paths = sources.list_photographs(scans)
    return out, sources.build_shards(paths, out, SETTINGS, scans.parent)


def index(folder: Path) -> list[dict[str, str]]:
    with open(folder / "index.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestShards:
    def test_no_photograph_is_in_two_splits(self, built: tuple[Path, sources.Report]) -> None:
        out, report = built
        rows = index(out)
        pairs = {(row["sha256"], row["split"]) for row in rows}
        assert len(pairs) == len({sha256 for sha256, _ in pairs}) == len(NAMES)
        assert all(count > 0 for count in report.photographs.values())
        for split in SPLITS:
            own = [row for row in rows if row["split"] == split]
            assert [int(row["row"]) for row in own] == list(range(len(own)))
            assert len(own) == report.crops[split] == len(open_shard(out, split))
            assert len(own) == SETTINGS.crops[split] * report.photographs[split]

    def test_rows_are_the_crops_the_index_tells(
        self, built: tuple[Path, sources.Report], scans: Path
    ) -> None:
        out, _ = built
        for row in index(out):
            y, x, side = (int(row[key]) for key in ("y", "x", "side"))
            rgb = photo.read_rgb(scans.parent / row["file"])
            assert 0 <= y <= y + side <= rgb.shape[0]
            assert 0 <= x <= x + side <= rgb.shape[1]
            assert 0.5 * min(rgb.shape[:2]) - 1 <= side <= min(rgb.shape[:2])
            crop = resample.resize_rgb(rgb[y : y + side, x : x + side], 32, 32)
            lab = cv2.cvtColor(crop, cv2.COLOR_RGB2Lab)  # 0 … 100 and ±127
            shard = open_shard(out, row["split"])
            k = int(row["row"])
            assert np.abs(shard.L[k] - (lab[..., 0] * 2.55).round()).max() <= 1
            assert np.abs(shard.ab[k] - 128.0 - lab[..., 1:].round()).max() <= 1

    def test_report_names_what_is_left_out_and_why(
        self, built: tuple[Path, sources.Report], scans: Path
    ) -> None:
        out, report = built
        assert set(report.rejects) == {f"scans/{name}" for name in REJECTS}
        for name, reason in REJECTS.items():
            found = report.rejects[f"scans/{name}"]
            assert found.startswith(reason)
            assert "\n" not in found
        # Paths of this machine would make two clones differ.
        for file in ("stats.json", "index.csv"):
            assert str(scans.parent) not in (out / file).read_text(encoding="utf-8")

    def test_statistics_are_those_of_the_training_split(
        self, built: tuple[Path, sources.Report]
    ) -> None:
        out, report = built
        ab = open_shard(out, "train").ab.reshape(-1, 2).astype(float) - 128
        assert report.ab_mean == pytest.approx(tuple(ab.mean(0)))
        assert report.ab_std == pytest.approx(tuple(np.sqrt((ab**2).mean(0))))
        stats = sources.read_stats(out)
        assert stats["ab_std"] == list(report.ab_std)
        for name, sha256 in stats["arrays"].items():
            rows = np.load(out / name)
            assert hashlib.sha256(rows.tobytes()).hexdigest() == sha256

    def test_another_folder_gives_the_same_bytes_in_place_of_old_ones(
        self, built: tuple[Path, sources.Report], scans: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(scans, tmp_path / "scans")
        out = tmp_path / "lab"
        out.mkdir()
        (out / "old.npy").write_bytes(b"")
        paths = sources.list_photographs(tmp_path / "scans")
        sources.build_shards(paths, out, SETTINGS, tmp_path)
        names = sorted(path.name for path in built[0].iterdir())
        assert sorted(path.name for path in out.iterdir()) == names
        for name in names:
            assert (out / name).read_bytes() == (built[0] / name).read_bytes()

    def test_nothing_usable_is_one_line_and_leaves_nothing(
        self, scans: Path, tmp_path: Path
    ) -> None:
        paths = [scans / "broken.jpg", scans / "tiny.png"]
        with pytest.raises(SourceError) as caught:
            sources.build_shards(paths, tmp_path / "lab", SETTINGS, scans.parent)
        message = str(caught.value)
        assert message.startswith("no usable photograph for the train split among 2 files (2 left")
        assert "scans/broken.jpg: no picture of a known format" in message
        assert list(tmp_path.iterdir()) == []


class TestCut:
    def test_crops_follow_from_the_seed(self) -> None:
        path = PHOTOS / "cat.jpg"
        first, again = sources.cut(path, SETTINGS), sources.cut(path, SETTINGS)
        assert first.boxes == again.boxes
        assert np.array_equal(first.L, again.L) and np.array_equal(first.ab, again.ab)
        other = sources.cut(path, CropSettings(**{**vars(SETTINGS), "seed": 1}))
        assert other.boxes[0] == first.boxes[0]  # the middle
        assert other.boxes[1:] != first.boxes[1:]
        assert other.split == first.split

    def test_boxes_are_inside(self) -> None:
        rng = np.random.default_rng(0)
        for height, width in ((32, 32), (33, 100), (300, 200)):
            boxes = sources.crop_boxes(height, width, 50, 0.1, rng)
            assert len(boxes) == 50
            for y, x, side in boxes:
                assert 0 <= y <= y + side <= height
                assert 0 <= x <= x + side <= width
                assert 32 <= side <= min(height, width)
            assert len(set(boxes)) > 1 or height == width == 32

    def test_many_are_cut_by_several_processes_in_their_order(self) -> None:
        paths = [PHOTOS / f"{name}.jpg" for name in NAMES] * 3
        assert len(paths) >= sources.FEW
        cuts = list(sources._cut_all(paths, SETTINGS))
        assert [c.path for c in cuts] == paths
        one_by_one = [sources.cut(path, SETTINGS) for path in paths]
        for found, expected in zip(cuts, one_by_one, strict=True):
            assert found.boxes == expected.boxes
            assert np.array_equal(found.L, expected.L) and np.array_equal(found.ab, expected.ab)


class TestResize:
    def test_merged_pixels_add_up_their_light(self) -> None:
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (96, 64, 3), dtype=np.uint8)
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

    def test_photograph_keeps_its_split_when_others_are_added(self) -> None:
        # What `cut` is told of a photograph is its own file; no list of others reaches it.
        cut = sources.cut(PHOTOS / "cat.jpg", SETTINGS)
        digest = hashlib.sha256((PHOTOS / "cat.jpg").read_bytes()).hexdigest()
        assert cut.digest == digest
        assert cut.split == sources.split_of(digest, SETTINGS.val_share, SETTINGS.test_share)


class TestShardWriter:
    def test_header_tells_the_rows_in_the_end(self, tmp_path: Path) -> None:
        rows = np.random.default_rng(0).integers(0, 256, (1000, 4, 3), dtype=np.uint8)
        path = tmp_path / "x.npy"
        writer = sources.ShardWriter(path, (4, 3))
        for start in range(0, 1000, 7):
            writer.append(rows[start : start + 7])
        writer.close()
        found = np.load(path, mmap_mode="r")
        assert found.dtype == np.uint8
        assert np.array_equal(found, rows)
        np.save(tmp_path / "y.npy", rows)  # NumPy's own
        assert path.read_bytes() == (tmp_path / "y.npy").read_bytes()
        assert writer.sha256 == hashlib.sha256(rows.tobytes()).hexdigest()


class TestLists:
    def test_pictures_below_a_folder_in_order(self, scans: Path) -> None:
        names = [path.name for path in sources.list_photographs(scans)]
        assert names == sorted([*REJECTS, *(f"{name}.jpg" for name in NAMES)])

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

    def test_hashes_are_of_the_files(self, scans: Path) -> None:
        (entry,) = sources.hash_files([scans / "cat.jpg"], scans.parent)
        data = (scans / "cat.jpg").read_bytes()
        assert entry == {
            "file": "scans/cat.jpg",
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    def test_damaged_stats_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"stats\.json"):
            sources.read_stats(tmp_path)
        (tmp_path / "stats.json").write_text(json.dumps({"a": 1})[:-1])
        with pytest.raises(SourceError, match=r"stats\.json"):
            sources.read_stats(tmp_path)
