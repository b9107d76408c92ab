"""Batches in processes of their own: killed, starved, hung, and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from commands import python
from mounts import mounted
from pictures import gray, results, scan

from colorized.batch.job import FileDigest, Job, Settings
from colorized.batch.journal import Journal
from colorized.batch.workers import WorkerError, WorkerPool, WorkerSpec
from colorized.model.released import RELEASED
from colorized.options import UNTUNED

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SETTINGS = Settings(UNTUNED.override(steps=1), max_pixels=300_000_000)
SPEC = WorkerSpec(RELEASED, FileDigest.of(RELEASED).sha256, "released", "cpu", 1)


def command(*arguments: object) -> list[str]:
    return ["-m", "colorized", "colorize", "--steps", "1", "--guidance", "1", *map(str, arguments)]


def colorize(folder: Path, *arguments: object) -> tuple[int, list[str], list[str]]:
    done = python(*command(*arguments), cwd=folder)
    return done.returncode, sorted(done.stdout.splitlines()), done.stderr.splitlines()


def journal(out: Path) -> list[dict[str, object]]:
    lines = (out / ".colorized" / "journal.jsonl").read_text(encoding="ascii").splitlines()
    return [json.loads(line) for line in lines]


class TestKilled:
    def test_nothing_is_lost_and_nothing_done_twice(self, tmp_path: Path) -> None:
        for i in range(8):
            scan(tmp_path / "s" / str(i % 3) / f"{i}.png", i, (800, 600))
        process = subprocess.Popen(
            [sys.executable, *command("s", "-o", "out", "--workers", 2)],
            cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        told = [process.stdout.readline().strip() for _ in range(3)]
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        # The workers, too, end by themselves, and with them what they had begun.
        psutil.wait_procs(workers, timeout=60)
        assert not any(worker.is_running() for worker in workers)

        before = {name: (tmp_path / "out" / name).stat() for name in results(tmp_path / "out")}
        known = {str(entry["target"]): entry for entry in journal(tmp_path / "out")}
        assert {name.removeprefix("out/") for name in told} <= set(before) <= set(known)
        for name in before:
            files = known[name]["files"]
            assert files[name]["sha256"] == FileDigest.of(tmp_path / "out" / name).sha256

        code, out, err = colorize(tmp_path, "s", "-o", "out")
        assert (code, err) == (0, [f"note: {len(before)} of 8 photographs are done already"])
        assert len(out) == 8 - len(before)
        for name, status in before.items():
            assert (tmp_path / "out" / name).stat() == status
        assert len(journal(tmp_path / "out")) <= 9  # one may have been announced, and not moved
        left = {path.name for path in (tmp_path / "out" / ".colorized").iterdir()}
        assert left == {"journal.jsonl", "lock", "thumbnails.jsonl"}

        assert colorize(tmp_path, "s", "-o", "uninterrupted")[0] == 0
        assert results(tmp_path / "out") == results(tmp_path / "uninterrupted")
        assert colorize(tmp_path, "s", "-o", "out") == (
            0, [], ["note: 8 of 8 photographs are done already"],
        )  # fmt: skip

    def test_disk_full(self, tmp_path: Path) -> None:
        for i in range(4):
            scan(tmp_path / "s" / f"{i}.png", i, (400, 300))
        out = tmp_path / "out"
        with mounted(out, "-t", "tmpfs", "-o", "size=700k", "none"):
            code, told, err = colorize(tmp_path, "s", "-o", "out", "--workers", 1)
            assert code == 1
            assert err == [
                f"error: out: the disk is full; {len(told)} of 4 photographs were colored, and "
                "the same command goes on with the others"
            ]
            assert 1 <= len(told) < 4
            assert sorted(f"out/{name}" for name in results(out)) == told
            subprocess.run(["mount", "-o", "remount,size=8m", str(out)], check=True)
            code, more, err = colorize(tmp_path, "s", "-o", "out")
            assert (code, len(told) + len(more)) == (0, 4)
            for content in results(out).values():
                assert content.endswith(b"IEND\xaeB`\x82")

    def test_target_on_another_file_system(self, tmp_path: Path) -> None:
        scan(tmp_path / "s" / "1900" / "a.png")
        (tmp_path / "out").mkdir()
        with mounted(tmp_path / "out" / "1900", "-t", "tmpfs", "none"):
            assert colorize(tmp_path, "s", "-o", "out") == (0, ["out/1900/a.png"], [])
            assert list(results(tmp_path / "out")) == ["1900/a.png"]

    def test_originals_on_a_read_only_file_system(self, tmp_path: Path) -> None:
        source = scan(tmp_path / "real" / "a.png")
        scan(tmp_path / "real" / "1900" / "b.jpg", 1)
        before = source.stat()
        with mounted(tmp_path / "s", "--bind", "-o", "ro", str(tmp_path / "real")):
            code, told, err = colorize(tmp_path, "s", "-o", "out")
            assert (code, told, err) == (0, ["out/1900/b.jpg", "out/a.png"], [])
            code, _, err = colorize(tmp_path, "s", "-o", "s/out")
            assert code == 1
            assert err == ["error: s: cannot be written to; choose another folder with --out"]
        assert source.stat().st_mtime_ns == before.st_mtime_ns


def at_work() -> psutil.Process:
    """The only worker of this process, which has other children, too."""
    children = psutil.Process().children()
    (worker,) = [c for c in children if "spawn_main" in " ".join(c.cmdline())]
    return worker


def _suspend_when(folder: Path, count: int) -> None:
    """Suspend the worker as soon as it has kept so many pages."""
    while len(list(folder.glob("*.npz"))) < count:
        time.sleep(0.005)
    at_work().suspend()


class TestWorkerPool:
    @pytest.fixture
    def jobs(self, tmp_path: Path) -> list[Job]:
        # The second one takes long enough to be caught at work.
        sizes = [(61, 43), (5000, 4000), (61, 43)]
        sources = [scan(tmp_path / "s" / f"{i}.png", i, size) for i, size in enumerate(sizes)]
        return [Job(source, tmp_path / "out" / source.name) for source in sources]

    @pytest.fixture
    def pool(self) -> Iterator[WorkerPool]:
        with WorkerPool([SPEC], timeout=300) as pool:
            yield pool

    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
    def test_crash_costs_one_photograph(
        self, pool: WorkerPool, jobs: list[Job], number: signal.Signals
    ) -> None:
        done = pool.run(jobs, SETTINGS)
        assert next(done)[1].error == ""
        worker = at_work()
        os.kill(worker.pid, number)
        job, outcome = next(done)
        assert job == jobs[1]
        assert outcome.error == (
            f"{job.source}: the process that worked on it was ended by signal {number.name}; it "
            "may be damaged, or too large"
        )
        assert [(job, outcome.error) for job, outcome in done] == [(jobs[2], "")]
        assert not jobs[1].target.exists()

    def test_hang_costs_one_photograph(self, pool: WorkerPool, jobs: list[Job]) -> None:
        done = pool.run(jobs, SETTINGS)
        assert next(done)[1].error == ""
        worker = at_work()
        worker.suspend()
        pool.timeout = 0.1
        job, outcome = next(done)
        pool.timeout = 300
        assert job == jobs[1]
        assert outcome.error == f"{job.source}: took longer than --timeout 0.1 seconds"
        assert [(job, outcome.error) for job, outcome in done] == [(jobs[2], "")]

    def test_timeout_is_for_a_page(self, pool: WorkerPool, tmp_path: Path) -> None:
        pages = [gray(), gray(size=(5000, 4000))]
        source = scan(tmp_path / "s" / "album.tif", save_all=True, append_images=pages)
        job = Job(source, tmp_path / "out" / "album.tif", tmp_path / "drawn")
        done = pool.run([job], SETTINGS)
        # It is caught when it has kept its second page, on the way to the third.
        kept = tmp_path / "drawn"
        waiting = threading.Thread(target=_suspend_when, args=(kept, 2), daemon=True)
        pool.timeout = 10
        waiting.start()
        ((_, outcome),) = done
        waiting.join()
        assert outcome.error in [
            f"{source}: page {page} took longer than --timeout 10 seconds" for page in (2, 3)
        ]
        before = {path.name: path.stat() for path in kept.iterdir()}
        assert len(before) == 2
        pool.timeout = 300
        assert next(pool.run([job], SETTINGS))[1].error == ""
        assert {n: (kept / n).stat().st_mtime_ns for n in before} == {
            name: status.st_mtime_ns for name, status in before.items()
        }

    def test_worker_that_hangs_while_it_starts_is_given_up(self, jobs: list[Job]) -> None:
        pool = WorkerPool([SPEC], 300, start_timeout=0.1)
        with pool, pytest.raises(WorkerError, match=r"not ready after 0\.1 seconds"):
            pool.wait_until_ready()
        pool = WorkerPool([SPEC], 300, start_timeout=0.1)
        with pool, pytest.raises(WorkerError, match=r"not ready after 0\.1 seconds"):
            next(pool.run(jobs, SETTINGS))

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            ({"weights": Path("none")}, "none: no such weights file"),
            ({"sha256": "0" * 64}, "the weights have changed since the batch began"),
        ],
    )
    def test_weights_that_no_worker_can_load(self, changed: dict[str, object], why: str) -> None:
        with (
            WorkerPool([replace(SPEC, **changed)], timeout=300) as pool,
            pytest.raises(WorkerError, match=why),
        ):
            pool.wait_until_ready()

    def test_results_do_not_depend_on_the_number_of_threads(
        self, tmp_path: Path, jobs: list[Job]
    ) -> None:
        made = []
        for threads in (1, 2):
            with WorkerPool([replace(SPEC, threads=threads)], timeout=300) as pool:
                here = [Job(j.source, tmp_path / str(threads) / j.target.name) for j in jobs]
                outcomes = dict(pool.run(here, SETTINGS))
                made.append([outcomes[job].files[0][1].sha256 for job in here])
        assert made[0] == made[1]


class TestJournal:
    """What the folder of results knows, and what it does not take for its own."""

    @pytest.fixture
    def here(self, tmp_path: Path) -> Path:
        for i, name in enumerate("ab"):
            scan(tmp_path / "s" / f"{name}.png", i)
        assert colorize(tmp_path, "s", "-o", "out", "--workers", 0)[0] == 0
        return tmp_path

    def again(self, here: Path, *options: object) -> tuple[int, list[str], list[str]]:
        return colorize(here, "s", "-o", "out", "--workers", 0, *options)

    def refused(self, here: Path, why: str, *options: object) -> None:
        before = results(here / "out")
        code, told, err = self.again(here, *options)
        assert (code, told) == (1, [])
        named = [line for line in err if line.startswith(f"error: out/{why}")]
        assert len(named) == 1
        assert "--overwrite" in named[0]
        assert results(here / "out") == before

    def test_result_that_somebody_changed(self, here: Path) -> None:
        (here / "out" / "b.png").write_bytes(b"retouched")
        self.refused(here, "b.png: was changed after it was colored")
        assert self.again(here, "--overwrite")[:2] == (0, ["out/b.png"])

    def test_result_that_was_only_copied(self, here: Path) -> None:
        """A backup brought back has another time and the same bytes."""
        shutil.copy(here / "out" / "b.png", here / "copy.png")
        os.replace(here / "copy.png", here / "out" / "b.png")
        assert self.again(here)[:2] == (0, [])

    def test_other_settings(self, here: Path) -> None:
        self.refused(here, "b.png: was colored with other settings (seed 0, now 1)", "--seed", 1)
        code, told, _ = self.again(here, "--seed", 1, "--overwrite")
        assert (code, told) == (0, ["out/a.png", "out/b.png"])
        assert self.again(here, "--seed", 1)[:2] == (0, [])

    def test_other_original(self, here: Path) -> None:
        scan(here / "s" / "b.png", 7)
        self.refused(here, "b.png: its original s/b.png has changed since it was colored")
        assert self.again(here, "--overwrite")[:2] == (0, ["out/b.png"])

    def test_touched_original_is_the_same(self, here: Path) -> None:
        os.utime(here / "s" / "b.png", (1, 1))
        assert self.again(here)[:2] == (0, [])

    def test_file_that_is_not_the_journals(self, here: Path) -> None:
        scan(here / "s" / "c.png", 7)
        (here / "out" / "c.png").write_bytes(b"mine")
        self.refused(here, "c.png: exists already")
        assert (here / "out" / "c.png").read_bytes() == b"mine"

    def test_candidate_that_is_not_the_journals(self, tmp_path: Path) -> None:
        scan(tmp_path / "s" / "a.png")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a.candidate-2.png").write_bytes(b"mine")
        code, told, err = self.again(tmp_path, "--candidates", 2)
        assert (code, told) == (1, [])
        assert err[0].startswith("error: out/a.candidate-2.png: exists already")
        assert results(tmp_path / "out") == {"a.candidate-2.png": b"mine"}

    @pytest.mark.parametrize("cut", [1, 100])
    def test_line_that_was_not_finished(self, here: Path, cut: int) -> None:
        """As a power cut can leave it: the line is gone, so the file is nobody's."""
        path = here / "out" / ".colorized" / "journal.jsonl"
        os.truncate(path, path.stat().st_size - cut)
        self.refused(here, "b.png: exists already")
        for name in ("b.png", "b.png.json"):
            (here / "out" / name).unlink()
        assert self.again(here)[:2] == (0, ["out/b.png"])
        assert [entry["target"] for entry in journal(here / "out")] == ["a.png", "b.png"]

    def test_announced_and_not_moved(self, here: Path) -> None:
        """Killed between the journal's line and the file's name."""
        before = results(here / "out")
        (here / "out" / "b.png").unlink()
        scan(here / "s" / "c.png", 7)
        assert self.again(here)[:2] == (0, ["out/b.png", "out/c.png"])
        assert {**results(here / "out"), **before} == results(here / "out")

    @pytest.mark.parametrize("line", [b"{}", b"[1]", b"\xff\xfe", b'{"target": 1}', b"null"])
    def test_line_that_is_damaged(self, here: Path, line: bytes) -> None:
        path = here / "out" / ".colorized" / "journal.jsonl"
        path.write_bytes(line + b"\n" + path.read_bytes())
        code, told, err = self.again(here)
        assert (code, told) == (0, [])
        assert err[0] == (
            "warning: out/.colorized/journal.jsonl: line 1 cannot be read and is passed over"
        )

    def test_two_batches_at_once(self, here: Path) -> None:
        with Journal(here / "out"):
            code, told, err = self.again(here)
        assert (code, told) == (1, [])
        assert err == ["error: out: another batch is writing to this folder"]
        assert self.again(here)[0] == 0

    def test_file_in_place_of_the_journals_folder(self, tmp_path: Path) -> None:
        scan(tmp_path / "s" / "a.png")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ".colorized").touch()
        code, told, err = self.again(tmp_path)
        assert (code, told) == (1, [])
        assert err == ["error: out/.colorized: File exists"]
