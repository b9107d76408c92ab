"""An S3-compatible store: what DVC keeps there for a second machine, and a split that streams."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from mlflow_server import save_params
from s3_server import BUCKET, S3Server, environment
from test_pipeline import dvc, run, small_project

pytestmark = pytest.mark.slow

WEIGHTS = Path("models", "colorized.safetensors")


def prepare(project: Path, storage: str) -> dict[str, dict[str, object]]:
    """Two steps, and no stages that take long and have nothing of their own to show here."""
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["data"]["storage"] = storage
    values["train"] |= {"steps": 2, "cooldown_steps": 1}
    save_params(project, values)
    pipeline = yaml.safe_load((project / "dvc.yaml").read_text())
    for measuring in ("sample", "evaluate"):
        del pipeline["stages"][measuring]
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return values


def test_second_machine_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = small_project(tmp_path / "first"), tmp_path / "second"
    values = prepare(first, storage="local")
    with S3Server() as server:
        for name, value in environment(server.endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_ENDPOINT_URL")  # DVC has a setting of its own for it
        dvc(first, "repro")
        dvc(first, "remote", "add", "--default", "store", f"s3://{BUCKET}/dvc")
        run(first, "git", "add", "-A")
        run(first, "git", "commit", "-qm", "trained")
        endpoint = "remote", "modify", "--local", "store", "endpointurl", server.endpoint
        dvc(first, *endpoint)
        assert "pushed" in dvc(first, "push")
        assert server.stored("dvc/")

        run(tmp_path, "git", "clone", "-q", str(first), str(second))
        assert not (second / WEIGHTS).exists()
        dvc(second, *endpoint)
        dvc(second, "pull")
        output = dvc(second, "repro")
    assert "Running stage" not in output
    assert "up to date" in output
    for path in (WEIGHTS, Path("data", "lab", "train_ab.npy")):
        assert (second / path).read_bytes() == (first / path).read_bytes()

    # Negative control: what did change is noticed.
    values["train"]["seed"] += 1
    save_params(second, values)
    assert "train" in dvc(second, "status")


def test_training_split_goes_to_the_store_and_streams_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = small_project(tmp_path / "streams")
    url = f"s3://{BUCKET}/lab"
    prepare(project, url)
    with S3Server() as server:
        for name, value in environment(server.endpoint).items():
            monkeypatch.setenv(name, value)
        dvc(project, "repro")
        assert any("chunk-" in name for name in server.stored("lab/"))
    stats = json.loads((project / "data" / "lab" / "stats.json").read_text())
    assert stats["storage"]["url"] == url
    assert stats["crops"]["train"] > 0
    assert not (project / "data" / "lab" / "train_L.npy").exists()
    assert (project / WEIGHTS).stat().st_size > 0

    # Without the store there is one line that names it, and nothing else is trained on.
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["train"]["seed"] += 1
    save_params(project, values)
    output = run(project, sys.executable, "-W", "ignore", "-m", "pipelines.train", code=1)
    assert output.count("\n") == 1
    assert output.startswith(f"error: {url}")
