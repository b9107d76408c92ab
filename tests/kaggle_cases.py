"""What can go wrong on the way from Kaggle to verified arrays: every fault, and how it is run.

Every case runs the download stage as a process of its own against the stand-in, with the fault,
and once more without it. In between and after, nothing but a whole set may lie under the name of
one, and no credential in anything that was written. `docs/faults.py` makes the table of it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kaggle_server
import numpy as np
from kaggle_server import API, CREDENTIALS, SECRETS, SLUG, STORAGE, VERSION, Fault, Kaggle
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
STAGE = "pipelines.download"

# Processes are forked from one that has imported what is slow, but not `kaggle`: it signs in while
# it is imported.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "pytest",
        __name__,
        "kagglesdk",
        "colorized.data.kaggle_set",
        "colorized.params",
        "colorized.data.sources",
    ]
)
sys.path.insert(0, str(ROOT))
PATIENCE = 120
"""Seconds after which a process is taken to hang."""


@dataclass(frozen=True)
class Run:
    """What a process said and how it ended; `asked`: the ranges of the archive it asked for."""

    code: int
    output: str
    asked: tuple[str, ...]
    calls: tuple[str, ...]


@dataclass
class Bench:
    """A project folder in which the stage runs, and the Kaggle that it knows."""

    kaggle: Kaggle
    project: Path
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.project / "data" / "raw"

    @property
    def downloads(self) -> Path:
        return self.project / "data" / "downloads"

    @property
    def archive(self) -> Path:
        """Where a download of the version that is served ends."""
        return self.downloads / f"{SLUG}-v{self.kaggle.version}" / f"{SLUG}.zip"

    @property
    def partial(self) -> Path:
        return self.archive.with_name(self.archive.name + ".partial")

    @property
    def by_hand(self) -> Path:
        return self.project / "data" / "kaggle" / f"{SLUG}.zip"

    def sign_in(self, form: str | None) -> None:
        """The credentials of this form and no others; None: none."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        variables, files = CREDENTIALS[form] if form else ({}, {})
        self.variables = dict(variables)
        for name, text in files.items():
            path = self.home / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o600)

    def set_params(self, **data: object) -> None:
        """params.yaml with these values in its section `data`."""
        yaml = YAML()
        params = yaml.load(ROOT / "params.yaml")
        params["data"] |= {"source": "kaggle", **data}
        yaml.dump(params, self.project / "params.yaml")

    def start(self, at: tuple[str, str, str] | None = None) -> Any:
        """The stage, as a process; `at`: see `_act_at`."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment = {
            **kept,
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            **self.kaggle.variables(),
            **self.variables,
        }
        process = PROCESSES.Process(target=_child, args=(str(self.project), environment, at))
        process.start()
        return process

    def finish(self, process: Any) -> Run:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"the stage hangs; it said: {self._output()}")
        asked, calls = tuple(self.kaggle.ranges), tuple(self.kaggle.calls)
        self.kaggle.ranges.clear()
        self.kaggle.calls.clear()
        self.check()
        return Run(process.exitcode, self._output(), asked, calls)

    def run(self, at: tuple[str, str, str] | None = None) -> Run:
        return self.finish(self.start(at))

    def _output(self) -> str:
        return (self.project / "log").read_text()

    def check(self) -> None:
        """What holds after every run, however it ended."""
        assert self.out_state() in ("nothing", "the whole set")
        assert set(self.kaggle.hosts) <= {API, STORAGE}
        for path in self.project.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                for secret in SECRETS:
                    assert secret.encode() not in data, f"{path} holds a credential"

    def out_state(self) -> str:
        if not self.out.exists():
            return "nothing"
        arrays = json.loads((self.out / "manifest.json").read_text())["arrays"]
        assert sorted(arrays) == ["L", "ab1", "ab2", "ab3"]
        for array in arrays.values():
            assert sha256((self.out / array["file"]).read_bytes()) == array["sha256"]
        return "the whole set"

    def disk(self) -> str:
        """What is there, in words."""
        if self.archive.is_file():
            download = "the archive"
        elif self.partial.is_file() and self.partial.stat().st_size:
            download = "a part of the archive"
        else:
            download = "nothing"
        return f"output: {self.out_state()}; download: {download}"


def _child(project: str, environment: Mapping[str, str], at: tuple[str, str, str] | None) -> None:
    log = os.open(Path(project) / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(project)
    sys.argv = [STAGE]
    if at:
        sys.addaudithook(functools.partial(_act_at, at))
    runpy.run_module(STAGE, run_name="__main__")


def _act_at(at: tuple[str, str, str], event: str, arguments: tuple[Any, ...]) -> None:
    """At the named event of the interpreter on a path that ends so: die, or fill up a disk.

    The event comes before the call that it is named after.
    """
    name, end, action = at
    if event != name or not str(arguments[0]).endswith(end):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    fill(Path(action))


def fill(disk: Path) -> None:
    """Not a byte more goes onto the disk of this folder."""
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with contextlib.suppress(OSError), open(disk / "filler", "ab", buffering=0) as file:
        while True:
            file.write(b"0")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------------
# The archive that is served, and those that are not as they should be.

COUNTS = (10, 10, 4)


@functools.cache
def pictures() -> Any:
    """24 real photographs as 8-bit LAB, (24, 224, 224, 3)."""
    paths = sorted((ROOT / "data" / "sample" / "photos").glob("*.jpg"))[: sum(COUNTS)]
    return kaggle_server.real_pictures(paths)


@functools.cache
def good_files() -> Mapping[str, bytes]:
    return kaggle_server.members(pictures(), COUNTS)


@functools.cache
def good() -> bytes:
    return kaggle_server.pack(good_files())


def with_files(**changed: bytes | None) -> bytes:
    """The archive with other arrays: L or ab1, ab2, ab3; None leaves one out."""
    files = dict(good_files())
    for name, data in changed.items():
        path = "l/gray_scale.npy" if name == "L" else f"ab/ab/{name}.npy"
        files.pop(path)
        if data is not None:
            files[path] = data
    return kaggle_server.pack(files)


def rolled() -> bytes:
    """Every ab one picture further on."""
    lab = pictures().copy()
    lab[..., 1:] = np.roll(lab[..., 1:], 1, axis=0)
    return kaggle_server.pack(kaggle_server.members(lab, COUNTS))


def flipped() -> bytes:
    """One bit of another value in the middle of the compressed pictures."""
    data = bytearray(good())
    data[len(data) // 2] ^= 0x10
    return bytes(data)


def doubled() -> bytes:
    files = good_files()
    return kaggle_server.pack({**files, "ab/ab1.npy": files["ab/ab/ab1.npy"]})


def part(name: str) -> Any:
    i = int(name[2]) - 1
    start = sum(COUNTS[:i])
    return pictures()[start : start + COUNTS[i], ..., 1:]


def expected_manifest(version: int | None = VERSION) -> dict[str, Any]:
    """What the stage must come to, made from the files and not by it."""
    paths = {"L": "l/gray_scale.npy", **{f"ab{i}": f"ab/ab/ab{i}.npy" for i in (1, 2, 3)}}
    n = sum(COUNTS)
    shapes = {"L": [n, 224, 224]} | {f"ab{i + 1}": [c, 224, 224, 2] for i, c in enumerate(COUNTS)}
    return {
        "source": "kaggle",
        "dataset": f"{kaggle_server.OWNER}/{SLUG}",
        "version": version,
        "zip_sha256": sha256(good()),
        "zip_bytes": len(good()),
        "arrays": {
            name: {
                "file": f"{name}.npy",
                "shape": shapes[name],
                "dtype": "uint8",
                "sha256": sha256(good_files()[path]),
            }
            for name, path in paths.items()
        },
    }


# ------------------------------------------------------------------------------------------------
# The cases.


NOTHING, REST, ALL = "nothing", "the rest", "all"
WHOLE_SET = "output: the whole set; download: the archive"
ARCHIVE = "output: nothing; download: the archive"
PART = "output: nothing; download: a part of the archive"


def lift(bench: Bench) -> None:
    """Everything as it should be."""
    bench.kaggle.faults.clear()
    bench.kaggle.archive = good()
    bench.kaggle.go.set()


@dataclass(frozen=True)
class Case:
    """One fault: `first` brings it about and runs the stage, `mend` takes it away.

    `says` must be in what the first run says; "" where it completes or was killed. `asks`: what
    the second run asks for of the archive.
    """

    fault: str
    first: Callable[[Bench], Run]
    says: str = ""
    disk: str = "output: nothing; download: nothing"
    asks: str = ALL
    mend: Callable[[Bench], None] = lift
    mounts: bool = False
    version: int | None = VERSION


@dataclass(frozen=True)
class Outcome:
    """A row of the table: what the first run said, what was on disk then, what the second did."""

    first: str
    disk: str
    second: str

    def row(self, fault: str) -> str:
        return f"| {fault} | {self.first} | {self.disk} | {self.second} |"


def faulty(*faults: Fault, form: str = "kaggle.json", archive: Callable[[], bytes] = good) -> Any:
    """First run: Kaggle with these faults, serving this archive."""

    def first(bench: Bench) -> Run:
        bench.sign_in(form)
        # A copy: the faults count.
        bench.kaggle.faults = [Fault(**vars(fault)) for fault in faults]
        bench.kaggle.archive = archive()
        return bench.run()

    return first


def served(archive: Callable[[], bytes]) -> Any:
    return faulty(archive=archive)


def signed_in(form: str | None, **instead: str) -> Any:
    """First run: with these credentials, in which words are replaced."""

    def first(bench: Bench) -> Run:
        bench.sign_in(form)
        for old, new in instead.items():
            bench.variables = {k: v.replace(old, new) for k, v in bench.variables.items()}
            for path in (bench.home / ".kaggle").glob("*"):
                path.write_text(path.read_text().replace(old, new))
        return bench.run()

    return first


def sign_in_well(bench: Bench) -> None:
    bench.sign_in("kaggle.json")


def killed_at(event: str, end: str, again: bool = False) -> Any:
    """First run: SIGKILL at this event; `again`: a whole set is there already."""

    def first(bench: Bench) -> Run:
        if again:
            assert bench.run().code == 0
        return bench.run((event, end, "kill"))

    return first


def killed_in_download(bench: Bench) -> Run:
    bench.kaggle.faults = [Fault("object", hold=len(good()) * 2 // 3)]
    process = bench.start()
    wait_for(lambda: bench.partial.is_file() and bench.partial.stat().st_size > len(good()) // 3)
    process.kill()
    return bench.finish(process)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def without_network(bench: Bench) -> Run:
    with socket.socket() as nobody:  # bound and not listening: whoever connects is refused
        nobody.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        bench.variables |= {"HTTPS_PROXY": proxy, "https_proxy": proxy}
        return bench.run()


def without_trust(bench: Bench) -> Run:
    other = bench.project.parent / "other.pem"
    kaggle_server.trustme.CA().cert_pem.write_to_path(str(other))
    bench.variables |= {"REQUESTS_CA_BUNDLE": str(other)}
    return bench.run()


def no_such_version(bench: Bench) -> Run:
    bench.set_params(version=VERSION + 6)
    return bench.run()


def changed_between(bench: Bench) -> Run:
    """Cut off in one archive; the second run finds another at the same address."""
    return faulty(Fault("object", cut=len(good()) // 2), archive=rolled)(bench)


def put_by_hand(name: str, data: Callable[[], bytes]) -> Any:
    def first(bench: Bench) -> Run:
        bench.sign_in(None)
        (bench.by_hand.parent / name).write_bytes(data())
        run = bench.run()
        assert (bench.by_hand.parent / name).read_bytes() == data()
        assert not run.calls
        return run

    return first


def put_well(bench: Bench) -> None:
    for path in bench.by_hand.parent.glob("*.zip"):
        path.unlink()
    bench.by_hand.write_bytes(good())


def mount(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)


def remount(folder: Path, size: int) -> None:
    command = ["mount", "-o", f"remount,size={size}", folder]
    subprocess.run(command, check=True)


ARRAYS_SIZE = 3 * 24 * 224 * 224


def small_for_download(bench: Bench) -> Run:
    mount(bench.downloads, 1 << 20)
    return bench.run()


def room_for_download(bench: Bench) -> None:
    remount(bench.downloads, 1 << 25)


def full_in_download(bench: Bench) -> Run:
    mount(bench.downloads, 1 << 23)
    bench.kaggle.faults = [Fault("object", hold=len(good()) // 2, times=1)]
    process = bench.start()
    wait_for(lambda: bench.partial.is_file() and bench.partial.stat().st_size > len(good()) // 4)
    fill(bench.downloads)
    bench.kaggle.go.set()
    return bench.finish(process)


def empty_downloads(bench: Bench) -> None:
    (bench.downloads / "filler").unlink()


def small_for_arrays(bench: Bench) -> Run:
    mount(bench.project / "data", len(good()) + ARRAYS_SIZE // 2)
    return bench.run()


def room_for_arrays(bench: Bench) -> None:
    remount(bench.project / "data", 1 << 25)


def full_in_arrays(bench: Bench) -> Run:
    data = bench.project / "data"
    mount(data, 1 << 24)
    return bench.run(("open", "raw.partial/ab2.npy", str(data)))


def empty_data(bench: Bench) -> None:
    (bench.project / "data" / "filler").unlink()


RANDOM_BYTE = int(np.random.default_rng(25_000).integers(1 << 19, 1 << 20))
CASES = (
    Case("no credentials", signed_in(None), "no Kaggle credentials", mend=sign_in_well),
    Case(
        "a token that is not, or no longer, valid",
        signed_in("KAGGLE_API_TOKEN", token="gone"),
        "does not accept the credentials of KAGGLE_API_TOKEN",
        mend=sign_in_well,
    ),
    Case(
        "a login that has been revoked",
        signed_in("kaggle auth login", refresh7="revoked"),
        "does not accept the credentials of ~/.kaggle/credentials.json",
        mend=sign_in_well,
    ),
    Case(
        "kaggle.json damaged",
        signed_in("kaggle.json", username="user"),
        "does not accept the credentials of ~/.kaggle/kaggle.json",
        mend=sign_in_well,
    ),
    Case(
        "401: a wrong key",
        signed_in("kaggle.json", key4567="wrong"),
        "does not accept the credentials of ~/.kaggle/kaggle.json (401)",
        mend=sign_in_well,
    ),
    Case("403", faulty(Fault("DownloadDataset", 403)), "(403): sign in at https://www.kaggle.com"),
    Case("404, the data set", faulty(Fault("GetDataset", 404)), "no data set shravankumar9892/"),
    Case(
        "404, the version",
        no_such_version,
        f"no version {VERSION + 6} of the data set",
        mend=lambda bench: bench.set_params(),
    ),
    Case(
        "429 once, to be asked again in a second",
        faulty(Fault("DownloadDataset", 429, {"Retry-After": "1"}, times=1)),
        disk=WHOLE_SET,
        asks=NOTHING,
    ),
    Case(
        "429 for ever", faulty(Fault("DownloadDataset", 429)), "limits the rate of requests (429)"
    ),
    Case(
        "429, to be asked again in an hour",
        faulty(Fault("GetDataset", 429, {"Retry-After": "3600"})),
        "(429): run again in 3600 seconds",
    ),
    Case(
        "500 while signing in, once",
        faulty(Fault("IntrospectToken", 500, times=2), form="KAGGLE_API_TOKEN"),
        disk=WHOLE_SET,
        asks=NOTHING,
    ),
    Case("503 for ever", faulty(Fault("GetDataset", 503)), "api.kaggle.com is out of order (503)"),
    Case(
        "503 of the storage, after half of the archive, once",
        faulty(
            Fault("object", cut=len(good()) // 2, times=1),
            Fault("object", 503, times=1),
        ),
        disk=WHOLE_SET,
        asks=NOTHING,
    ),
    Case(
        "503 of the storage, after half of the archive, for ever",
        faulty(Fault("object", cut=len(good()) // 2, times=1), Fault("object", 503)),
        "storage.googleapis.com is out of order (503)",
        PART,
        REST,
    ),
    Case(
        "403 of the storage: the address has expired, once",
        faulty(Fault("object", 403, times=1)),
        disk=WHOLE_SET,
        asks=NOTHING,
    ),
    Case(
        "no network",
        without_network,
        "cannot reach api.kaggle.com",
        mend=sign_in_well,
    ),
    Case(
        "a certificate that is not trusted",
        without_trust,
        "a certificate that is not trusted",
        mend=sign_in_well,
    ),
    Case(
        "a sign-in page of the network instead of Kaggle",
        faulty(Fault("GetDataset", text="<html>Welcome to our hotel")),
        "does not answer as Kaggle does",
    ),
    Case(
        "connection cut at a random byte, once",
        faulty(Fault("object", cut=RANDOM_BYTE, times=1)),
        disk=WHOLE_SET,
        asks=NOTHING,
    ),
    Case(
        "connection cut at a random byte, each time",
        faulty(Fault("object", cut=RANDOM_BYTE)),
        "are kept, run again to go on",
        PART,
        REST,
    ),
    Case(
        "fewer bytes than announced",
        faulty(Fault("address", longer=1000), Fault("object", longer=1000)),
        "the connection breaks off before the end",
        PART,
    ),
    Case(
        "the archive changed between two runs",
        changed_between,
        "are kept, run again to go on",
        PART,
    ),
    Case(
        "not a zip",
        served(lambda: b"<html>Not what you wanted</html>" * 999),
        "no whole zip archive; it is removed",
    ),
    Case(
        "a zip that lacks its end",
        served(lambda: good()[: len(good()) // 2]),
        "no whole zip archive; it is removed",
    ),
    Case("a flipped bit in a member", served(flipped), "is damaged; it is removed"),
    Case(
        "a member that is not there",
        served(lambda: with_files(ab2=None)),
        "ab/ab2.npy is missing; it is removed",
    ),
    Case("a member that is there twice", served(doubled), "ab/ab1.npy is there more than once"),
    Case(
        "a .npy cut short",
        served(lambda: with_files(ab3=good_files()["ab/ab/ab3.npy"][:-1000])),
        "ab/ab/ab3.npy must have 401536 bytes for its shape (4, 224, 224, 2), has 400536",
    ),
    Case(
        "a .npy that is none",
        served(lambda: with_files(L=b"GIF89a" * 99)),
        "l/gray_scale.npy is no .npy file",
    ),
    Case(
        "another dtype",
        served(lambda: with_files(ab1=kaggle_server.npy(part("ab1").astype(np.float32)))),
        "ab/ab/ab1.npy must hold uint8, has float32",
    ),
    Case(
        "another number of axes",
        served(lambda: with_files(L=kaggle_server.npy(pictures()[..., :1]))),
        "must have the shape (N, H, H), H ≥ 32, has (24, 224, 224, 1)",
    ),
    Case(
        "L and ab of different lengths",
        served(lambda: with_files(ab3=kaggle_server.npy(part("ab3")[:3]))),
        "l/gray_scale.npy holds 24 pictures, the parts of ab 10 + 10 + 3 = 23",
    ),
    Case(
        "ab that belongs to other pictures than L",
        served(rolled),
        "ab/ab/ab1.npy does not belong to the pictures of l/gray_scale.npy at its place",
    ),
    Case(
        "two parts of ab exchanged",
        served(
            lambda: with_files(
                ab1=kaggle_server.npy(part("ab2")), ab2=kaggle_server.npy(part("ab1"))
            )
        ),
        "ab/ab/ab1.npy does not belong to the pictures of l/gray_scale.npy at its place",
    ),
    Case(
        "a damaged zip put by hand",
        put_by_hand(f"{SLUG}.zip", flipped),
        f"data/kaggle/{SLUG}.zip: ab/ab/ab1.npy is damaged; put another download",
        asks=NOTHING,
        mend=put_well,
        version=None,
    ),
    Case(
        "a zip put by hand under another name",
        put_by_hand("archive.zip", good),
        f"data/kaggle/archive.zip: rename it to {SLUG}.zip",
        asks=NOTHING,
        mend=put_well,
        version=None,
    ),
    Case("kill −9 in the download", killed_in_download, disk=PART, asks=REST),
    Case(
        "kill −9 when the download is complete, before it has its name",
        killed_at("os.rename", ".zip.partial"),
        disk=PART,
        asks=NOTHING,
    ),
    Case(
        "kill −9 in the unpacking",
        killed_at("open", "raw.partial/ab2.npy"),
        disk=ARCHIVE,
        asks=NOTHING,
    ),
    Case(
        "kill −9 when all is verified, before the manifest",
        killed_at("open", "raw.partial/manifest.json"),
        disk=ARCHIVE,
        asks=NOTHING,
    ),
    Case(
        "kill −9 before the output has its name",
        killed_at("os.rename", "raw.partial"),
        disk=ARCHIVE,
        asks=NOTHING,
    ),
    Case(
        "kill −9 between the old output and the new one",
        killed_at("os.rename", "raw.partial", again=True),
        disk=ARCHIVE,
        asks=NOTHING,
    ),
    Case(
        "disk too small for the download",
        small_for_download,
        "of disk in data/downloads/image-colorization-v3, where",
        mend=room_for_download,
        mounts=True,
    ),
    Case(
        "disk full in the middle of the download",
        full_in_download,
        "and the disk is full: make room and run again",
        PART,
        REST,
        mend=empty_downloads,
        mounts=True,
    ),
    Case(
        "disk too small for the arrays",
        small_for_arrays,
        "unpacking needs 3.6 MB of disk in data, where",
        ARCHIVE,
        NOTHING,
        mend=room_for_arrays,
        mounts=True,
    ),
    Case(
        "disk full in the middle of the unpacking",
        full_in_arrays,
        "unpacking needs 3.6 MB of disk in data, and the disk is full",
        ARCHIVE,
        NOTHING,
        mend=empty_data,
        mounts=True,
    ),
)


def can_mount() -> bool:
    """Whether small disks can be made here."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder]
        if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """A fresh project with good credentials and a Kaggle without a fault."""
    project, home = folder / "project", folder / "home"
    (project / "data" / "kaggle").mkdir(parents=True)
    with kaggle_server.serve(good(), folder) as kaggle:
        made = Bench(kaggle, project, home)
        made.sign_in("kaggle.json")
        made.set_params()
        try:
            yield made
        finally:
            for place in (made.downloads, project / "data"):
                if place.is_mount():
                    subprocess.run(["umount", place], check=True)


def run_case(case: Case, folder: Path) -> Outcome:
    """Both runs of a case, and what must hold for them."""
    with bench(folder) as at:
        first = case.first(at)
        disk = at.disk()
        said = one_line(first, case)
        assert disk == case.disk, f"{disk}, after: {first.output}"
        case.mend(at)
        second = at.run()
        assert second.code == 0, second.output
        assert asked_for(second) == case.asks, second.asked
        manifest = json.loads((at.out / "manifest.json").read_text())
        assert manifest == expected_manifest(case.version)
        for name in ("L", "ab1", "ab2", "ab3"):
            path = "l/gray_scale.npy" if name == "L" else f"ab/ab/{name}.npy"
            assert (at.out / f"{name}.npy").read_bytes() == good_files()[path]
        left = {p.name for p in at.out.parent.iterdir()}
        assert left <= {"raw", "downloads", "kaggle"}, left
        return Outcome(said, disk, f"completes; downloads {case.asks}")


def one_line(run: Run, case: Case) -> str:
    """What the first run said, for the table."""
    if run.code == -signal.SIGKILL:
        return "–"
    if run.code == 0:
        assert not case.says
        return "completes"
    assert run.code == 1, run.output
    assert case.says, run.output
    assert run.output.startswith("error: ") and run.output.count("\n") == 1, run.output
    assert case.says in run.output, run.output
    # Sizes and shares depend a little on who decoded the photographs and compressed the archive.
    return re.sub(r"\d+\.\d( MB|%)", r"…\1", run.output.strip())


def asked_for(run: Run) -> str:
    if not run.asked:
        return NOTHING
    return ALL if "" in run.asked else REST
