"""Registering models/colorized.safetensors and comparing it with the champion.

Every challenger that can be loaded becomes a version of the registered model, with its measurements
and the reasons of the decision as tags. The aliases `champion` and `previous` change on promotion
only. This is a side effect and therefore not a stage of DVC.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from colorized import devices
from colorized.evaluation import promotion
from colorized.evaluation.holdout import Holdout
from colorized.evaluation.promotion import Measured, Verdict
from colorized.model.weights import CheckpointError, load_weights
from colorized.params import load_params
from colorized.progress import Progress
from colorized.tracking import Registry, Run, Version, champion, deliver, versions
from pipelines import lock, stage


def promote(root: Path, dry_run: bool = False) -> Verdict:
    """Measure the new weights against the champion; promote them if they are better.

    With `dry_run` nothing is written to the registry. Raises ValueError of one line: no weights,
    no validation pictures, or an error of MLflow.
    """
    with lock.take(root):
        params = load_params(root / "params.yaml")
        path = _in(root, stage.WEIGHTS)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such weights file; run `dvc repro` first")
        registry = Registry(root, create=True)
        if not dry_run:  # the run that trained the weights may be unsent
            deliver(root)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known, old = registry.find(sha256), registry.alias(champion.CHAMPION)
        if old is not None and old.tags.get("weights_sha256") == sha256:
            return Verdict(False, [f"version {old.number}, the champion, has these weights"], {})
        if known is not None and champion.ROLLED_BACK in known.tags:
            why = f"version {known.number}, with these weights, was rolled back"
            return Verdict(False, [why], {})

        device = devices.open_device(params.train.device)
        try:
            weights = load_weights(path, device)
        except CheckpointError as error:
            verdict = Verdict(False, [str(error)], {})
            if not dry_run:
                _note(_run(root, registry, sha256), verdict)
            return verdict
        p = params.sample
        holdout = Holdout(
            _in(root, stage.LAB),
            params.promote.pictures,
            params.promote.seeds,
            p.seed,
            p.model_dump(include={"sampler", "steps", "guidance", "temperature"}),
            _in(root, stage.FEATURES),
            device,
        )
        protocol = holdout.protocol.hash
        measured = _known(registry, known, protocol) or holdout.measure(weights, "challenger")
        theirs = _known(registry, old, protocol)
        if old is not None and theirs is None:
            with registry.weights(old.uri) as kept:
                theirs = holdout.measure(load_weights(kept, device), "champion")
            if not dry_run:
                registry.keep_measured(old, protocol, theirs.to_bytes())
        with Progress("bootstrap over photographs", "resamples", promotion.RESAMPLES) as shown:
            verdict = promotion.verdict(
                measured,
                theirs,
                holdout.reference(),
                params.promote.margin,
                params.promote.min_colorfulness,
                shown.advance,
            )
        if dry_run:
            return verdict

        run = _run(root, registry, sha256)
        if known is None:
            tags = {"weights_sha256": sha256, **versions.describe(root)}
            known = champion.register(registry, run, path, tags)
        registry.keep_measured(known, protocol, measured.to_bytes())
        figures = {f"holdout_fid_{name}": fid for name, fid in verdict.fids.items()}
        registry.log_metrics(known, figures | {"holdout_colorfulness": measured.colorfulness})
        if verdict.promoted and (failed := champion.switch(registry, known)):
            verdict = Verdict(False, [*verdict.reasons, failed], verdict.fids)
        _note(run, verdict)
        registry.tag(known, _reasons(verdict))
        return verdict


def rollback(root: Path) -> tuple[Version, Version]:
    """Exchange champion and previous: see `champion.rollback`."""
    with lock.take(root):
        return champion.rollback(Registry(root))


def _known(registry: Registry, version: Version | None, protocol: str) -> Measured | None:
    """The version's measurements under this protocol, if there are any."""
    data = version and registry.measured(version, protocol)
    return Measured.from_bytes(data) if data else None


def _reasons(verdict: Verdict) -> dict[str, str]:
    return {
        "promotion": "promoted" if verdict.promoted else "turned down",
        "promotion_reasons": "; ".join(verdict.reasons),
    }


def _note(run: Run, verdict: Verdict) -> None:
    run.tags(_reasons(verdict))
    run.flush()


def _run(root: Path, registry: Registry, sha256: str) -> Run:
    """The run that trained these weights, or a new one if this store does not have it."""
    found = registry.find_run(sha256)
    run = Run.reopen(root, found[0]) if found else None
    if run is None:
        run = Run.start(root, f"weights {sha256[:12]}", {}, {"weights_sha256": sha256})
        run.finish()
    return run


def _in(root: Path, path: Path) -> Path:
    return root / path.relative_to(stage.ROOT)
