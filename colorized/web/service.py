"""The room: one queue before one network, with a few desks at which photographs are opened.

A request takes a *place* before its body is read, or is sent away: what waits is bounded, and so is
the memory it takes. Then it waits for a *desk*, in the order of coming, has its photograph read
there, waits for the *network*, which draws one request at a time, and has the result written at its
desk, while the network is with the next one.

Requests are not drawn together: a batch of four saves a third of the network's time on a CPU, but
sums come out differently in it, so a seed would not always give the same bytes. `benchmarks/web.py`
measures both.
"""

from __future__ import annotations

import asyncio
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

from colorized.batch.colorize_file import Model
from colorized.inference.candidates import Candidates
from colorized.inference.hints import Hints
from colorized.options import SamplingOptions
from colorized.web.decoder import Desk, Finished, Opened, Plane, Refused, warm_up

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
    desks: int = 2
    max_bytes: int = 256 << 20
    max_pixels: int = 100_000_000
    seconds: float = 180.0


@dataclass(frozen=True)
class Order:
    """How a photograph is to be colored; as `Colorizer.candidates`."""

    sampling: SamplingOptions
    hints: Hints | None = None
    hints_sha256: str = ""


class Full(Exception):
    """No place is free.

    Parameters
    ----------
    seconds
        After which to ask again.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the room is full; come back in {seconds} s")
        self.seconds = seconds


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

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.taken = 0
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
    def place(self) -> Iterator[None]:
        """A place in the room, for as long as a request lasts.

        Raises
        ------
        Full
            There is none.
        """
        if self.taken >= self.limits.places:
            self.metrics.requests.labels("full").inc()
            raise Full(max(1, math.ceil(self._pace * self.taken / 2)))
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

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
            opened = await seat.open(read, show=False)
            drawn = await self._draw(opened.guide, order, 1, seat.deadline)
            facts = {
                "model": self.model.name,
                "weights_sha256": self.model.weights_sha256,
                "data_sha256": self.model.data_sha256,
                **dataclasses.asdict(order.sampling),
                "hints_sha256": order.hints_sha256,
            }
            with self.metrics.stage("write"):
                finished: Finished = await seat.ask("finish", drawn.ab[0], format, facts)
            beyond = await asyncio.to_thread(_beyond, order, opened)
            return dataclasses.replace(finished, notes=[*finished.notes, *beyond])

    async def preview(self, read: Read, order: Order, count: int, tell: OnEvent) -> None:
        """Color a photograph for a page, and tell what there is to see.

        Parameters
        ----------
        count
            Colorings to draw.
        tell
            Is given the events that `docs/web.md` lists.

        Raises
        ------
        Refused
            The photograph cannot be colored.
        """
        tell({"event": "waiting", "ahead": self.taken - 1})
        async with self._at_desk() as seat:
            tell({"event": "reading"})
            opened = await seat.open(read, show=True)
            tell(
                {
                    "event": "opened",
                    "width": opened.width,
                    "height": opened.height,
                    "gray": opened.gray,
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
                    "notes": await asyncio.to_thread(_beyond, order, opened),
                    "candidates": [
                        {"seed": str(seed), "ab": plane}
                        for seed, plane in zip(drawn.seeds, planes, strict=True)
                    ],
                    "uncertainty": drawn.uncertainty if count > 1 else None,
                }
            )

    @asynccontextmanager
    async def _at_desk(self) -> AsyncIterator[_Seat]:
        begin = time.monotonic()
        async with self._desks:
            start = time.monotonic()
            self.metrics.stages.labels("wait").observe(start - begin)
            seat = _Seat(self, start + self.limits.seconds)
            try:
                yield seat
            finally:
                seat.close()
            took = (time.monotonic() - start) / self.limits.desks
            self._pace += 0.2 * (took - self._pace)

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
                raise Refused(f"the photograph: given up after {self.limits.seconds:.0f} s")
            if on_step is not None:
                loop.call_soon_threadsafe(on_step, i, n, ab)

        draw = functools.partial(
            self.model.colorizer.candidates,
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


class _Left(Exception):
    """Raised into the sampling, which nobody waits for any more."""


class _Seat:
    """A desk, asked from the event loop."""

    def __init__(self, room: Room, deadline: float) -> None:
        self.deadline = deadline
        self._room = room
        self._desk = Desk()
        self._large = False

    async def open(self, read: Read, show: bool) -> Opened:
        room = self._room
        with room.metrics.stage("read"):
            pixels = await self.ask("look", await read())
            if LARGE < pixels <= room.limits.max_pixels:
                await room._large.acquire()
                self._large = True
            opened: Opened = await self.ask(
                "open", room.limits.max_pixels, room.model.colorizer.work_size, show
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
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except asyncio.CancelledError:
        if not future.cancel():  # it has begun
            stop()
            ending = asyncio.wrap_future(future)
            await asyncio.wait([ending])
            ending.exception()  # seen: nobody waits for it
        raise
