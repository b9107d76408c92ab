"""The HTTP interface: paths, their fields, and their answers.

`POST /api/colorize` is for programs: a photograph in, a photograph out. `POST /api/preview` is for
the page: it streams progress, line by line, and ends with the chroma of every pixel, so that the
page can change the saturation by itself. Neither stores anything: another coloring needs the
photograph again. Only tiles of the photographs on open pages are held, for some minutes.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import prometheus_client
from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response, StreamingResponse
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp

from colorized.inference import hints
from colorized.options import LIMITS, SamplingOptions
from colorized.text import out_of_memory
from colorized.web import events, guard, pages
from colorized.web.decoder import MEDIA_TYPES, Plane, Refused, plane, png
from colorized.web.service import Job, OnEvent, Service

T = TypeVar("T")

MAX_STEPS = 100
MAX_CANDIDATES = 8
MAX_PAGES = 10_000
FAILED = "the server failed; its log says why"
NO_MEMORY = "the server has too little memory for this photograph now"


class Problem(BaseModel):
    """An error: one line, and its reason in one word."""

    error: str
    code: str


class Health(BaseModel):
    """Status of the service: places, those that are taken, and uploads under way."""

    status: Literal["ok"]
    places: int
    taken: int
    uploading: int


class Sample(BaseModel):
    """A photograph to try."""

    url: str
    title: str


class About(BaseModel):
    """The model, the limits and the defaults of the service."""

    model: str
    max_bytes: int
    max_pixels: int
    max_candidates: int
    max_seconds: float
    steps: int
    guidance: float
    temperature: float
    samples: list[Sample]


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Malformed form data"},
    401: {"model": Problem, "description": "The token is missing or wrong"},
    403: {"model": Problem, "description": "Another origin, or an unknown Host"},
    408: {"model": Problem, "description": "Upload timed out"},
    413: {"model": Problem, "description": "The photograph has too many bytes"},
    422: {"model": Problem, "description": "The photograph or a field is refused"},
    429: {
        "model": Problem,
        "description": "Server busy",
        "headers": {
            "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}
        },
    },
    503: {"model": Problem, "description": "Too little memory"},
}
_PHOTOGRAPH = {"schema": {"type": "string", "format": "binary"}}
PageNumber = Annotated[
    int | None, Form(ge=1, le=MAX_PAGES, description="Which page, of a file that has several.")
]


def _number(
    name: str, description: str, example: float | None = None, high: float | None = None
) -> Any:
    """The form's field of a sampling option; `high` is a lower limit than that of the option."""
    least, most = LIMITS[name]
    return Form(
        ge=least,
        le=most if high is None else high,
        description=description,
        examples=None if example is None else [example],
    )


def _job_reader(defaults: SamplingOptions) -> Callable[..., Awaitable[Job]]:
    """A dependency that reads a job from a form; missing fields are as in `defaults`."""

    async def job(
        steps: Annotated[
            int, _number("steps", "Sampling steps: more are slower.", high=MAX_STEPS)
        ] = defaults.steps,
        seed: Annotated[
            int, _number("seed", "Another gives other plausible colors.", 1)
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
                examples=['{"points": [{"x": 0.4, "y": 0.6, "radius": 0.02, "color": "#8b1a1a"}]}'],
                description="Colors that are known, as JSON; x and y are shares of width and "
                "height, radius of the shorter side.",
            ),
        ] = "",
        page: PageNumber = None,
    ) -> Job:
        known = hints.parse_json(hint_text) if hint_text.strip() else None
        digest = hashlib.sha256(hint_text.encode()).hexdigest() if known else ""
        sampling = defaults.override(
            steps=steps, seed=seed, guidance=guidance, temperature=temperature
        )
        return Job(sampling, known, hint_text if known else "", digest, page)

    return job


def create(service: Service, token: str | None = None) -> ASGIApp:
    """The service as an ASGI application.

    `token` is asked of every client where there is one.
    """

    defaults = service.model.options
    # A default, not an annotation: FastAPI looks those up among the names of the module.
    read_job = Depends(_job_reader(defaults))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="colorized",
        summary="Colors black-and-white photographs. The colors are AI-made: plausible, not true.",
        version=importlib.metadata.version("colorized"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _errors(app)
    app.openapi = functools.partial(_openapi, app, token)  # type: ignore[method-assign]

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
                        "description": "Notes on the photograph, a JSON list of lines",
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
        job: Job = read_job,
        saturation: Annotated[
            float, _number("saturation", "Chroma is multiplied by this.")
        ] = defaults.saturation,
        format: Annotated[
            Literal["png", "jpeg", "original"],
            Form(description="Of the answer; `original` is PNG where that cannot hold color."),
        ] = "png",
        candidate: Annotated[
            int,
            Form(ge=1, le=MAX_CANDIDATES, description="Which of `candidates`; for the record."),
        ] = 1,
        candidates: Annotated[
            int,
            Form(
                ge=1,
                le=MAX_CANDIDATES,
                description="Colorings this one was chosen from; for the record in the file.",
            ),
        ] = 1,
    ) -> Response:
        """Color a photograph."""
        await _check_fields(request, "file saturation format candidate candidates")
        if candidate > candidates:
            raise HTTPException(422, f"candidate: must be at most candidates, {candidates}")
        job = dataclasses.replace(
            job,
            sampling=job.sampling.override(saturation=saturation),
            candidate=candidate,
            candidates=candidates,
        )
        work = _counted(service, service.colorize(file.read, job, format))
        done = await _unless_disconnected(request, work)
        if done is None:
            return Response(status_code=499)  # the client is gone
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
                "description": "Events, one JSON object each line",
                "content": {
                    "application/x-ndjson": {
                        "schema": {"type": "string"},
                        # As OpenAPI 3.2 has it for streams.
                        "itemSchema": {"oneOf": [_ref(event) for event in events.EVENTS]},
                    }
                },
            },
            **_PROBLEMS,
        },
    )
    async def preview(
        request: Request,
        file: Annotated[UploadFile, File(description="The photograph.")],
        job: Job = read_job,
        candidates: Annotated[
            int, Form(ge=1, le=MAX_CANDIDATES, description="Colorings to draw.")
        ] = 1,
        tiles: Annotated[
            bool, Form(description="Whether to hold tiles of the photograph, for a page's zoom.")
        ] = False,
    ) -> StreamingResponse:
        """Color a photograph for a page, with progress."""
        await _check_fields(request, "file candidates tiles")
        # The page changes the saturation by itself.
        job = dataclasses.replace(job, sampling=job.sampling.override(saturation=1.0))
        work = functools.partial(service.preview, file.read, job, candidates, tiles)
        return StreamingResponse(_events(service, work), media_type="application/x-ndjson")

    @app.post("/api/tiles", tags=["tiles"], responses=_PROBLEMS)
    async def scan(
        request: Request,
        file: Annotated[UploadFile, File(description="The photograph.")],
        page: PageNumber = None,
    ) -> events.Scan:
        """Hold tiles of a photograph at its own resolution, in memory, for some minutes."""
        await _check_fields(request, "file page", options=False)
        work = _counted(service, service.scan(file.read, page))
        held = await _unless_disconnected(request, work)
        return events.Scan(**held) if held else events.Scan(id="", size=0, levels=[])

    @app.get(
        "/api/tiles/{id}/{level}/{column}/{row}",
        tags=["tiles"],
        response_class=Response,
        responses={
            200: {"description": "A tile", "content": {"image/jpeg": _PHOTOGRAPH}},
            **{code: _PROBLEMS[code] for code in (401, 403, 422)},
            404: {"model": Problem, "description": "No such tile, or none any more"},
        },
    )
    async def tile(id: str, level: int, column: int, row: int) -> Response:
        """A part of a photograph as it is; level 0 is its own resolution, 1 half of it."""
        found = service.tiles.get(id, (level, column, row))
        if found is None:
            raise HTTPException(404, "no such tile")
        return Response(found, media_type="image/jpeg")

    @app.delete(
        "/api/tiles/{id}",
        tags=["tiles"],
        status_code=204,
        responses={code: _PROBLEMS[code] for code in (401, 403, 422)},
    )
    async def forget(id: str) -> None:
        """Forget a photograph's tiles."""
        service.tiles.remove(id)

    _about(app, service)
    pages.add(app, token)
    return guard.Guard(app, service, token)


def _about(app: FastAPI, service: Service) -> None:
    """Add the addresses that describe the service itself."""

    @app.get("/api/about", tags=["service"])
    async def about() -> About:
        """The model, the limits and the defaults of the service."""
        limits = service.limits
        defaults = service.model.options
        return About(
            model=service.model.name,
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            max_candidates=MAX_CANDIDATES,
            max_seconds=limits.seconds,
            steps=defaults.steps,
            guidance=defaults.guidance,
            temperature=defaults.temperature,
            samples=[
                Sample(url=f"/samples/{name}", title=sample.title)
                for name, sample in pages.samples().items()
            ],
        )

    @app.get("/healthz", tags=["service"])
    async def health() -> Health:
        """Whether the service is up."""
        return Health(
            status="ok",
            places=service.limits.places,
            taken=service.taken,
            uploading=service.uploading,
        )

    @app.get(
        "/metrics",
        tags=["service"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counters and times, for Prometheus."""
        text = prometheus_client.generate_latest(service.metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _openapi(app: FastAPI, token: str | None) -> dict[str, Any]:
    """The OpenAPI description, with the events of a preview, and the token if there is one."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        _, found = models_json_schema(
            [(event, "serialization") for event in events.EVENTS],
            ref_template="#/components/schemas/{model}",
        )
        made["components"]["schemas"] |= found["$defs"]
        for schema in made["components"]["schemas"].values():
            if (seed := schema.get("properties", {}).get("seed", {})).get("type") == "integer":
                seed["minimum"], seed["maximum"] = LIMITS["seed"]  # FastAPI rounds them to floats
        if token is not None:
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"token": []}]
        app.openapi_schema = made
    return app.openapi_schema


def _problem(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to an error of the work."""
    match error:
        case Refused():
            return 422, {"error": str(error), "code": error.code, **error.facts}
        case hints.HintsError():
            return 422, {"error": " ".join(str(error).split()), "code": "hints"}
        case MemoryError():
            return 503, {"error": NO_MEMORY, "code": "memory"}
    return 500, {"error": FAILED, "code": "failed"}


def _errors(app: FastAPI) -> None:
    """Answer every error with one line of JSON."""

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, error: StarletteHTTPException) -> JSONResponse:
        if error.status_code == 400 and "Content-Length" not in error.detail:
            error.detail = f"malformed form data: {error.detail}"
        return guard.problem(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the form"
        what = str(first["msg"])
        if where == "file" and first["type"] != "missing":
            what = "must be a file, with a filename"
        return guard.problem(HTTPException(422, f"{where}: {what}"))

    async def failed(_: Request, error: Exception) -> JSONResponse:
        status, body = _problem(error)
        return JSONResponse(body, status)

    for kind in (Refused, hints.HintsError, MemoryError, Exception):
        app.add_exception_handler(kind, failed)


async def _check_fields(request: Request, own: str, options: bool = True) -> None:
    """Refuse unknown fields, and fields that are given twice."""
    known = set(own.split())
    if options:
        known |= {"steps", "seed", "guidance", "temperature", "hints", "page"}
    form = await request.form()
    for name in form:
        if name not in known:
            raise HTTPException(422, f"{name[:40]!r}: no such field")
        if (count := len(form.getlist(name))) > 1:
            raise HTTPException(422, f"{name}: given {count} times, not once")


async def _counted(service: Service, work: Awaitable[T]) -> T:
    """The result of `work`, counted in the metrics; out of memory is a MemoryError."""
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
        service.metrics.requests.labels(outcome).inc()


async def _disconnected(request: Request) -> None:
    """Wait until the client disconnects; its request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None, and the work canceled, when the client disconnects before."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
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


async def _events(
    service: Service, preview: Callable[[OnEvent], Awaitable[None]]
) -> AsyncIterator[str]:
    """The events of `preview` as lines, until it is done or canceled by a disconnect."""
    told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def work() -> None:
        try:
            await _counted(service, preview(told.put_nowait))
        except Exception as error:
            status, body = _problem(error)
            told.put_nowait({"event": "error", **body})
            if status == 500:
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
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _map(values: NDArray[np.float32]) -> dict[str, Any]:
    """A map (h, w) of values from 0 as a PNG: level · unit."""
    unit = max(float(values.max()), 1.0) / 255
    return {"png": png(Image.fromarray(np.rint(values / unit).astype(np.uint8))), "unit": unit}
