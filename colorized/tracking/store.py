"""The store of runs and models: its address, client and errors."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import sqlite3
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from filelock import FileLock

if TYPE_CHECKING:
    import mlflow.entities
    from mlflow import MlflowClient

EXPERIMENT = "colorized"

# MLflow reads these when it is first imported or called, which functions here do lazily. With its
# own retries an unreachable server would delay a training by minutes.
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

# Between "://" and the last "@" before the path, and in a query such as ?password=….
_SECRETS = re.compile(r"(?<=://)[^/\s]*@|(?<=[?&])(\w*(?:password|token|secret)\w*=)[^&\s]+", re.I)
_SQLITE = "sqlite:///"
_LOCKED_SECONDS = 10.0
"""How long a locked SQLite file is waited for."""
_AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


class TrackingError(ValueError):
    """An error of MLflow in one line."""


class StoreUnavailable(TrackingError):
    """The store does not answer."""


def redact(text: str) -> str:
    """The text without credentials in its URLs."""
    return _SECRETS.sub(lambda found: f"{found[1]}***" if found[1] else "", text)


def home(root: Path) -> Path:
    """The folder that keeps the runs of the project in `root`: that of the repository itself.

    DVC runs queued experiments in copies of the repository that it deletes, and names the original
    in `DVC_ROOT`. A linked worktree of git shares the store of the main one.
    """
    root = root.resolve()
    if "DVC_STAGE" in os.environ and (original := os.environ.get("DVC_ROOT")):
        copy = next((p for p in (root, *root.parents) if (p / ".dvc").is_dir()), root)
        root = Path(original).resolve() / root.relative_to(copy)
    shown = output(root, "git", "rev-parse", "--git-common-dir", "--show-toplevel").splitlines()
    if len(shown) == 2:
        common, top = (root / shown[0]).resolve(), Path(shown[1]).resolve()
        main = common.parent / root.relative_to(top)
        if common.name == ".git" and main.is_dir():
            return main
    return root


def output(root: Path, *command: str) -> str:
    """Output of a command in `root`; empty when it fails or is not installed."""
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def tracking_uri(root: Path) -> str:
    """URI of the store: `MLFLOW_TRACKING_URI`, else `mlflow.db` in `home(root)`.

    The path of a SQLite file is absolute; a relative one is relative to that folder.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if not uri.startswith(_SQLITE):
        return uri
    return f"{_SQLITE}{home(root) / uri.removeprefix(_SQLITE)}"


def run_url(run_id: str) -> str:
    """The page of a run: on the server in use, else where `make ui` shows the local store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    server = redact(uri) if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{server.rstrip('/')}/#/runs/{run_id}"


def connect(root: Path) -> MlflowClient:
    """A client for `tracking_uri(root)`.

    Raises StoreUnavailable: a local store is locked, damaged, or was made by a newer MLflow.
    """
    from mlflow import MlflowClient

    uri = tracking_uri(root)
    if not uri.startswith(_SQLITE):
        return MlflowClient(uri)
    path = Path(uri.removeprefix(_SQLITE))
    # MLflow makes the tables in many steps, which must not interleave with another process.
    with FileLock(f"{path}.lock"), one_line(), quiet():
        _check(path)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _check(path: Path) -> None:
    """Refuse a SQLite file that MLflow would retry to open for an hour."""
    import mlflow

    if not path.exists():
        return
    address = f"file:{quote(str(path))}?mode=rw"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_LOCKED_SECONDS)) as db:
            db.execute("BEGIN IMMEDIATE")
            tables = db.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'")
            made_by = tables.fetchone() and db.execute("SELECT * FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"MLflow: {path}: {error}") from error
    versions = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if made_by and not any(versions.glob(f"{made_by[0]}_*.py")):
        raise StoreUnavailable(
            f"MLflow: {path}: made by a newer MLflow than the installed {mlflow.__version__} "
            f"(schema {made_by[0]})"
        )


@contextmanager
def one_line() -> Iterator[None]:
    """Reraise errors of MLflow as `TrackingError` or `StoreUnavailable`."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        away = getattr(error, "error_code", "INTERNAL_ERROR") in _AWAY
        message = f"MLflow: {' '.join(redact(str(error)).split())}"
        raise (StoreUnavailable if away else TrackingError)(message) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without log messages and warnings of MLflow and Alembic."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def missing(error: TrackingError) -> bool:
    """Whether the error is that something does not exist."""
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
            artifacts = (home(root) / "mlartifacts").as_uri()
            return client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise TrackingError(f"MLflow: the experiment {EXPERIMENT} cannot be made")
    return found.experiment_id


def search(client: MlflowClient, filter: str, most: int = 1000) -> list[mlflow.entities.Run]:
    """Runs of the experiment `colorized`, the newest first; none where it is not there."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    newest = ["attributes.start_time DESC"]
    ids = [experiment.experiment_id]
    return list(client.search_runs(ids, filter, max_results=most, order_by=newest))


def installed() -> bool:
    """Whether this machine has MLflow; asked without importing it."""
    try:
        return importlib.util.find_spec("mlflow") is not None
    except ModuleNotFoundError:
        return False
