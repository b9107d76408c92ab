"""The store of runs and models: where it is, and what it answers."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "colorized"

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
_AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


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


@contextmanager
def one_line() -> Iterator[None]:
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


def missing(error: TrackingError) -> bool:
    """Whether MLflow says that there is no such thing."""
    code = getattr(error.__cause__, "error_code", "")
    # An alias that was never set is an invalid parameter for some stores.
    return code == "RESOURCE_DOES_NOT_EXIST" or "not found" in str(error)


def experiment_id(client: MlflowClient, root: Path) -> str:
    """Id of the experiment `colorized`, which is made where it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        with contextlib.suppress(TrackingError), one_line():  # another process was faster
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
