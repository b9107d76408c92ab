"""Real stores for the tests: an MLflow server on loopback, and a project small enough to train."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import yaml

from colorized.data import shards, sources

ROOT = Path(__file__).resolve().parents[1]
# Their hashes put these in all three splits.
PHOTOGRAPHS = (
    "cat", "dogs", "dahlia", "macaw", "louvre", "coffee",
    # for validation
    "citrus", "colosseum", "great-pyramid", "moose", "windmill-altenbeichlingen",
)  # fmt: skip
SHORT_TRAINING = {
    "steps": 4, "batch_size": 4, "crop_size": 64, "warmup_steps": 1, "cooldown_steps": 2,
    "validate_every": 2, "checkpoint_every": 2, "precision": "float32",
}  # fmt: skip
START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Process:
    """A server in a process group of its own, known to be up by an address that answers."""

    def __init__(self, command: Sequence[str], address: str, log: Path, **environment: str) -> None:
        self.command, self.address, self.log = command, address, log
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.log.parent, env=self.environment,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                raise RuntimeError(self.log.read_text()[-3000:])
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.address, timeout=5).is_success
        except httpx.TransportError:
            return False

    def signal(self, number: int) -> None:
        """To all processes of the server."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return
        if number == signal.SIGKILL:
            self.process.wait()

    def end(self) -> None:
        """Ask the server to stop, and wait for it."""
        self.signal(signal.SIGTERM)
        self.process.wait()


def mlflow_server(folder: Path) -> tuple[Process, str]:
    """An MLflow server that keeps everything in `folder`, and its address."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    return Process(command, f"{uri}/health", folder / "server.log"), uri


def small_project(folder: Path) -> Path:
    """A project with shards of a few photographs, and parameters to train on them in seconds."""
    (folder / "models").mkdir(parents=True)
    for name in ("colorized", "pipelines"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "models" / "released").symlink_to(ROOT / "models" / "released")
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["preprocess"] |= {"image_size": 64, "train_crops": 2, "val_crops": 3, "test_crops": 3}
    values["train"] |= SHORT_TRAINING
    values["sample"] |= {"steps": 1}
    values["promote"] |= {"seeds": 2, "pictures": 15}
    save_params(folder, values)

    p = values["preprocess"]
    settings = sources.CropSettings(
        p["image_size"], {split: p[f"{split}_crops"] for split in sources.SPLITS},
        p["min_scale"], p["val_share"], p["test_share"],
        seed=0, min_chroma=p["min_chroma"], lookalike_bits=p["lookalike_bits"],
    )  # fmt: skip
    paths = [next((ROOT / "data" / "sample").glob(f"photos*/{name}.jpg")) for name in PHOTOGRAPHS]
    source = sources.photographs(paths, ROOT / "data" / "sample")
    shards.build_shards(source, folder / "data" / "lab", settings)
    return folder


def save_params(folder: Path, values: object) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
