"""The registry of models."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from colorized.tracking.runs import Run, now_ms
from colorized.tracking.store import (
    StoreUnavailable,
    TrackingError,
    connect,
    home,
    missing,
    one_line,
    quiet,
    redact,
    search,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL = "colorized"
"""Name of the registered model."""
COMMITTED = "committed_as"
"""Tag of a run: the commit whose dvc.lock has its results."""
MODEL_ID = "model_id"
"""Tag of a version: the id of its logged model."""
PROMOTION = "promotion"
"""Artifact folder of measurements of a run's weights."""
CHECKPOINTS = "checkpoints"
"""Artifact folder of checkpoints."""
WEIGHTS_FILE = "colorized.safetensors"
_URI = re.compile(
    r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/]+)|/(?P<number>\d+))|runs:/(?P<run>\w+)"
)


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
        local = home(root) / "mlflow.db"
        if not (create or os.environ.get("MLFLOW_TRACKING_URI") or local.exists()):
            raise TrackingError(
                f"{local}: no such MLflow store; work in the project's folder, "
                "or name a store with MLFLOW_TRACKING_URI"
            )
        self.uri = tracking_uri(root)
        with one_line():
            self.client = connect(root)

    def alias(self, name: str) -> Version | None:
        """The version that has the alias."""
        try:
            with one_line():
                return _version(self.client.get_model_version_by_alias(MODEL, name))
        except TrackingError as error:
            if isinstance(error, StoreUnavailable) or not missing(error):
                raise
            return None

    def set_alias(self, name: str, version: Version | None) -> None:
        """Give the alias to a version, or take it away."""
        with one_line():
            if version is None:
                self.client.delete_registered_model_alias(MODEL, name)
            else:
                self.client.set_registered_model_alias(MODEL, name, version.number)

    def find(self, weights_sha256: str) -> Version | None:
        """The newest version with these weights."""
        with one_line():
            found = self.client.search_model_versions(f"name='{MODEL}'")
        same = [v for v in found if v.tags.get("weights_sha256") == weights_sha256]
        return _version(max(same, key=lambda v: int(v.version))) if same else None

    def find_run(self, weights_sha256: str) -> tuple[str, dict[str, str]] | None:
        """Id and tags of the newest run that ended with these weights."""
        with one_line():
            runs = search(self.client, f"tags.weights_sha256 = '{weights_sha256}'", 1)
        return (runs[0].info.run_id, dict(runs[0].data.tags)) if runs else None

    def name_commit(self, weights_sha256: str, sha: str) -> None:
        """Tag the run of these weights, its parent and its evaluations with their commit."""
        found = self.find_run(weights_sha256)
        if found is None:
            return
        run_id, tags = found
        with one_line():
            experiment = self.client.get_run(run_id).info.experiment_id
            children = self.client.search_runs(
                [experiment], f"tags.`mlflow.parentRunId` = '{run_id}'"
            )
            parent = tags.get("mlflow.parentRunId")
            for each in (run_id, *([parent] if parent else []), *(r.info.run_id for r in children)):
                self.client.set_tag(each, COMMITTED, sha)

    def remove_checkpoints(self, keep: int, dry_run: bool = False) -> list[str]:
        """Remove the checkpoints among the files of all trainings but the last `keep` that ended.

        Curves, grids and weights stay. Returns one line per run.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        lines = []
        with one_line():
            ended = search(self.client, "tags.stage = 'train' and attributes.status = 'FINISHED'")
            for run in ended[keep:]:
                run_id = run.info.run_id
                files = self.client.list_artifacts(run_id, CHECKPOINTS)
                if not files:
                    continue
                if not dry_run:
                    repository = get_artifact_repository(run.info.artifact_uri, self.uri)
                    repository.delete_artifacts(CHECKPOINTS)
                size = sum(file.file_size or 0 for file in files)
                lines.append(f"checkpoints of run {run_id}: {size / 1e6:.0f} MB")
        return lines

    def register(self, run: Run, model: Path, tags: Mapping[str, str]) -> Version:
        """Add a version: the folder of a saved model, of which the store gets a copy.

        `tags` hold the `weights_sha256`, by which versions are found.
        """
        with one_line():
            with contextlib.suppress(TrackingError), one_line():  # it is there already
                self.client.create_registered_model(MODEL)
            experiment = self.client.get_run(run.run_id).info.experiment_id
            shown = {key: redact(value) for key, value in tags.items()}
            logged = self.client.create_logged_model(experiment, MODEL, run.run_id, shown)
            self.client.log_model_artifacts(logged.model_id, str(model))
            self.client.finalize_logged_model(logged.model_id, "READY")
            # Stores do not keep which logged model a version is.
            shown |= {MODEL_ID: logged.model_id}
            made = self.client.create_model_version(
                MODEL, logged.artifact_location, run.run_id, shown
            )
        return _version(made)

    def log_metrics(self, version: Version, values: Mapping[str, float]) -> None:
        """Log numbers of a version: on its run, on its logged model, and as its tags."""
        from mlflow.entities import Metric

        numbers = [
            Metric(key, value, now_ms(), 0, model_id=version.tags.get(MODEL_ID))
            for key, value in values.items()
            if math.isfinite(value)
        ]
        with one_line():
            self.client.log_batch(version.run_id, metrics=numbers)
        self.tag(version, {number.key: f"{number.value:.4g}" for number in numbers})

    def keep_measured(self, version: Version, protocol: str, data: bytes) -> None:
        """Store the measurements of a version under a protocol as an artifact of its run."""
        with TemporaryDirectory() as folder, one_line():
            path = Path(folder) / _measured(version, protocol)
            path.write_bytes(data)
            self.client.log_artifact(version.run_id, str(path), PROMOTION)

    def measured(self, version: Version, protocol: str) -> bytes | None:
        """The stored measurements of a version under a protocol, if any."""
        with one_line():
            path = f"{PROMOTION}/{_measured(version, protocol)}"
            there = {found.path for found in self.client.list_artifacts(version.run_id, PROMOTION)}
            if path not in there:
                return None
            with TemporaryDirectory() as folder:
                kept = self.client.download_artifacts(version.run_id, path, folder)
                return Path(kept).read_bytes()

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with one_line():
            for key, value in tags.items():
                self.client.set_model_version_tag(MODEL, version.number, key, redact(value))

    def untag(self, version: Version, key: str) -> None:
        """Remove a tag of a version, if it is there."""
        if key in version.tags:
            with one_line():
                self.client.delete_model_version_tag(MODEL, version.number, key)

    @contextmanager
    def weights(self, uri: str) -> Iterator[Path]:
        """A temporary copy of the weights of `models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/ID`."""
        place = "artifacts" if uri.startswith("models:/") else "weights"
        with TemporaryDirectory() as folder:
            yield self._fetch(uri, f"{place}/{WEIGHTS_FILE}", folder)

    def predict(self, uri: str, images: Sequence[bytes]) -> list[bytes]:
        """Color image files by a registered model; returns PNG files."""
        with TemporaryDirectory() as folder:
            path = self._fetch(uri, "", folder)
            with one_line(), quiet():
                import mlflow.pyfunc
                import pandas as pd

                model = mlflow.pyfunc.load_model(str(path))
                table = model.predict(pd.DataFrame({"image": list(images)}))
        return [base64.b64decode(text) for text in table["image"]]

    def _fetch(self, uri: str, inside: str, folder: str) -> Path:
        """Download a path of the artifacts of a URI."""
        from mlflow.artifacts import download_artifacts

        found = _URI.fullmatch(uri)
        if found is None:
            raise TrackingError(
                f"{uri}: must be models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID"
            )
        try:
            with one_line():
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
        except StoreUnavailable:
            raise
        except (TrackingError, OSError) as error:
            raise TrackingError(
                f"{uri}: not in {redact(self.uri)} ({' '.join(redact(str(error)).split())})"
            ) from error
        return Path(path)


def _version(found: ModelVersion) -> Version:
    return Version(str(found.version), found.run_id or "", dict(found.tags))


def _measured(version: Version, protocol: str) -> str:
    """Name of the file: a run may have weights of several versions."""
    return f"{protocol}-{version.tags['weights_sha256'][:12]}.npz"
