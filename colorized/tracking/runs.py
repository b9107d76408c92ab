"""One run in the store: parameters, curves, pictures and files."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from colorized.tracking.queue import Entry, Queue
from colorized.tracking.store import (
    StoreUnavailable,
    TrackingError,
    connect,
    experiment_id,
    home,
    missing,
    one_line,
    redact,
    search,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "COLORIZED_PARENT_RUN"
"""Environment variable: the id of the run that a stage's own run belongs to."""
UNSENT = Path("models", "unsent")
"""Folder of unsent entries in the home of the project: one file per run."""
IMPORTED = "imported_from"
"""Tag of a run that `import_run` made: the id its file knows it by."""
HEADLINES = (
    "fid",
    "fid_released",
    "fid_monochrome",
    "kid",
    "kid_released",
    "colorfulness",
    "delta_colorfulness",
    "psnr",
    "delta_e",
    "diversity",
    "vlb_bits_per_dim",
)
"""Metrics that are logged; the artifact of an evaluation has all."""
_BATCH = 1000
"""Metrics MLflow takes at once."""
_PATIENCE = (0.0, 1.0, 3.0)
"""Seconds to wait before each of the last attempts to send."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{'train': {'steps': 4}} → {'train.steps': '4'}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def system_metrics() -> dict[str, float]:
    """Load and memory of the machine, under MLflow's names; the load since the last call."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6,
    }


class Entries:
    """The entries of a run, each of which is written or sent."""

    run_id: str

    def _log(self, entry: Entry) -> None:
        raise NotImplementedError

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of one step."""
        numbers = {k: float(v) for k, v in values.items()}
        self._log({"metrics": numbers, "step": step, "time": now_ms()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._log({"tags": {key: redact(value) for key, value in values.items()}})

    def describe(self, title: str, values: Mapping[str, float], picture: str) -> None:
        """Set the description on the run's page: a table and one of its pictures."""
        self._log({"describe": [title, dict(values), picture]})

    def dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Log the training data: DVC's `digest` of it, and its counts."""
        self._log({"dataset": [name, digest, source, json.dumps(profile)]})

    def file(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file, or of all files of a folder, under `folder` of the artifacts."""
        self._log({"file": str(path), "folder": folder})

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._log({"status": status, "time": now_ms()})
        self.flush()

    def flush(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.finish("KILLED" if stopped else "FAILED" if kind else "FINISHED")


class Run(Entries):
    """One MLflow run.

    As a context manager it ends as FINISHED, KILLED when a user stopped it, or FAILED. Errors of
    MLflow are a `TrackingError`. While the store does not answer, metrics, tags, files and the
    final status wait in a file of the folder `UNSENT`.
    """

    def __init__(self, root: Path, run_id: str, client: MlflowClient | None = None) -> None:
        self.root = root
        self.run_id = run_id
        self._client = client
        self._queue = Queue(home(root) / UNSENT / f"{run_id}.jsonl")
        self._unwritten: list[Entry] = []
        self._not_before = 0.0
        self._warned = False

    @property
    def client(self) -> MlflowClient:
        """The store's client; raises `StoreUnavailable`."""
        if self._client is None:
            self._client = connect(self.root)
        return self._client

    @classmethod
    def start(
        cls,
        root: Path,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        parent: str | None = None,
        started: float | None = None,
    ) -> Run:
        """Open a run in the experiment `colorized` and log `params`, flattened.

        `parent` is the id of the run it belongs to, `started` the time it began, seconds since the
        epoch, if that was not now.
        """
        from mlflow.entities import Param

        with one_line():
            client = connect(root)
            experiment = experiment_id(client, root)
            shown = {key: redact(value) for key, value in tags.items()} | _parent_tag(parent)
            began = None if started is None else int(started * 1000)
            run = client.create_run(experiment, began, shown, name)
            run_id = run.info.run_id
            logged = [Param(k, redact(v)) for k, v in flatten(params).items()]
            client.log_batch(run_id, params=logged)
        return cls(root, run_id, client)

    @classmethod
    def reopen(cls, root: Path, run_id: str, parent: str | None = None) -> Run | None:
        """The run of this id, or None when this store does not know it or it was deleted.

        A run that `import_run` made has the id of its file, too.
        """
        client = connect(root)
        try:
            with one_line():
                info = client.get_run(run_id).info
        except StoreUnavailable:
            raise
        except TrackingError as error:
            if not missing(error):
                raise
            known = imported(client, run_id)
            return cls.reopen(root, known, parent) if known else None
        if info.lifecycle_stage != "active":
            return None
        run = cls(root, info.run_id, client)
        if parent:
            run.tags(_parent_tag(parent))
        return run

    @property
    def finished(self) -> bool:
        """Whether the store has the run as FINISHED."""
        with one_line():
            return bool(self.client.get_run(self.run_id).info.status == "FINISHED")

    def send(self, entries: Sequence[Entry]) -> None:
        """Send waiting entries, then these, in order.

        Raises StoreUnavailable: some could not be sent, and wait.
        """
        self._unwritten += entries
        away = self._deliver()
        if away is not None:
            raise away

    def adopt(self, file_id: str) -> None:
        """Become the parent of the runs whose parent was the `FileRun` of this id."""
        with one_line():
            experiment = self.client.get_run(self.run_id).info.experiment_id
            named = f"tags.`mlflow.parentRunId` = '{file_id}'"
            for child in self.client.search_runs([experiment], named):
                self.client.set_tag(child.info.run_id, "mlflow.parentRunId", self.run_id)

    def discard(self) -> None:
        """Delete the run and its waiting entries."""
        self._unwritten = []
        self._queue.sent(len(self._queue.entries))
        with contextlib.suppress(TrackingError), one_line():
            self.client.delete_run(self.run_id)

    def flush(self) -> None:
        """Send waiting entries; those that cannot be sent stay in a file, named on stderr."""
        for pause in _PATIENCE:
            time.sleep(pause)
            self._not_before = 0.0
            away = self._deliver()
            if away is None:
                self._queue.close()
                return
        self._queue.close()
        print(
            f"warning: the MLflow store does not answer: {self._count()} entries of run "
            f"{self.run_id} are kept in {self._queue.path}, and sent by the next run ({away})",
            file=sys.stderr,
        )

    def _count(self) -> int:
        return len(self._queue.entries) + len(self._unwritten)

    def _log(self, entry: Entry) -> None:
        self._unwritten.append(entry)
        if time.monotonic() < self._not_before:
            self._write_down()
        else:
            self._deliver()

    def _deliver(self) -> StoreUnavailable | None:
        """Send waiting entries in order, until the store does not answer."""
        while self._count():
            waiting = self._queue.entries or self._unwritten
            count = _metrics_ahead(waiting) or 1
            started = time.monotonic()
            try:
                with one_line():
                    self._send(waiting[:count])
            except StoreUnavailable as error:
                # At most a fifth of the time is spent waiting for a store that hangs.
                now = time.monotonic()
                self._not_before = now + 4 * (now - started)
                self._write_down()
                return error
            except TrackingError:
                self._drop(count)
                raise
            self._drop(count)
        return None

    def _drop(self, count: int) -> None:
        """Remove the oldest entries."""
        if self._queue.entries:
            self._queue.sent(count)
        else:
            del self._unwritten[:count]

    def _send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Send one request: the metrics of all entries, or a single other entry."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag

        first = entries[0]
        if "metrics" in first:
            numbers = [
                Metric(key, value, entry["time"], entry["step"])
                for entry in entries
                for key, value in entry["metrics"].items()
            ]
            self.client.log_batch(self.run_id, metrics=numbers)
        elif "tags" in first:
            tags = [RunTag(key, value) for key, value in first["tags"].items()]
            self.client.log_batch(self.run_id, tags=tags)
        elif "describe" in first:
            title, values, picture = first["describe"]
            lines = [f"### {title}", "", "| metric | value |", "| --- | ---: |"]
            lines += [f"| {key} | {value:.4g} |" for key, value in values.items()]
            # A link of the page itself, whatever the server's address.
            lines += ["", f"![{picture}](get-artifact?path={picture}&run_uuid={self.run_id})"]
            self.client.log_batch(
                self.run_id, tags=[RunTag("mlflow.note.content", "\n".join(lines))]
            )
        elif "dataset" in first:
            name, digest, source, profile = first["dataset"]
            data = Dataset(name, digest, "local", json.dumps({"uri": source}), None, profile)
            inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
            self.client.log_inputs(self.run_id, datasets=inputs)
        elif "file" in first:
            self._send_file(first)
        elif first["status"] == "RUNNING":
            self.client.update_run(self.run_id, "RUNNING")
        else:
            self.client.set_terminated(self.run_id, first["status"], first.get("time"))

    def _send_file(self, entry: Mapping[str, Any]) -> None:
        path, folder = Path(entry["file"]), entry["folder"] or None
        if not path.exists():  # the entry has waited, in a copy of the project that is gone
            print(f"warning: not logged, for it is gone: {path}", file=sys.stderr)
        elif path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def _write_down(self) -> None:
        """Move entries from memory to the file; where it cannot be written, they stay."""
        try:
            self._queue.append(self._unwritten)
            self._unwritten = []
        except OSError as error:
            if not self._warned:
                self._warned = True
                print(f"warning: {self._queue.path}: {error.strerror or error}", file=sys.stderr)

    def __enter__(self) -> Self:
        self._log({"status": "RUNNING"})
        return self


def imported(client: MlflowClient, file_id: str) -> str | None:
    """Id of the run that was made from the file of this id."""
    if not file_id.isalnum():
        return None
    with one_line():
        runs = search(client, f"tags.{IMPORTED} = '{file_id}'", 1)
    return runs[0].info.run_id if runs else None


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts them."""
    return int(time.time() * 1000)


def _parent_tag(parent: str | None) -> dict[str, str]:
    return {"mlflow.parentRunId": parent} if parent else {}


def _metrics_ahead(entries: Sequence[Mapping[str, Any]]) -> int:
    """The number of leading entries whose metrics fit into one request."""
    total = 0
    for count, entry in enumerate(entries):
        total += len(entry.get("metrics", ()))
        if "metrics" not in entry or total > _BATCH:
            return count
    return len(entries)
