"""The Kaggle data set: what is accepted, what comes of it, and whose credentials are used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import kaggle_cases
import kaggle_server
import numpy as np
import pytest
from kaggle_cases import Bench
from kaggle_server import CREDENTIALS, SLUG, VERSION, Fault, npy, pack

from colorized.data import kaggle_set, kaggle_web
from colorized.data.kaggle_set import KaggleError

DATASET = f"{kaggle_server.OWNER}/{SLUG}"
VERIFIED = f"{DATASET}, version {VERSION}: verified\n"
COUNTS = (3, 2, 1)


@pytest.fixture(scope="module")
def lab() -> np.ndarray:
    """Six small real pictures."""
    paths = sorted(kaggle_cases.ROOT.glob("data/sample/photos/*.jpg"))[:6]
    return kaggle_server.real_pictures(paths, side=32)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with kaggle_cases.bench(tmp_path) as made:
        yield made


def fetch(folder: Path, files: dict[str, bytes]) -> kaggle_set.Manifest:
    """The set of an archive put by hand, in this process; a download would need `kaggle`."""
    archive = folder / "kaggle" / f"{SLUG}.zip"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(pack(files))
    return kaggle_set.fetch(
        DATASET,
        None,
        by_hand=archive.parent,
        downloads=folder / "downloads",
        out=folder / "raw",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [("", ""), ("ab/ab/", "ab/"), ("", "Image Colorization/")],
    ids=["ab below ab", "ab once", "one more folder around all"],
)
def test_layouts(lab: np.ndarray, tmp_path: Path, old: str, new: str) -> None:
    files = kaggle_server.members(lab, COUNTS)
    files = {name.replace(old, new, 1) if old else new + name: data for name, data in files.items()}
    manifest = fetch(tmp_path, files)
    L, parts = kaggle_set.open_arrays(tmp_path / "raw")
    assert np.array_equal(L, lab[..., 0])
    assert [len(part) for part in parts] == list(COUNTS)
    assert np.array_equal(np.concatenate(parts), lab[..., 1:])
    assert isinstance(L, np.memmap)
    assert manifest.version is None  # a zip does not say
    written = json.loads((tmp_path / "raw" / "manifest.json").read_text())
    assert written["arrays"]["ab3"]["shape"] == [1, 32, 32, 2]
    assert {p.name for p in tmp_path.iterdir()} == {"kaggle", "raw"}


def test_newer_npy_header_is_read(lab: np.ndarray, tmp_path: Path) -> None:
    files = kaggle_server.members(lab, COUNTS)
    with open(tmp_path / "v2.npy", "wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(lab[..., 0]), version=(2, 0))
    fetch(tmp_path, {**files, "l/gray_scale.npy": (tmp_path / "v2.npy").read_bytes()})
    assert np.array_equal(kaggle_set.open_arrays(tmp_path / "raw")[0], lab[..., 0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lab: np.asfortranarray(lab[..., 0]), "must be in C order"),
        (lambda lab: lab[:, :16, :16, 0], "H ≥ 32, has (6, 16, 16)"),
        (lambda lab: lab[:, :, :-1, 0], "has (6, 32, 31)"),
        (lambda lab: lab[:0, ..., 0], "has (0, 32, 32)"),
        (lambda lab: lab[..., 0].astype(">u2"), "must hold uint8, has >u2"),
    ],
)
def test_lightness_that_is_not_lightness(lab: np.ndarray, tmp_path: Path, change, says) -> None:
    array = change(lab)
    with open(tmp_path / "L.npy", "wb") as file:
        np.save(file, array)
    files = kaggle_server.members(lab, COUNTS)
    with pytest.raises(KaggleError, match="gray_scale.npy") as caught:
        fetch(tmp_path, {**files, "l/gray_scale.npy": (tmp_path / "L.npy").read_bytes()})
    assert says in str(caught.value)
    assert not (tmp_path / "raw").exists()


def test_parts_of_another_size(lab: np.ndarray, tmp_path: Path) -> None:
    files = kaggle_server.members(lab, COUNTS)
    other = npy(np.full((2, 48, 48, 2), 128, np.uint8))
    with pytest.raises(KaggleError, match=r"ab2.npy must have the shape \(n, 32, 32, 2\)"):
        fetch(tmp_path, {**files, "ab/ab/ab2.npy": other})


@pytest.mark.parametrize("i", range(6))
def test_alignment_is_found_wanting_in_any_part(lab: np.ndarray, tmp_path: Path, i: int) -> None:
    """Colors of one part, rolled by one of the others or by another number of pictures."""
    lab = np.repeat(lab, 2, axis=0)[[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]]
    wrong = lab.copy()
    part = slice(4 * (i % 3), 4 * (i % 3) + 4)
    wrong[part, ..., 1:] = np.roll(lab[part, ..., 1:], 1 + i // 3, axis=0)
    counts = (4, 4, 4)
    fetch(tmp_path, kaggle_server.members(lab, counts))
    with pytest.raises(KaggleError, match=rf"ab{i % 3 + 1}.npy does not belong to the pictures"):
        fetch(tmp_path, kaggle_server.members(wrong, counts))


def test_gray_pictures_belong_to_any(lab: np.ndarray, tmp_path: Path) -> None:
    gray = lab.copy()
    gray[..., 1:] = 128
    assert fetch(tmp_path, kaggle_server.members(gray, COUNTS)).arrays["L"].shape == (6, 32, 32)


def test_what_was_there_stays_until_the_new_is_whole(lab: np.ndarray, tmp_path: Path) -> None:
    files = kaggle_server.members(lab, COUNTS)
    first = fetch(tmp_path, files)
    with pytest.raises(KaggleError):
        fetch(tmp_path, {name: data for name, data in files.items() if "ab3" not in name})
    assert json.loads((tmp_path / "raw" / "manifest.json").read_text())["zip_sha256"] == (
        first.zip_sha256
    )
    kaggle_set.open_arrays(tmp_path / "raw")
    second = fetch(tmp_path, kaggle_server.members(lab[::-1], COUNTS))
    assert second.zip_sha256 != first.zip_sha256
    assert np.array_equal(kaggle_set.open_arrays(tmp_path / "raw")[0], lab[::-1, ..., 0])
    assert {p.name for p in tmp_path.iterdir()} == {"kaggle", "raw"}


def test_arrays_that_are_not_there_or_damaged(lab: np.ndarray, tmp_path: Path) -> None:
    fetch(tmp_path, kaggle_server.members(lab, COUNTS))
    raw = tmp_path / "raw"
    data = (raw / "ab1.npy").read_bytes()
    (raw / "ab1.npy").write_bytes(data[:-1])
    with pytest.raises(KaggleError, match=r"ab1.npy must have 6272 bytes .*, has 6271"):
        kaggle_set.open_arrays(raw)
    (raw / "ab1.npy").write_bytes((raw / "ab2.npy").read_bytes())
    with pytest.raises(KaggleError, match=r"L.npy holds 6 pictures, .* 2 \+ 2 \+ 1 = 5"):
        kaggle_set.open_arrays(raw)
    (raw / "ab1.npy").unlink()
    with pytest.raises(KaggleError, match=r"raw: .*\(ab1.npy: No such file"):
        kaggle_set.open_arrays(raw)


@pytest.mark.parametrize("name", ["image-colorization", "a/b/c", "/b", "a/"])
def test_names_of_no_data_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(KaggleError, match="owner/name, got"):
        kaggle_set.fetch(name, None, by_hand=tmp_path, downloads=tmp_path, out=tmp_path / "raw")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (2_100_000_000, "2.1 GB")]
)
def test_sizes_are_written_as_disks_count(count: int, text: str) -> None:
    assert kaggle_web.size_text(count) == text


# The real client, in processes of its own.


@pytest.mark.parametrize("form", CREDENTIALS)
def test_every_form_of_credentials(at: Bench, form: str) -> None:
    at.sign_in(form)
    run = at.run()
    assert (run.code, run.output) == (0, VERIFIED)
    assert run.asked == ("",)
    assert json.loads((at.out / "manifest.json").read_text()) == kaggle_cases.expected_manifest()


def test_a_talkative_client_is_kept_quiet(at: Bench) -> None:
    """With VERBOSE it prints whole requests, credentials included, and it warns of open files."""
    at.variables["VERBOSE"] = "true"
    (at.home / ".kaggle" / "kaggle.json").chmod(0o644)
    run = at.run()
    assert (run.code, run.output) == (0, VERIFIED)


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("KGAT_half\nother-half", "does not accept the credentials of KAGGLE_API_TOKEN"),
        ("KGAT_" + "x" * 300, "KAGGLE_API_TOKEN is too long, save it as ~/.kaggle/access_token"),
    ],
    ids=["line break", "too long for a path"],
)
def test_odd_tokens_are_not_repeated(at: Bench, token: str, says: str) -> None:
    at.sign_in(None)
    at.variables["KAGGLE_API_TOKEN"] = token
    run = at.run()
    assert run.code == 1
    assert run.output.startswith("error: ") and run.output.count("\n") == 1
    assert says in run.output
    assert "half" not in run.output and "xxx" not in run.output


def test_a_pinned_version_that_is_there_needs_no_network(at: Bench) -> None:
    at.set_params(version=VERSION - 1)
    assert at.run().output == f"{DATASET}, version {VERSION - 1}: verified\n"
    shutil.rmtree(at.out)  # as `dvc repro` does before the stage runs
    at.kaggle.hosts.clear()
    at.sign_in(None)
    run = at.run()
    assert run.code == 0 and not run.calls and not at.kaggle.hosts
    assert json.loads((at.out / "manifest.json").read_text())["version"] == VERSION - 1


def test_the_latest_version_is_asked_for_and_recorded(at: Bench) -> None:
    assert at.run().calls == ("GetDataset", "DownloadDataset")
    again = at.run()
    assert (again.calls, again.asked) == (("GetDataset",), ())
    at.kaggle.version += 1
    newer = at.run()
    assert newer.asked == ("",)
    assert newer.output == f"{DATASET}, version {VERSION + 1}: verified\n"


def test_an_archive_put_by_hand_needs_neither_account_nor_network(at: Bench) -> None:
    at.sign_in(None)
    at.by_hand.write_bytes(kaggle_cases.good())
    run = at.run()
    assert (run.code, run.output) == (0, f"{DATASET}: verified\n")
    assert not at.kaggle.hosts and not at.downloads.exists()
    expected = kaggle_cases.expected_manifest(version=None)
    assert json.loads((at.out / "manifest.json").read_text()) == expected


def test_a_bad_connection_gets_there_in_the_end(at: Bench) -> None:
    """More cuts than there are attempts, each of them further on."""
    size = len(kaggle_cases.good())
    cuts = [size * i // 6 for i in range(1, 6)]
    assert len(cuts) > len(kaggle_web.WAITS) + 1
    at.kaggle.faults = [Fault("object", cut=cut, times=1) for cut in cuts]
    run = at.run()
    assert run.code == 0, run.output
    starts = [int(asked[6:-1]) for asked in run.asked[1:]]
    assert len(starts) == len(cuts)
    # All that had come but for the chunk that was cut is kept.
    for start, cut in zip(starts, cuts, strict=True):
        assert cut - kaggle_web.CHUNK < start <= cut


def test_a_part_that_is_longer_than_the_archive_is_given_up(at: Bench) -> None:
    cut = len(kaggle_cases.good()) // 2
    at.kaggle.faults = [Fault("object", cut=cut, times=1), Fault("object", 416, times=1)]
    run = at.run()
    assert run.code == 1
    assert "shorter than was announced" in run.output
    assert not at.partial.exists()
    assert at.run().asked == ("",)
