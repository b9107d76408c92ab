"""A retraining is a version: what a schedule trained, somebody else can make again."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from test_flows import Server, colorized, project, retrain, server, until, webhook
from test_pipeline import ROOT, dvc, run, small_project

from colorized.tracking import Registry

pytestmark = pytest.mark.timeout(1800)
__all__ = ["project", "server", "webhook"]


def lock(folder: Path) -> object:
    return yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]


def test_somebody_else_makes_it_again(server: Server, tmp_path: Path) -> None:
    folder = small_project(tmp_path / "mine")
    run(folder, "git", "rm", "-rq", "--cached", "scans")
    dvc(folder, "add", "-q", "scans")
    run(folder, "git", "init", "-q", "--bare", str(tmp_path / "git"))
    dvc(folder, "remote", "add", "-d", "store", str(tmp_path / "store"))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "photographs by DVC")
    run(folder, "git", "remote", "add", "origin", str(tmp_path / "git"))
    run(folder, "git", "push", "-qu", "origin", "HEAD")

    # New photographs; the remote refuses at first.
    shutil.copy(ROOT / "data" / "sample" / "photos" / "burj.jpg", folder / "scans")
    hook = tmp_path / "git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    hook.chmod(0o755)
    refused = retrain(server, folder, "--push", code=1)
    assert "scans recorded, download ran, preprocess ran, train ran" in refused
    assert "committed, not pushed: " in refused and "no room" in refused
    assert "promoted: " in refused
    weights = (folder / "models" / "colorized.safetensors").read_bytes()
    hook.unlink()

    # The next run, of the schedule, makes up for it.
    with colorized(server, folder, "schedule", "--cron", "* * * * *", "--push") as process:

        def ended() -> list[str]:
            assert process.poll() is None
            return [
                r["state"]["message"] for r in server.runs() if r["state"]["name"] == "Up to date"
            ]

        (message, *_) = until(ended, 600, "a scheduled run")
    assert message.startswith("up to date, nothing retrained; committed as ")
    assert " and pushed; not promoted: " in message

    found = Registry(folder).find_run(hashlib.sha256(weights).hexdigest())
    assert found is not None
    run_id, tags = found
    client = Registry(folder).client
    parent = client.get_run(tags["mlflow.parentRunId"])
    assert parent.data.tags["committed_as"] == tags["committed_as"]
    kept = {f.path for f in client.list_artifacts(parent.info.run_id, "version")}
    assert kept == {"version/dvc.lock", "version/params.yaml"}
    assert "scans.dvc" in tags["git_dirty"]  # of the commit that training began at

    elsewhere = tmp_path / "elsewhere"
    run(tmp_path, "git", "clone", "-q", str(tmp_path / "git"), str(elsewhere))
    run(elsewhere, "git", "checkout", "-q", tags["committed_as"])
    dvc(elsewhere, "pull", "-q", "scans")
    assert not (elsewhere / "models" / "colorized.safetensors").exists()
    dvc(elsewhere, "repro")
    assert (elsewhere / "models" / "colorized.safetensors").read_bytes() == weights
    assert lock(elsewhere) == lock(folder)
    assert run(elsewhere, "git", "status", "--porcelain", "dvc.lock", "reports/metrics.json") == ""

    # And a photograph colored by it leads to the commit.
    python = (sys.executable, "-W", "ignore", "-m", "colorized")
    given = ("--weights", "models/colorized.safetensors", "--steps", "1", "-o", "out")
    run(folder, *python, "colorize", "scans/cat.jpg", *given)
    output = run(folder, *python, "lineage", "out/cat.jpg")
    assert f"MLflow run: {run_id} (found: in the store)" in output
    assert f"git commit: {tags['committed_as']} (found: in this repository)" in output
    assert "not found" not in output


def test_what_is_in_no_version_is_said(tmp_path: Path) -> None:
    from colorized.tracking import versions

    folder = small_project(tmp_path / "mine")
    assert versions.is_versioned(folder, "scans")
    shutil.copy(ROOT / "data" / "sample" / "photos" / "burj.jpg", folder / "scans")
    assert not versions.is_versioned(folder, "scans")
    with pytest.raises(versions.NotCommitted, match="scans are in no version.*dvc add scans"):
        versions.commit_retraining(folder, "scans", "a message", False)
    (folder / "scans" / "burj.jpg").unlink()
    (folder / "pipelines" / "train.py").write_text("# changed")
    with pytest.raises(versions.NotCommitted, match="pipelines/train.py differ from the last"):
        versions.commit_retraining(folder, "scans", "a message", False)
    run(folder, "git", "checkout", "-q", "pipelines")
    # Nothing changed: the commit there is has it.
    head = run(folder, "git", "rev-parse", "HEAD").strip()
    assert versions.commit_retraining(folder, "scans", "a message", False) == head
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text() + "\n")
    (folder / "notes.txt").write_text("mine")
    run(folder, "git", "add", "notes.txt")
    sha = versions.commit_retraining(folder, "scans", "a message", False)
    assert run(folder, "git", "show", "--name-only", "--format=%s", sha).split() == [
        "a", "message", "params.yaml"
    ]  # fmt: skip
    hook = folder / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\necho fatal: No space left on device >&2\nexit 1\n")
    hook.chmod(0o755)
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text() + "\n")
    with pytest.raises(versions.NotCommitted, match="^not committed: fatal: No space left"):
        versions.commit_retraining(folder, "scans", "a message", False)
