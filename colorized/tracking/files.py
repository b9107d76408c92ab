"""Runs of machines without MLflow: in a file first, in the store later."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from colorized.tracking.runs import IMPORTED, Entries, Run, imported, now_ms, status_of
from colorized.tracking.store import TrackingError, connect, one_line


class FileRun(Entries):
    """A run on a machine without MLflow: a file with one entry a line, as JSON.

    Its first line says what the run is. Files that the run keeps are named, not copied: as seen
    from the folder of the run's file, so that both can be moved together.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id

    @classmethod
    def open(
        cls, path: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> FileRun:
        """Go on with the run of this file, or begin it."""
        if path.exists():
            return cls(path, _read_entries(path)[0]["run"])
        run = cls(path, uuid.uuid4().hex)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"name": name, "params": dict(params), "tags": dict(tags), "time": now_ms()}
        run._log({"run": run.run_id, **about})
        return run

    def _log(self, entry: dict[str, Any]) -> None:
        for key in ("file", "files"):
            if key in entry:
                entry[key] = os.path.relpath(entry[key], self.path.parent)
        text = self.path.read_bytes()[-1:] if self.path.exists() else b"\n"
        with open(self.path, "a", encoding="utf-8") as file:
            # A process that was killed may have left half a line.
            file.write(("" if text == b"\n" else "\n") + json.dumps(entry) + "\n")

    def __enter__(self) -> FileRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._log({"status": status_of(kind), "time": now_ms()})


def import_run(root: Path, path: Path) -> tuple[str, bool]:
    """Bring the run of a `FileRun` into the store: its id there, and whether that is new.

    A file that was imported before is not imported again. A line that a killed process left half
    written is passed over.

    Raises
    ------
    TrackingError
        The file is no run's, or a file that the run keeps is not beside it; names it. Nothing of
        the run is then in the store.
    """
    first, *entries = _read_entries(path)
    for entry in entries:
        for key in ("file", "files"):
            if key in entry:
                entry[key] = str(path.parent / entry[key])
                if not Path(entry[key]).exists():
                    raise TrackingError(f"{path}: the run keeps {entry[key]}, which is not there")
    client = connect(root)
    found = imported(client, first["run"])
    if found:
        return found, False
    ends = [entry for entry in entries if "status" in entry]
    entries = [entry for entry in entries if "status" not in entry]
    run = Run.start(
        root, first["name"], first["params"], first["tags"], started=first["time"] / 1000
    )
    try:
        # Its being whole is said last.
        run.send([*entries, {"tags": {IMPORTED: first["run"]}}, *(ends[-1:] or [_LOST])])
    except BaseException:
        with contextlib.suppress(TrackingError), one_line():
            client.delete_run(run.run_id)
        raise
    return run.run_id, True


_LOST = {"status": "KILLED"}
"""The end of a run whose process could not say how it ended."""


def _read_entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a `FileRun`'s file, but for those that were left half written."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise TrackingError(f"{path}: {reason}") from error
    entries = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            entries.append(json.loads(line))
    fits = all(isinstance(entry, dict) for entry in entries)
    if not (entries and fits and {"run", "name", "params", "tags", "time"} <= entries[0].keys()):
        raise TrackingError(f"{path}: does not hold a run")
    return entries
