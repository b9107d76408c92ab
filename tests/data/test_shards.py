"""Pictures → shards: splits, copies, what is left out, and that nothing is half-written."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image, ImageEnhance
from test_sources import SETTINGS, photographs

from colorized import photo
from colorized.color import resample
from colorized.data import index, shards, sources
from colorized.data.dataset import open_shard
from colorized.data.sources import SPLITS, Crops, Photographs, SourceError

# Their hashes put these in all three splits.
NAMES = ("cat", "dogs", "dahlia", "moose", "goldfish", "macaw")
REJECTS = {
    "broken.jpg": ("broken", "no picture of a known format"),
    "copy.jpg": ("duplicate", "the same picture as scans/cat.jpg"),
    "gray.png": ("monochrome", "monochrome (mean chroma 0.0, under 2)"),
    "tiny.png": ("tiny", "40×31, a side is under 32"),
    "truncated.jpg": ("broken", "cannot be read"),
}


def everything(folder: Path) -> Photographs:
    names = [p.relative_to(folder.parent).as_posix() for p in sources.list_photographs(folder)]
    return photographs(folder.parent, *names)


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
    return folder


@pytest.fixture(scope="module")
def built(scans: Path) -> tuple[Path, shards.Report]:
    out = scans.parent / "lab"
    return out, shards.build_shards(everything(scans), out, SETTINGS)


def lines(folder: Path) -> list[dict[str, str]]:
    with open(folder / "index.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestShards:
    def test_no_photograph_is_in_two_splits(self, built: tuple[Path, shards.Report]) -> None:
        out, report = built
        pairs = {(line["sha256"], line["split"]) for line in lines(out)}
        assert len(pairs) == len({sha256 for sha256, _ in pairs}) == len(NAMES)
        assert all(count > 0 for count in report.photographs.values())
        assert len({line["id"] for line in lines(out)}) == len(lines(out))
        for split in SPLITS:
            own = index.read_index(out, split)
            assert [int(line["row"]) for line in own] == list(range(len(own)))
            assert len(own) == report.crops[split] == len(open_shard(out, split))
            assert len(own) == SETTINGS.crops[split] * report.photographs[split]

    def test_rows_are_the_crops_the_index_tells(
        self, built: tuple[Path, shards.Report], scans: Path
    ) -> None:
        out, _ = built
        chroma: dict[str, list[float]] = {}
        for line in lines(out):
            y, x, side = (int(line[key]) for key in ("y", "x", "side"))
            rgb = photo.read_rgb(scans.parent / line["file"])
            assert 0 <= y <= y + side <= rgb.shape[0]
            assert 0 <= x <= x + side <= rgb.shape[1]
            assert 0.5 * min(rgb.shape[:2]) - 1 <= side <= min(rgb.shape[:2])
            crop = resample.resize_rgb(rgb[y : y + side, x : x + side], 32, 32)
            lab = cv2.cvtColor(crop, cv2.COLOR_RGB2Lab)  # 0 … 100 and ±127
            shard = open_shard(out, line["split"])
            k = int(line["row"])
            assert np.abs(shard.L[k] - (lab[..., 0] * 2.55).round()).max() <= 1
            assert np.abs(shard.ab[k] - 128.0 - lab[..., 1:].round()).max() <= 1
            chroma.setdefault(line["file"], []).append(np.hypot(*np.moveaxis(lab[..., 1:], -1, 0)))
        for line in lines(out):
            assert float(line["chroma"]) == pytest.approx(np.mean(chroma[line["file"]]), abs=0.1)

    def test_report_names_what_is_left_out_and_why(
        self, built: tuple[Path, shards.Report], scans: Path
    ) -> None:
        out, report = built
        assert set(report.rejects) == {f"scans/{name}" for name in REJECTS}
        for name, (_, reason) in REJECTS.items():
            found = report.rejects[f"scans/{name}"]
            assert found.startswith(reason)
            assert "\n" not in found
        assert report.left_out == {"broken": 2, "duplicate": 1, "monochrome": 1, "tiny": 1}
        # Paths of this machine would make two clones differ.
        for file in ("stats.json", "index.csv"):
            assert str(scans.parent) not in (out / file).read_text(encoding="utf-8")

    def test_statistics_are_those_of_the_training_split(
        self, built: tuple[Path, shards.Report]
    ) -> None:
        out, report = built
        ab = open_shard(out, "train").ab.reshape(-1, 2).astype(float) - 128
        assert report.ab_mean == pytest.approx(tuple(ab.mean(0)))
        assert report.ab_std == pytest.approx(tuple(np.sqrt((ab**2).mean(0))))
        assert index.read_stats(out)["ab_std"] == list(report.ab_std)
        counts, _ = np.histogram(np.hypot(*ab.T), bins=np.arange(0, 121, 2))
        assert report.chroma_histogram == pytest.approx(counts / len(ab), abs=1e-5)

    def test_another_folder_gives_the_same_bytes_in_place_of_old_ones(
        self, built: tuple[Path, shards.Report], scans: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(scans, tmp_path / "scans")
        out = tmp_path / "lab"
        out.mkdir()
        (out / "old.npy").write_bytes(b"")
        shards.build_shards(everything(tmp_path / "scans"), out, SETTINGS)
        names = sorted(path.name for path in built[0].iterdir())
        assert sorted(path.name for path in out.iterdir()) == names
        for name in names:
            assert (out / name).read_bytes() == (built[0] / name).read_bytes()

    def test_nothing_usable_is_one_line_and_leaves_nothing(
        self, scans: Path, tmp_path: Path
    ) -> None:
        source = photographs(scans, "broken.jpg", "tiny.png")
        with pytest.raises(SourceError) as caught:
            shards.build_shards(source, tmp_path / "lab", SETTINGS)
        message = str(caught.value)
        assert message.startswith("no usable photograph for the train split among 2 (2 left out")
        assert "broken.jpg: no picture of a known format" in message
        assert list(tmp_path.iterdir()) == []

    def test_many_are_cut_by_several_processes_in_their_order(self) -> None:
        names = [f"{name}.jpg" for name in NAMES] * 3
        assert len(names) >= shards.FEW
        source, order = photographs(PHOTOS, *names), list(range(len(names)))
        splits = ["train"] * len(names)
        found = list(shards._cut_all(source, order, splits, SETTINGS))
        for cut, number in zip(found, order, strict=True):
            expected = source.cut(number, SETTINGS.crops["train"], SETTINGS)
            assert cut.crops.boxes == expected.boxes
            assert np.array_equal(cut.crops.L, expected.L)
            assert np.array_equal(cut.crops.ab, expected.ab)

    def test_arrays_of_their_own_size_are_kept_to_the_bit(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
        pictures = np.stack(
            [cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse]
        )
        np.save(tmp_path / "L.npy", pictures[..., 0])
        for number, part in enumerate(np.split(pictures[..., 1:], [9, 17]), 1):
            np.save(tmp_path / f"ab{number}.npy", part)
        source = sources.LabArrays(tmp_path)
        settings = replace(SETTINGS, image_size=64, crops=dict.fromkeys(SPLITS, 1))
        assert len(pictures) >= shards.FEW
        report = shards.build_shards(source, tmp_path / "lab", settings)
        assert sum(report.crops.values()) == 20
        for line in lines(tmp_path / "lab"):
            shard = open_shard(tmp_path / "lab", line["split"])
            number, row = int(line["file"].removeprefix("picture-")), int(line["row"])
            assert np.array_equal(shard.L[row], pictures[number, ..., 0])
            assert np.array_equal(shard.ab[row], pictures[number, ..., 1:])
            chroma = np.hypot(*(shard.ab[row].astype(float) - 128).reshape(-1, 2).T).mean()
            assert float(line["chroma"]) == pytest.approx(chroma, abs=0.01)

    def test_more_than_the_disk_holds_is_refused_first(self, scans: Path, tmp_path: Path) -> None:
        source = photographs(scans, "cat.jpg", "dogs.jpg")
        huge = replace(SETTINGS, image_size=1 << 20)
        with pytest.raises(SourceError, match=r"the shards need up to \d+\.\d GB, .* are free"):
            shards.build_shards(source, tmp_path / "lab", huge)
        assert list(tmp_path.iterdir()) == []

    def test_damaged_stats_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"stats\.json"):
            index.read_stats(tmp_path)
        (tmp_path / "stats.json").write_text(json.dumps({"a": 1})[:-1])
        with pytest.raises(ValueError, match=r"stats\.json"):
            index.read_stats(tmp_path)


class TestHoldout:
    def test_is_the_same_whatever_comes_or_goes(
        self, built: tuple[Path, shards.Report], tmp_path: Path
    ) -> None:
        count = built[1].photographs["test"]
        rows = index.holdout(built[0], "test", count)
        own = index.read_index(built[0], "test")
        chosen = {own[row]["id"] for row in rows}
        assert {name.split("-")[1] for name in chosen} == {"0"}  # the first crop of each picture
        assert len(index.holdout(built[0], "test", 1000)) == len(own)
        kept = [line for line in own if not line["id"].startswith(own[0]["id"].split("-")[0])]
        with open(tmp_path / "index.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, shards.INDEX)
            writer.writeheader()
            writer.writerows({**line, "row": str(i)} for i, line in enumerate(kept))
        fewer = {kept[row]["id"] for row in index.holdout(tmp_path, "test", count - 1)}
        assert fewer == chosen - {own[0]["id"]}


@dataclass(frozen=True)
class Drawn:
    """Pictures in memory with chosen digests, and so with chosen splits."""

    names: Sequence[str]
    digests: Sequence[str]
    pictures: Sequence[np.ndarray]

    def cut(self, number: int, count: int, settings: sources.CropSettings) -> Crops:
        lab8 = cv2.cvtColor(self.pictures[number], cv2.COLOR_RGB2LAB)
        box = (0, 0, lab8.shape[0])
        return Crops((box,) * count, lab8[None, ..., 0], np.ascontiguousarray(lab8[None, ..., 1:]))

    def rgb(self, name: str) -> np.ndarray:
        return self.pictures[list(self.names).index(name)]


def digest_of(split: str, number: int) -> str:
    found = (f"{i:064x}" for i in range(number * 1000, number * 1000 + 1000))
    return next(d for d in found if sources.split_of(d, 0.2, 0.3) == split)


def square(name: str, size: int = 64) -> Image.Image:
    with Image.open(PHOTOS / f"{name}.jpg") as picture:
        return picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)


class TestLookalikes:
    @pytest.mark.parametrize("name", NAMES)
    def test_copies_are_alike_and_others_are_not(self, name: str, tmp_path: Path) -> None:
        picture = square(name, 256)
        picture.save(tmp_path / "bad.jpg", quality=20)
        copies = {
            "recompressed": Image.open(tmp_path / "bad.jpg"),
            "small": picture.resize((80, 80)),
            "bright": ImageEnhance.Brightness(picture).enhance(1.2),
            "trimmed": picture.crop((3, 3, 253, 253)),
            "yellowed": ImageEnhance.Color(picture).enhance(0.5),
        }

        def hash(image: Image.Image) -> int:
            return shards.perceptual_hash(np.asarray(image.convert("L").resize((64, 64))))

        known = shards.Lookalikes(8)
        known.add(name, hash(picture))
        for kind, copy in copies.items():
            assert known.find(hash(copy)) == name, kind
        for other in (*NAMES, "burj", "louvre", "coffee"):
            assert other == name or known.find(hash(square(other))) is None

    def test_no_copy_straddles_splits_and_the_training_copy_goes(self, tmp_path: Path) -> None:
        pictures = [np.asarray(square(name)) for name in ("cat", "dogs", "moose", "macaw")]
        near = np.asarray(ImageEnhance.Brightness(square("cat")).enhance(1.1))
        near_val = np.asarray(ImageEnhance.Brightness(square("dogs")).enhance(1.1))
        named = [  # name, split, picture
            ("train-copy-of-test", "train", near),
            ("test", "test", pictures[0]),
            ("val-copy-of-test", "val", near),
            ("val", "val", pictures[1]),
            ("train-copy-of-val", "train", near_val),
            ("train", "train", pictures[2]),
            ("train-twin", "train", np.asarray(square("moose").resize((64, 64)))[:, ::1] // 2 * 2),
            ("val-alone", "val", pictures[3]),
        ]
        digests = [digest_of(split, i) for i, (_, split, _) in enumerate(named)]
        source = Drawn([n for n, _, _ in named], digests, [p for _, _, p in named])
        settings = replace(SETTINGS, image_size=64, crops=dict.fromkeys(SPLITS, 1))
        report = shards.build_shards(source, tmp_path / "lab", settings)
        assert report.rejects == {
            "train-copy-of-test": "looks like test, which is in test",
            "train-copy-of-val": "looks like val, which is in val",
            "val-copy-of-test": "looks like test, which is in test",
        }
        # Within a split, two views of one place do no harm.
        assert report.photographs == {"train": 2, "val": 2, "test": 1}
