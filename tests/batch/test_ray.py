"""Batches on a Ray cluster of two nodes on this machine, with a folder and an S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import python
from pictures import scan
from s3_server import BUCKET, S3Server, environment

pytestmark = pytest.mark.slow

URL = f"s3://{BUCKET}"
COLORIZE = ("-m", "colorized", "colorize", "--steps", "1", "--guidance", "1")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def scans(folder: Path, count: int) -> list[Path]:
    return [scan(folder / str(i % 3) / f"{i}.png", i) for i in range(count)]


def command(*arguments: object) -> list[str]:
    return [*COLORIZE, "--engine", "ray", *map(str, arguments)]


def ours(err: str) -> list[str]:
    """What this program says; Ray may say what it thinks of a machine or its death."""
    said = ("error:", "warning:", "note:")
    return [line for line in err.splitlines() if line.startswith(said)]


def colorize(folder: Path, *arguments: object) -> tuple[int, list[str], list[str]]:
    done = python(*command(*arguments), cwd=folder, **QUIET)
    return done.returncode, sorted(done.stdout.splitlines()), ours(done.stderr)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes; the batch, which is a process of its own, runs on none of them."""
    for name, value in {**QUIET, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.second = cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()


def test_node_that_dies_midway(cluster: Any, tmp_path: Path) -> None:
    scans(tmp_path / "s", 48)
    with (
        open(tmp_path / "err", "w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, *command("s", "-o", "out", "--address", cluster.address)],
            cwd=tmp_path, env={**os.environ, **QUIET}, stdout=subprocess.PIPE,
            stderr=errors, text=True,
        ) as process,
    ):  # fmt: skip
        told = [process.stdout.readline().strip()]
        cluster.remove_node(cluster.second, allow_graceful=False)
        told += process.stdout.read().splitlines()
    err = (tmp_path / "err").read_text(encoding="utf-8")
    out = tmp_path / "out"
    made = sorted(p for p in out.rglob("*.png") if ".colorized" not in p.parts)
    assert (process.returncode, ours(err)) == (0, [])
    assert len(made) == len(told) == len(set(told)) == 48
    assert not list(out.rglob("*.partial"))
    assert not list((out / ".colorized").glob("weights-*"))
    # Every photograph has one line in one manifest.
    lines = [
        json.loads(line)["target"]
        for path in (out / ".colorized" / "shards").glob("*.jsonl")
        for line in path.read_text(encoding="ascii").splitlines()
    ]
    assert sorted(lines) == [p.relative_to(out).as_posix() for p in made]
    # A batch on one machine knows what the cluster has done.
    done = python(*COLORIZE, "s", "-o", "out", "--no-report", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "note: 48 of 48 photographs are done already\n"


def test_from_a_store_to_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as server:
        for name, value in environment(server.endpoint).items():
            monkeypatch.setenv(name, value)
        client = server.client()
        for path in scans(tmp_path / "s", 3):
            key = f"scans/{path.relative_to(tmp_path / 's').as_posix()}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        client.put_object(Bucket=BUCKET, Key="scans/bad.jpg", Body=b"words")
        code, told, err = colorize(tmp_path, f"{URL}/scans", "-o", f"{URL}/color")
        assert code == 1
        assert told == [f"{URL}/color/{i}/{i}.png" for i in range(3)]
        assert err[0].startswith(f"error: {URL}/scans/bad.jpg: no picture of a known format")
        assert err[1:] == ["error: 1 of 4 photographs could not be colored"]
        stored = [key for key in server.stored("color/") if key.endswith(".png")]
        assert stored == [f"color/{i}/{i}.png" for i in range(3)]

        # A file that is none of theirs has the name of a sidecar.
        client.put_object(Bucket=BUCKET, Key="other/0/0.png.json", Body=b"mine")
        code, told, err = colorize(tmp_path, f"{URL}/scans", "-o", f"{URL}/other")
        assert (code, told) == (1, [f"{URL}/other/{i}/{i}.png" for i in (1, 2)])
        assert f"error: {URL}/other/0/0.png.json: exists already; --overwrite replaces it" in err
        assert "other/0/0.png" not in server.stored("other/")

        client.delete_object(Bucket=BUCKET, Key="scans/bad.jpg")
        server.asked.clear()
        assert colorize(tmp_path, f"{URL}/scans", "-o", f"{URL}/color") == (
            0, [], ["note: 3 of 3 photographs are done already"],
        )  # fmt: skip
        assert not [key for method, key in server.asked if method == "PUT"]
        code, told, err = colorize(tmp_path, f"{URL}/scans", "-o", f"{URL}/color", "--seed", 1)
        assert (code, told) == (1, [])
        assert err == [
            "error: 0/0.png: was colored with other settings; --overwrite replaces it and 2 more"
        ]


def test_store_without_a_cluster_is_refused(tmp_path: Path) -> None:
    done = python(*COLORIZE, f"{URL}/scans", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: {URL}/scans: only --engine ray reads and writes stores\n"
