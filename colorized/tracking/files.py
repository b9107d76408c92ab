"""Runs that are kept in a file until they are imported into a store."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colorized.tracking.queue import Entry, Queue, delete, read
from colorized.tracking.runs import IMPORTED, UNSENT, Entries, Run, imported, now_ms
from colorized.tracking.store import (
    StoreUnavailable,
    TrackingError,
    connect,
    home,
    installed,
)


class FileRun(Entries):
    """A run where MLflow is not installed or its store does not answer: one JSON entry a line.

    Its first line describes the run. Files that the run keeps are copied into a folder beside it.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self._queue = Queue(path)

    @classmethod
    def start(
        cls,
        root: Path,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        parent: str | None = None,
        started: float | None = None,
    ) -> FileRun:
        """Begin a run, as `Run.start` does."""
        run_id = uuid.uuid4().hex
        run = cls(_path(root, run_id), run_id)
        time = now_ms() if started is None else int(started * 1000)
        about = {"name": name, "params": dict(params), "tags": dict(tags), "parent": parent}
        run._log({"run": run_id, **about, "time": time})
        return run

    @classmethod
    def reopen(cls, root: Path, run_id: str) -> FileRun | None:
        """The run of this id, if a file has it."""
        path = _path(root, run_id)
        return cls(path, run_id) if path.exists() else None

    def _log(self, entry: Entry) -> None:
        self._queue.append([entry])

    def flush(self) -> None:
        """Close the file."""
        self._queue.close()


def open_run(
    root: Path,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: str | None = None,
    started: float | None = None,
    resumed: str | None = None,
) -> Run | FileRun:
    """A new run, or the one of the id `resumed` where that is not finished.

    Unsent entries of earlier runs are sent first. Where the store does not answer, a line on stderr
    says so, and the run is kept in a file, which a later call imports.
    """
    name, tags = _of_experiment(name, tags)
    if not installed():
        run = (resumed and FileRun.reopen(root, resumed)) or FileRun.start(
            root, name, params, tags, parent, started
        )
        print(f"MLflow is not installed: the run is kept in {run.path}")
        return run
    try:
        deliver(root)
        known = Run.reopen(root, resumed, parent) if resumed else None
        if known is not None and not known.finished:
            return known
        return Run.start(root, name, params, tags, parent, started)
    except StoreUnavailable as error:
        kept = resumed and FileRun.reopen(root, resumed)
        if resumed and not kept:
            return Run(root, resumed)
        kept = kept or FileRun.start(root, name, params, tags, parent, started)
        print(
            f"warning: the run is kept in {kept.path} until the store answers: {error}",
            file=sys.stderr,
        )
        return kept


def deliver(root: Path) -> None:
    """Send the files in the folder `UNSENT` to the store, but for those in use.

    Raises StoreUnavailable: the store does not answer.
    """
    waiting = sorted((home(root) / UNSENT).glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    for path in waiting:
        try:
            with contextlib.suppress(BlockingIOError):
                if any("run" in entry for entry in read(path)[:1]):
                    import_run(root, path)
                    delete(path)
                else:
                    run = Run.reopen(root, path.stem)
                    if run is None:
                        raise TrackingError("the store does not have its run")
                    run.send([])
                    if path.exists() and not read(path):  # its process was killed in a copy
                        delete(path)
        except StoreUnavailable:
            raise
        except (TrackingError, OSError) as error:
            print(f"warning: {path} was not sent: {error}", file=sys.stderr)


def import_run(root: Path, path: Path) -> tuple[str, bool]:
    """Import the run of a `FileRun` into the store; returns its id, and whether it is new.

    A file is imported once. A truncated line of a killed process is ignored.

    Raises
    ------
    TrackingError
        The file holds no run, or a file that the run keeps is missing; the store is unchanged.
    BlockingIOError
        The run is still active.
    """
    first, *entries = _read_entries(path)
    for entry in entries:
        if "file" in entry and not Path(entry["file"]).exists():
            raise TrackingError(f"{path}: the run keeps {entry['file']}, which is not there")
    client = connect(root)
    found = imported(client, first["run"])
    if found:
        return found, False
    Queue(path).close()  # nobody adds to it
    parent = first.get("parent")
    parent = parent and (imported(client, parent) or parent)
    ends = [entry for entry in entries if entry.get("status", "RUNNING") != "RUNNING"]
    entries = [entry for entry in entries if "status" not in entry]
    run = Run.start(
        root, first["name"], first["params"], first["tags"], parent, first["time"] / 1000
    )
    try:
        # That it is complete is noted last.
        run.send([*entries, {"tags": {IMPORTED: first["run"]}}, *(ends[-1:] or [_LOST])])
        run.adopt(first["run"])
    except BaseException:
        run.discard()
        raise
    return run.run_id, True


_LOST = {"status": "KILLED"}
"""Status of a run whose process was killed."""


def _path(root: Path, run_id: str) -> Path:
    return home(root) / UNSENT / f"{run_id}.jsonl"


def _of_experiment(name: str, tags: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Name and tags with those of DVC's experiment, if this is one."""
    found = {
        tag: os.environ[variable]
        for tag, variable in (
            ("dvc_experiment", "DVC_EXP_NAME"),
            ("dvc_baseline", "DVC_EXP_BASELINE_REV"),
        )
        if os.environ.get(variable)
    }
    experiment = found.get("dvc_experiment")
    return f"{experiment}: {name}" if experiment else name, {**tags, **found}


def _read_entries(path: Path) -> list[Entry]:
    """The entries of a `FileRun`'s file, without truncated lines."""
    try:
        entries = read(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise TrackingError(f"{path}: {reason}") from error
    if not (entries and {"run", "name", "params", "tags", "time"} <= entries[0].keys()):
        raise TrackingError(f"{path}: does not hold a run")
    return entries
