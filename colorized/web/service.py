"""The service: one queue for one network, with a few decoder processes.

An upload is refused where no *place* in the queue is free, and takes one when its body is complete,
so that slow uploads do not block others. The number and the bytes of uploads and places are
bounded, and so is their memory. Then a request waits for a *decoder*, first come, first served,
where its photograph is decoded, for the *network*, which draws one request at a time, and for its
decoder again, which encodes the result while the network works on the next one.

Requests are not drawn together: a batch of four saves up to half of the network's time on a CPU,
but sums come out differently in it, so a seed would not always give the same bytes.
`benchmarks/web.py` measures both.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import prometheus_client
import torch
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from colorized.api import Colorizer
from colorized.inference.candidates import Candidates
from colorized.inference.hints import Hints
from colorized.options import SamplingOptions
from colorized.photo import provenance
from colorized.web.decoder import TILE, DecoderProcess, Finished, Opened, Plane, Refused
from colorized.web.tiles import Tiles

FORM_BYTES = 1 << 20
"""Of a request, besides the photograph."""

LARGE = 24_000_000
"""Photographs of more pixels are opened one at a time, whatever the number of decoders."""

Read = Callable[[], Awaitable[bytes]]
OnEvent = Callable[[dict[str, Any]], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Limits of the service."""

    places: int = 16  # requests at once, waiting or running
    uploads: int = 64  # incomplete uploads at once
    tile_bytes: int = 256 << 20  # tiles of all photographs
    tile_seconds: float = 600.0  # until unused tiles are deleted
    decoders: int = 2  # photographs open at once
    max_bytes: int = 256 << 20  # of an upload
    max_pixels: int = 100_000_000  # of a photograph, checked before it is decoded
    seconds: float = 180.0  # for an upload, and for a photograph once it has a decoder


@dataclass(frozen=True)
class Job:
    """How a photograph is to be colored; as `Colorizer.colorize`."""

    sampling: SamplingOptions
    hints: Hints | None = None
    hints_text: str = ""
    hints_sha256: str = ""
    page: int | None = None
    candidate: int = 1
    candidates: int = 1


class Full(Exception):
    """No place is free.

    `seconds` is the time after which to try again.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"server busy; try again in {seconds} s")
        self.seconds = seconds


class Upload:
    """A request, from the first byte of its body to the end of its answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._bytes = 0
        self._there = False

    def grow(self, count: int) -> None:
        """Count received bytes.

        Raises Full: all uploads together are too large.
        """
        limits = self._service.limits
        self._bytes += count
        self._service.bytes += count
        if self._service.bytes > limits.places * (limits.max_bytes + FORM_BYTES):
            raise self._service._full()

    def arrive(self) -> None:
        """Take a place: the body is complete.

        Raises Full: no place is free.
        """
        if self._service.taken >= self._service.limits.places:
            raise self._service._full()
        self._there = True
        self._service.uploading -= 1
        self._service.taken += 1

    def end(self) -> None:
        """Release its bytes and place."""
        self._service.bytes -= self._bytes
        if self._there:
            self._service.taken -= 1
        else:
            self._service.uploading -= 1


class Metrics:
    """Counters and durations of `/metrics`."""

    def __init__(self, service: Service) -> None:
        prometheus_client.disable_created_metrics()  # a time beside every counter
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "colorized_requests",
            "Requests for a coloring, by what became of them.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("done", "refused", "full", "left", "failed"):
            self.requests.labels(outcome)
        self.stages = Histogram(
            "colorized_stage_seconds",
            "Time of a photograph in each stage.",
            ["stage"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=self.registry,
        )
        self.pixels = Counter("colorized_pixels", "Pixels of photographs.", registry=self.registry)
        gauges: dict[tuple[str, str], Callable[[], float]] = {
            ("colorized_places", "Places in the queue."): lambda: service.limits.places,
            ("colorized_places_taken", "Those taken."): lambda: service.taken,
            ("colorized_uploads", "Uploads under way."): lambda: service.uploading,
            ("colorized_tile_bytes", "Tiles held for pages."): lambda: service.tiles.bytes,
        }
        for (name, text), value in gauges.items():
            Gauge(name, text, registry=self.registry).set_function(value)


class Service:
    """Colors photographs for many clients. All methods belong to one event loop.

    `model` has the weights and their options.
    """

    def __init__(self, model: Colorizer, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.taken = 0
        self.uploading = 0
        self.bytes = 0
        self.tiles = Tiles(limits.tile_bytes, limits.tile_seconds)
        self._active = 0
        self._queue: list[Callable[[int], None]] = []
        self.metrics = Metrics(self)
        self._decoders = asyncio.Semaphore(limits.decoders)
        self._large = asyncio.Semaphore(1)
        # One thread of computation, for the same bytes as on the command line; and threads that
        # spin while they wait for each other would take the processor from the decoders.
        self._network = ThreadPoolExecutor(1, "network", torch.set_num_threads, (1,))
        self._decoder_threads = ThreadPoolExecutor(limits.decoders, "decoder")
        self._pace = 1.0  # seconds from one finished photograph to the next, when there is a queue

    def close(self) -> None:
        """End the threads; no request is active."""
        self._network.shutdown()
        self._decoder_threads.shutdown()

    @contextmanager
    def upload(self) -> Iterator[Upload]:
        """An upload, for the duration of its request.

        Raises Full: no place is free, or there are too many uploads.
        """
        if self.taken >= self.limits.places or self.uploading >= self.limits.uploads:
            raise self._full()
        upload = Upload(self)
        self.uploading += 1
        try:
            yield upload
        finally:
            upload.end()

    def _full(self) -> Full:
        self.metrics.requests.labels("full").inc()
        return Full(max(1, math.ceil(self._pace * self.taken / 2)))

    async def colorize(self, read: Read, job: Job, format: str) -> Finished:
        """Color a photograph, and write it as "png", "jpeg" or in its "original" format.

        `read` returns the bytes of the file, when the request has a decoder. Raises Refused: the
        photograph cannot be colored.
        """
        async with self._session() as session:
            opened = await session.open(read, job.page, show=False)
            drawn = await self._draw(opened.guide, job, 1, session.deadline)
            facts = {
                "model": self.model.name,
                "weights_sha256": self.model.weights_sha256,
                "data_sha256": self.model.data_sha256,
                **dataclasses.asdict(job.sampling),
                "hints_sha256": job.hints_sha256,
                "hints": job.hints_text if len(job.hints_text) <= provenance.MAX_HINTS else "",
                "candidate": job.candidate,
                "candidates": job.candidates,
            }
            with self.metrics.stages.labels("write").time():
                finished: Finished = await session.ask("finish", drawn.ab[0], format, facts)
            beyond: list[str] = []
            if job.hints:
                beyond = await asyncio.to_thread(job.hints.out_of_gamut, opened.guide)
            return dataclasses.replace(finished, notes=[*finished.notes, *beyond])

    async def scan(self, read: Read, page: int | None) -> dict[str, Any]:
        """Hold the tiles of a photograph; returns their id and sizes: see `Tiles`."""
        async with self._session() as session:
            await session.open(read, page, show=True)
            return await self._tiles(session)

    async def _tiles(self, session: _Session) -> dict[str, Any]:
        with self.metrics.stages.labels("tiles").time():
            pyramid = await session.ask("tiles")
        levels = [{"width": width, "height": height} for width, height in pyramid.levels]
        return {"id": self.tiles.add(pyramid.tiles), "size": TILE, "levels": levels}

    async def preview(self, read: Read, job: Job, count: int, tiles: bool, tell: OnEvent) -> None:
        """Color a photograph for a page, with progress.

        Raises Refused: the photograph cannot be colored.

        Parameters
        ----------
        count
            Colorings to draw.
        tiles
            Whether to hold the tiles of the photograph, too.
        tell
            Called with each event of `docs/web.md`.
        """
        async with self._session(
            lambda ahead: tell({"event": "waiting", "ahead": ahead})
        ) as session:
            tell({"event": "reading"})
            opened = await session.open(read, job.page, show=True)
            shown = {key: value for key, value in vars(opened).items() if key != "guide"}
            shown["original"] = opened.original or None
            shown["repeatable"] = opened.marks is not None and self._can_repeat(opened.marks)
            tell({"event": "opened", "page": job.page or 1, **shown})

            def step(i: int, n: int, ab: NDArray[np.float32]) -> None:
                tell({"event": "step", "step": i, "steps": n, "ab": ab[0]})

            drawn = await self._draw(opened.guide, job, count, session.deadline, step)
            with self.metrics.stages.labels("write").time():
                planes: list[Plane] = [await session.ask("plane", ab) for ab in drawn.ab]
            softened: list[int] = []
            if job.hints:
                softened = await asyncio.to_thread(job.hints.softened, opened.guide)
            tell(
                {
                    "event": "done",
                    "softened": softened,
                    "candidates": [
                        {"seed": str(seed), "ab": plane}
                        for seed, plane in zip(drawn.seeds, planes, strict=True)
                    ],
                    "steps": job.sampling.steps,
                    "guidance": job.sampling.guidance,
                    "temperature": job.sampling.temperature,
                    "uncertainty": drawn.uncertainty if count > 1 else None,
                }
            )
            if tiles:
                tell({"event": "tiles", **await self._tiles(session)})

    @asynccontextmanager
    async def _session(
        self, on_wait: Callable[[int], None] | None = None
    ) -> AsyncIterator[_Session]:
        """A decoder, when the request has its turn; `on_wait` gets the number of those ahead."""
        begin = time.monotonic()
        wait = on_wait or (lambda _: None)
        self._queue.append(wait)
        wait(self._active + len(self._queue) - 1)
        try:
            await self._decoders.acquire()
        finally:
            self._queue.remove(wait)
            self._tell_queue()
        self._active += 1
        try:
            start = time.monotonic()
            self.metrics.stages.labels("wait").observe(start - begin)
            session = _Session(self, start + self.limits.seconds)
            try:
                yield session
            finally:
                session.close()
            took = (time.monotonic() - start) / self.limits.decoders
            self._pace += 0.2 * (took - self._pace)
        finally:
            self._active -= 1
            self._decoders.release()
            self._tell_queue()

    def _tell_queue(self) -> None:
        for number, wait in enumerate(self._queue):
            wait(self._active + number)

    def _can_repeat(self, marks: Mapping[str, Any]) -> bool:
        """Whether what a colored photograph records gives its colors again here."""
        model = self.model
        return (
            marks["weights_sha256"] == model.weights_sha256
            and marks["sampler"] == model.options.override(steps=marks["steps"]).sampler
            and bool(marks["hints"]) == bool(marks["hints_sha256"])
        )

    async def _draw(
        self,
        guide: NDArray[np.float32],
        job: Job,
        count: int,
        deadline: float,
        on_step: Callable[[int, int, NDArray[np.float32]], None] | None = None,
    ) -> Candidates:
        loop = asyncio.get_running_loop()
        left = threading.Event()

        def step(i: int, n: int, ab: NDArray[np.float32]) -> None:
            if left.is_set():
                raise _Abandoned
            if time.monotonic() > deadline:
                why = f"the photograph: given up after {self.limits.seconds:.0f} s"
                raise Refused(why, "time")
            if on_step is not None:
                loop.call_soon_threadsafe(on_step, i, n, ab)

        draw = functools.partial(
            self.model.sampler.candidates,
            guide,
            count,
            job.sampling,
            hints=job.hints,
            on_step=step,
        )
        with self.metrics.stages.labels("draw").time():
            try:
                return await _finish(self._network, draw, left.set)
            except Refused:
                raise
            except ValueError as error:  # options that the network cannot sample with
                raise Refused(str(error)) from error


class _Abandoned(Exception):
    """Raised in the sampling when the client has disconnected."""


class _Session:
    """A request's decoder process, called from the event loop."""

    def __init__(self, service: Service, deadline: float) -> None:
        self.deadline = deadline
        self._service = service
        self._decoder = DecoderProcess()
        self._large = False

    async def open(self, read: Read, page: int | None, show: bool) -> Opened:
        service = self._service
        with service.metrics.stages.labels("read").time():
            pixels = await self.ask("look", await read())
            if LARGE < pixels <= service.limits.max_pixels:
                await service._large.acquire()
                self._large = True
            opened: Opened = await self.ask(
                "open", service.limits.max_pixels, service.model.sampler.work_size, show, page
            )
        service.metrics.pixels.inc(opened.width * opened.height)
        return opened

    async def ask(self, method: str, *arguments: Any) -> Any:
        ask = functools.partial(
            self._decoder.ask,
            method,
            *arguments,
            seconds=max(0.0, self.deadline - time.monotonic()),
        )
        return await _finish(self._service._decoder_threads, ask, self._decoder.kill)

    def close(self) -> None:
        self._decoder.close()
        if self._large:
            self._service._large.release()


async def _finish(pool: ThreadPoolExecutor, work: Callable[[], T], stop: Callable[[], object]) -> T:
    """The result of work in a thread of `pool`; when canceled, stop it and wait for its end."""
    future = pool.submit(work)
    ended = asyncio.wrap_future(future)
    # Retrieved in any case, so that asyncio does not report it.
    ended.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not future.cancel():  # it has begun
            stop()
            while not ended.done():  # it may be canceled more than once
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([ended])
        raise
