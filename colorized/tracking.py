"""The only import of mlflow: runs, their parameters, curves, pictures and files.

Metrics go to the server `MLFLOW_TRACKING_URI` names, or to a SQLite file in the project's folder.
A `Run` holds its id and nothing global, so a stage can write to the run of another.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "colorized"

# MLflow reads these when it is first imported, which every function here leaves for later.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


class TrackingError(ValueError):
    """One line that says what MLflow refused."""


def tracking_uri(root: Path) -> str:
    """Where runs are kept: `MLFLOW_TRACKING_URI`, else `mlflow.db` in `root`, an absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def connect(root: Path) -> MlflowClient:
    """A client for `tracking_uri(root)`."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri(root))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{'train': {'steps': 4}} → {'train.steps': '4'}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


@contextmanager
def _one_line() -> Iterator[None]:
    """MLflow's errors, of a server that is not there, of a deleted experiment, as ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise TrackingError(f"MLflow: {' '.join(str(error).split())}") from error


class Run:
    """One MLflow run.

    As a context manager it ends as FINISHED, KILLED when a user stopped it, or FAILED.
    Whatever MLflow refuses is a `TrackingError`.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    @classmethod
    def start(
        cls, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Run:
        """Open a run in the experiment `colorized` and log `params`, flattened."""
        from mlflow.entities import Param

        with _one_line():
            client = connect(root)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is not None:
                experiment_id = experiment.experiment_id
            elif os.environ.get("MLFLOW_TRACKING_URI"):  # a server knows where its artifacts go
                experiment_id = client.create_experiment(EXPERIMENT)
            else:
                artifacts = (root.resolve() / "mlartifacts").as_uri()
                experiment_id = client.create_experiment(EXPERIMENT, artifact_location=artifacts)
            run = client.create_run(experiment_id, run_name=name, tags=dict(tags))
            run_id = run.info.run_id
            client.log_batch(run_id, params=[Param(k, v) for k, v in flatten(params).items()])
        return cls(client, run_id)

    @classmethod
    def reopen(cls, root: Path, run_id: str) -> Run | None:
        """The run of this id, or None when this store does not know it or it was deleted."""
        from mlflow.exceptions import MlflowException

        with _one_line():
            client = connect(root)
            try:
                run = client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        return cls(client, run_id) if run.info.lifecycle_stage == "active" else None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of one step, in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = [Metric(k, float(v), now, step) for k, v in values.items()]
        with _one_line():
            self.client.log_batch(self.run_id, metrics=numbers)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        with _one_line():
            self.client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in values.items()])

    def dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Note what the run was trained on: the `digest` its owner knows it by, and its counts."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name, digest, "local", json.dumps({"uri": source}), None, json.dumps(profile)
        )
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        with _one_line():
            self.client.log_inputs(self.run_id, datasets=inputs)

    def folder(self, path: Path, name: str) -> None:
        """Keep a copy of all files of a folder under `name` of the artifacts."""
        with _one_line():
            self.client.log_artifacts(self.run_id, str(path), name)

    def file(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file under `folder` of the artifacts."""
        with _one_line():
            self.client.log_artifact(self.run_id, str(path), folder or None)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        with _one_line():
            self.client.set_terminated(self.run_id, status)

    def __enter__(self) -> Run:
        with _one_line():
            self.client.update_run(self.run_id, "RUNNING")  # again, where it goes on after a stop
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.finish("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")
