"""What became of a batch, for people (HTML) and for programs (CSV), in the folder of results.

The report is of the folder: all that its journal knows, and what could not be done this time. It
is one file to a page, with its thumbnails inside, so that the pictures in the folder are results
only.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
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
_GENERATOR = '<meta name="generator" content="colorized">'
_THUMBNAILS = "thumbnails.jsonl"


class ReportError(ValueError):
    """One line that names the file that is in the report's place."""


@dataclass(frozen=True)
class Row:
    """A photograph in the report: `state` is colored, before, or failed."""

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
    thumbnail: str = ""


class Report:
    """Collects the results of a batch; see `write`."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._results: dict[str, Result] = {}
        self._thumbnails: dict[str, str] = {}
        self._shelf = journal.folder / _THUMBNAILS
        with contextlib.suppress(OSError), open(self._shelf, "rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError):
                    target, thumbnail = json.loads(line)
                    self._thumbnails[target] = thumbnail

    def add(self, result: Result) -> None:
        """Take note of a result, and keep its thumbnail for the reports of later runs."""
        target = self.journal.relative(result.job.target)
        self._results[target] = result
        if result.entry is None or not result.outcome.thumbnail:
            return
        thumbnail = base64.b64encode(result.outcome.thumbnail).decode()
        self._thumbnails[target] = thumbnail
        # Without it the report has no picture there; that must not end a batch.
        with contextlib.suppress(OSError), open(self._shelf, "a", encoding="ascii") as file:
            file.write(json.dumps([target, thumbnail]) + "\n")

    def rows(self) -> list[Row]:
        """What could not be done first, then all that is in color, by name."""
        rows = []
        for target in sorted({*self.journal.known, *self._results}):
            result = self._results.get(target)
            if result is not None and result.entry is None:
                rows.append(self._failed(result))
            elif os.path.exists(self.journal.out / target):
                rows.append(self._colored(target, result))
        return sorted(rows, key=lambda row: row.state != "failed")

    def _failed(self, result: Result) -> Row:
        outcome = result.outcome
        return Row(
            printable(os.path.abspath(result.job.source)),
            printable(self.journal.relative(result.job.target)),
            "failed",
            outcome.error,
            size=outcome.size,
            original_sha256=outcome.original.sha256 if outcome.original else "",
        )

    def _colored(self, target: str, result: Result | None) -> Row:
        entry = self.journal.known[target]
        return Row(
            printable(entry.source),
            printable(target),
            "before" if result is None else "colored",
            notes=entry.notes,
            size=entry.size,
            seconds=entry.seconds,
            original_sha256=entry.original.sha256,
            result_sha256=entry.files[target].sha256,
            settings=_settings(entry.settings),
            link=quote(os.fsencode(target)),
            thumbnail=self._thumbnails.get(target, ""),
        )

    def write(self) -> list[Path]:
        """Write the table and the pages, and say which files they are.

        Raises
        ------
        ReportError
            A file of that name is not of this program.
        OSError
            They cannot be written.
        """
        out, rows = self.journal.out, self.rows()
        pages = [rows[i : i + PER_PAGE] for i in range(0, len(rows), PER_PAGE)] or [[]]
        names = [page_name(number) for number in range(1, len(pages) + 1)]
        for name in (TABLE, *names):
            if not _is_ours(out / name):
                raise ReportError(f"{printable(out / name)}: is not this program's; no report")
        atomic.write(out / TABLE, table(rows))
        for number, (name, page) in enumerate(zip(names, pages, strict=True), 1):
            atomic.write(out / name, _page(page, rows, names, number))
        return [out / name for name in (TABLE, *names)]


def page_name(number: int) -> str:
    """The file name of a page of the report, counted from 1."""
    return PAGE if number == 1 else f"{Path(PAGE).stem}-{number}.html"


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


def _page(page: Sequence[Row], rows: Sequence[Row], names: Sequence[str], number: int) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("colorized.batch"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    counts = {s: sum(row.state == s for row in rows) for s in ("colored", "before", "failed")}
    return environment.get_template("report.html").render(
        rows=page, counts=counts, pages=names, number=number, table=TABLE, journal=FOLDER
    )


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
