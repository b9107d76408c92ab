"""The report of a batch, as HTML and CSV, in the folder of results.

It lists all entries of the folder's journal and the failures of this run. Each page is one file
with its thumbnails inside, so that the pictures in the folder are results only.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from colorized import atomic
from colorized.batch.journal import FOLDER, Journal
from colorized.batch.plan import Result
from colorized.text import printable

PAGE = "colorized-report.html"
TABLE = "colorized-report.csv"
PER_PAGE = 500
"""Photographs on a page, of some kilobytes each."""

_COLUMNS = (
    "original", "result", "state", "reason", "notes", "width", "height", "seconds",
    "original_sha256", "result_sha256", "settings",
)  # fmt: skip
STATES = ("failed", "in color already", "colored", "before", "no picture")
"""Outcome of a file; `before` is colored by an earlier run."""

_GENERATOR = '<meta name="generator" content="colorized">'
_THUMBNAILS = "thumbnails.jsonl"


class ReportError(ValueError):
    """One line that names the file that is in the report's place."""


@dataclass(frozen=True)
class Row:
    """A file in the report: `state` is one of `STATES`."""

    original: str
    result: str
    state: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    original_sha256: str = ""
    result_sha256: str = ""
    settings: str = ""
    link: str = ""
    target: str = ""


class Thumbnails:
    """Small JPEG files in a file of lines `[target, base64]`, read one by one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, target: str, content: bytes) -> None:
        """Append a thumbnail; a failure leaves the report without it, and does not end a batch."""
        line = json.dumps([target, base64.b64encode(content).decode()]) + "\n"
        with contextlib.suppress(OSError), open(self._path, "a", encoding="ascii") as file:
            file.write(line)

    def places(self) -> dict[str, int]:
        """Where in the file the last line of each target begins."""
        found: dict[str, int] = {}
        with contextlib.suppress(OSError), open(self._path, "rb") as file:
            at = 0
            for line in file:
                with contextlib.suppress(ValueError, TypeError):
                    found[json.loads(line)[0]] = at
                at += len(line)
        return found

    def read(self, at: int) -> str:
        """The thumbnail of the line that begins there, in base64."""
        with open(self._path, "rb") as file:
            file.seek(at)
            thumbnail: str = json.loads(file.readline())[1]
        return thumbnail


class Report:
    """Collects the results of a batch; see `write`.

    `no_pictures` are files that were passed over because they are no pictures by their names.
    """

    def __init__(self, journal: Journal, no_pictures: Sequence[Path] = ()) -> None:
        self.journal = journal
        self._no_pictures = no_pictures
        self._colored_now: set[str] = set()
        self._others: list[Result] = []
        self._thumbnails = Thumbnails(journal.folder / _THUMBNAILS)

    def add(self, result: Result) -> None:
        """Add a result, and keep its thumbnail for the reports of later runs."""
        if result.entry is None:
            self._others.append(result)
            return
        self._colored_now.add(result.entry.target)
        if result.outcome.thumbnail:
            self._thumbnails.add(result.entry.target, result.outcome.thumbnail)

    def rows(self) -> list[Row]:
        """Failures first, then colored files by name, then files that are no pictures."""
        rows = [self._left(result) for result in self._others]
        rows += [
            self._colored(target)
            for target in sorted(self.journal.known)
            if os.path.exists(self.journal.out / target)
        ]
        rows += [
            Row(printable(os.path.abspath(path)), "", "no picture", "no picture by its name")
            for path in self._no_pictures
        ]
        return sorted(rows, key=lambda row: STATES.index(row.state.replace("before", "colored")))

    def _left(self, result: Result) -> Row:
        outcome = result.outcome
        return Row(
            printable(os.path.abspath(result.job.source)),
            printable(self.journal.relative(result.job.target)) if outcome.error else "",
            "failed" if outcome.error else "in color already",
            outcome.error or outcome.passed_over,
            size=outcome.size,
            original_sha256=outcome.original.sha256 if outcome.original else "",
        )

    def _colored(self, target: str) -> Row:
        entry = self.journal.known[target]
        return Row(
            printable(entry.source),
            printable(target),
            "colored" if target in self._colored_now else "before",
            notes=entry.notes,
            size=entry.size,
            seconds=entry.seconds,
            original_sha256=entry.original.sha256,
            result_sha256=entry.files[target].sha256,
            settings=_settings(entry.settings),
            link=quote(os.fsencode(target)),
            target=target,
        )

    def write(self) -> list[Path]:
        """Write the table and the pages; returns their paths.

        Raises
        ------
        ReportError
            A file of that name is not of this program.
        OSError
            They cannot be written.
        """
        out, rows = self.journal.out, self.rows()
        shown = [row for row in rows if row.state != "no picture"]
        pages = [shown[i : i + PER_PAGE] for i in range(0, len(shown), PER_PAGE)] or [[]]
        more = (f"{Path(PAGE).stem}-{number}.html" for number in range(2, len(pages) + 1))
        names = [PAGE, *more]
        for name in (TABLE, *names):
            if not _is_ours(out / name):
                raise ReportError(f"{printable(out / name)}: is not this program's; no report")
        atomic.write(out / TABLE, table(rows))
        places = self._thumbnails.places()
        for number, (name, page) in enumerate(zip(names, pages, strict=True), 1):
            thumbnails = {
                row.target: self._thumbnails.read(places[row.target])
                for row in page
                if row.target in places
            }
            atomic.write(out / name, _page(page, thumbnails, rows, names, number))
        return [out / name for name in (TABLE, *names)]


def table(rows: Sequence[Row]) -> str:
    """The rows as CSV (RFC 4180, UTF-8)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for row in rows:
        width, height = (n or "" for n in row.size)
        seconds = f"{row.seconds:.2f}" if row.seconds else ""
        writer.writerow(
            (row.original, row.result, row.state, row.reason, " | ".join(row.notes), width, height,
             seconds, row.original_sha256, row.result_sha256, row.settings)
        )  # fmt: skip
    return text.getvalue()


def _page(
    page: Sequence[Row],
    thumbnails: Mapping[str, str],
    rows: Sequence[Row],
    names: Sequence[str],
    number: int,
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("colorized.batch"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    counts = {state: sum(row.state == state for row in rows) for state in STATES}
    kinds = by_kind(Path(row.original) for row in rows if row.state == "no picture")
    return environment.get_template("report.html").render(
        rows=page, thumbnails=thumbnails, counts=counts, kinds=kinds, pages=names, number=number,
        table=TABLE, journal=FOLDER,
    )  # fmt: skip


def by_kind(paths: Iterable[Path]) -> str:
    """How many files of each suffix, such as "2 .dng, 1 without suffix", the most first."""
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths)
    return ", ".join(f"{number} {printable(kind)}" for kind, number in counts.most_common())


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in settings.items() if v not in (None, "", False))


def _is_ours(path: Path) -> bool:
    """Whether nothing is there, or an earlier report."""
    if not os.path.lexists(path):
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(1000)
    return _GENERATOR.encode() in start or start.startswith(",".join(_COLUMNS).encode())
