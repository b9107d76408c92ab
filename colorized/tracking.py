"""MLflow: runs with their parameters, curves, pictures and files, and the registry of models.

What is logged goes to the server or database `MLFLOW_TRACKING_URI` names, or to a SQLite file in
the project's folder. A `Run` holds its id and nothing global, so a stage can write to the run of
another. A store that does not answer for a while stops nobody: what is logged waits, and goes out
in its order when the store is back. Where MLflow is not installed, a `FileRun` writes the same to
a file, which `import_run` brings into a store later.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import logging
import os
import re
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT = "colorized"
MODEL = "colorized"
"""Name of the registered model."""
WEIGHTS_FILE = "colorized.safetensors"
PARENT = "COLORIZED_PARENT_RUN"
"""Environment variable: the id of the run that a stage's own run belongs to."""
UNSENT = "unsent.jsonl"
"""Name of the file that keeps what could not be sent to the store."""
IMPORTED = "imported_from"
"""Tag of a run that `import_run` made: the id its file knows it by."""

# MLflow reads these when it is first imported or called, which every function here leaves for
# later. With its own retries a server that is away would hold a training up for minutes.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}.items():
    os.environ.setdefault(_name, _value)

# What comes between "://" and the last "@" before the path, and in a query such as ?password=….
_SECRETS = re.compile(r"(?<=://)[^/\s]*@|(?<=[?&])(\w*(?:password|token|secret)\w*=)[^&\s]+", re.I)
_URI = re.compile(
    r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/]+)|/(?P<number>\d+))|runs:/(?P<run>\w+)"
)
_BATCH = 1000
"""Metrics MLflow takes at once."""
_AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_PATIENCE = (0.0, 1.0, 3.0)
"""Seconds to wait before each of the last tries to send what is waiting."""


class TrackingError(ValueError):
    """One line that says what MLflow refused."""


class StoreAway(TrackingError):
    """The store does not answer, or not now."""


def redact(text: str) -> str:
    """The text without the credentials that a URL in it carries."""
    return _SECRETS.sub(lambda found: f"{found[1]}***" if found[1] else "", text)


def tracking_uri(root: Path) -> str:
    """Where runs are kept: `MLFLOW_TRACKING_URI`, else `mlflow.db` in `root`, an absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def run_url(run_id: str) -> str:
    """The page of a run: on the server in use, else where `make ui` shows the local store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    server = redact(uri) if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{server.rstrip('/')}/#/runs/{run_id}"


def connect(root: Path) -> MlflowClient:
    """A client for `tracking_uri(root)`."""
    from mlflow import MlflowClient

    uri = tracking_uri(root)
    path = uri.removeprefix("sqlite:///")
    if path == uri:
        return MlflowClient(uri)
    # MLflow makes the tables in many steps, which those of another process must not come between.
    with FileLock(f"{path}.lock"):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


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


@contextmanager
def _one_line() -> Iterator[None]:
    """MLflow's errors, of a server that is not there, of a deleted experiment, as ours."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        away = getattr(error, "error_code", "INTERNAL_ERROR") in _AWAY
        message = f"MLflow: {' '.join(redact(str(error)).split())}"
        raise (StoreAway if away else TrackingError)(message) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without MLflow's word on what it does and its warnings about type hints of its own."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.setLevel(level)


def _missing(error: TrackingError) -> bool:
    """Whether MLflow says that there is no such thing."""
    code = getattr(error.__cause__, "error_code", "")
    # An alias that was never set is an invalid parameter for some stores.
    return code == "RESOURCE_DOES_NOT_EXIST" or "not found" in str(error)


def _experiment(client: MlflowClient, root: Path) -> str:
    """Id of the experiment `colorized`, which is made where it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        with contextlib.suppress(TrackingError), _one_line():  # another process was faster
            if tracking_uri(root).startswith("http"):  # a server knows where its artifacts go
                return client.create_experiment(EXPERIMENT)
            artifacts = (root.resolve() / "mlartifacts").as_uri()
            return client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise TrackingError(f"MLflow: the experiment {EXPERIMENT} cannot be made")
    return found.experiment_id


def installed() -> bool:
    """Whether this machine has MLflow; asked without importing it."""
    try:
        return importlib.util.find_spec("mlflow") is not None
    except ModuleNotFoundError:
        return False


class _Entries:
    """What can be said of a run, each time as one entry that is written or sent."""

    run_id: str

    def _log(self, entry: dict[str, Any]) -> None:
        raise NotImplementedError

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of one step."""
        numbers = {k: float(v) for k, v in values.items()}
        self._log({"metrics": numbers, "step": step, "time": _now()})

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


class Run(_Entries):
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

        with _one_line():
            client = connect(root)
            experiment_id = _experiment(client, root)
            shown = {key: redact(value) for key, value in tags.items()} | _parent_tag(parent)
            began = None if started is None else int(started * 1000)
            run = client.create_run(experiment_id, began, shown, name)
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
            with _one_line():
                info = client.get_run(run_id).info
        except StoreAway:
            raise
        except TrackingError as error:
            if not _missing(error):
                raise
            imported = _imported(client, run_id)
            return cls.reopen(root, imported, parent) if imported else None
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
                with _one_line():
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
        with _one_line():
            self.client.update_run(self.run_id, "RUNNING")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(_status(kind))


class FileRun(_Entries):
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
        about = {"name": name, "params": dict(params), "tags": dict(tags), "time": _now()}
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
        self._log({"status": _status(kind), "time": _now()})


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
    found = _imported(client, first["run"])
    if found:
        return found, False
    ends = [entry for entry in entries if "status" in entry]
    entries = [entry for entry in entries if "status" not in entry]
    run = Run.start(
        root, first["name"], first["params"], first["tags"], started=first["time"] / 1000
    )
    try:
        # Its being whole is said last.
        run._waiting = [*entries, {"tags": {IMPORTED: first["run"]}}, *(ends[-1:] or [_LOST])]
        away = run._deliver()
        if away is not None:
            raise away
    except BaseException:
        with contextlib.suppress(TrackingError), _one_line():
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


def _imported(client: MlflowClient, file_id: str) -> str | None:
    """Id of the run that was made from the file of this id."""
    with _one_line():
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None or not file_id.isalnum():
            return None
        runs = client.search_runs(
            [experiment.experiment_id], f"tags.{IMPORTED} = '{file_id}'", max_results=1
        )
    return runs[0].info.run_id if runs else None


def _now() -> int:
    """Milliseconds since the epoch, as MLflow counts them."""
    return int(time.time() * 1000)


def _status(kind: type[BaseException] | None) -> str:
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


@dataclass(frozen=True)
class Version:
    """One version of the registered model."""

    number: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """`models:/colorized/3`."""
        return f"models:/{MODEL}/{self.number}"


class Registry:
    """The registered model `colorized`: its versions, their tags, and the aliases.

    Parameters
    ----------
    root
        The project's folder.
    create
        Make the local store where there is none, which is else a `TrackingError`.
    """

    def __init__(self, root: Path, create: bool = False) -> None:
        local = root.resolve() / "mlflow.db"
        if not (create or os.environ.get("MLFLOW_TRACKING_URI") or local.exists()):
            raise TrackingError(
                f"{local}: no such MLflow store; work in the project's folder, "
                "or name a store with MLFLOW_TRACKING_URI"
            )
        self.uri = tracking_uri(root)
        with _one_line():
            self.client = connect(root)

    def alias(self, name: str) -> Version | None:
        """The version that has the alias."""
        try:
            with _one_line():
                return _version(self.client.get_model_version_by_alias(MODEL, name))
        except TrackingError as error:
            if isinstance(error, StoreAway) or not _missing(error):
                raise
            return None

    def set_alias(self, name: str, version: Version | None) -> None:
        """Give the alias to a version, or take it away."""
        with _one_line():
            if version is None:
                self.client.delete_registered_model_alias(MODEL, name)
            else:
                self.client.set_registered_model_alias(MODEL, name, version.number)

    def find(self, weights_sha256: str) -> Version | None:
        """The newest version with these weights."""
        with _one_line():
            found = self.client.search_model_versions(f"name='{MODEL}'")
        same = [v for v in found if v.tags.get("weights_sha256") == weights_sha256]
        return _version(max(same, key=lambda v: int(v.version))) if same else None

    def find_run(self, weights_sha256: str) -> tuple[str, dict[str, str]] | None:
        """Id and tags of the newest run that ended with these weights."""
        with _one_line():
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                return None
            runs = self.client.search_runs(
                [experiment.experiment_id],
                f"tags.weights_sha256 = '{weights_sha256}'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
        return (runs[0].info.run_id, dict(runs[0].data.tags)) if runs else None

    def register(self, run: Run, model: Path, tags: Mapping[str, str]) -> Version:
        """Add a version: the folder of a saved model, which is copied to the run's files.

        `tags` hold the `weights_sha256`, by which versions are found.
        """
        with _one_line():
            with contextlib.suppress(TrackingError), _one_line():  # it is there already
                self.client.create_registered_model(MODEL)
            place = f"model-{tags['weights_sha256'][:12]}"
            self.client.log_artifacts(run.run_id, str(model), place)
            shown = {key: redact(value) for key, value in tags.items()}
            source = f"runs:/{run.run_id}/{place}"
            made = self.client.create_model_version(MODEL, source, run.run_id, tags=shown)
        return _version(made)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with _one_line():
            for key, value in tags.items():
                self.client.set_model_version_tag(MODEL, version.number, key, redact(value))

    def untag(self, version: Version, key: str) -> None:
        """Remove a tag of a version, if it is there."""
        if key in version.tags:
            with _one_line():
                self.client.delete_model_version_tag(MODEL, version.number, key)

    @contextmanager
    def weights(self, uri: str) -> Iterator[Path]:
        """The weights file of `models:/NAME@ALIAS`, `models:/NAME/3` or `runs:/ID`, for a while.

        Of a run it is what training has put there.
        """
        with TemporaryDirectory() as folder:
            if uri.startswith("models:/"):
                path = self._fetch(uri, f"artifacts/{WEIGHTS_FILE}", folder)
            else:
                path = self._fetch(uri, f"weights/{WEIGHTS_FILE}", folder)
            yield path

    def predict(self, uri: str, images: Sequence[bytes]) -> list[bytes]:
        """What a registered model makes of image files: PNG files."""
        with TemporaryDirectory() as folder:
            path = self._fetch(uri, "", folder)
            with _one_line(), quiet():
                import mlflow.pyfunc
                import pandas as pd

                model = mlflow.pyfunc.load_model(str(path))
                table = model.predict(pd.DataFrame({"image": list(images)}))
        return [base64.b64decode(text) for text in table["image"]]

    def _fetch(self, uri: str, inside: str, folder: str) -> Path:
        """Download what a URI names, or what is at a place inside it."""
        from mlflow.artifacts import download_artifacts

        found = _URI.fullmatch(uri)
        if found is None:
            raise TrackingError(
                f"{uri}: must be models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID"
            )
        try:
            with _one_line():
                if found["run"]:
                    place = self.client.get_run(found["run"]).info.artifact_uri
                else:
                    # MLflow's own resolution would ask the store of the whole process.
                    number = found["number"]
                    if found["alias"]:
                        number = self.client.get_model_version_by_alias(
                            found["name"], found["alias"]
                        ).version
                    place = self.client.get_model_version_download_uri(found["name"], number)
                path = download_artifacts(
                    artifact_uri=f"{place}/{inside}".rstrip("/"),
                    dst_path=folder,
                    tracking_uri=self.uri,
                )
        except StoreAway:
            raise
        except (TrackingError, OSError) as error:
            raise TrackingError(
                f"{uri}: not in {redact(self.uri)} ({' '.join(redact(str(error)).split())})"
            ) from error
        return Path(path)


def _version(found: ModelVersion) -> Version:
    return Version(str(found.version), found.run_id or "", dict(found.tags))
