"""The Kaggle data set: what is accepted, what comes of it, and every fault a person can meet."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kaggle_server
import kagglesdk.kaggle_env as kaggle_env
import numpy as np
import pytest
from kaggle_server import KEY, OWNER, REFRESH, SECRETS, SLUG, TOKEN, USER, VERSION, npy, pack

from colorized.data import kaggle
from colorized.data.kaggle import KaggleError

PHOTOS = Path(__file__).resolve().parents[2] / "data" / "sample" / "photos"
DATASET = f"{OWNER}/{SLUG}"
COUNTS = (3, 2, 1)
LAB = kaggle_server.real_pictures(sorted(PHOTOS.glob("*.jpg"))[:6], side=64)
FILES = kaggle_server.members(LAB, COUNTS)
GOOD = pack(FILES)
CHUNK = 1 << 10
HALF = len(GOOD) // 2 // CHUNK * CHUNK


class Project:
    """A folder to download to, and the stand-in that it knows."""

    def __init__(self, root: Path, server: kaggle_server.Kaggle) -> None:
        self.root, self.server = root, server
        self.out, self.by_hand = root / "raw", root / "kaggle"
        self.partial = root / "downloads" / f"{SLUG}-v{VERSION}" / f"{SLUG}.zip.partial"
        self.by_hand.mkdir()

    def fetch(self, dataset: str = DATASET, version: int | None = None) -> int | None:
        return kaggle.fetch(
            dataset,
            version,
            by_hand=self.by_hand,
            downloads=self.root / "downloads",
            out=self.out,
        )

    def put(self, files: dict[str, bytes]) -> None:
        (self.by_hand / f"{SLUG}.zip").write_bytes(pack(files))


@pytest.fixture
def server() -> Iterator[kaggle_server.Kaggle]:
    with kaggle_server.serve(GOOD) as made:
        yield made


@pytest.fixture
def project(
    server: kaggle_server.Kaggle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Project]:
    """Signed in by a token, with no other credentials; afterwards no secret lies anywhere."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, name)  # it looks for a home when it is imported
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VERBOSE", "true")  # it prints whole requests then
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
    monkeypatch.setattr(kaggle, "WAITS", (0.0, 0.0, 1.0))
    monkeypatch.setattr(kaggle, "CHUNK", CHUNK)
    root = tmp_path / "project"
    root.mkdir()
    yield Project(root, server)
    said = "".join(capfd.readouterr()).encode()
    for data in (said, *(path.read_bytes() for path in root.rglob("*") if path.is_file())):
        assert not any(secret.encode() in data for secret in SECRETS)


def whole(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of arrays that holds what it says."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    for array in manifest["arrays"].values():
        data = (folder / array["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == array["sha256"]
    L, parts = kaggle.open_arrays(folder)
    assert [len(part) for part in parts] == list(COUNTS)
    assert np.array_equal(np.dstack([L[0], parts[0][0]]), LAB[0])
    assert np.array_equal(np.concatenate(parts), LAB[..., 1:])
    return manifest


LOGIN = {
    "refresh_token": REFRESH,
    "access_token": "of-yesterday",
    "access_token_expiration": "2020-01-01T00:00:00+00:00",
    "username": USER,
    "scopes": ["resources.admin:*"],
}


@pytest.mark.parametrize(
    ("variables", "files"),
    [
        ({"KAGGLE_API_TOKEN": TOKEN}, {}),
        ({}, {"access_token": TOKEN + "\n"}),
        ({"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY}, {}),
        ({}, {"kaggle.json": json.dumps({"username": USER, "key": KEY})}),
        ({}, {"credentials.json": json.dumps(LOGIN)}),
    ],
    ids=["token", "access_token", "user and key", "kaggle.json", "auth login"],
)
def test_every_form_of_credentials(
    project: Project,
    tmp_path: Path,
    variables: dict[str, str],
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home" / ".kaggle").mkdir()
    for name, text in files.items():
        (tmp_path / "home" / ".kaggle" / name).write_text(text)
    assert project.fetch() == VERSION
    manifest = whole(project.out)
    assert manifest["zip_sha256"] == hashlib.sha256(GOOD).hexdigest()
    assert (manifest["dataset"], manifest["version"]) == (DATASET, VERSION)


def test_what_is_there_is_not_downloaded_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.fetch() == VERSION
    assert project.server.ranges == [""]
    assert project.fetch() == VERSION  # the newest is asked for, and is there
    assert project.server.ranges == [""]
    project.server.calls.clear()
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert project.fetch(version=VERSION) == VERSION
    assert not project.server.calls
    with pytest.raises(KaggleError, match="no Kaggle credentials"):
        project.fetch(version=VERSION - 1)


PASSING: list[dict[str, list[Any]]] = [
    {"DownloadDataset": [(429, "", {"Retry-After": "1"})]},
    {"GetDataset": [(503,)]},
    {"object": [(403,)]},
    {"object": [HALF, (503,)]},
    {"object": [HALF, (416,)]},
    {"object": [HALF // 4, HALF // 3, HALF // 2, HALF, 3 * HALF // 2]},  # more than the attempts
]


@pytest.mark.parametrize("faults", PASSING, ids=str)
def test_faults_that_pass(project: Project, faults: dict[str, list[Any]]) -> None:
    project.server.faults = faults
    assert project.fetch() == VERSION
    assert whole(project.out)
    assert not any(faults.values())


# Every chroma one picture further on.
ROLLED = np.concatenate([LAB[..., :1], np.roll(LAB[..., 1:], 1, axis=0)], axis=-1)
FLIPPED = bytearray(GOOD)
FLIPPED[HALF] ^= 0x10
PAGE = b"<html>Welcome to our hotel"
FOR_EVER = 9
# What goes wrong, what the one line says, and whether a part or a whole archive is kept for then.
FAULTS: dict[str, tuple[dict[str, list[Any]], str, str]] = {
    "401": ({"GetDataset": [(401,)]}, "none that are accepted", ""),
    "403": ({"DownloadDataset": [(403,)]}, r"\(403\): sign in at https://www.kaggle.com", ""),
    "404": ({"GetDataset": [(404,)]}, f"no data set {DATASET} ", ""),
    "429": ({"GetDataset": [(429,)] * FOR_EVER}, "limits the rate of requests .* minutes", ""),
    "429, an hour": ({"GetDataset": [(429, "", {"Retry-After": "3600"})]}, "in 3600 seconds", ""),
    "503": ({"GetDataset": [(503,)] * FOR_EVER}, r"out of order \(503\)", ""),
    "418": ({"GetDataset": [(418,)]}, r"an error of its own \(418\)", ""),
    "a page of the network": ({"GetDataset": [(200, PAGE)]}, "a sign-in page", ""),
    "503 after half": ({"object": [HALF] + [(503,)] * FOR_EVER}, "MB are kept, run again", "part"),
    "cut each time": ({"object": [HALF] * FOR_EVER}, "breaks off .* MB are kept", "part"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_stay(project: Project, name: str) -> None:
    """One line, nothing half made, and the run after it completes."""
    project.server.faults, says, kept = FAULTS[name]
    project.server.faults = {call: list(faults) for call, faults in FAULTS[name][0].items()}
    with pytest.raises(KaggleError, match=says) as caught:
        project.fetch()
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert not project.out.exists()
    assert project.partial.is_file() == bool(kept)
    project.server.faults = {}
    project.server.ranges.clear()
    assert project.fetch() == VERSION
    assert whole(project.out)
    assert project.server.ranges == [f"bytes={HALF}-" if kept else ""]


@pytest.mark.parametrize("token", ["KGAT_gone", "KGAT_half\nother-half", "KGAT_é" + "x" * 300])
def test_odd_tokens_are_not_repeated(
    project: Project, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(KaggleError, match="Kaggle credentials") as caught:
        project.fetch()
    assert not any(part in str(caught.value) for part in ("KGAT_", "half", "xxx"))


@pytest.mark.parametrize(
    ("url", "says"),
    [("http://127.0.0.1:1", "is there a network"), ("https{}", "certificate is not trusted")],
)
def test_no_way_to_kaggle(
    project: Project, url: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url.format(project.server.url.removeprefix("http"))
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, url)
    with pytest.raises(KaggleError, match=says):
        project.fetch()


def test_no_such_version(project: Project) -> None:
    with pytest.raises(KaggleError, match=f"no version 9 of the data set {DATASET}"):
        project.fetch(version=9)


def test_another_archive_at_the_address_is_not_appended(project: Project) -> None:
    project.server.archive = pack({**FILES, "more": b"0"})
    project.server.faults = {"object": [HALF] * FOR_EVER}
    with pytest.raises(KaggleError, match="are kept"):
        project.fetch()
    project.server.archive, project.server.faults = GOOD, {}
    project.server.ranges.clear()
    project.fetch()
    assert project.server.ranges == [""]
    assert whole(project.out)


def test_a_full_disk(project: Project) -> None:
    project.partial.parent.mkdir(parents=True)
    project.partial.symlink_to("/dev/full")
    with pytest.raises(KaggleError, match="disk of .* is full: make room"):
        project.fetch()
    assert not project.out.exists()


def test_a_killed_download_goes_on(project: Project, server: kaggle_server.Kaggle) -> None:
    server.faults = {"object": ["hold"]}
    code = (
        "import kagglesdk.kaggle_env as env; from pathlib import Path;"
        f"env._env_to_endpoint[env.KaggleEnv.PROD] = {server.url!r};"
        f"from colorized.data import kaggle; here = Path.cwd(); kaggle.CHUNK = {CHUNK};"
        f"kaggle.fetch({DATASET!r}, None, by_hand=here / 'kaggle', downloads=here / 'downloads',"
        " out=here / 'raw')"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}"],
        cwd=project.root,
    )
    while not (project.partial.is_file() and project.partial.stat().st_size):
        assert process.poll() is None
    process.kill()
    process.wait()
    have = project.partial.stat().st_size
    server.hold.set()
    server.ranges.clear()
    assert project.fetch() == VERSION
    assert server.ranges == [f"bytes={have}-"]
    assert whole(project.out)


BAD_ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "not a zip": (lambda: PAGE, "no whole zip archive"),
    "lacks its end": (lambda: GOOD[:HALF], "no whole zip archive"),
    "a flipped bit": (lambda: bytes(FLIPPED), "is damaged"),
    "a part is missing": (
        lambda: pack({n: d for n, d in FILES.items() if "ab2" not in n}),
        "the array ab2 is missing",
    ),
    "a part is there twice": (
        lambda: pack({**FILES, "ab/ab1.npy": FILES["ab/ab/ab1.npy"]}),
        "ab1 is more than once",
    ),
    "a part cut short": (
        lambda: pack({**FILES, "ab/ab/ab3.npy": FILES["ab/ab/ab3.npy"][:-9]}),
        "ab3.npy is no whole .npy file",
    ),
    "no .npy": (
        lambda: pack({**FILES, "l/gray_scale.npy": b"GIF89a" * 9}),
        "L.npy is no whole .npy file",
    ),
    "another type": (
        lambda: pack({**FILES, "ab/ab/ab1.npy": npy(LAB[:3, ..., 1:].astype(np.float32))}),
        "ab1.npy must hold uint8 in C order, has float32",
    ),
    "not square": (
        lambda: pack({**FILES, "l/gray_scale.npy": npy(LAB[:, :, :-1, 0])}),
        r"shape \(N, H, H\), H ≥ 32, has \(6, 64, 63\)",
    ),
    "too few": (
        lambda: pack({**FILES, "ab/ab/ab3.npy": FILES["ab/ab/ab2.npy"]}),
        r"holds 6 pictures, the parts of ab 7: \[3, 2, 2\]",
    ),
    "chroma of other pictures": (
        lambda: pack(kaggle_server.members(ROLLED, COUNTS)),
        "does not belong to the pictures of L.npy",
    ),
}


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_archives_that_are_not_it(project: Project, name: str) -> None:
    """A download is removed and made anew; one put by hand stays; what was there stays too."""
    archive, says = BAD_ARCHIVES[name]
    project.fetch()
    (project.partial.with_name(f"{SLUG}.zip")).unlink()
    project.server.archive = archive()
    with pytest.raises(KaggleError, match=f"{says}.*; it is removed: run again"):
        project.fetch()
    assert not project.partial.with_name(f"{SLUG}.zip").exists()
    put = project.by_hand / f"{SLUG}.zip"
    put.write_bytes(archive())
    with pytest.raises(KaggleError, match=f"{says}.*put another download from https"):
        project.fetch()
    assert put.is_file()
    assert whole(project.out)
    assert {path.name for path in project.root.iterdir()} == {"downloads", "kaggle", "raw"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("", ""), ("ab/ab/", "ab/"), ("", "Image Colorization/")],
    ids=["ab below ab", "ab once", "one more folder around all"],
)
def test_layouts_of_an_archive_put_by_hand(project: Project, old: str, new: str) -> None:
    project.put({n.replace(old, new, 1) if old else new + n: data for n, data in FILES.items()})
    assert project.fetch() is None  # a zip does not say
    assert whole(project.out)["version"] is None
    assert not project.server.calls
    (project.by_hand / f"{SLUG}.zip").rename(project.by_hand / "archive.zip")
    with pytest.raises(KaggleError, match=rf"archive.zip: rename it to {SLUG}.zip"):
        project.fetch()


@pytest.mark.parametrize("name", ["image-colorization", "a/b/c", "/b", "a/"])
def test_names_of_no_data_set(project: Project, name: str) -> None:
    with pytest.raises(KaggleError, match="owner/name, got"):
        project.fetch(name)


def test_gray_pictures_belong_to_any(project: Project) -> None:
    gray = LAB.copy()
    gray[..., 1:] = 128
    project.put(kaggle_server.members(gray, COUNTS))
    project.fetch()


def test_arrays_that_are_not_there_or_damaged(project: Project) -> None:
    project.put(FILES)
    project.fetch()
    path = project.out / "ab1.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(KaggleError, match=r"raw: .*ab1.npy is no whole .npy file"):
        kaggle.open_arrays(project.out)
    path.unlink()
    with pytest.raises(KaggleError, match=r"raw: .*ab1.npy: No such file"):
        kaggle.open_arrays(project.out)
