"""A retraining is a version: what a schedule trained, somebody else can make again."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import until
from mlflow_server import save_params
from mounts import mounted
from prefect_server import Server, colorized, prefect_server
from test_pipeline import ROOT, dvc, run, small_project

from colorized.tracking import Registry, versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as found:
        yield found


def lock(folder: Path) -> object:
    return yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]


def test_somebody_else_makes_it_again(server: Server, tmp_path: Path) -> None:
    folder = small_project(tmp_path / "mine")
    values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    values["preprocess"] |= {"val_crops": 1, "test_crops": 1}
    values["promote"]["seeds"] = 1
    save_params(folder, values)
    run(folder, "git", "rm", "-rq", "--cached", "scans")
    dvc(folder, "add", "-q", "scans")
    run(folder, "git", "init", "-q", "--bare", str(tmp_path / "git"))
    dvc(folder, "remote", "add", "-d", "store", str(tmp_path / "store"))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "photographs by DVC")
    run(folder, "git", "remote", "add", "origin", str(tmp_path / "git"))
    run(folder, "git", "push", "-qu", "origin", "HEAD")

    # New photographs; at first git's remote refuses, and the store is of a newer MLflow.
    shutil.copy(ROOT / "data" / "sample" / "photos" / "burj.jpg", folder / "scans")
    hook = tmp_path / "git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    hook.chmod(0o755)
    store = folder / "mlflow.db"
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute("CREATE TABLE alembic_version AS SELECT 'ffffffffffff'")
    with colorized(server, folder, "schedule", "--cron", "0 3 * * 0", "--push") as process:
        assert process.stdout.readline().startswith("retrain/weekly runs at 0 3 * * 0")
        deployment = until(server.deployment, 120, "the deployment")
        refused = server.ended(first := server.begin(deployment))
        hook.unlink()
        store.unlink()
        weights = (folder / "models" / "colorized.safetensors").read_bytes()
        # The next run makes up for it.
        made_up = server.ended(server.begin(deployment))
    assert refused["type"] == "FAILED"
    ran = "scans recorded, download ran, preprocess ran, train ran, sample ran, evaluate ran; "
    done, not_pushed, not_promoted = refused["message"].split("; ")
    assert f"{done}; " == ran
    assert not_pushed.startswith("committed, not pushed: ") and "no room" in not_pushed
    assert not_promoted.startswith("promotion: MLflow: ") and "newer MLflow" in not_promoted
    names = {task["name"] for task in server.tasks(first)}
    assert names == {
        "scans", "download", "preprocess", "train", "sample", "evaluate", "commit", "promote"
    }  # fmt: skip
    # The flow's own log says what became of its run.
    assert any("warning: the run is kept in " in line for line in server.log(first))
    assert made_up["name"] == "Up to date"
    assert made_up["message"].startswith("up to date, nothing retrained; committed as ")
    assert " and pushed; " in made_up["message"] and "promoted: " in made_up["message"]

    found = Registry(folder).find_run(hashlib.sha256(weights).hexdigest())
    run_id, tags = found
    client = Registry(folder).client
    parent = client.get_run(tags["mlflow.parentRunId"])
    assert parent.info.run_name.startswith("retrain ") and parent.info.status == "FINISHED"
    assert parent.data.tags["committed_as"] == tags["committed_as"]
    (evaluation,) = client.search_runs([parent.info.experiment_id], "tags.stage = 'evaluate'")
    assert evaluation.data.tags["mlflow.parentRunId"] == run_id
    assert evaluation.data.tags["committed_as"] == tags["committed_as"]
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

    # Who does not want to wait gets the results themselves.
    pulled = tmp_path / "pulled"
    run(tmp_path, "git", "clone", "-q", str(tmp_path / "git"), str(pulled))
    dvc(pulled, "pull", "-q")
    assert (pulled / "models" / "colorized.safetensors").read_bytes() == weights

    # And a photograph colored by it leads to the commit.
    python = (sys.executable, "-W", "ignore", "-m", "colorized")
    given = ("--weights", "models/colorized.safetensors", "--steps", "1", "-o", "out")
    print_ = ROOT / "data" / "sample" / "archive" / "acanthus-mollis.jpg"
    run(folder, *python, "colorize", str(print_), *given)
    output = run(folder, *python, "lineage", f"out/{print_.name}")
    assert f"MLflow run: {run_id} (found: in the store)" in output
    assert f"git commit: {tags['committed_as']} (found: in this repository)" in output
    assert "not found" not in output


def test_what_is_in_no_version_is_said(tmp_path: Path) -> None:
    folder = small_project(tmp_path / "mine")
    assert versions.is_versioned(folder, "scans")
    shutil.copy(ROOT / "data" / "sample" / "photos" / "burj.jpg", folder / "scans")
    assert not versions.is_versioned(folder, "scans")
    with pytest.raises(versions.NotCommitted, match="photographs of scans, so.*dvc add scans"):
        versions.commit_retraining(folder, "scans", "a message", False)
    said = run(folder, sys.executable, "-W", "ignore", "-m", "pipelines.download")
    assert said.splitlines()[-1] == f"note: {versions.unversioned('scans')}"
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
    with pytest.raises(versions.NotCommitted, match=r"notes.txt differ from the last commit"):
        versions.commit_retraining(folder, "scans", "a message", False)
    run(folder, "git", "reset", "-q", "notes.txt")
    sha = versions.commit_retraining(folder, "scans", "a message", False)
    assert run(folder, "git", "show", "--name-only", "--format=%s", sha).split() == [
        "a", "message", "params.yaml"
    ]  # fmt: skip


def test_commit_on_a_full_disk_and_a_remote_that_is_none_are_one_line(tmp_path: Path) -> None:
    """What is missing is made up for by the next one."""
    folder, repository = tmp_path / "mine", tmp_path / "git"
    folder.mkdir()
    with mounted(repository, "-t", "tmpfs", "-o", "size=2m", "none"):
        run(folder, "git", "init", "-q", "--separate-git-dir", str(repository / "it"))
        run(folder, "git", "config", "user.name", "test")
        run(folder, "git", "config", "user.email", "test@localhost")
        dvc(folder, "init", "-q")
        (folder / "params.yaml").write_text("a: 1\n")
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-qm", "start")
        start = run(folder, "git", "rev-parse", "HEAD").strip()
        (folder / "params.yaml").write_text("a: 2\n")
        filler = repository / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(versions.NotCommitted, match="^not committed: .*No space left[^\n]*$"):
            versions.commit(folder, "full", ["params.yaml"], push=False)
        filler.unlink()
        assert run(folder, "git", "rev-parse", "HEAD").strip() == start
        with pytest.raises(versions.NotCommitted, match="^committed, not pushed: .*remote[^\n]*$"):
            versions.commit(folder, "a message", ["params.yaml"], push=True)
        with pytest.raises(versions.NotCommitted, match="dvc push: not done within 0 s$"):
            versions.commit(folder, "a message", ["params.yaml"], push=True, seconds=0)
        assert run(folder, "git", "log", "--format=%s", "-1", "--", "params.yaml").split() == [
            "a", "message"
        ]  # fmt: skip
