"""Champion and challenger: models/colorized.safetensors → a version of the registered model.

Every challenger that can be loaded becomes a version, with what was measured and the verdict's
reasons as its tags: so the registry holds every decision, and a model that was turned down can be
looked at and served. The aliases `champion` and `previous` move on promotion alone. This is a side
effect, and therefore no stage of DVC.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from colorized import color, devices, tracking
from colorized.data import index
from colorized.data.dataset import open_shard
from colorized.evaluation import inception, metrics, promotion
from colorized.evaluation.promotion import Measured, Protocol, Verdict
from colorized.inference.colorizer import ChromaSampler
from colorized.model.weights import CheckpointError, Weights, load_weights
from colorized.params import Params, load_params
from colorized.tracking import Registry, Run, TrackingError, Version
from pipelines import lock, sample, stage

CHAMPION, PREVIOUS = "champion", "previous"


def promote(root: Path, dry_run: bool = False) -> Verdict:
    """Measure the new weights against the champion; promote them if they are better.

    With `dry_run` nothing is written to the registry.

    Raises
    ------
    ValueError
        When there are no weights or no test pictures, or MLflow refuses; one line.
    """
    with lock.take(root):
        params = load_params(root / "params.yaml")
        path = _in(root, stage.WEIGHTS)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such weights file; run `dvc repro` first")
        registry = Registry(root, create=True)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known, old = registry.find(sha256), registry.alias(CHAMPION)
        if old is not None and old.tags.get("weights_sha256") == sha256:
            return Verdict(False, [f"version {old.number}, the champion, has these weights"])
        if known is not None and "rolled_back" in known.tags:
            return Verdict(False, [f"version {known.number}, with these weights, was rolled back"])

        device = devices.open_device(params.train.device)
        holdout = Holdout(root, params)
        try:
            weights = load_weights(path, device)
        except CheckpointError as error:
            verdict = Verdict(False, [str(error)])
            if not dry_run:
                _note(_run(root, sha256), verdict)
            return verdict
        measured = _known(known, holdout.protocol) or holdout.measure(weights, "challenger")
        theirs = _known(old, holdout.protocol)
        if old is not None and theirs is None:
            with registry.weights(old.uri) as kept:
                theirs = holdout.measure(load_weights(kept, device), "champion")
            if not dry_run:
                registry.tag(old, _tags(holdout.protocol, theirs))
        verdict = promotion.verdict(
            measured, theirs, params.promote.margin, params.promote.min_colorfulness
        )
        if dry_run:
            return verdict

        run = _run(root, sha256)
        tags = {"weights_sha256": sha256, **_tags(holdout.protocol, measured)}
        if known is None:
            known = register(registry, run, path, tags)
        else:
            registry.tag(known, tags)
        if verdict.promoted:
            verdict = _switch(registry, known, old, verdict)
        _note(run, verdict)
        registry.tag(known, _reasons(verdict))
        return verdict


def rollback(root: Path) -> tuple[Version, Version]:
    """Exchange champion and previous; the champion from now on, and the one until now.

    The version that was rolled back is not promoted again, unless by a second rollback.

    Raises
    ------
    ValueError
        When there is no previous champion, or it cannot color a picture: nothing has changed.
    """
    with lock.take(root):
        registry = Registry(root)
        old, new = registry.alias(CHAMPION), registry.alias(PREVIOUS)
        if old is None or new is None:
            raise TrackingError("there is no previous champion to go back to")
        verdict = _switch(registry, new, old, Verdict(True, []))
        if not verdict.promoted:
            raise TrackingError("; ".join(verdict.reasons))
        registry.untag(new, "rolled_back")
        registry.tag(old, {"rolled_back": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"})
        return new, old


def register(registry: Registry, run: Run, weights: Path, tags: dict[str, str]) -> Version:
    """Add a version that can be served, with these weights, to the registered model."""
    with TemporaryDirectory() as name, tracking.quiet():
        # Only here, for it imports MLflow's serving.
        from colorized.tracking import pyfunc

        folder = Path(name) / "model"
        pyfunc.save(weights, folder)
        return registry.register(run, folder, tags)


class Holdout:
    """The test pictures that models meet on: the first ones that the sample stage colors."""

    def __init__(self, root: Path, params: Params) -> None:
        lab = _in(root, stage.LAB)
        self.sample = params.sample
        self.features = _in(root, stage.FEATURES)
        self.shard = open_shard(lab, "test")
        self.rows = index.holdout(lab, "test", params.promote.pictures)
        digest = hashlib.sha256()
        for array in (self.shard.L, self.shard.ab):
            digest.update(np.ascontiguousarray(array[self.rows]).tobytes())
        count = len(self.rows)
        self.protocol = Protocol(
            data_sha256=digest.hexdigest(),
            pictures=count,
            image_size=self.shard.size,
            # The first draw is the sample stage's; no noise is used twice.
            seeds=tuple(params.sample.seed + k * count for k in range(params.promote.seeds)),
            sampler=params.sample.sampler,
            steps=params.sample.steps,
            guidance=params.sample.guidance,
            temperature=params.sample.temperature,
            extractor_sha256=inception.EXTRACTOR_SHA256,
        )

    def measure(self, weights: Weights, name: str) -> Measured:
        """Color all pictures once for each seed of the protocol; `name` is for the progress bar."""
        extractor = inception.InceptionExtractor()
        colorizer = ChromaSampler(weights)
        options = sample.sampling(colorizer, self.sample)
        pictures = [sample.picture(self.shard, row) for row in self.rows]
        true = [color.recombine(L, ab) for L, ab in pictures]
        gray = [color.recombine(L, np.zeros_like(ab)) for L, ab in pictures]

        def features(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return inception.cached_features(extractor, images, self.features)

        real = features(true)
        finite = True
        distances: list[float] = []
        colorfulness: list[float] = []
        for seed in self.protocol.seeds:
            images = []
            for i, (L, _) in enumerate(track(pictures, description=f"{name}, seed {seed}")):
                ab = colorizer.colorize(L, options.override(seed=seed + i))
                finite = finite and bool(np.isfinite(ab).all())
                images.append(color.recombine(L, np.nan_to_num(ab)))
            if not finite:
                break
            distances.append(metrics.frechet_distance(features(images), real))
            colorfulness.append(_colorfulness(images))
        return Measured(
            fid=tuple(distances) if finite else (),
            fid_monochrome=metrics.frechet_distance(features(gray), real),
            colorfulness=float(np.mean(colorfulness)) if finite else 0.0,
            colorfulness_real=_colorfulness(true),
            finite=finite,
        )


def smoke(registry: Registry, uri: str) -> None:
    """Let a registered model color a small picture, as its users will.

    Raises
    ------
    ValueError
        When it fails, or what it gives is not that picture in color.
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
    if metrics.lightness_error(colored, L) > 1:
        raise ValueError(f"{uri} changes the picture's lightness")
    if not np.ptp(colored.astype(int), axis=-1).any():
        raise ValueError(f"{uri} gives no color")


def _switch(registry: Registry, new: Version, old: Version | None, verdict: Verdict) -> Verdict:
    """Make `new` the champion; back to how it was when it cannot be used under that name."""
    before = {name: registry.alias(name) for name in (PREVIOUS, CHAMPION)}
    with _reverting(registry, before) as failed:
        if old is not None:
            registry.set_alias(PREVIOUS, old)
        registry.set_alias(CHAMPION, new)
        smoke(registry, f"models:/{tracking.MODEL}@{CHAMPION}")
    if failed:
        return Verdict(False, [*verdict.reasons, *failed])
    return verdict


@contextmanager
def _reverting(registry: Registry, before: dict[str, Version | None]) -> Iterator[list[str]]:
    """Give the aliases back when the block fails; the list says why, if it did."""
    failed: list[str] = []
    try:
        yield failed
    except BaseException as error:
        for name, version in before.items():
            registry.set_alias(name, version)
        if not isinstance(error, ValueError):
            raise
        failed.append(f"reverted: {error}")


def _colorfulness(images: list[NDArray[np.uint8]]) -> float:
    return float(np.mean([metrics.colorfulness(image) for image in images]))


def _known(version: Version | None, protocol: Protocol) -> Measured | None:
    """What the version's tags say was measured under this protocol."""
    if version is None or version.tags.get("protocol") != protocol.hash:
        return None
    return Measured.from_json(version.tags["measured"])


def _tags(protocol: Protocol, measured: Measured) -> dict[str, str]:
    tags = {"protocol": protocol.hash, "measured": measured.to_json()}
    if not math.isnan(measured.mean):
        tags |= {"fid": f"{measured.mean:.2f}", "fid_band": f"{measured.band:.2f}"}
    return tags


def _reasons(verdict: Verdict) -> dict[str, str]:
    return {
        "promotion": "promoted" if verdict.promoted else "turned down",
        "promotion_reasons": "; ".join(verdict.reasons),
    }


def _note(run: Run, verdict: Verdict) -> None:
    run.tags(_reasons(verdict))
    run.flush()


def _run(root: Path, sha256: str) -> Run:
    """The run that trained these weights, or one of their own where this store does not have it."""
    note = _in(root, stage.RUN)
    if note.exists():
        about = json.loads(note.read_text(encoding="utf-8"))
        run = Run.reopen(root, about["run_id"]) if about["weights_sha256"] == sha256 else None
        if run is not None:
            return run
    found = Registry(root).find_run(sha256)
    run = Run.reopen(root, found[0]) if found else None
    if run is None:
        run = Run.start(root, f"weights {sha256[:12]}", {}, {"weights_sha256": sha256})
        run.finish()
    return run


def _in(root: Path, path: Path) -> Path:
    return root / path.relative_to(stage.ROOT)
