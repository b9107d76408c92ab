"""Worker processes that color photographs.

A decoder that crashes or hangs on a damaged file, or a photograph that needs more memory than there
is, ends one worker. The photograph is reported, and the worker is replaced. Each worker has its own
connection, so that none can block another.

On CPUs there is one worker per core, with one thread each: while one decodes or encodes, another
runs the network. Workers that share a GPU overlap in the same way.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psutil

from colorized.batch.job import Job, Outcome, Settings
from colorized.text import line, printable

if TYPE_CHECKING:
    from colorized.api import Colorizer

# Photographs that a worker has been given: the one in hand, and one so that it need not wait.
_DEPTH = 2
_PER_GPU = 4
_MEMORY = 2 << 30

# Spawned, not forked: a worker has nothing of this process, neither locks nor open files.
_processes = multiprocessing.get_context("spawn")


class WorkerError(RuntimeError):
    """No worker can start; one line that says why."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker loads when it starts, and its number of threads.

    `sha256` is that of the weights: a worker that replaces another must not load other ones.
    """

    weights: Path
    sha256: str
    name: str
    device: str
    threads: int

    def load(self) -> Colorizer:
        """The colorizer; raises ValueError where the file has changed meanwhile."""
        from colorized import photo
        from colorized.api import Colorizer

        photo.use_threads(self.threads)
        model = Colorizer(self.weights, device=self.device, name=self.name)
        if model.weights_sha256 != self.sha256:
            raise ValueError(f"{self.weights}: the weights have changed since the batch began")
        return model


def count(devices: Sequence[str]) -> int:
    """Number of workers for these devices: one per core, or a few per GPU.

    No more than there is memory for: two GiB each, as very large scans need.
    """
    fitting = psutil.virtual_memory().available // _MEMORY
    wanted = _cores() if list(devices) == ["cpu"] else _PER_GPU * len(devices)
    return max(1, min(wanted, fitting))


def worker_specs(
    weights: Path, sha256: str, name: str, devices: Sequence[str], workers: int
) -> list[WorkerSpec]:
    """The spec of each of `workers`: devices in turn, cores shared out."""
    threads = max(1, _cores() // max(workers, 1))
    return [
        WorkerSpec(weights, sha256, name, devices[i % len(devices)], threads)
        for i in range(max(workers, 1))
    ]


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(eq=False)
class _Worker:
    spec: WorkerSpec
    given: deque[Job] = field(default_factory=deque)
    ready: bool = False
    since: float = 0.0  # its photograph, or the page of it, was begun
    page: int = 1

    def __post_init__(self) -> None:
        self.connection, theirs = _processes.Pipe()
        self.process = _processes.Process(
            target=_work, args=(theirs, self.spec), daemon=True, name="colorized worker"
        )
        with _no_interrupts():
            self.process.start()
        theirs.close()
        self.started = time.monotonic()

    def end(self) -> int | None:
        """Kill the process; returns its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


class WorkerPool:
    """Worker processes, for the duration of a `with` block.

    Parameters
    ----------
    specs
        Of each worker.
    timeout
        Seconds after which a photograph is given up, or one of several pages of a file; infinity
        for no limit.
    start_timeout
        Seconds after which a process that does not get ready ends the work.
    """

    def __init__(
        self, specs: Sequence[WorkerSpec], timeout: float, start_timeout: float = 600
    ) -> None:
        self.specs = specs
        self.timeout = timeout
        self.start_timeout = start_timeout
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        for spec in self.specs:
            self._workers.append(_Worker(spec))
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def wait_until_ready(self) -> None:
        """Return as soon as a worker has loaded the weights.

        Raises WorkerError where none can.
        """
        self._greet(self._workers[0])

    def run(self, jobs: Iterable[Job], settings: Settings) -> Iterator[tuple[Job, Outcome]]:
        """Color photographs, and yield each as soon as it is done, in any order.

        Raises WorkerError: a worker that was to replace another cannot start.
        """
        todo = iter(jobs)
        again: deque[Job] = deque()
        while True:
            # Idle workers first, so that the last photographs are spread.
            for worker in sorted(self._workers, key=lambda worker: len(worker.given)):
                while len(worker.given) < _DEPTH:
                    job = again.popleft() if again else next(todo, None)
                    if job is None:
                        break
                    self._give(worker, job, settings)
            busy = [worker for worker in self._workers if worker.given]
            if not busy:
                return
            wait([w.connection for w in busy], self._patience(busy))
            for worker in busy:
                if worker.connection.poll():
                    yield from self._hear(worker, again)
                elif self._left(worker) > 0:
                    continue
                elif worker.ready:
                    page = f"page {worker.page} " if worker.page > 1 else ""
                    why = f"{page}took longer than --timeout {self.timeout:g} seconds"
                    yield self._replace(worker, again, why)
                else:
                    self._fail_start(worker)

    def _give(self, worker: _Worker, job: Job, settings: Settings) -> None:
        if not worker.given:
            worker.since = time.monotonic()
        worker.given.append(job)
        with contextlib.suppress(OSError):  # it has died, and will be found so
            worker.connection.send((job, settings))

    def _left(self, worker: _Worker) -> float:
        """Seconds until a worker is given up."""
        end = worker.since + self.timeout if worker.ready else worker.started + self.start_timeout
        return end - time.monotonic()

    def _patience(self, busy: list[_Worker]) -> float | None:
        least = min(map(self._left, busy))
        return None if least == float("inf") else max(least, 0)

    def _hear(self, worker: _Worker, again: deque[Job]) -> Iterator[tuple[Job, Outcome]]:
        if not worker.ready:
            self._greet(worker)
            worker.since = time.monotonic()
            return
        try:
            said: Outcome | int = worker.connection.recv()
        except (EOFError, OSError):
            yield self._replace(worker, again, "")
            return
        worker.since = time.monotonic()
        if isinstance(said, int):
            worker.page = said
            return
        worker.page = 1
        yield worker.given.popleft(), said

    def _greet(self, worker: _Worker) -> None:
        """Wait until a worker has loaded the weights."""
        if not worker.connection.poll(max(0, self._left(worker))):
            self._fail_start(worker)
        try:
            kind, said = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"a worker process {_end(worker.end())} as it started") from error
        if kind != "ready":
            raise WorkerError(said)
        worker.ready = True

    def _fail_start(self, worker: _Worker) -> NoReturn:
        worker.end()
        raise WorkerError(f"a worker process was not ready after {self.start_timeout:g} seconds")

    def _replace(self, worker: _Worker, again: deque[Job], why: str) -> tuple[Job, Outcome]:
        ended = worker.end()
        why = why or f"the process that worked on it {_end(ended)}; it may be damaged, or too large"
        job = worker.given.popleft()
        again.extend(worker.given)
        self._workers[self._workers.index(worker)] = _Worker(worker.spec)
        return job, Outcome(error=f"{printable(job.source)}: {why}")


class InProcess(contextlib.nullcontext[None]):
    """A pool without workers: this process does it, without protection and without time limit."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__()
        self._model = spec.load()

    def wait_until_ready(self) -> None:
        pass

    def run(self, jobs: Iterable[Job], settings: Settings) -> Iterator[tuple[Job, Outcome]]:
        from colorized.batch import colorize_file

        for job in jobs:
            yield job, colorize_file.colorize_file(job, self._model, settings)


def _work(connection: Connection, spec: WorkerSpec) -> None:
    """What a worker does, until its connection is closed."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        from colorized.batch import colorize_file

        model = spec.load()
    except (ImportError, OSError, ValueError, RuntimeError, MemoryError) as error:
        connection.send(("failed", line(error)))
        return
    connection.send(("ready", ""))
    while True:
        try:
            job, settings = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(colorize_file.colorize_file(job, model, settings, connection.send))


def _follow_parent() -> None:
    """End with the parent process: results that it has not seen must not appear."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """A process started in this context ignores Ctrl-C, which its parent handles."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
