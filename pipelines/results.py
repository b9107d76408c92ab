"""The results of a retraining: runs in MLflow, artifacts in Prefect."""

from __future__ import annotations

import base64
import io
import json
import os
from typing import Any

from PIL import Image
from prefect import State
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from colorized import tracking
from colorized.data import index
from colorized.params import Params
from colorized.tracking import versions
from pipelines import stage

GRID_PIXELS = 1200
"""Longer side of the picture grid in Prefect's database."""


def log(run: tracking.Run | tracking.FileRun, params: Params) -> None:
    """Log metrics, data, hashes and versions to the run of the retraining."""
    run.tags(_md5s())
    versions.log(run, stage.ROOT)
    found = json.loads(stage.METRICS.read_text(encoding="utf-8"))
    run.metrics(0, {name: found[name] for name in tracking.HEADLINES})
    stats = index.read_stats(stage.LAB)
    profile = {key: stats[key] for key in ("photographs", "crops", "left_out", "image_size")}
    run.dataset(params.data.source, versions.data_md5(stage.ROOT), "data/lab", profile)
    run.file(stage.GRID)
    run.describe("Test pictures", {n: found[n] for n in tracking.HEADLINES}, stage.GRID.name)


def log_stage(name: str, section: dict[str, Any], started: float, status: str) -> None:
    """Log a child run for a stage that has none: its parameters and the md5 of its results."""
    parent = os.environ[tracking.PARENT]
    tags = {"stage": name, **_md5s(name)}
    tracking.open_run(stage.ROOT, name, section, tags, parent, started).finish(status)


def show() -> None:
    """Add the table of metrics and the picture grid to Prefect's page of the run."""
    values = json.loads(stage.METRICS.read_text(encoding="utf-8"))
    rows = (f"| {k} | {f'{v:.4g}' if isinstance(v, float) else v} |" for k, v in values.items())
    table = "\n".join(["| metric | value |", "|---|---:|", *rows])
    create_markdown_artifact(table, key="metrics", description="of the test split")
    with Image.open(stage.GRID) as grid:
        grid.thumbnail((GRID_PIXELS, GRID_PIXELS))
        jpeg = io.BytesIO()
        grid.convert("RGB").save(jpeg, "JPEG", quality=85)
    data = base64.b64encode(jpeg.getvalue()).decode()
    # An artifact of type image would also show its URL: all of this base64 text.
    create_markdown_artifact(
        f"![picture grid](data:image/jpeg;base64,{data})",
        key="grid",
        description="test photographs",
    )


def up_to_date() -> State[Any]:
    """The state of a run that did not retrain, also shown on its page."""
    message = "up to date, nothing retrained"
    create_markdown_artifact(
        f"Data, parameters and code are those of the last run: {message}.", key="result"
    )
    return Completed(name="Up to date", message=message)


def _md5s(*names: str) -> dict[str, str]:
    """The md5 in dvc.lock of every output of these stages, or of all stages."""
    found = versions.read_lock(stage.ROOT)
    chosen = (outs for name, outs in found.items() if name in (names or found))
    return {f"dvc.{path}": md5 for outs in chosen for path, md5 in outs.items()}
