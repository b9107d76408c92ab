"""The service: its addresses, what they take, and what they answer.

`POST /api/colorize` is for programs: a photograph in, a photograph out. `POST /api/preview` is for
the page: it tells, line by line, how a photograph takes color, and has the chroma of every pixel,
so that the page can change the saturation by itself. Neither keeps anything: who wants another
coloring sends the photograph again.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import hashlib
import hmac
import importlib.metadata
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import prometheus_client
from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp

from colorized.inference import hints
from colorized.options import LIMITS, SamplingOptions
from colorized.text import out_of_memory
from colorized.web import guard
from colorized.web.decoder import MEDIA_TYPES, Plane, Refused, plane
from colorized.web.service import OnEvent, Order, Room

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"
ARCHIVE = Path(__file__).resolve().parents[1] / "sample" / "archive"
"""Embedded photographs to try."""

MAX_STEPS = 100
MAX_CANDIDATES = 8
NO_MEMORY = "the service has too little memory for this photograph now"


class Problem(BaseModel):
    """Why something was not done."""

    error: str


class Health(BaseModel):
    """That the service is up, and how many of its places are taken."""

    status: Literal["ok"]
    places: int
    taken: int


class Sample(BaseModel):
    """A photograph to try."""

    url: str
    title: str


class About(BaseModel):
    """What a page must know before it sends anything."""

    model: str
    max_bytes: int
    max_pixels: int
    max_candidates: int
    steps: int
    guidance: float
    temperature: float
    samples: list[Sample]


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "No form that can be read"},
    401: {"model": Problem, "description": "The token is missing or wrong"},
    403: {"model": Problem, "description": "Asked from another origin, or by another name"},
    408: {"model": Problem, "description": "The photograph was too long in coming"},
    413: {"model": Problem, "description": "The photograph has too many bytes"},
    422: {"model": Problem, "description": "The photograph cannot be colored, or not like this"},
    429: {
        "model": Problem,
        "description": "No place is free",
        "headers": {
            "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}
        },
    },
    503: {"model": Problem, "description": "Too little memory"},
}
_PHOTOGRAPH = {"schema": {"type": "string", "format": "binary"}}


def _number(name: str, description: str, high: float | None = None) -> Any:
    """The form's field of a sampling option; `high` is a lower limit than that of the option."""
    least, most = LIMITS[name]
    return Form(ge=least, le=most if high is None else high, description=description)


def _order(defaults: SamplingOptions) -> Callable[..., Awaitable[Order]]:
    """What reads an order from a form; what the form does not say is as in `defaults`."""

    async def order(
        steps: Annotated[
            int, _number("steps", "Sampling steps: more are slower.", high=MAX_STEPS)
        ] = defaults.steps,
        seed: Annotated[
            int, _number("seed", "Another gives other plausible colors.")
        ] = defaults.seed,
        guidance: Annotated[
            float, _number("guidance", "Above 1, colors go more clearly with the picture.")
        ] = defaults.guidance,
        temperature: Annotated[
            float,
            _number("temperature", "Below 1, colors are likelier and vary less from seed to seed."),
        ] = defaults.temperature,
        hint_text: Annotated[
            str,
            Form(
                alias="hints",
                max_length=200_000,
                description='Colors that are known: {"points": [{"x": 0.4, "y": 0.6, "radius": '
                '0.02, "color": "#8b1a1a"}]}, shares of width, height and shorter side.',
            ),
        ] = "",
    ) -> Order:
        known = hints.parse_json(hint_text) if hint_text.strip() else None
        digest = hashlib.sha256(hint_text.encode()).hexdigest() if known else ""
        sampling = defaults.override(
            steps=steps, seed=seed, guidance=guidance, temperature=temperature
        )
        return Order(sampling, known, digest)

    return order


async def _read(file: UploadFile) -> bytes:
    return await file.read()


def samples(folder: Path = ARCHIVE) -> dict[str, str]:
    """File names of the embedded archive photographs, with their titles; empty without them."""
    listed = folder.parent / "ATTRIBUTION.md"
    if not listed.is_file():
        return {}
    rows = re.findall(
        r"^\| \[([\w-]+\.jpg)\]\(archive/[^|]*\| \[([^\]]+)\][^|]*\| ([^|]+) \|",
        listed.read_text(encoding="utf-8"),
        re.M,
    )
    found = {name: f"{title}. {author}" for name, title, author in rows}
    return {name: title for name, title in found.items() if (folder / name).is_file()}


def create(room: Room, token: str | None = None) -> ASGIApp:
    """The service as an ASGI application.

    Parameters
    ----------
    token
        Asked of every client where there is one.
    """

    defaults = room.model.colorizer.defaults
    read_order = _order(defaults)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(room.open)
        yield
        room.close()

    app = FastAPI(
        title="colorized",
        summary="Colors black-and-white photographs. The colors are made by a machine.",
        version=importlib.metadata.version("colorized"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _errors(app)

    @app.post(
        "/api/colorize",
        tags=["coloring"],
        response_class=Response,
        responses={
            200: {
                "description": "The colored photograph, at its own size, marked as such",
                "content": dict.fromkeys(MEDIA_TYPES, _PHOTOGRAPH),
                "headers": {
                    "Colorized-Notes": {
                        "description": "What you should know, a JSON list of lines",
                        "schema": {"type": "string"},
                    }
                },
            },
            **_PROBLEMS,
        },
    )
    async def colorize(
        request: Request,
        file: Annotated[UploadFile, File(description="The photograph.")],
        order: Annotated[Order, Depends(read_order)],
        saturation: Annotated[
            float, _number("saturation", "Chroma is multiplied by this.")
        ] = defaults.saturation,
        format: Annotated[
            Literal["png", "jpeg", "original"],
            Form(description="Of the answer; `original` is PNG where that cannot hold color."),
        ] = "png",
    ) -> Response:
        """Color a photograph."""
        await _known_fields(request, "file saturation format")
        order = dataclasses.replace(order, sampling=order.sampling.override(saturation=saturation))
        work = _counted(room, room.colorize(functools.partial(_read, file), order, format))
        done = await _unless_left(request, work)
        if done is None:
            return Response(status_code=499)  # which nobody reads
        return Response(
            done.data,
            media_type=done.media_type,
            headers={
                "Content-Disposition": f'attachment; filename="colorized{done.suffix}"',
                "Colorized-Notes": json.dumps(done.notes),
            },
        )

    @app.post(
        "/api/preview",
        tags=["coloring"],
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Events, a JSON object each line: waiting, reading, opened, step, "
                "done, error",
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            },
            **_PROBLEMS,
        },
    )
    async def preview(
        request: Request,
        file: Annotated[UploadFile, File(description="The photograph.")],
        order: Annotated[Order, Depends(read_order)],
        candidates: Annotated[
            int, Form(ge=1, le=MAX_CANDIDATES, description="Colorings to draw.")
        ] = 1,
    ) -> StreamingResponse:
        """Color a photograph for a page, and tell how it goes."""
        await _known_fields(request, "file candidates")
        # The page changes the saturation by itself.
        order = dataclasses.replace(order, sampling=order.sampling.override(saturation=1.0))
        work = functools.partial(room.preview, functools.partial(_read, file), order, candidates)
        return StreamingResponse(_events(room, work), media_type="application/x-ndjson")

    _pages(app, room, token)
    return guard.Guard(app, room, token)


def _pages(app: FastAPI, room: Room, token: str | None) -> None:
    """All that is not coloring."""
    to_try = samples()
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    @app.get("/signin", include_in_schema=False)
    async def ask() -> FileResponse:
        return FileResponse(STATIC / "signin.html")

    @app.post("/signin", include_in_schema=False)
    async def sign_in(given: Annotated[str, Form(alias="token")] = "") -> Response:
        if token is None or not hmac.compare_digest(given.strip().encode(), token.encode()):
            return RedirectResponse("/signin?wrong", 303)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            guard.COOKIE, guard.cookie_of(token), httponly=True, samesite="strict", path="/"
        )
        return answer

    @app.get("/samples/{name}", include_in_schema=False)
    async def sample(name: str) -> FileResponse:
        if name not in to_try:
            raise HTTPException(404, "no such photograph")
        return FileResponse(ARCHIVE / name)

    @app.get("/api/about", tags=["service"])
    async def about() -> About:
        """What a page must know before it sends anything."""
        limits = room.limits
        defaults = room.model.colorizer.defaults
        return About(
            model=room.model.name,
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            max_candidates=MAX_CANDIDATES,
            steps=defaults.steps,
            guidance=defaults.guidance,
            temperature=defaults.temperature,
            samples=[Sample(url=f"/samples/{name}", title=t) for name, t in to_try.items()],
        )

    @app.get("/healthz", tags=["service"])
    async def health() -> Health:
        """Whether the service is up."""
        return Health(status="ok", places=room.limits.places, taken=room.taken)

    @app.get(
        "/metrics",
        tags=["service"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counters and times, for Prometheus."""
        text = prometheus_client.generate_latest(room.metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _errors(app: FastAPI) -> None:
    """Every error is answered in one line."""

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the form"
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(hints.HintsError)
    @app.exception_handler(Refused)
    async def refused(_: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"error": " ".join(str(error).split())}, 422)

    @app.exception_handler(MemoryError)
    async def memory(_: Request, error: MemoryError) -> JSONResponse:
        return JSONResponse({"error": NO_MEMORY}, 503)


async def _known_fields(request: Request, own: str) -> None:
    """That a misspelled option is not passed over in silence."""
    known = {"steps", "seed", "guidance", "temperature", "hints", *own.split()}
    for name in await request.form():
        if name not in known:
            raise HTTPException(422, f"{name[:40]!r}: no such field")


async def _counted(room: Room, work: Awaitable[T]) -> T:
    """`work`, whose outcome goes to the metrics; memory that lacks is a MemoryError."""
    outcome = "failed"
    try:
        done = await work
        outcome = "done"
        return done
    except Refused:
        outcome = "refused"
        raise
    except asyncio.CancelledError:
        outcome = "left"
        raise
    except RuntimeError as error:
        if out_of_memory(error):
            raise MemoryError from error
        raise
    finally:
        room.metrics.requests.labels(outcome).inc()


async def _leave(request: Request) -> None:
    """Wait until the client is gone; its request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None, and the work ended, when the client leaves before."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_leave(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return None
    finally:
        await _end(working, leaving)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _events(room: Room, preview: Callable[[OnEvent], Awaitable[None]]) -> AsyncIterator[str]:
    """What `preview` tells, as lines, until it is done or the client leaves: that cancels this."""
    told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def work() -> None:
        try:
            await _counted(room, preview(told.put_nowait))
        except Refused as error:
            told.put_nowait({"event": "error", "error": str(error)})
        except MemoryError:
            told.put_nowait({"event": "error", "error": NO_MEMORY})
        except Exception:
            told.put_nowait({"event": "error", "error": "the service failed; it has logged why"})
            logging.getLogger("uvicorn.error").exception("a preview failed")
        finally:
            told.put_nowait(None)

    working = asyncio.create_task(work())
    try:
        while (event := await told.get()) is not None:
            yield json.dumps(event, default=_as_json) + "\n"
    finally:
        await _end(working)


def _as_json(value: Any) -> Any:
    """Pictures as base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Plane):
        return {"png": value.png, "unit": value.unit}
    if isinstance(value, np.ndarray):
        return plane(value) if value.ndim == 3 else _map(value)
    raise TypeError(f"{type(value).__name__} is not told")


def _map(values: NDArray[np.float32]) -> dict[str, Any]:
    """A map (h, w) of values from 0 as a PNG: level · unit."""
    unit = max(float(values.max()), 1.0) / 255
    file = io.BytesIO()
    Image.fromarray(np.rint(values / unit).astype(np.uint8)).save(file, "PNG")
    return {"png": file.getvalue(), "unit": unit}
