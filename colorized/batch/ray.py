"""Batches on a Ray cluster, from and to folders or S3-compatible stores.

Photographs are dealt out in shards. A shard has a manifest among the results,
`.colorized/shards/NAME.jsonl`, of the journal's lines (see `journal`): the line of a photograph
is written before its files, and each file is written atomically. A shard whose node dies is given
to another node, which skips what is in the manifest and the store; so does a rerun, and a batch on
one machine in the same folder.

An actor holds one device. Its photographs are colored by a process of its own, as on one machine,
so that a file that crashes its decoder costs itself and not the actor.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colorized import photo
from colorized.batch.job import FileDigest, Job, Outcome, Settings
from colorized.batch.journal import FOLDER, SHARDS, Entry, Journal
from colorized.batch.plan import (
    BatchError,
    named_file,
    plan,
    raise_if_all_failed,
    without_conflicts,
)
from colorized.batch.workers import WorkerPool, WorkerSpec
from colorized.model.released import RELEASED
from colorized.storage import Found, Store, is_remote
from colorized.text import line, printable

SHARD = 16
"""Photographs in a shard."""


class ClusterError(RuntimeError):
    """One line: Ray or a store is missing, or cannot be reached."""


@dataclass(frozen=True)
class Task:
    """A photograph: a file of the store `source_store`, and the name of its result.

    `files` are those of its earlier result, which a new one may replace.
    """

    source_store: str
    source: str
    target: str
    files: tuple[str, ...] = ()

    @property
    def original(self) -> str:
        """The path or address of the photograph."""
        return Store(self.source_store).path(self.source)


@dataclass(frozen=True)
class Batch:
    """A batch, as it is sent to the machines of a cluster.

    `out` is the store's `url`, and `weights` a file in it: sent as a value they would be lost with
    the machine that holds them, and an actor could not be restarted elsewhere.
    """

    out: str
    settings: Settings
    facts: Mapping[str, Any]
    weights: str
    weights_name: str
    device: str
    timeout: float
    overwrite: bool


@dataclass(frozen=True)
class TaskResult:
    """Result of one photograph: target or error, and notes, one line each.

    `target` is empty for one that was skipped, and a note says why.
    """

    target: str
    error: str
    notes: tuple[str, ...]


def find(inputs: Sequence[str], out: str) -> list[Task]:
    """The photographs among files, folders and stores, with the names of their results.

    Raises
    ------
    BatchError, ClusterError, OSError
        As `plan.plan`; a store cannot be reached or holds no photographs.
    """
    # No file is written to a folder that stands for a store.
    base = Path(out) if not is_remote(out) else Path("/", uuid.uuid4().hex)
    local = [Path(given) for given in inputs if not is_remote(given)]
    if named_file(local, base) is not None:
        raise BatchError(base, "--engine ray needs a folder")
    planned = plan(local, base, writable=not is_remote(out))
    if planned.failed:
        raise_if_all_failed([], planned.failed)
    found = [
        Task(
            "/",
            os.path.abspath(job.source).lstrip("/"),
            job.target.relative_to(base).as_posix(),
        )
        for job in planned.jobs
    ]
    results = Store(out)
    for given in filter(is_remote, inputs):
        store = Store(given)
        names = [
            name
            for name in store.files()
            if photo.is_picture_name(name)
            and not any(part.startswith(".") for part in name.split("/"))
            and not store.path(name).startswith(f"{results.url}/")
        ]
        if not names:
            raise BatchError(None, f"{printable(given)}: holds no photographs")
        found += [Task(given, n, Path(n).with_name(photo.output_name(n)).as_posix()) for n in names]
    tasks = []
    for task, why in without_conflicts(
        found,
        source=lambda task: task.original,
        target=lambda task: results.path(task.target),
        name=lambda task: printable(task.original),
    ):
        if why:
            raise BatchError(Path(task.target), why)
        tasks.append(task)
    return tasks


def remaining(
    tasks: Iterable[Task], out: Store, known: Mapping[str, Entry], facts: Mapping[str, Any],
    overwrite: bool, recolor: bool = False,
) -> tuple[list[Task], int]:  # fmt: skip
    """The photographs to color, and how many are finished already.

    A result in a store is compared by size, an original there by size and time. Raises BatchError:
    a result would be replaced, and `overwrite` is not set.
    """
    there = out.files()
    sources: dict[str, dict[str, Found]] = {}
    todo: list[Task] = []
    conflicts: list[tuple[str, str]] = []
    done = 0
    for task in tasks:
        entry = known.get(task.target)
        if entry is None:
            why = "exists already" if task.target in there else ""
            is_done = False
        else:
            here = {n: s for n, s in entry.files.items() if n in there}
            is_done, why = False, ""
            if any(there[name].size != stamp.size for name, stamp in here.items()):
                why = "was changed after it was colored"
            elif here and dict(entry.settings) != dict(facts):
                why = "was colored with other settings"
            elif here and not _same(task, entry, sources):
                why = f"its original {printable(task.source)} has changed since it was colored"
            else:
                is_done = len(here) == len(entry.files) and not (recolor and entry.kept)
        if is_done:
            done += 1
            continue
        todo.append(task if entry is None else replace(task, files=tuple(entry.files)))
        if why:
            conflicts.append((task.target, why))
    if conflicts and not overwrite:
        target, why = conflicts[0]
        others = f" and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
        raise BatchError(Path(target), f"{why}; --overwrite replaces it{others}")
    return todo, done


def _same(task: Task, entry: Entry, sources: dict[str, dict[str, Found]]) -> bool:
    if not is_remote(task.source_store):
        return entry.original.fits(Path("/", task.source))
    if task.source_store not in sources:
        sources[task.source_store] = Store(task.source_store).files()
    found = sources[task.source_store][task.source]
    return (found.size, found.mtime_ns) == (entry.original.size, entry.original.mtime_ns)


def manifests(out: Store) -> dict[str, Entry]:
    """The entries of all shards, by target."""
    known: dict[str, Entry] = {}
    for name in sorted(out.files(f"{FOLDER}/{SHARDS}")):
        for entry in _entries(out, name).values():
            if entry.target not in known or known[entry.target].at < entry.at:
                known[entry.target] = entry
    return known


def _entries(out: Store, manifest: str) -> dict[str, Entry]:
    """The entries of a shard's manifest; none where there is none yet."""
    try:
        found = [Entry.parse(text) for text in out.read(manifest).splitlines()]
    except FileNotFoundError:
        return {}
    return {entry.target: entry for entry in found}


def _holds(out: Store, name: str) -> bool:
    """Whether there is a file of this name; it alone is asked for."""
    return name in out.files(name) if is_remote(out.url) else Path(out.url, name).exists()


@contextlib.contextmanager
def lending(out: Store, name: str, content: bytes) -> Iterator[None]:
    """Store a temporary file among the results."""
    out.put(name, content)
    try:
        yield
    finally:
        out.remove(name)


def color(tasks: Sequence[Task], batch: Batch, address: str | None) -> Iterator[TaskResult]:
    """Color photographs on the cluster at `address`, or on a new one on this machine.

    Raises ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    if address is None or address.startswith("127."):
        # A cluster of this machine alone listens on 127.0.0.1. Ray calls that a machine without
        # clusters, and names it after the systems where it is usual.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ClusterError("--engine ray needs: pip install 'colorized[ray]'") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster at {address}: {line(error)}") from error
    try:
        gpu = batch.device.startswith("cuda")
        free = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        if not free:
            raise ClusterError(f"the cluster has no {'GPU' if gpu else 'processor'}")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        shards = [list(tasks[i : i + SHARD]) for i in range(0, len(tasks), SHARD)]
        rows = [{"shard": json.dumps([vars(task) for task in shard])} for shard in shards]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ColorizeActor,
            fn_constructor_args=(batch,),
            batch_size=1,
            # From one on: where a node has died there is no room for all of them.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(free, len(shards))),
            num_gpus=1 if gpu else 0,
            num_cpus=1,
        )
        for row in results.iter_rows():
            for values in json.loads(row["results"]):
                yield TaskResult(values["target"], values["error"], tuple(values["notes"]))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise ClusterError(f"the cluster gave up: {line(cause)}") from error
    finally:
        ray.shutdown()


class ColorizeActor:
    """An actor that holds one device during the batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.out = Store(batch.out)
        self._folder = tempfile.TemporaryDirectory()
        weights = Path(self._folder.name, RELEASED.name)
        try:
            content = self.out.read(batch.weights)
        except FileNotFoundError as error:
            missing = self.out.path(batch.weights)
            raise ClusterError(f"{missing}: not seen by this machine") from error
        weights.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        spec = WorkerSpec(weights, sha256, batch.weights_name, batch.device, 1)
        self._pool = WorkerPool([spec], batch.timeout)
        self._pool.__enter__()

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Color shards, and return their results as JSON."""
        return {"results": [json.dumps([vars(t) for t in self._shard(r)]) for r in rows["shard"]]}

    def _shard(self, row: str) -> Iterator[TaskResult]:
        tasks = [Task(**values) for values in json.loads(row)]
        digest = hashlib.sha256(json.dumps([row, dict(self.batch.facts)]).encode()).hexdigest()
        manifest = f"{FOLDER}/{SHARDS}/{digest[:32]}.jsonl"
        known = _entries(self.out, manifest)
        with tempfile.TemporaryDirectory() as folder:
            jobs: dict[Path, Task] = {}
            todo = []
            for number, task in enumerate(tasks):
                if task.target in known and self._there(known[task.target]):
                    yield TaskResult(task.target, "", known[task.target].notes)
                    continue
                own = Path(folder, str(number))
                own.mkdir()
                try:
                    source = Store(task.source_store).fetch(
                        task.source, own / f"original{Path(task.source).suffix}"
                    )
                except OSError as error:
                    yield TaskResult(task.target, line(error), ())
                    continue
                job = Job(source, own / "made" / Path(task.target).name)
                jobs[job.target] = task
                todo.append(job)
            for job, outcome in self._pool.run(todo, self.batch.settings):
                task = jobs[job.target]
                name = printable(task.original)
                why = outcome.error.replace(printable(job.source), name)
                if outcome.passed_over:
                    note = outcome.passed_over.replace(printable(job.source), name)
                    yield TaskResult("", "", (note,))
                    continue
                if not why:
                    before = known.get(task.target)
                    why = self._conflict(task, outcome, () if before is None else before.files)
                if not why:
                    try:
                        entry = self._entry(task, outcome.original, outcome)
                        known[task.target] = entry
                        self.out.put(manifest, b"".join(e.line() for e in known.values()))
                        parent = Path(task.target).parent
                        for path, _ in outcome.files:
                            self.out.put((parent / path.name).as_posix(), path.read_bytes())
                    except OSError as error:
                        why = line(error)
                notes = tuple(n.replace(printable(job.source), name) for n in outcome.notes)
                yield TaskResult(task.target, why, notes)

    def _conflict(self, task: Task, outcome: Outcome, before: Collection[str]) -> str:
        """Why the files of a result must not be stored; empty where they may."""
        if self.batch.overwrite:
            return ""
        parent = Path(task.target).parent
        for path, _ in outcome.files:
            name = (parent / path.name).as_posix()
            if name not in (*task.files, *before) and _holds(self.out, name):
                return f"{printable(self.out.path(name))}: exists already; --overwrite replaces it"
        return ""

    def _there(self, entry: Entry) -> bool:
        """Whether all files of an entry are where they belong."""
        present = self.out.files(Path(entry.target).parent.as_posix().removeprefix("."))
        return all(
            name in present and present[name].size == stamp.size
            for name, stamp in entry.files.items()
        )

    def _entry(self, task: Task, original: FileDigest | None, outcome: Outcome) -> Entry:
        assert original is not None
        if is_remote(task.source_store):
            found = Store(task.source_store).files(task.source)[task.source]
            original = FileDigest(original.sha256, found.size, found.mtime_ns)
        parent = Path(task.target).parent
        return Entry(
            target=task.target,
            source=task.original,
            original=original,
            settings=dict(self.batch.facts),
            files={(parent / p.name).as_posix(): stamp for p, stamp in outcome.files},
            size=outcome.size,
            seconds=round(outcome.seconds, 3),
            notes=outcome.notes,
            at=time.time(),
            kept=outcome.kept,
        )


@contextlib.contextmanager
def known_results(out: str) -> Iterator[dict[str, Entry]]:
    """Known entries of the results in `out`; a folder is locked meanwhile."""
    if is_remote(out):
        yield manifests(Store(out))
        return
    with Journal(Path(out)) as journal:
        yield journal.known
