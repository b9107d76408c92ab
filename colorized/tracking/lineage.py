"""Lineage of a colored photograph.

The marks of the photograph (see `photo.provenance`) hold digests, which are looked up here: the
weights among files and in the registry of models, the training run in MLflow, its commit in git,
its data in DVC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colorized import photo
from colorized.model.weights import RELEASED
from colorized.photo import provenance
from colorized.text import printable
from colorized.tracking import Registry, TrackingError
from colorized.tracking.registry import COMMITTED
from colorized.tracking.store import output
from colorized.tracking.versions import read_lock

WEIGHTS = Path("models", "colorized.safetensors")
TRAININGS = Path("models", "checkpoints")


@dataclass(frozen=True)
class Fact:
    """One line of the answer.

    `found` names the places where it was found; None where it was not looked up.
    """

    name: str
    value: str
    found: tuple[str, ...] | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.name}: {self.value}"
        places = f"found: {', '.join(self.found)}" if self.found else "not found"
        return f"{self.name}: {self.value} ({places})"


def trace(path: Path, root: Path) -> list[Fact]:
    """Trace a colored photograph in the project in `root`.

    Raises ValueError: the file is missing, no picture, or has no marks or damaged ones; one line
    that names it.
    """
    name = printable(path)
    try:
        made = provenance.parse(photo.read_xmp(path))
    except photo.PhotoError:
        raise
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if made is None:
        raise ValueError(f"{name}: has no marks of this program")

    versions: tuple[str, ...] = ()
    run, missing = None, []
    try:
        registry = Registry(root)
        versions = _versions(registry, made.weights_sha256)
        run = registry.find_run(made.weights_sha256)
    except TrackingError as error:
        missing.append(Fact("MLflow store", str(error), None))
    here = noted(root, made.weights_sha256)
    run_id, tags = run or (here.get("run_id", ""), here)
    facts = [
        Fact(
            "weights",
            f"{printable(made.model)}, sha256 {made.weights_sha256}",
            (*_files(root, made.weights_sha256), *versions),
        ),
        Fact("MLflow run", run_id or "unknown", ("in the store",) if run else ()),
        *_commit(root, tags),
        Fact(
            "data",
            f"sha256 {made.data_sha256 or 'unknown'}, DVC md5 {tags.get('data_md5', 'unknown')}",
            _data(root, tags.get("data_md5", "")),
        ),
        Fact(
            "parameters",
            f"seed {made.seed}, steps {made.steps}, guidance {made.guidance:g}, "
            f"temperature {made.temperature:g}, saturation {made.saturation:g}, "
            f"sampler {printable(made.sampler)}",
            None,
        ),
        Fact("original", f"sha256 {made.original_sha256}", None),
    ]
    return facts + missing


def noted(root: Path, sha256: str) -> dict[str, str]:
    """Values that a finished training with these weights has noted, such as its run_id."""
    for path in (root / TRAININGS).glob("*/finished.json"):
        try:
            said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if said.get("weights_sha256") == sha256:
            return {key: str(value) for key, value in said.items()}
    return {}


def _files(root: Path, sha256: str) -> tuple[str, ...]:
    candidates = {str(WEIGHTS): root / WEIGHTS, "the released weights": RELEASED}
    return tuple(
        name
        for name, path in candidates.items()
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    )


def _versions(registry: Registry, sha256: str) -> tuple[str, ...]:
    version = registry.find(sha256)
    if version is None:
        return ()
    champion = registry.alias("champion")
    now = champion is not None and champion.number == version.number
    return (f"{version.uri}, the champion" if now else version.uri,)


def _commit(root: Path, tags: Mapping[str, str]) -> list[Fact]:
    """The commit that has the weights, or at which training began, and what differs from it."""
    sha = tags.get(COMMITTED) or tags.get("git_sha", "")
    # Not a text that git would parse as an option.
    there = sha.isalnum() and bool(output(root, "git", "rev-parse", "-q", f"{sha}^{{commit}}"))
    facts = [Fact("git commit", sha or "unknown", ("in this repository",) if there else ())]
    lock = output(root, "git", "show", f"{sha}:./dvc.lock") if there else ""
    recorded = {md5 for outs in read_lock(root, lock).values() for md5 in outs.values()}
    lacks = [
        what
        for what, key in (("data", "data_md5"), ("weights", "weights_md5"))
        if tags.get(key) and tags[key] not in recorded
    ]
    if there and lacks:
        facts.append(Fact(f"{' and '.join(lacks)} in dvc.lock of that commit", "others", ()))
    if not tags.get(COMMITTED) and tags.get("git_dirty", "no") != "no":
        facts.append(
            Fact(
                "changed since that commit",
                f"{tags['git_dirty']}; the run keeps dvc.lock and params.yaml",
                None,
            )
        )
    if tags.get("dvc_experiment"):
        name = tags["dvc_experiment"]
        known = output(root, "git", "for-each-ref", "--format=%(refname)", "refs/exps")
        found = any(ref.endswith(f"/{name}") for ref in known.splitlines())
        facts.append(Fact("DVC experiment", name, ("in this repository",) if found else ()))
    return facts


def _data(root: Path, md5: str) -> tuple[str, ...]:
    """Where DVC has the data: `md5` is the hash of the folder of shards."""
    if len(md5) < 32:
        return ()
    found = []
    lock = root / "dvc.lock"
    if lock.exists() and md5 in lock.read_text(encoding="utf-8"):
        found.append("dvc.lock")
    if (root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).is_file():
        found.append("DVC's cache")
    return tuple(found)
