"""MLflow, in a SQLite store of the test's own; no server."""

from pathlib import Path

import pytest

from colorized import tracking
from colorized.tracking import Run, TrackingError

PARAMS = {"train": {"steps": 4, "channels": [1, 2]}, "seed": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    return Run.start(root, "a run", PARAMS, {"git_sha": "abc"})


def test_flatten() -> None:
    assert tracking.flatten(PARAMS) == {
        "train.steps": "4",
        "train.channels": "[1, 2]",
        "seed": "0",
    }


def test_default_store_is_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking.tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"


def test_environment_names_another_store(
    root: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.tracking_uri(root))
    assert tracking.tracking_uri(tmp_path) == tracking.tracking_uri(root)
    found = Run.reopen(tmp_path, run.run_id)
    assert found is not None
    assert list(tmp_path.iterdir()) == []


def test_parameters_and_tags(run: Run) -> None:
    run.tags({"best_step": "2", "last_step": "4"})
    found = run.client.get_run(run.run_id)
    assert found.info.run_name == "a run"
    assert found.data.params == tracking.flatten(PARAMS)
    assert found.data.tags.items() >= {"git_sha": "abc", "best_step": "2", "last_step": "4"}.items()


def test_metrics_have_their_steps(run: Run) -> None:
    run.metrics(1, {"loss": 0.5, "rate": 1})
    run.metrics(2, {"loss": 0.25})
    history = run.client.get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    assert run.client.get_run(run.run_id).data.metrics == {"loss": 0.25, "rate": 1.0}


def test_files_are_kept_beside_the_store(run: Run, root: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("kept")
    run.file(tmp_path / "note.txt")
    run.file(tmp_path / "note.txt", "notes")
    kept = sorted(path.relative_to(root).as_posix() for path in root.rglob("note.txt"))
    assert kept == [
        f"mlartifacts/{run.run_id}/artifacts/note.txt",
        f"mlartifacts/{run.run_id}/artifacts/notes/note.txt",
    ]


def test_status_tells_how_it_ended_and_that_it_goes_on(run: Run, root: Path) -> None:
    def status() -> str:
        found: str = run.client.get_run(run.run_id).info.status
        return found

    with pytest.raises(KeyError), run:
        raise KeyError
    assert status() == "FAILED"
    again = Run.reopen(root, run.run_id)
    assert again is not None
    assert status() == "FAILED"
    with again:
        assert status() == "RUNNING"
    assert status() == "FINISHED"


def test_what_mlflow_refuses_is_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="^MLflow: ") as caught:
        run.metrics(1, {"": 1.0})
    assert "\n" not in str(caught.value)


def test_run_that_is_not_there(run: Run, root: Path) -> None:
    assert Run.reopen(root, "0" * 32) is None
    other = Run.start(root, "another", {}, {})
    assert other.client.get_run(other.run_id).info.experiment_id == (
        run.client.get_run(run.run_id).info.experiment_id
    )
    other.client.delete_run(other.run_id)
    assert Run.reopen(root, other.run_id) is None
