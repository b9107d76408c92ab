"""One run at a time: who holds the lock is said, and nobody's end leaves it behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import python

from pipelines import lock

ROOT = Path(__file__).resolve().parents[2]
# Holds the lock, starts the given command with it, and waits.
HOLDER = """
import subprocess, sys
from pathlib import Path
from pipelines import lock
with lock.take(Path(sys.argv[1])) as held:
    held.note(mlflow_run="abc")
    if sys.argv[2:]:
        subprocess.Popen([sys.executable, "-c", *sys.argv[2:]], pass_fds=[held.file])
    print("held", flush=True)
    sys.stdin.read()
"""
# What a stage does: takes what was handed down, and prints when it is asked to stop.
STAGE = """
import signal, sys, time
from pathlib import Path
from pipelines import lock
def stop(*_):
    Path("stopped").touch()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
with lock.take(Path.cwd()) as held:
    assert held.file is None
    print("stage", flush=True)
    while True:
        time.sleep(0.05)
"""

BY_HAND = "from pipelines import stage; stage.run(print)"


def hold(folder: Path, *stage: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *stage], cwd=folder, env=environment,
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_second_run_is_told_who_holds_it(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(lock.Held, match=rf"process {holder.pid}, since \d{{4}}-\d\d-\d\d \d\d:"),
            lock.take(tmp_path),
        ):
            pass
        holder.communicate("")
    with lock.take(tmp_path) as held:
        assert held.left == {}


def test_one_process_may_take_it_within_itself(tmp_path: Path) -> None:
    with lock.take(tmp_path), lock.take(tmp_path) as inner:
        assert inner.file is None
    assert lock.HELD not in os.environ


def test_somebody_elses_variable_hands_nothing_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setenv(lock.HELD, str(holder.pid))  # alive, but not above this process
        with pytest.raises(lock.Held), lock.take(tmp_path):
            pass
        holder.communicate("")


def test_killed_holder_leaves_a_note_and_no_lock(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock.take(tmp_path) as held:
            assert held.left["mlflow_run"] == "abc"
    with lock.take(tmp_path) as held:
        assert held.left == {}


def test_stage_of_a_killed_holder_stops_and_is_waited_for(tmp_path: Path) -> None:
    with hold(tmp_path, STAGE) as holder:
        assert sorted(holder.stdout.readline() for _ in range(2)) == ["held\n", "stage\n"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock.take(tmp_path):
            assert (tmp_path / "stopped").exists()


def test_stage_by_hand_is_refused_in_one_line(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        done = python("-c", BY_HAND, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: another run holds {lock.NAME}: process {holder.pid}")
        assert done.stderr.count("\n") == 1
        holder.communicate("")
