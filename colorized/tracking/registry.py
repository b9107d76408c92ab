"""The registry of models."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from colorized.tracking.runs import Run
from colorized.tracking.store import (
    EXPERIMENT,
    StoreAway,
    TrackingError,
    connect,
    missing,
    one_line,
    quiet,
    redact,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL = "colorized"
"""Name of the registered model."""
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
        local = root.resolve() / "mlflow.db"
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
            if isinstance(error, StoreAway) or not missing(error):
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
        with one_line():
            with contextlib.suppress(TrackingError), one_line():  # it is there already
                self.client.create_registered_model(MODEL)
            place = f"model-{tags['weights_sha256'][:12]}"
            self.client.log_artifacts(run.run_id, str(model), place)
            shown = {key: redact(value) for key, value in tags.items()}
            source = f"runs:/{run.run_id}/{place}"
            made = self.client.create_model_version(MODEL, source, run.run_id, tags=shown)
        return _version(made)

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
            with one_line(), quiet():
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
        except StoreAway:
            raise
        except (TrackingError, OSError) as error:
            raise TrackingError(
                f"{uri}: not in {redact(self.uri)} ({' '.join(redact(str(error)).split())})"
            ) from error
        return Path(path)


def _version(found: ModelVersion) -> Version:
    return Version(str(found.version), found.run_id or "", dict(found.tags))
