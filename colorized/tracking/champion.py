"""Which version of the registered model is in use: the aliases `champion` and `previous`."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from colorized import color
from colorized.tracking.registry import MODEL, Registry, Version
from colorized.tracking.runs import Run
from colorized.tracking.store import TrackingError, quiet

CHAMPION, PREVIOUS = "champion", "previous"
ROLLED_BACK = "rolled_back"
"""Tag of a version that is not promoted again by itself."""


def register(registry: Registry, run: Run, weights: Path, tags: dict[str, str]) -> Version:
    """Add a version with these weights to the registered model."""
    with TemporaryDirectory() as name, quiet():
        # Only here, for it imports MLflow's serving.
        from colorized.tracking import pyfunc

        folder = Path(name) / "model"
        pyfunc.save(weights, folder)
        return registry.register(run, folder, tags)


def switch(registry: Registry, new: Version) -> str:
    """Make `new` the champion, if it can color a picture; returns why not, or "".

    On failure the aliases are as before.
    """
    before = {name: registry.alias(name) for name in (PREVIOUS, CHAMPION)}
    try:
        if before[CHAMPION] is not None:
            registry.set_alias(PREVIOUS, before[CHAMPION])
        registry.set_alias(CHAMPION, new)
        smoke(registry, f"models:/{MODEL}@{CHAMPION}")
    except BaseException as error:
        for name, version in before.items():
            registry.set_alias(name, version)
        if not isinstance(error, ValueError):
            raise
        return f"reverted: {error}"
    return ""


def rollback(registry: Registry) -> tuple[Version, Version]:
    """Exchange champion and previous; the champion from now on, and the one until now.

    The version that was rolled back is not promoted again, unless by a second rollback. Raises
    TrackingError when there is no previous champion, or it cannot color a picture: nothing has
    changed.
    """
    old, new = registry.alias(CHAMPION), registry.alias(PREVIOUS)
    if old is None or new is None:
        raise TrackingError("there is no previous champion to go back to")
    failed = switch(registry, new)
    if failed:
        raise TrackingError(failed)
    registry.untag(new, ROLLED_BACK)
    registry.tag(old, {ROLLED_BACK: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})
    return new, old


def smoke(registry: Registry, uri: str) -> None:
    """Check that a registered model colors a small picture.

    Raises ValueError when it fails, or the result is not that picture in color.
    """
    levels = np.tile(np.linspace(40, 220, 48).astype(np.uint8), (32, 1))
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="PNG")
    try:
        (answer,) = registry.predict(uri, [file.getvalue()])
        with Image.open(io.BytesIO(answer)) as opened:
            colored = np.asarray(opened.convert("RGB"))
    except Exception as error:  # what is loaded is code of any version
        reason = " ".join(str(error).split())
        raise ValueError(f"{uri} does not color a picture: {reason}") from error
    if colored.shape != (*levels.shape, 3):
        raise ValueError(f"{uri} gives {colored.shape}, not the picture's size {levels.shape}")
    L = color.lightness(np.repeat(levels[..., None], 3, axis=-1) / 255)
    if np.abs(color.lightness(colored / 255) - L).max() > 1:
        raise ValueError(f"{uri} changes the picture's lightness")
    if not np.ptp(colored.astype(int), axis=-1).any():
        raise ValueError(f"{uri} gives no color")
