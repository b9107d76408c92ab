"""The weekly cycle with a real Prefect server, DVC and MLflow, on a handful of photographs.

One project goes through the whole story, in the order of the tests: its schedule fires, nothing is
new, a forced run is canceled in training, the next one killed, the one after it trains to the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import yaml
from commands import python, until
from mlflow_server import save_params
from prefect_server import RUN_SECONDS, Server, colorized, prefect_server, retrain
from test_pipeline import ROOT, small_project

from colorized.tracking import Run

SECRET = "3f1c-webhook-secret"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Listener(BaseHTTPRequestHandler):
    """Takes what the webhook is told."""

    told: list[dict[str, str]]

    def do_POST(self) -> None:
        assert self.path == f"/{SECRET}"
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def webhook() -> Iterator[ThreadingHTTPServer]:
    Listener.told = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield listener
        listener.shutdown()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, webhook: ThreadingHTTPServer
) -> Iterator[Server]:
    address = f"http://127.0.0.1:{webhook.server_port}/{SECRET}"
    with prefect_server(tmp_path_factory.mktemp("prefect"), COLORIZED_WEBHOOK_URL=address) as found:
        yield found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_project(tmp_path_factory.mktemp("weekly") / "project")
    values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    values["preprocess"]["test_crops"] = 1
    values["train"] |= {"steps": 12, "cooldown_steps": 6, "validate_every": 6}
    # Crops of 64 pixels are blurred at the 176 that these weights work at, and their colors pale.
    values["promote"] |= {"seeds": 1, "min_colorfulness": 0.3}
    # Colors that are better than none, which a champion's must be.
    values["sample"] |= {"steps": 8, "guidance": 1.0}
    save_params(folder, values)
    flows = folder / "pipelines" / "flows.py"
    text = flows.read_text(encoding="utf-8")
    assert "BACKOFF_SECONDS = 20.0" in text
    flows.write_text(text.replace("BACKOFF_SECONDS = 20.0", "BACKOFF_SECONDS = 0.1"))
    return folder


@pytest.fixture(scope="module")
def served(server: Server, project: Path) -> Iterator[subprocess.Popen[str]]:
    """`colorized schedule`, every minute."""
    with colorized(server, project, "schedule", "--cron", "* * * * *") as process:
        yield process


@pytest.fixture(scope="module")
def cycle(server: Server, served: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """A run that the clock started, and one of the same deployment after it, both ended."""

    def started() -> dict[str, Any] | None:
        assert served.poll() is None
        going = (run for run in server.runs() if run["state"]["type"] == "RUNNING")
        return next(going, None)

    first = until(started, RUN_SECONDS, "a scheduled run")
    deployment = server.deployment()
    # The clock has shown that it starts runs: no more of them, which would meet those of the tests.
    server.ask("PATCH", f"/deployments/{deployment}", paused=True)
    server.ended(first["id"])
    second = server.begin(deployment)
    server.ended(second)
    return [server.run(first["id"]), server.run(second)]


def last_training(folder: Path) -> dict[str, str]:
    paths = (folder / "models" / "checkpoints").glob("*/finished.json")
    newest = max(paths, key=lambda path: path.stat().st_mtime)
    found: dict[str, str] = json.loads(newest.read_text())
    return found | {"folder": str(newest.parent)}


def mlflow_run(folder: Path, run_id: str) -> Any:
    run = Run.reopen(folder, run_id)
    return run.client.get_run(run_id)


def test_schedule_fires_and_the_cycle_ends(
    server: Server, project: Path, cycle: list[dict[str, Any]]
) -> None:
    first = cycle[0]
    assert first["auto_scheduled"]
    assert first["state"]["type"] == "COMPLETED", first["state"]["message"]
    message = first["state"]["message"]
    assert message.startswith(
        "download ran, preprocess ran, train ran, sample ran, evaluate ran; promoted: "
    )
    log = server.log(first["id"])
    assert any(line.startswith("step 6: loss") for line in log)
    artifacts = server.artifacts(first["id"])
    assert "| fid | " in artifacts["metrics"]
    assert "(data:image/jpeg;base64," in artifacts["grid"]
    assert "promotion" in artifacts
    parent = mlflow_run(project, artifacts["mlflow-run"].rpartition("/")[2].rstrip(")"))
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["prefect_run"] == first["id"]
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    (lab,) = (out for out in lock["stages"]["preprocess"]["outs"] if out["path"] == "data/lab")
    assert parent.data.tags["dvc.data/lab"] == lab["md5"]
    child = mlflow_run(project, last_training(project)["run_id"])
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    opened = Run.reopen(project, parent.info.run_id)
    children = opened.client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    names = {run.info.run_name.partition(" ")[0]: run for run in children}
    assert set(names) == {"download", "preprocess", "train"}
    (evaluation,) = opened.client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{child.info.run_id}'"
    )
    assert evaluation.info.run_name == "evaluate 8 steps, guidance 1, temperature 1"
    # A collapsed row shows what came of it.
    assert parent.data.metrics["fid"] == evaluation.data.metrics["fid"]
    assert parent.data.params["sample.guidance"] == "1.0"
    assert parent.inputs.dataset_inputs[0].dataset.digest == lab["md5"]
    assert names["preprocess"].data.tags["dvc.data/lab"] == lab["md5"]
    assert names["preprocess"].data.params["preprocess.image_size"] == "64"
    assert {run.info.status for run in children} == {"FINISHED"}


def test_nothing_new_is_said(server: Server, cycle: list[dict[str, Any]]) -> None:
    second = cycle[1]["state"]
    assert second["name"] == "Up to date"
    assert second["message"].startswith("up to date, nothing retrained; not promoted: ")


@dataclass
class Story:
    """What the interrupted trainings must lead back to."""

    weights: bytes
    training: dict[str, str]


@pytest.fixture(scope="module")
def story(project: Path, cycle: list[dict[str, Any]]) -> Story:
    weights = project / "models" / "colorized.safetensors"
    return Story(weights.read_bytes(), last_training(project))


@contextmanager
def held_in_training(root: psutil.Process, folder: Path, story: Story) -> Iterator[psutil.Process]:
    """The training process below `root`, stopped after it wrote another checkpoint."""
    checkpoint = Path(story.training["folder"]) / "last.pt"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    def training() -> psutil.Process | None:
        for process in root.children(recursive=True):
            try:
                if process.cmdline()[-1:] == ["pipelines.train"]:
                    return process
            except psutil.Error:
                continue
        return None

    until(training, RUN_SECONDS, "training")
    time_of = lambda: checkpoint.exists() and checkpoint.stat().st_mtime_ns  # noqa: E731
    until(lambda: time_of() not in (0, False, before), RUN_SECONDS, "a checkpoint")
    process = training()
    process.suspend()
    try:
        yield process
    finally:
        if alive(process.pid):
            process.resume()


def test_canceled_run_ends_its_stage_which_writes_a_checkpoint(
    server: Server, project: Path, served: subprocess.Popen[str], story: Story
) -> None:
    deployment = server.deployment()
    run = server.begin(deployment, force=True)
    with held_in_training(psutil.Process(served.pid), project, story) as training:
        dvc = training.parent()
        # What comes due meanwhile is canceled, at once and for good.
        late = [server.begin(deployment) for _ in range(3)]
        assert {server.ended(other)["type"] for other in late} == {"CANCELLED"}
        assert {server.run(other)["run_count"] for other in late} == {0}

        # Once, by whoever serves the schedule, who may be slower to say it than the server.
        def said() -> list[int]:
            lines = (project.parent / "schedule-output.txt").read_text().splitlines()
            return [sum(other in line for line in lines) for other in late]

        until(lambda: all(said()), 60, "a line for each canceled run")
        assert said() == [1, 1, 1]
        server.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=False)
        until(lambda: not alive(dvc.pid), 60, "the end of DVC")
    assert server.ended(run)["type"] == "CANCELLED"
    # Its parent died first: whoever inherits it may be slow to take its exit status.
    until(lambda: not alive(training.pid), 60, "the end of training")
    assert any("stopped after step" in line for line in server.log(run))


@pytest.mark.usefixtures("cycle")  # only then does the process listen for signals
def test_served_schedule_ends_with_ctrl_c(served: subprocess.Popen[str]) -> None:
    served.send_signal(signal.SIGINT)
    output, _ = served.communicate(timeout=60)
    assert served.returncode == 0
    assert output.splitlines()[0] == "retrain/weekly runs at * * * * * (UTC); Ctrl-C ends it"


def test_second_run_is_refused_and_a_killed_one_gone_on_from(
    server: Server, project: Path, story: Story
) -> None:
    with colorized(server, project, "retrain", "--force") as first:
        with held_in_training(psutil.Process(first.pid), project, story):
            (running,) = (run for run in server.runs() if run["state"]["type"] == "RUNNING")
            refused = retrain(server, project, code=1)
            assert refused.startswith(
                f"error: another run holds .colorized.lock: process {first.pid}, since 2"
            )
            first.kill()
            first.wait()
        message = retrain(server, project, "--force")
    assert message.startswith("train ran; not promoted: ")
    # What was interrupted twice gives what was not interrupted.
    assert (project / "models" / "colorized.safetensors").read_bytes() == story.weights
    assert last_training(project)["run_id"] != story.training["run_id"]
    assert server.run(running["id"])["state"]["type"] == "CRASHED"


def test_failure_is_told_to_the_webhook_and_the_secret_to_nobody(
    server: Server, project: Path, webhook: ThreadingHTTPServer, cycle: list[dict[str, Any]]
) -> None:
    (project / "scans").rename(project / "elsewhere")
    error = retrain(server, project, code=1)
    (project / "elsewhere").rename(project / "scans")
    assert error.startswith("error: download: ")
    (told,) = (message for message in Listener.told if message["state"] == "Failed")
    assert told["flow"] == "retrain"
    assert "Failed: download: " in told["text"]
    retries = [line for line in server.log(told["run"]) if "will start" in line]
    assert len(retries) == 3

    # What DVC removed before the failed stage is brought back, and needs no run of it.
    assert retrain(server, project).startswith("up to date, nothing retrained; not promoted: ")
    (last,) = server.runs()[-1:]
    states = {each["name"]: each["state_name"] for each in server.tasks(last["id"])}
    assert states["download"] == "Restored"
    assert states["train"] == "Unchanged"

    for folder in (server.home, project, project.parent):
        for path in folder.rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), path


def test_time_limit(server: Server, project: Path, cycle: list[dict[str, Any]]) -> None:
    error = retrain(server, project, "--force", "--stage-hours", "0.00001", code=1)
    assert error == "error: train: ended after 1e-05 hours, its time limit"


def test_worker_of_a_work_pool_colors_a_batch(server: Server, project: Path) -> None:
    (project / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    scan = Path("prints", "acanthus-mollis.jpg")
    (project / "prints").mkdir()
    shutil.copy(ROOT / "data" / "sample" / "archive" / scan.name, project / scan)
    # In color, which is passed over.
    shutil.copy(project / "scans" / "cat.jpg", project / "prints")

    def prefect(*command: str) -> None:
        command = "-m", "prefect", "--no-prompt", *command
        done = python(*command, cwd=project, **server.environment)
        assert done.returncode == 0, done.stdout + done.stderr

    prefect("work-pool", "create", "--type", "process", "colorized")
    prefect("deploy", "--all")
    deployed = server.post("/deployments/filter", work_pools={"name": {"any_": ["colorized"]}})
    assert {d["name"]: d["global_concurrency_limit"]["limit"] for d in deployed} == {
        "retrain": 1, "colorize-archive": 1,
    }  # fmt: skip

    (batch,) = (d["id"] for d in deployed if d["name"] == "colorize-archive")
    # What is done already is not counted as colored.
    for colored in (1, 0):
        run = server.begin(batch, inputs=["prints"], out="colored", options=["--steps", "2"])
        prefect("worker", "start", "--pool", "colorized", "--run-once")
        state = server.ended(run)
        message = f"{colored} photographs colored, in `colored`"
        assert (state["type"], state["message"]) == ("COMPLETED", message)
        assert (project / "colored" / scan.name).stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--cron", "every day"], 2, "every day"),
        (["--cron", "0 3 * * 0", "--timezone", "Mars/Olympus"], 2, "Mars/Olympus"),
        (["--cron", "0 3 * * 0"], 1, "prefect server start"),
    ],
)
def test_schedule_that_cannot_be_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    expected: str,
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    done = python("-m", "colorized", "schedule", *options, PREFECT_HOME=str(tmp_path))
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    from pipelines import process

    return process


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"  # noqa: E501


@pytest.mark.parametrize("ending", ["time limit", "Ctrl-C"])
def test_the_whole_process_group_ends(
    process: ModuleType, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    script = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {STUBBORN!r}]).pid, flush=True)
{STUBBORN}
"""
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if ending == "Ctrl-C" and lines.count("on") == 2:
            os.kill(os.getpid(), signal.SIGINT)

    command = [sys.executable, "-c", script]
    if ending == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            process.follow(command, say, 60)
    else:
        assert process.follow(command, say, 3) is None
    (child,) = (int(line) for line in lines if line.isdigit())
    until(lambda: not alive(child), 5, "the end of the child's child")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_lines_come_as_they_are_written(process: ModuleType) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        lines = process._lines(stream)
        os.write(writing, "\r\x1b[2Kbar 1\r\x1b[2Kline — käfer\r\n\r\x1b[2Kbar 2".encode())
        assert next(lines) == "line — käfer"
        os.write(writing, b"\r\x1b[2Kbar 3\nat http://user:hunter2@host/x\n\rbar 4\rbar 5")
        assert [next(lines), next(lines)] == ["bar 3", "at http://host/x"]
        os.close(writing)
        assert list(lines) == ["bar 5"]
