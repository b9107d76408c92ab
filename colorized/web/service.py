"""The room: one queue before one network, with a few desks at which photographs are opened.

An upload is sent away where no *place* is free, and takes one when its body is there: who is slow
in sending keeps nobody waiting. Uploads, places and the bytes of both are bounded, and so is the
memory they take. Then a request waits for a *desk*, in the order of coming, has its photograph read
there, waits for the *network*, which draws one request at a time, and has the result written at its
desk, while the network is with the next one.

Requests are not drawn together: a batch of four saves a third of the network's time on a CPU, but
sums come out differently in it, so a seed would not always give the same bytes. `benchmarks/web.py`
measures both.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from colorized.web.decoder import TILE, Desk, Finished, Opened, Plane, Refused, warm_up
from colorized.web.tiles import Tiles

FORM_BYTES = 1 << 20
"""Of a request, besides the photograph."""

LARGE = 24_000_000
"""Photographs of more pixels are opened one at a time, whatever the number of desks."""

Read = Callable[[], Awaitable[bytes]]
OnEvent = Callable[[dict[str, Any]], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What the room takes.

    Attributes
    ----------
    places
        Requests at once, waiting or at work.
    uploads
        Requests at once whose photograph is still coming.
    tile_bytes
        Tiles held for pages that are open, all together.
    tile_seconds
        Tiles are forgotten when nobody has asked for one that long.
    desks
        Photographs open at once.
    max_bytes
        Of an upload.
    max_pixels
        Of a photograph; known before it is decoded.
    seconds
        For a photograph, from the moment it has a desk, and for its upload.
    """

    places: int = 16
    uploads: int = 64
    tile_bytes: int = 256 << 20
    tile_seconds: float = 600.0
    desks: int = 2
    max_bytes: int = 256 << 20
    max_pixels: int = 100_000_000
    seconds: float = 180.0


@dataclass(frozen=True)
class Order:
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

    Parameters
    ----------
    seconds
        After which to ask again.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"server busy; try again in {seconds} s")
        self.seconds = seconds


class Upload:
    """A request, from the first byte of its body to the end of its answer."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0
        self._there = False

    def grow(self, count: int) -> None:
        """Count bytes that have come.

        Raises
        ------
        Full
            All that is coming or here is too much.
        """
        limits = self._room.limits
        self._bytes += count
        self._room.bytes += count
        if self._room.bytes > limits.places * (limits.max_bytes + FORM_BYTES):
            raise self._room._full()

    def arrive(self) -> None:
        """Take a place: all of the body is there.

        Raises
        ------
        Full
            None is free any more.
        """
        if self._room.taken >= self._room.limits.places:
            raise self._room._full()
        self._there = True
        self._room.uploading -= 1
        self._room.taken += 1

    def end(self) -> None:
        """Give back what it took."""
        self._room.bytes -= self._bytes
        if self._there:
            self._room.taken -= 1
        else:
            self._room.uploading -= 1


class Metrics:
    """What `/metrics` tells."""

    def __init__(self, room: Room) -> None:
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
        places = Gauge("colorized_places", "Places in the room.", registry=self.registry)
        places.set(room.limits.places)
        uploads = Gauge("colorized_uploads", "Photographs on their way.", registry=self.registry)
        uploads.set_function(lambda: room.uploading)
        tiles = Gauge("colorized_tile_bytes", "Tiles held for pages.", registry=self.registry)
        tiles.set_function(lambda: room.tiles.bytes)
        taken = Gauge("colorized_places_taken", "Those taken.", registry=self.registry)
        taken.set_function(lambda: room.taken)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time that is spent inside."""
        with self.stages.labels(name).time():
            yield


class Room:
    """Colors photographs for many at once. All methods belong to one event loop.

    Parameters
    ----------
    model
        What draws, and what is known of it.
    """

    def __init__(self, model: Colorizer, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.taken = 0
        self.uploading = 0
        self.bytes = 0
        self.tiles = Tiles(limits.tile_bytes, limits.tile_seconds)
        self._at_work = 0
        self._line: list[Callable[[int], None]] = []
        self.metrics = Metrics(self)
        self._desks = asyncio.Semaphore(limits.desks)
        self._large = asyncio.Semaphore(1)
        # One thread of computation, for the same bytes as on the command line; and threads that
        # spin while they wait for each other would take the processor from the desks.
        self._network = ThreadPoolExecutor(1, "network", torch.set_num_threads, (1,))
        self._askers = ThreadPoolExecutor(limits.desks, "desk")
        self._pace = 1.0  # seconds from one finished photograph to the next, when there is a queue

    def open(self) -> None:
        """Load what desks need; blocks for some seconds."""
        warm_up()

    def close(self) -> None:
        """End the threads; nobody is in the room."""
        self._network.shutdown()
        self._askers.shutdown()

    @contextmanager
    def upload(self) -> Iterator[Upload]:
        """A request whose body is coming, for as long as the request lasts.

        Raises
        ------
        Full
            No place would be free, or too many are sending.
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

    async def colorize(self, read: Read, order: Order, format: str) -> Finished:
        """Color a photograph, and write it as "png", "jpeg" or in its "original" format.

        Parameters
        ----------
        read
            Gives the bytes of the file, when it is their turn.

        Raises
        ------
        Refused
            The photograph cannot be colored.
        """
        async with self._at_desk() as seat:
            opened = await seat.open(read, order.page, show=False)
            drawn = await self._draw(opened.guide, order, 1, seat.deadline)
            facts = {
                "model": self.model.name,
                "weights_sha256": self.model.weights_sha256,
                "data_sha256": self.model.data_sha256,
                **dataclasses.asdict(order.sampling),
                "hints_sha256": order.hints_sha256,
                "hints": order.hints_text if len(order.hints_text) <= provenance.MAX_HINTS else "",
                "candidate": order.candidate,
                "candidates": order.candidates,
            }
            with self.metrics.stage("write"):
                finished: Finished = await seat.ask("finish", drawn.ab[0], format, facts)
            beyond = await asyncio.to_thread(_beyond, order, opened)
            return dataclasses.replace(finished, notes=[*finished.notes, *beyond])

    async def scan(self, read: Read, page: int | None) -> dict[str, Any]:
        """Hold the tiles of a photograph, and say where they are: see `Tiles`."""
        async with self._at_desk() as seat:
            await seat.open(read, page, show=True)
            return await self._tiles(seat)

    async def _tiles(self, seat: _Seat) -> dict[str, Any]:
        with self.metrics.stage("tiles"):
            pyramid = await seat.ask("tiles")
        levels = [{"width": width, "height": height} for width, height in pyramid.levels]
        return {"id": self.tiles.add(pyramid.tiles), "size": TILE, "levels": levels}

    async def preview(
        self, read: Read, order: Order, count: int, tiles: bool, tell: OnEvent
    ) -> None:
        """Color a photograph for a page, and tell what there is to see.

        Parameters
        ----------
        count
            Colorings to draw.
        tiles
            Whether to hold the tiles of the photograph, too.
        tell
            Is given the events that `docs/web.md` lists.

        Raises
        ------
        Refused
            The photograph cannot be colored.
        """
        async with self._at_desk(lambda ahead: tell({"event": "waiting", "ahead": ahead})) as seat:
            tell({"event": "reading"})
            opened = await seat.open(read, order.page, show=True)
            tell(
                {
                    "event": "opened",
                    "width": opened.width,
                    "height": opened.height,
                    "page": order.page or 1,
                    "pages": opened.pages,
                    "gray": opened.gray,
                    "original": opened.original or None,
                    "marks": opened.marks,
                    "notes": opened.notes,
                }
            )

            def step(i: int, n: int, ab: NDArray[np.float32]) -> None:
                tell({"event": "step", "step": i, "steps": n, "ab": ab[0]})

            drawn = await self._draw(opened.guide, order, count, seat.deadline, step)
            with self.metrics.stage("write"):
                planes: list[Plane] = [await seat.ask("plane", ab) for ab in drawn.ab]
            tell(
                {
                    "event": "done",
                    "softened": await asyncio.to_thread(_softened, order, opened),
                    "candidates": [
                        {"seed": str(seed), "ab": plane}
                        for seed, plane in zip(drawn.seeds, planes, strict=True)
                    ],
                    "uncertainty": drawn.uncertainty if count > 1 else None,
                }
            )
            if tiles:
                tell({"event": "tiles", **await self._tiles(seat)})

    @asynccontextmanager
    async def _at_desk(self, on_wait: Callable[[int], None] | None = None) -> AsyncIterator[_Seat]:
        """A desk, when it is our turn; until then `on_wait` is told how many are ahead of us."""
        begin = time.monotonic()
        wait = on_wait or (lambda _: None)
        self._line.append(wait)
        wait(self._at_work + len(self._line) - 1)
        try:
            await self._desks.acquire()
        finally:
            self._line.remove(wait)
            self._tell_line()
        self._at_work += 1
        try:
            start = time.monotonic()
            self.metrics.stages.labels("wait").observe(start - begin)
            seat = _Seat(self, start + self.limits.seconds)
            try:
                yield seat
            finally:
                seat.close()
            took = (time.monotonic() - start) / self.limits.desks
            self._pace += 0.2 * (took - self._pace)
        finally:
            self._at_work -= 1
            self._desks.release()
            self._tell_line()

    def _tell_line(self) -> None:
        for number, wait in enumerate(self._line):
            wait(self._at_work + number)

    async def _draw(
        self,
        guide: NDArray[np.float32],
        order: Order,
        count: int,
        deadline: float,
        on_step: Callable[[int, int, NDArray[np.float32]], None] | None = None,
    ) -> Candidates:
        loop = asyncio.get_running_loop()
        left = threading.Event()

        def step(i: int, n: int, ab: NDArray[np.float32]) -> None:
            if left.is_set():
                raise _Left
            if time.monotonic() > deadline:
                why = f"the photograph: given up after {self.limits.seconds:.0f} s"
                raise Refused(why, "time")
            if on_step is not None:
                loop.call_soon_threadsafe(on_step, i, n, ab)

        draw = functools.partial(
            self.model.sampler.candidates,
            guide,
            count,
            order.sampling,
            hints=order.hints,
            on_step=step,
        )
        with self.metrics.stage("draw"):
            try:
                return await _finish(self._network, draw, left.set)
            except ValueError as error:  # an order that the network cannot carry out
                raise Refused(str(error)) from error


def _beyond(order: Order, opened: Opened) -> list[str]:
    """Hints whose colors do not exist at the photograph's lightness, one line each."""
    return list(order.hints.beyond(opened.guide)) if order.hints else []


def _softened(order: Order, opened: Opened) -> list[int]:
    """Numbers of those hints."""
    return order.hints.softened(opened.guide) if order.hints else []


class _Left(Exception):
    """Raised into the sampling, which nobody waits for any more."""


class _Seat:
    """A desk, asked from the event loop."""

    def __init__(self, room: Room, deadline: float) -> None:
        self.deadline = deadline
        self._room = room
        self._desk = Desk()
        self._large = False

    async def open(self, read: Read, page: int | None, show: bool) -> Opened:
        room = self._room
        with room.metrics.stage("read"):
            pixels = await self.ask("look", await read())
            if LARGE < pixels <= room.limits.max_pixels:
                await room._large.acquire()
                self._large = True
            opened: Opened = await self.ask(
                "open", room.limits.max_pixels, room.model.sampler.work_size, show, page
            )
        room.metrics.pixels.inc(opened.width * opened.height)
        return opened

    async def ask(self, method: str, *arguments: Any) -> Any:
        ask = functools.partial(
            self._desk.ask, method, *arguments, seconds=max(0.0, self.deadline - time.monotonic())
        )
        return await _finish(self._room._askers, ask, self._desk.leave)

    def close(self) -> None:
        self._desk.close()
        if self._large:
            self._room._large.release()


async def _finish(pool: ThreadPoolExecutor, work: Callable[[], T], stop: Callable[[], object]) -> T:
    """The result of work in a thread of `pool`; when cancelled, stop it and see it end."""
    future = pool.submit(work)
    ended = asyncio.wrap_future(future)
    # Seen in any case: nobody may be waiting for it any more.
    ended.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not future.cancel():  # it has begun
            stop()
            while not ended.done():  # whoever cancels may do so more than once
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([ended])
        raise
