"""The plan of a batch: what is read, what is written where, and what is refused before work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server, environment

from colorized.batch import plan, ray
from colorized.batch.plan import BatchError
from colorized.storage import Store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def planned(*inputs: str, out: str = "out") -> list[tuple[str, str]]:
    found = plan.plan([Path(p) for p in inputs], Path(out))
    assert found.failed == []
    return [(str(job.source), str(job.target)) for job in found.jobs]


def failed(*inputs: str, out: str = "out") -> tuple[list[str], list[str]]:
    """Targets of the photographs that can be colored, and why the others cannot."""
    found = plan.plan([Path(p) for p in inputs], Path(out))
    return [str(job.target) for job in found.jobs], [r.outcome.error for r in found.failed]


# What there is, what is given, where to, and the targets.
TARGETS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "a file keeps its name, a folder its tree": (
        "a.jpg scans/b.tif scans/1900/c.png scans/1900/May/d.JPG", "a.jpg scans", "out",
        {
            "a.jpg": "out/a.jpg",
            "scans/b.tif": "out/b.tif",
            "scans/1900/c.png": "out/1900/c.png",
            "scans/1900/May/d.JPG": "out/1900/May/d.JPG",
        },
    ),
    "a format without color becomes another": (
        "s/a.gif s/a.png s/b.pdf s/b.pgm s/b.tif", "s", "out",
        {
            "s/a.gif": "out/a.gif.png",
            "s/a.png": "out/a.png",
            "s/b.pdf": "out/b.pdf.tif",
            "s/b.pgm": "out/b.pgm.png",
            "s/b.tif": "out/b.tif",
        },
    ),
    "a file to a file": ("a.jpg", "a.jpg", "new.png", {"a.jpg": "new.png"}),
    "in a folder below": ("a.jpg", "a.jpg", "deeper/new.TIF", {"a.jpg": "deeper/new.TIF"}),
    "beside it": ("a.jpg", "a.jpg", "a.jpg.png", {"a.jpg": "a.jpg.png"}),
    "a folder that is called like a picture": (
        "a.jpg out.jpg/b.jpg", "a.jpg", "out.jpg", {"a.jpg": "out.jpg/a.jpg"},
    ),
    "a folder passes over what is no photograph": (
        "s/a.jpg s/notes.txt s/.hidden.jpg s/.cache/b.jpg s/._a.jpg", "s", "out",
        {"s/a.jpg": "out/a.jpg"},
    ),
    "a named file is taken whatever its name": (
        ".hidden.jpg scan", ".hidden.jpg scan", "out",
        {".hidden.jpg": "out/.hidden.jpg", "scan": "out/scan.colored.png"},
    ),
    "a file given twice is done once": (
        "s/a.jpg", "s s/a.jpg ./s/../s/a.jpg", "out", {"s/a.jpg": "out/a.jpg"},
    ),
    "the working folder itself": (
        "a.jpg 1900/b.jpg", ".", "out", {"a.jpg": "out/a.jpg", "1900/b.jpg": "out/1900/b.jpg"},
    ),
    "results of an earlier run are no inputs": (
        "s/a.jpg s/out/a.jpg s/out/old.jpg", "s", "s/out", {"s/a.jpg": "s/out/a.jpg"},
    ),
    "an input inside the output folder": ("s/a.jpg", "s", ".", {"s/a.jpg": "a.jpg"}),
}  # fmt: skip


@pytest.mark.usefixtures("here")
class TestTargets:
    @pytest.mark.parametrize("name", TARGETS)
    def test_of(self, name: str) -> None:
        there, inputs, out, expected = TARGETS[name]
        touch(*there.split())
        assert planned(*inputs.split(), out=out) == list(expected.items())

    def test_what_is_passed_over_is_told(self) -> None:
        touch("s/a.jpg", "s/notes.txt", "s/.hidden.jpg", "s/raw/b.dng", "s/raw/c")
        passed = plan.plan([Path("s")], Path("out")).passed_over
        assert [str(path) for path in passed] == ["s/notes.txt", "s/raw/b.dng", "s/raw/c"]

    def test_unusual_names(self) -> None:
        names = ["a b.jpg", "line\nbreak.jpg", "写真.jpg", "-o.jpg", os.fsdecode(b"\xff.jpg")]
        touch(*(f"s/{name}" for name in names))
        assert sorted(planned("s")) == sorted((f"s/{name}", f"out/{name}") for name in names)

    def test_case_makes_two_names(self) -> None:
        touch("s/a.jpg", "s/a.JPG")
        if len(os.listdir("s")) == 1:
            pytest.skip("this file system knows no case")
        assert len(planned("s")) == 2


@pytest.mark.usefixtures("here")
class TestLinks:
    def test_link_to_a_file_is_followed(self) -> None:
        touch("elsewhere/a.jpg", "s/b.jpg")
        Path("s/a.jpg").symlink_to("../elsewhere/a.jpg")
        assert planned("s") == [("s/a.jpg", "out/a.jpg"), ("s/b.jpg", "out/b.jpg")]

    def test_link_to_a_folder_is_not_entered_unless_named(self) -> None:
        touch("elsewhere/a.jpg", "s/b.jpg")
        Path("s/more").symlink_to("../elsewhere")
        Path("s/loop").symlink_to(".")
        assert planned("s") == [("s/b.jpg", "out/b.jpg")]
        assert planned("s/more") == [("s/more/a.jpg", "out/a.jpg")]

    def test_dangling_link_is_kept_to_be_reported(self) -> None:
        touch("s/b.jpg")
        Path("s/a.jpg").symlink_to("nowhere")
        assert ("s/a.jpg", "out/a.jpg") in planned("s")

    def test_loops_are_no_file(self) -> None:
        Path("loop").symlink_to("loop")
        with pytest.raises(BatchError, match="loop: no such file or folder"):
            planned("loop")


# What there is, what is given, where to, and what is said.
REFUSED = [
    ("a.jpg b.jpg", "a.jpg b.jpg", "new.jpg", "new.jpg: is the name of one photograph"),
    ("s/c.jpg", "s", "new.jpg", "new.jpg: is the name of one photograph"),
    ("a.jpg", "a.jpg", "new.gif", "new.gif: its format cannot hold color"),
    ("a.jpg", "a.jpg", "a.jpg", "a.jpg: is an original"),
    ("", "b.jpg", "a.jpg", "b.jpg: no such file or folder"),
    ("a.jpg", "a.jpg nowhere.jpg", "out", "nowhere.jpg: no such file or folder"),
    ("a.jpg", "a.jpg a.jpg/b.jpg", "out", "a.jpg/b.jpg: no such file or folder"),
    ("empty/s/.a.jpg", "empty/s", "out", "empty/s: holds no photographs"),
    ("s/notes.txt s/.a.jpg s/deeper/b.txt", "s", "out", "s: holds no photographs"),
    ("a.jpg out/a.jpg/b.jpg", "a.jpg", "out", "out/a.jpg: is a folder"),
    ("s/a.jpg", "s", "s", "s/a.jpg: is an original"),
    ("s/a.jpg", "s", "s/../s", "s/../s/a.jpg: is an original"),
    ("a.jpg file", "a.jpg", "file", "file: is not a folder"),
    ("a.jpg file", "a.jpg", "file/deeper", "file: is not a folder"),
]
# What there is, what is given, the targets that can be made, and why another cannot.
FAILED = [
    ("s/a.jpg t/a.jpg t/b.jpg", "s t", "out/a.jpg out/b.jpg",
     "out/a.jpg: would hold both s/a.jpg and t/a.jpg; color them into two folders"),
    ("a.jpg b.jpg out/a.jpg/b.jpg", "a.jpg b.jpg", "out/b.jpg", "out/a.jpg: is a folder"),
    ("out/sub/x.jpg scans/sub/x.jpg scans/y.jpg", "out/sub/x.jpg scans", "out/x.jpg out/y.jpg",
     "out/sub/x.jpg: is an original; choose another folder with --out"),
    ("s/a.jpg s/1900/b.jpg out/1900", "s", "out/a.jpg",
     "out/1900: is not a folder; choose another with --out"),
]  # fmt: skip


@pytest.mark.usefixtures("here")
class TestRefused:
    @pytest.mark.parametrize(("there", "inputs", "out", "line"), REFUSED)
    def test_in_one_line(self, there: str, inputs: str, out: str, line: str) -> None:
        touch(*there.split())
        with pytest.raises(BatchError) as caught:
            planned(*inputs.split(), out=out)
        assert str(caught.value).startswith(line)

    @pytest.mark.parametrize(("there", "inputs", "targets", "line"), FAILED)
    def test_one_of_several(self, there: str, inputs: str, targets: str, line: str) -> None:
        touch(*there.split())
        assert failed(*inputs.split()) == (targets.split(), [line])

    def test_an_original_behind_a_link_is_never_a_target(self) -> None:
        touch("s/a.jpg")
        Path("link").symlink_to("s")
        with pytest.raises(BatchError, match=r"a\.jpg: is an original"):
            planned("s", out="link")
        Path("out").mkdir()
        Path("out/a.jpg").symlink_to("../s/a.jpg")
        with pytest.raises(BatchError, match="is an original"):
            planned("s")

    def test_an_original_by_another_path_is_never_a_target(self) -> None:
        """As on a volume that ignores case, where both paths are those of one file."""
        touch("Scans/a.jpg")
        Path("scans").mkdir()
        Path("scans/a.jpg").hardlink_to("Scans/a.jpg")
        with pytest.raises(BatchError, match=r"scans/a\.jpg: is an original"):
            planned("Scans", out="scans")

    def test_output_folder_without_permission(self, monkeypatch: pytest.MonkeyPatch) -> None:
        touch("a.jpg")
        Path("out").mkdir()
        # Permissions do not bind the superuser, whom these tests may run as.
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != Path("out"))
        with pytest.raises(BatchError, match=r"^out: cannot be written to"):
            planned("a.jpg", out="out/deeper")

    def test_folder_that_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        touch("s/a.jpg", "s/secret/b.jpg")
        scandir = os.scandir

        def guarded(path: str) -> object:
            if str(path).endswith("secret"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", guarded)
        assert failed("s") == (["out/a.jpg"], ["s/secret: cannot be read: Permission denied"])
        with pytest.raises(BatchError, match=r"^s/secret: cannot be read: Permission denied$"):
            planned("s/secret")

    def test_message_is_one_line(self) -> None:
        with pytest.raises(BatchError, match=r"^line\\nbreak\.jpg: no such file or folder$"):
            planned("line\nbreak.jpg")


def test_plan_makes_nothing(here: Path) -> None:
    touch("s/a.jpg")
    planned("s", out="out/deeper")
    assert os.listdir(here) == ["s"]


@pytest.mark.usefixtures("here")
class TestOnACluster:
    """`ray.find` plans all inputs together, as one machine does."""

    def test_targets_are_those_of_one_machine(self, here: Path) -> None:
        touch("a.jpg", "scans/sub/b.tif")
        for out in ("out", "s3://bucket/out"):
            tasks = ray.find(["a.jpg", "scans"], out)
            assert [(t.source, t.target) for t in tasks] == [
                (f"{here}/a.jpg".lstrip("/"), "a.jpg"),
                (f"{here}/scans/sub/b.tif".lstrip("/"), "sub/b.tif"),
            ]
            assert Store(tasks[0].source_store).path(tasks[0].source) == f"{here}/a.jpg"

    def test_a_file_for_the_results_is_refused(self) -> None:
        touch("a.jpg")
        with pytest.raises(BatchError, match=r"b\.jpg: --engine ray needs a folder"):
            ray.find(["a.jpg"], "b.jpg")

    @pytest.mark.parametrize("out", ["out", "s3://bucket/out"])
    def test_two_photographs_of_one_name_are_refused(self, out: str) -> None:
        touch("a/x.jpg", "b/x.jpg")
        with pytest.raises(BatchError, match=r"would hold both a/x.jpg and b/x.jpg"):
            ray.find(["a", "b"], out)

    def test_an_original_of_another_input_is_never_a_target(self) -> None:
        touch("out/sub/x.jpg", "scans/sub/x.jpg")
        with pytest.raises(BatchError, match=r"out/sub/x.jpg: is an original"):
            ray.find(["out/sub/x.jpg", "scans"], "out")

    @pytest.mark.slow
    def test_a_local_and_a_stored_photograph_of_one_name_are_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch("a/x.jpg")
        with S3Server() as server:
            for name, value in environment(server.endpoint).items():
                monkeypatch.setenv(name, value)
            for key in ("scans/x.jpg", "scans/.hidden/y.jpg", "scans/color/x.jpg"):
                server.client().put_object(Bucket=BUCKET, Key=key, Body=b"")
            given = f"s3://{BUCKET}/scans"
            assert [t.source for t in ray.find([given], f"{given}/color")] == ["x.jpg"]
            with pytest.raises(BatchError, match=rf"hold both .*/a/x.jpg and {given}/x.jpg"):
                ray.find(["a", given], f"{given}/color")
