"""Champion and challenger with real models, a real registry, real pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from mlflow_server import save_params, small_project

from colorized import progress
from colorized.evaluation.promotion import Measured
from colorized.model.weights import RELEASED, ModelConfig, load_weights, save_weights
from colorized.tracking import FileRun, Registry, Run, TrackingError, champion
from pipelines import promote as stage

pytestmark = pytest.mark.slow

WEIGHTS = load_weights(RELEASED)


SECRET = "hunter2-of-the-test"


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "KAGGLE_KEY"):
            patch.setenv(name, SECRET)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project(tmp_path_factory.mktemp("promote") / "project")


@pytest.fixture(scope="module")
def registry(root: Path) -> Registry:
    return Registry(root, create=True)


def weights_file(root: Path) -> Path:
    return root / "models" / "colorized.safetensors"


def trained(root: Path, config: ModelConfig = WEIGHTS.config, noise: float = 0.0) -> None:
    """Put weights where training puts them: the released ones, changed."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: t + noise * t.std(correction=0) * torch.randn(t.shape, generator=generator)
        for name, t in WEIGHTS.denoiser.network.state_dict().items()
    }
    save_weights(weights_file(root), tensors, config, {"noise": noise})


def chroma(share: float) -> ModelConfig:
    """Of a model whose colors are this many times as strong."""
    a, b = WEIGHTS.config.ab_std
    return replace(WEIGHTS.config, ab_std=(a * share, b * share))


# Of the first champion, garish: the same draws, so that few photographs tell it from BETTER beyond
# chance (FID 162 and 122, 95 % interval of the difference -75 to -16).
FIRST, BETTER = chroma(3), WEIGHTS.config


def aliases(registry: Registry) -> Mapping[str, str | None]:
    found = {name: registry.alias(name) for name in ("champion", "previous")}
    return {name: version and version.number for name, version in found.items()}


def test_rollback_needs_a_champion(root: Path, registry: Registry) -> None:
    with pytest.raises(TrackingError, match="there is no previous champion"):
        stage.rollback(root)


def test_without_weights(root: Path) -> None:
    with pytest.raises(ValueError, match=r"no such weights file; run `dvc repro` first"):
        stage.promote(root)


def test_first_champion(
    root: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained(root, FIRST)
    # Its run could not be sent to the store yet.
    sha256 = hashlib.sha256(weights_file(root).read_bytes()).hexdigest()
    FileRun.start(root, "train", {}, {"weights_sha256": sha256}).finish()
    # A dry run judges the same and leaves nothing. Whoever waits sees what takes long.
    monkeypatch.setattr(progress, "SECONDS", 0.001)
    dry = stage.promote(root, dry_run=True)
    said = {line.rpartition(": ")[0] for line in capsys.readouterr().err.splitlines()}
    assert said >= {
        *(f"challenger, draw {k} of 2" for k in (1, 2)),
        *(f"challenger, draw {k} of 2: Inception features" for k in (1, 2)),
        *(f"{which} colors: Inception features" for which in ("true", "no")),
    }
    assert registry.client.search_model_versions() == []
    found = stage.promote(root)
    assert found == dry
    assert (root / "data" / "features").is_dir()
    assert found.promoted, found
    assert found.reasons[0].startswith("there is no champion yet")
    assert aliases(registry) == {"champion": "1", "previous": None}
    version = registry.alias("champion")
    assert version.tags["promotion"] == "promoted"
    assert registry.client.get_run(version.run_id).info.run_name == "train"
    assert version.tags["promotion_reasons"] == found.reasons[0]
    (protocol,) = protocols(registry, version.run_id)
    kept = measured(registry, protocol)
    assert kept.features.shape[:2] == (2, 15)
    assert not np.array_equal(*kept.features)
    assert found.fids["challenger"] > 0
    # The page of the version shows the numbers.
    logged = registry.client.get_logged_model(version.tags["model_id"])
    shown = {metric.key: metric.value for metric in logged.metrics}
    assert shown["holdout_fid_challenger"] == pytest.approx(found.fids["challenger"])


def protocols(registry: Registry, run_id: str) -> list[str]:
    """Those under which something was measured of the weights of a run."""
    files = registry.client.list_artifacts(run_id, "promotion")
    return sorted({Path(file.path).name.partition("-")[0] for file in files})


def measured(registry: Registry, protocol: str) -> Measured:
    version = registry.alias("champion")
    data = registry.measured(version, protocol)
    return Measured.from_bytes(data)


def test_same_weights_again(root: Path) -> None:
    found = stage.promote(root)
    assert not found.promoted
    assert found.reasons == ["version 1, the champion, has these weights"]


@pytest.mark.parametrize(
    ("config", "noise", "reason"),
    [(WEIGHTS.config, 0.5, "no better than no colors"), (chroma(0.02), 0.0, "grayed out")],
    ids=["worse", "gray"],
)
def test_worse_or_gray_is_turned_down(
    root: Path, registry: Registry, config: ModelConfig, noise: float, reason: str
) -> None:
    trained(root, config, noise)
    found = stage.promote(root)
    assert not found.promoted
    assert reason in found.reasons[0]
    assert aliases(registry) == {"champion": "1", "previous": None}
    newest = max(registry.client.search_model_versions(), key=lambda v: int(v.version))
    assert newest.tags["promotion"] == "turned down"
    assert reason in newest.tags["promotion_reasons"]
    # The run that it belongs to says so as well.
    run = registry.client.get_run(newest.run_id)
    assert run.data.tags["promotion"] == "turned down"


def test_not_finite_is_turned_down(root: Path, registry: Registry) -> None:
    before = len(registry.client.search_model_versions())
    with safetensors.safe_open(RELEASED, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["out.bias"][0] = torch.nan
    safetensors.torch.save_file(tensors, weights_file(root), metadata)
    found = stage.promote(root)
    assert not found.promoted
    assert "out.bias is not finite" in found.reasons[0]
    assert aliases(registry) == {"champion": "1", "previous": None}
    assert len(registry.client.search_model_versions()) == before


def test_champion_of_another_protocol_is_measured_again(root: Path, registry: Registry) -> None:
    before = registry.alias("champion")
    path = root / "params.yaml"
    values = yaml.safe_load(path.read_text())
    values["promote"]["seeds"] = 1
    save_params(root, values)
    trained(root, chroma(0.02))
    assert not stage.promote(root, dry_run=True).promoted
    assert registry.alias("champion") == before
    assert not stage.promote(root).promoted
    assert registry.alias("champion") == before
    both = [measured(registry, name) for name in protocols(registry, before.run_id)]
    one, two = sorted(both, key=lambda kept: len(kept.features))
    # Of the first seed alone, which is the same.
    np.testing.assert_array_equal(one.features, two.features[:1])


def test_model_that_cannot_be_used_is_reverted(root: Path, registry: Registry) -> None:
    """Registered, but its weights in the store are damaged."""
    trained(root, BETTER)
    run = Run.start(root, "train", {}, {})
    sha256 = hashlib.sha256(weights_file(root).read_bytes()).hexdigest()
    version = champion.register(registry, run, weights_file(root), {"weights_sha256": sha256})
    (kept,) = (root / "mlartifacts" / "models" / version.tags["model_id"]).rglob(
        "colorized.safetensors"
    )
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1000])
    found = stage.promote(root)
    assert not found.promoted
    assert found.reasons[0].startswith("better: FID")
    assert "reverted: models:/colorized@champion does not color a picture" in found.reasons[1]
    assert aliases(registry) == {"champion": "1", "previous": None}
    tags = registry.client.get_model_version("colorized", version.number).tags
    assert tags["promotion"] == "turned down"
    kept.write_bytes(whole)


def test_better_is_promoted_and_rolled_back(root: Path, registry: Registry) -> None:
    trained(root, BETTER)
    found = stage.promote(root)
    assert found.promoted, found
    assert found.reasons[0].startswith("better: FID")
    new = aliases(registry)["champion"]
    assert aliases(registry) == {"champion": new, "previous": "1"}
    assert new not in (None, "1")

    now, before = stage.rollback(root)
    assert (now.number, before.number) == ("1", new)
    assert aliases(registry) == {"champion": "1", "previous": new}
    # The next retraining that changes nothing does not bring it back, a second rollback does.
    again = stage.promote(root)
    assert not again.promoted
    assert again.reasons == [f"version {new}, with these weights, was rolled back"]
    stage.rollback(root)
    assert aliases(registry) == {"champion": new, "previous": "1"}
    now = registry.alias("champion")
    assert "rolled_back" not in now.tags


def test_rollback_to_what_cannot_be_used_changes_nothing(root: Path, registry: Registry) -> None:
    before = aliases(registry)
    version = registry.alias("previous")
    (kept,) = (root / "mlartifacts" / "models" / version.tags["model_id"]).rglob(
        "colorized.safetensors"
    )
    kept.write_bytes(b"no weights")
    with pytest.raises(TrackingError, match="reverted: .* does not color a picture"):
        stage.rollback(root)
    assert aliases(registry) == before


def test_no_credential_is_written(root: Path) -> None:
    paths = [path for path in root.rglob("*") if path.is_file()]
    assert {"mlflow.db", "MLmodel", "pyfunc.py"} <= {path.name for path in paths}
    assert [path for path in paths if SECRET.encode() in path.read_bytes()] == []
