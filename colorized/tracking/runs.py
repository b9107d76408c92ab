"""One run in the store: parameters, curves, pictures and files, and waiting while it is away."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from colorized.tracking.store import (
    EXPERIMENT,
    StoreAway,
    TrackingError,
    connect,
    experiment_id,
    missing,
    one_line,
    redact,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "COLORIZED_PARENT_RUN"
"""Environment variable: the id of the run that a stage's own run belongs to."""
UNSENT = "unsent.jsonl"
"""Name of the file that keeps what could not be sent to the store."""
IMPORTED = "imported_from"
"""Tag of a run that `import_run` made: the id its file knows it by."""
_BATCH = 1000
"""Metrics MLflow takes at once."""
_PATIENCE = (0.0, 1.0, 3.0)
"""Seconds to wait before each of the last tries to send what is waiting."""


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
    """What can be said of a run, each time as one entry that is written or sent."""

    run_id: str

    def _log(self, entry: dict[str, Any]) -> None:
        raise NotImplementedError

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of one step."""
        numbers = {k: float(v) for k, v in values.items()}
        self._log({"metrics": numbers, "step": step, "time": now_ms()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._log({"tags": {key: redact(value) for key, value in values.items()}})

    def describe(self, title: str, values: Mapping[str, float], picture: str) -> None:
        """Set what the run's page shows first: a table and one of the run's pictures."""
        self._log({"describe": [title, dict(values), picture]})

    def dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Note what the run was trained on: the `digest` its owner knows it by, and its counts."""
        self._log({"dataset": [name, digest, source, json.dumps(profile)]})

    def folder(self, path: Path, name: str) -> None:
        """Keep a copy of all files of a folder under `name` of the artifacts."""
        self._log({"files": str(path), "folder": name})

    def file(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file under `folder` of the artifacts."""
        self._log({"file": str(path), "folder": folder})


class Run(Entries):
    """One MLflow run.

    As a context manager it ends as FINISHED, KILLED when a user stopped it, or FAILED.
    What MLflow refuses is a `TrackingError`. While the store does not answer, metrics, tags, files
    and the final status wait in memory and, once `keep` has named a file, there.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self._waiting: list[dict[str, Any]] = []
        self._kept: Path | None = None
        self._not_before = 0.0

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
        return cls(client, run_id)

    @classmethod
    def reopen(cls, root: Path, run_id: str, parent: str | None = None) -> Run | None:
        """The run of this id, or None when this store does not know it or it was deleted.

        A run that `import_run` made has the id of its file, too.
        """
        client = connect(root)
        try:
            with one_line():
                info = client.get_run(run_id).info
        except StoreAway:
            raise
        except TrackingError as error:
            if not missing(error):
                raise
            known = imported(client, run_id)
            return cls.reopen(root, known, parent) if known else None
        if info.lifecycle_stage != "active":
            return None
        run = cls(client, info.run_id)
        if parent:
            run.tags(_parent_tag(parent))
        return run

    def keep(self, path: Path) -> None:
        """Keep what waits for the store in this file; what an earlier process left there is sent.

        Each line is one entry, as JSON; there is no file when nothing waits.
        """
        self._kept = path
        if path.exists():
            left = []
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed process
                    left.append(json.loads(line))
            self._waiting = left + self._waiting

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._waiting.append({"status": status})
        self.flush()

    def send(self, entries: Sequence[dict[str, Any]]) -> None:
        """Send all of these, in their order.

        Raises
        ------
        StoreAway
            When some could not be sent.
        """
        self._waiting += entries
        away = self._deliver()
        if away is not None:
            raise away

    def flush(self) -> None:
        """Send what waits; what still cannot be sent is kept, and a line on stderr says where.

        Raises
        ------
        StoreAway
            When something is left and `keep` has named no file.
        """
        for pause in _PATIENCE:
            time.sleep(pause)
            self._not_before = 0.0
            away = self._deliver()
            if away is None:
                return
        if away is not None and self._kept is None:
            raise away
        print(
            f"warning: the MLflow store does not answer: {len(self._waiting)} entries of run "
            f"{self.run_id} are kept in {self._kept}",
            file=sys.stderr,
        )

    def _log(self, entry: dict[str, Any]) -> None:
        self._waiting.append(entry)
        self._deliver()

    def _deliver(self) -> StoreAway | None:
        """Send what waits, in its order, until the store does not answer."""
        if time.monotonic() < self._not_before:
            self._write_down()
            return None
        while self._waiting:
            count = _metrics_ahead(self._waiting) or 1
            started = time.monotonic()
            try:
                with one_line():
                    self._send(self._waiting[:count])
            except StoreAway as error:
                # Waiting for a store that hangs may take a fifth of the time, no more.
                now = time.monotonic()
                self._not_before = now + 4 * (now - started)
                self._write_down()
                return error
            except TrackingError:
                del self._waiting[:count]
                raise
            del self._waiting[:count]
        self._write_down()
        return None

    def _send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """One request: the metrics of all entries, or the one thing that the only entry is."""
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
        elif "files" in first:
            self.client.log_artifacts(self.run_id, first["files"], first["folder"])
        elif "file" in first:
            self.client.log_artifact(self.run_id, first["file"], first["folder"] or None)
        else:
            self.client.set_terminated(self.run_id, first["status"], first.get("time"))

    def _write_down(self) -> None:
        """Make the file of `keep` say what waits."""
        if self._kept is None:
            return
        if not self._waiting:
            self._kept.unlink(missing_ok=True)
            return
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(entry) + "\n" for entry in self._waiting]
        self._kept.write_text("".join(lines), encoding="utf-8")

    def __enter__(self) -> Run:
        # It goes on: how an earlier process ended it is no longer so.
        self._waiting = [entry for entry in self._waiting if "status" not in entry]
        with one_line():
            self.client.update_run(self.run_id, "RUNNING")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(status_of(kind))


def imported(client: MlflowClient, file_id: str) -> str | None:
    """Id of the run that was made from the file of this id."""
    with one_line():
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None or not file_id.isalnum():
            return None
        runs = client.search_runs(
            [experiment.experiment_id], f"tags.{IMPORTED} = '{file_id}'", max_results=1
        )
    return runs[0].info.run_id if runs else None


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts them."""
    return int(time.time() * 1000)


def status_of(kind: type[BaseException] | None) -> str:
    """How a run ended that this exception, if any, put an end to."""
    if kind is None:
        return "FINISHED"
    return "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"


def _parent_tag(parent: str | None) -> dict[str, str]:
    return {"mlflow.parentRunId": parent} if parent else {}


def _metrics_ahead(entries: Sequence[Mapping[str, Any]]) -> int:
    """How many of the first entries are metrics that go into one request."""
    total = 0
    for count, entry in enumerate(entries):
        total += len(entry.get("metrics", ()))
        if "metrics" not in entry or total > _BATCH:
            return count
    return len(entries)
