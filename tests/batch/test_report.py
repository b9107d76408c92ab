"""The report: its table and its pages, and that they load nothing and run nothing."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from pictures import encoded
from PIL import Image

from colorized.batch import report
from colorized.batch.job import FileDigest, Job, Outcome
from colorized.batch.journal import Entry, Journal
from colorized.batch.plan import Result
from colorized.batch.report import Report, ReportError

NAMES = ["a.jpg", "1900/<b>&amp;\"'.png", "two\nlines.png", "100%#?.png", "写真.jpg"]
THUMBNAIL = encoded(Image.new("RGB", (8, 4), "teal"), "JPEG")


def add(results: Report, name: str, error: str = "") -> None:
    journal = results.journal
    job = Job(Path("scans", name), journal.out / name)
    stamp = FileDigest("0" * 64, 1, 2)
    entry = None
    if not error:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        job.target.touch()
        entry = Entry(name, name, stamp, {"seed": 0}, {name: stamp}, (8, 4), 1.5, ("a note",), 0.0)
        journal.add(entry)
    results.add(Result(job, Outcome(error=error, thumbnail=THUMBNAIL), entry))


@contextlib.contextmanager
def reporting(folder: Path, *names: str) -> Iterator[Report]:
    """The report of a batch that has colored these."""
    with Journal(folder) as journal:
        results = Report(journal)
        for name in names:
            add(results, name)
        yield results


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_pages_hold_everything_and_load_nothing(tmp_path: Path) -> None:
    with reporting(tmp_path, *NAMES) as results:
        add(results, "bad<script>.jpg", "scans/bad<script>.jpg: no picture")
        written = results.write()
    assert [path.name for path in written] == ["colorized-report.csv", "colorized-report.html"]
    page = Page(tmp_path / "colorized-report.html")
    assert "5 colored in this run" in page.text and "1 could not be colored" in page.text
    assert "scans/bad<script>.jpg: no picture" in page.text
    assert not {"script", "link", "iframe", "form"} & {tag for tag, _ in page.tags}
    pictures = [attrs["src"] or "" for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == len(NAMES)
    for source in pictures:
        kind, _, data = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (8, 4)
    links = {unquote(attrs["href"] or "") for tag, attrs in page.tags if tag == "a"}
    assert links == {*NAMES, "colorized-report.csv"}


def test_table_can_be_read(tmp_path: Path) -> None:
    with reporting(tmp_path, *NAMES) as results:
        add(results, "bad.jpg", 'scans/bad.jpg: "no", picture')
        results.write()
    with open(tmp_path / report.TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["state"] == "failed" and rows[0]["reason"] == 'scans/bad.jpg: "no", picture'
    assert {row["result"] for row in rows[1:]} == {n.replace("\n", "\\n") for n in NAMES}
    assert {row["seconds"] for row in rows[1:]} == {"1.50"}


def test_next_run_knows_the_results_of_this_one(tmp_path: Path) -> None:
    with reporting(tmp_path, "a.jpg") as results:
        add(results, "gone.jpg")
        add(results, "b.jpg", "b.jpg: no picture")
    (tmp_path / "gone.jpg").unlink()
    with reporting(tmp_path, "b.jpg") as results:
        results.write()
    page = Page(tmp_path / report.PAGE)
    assert "1 colored in this run, 1 before it." in " ".join(page.text.split())
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2


def test_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PER_PAGE", 2)
    with reporting(tmp_path, *NAMES) as results:
        names = [path.name for path in results.write()]
    assert names[1:] == [
        "colorized-report.html", "colorized-report-2.html", "colorized-report-3.html",
    ]  # fmt: skip
    for name in names[1:]:
        links = {a["href"] for tag, a in Page(tmp_path / name).tags if tag == "a"}
        assert set(names[1:]) - {name} <= links


@pytest.mark.parametrize("name", [report.PAGE, report.TABLE])
def test_somebody_elses_file_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    refused = pytest.raises(ReportError, match="is not this program's; no report")
    with reporting(tmp_path, "a.jpg") as results, refused:
        results.write()
    assert (tmp_path / name).read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {".colorized", "a.jpg", name}
