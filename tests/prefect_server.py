"""A real Prefect server on loopback, and what the tests ask of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from commands import python, until
from mlflow_server import Process, free_port

WAITING = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
RUN_SECONDS = 900  # on a busy machine


@dataclass
class Server:
    """A Prefect server that answers, and the environment of those who use it."""

    api: httpx.Client
    home: Path
    environment: dict[str, str]

    def ask(self, method: str, path: str, **body: Any) -> Any:
        def answer() -> httpx.Response | None:
            found = self.api.request(method, path, json=body or None)
            return None if found.status_code == 503 else found  # its database is busy

        done = until(answer, 60, path)
        done.raise_for_status()
        return done.json() if done.content else None

    def post(self, path: str, **body: Any) -> Any:
        return self.ask("POST", path, **body)

    def runs(self) -> list[dict[str, Any]]:
        return self.post("/flow_runs/filter", sort="START_TIME_ASC")

    def run(self, run_id: str) -> dict[str, Any]:
        return self.ask("GET", f"/flow_runs/{run_id}")

    def ended(self, run_id: str, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        """The run's state, as soon as it is its last."""

        def state() -> dict[str, Any] | None:
            found: dict[str, Any] = self.run(run_id)["state"]
            return None if found["type"] in WAITING else found

        return until(state, seconds, f"the end of run {run_id}")

    def deployment(self, name: str = "retrain/weekly") -> str | None:
        """Id of a deployment, as soon as there is one."""
        found = self.api.get(f"/deployments/name/{name}")
        return str(found.json()["id"]) if found.status_code == 200 else None

    def begin(self, deployment: str, **parameters: Any) -> str:
        """Id of a new run of a deployment, with its own parameters but for those given."""
        body = {"parameters": parameters}
        return str(self.post(f"/deployments/{deployment}/create_flow_run", **body)["id"])

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        return self.post("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})

    def log(self, run_id: str) -> list[str]:
        found = self.post(
            "/logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_ASC"
        )
        return [line["message"] for line in found]

    def artifacts(self, run_id: str) -> dict[str, str]:
        found = self.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
        return {artifact["key"]: str(artifact["data"]) for artifact in found}


@contextmanager
def prefect_server(home: Path, **variables: str) -> Iterator[Server]:
    """A server that keeps everything in `home`; `variables` are for those who use it."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    mine = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PREFECT_API_URL": api,
        "PYTHONPATH": "",
        **mine,
        **variables,
    }
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = Process(
        [sys.executable, "-m", "prefect", *command], f"{api}/health", home / "output.txt", **mine
    )
    try:
        with httpx.Client(base_url=api, timeout=60) as client:
            yield Server(client, home, environment)
    finally:
        process.end()


@contextmanager
def colorized(server: Server, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of ours that goes on, in a project's folder."""
    output = folder.parent / f"{arguments[0]}-output.txt"
    with output.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "colorized", *arguments], cwd=folder,
            env=server.environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def retrain(server: Server, folder: Path, *options: str, code: int = 0) -> str:
    """`colorized retrain`: what it prints, or its one line of error."""
    done = python("-m", "colorized", "retrain", *options, cwd=folder, **server.environment)
    assert done.returncode == code, done.stderr
    if not code:
        return done.stdout
    # Prefect may say something, too, on either stream.
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    return error
