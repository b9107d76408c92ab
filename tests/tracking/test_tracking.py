"""MLflow: a SQLite store of the test's own, a server that goes away, PostgreSQL."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from commands import python
from mlflow_server import Process, free_port, mlflow_server, small_project

from colorized import tracking
from colorized.tracking import FileRun, Registry, Run, TrackingError, store
from colorized.tracking.queue import Queue, read

pytestmark = pytest.mark.slow

PARAMS = {"train": {"steps": 4, "channels": [1, 2]}, "seed": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    return Run.start(root, "a run", PARAMS, {"git_sha": "abc"})


def test_default_store_is_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking.tracking_uri(Path()) == f"sqlite:///{tmp_path}/mlflow.db"


def test_parameters_and_tags(run: Run) -> None:
    run.tags({"best_step": "2", "last_step": "4"})
    found = run.client.get_run(run.run_id)
    assert found.info.run_name == "a run"
    assert found.data.params == tracking.flatten(PARAMS)
    assert found.data.tags.items() >= {"git_sha": "abc", "best_step": "2", "last_step": "4"}.items()


def test_status_tells_how_it_ended_and_that_it_goes_on(run: Run, root: Path) -> None:
    def status() -> str:
        return run.client.get_run(run.run_id).info.status

    with pytest.raises(KeyError), run:
        raise KeyError
    assert status() == "FAILED"
    again = Run.reopen(root, run.run_id)
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


def test_parent_and_description(run: Run, root: Path) -> None:
    child = Run.start(root, "child", {}, {}, parent=run.run_id)
    child.describe("Test", {"fid": 81.6037}, "grid.png")
    tags = child.client.get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == run.run_id
    assert "| fid | 81.6 |" in tags["mlflow.note.content"]
    assert f"](get-artifact?path=grid.png&run_uuid={child.run_id})" in tags["mlflow.note.content"]
    other = Run.start(root, "other", {}, {})
    # A training that goes on belongs to the flow that goes on with it.
    Run.reopen(root, child.run_id, parent=other.run_id)
    tags = child.client.get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == other.run_id


def file_run(folder: Path) -> FileRun:
    """A run as a machine without MLflow writes it: stopped once, then finished."""
    (folder / "grids").mkdir(parents=True)
    (folder / "grids" / "1.png").write_bytes(b"a picture")
    (folder / "weights.txt").write_text("weights")
    stopped = FileRun.start(folder, "bare", PARAMS, {"git_sha": "a"})
    stopped.dataset("sample", "md5", "data/lab", {"crops": 3})
    stopped.metrics(1, {"loss": 0.5})
    stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with open(stopped.path, "a", encoding="utf-8") as file:
        file.write('{"metrics": {"lo')  # a process was killed
    again = FileRun.reopen(folder, stopped.run_id)
    with again as r:
        r.metrics(2, {"loss": 0.25})
        r.file(folder / "weights.txt", "weights")
        r.file(folder / "grids", "grids")
        r.describe("Training", {"loss": 0.25}, "grids/1.png")
        r.tags({"weights_sha256": "0" * 64})
    (folder / "weights.txt").write_text("those of the next training")
    return r


def test_run_of_a_file_is_imported_once(root: Path, run: Run, tmp_path: Path) -> None:
    r = file_run(tmp_path / "there")
    moved = (tmp_path / "there").rename(tmp_path / "here")  # to the machine that has MLflow
    path = moved / tracking.UNSENT / r.path.name
    child = Run.start(root, "child", {}, {}, parent=r.run_id)
    run_id, new = tracking.import_run(root, path)
    assert new
    found = run.client.get_run(run_id)
    assert (found.info.run_name, found.info.status) == ("bare", "FINISHED")
    assert found.data.params == tracking.flatten(PARAMS)
    assert found.data.tags["git_sha"] == "a"
    history = run.client.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]
    lines = [json.loads(t) for t in path.read_text().splitlines() if not t.endswith('{"lo')]
    assert [m.timestamp for m in history] == [e["time"] for e in lines if "metrics" in e]
    assert found.info.start_time == lines[0]["time"] <= found.info.end_time == lines[-1]["time"]
    (kept,) = run.client.list_artifacts(run_id, "weights")
    assert Path(run.client.download_artifacts(run_id, kept.path)).read_text() == "weights"
    assert [f.path for f in run.client.list_artifacts(run_id, "grids")] == ["grids/1.png"]
    assert f"run_uuid={run_id})" in found.data.tags["mlflow.note.content"]
    assert found.inputs.dataset_inputs[0].dataset.digest == "md5"
    # By its weights it is found as any other, and by the id that models/run.json has.
    assert Registry(root).find_run("0" * 64)[0] == run_id  # type: ignore[index]
    reopened = Run.reopen(root, r.run_id)
    assert reopened is not None and reopened.run_id == run_id

    tags = child.client.get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == run_id
    assert tracking.import_run(root, path) == (run_id, False)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("file", "weights.txt, which is not there"),
        ("first line", ".jsonl: does not hold a run"),
        ("empty", ".jsonl: does not hold a run"),
        ("bytes", ".jsonl: not text"),
        ("gone", ".jsonl: No such file or directory"),
    ],
)
def test_file_that_cannot_be_imported_leaves_nothing(
    root: Path, run: Run, tmp_path: Path, damage: str, expected: str
) -> None:
    path = file_run(tmp_path / "there").path
    text = path.read_text()
    if damage == "file":
        next(path.with_suffix("").glob("*/weights.txt")).unlink()
    elif damage == "gone":
        path.unlink()
    elif damage == "bytes":
        path.write_bytes(b"\xff\xfe")
    else:
        path.write_text("" if damage == "empty" else text.partition("\n")[2])
    before = len(store.search(run.client, ""))
    with pytest.raises(TrackingError) as caught:
        tracking.import_run(root, path)
    assert str(caught.value).endswith(expected)
    assert "\n" not in str(caught.value)
    assert len(store.search(run.client, "")) == before


def test_run_whose_process_was_killed_is_imported_as_killed(
    root: Path, run: Run, tmp_path: Path
) -> None:
    kept = FileRun.start(tmp_path, "bare", PARAMS, {})
    kept.metrics(1, {"loss": 0.5})
    kept.flush()
    run_id, _ = tracking.import_run(root, kept.path)
    assert run.client.get_run(run_id).info.status == "KILLED"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:hunter2@host/x", "https://host/x"),
        ("at postgresql://ann:hunt@er2@host:5432/db failed", "at postgresql://host:5432/db failed"),
        ("https://host/?a=1&access_token=hunter2&b=2", "https://host/?a=1&access_token=***&b=2"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("mail ann@host, https://host/a", "mail ann@host, https://host/a"),
    ],
)
def test_credentials_are_taken_out(text: str, shown: str) -> None:
    assert tracking.redact(text) == shown


def test_page_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.run_url("0a") == "http://127.0.0.1:5000/#/runs/0a"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:hunter2@host/mlflow/")
    assert tracking.run_url("0a") == "https://host/mlflow/#/runs/0a"


WRITERS, STEPS = 4, 25


def test_four_processes_write_at_once(tmp_path: Path) -> None:
    """Into a store that none of them has made yet."""
    code = f"""
import os, sys
from pathlib import Path
import mlflow, sqlalchemy
from colorized.tracking import Run
writers = []
for number in range({WRITERS}):
    if not (pid := os.fork()):
        run = Run.start(Path("."), str(number), {{"number": number}}, {{}})
        for step in range({STEPS}):
            run.metrics(step, {{"loss": number * 100 + step}})
        run.finish()
        os._exit(0)
    writers.append(pid)
sys.exit(max(os.waitpid(pid, 0)[1] for pid in writers))
"""
    done = python("-W", "ignore", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    client = tracking.connect(tmp_path)
    assert [e.name for e in client.search_experiments()].count(tracking.EXPERIMENT) == 1
    runs = store.search(client, "")
    assert sorted(run.data.params["number"] for run in runs) == ["0", "1", "2", "3"]
    for run in runs:
        assert run.info.status == "FINISHED"
        first = int(run.data.params["number"]) * 100
        history = client.get_metric_history(run.info.run_id, "loss")
        values = [m.value for m in sorted(history, key=lambda m: m.step)]
        assert values == [first + step for step in range(STEPS)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    process, uri = mlflow_server(tmp_path_factory.mktemp("server"))
    yield process, uri
    process.signal(signal.SIGKILL)


def test_what_is_logged_waits_for_the_server(
    server: tuple[Process, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, uri = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = Run.start(tmp_path, "a run", {}, {})
    kept = tmp_path / tracking.UNSENT / f"{run.run_id}.jsonl"
    run.metrics(1, {"loss": 4.0})
    assert not kept.exists()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    process.signal(signal.SIGSTOP)  # as if the network were gone
    run.metrics(2, {"loss": 3.0})
    run.tags({"late": "yes"})
    params = tmp_path / "params.yaml"
    params.write_text("steps: 1")
    run.file(params, "version")
    params.write_text("steps: 2")  # of the next training
    run.metrics(3, {"loss": 2.0})
    assert [next(iter(json.loads(line))) for line in kept.read_text().splitlines()] == [
        "metrics", "tags", "file", "metrics"
    ]  # fmt: skip
    process.signal(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    run.finish()
    assert not list(kept.parent.iterdir())
    sent = run.client.download_artifacts(run.run_id, "version/params.yaml")
    assert Path(sent).read_text() == "steps: 1"
    history = run.client.get_metric_history(run.run_id, "loss")
    assert sorted((m.step, m.value) for m in history) == [(1, 4.0), (2, 3.0), (3, 2.0)]
    found = run.client.get_run(run.run_id)
    assert (found.data.tags["late"], found.info.status) == ("yes", "FINISHED")


def test_queue_loses_nothing_in_a_crash(root: Path, run: Run, tmp_path: Path) -> None:
    """After any write to its file a process may die; what was not delivered is still there."""
    entries = [{"metrics": {"x": float(k)}, "step": k, "time": k} for k in range(6)]
    path = tmp_path / "queue.jsonl"
    queue = Queue(path)
    left = []
    for entry in entries[:4]:
        queue.append([entry])
        left.append((path.read_bytes(), entries[: entry["step"] + 1]))
    queue.sent(3)
    left.append((path.read_bytes(), entries[3:4]))
    queue.append(entries[4:])
    left.append((path.read_bytes(), entries[3:]))
    queue.close()
    for (before, _), (after, _) in itertools.pairwise(left):
        assert after.startswith(before)  # a crash in the middle of a write loses what is after it
    for data, expected in left:
        path.write_bytes(data + b'{"metrics": {"to')  # died in the middle of the next line
        again = Queue(path)
        assert again.entries == expected
        again.append(entries[:1])
        again.close()
        assert read(path) == [*expected, entries[0]]
    again = Queue(path)
    again.sent(4)
    assert not path.exists()


def test_queue_that_another_process_adds_to_is_left_alone(root: Path, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue.jsonl")
    queue.append([{"status": "KILLED"}])
    with pytest.raises(BlockingIOError, match="another process adds to it"):
        Queue(tmp_path / "queue.jsonl")
    queue.close()
    assert Queue(tmp_path / "queue.jsonl").entries == [{"status": "KILLED"}]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "made by a newer MLflow than"),
        ("BEGIN EXCLUSIVE", "database is locked"),
        (None, "file is not a database"),
    ],
)
def test_run_waits_for_a_store_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    damage: str | None, expected: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(store, "_LOCKED_SECONDS", 0.1)
    first = Run.start(tmp_path, "first", {}, {})
    first.finish()
    path = tmp_path / "mlflow.db"
    whole = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        if damage is None:
            path.write_bytes(b"words" * 1000)
        else:
            database.execute(damage)
        with tracking.open_run(tmp_path, "second", PARAMS, {}, parent=first.run_id) as run:
            run.metrics(1, {"loss": 0.5})
    said = capsys.readouterr().err
    assert said.startswith("warning: the run is kept in ") and said.count("\n") == 1
    assert expected in said
    path.write_bytes(whole)
    tracking.open_run(tmp_path, "third", {}, {})
    assert not list((tmp_path / tracking.UNSENT).iterdir())
    found = Run.reopen(tmp_path, run.run_id)
    data = found.client.get_run(found.run_id)
    assert (data.info.run_name, data.info.status) == ("second", "FINISHED")
    assert data.data.metrics == {"loss": 0.5}
    assert data.data.tags["mlflow.parentRunId"] == first.run_id


def test_store_belongs_to_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to a copy that DVC makes for an experiment, nor to a linked worktree."""
    main, copy, linked = (tmp_path / name for name in ("main", "copy", "linked"))
    for folder in (main, copy):
        (folder / "sub" / ".dvc").mkdir(parents=True)
        git(folder, "init", "-q")
        git(folder, "commit", "-q", "--allow-empty", "-m", "start")
    (main / "sub" / "file").touch()
    git(main, "add", "-A")
    git(main, "commit", "-qm", "a file")
    git(main, "worktree", "add", "-q", str(linked))
    assert tracking.home(linked / "sub") == main / "sub"
    assert tracking.home(copy / "sub") == copy / "sub"
    monkeypatch.setenv("DVC_ROOT", str(main / "sub"))
    assert tracking.home(copy / "sub") == copy / "sub"  # whatever somebody else's variable says
    monkeypatch.setenv("DVC_STAGE", "train")
    assert tracking.home(copy / "sub") == main / "sub"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert tracking.tracking_uri(copy / "sub") == f"sqlite:///{main}/sub/runs.db"


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_finished_run_is_not_gone_on_with(tmp_path: Path) -> None:
    stopped = tracking.open_run(tmp_path, "train", {}, {})
    stopped.finish("KILLED")
    again = tracking.open_run(tmp_path, "train", {}, {}, resumed=stopped.run_id)
    assert again.run_id == stopped.run_id
    again.finish()
    assert tracking.open_run(tmp_path, "train", {}, {}, resumed=stopped.run_id).run_id != (
        stopped.run_id
    )


def test_checkpoints_of_the_last_trainings_are_kept(tmp_path: Path) -> None:
    """In the store and beside it, by the command that says what goes."""
    project = small_project(tmp_path / "project")
    (tmp_path / "last.pt").write_bytes(bytes(2_000_000))
    runs = []
    for number, what in enumerate(("train", "train", "train", "evaluate")):
        run = Run.start(project, str(number), {}, {"stage": what}, started=1e9 + number)
        run.file(tmp_path / "last.pt", "checkpoints")
        run.file(tmp_path / "last.pt", "weights")
        # The first came to no end: it can be gone on with.
        run.finish("KILLED" if number == 0 else "FINISHED")
        runs.append(run)
    folder = project / "models" / "checkpoints" / "abc"
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text("{}")
    (folder / "last.pt").write_bytes(bytes(1_000_000))

    def kept(folder: str) -> list[bool]:
        found = (run.client.list_artifacts(run.run_id, folder) for run in runs)
        return [bool(files) for files in found]

    said = [f"checkpoints of run {run.run_id}: 2 MB" for run in runs]
    registry = Registry(project)
    assert registry.remove_checkpoints(1, dry_run=True) == [said[1]]
    assert kept("checkpoints") == [True] * 4
    assert registry.remove_checkpoints(1) == [said[1]]
    assert registry.remove_checkpoints(1) == []
    assert kept("checkpoints") == [True, False, True, True]
    command = "-W", "ignore", "-m", "colorized", "clean", "--keep", "0"
    done = python(*command, cwd=project)
    assert done.stdout.splitlines() == [f"{folder}: 1 MB", said[2]]
    assert not folder.exists()
    assert kept("checkpoints") == [True, False, False, True]
    assert kept("weights") == [True] * 4


SECRET = "hunter2-of-the-test"


def test_training_goes_on_without_its_server(
    server: tuple[Process, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle; what it missed is kept, and sent by the next process."""
    process, uri = server
    project = small_project(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("://", f"://ann:{SECRET}@"))
    parent = Run.start(project, "parent", {"url": f"https://ann:{SECRET}@host"}, {})
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "",
        "COLORIZED_PARENT_RUN": parent.run_id, "PREFECT__FLOW_RUN_ID": "a-flow-run",
        "AWS_SECRET_ACCESS_KEY": SECRET, "MLFLOW_TRACKING_PASSWORD": SECRET,
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "pipelines.train"],
        cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as training:  # fmt: skip
        said = []
        for line in training.stdout:
            said.append(line)
            if line.startswith("step 2:"):
                process.signal(signal.SIGKILL)
        warnings = training.stderr.read()
        assert training.wait() == 0, warnings
    (finished,) = (project / "models" / "checkpoints").glob("*/finished.json")
    about = json.loads(finished.read_text())
    kept = project / tracking.UNSENT / f"{about['run_id']}.jsonl"
    assert warnings.startswith("warning: the MLflow store does not answer: ")
    assert str(kept) in warnings.splitlines()[0]
    assert all(line.startswith("warning: ") for line in warnings.splitlines())
    assert any('"step": 4' in line for line in kept.read_text().splitlines())
    assert (project / "models" / "colorized.safetensors").exists()

    process.start()
    tracking.open_run(project, "the next run", {}, {})
    run = Run.reopen(project, about["run_id"])
    assert not kept.exists()
    found = run.client.get_run(about["run_id"])
    assert found.info.status == "FINISHED"
    steps = {m.step for m in run.client.get_metric_history(about["run_id"], "val_loss")}
    assert steps == {0, 2, 4}
    tags = found.data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert tags["prefect_flow_run"] == "a-flow-run"
    assert tags["weights_sha256"] == about["weights_sha256"]
    assert "| val_loss |" in tags["mlflow.note.content"]
    assert "system/cpu_utilization_percentage" in found.data.metrics
    assert not any(name.startswith(("sample.", "evaluate.")) for name in found.data.params)
    names = {f.path for f in run.client.list_artifacts(about["run_id"], "weights")}
    assert names == {"weights/colorized.safetensors"}

    # The credentials of the environment and the address are nowhere.
    folders = (project / "models", project / "data", process.log.parent)
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(paths) > 10
    assert [p for p in paths if SECRET.encode() in p.read_bytes()] == []
    assert SECRET not in "".join(said) + warnings


BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.mark.skipif(not BINARIES, reason="no PostgreSQL server: apt-get install postgresql")
def test_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = BINARIES[-1].parent
    # PostgreSQL refuses to run as root.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())

    def run(*command: object) -> None:
        done = subprocess.run(
            [str(part) for part in command], cwd="/", capture_output=True, text=True, check=False,
            user=user.pw_uid, group=user.pw_gid, extra_groups=[],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chown(folder, user.pw_uid, user.pw_gid)
        password, data, port = folder / "password", folder / "data", free_port()
        password.write_text(SECRET)
        password.chmod(0o644)
        run(binaries / "initdb", "-D", data, "-U", "ann", "-E", "UTF8", "--no-sync",
            "--auth=scram-sha-256", f"--pwfile={password}")  # fmt: skip
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run(binaries / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            uri = f"postgresql://ann:{SECRET}@127.0.0.1:{port}/postgres"
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            made = Run.start(tmp_path, "a run", PARAMS, {"git_sha": "abc"})
            with made:
                made.metrics(1, {"loss": 0.5})
                (tmp_path / "note.txt").write_text("kept")
                made.file(tmp_path / "note.txt")
            assert Run.reopen(tmp_path, made.run_id) is not None
            assert Run.reopen(tmp_path, "0" * 32) is None
            found = made.client.get_run(made.run_id)
            assert found.data.params == tracking.flatten(PARAMS)
            assert (found.data.metrics, found.info.status) == ({"loss": 0.5}, "FINISHED")
            assert found.info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())
            registry = Registry(tmp_path)
            assert registry.alias("champion") is None
            assert registry.find("0" * 64) is None
        finally:
            run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        # Now it is gone.
        with pytest.raises(TrackingError) as caught:
            Run.start(tmp_path, "another", {}, {})
        assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
