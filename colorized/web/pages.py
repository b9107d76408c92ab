"""The page, its documentation, the sign-in, and examples."""

from __future__ import annotations

import csv
import functools
import hmac
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image

from colorized.web import guard, words

SAMPLE = Path(__file__).resolve().parents[1] / "sample"
"""Embedded photographs."""

PORTRAITS = ("photos/grace-hopper.jpg", "photos/astronaut.jpg")
"""Photographs of people, in color: they are shown in black and white."""

_YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class Sample:
    """An embedded photograph to try."""

    path: Path
    title: str


@functools.cache
def samples() -> dict[str, Sample]:
    """Embedded photographs by name, those of people first; empty without them."""
    listed = SAMPLE / "photos.csv"
    if not listed.is_file():
        return {}
    with listed.open(encoding="utf-8", newline="") as file:
        titles = {row["file"]: f"{row['title']}. {row['author']}" for row in csv.DictReader(file)}
    wanted = [*PORTRAITS, *(path for path in titles if path.startswith("archive/"))]
    found = {Path(path).name: Sample(SAMPLE / path, titles[path]) for path in wanted}
    return {name: sample for name, sample in found.items() if sample.path.is_file()}


@functools.cache
def _gray(path: Path) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("L").save(file, "JPEG", quality=92)
    return file.getvalue()


def add(app: FastAPI, token: str | None) -> None:
    """Add the pages to the service."""
    app.mount("/static", StaticFiles(directory=words.STATIC), name="static")

    def show(address: str, name: str) -> None:
        @app.get(address, include_in_schema=False)
        async def page(request: Request, language: str = "") -> Response:
            if language in words.languages():
                chosen = RedirectResponse(address, 303)
                chosen.set_cookie(words.COOKIE, language, max_age=_YEAR, samesite="lax", path="/")
                return chosen
            language = words.choose(
                request.headers.get("accept-language", ""), request.cookies.get(words.COOKIE, "")
            )
            return HTMLResponse(words.page(name, language))

    show("/", "index.html")
    show("/docs", "docs.html")
    show("/signin", "signin.html")

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
    async def sample(name: str) -> Response:
        found = samples().get(name)
        if found is None:
            raise HTTPException(404, "no such photograph")
        portrait = name in map(os.path.basename, PORTRAITS)
        data = _gray(found.path) if portrait else found.path.read_bytes()
        return Response(data, media_type="image/jpeg")
