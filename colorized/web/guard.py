"""Checks before a request is read: token, origin, host, and size.

A page of another origin can make a browser on this machine send requests to the service, and by DNS
rebinding even read the answers. The check of `Origin` and `Sec-Fetch-Site` prevents the first, that
of `Host` the second; a token, where one is required, prevents both.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colorized.web.service import FORM_BYTES, Full, Limits, Service, Upload

COOKIE = "colorized"
COLORING = ("/api/colorize", "/api/preview", "/api/tiles")
"""Paths that need a place in the queue."""

_IDLE_SECONDS = 30
_SAFE = ("GET", "HEAD")
CODES = {
    400: "malformed",
    401: "token",
    403: "forbidden",
    404: "missing",
    408: "slow",
    413: "bytes",
    422: "refused",
    429: "busy",
    503: "memory",
}
"""Codes of HTTP statuses, for programs and translations."""
_OPEN = ("/healthz", "/signin", "/static/style.css", "/static/signin.js")
"""Paths that need no token."""
_PAGES = ("/", "/docs")
"""Paths that redirect to the sign-in where the token is missing."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With no-referrer a browser sends `Origin: null` with our own form.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def cookie_of(token: str) -> str:
    """The cookie's value in place of the token."""
    return hashlib.sha256(f"colorized cookie {token}".encode()).hexdigest()


class Guard:
    """ASGI middleware that refuses forbidden requests, and counts uploads and places.

    `token` is required where there is one. Without one only names of this machine are valid as
    `Host`.
    """

    def __init__(self, app: ASGIApp, service: Service, token: str | None) -> None:
        self._app = app
        self._service = service
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        refusal: Response
        try:
            self._check(scope, headers)
            if scope["method"] == "POST" and scope["path"] in COLORING:
                with self._service.upload() as upload:
                    body = _Body(receive, self._service.limits, upload)
                    await self._app(scope, body.receive, send_guarded)
                return
        except HTTPException as error:
            refusal = problem(error)
            if error.status_code == 401 and scope["path"] in _PAGES:
                refusal = RedirectResponse("/signin", 303)
        except Full as full:
            refusal = problem(busy(full))
        else:
            small = Limits(max_bytes=0, seconds=self._service.limits.seconds)
            if scope["method"] == "HEAD":  # the server leaves out the body
                scope = {**scope, "method": "GET"}
            await self._app(scope, _Body(receive, small).receive, send_guarded)
            return

        async def send_and_drain(message: Message) -> None:
            # The answer is sent at once, but ends after the upload: a client that is still sending
            # would take a closed connection for a failure.
            if message["type"] == "http.response.body":
                await send_guarded({**message, "more_body": True})
                await _drain(receive, self._service.limits.max_bytes + FORM_BYTES)
                message = {"type": "http.response.body"}
            await send_guarded(message)

        await refusal(scope, receive, send_and_drain)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._token is None and not is_loopback(_hostname(host)):
            raise HTTPException(
                403, "this service answers to names of its own machine, such as localhost"
            )
        if scope["method"] not in _SAFE:
            origin = headers.get("origin")
            if (origin is not None and _host_of(origin) != host) or headers.get(
                "sec-fetch-site", "same-origin"
            ) not in ("same-origin", "none"):
                raise HTTPException(403, "the request comes from a page of another origin")
        if self._token is not None and scope["path"] not in _OPEN and not self._knows(headers):
            raise HTTPException(
                401,
                "sign in: this server needs its token, as Authorization: Bearer …",
                {"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if scope["path"] in COLORING:
            _check_length(length, self._service.limits.max_bytes)

    def _knows(self, headers: Headers) -> bool:
        assert self._token is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode(), self._token.encode())
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), cookie_of(self._token).encode())


def busy(full: Full) -> HTTPException:
    """The answer where no place is free."""
    return HTTPException(429, str(full), {"Retry-After": str(full.seconds)})


def problem(error: StarletteHTTPException) -> JSONResponse:
    """The answer to an error: one line, and its reason in one word."""
    body = {"error": error.detail, "code": CODES.get(error.status_code, "refused")}
    return JSONResponse(body, error.status_code, error.headers)


class _Body:
    """The body of a request, counted and timed as it comes."""

    def __init__(self, receive: Receive, limits: Limits, upload: Upload | None = None) -> None:
        self._receive = receive
        self._limits = limits
        self._upload = upload
        self._got = 0
        self._ended = False
        self._deadline = time.monotonic() + limits.seconds

    async def receive(self) -> Message:
        if self._ended:  # only a disconnect can follow
            return await self._receive()
        try:
            left = self._deadline - time.monotonic()
            async with asyncio.timeout(min(_IDLE_SECONDS, max(0.0, left))):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, "upload timed out") from error
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self._got += count
            _check_length(str(self._got), self._limits.max_bytes)
            self._ended = not message.get("more_body", False)
            if self._upload is not None:
                try:
                    self._upload.grow(count)
                    if self._ended:
                        self._upload.arrive()
                except Full as full:
                    raise busy(full) from full
        return message


def _check_length(length: str, max_bytes: int) -> None:
    if not length.isdecimal():
        raise HTTPException(400, "Content-Length is not a number")
    if int(length) > max_bytes + FORM_BYTES:
        raise HTTPException(413, f"larger than {max_bytes >> 20} MB")


def _host_of(origin: str) -> str:
    """Host and port of an origin; empty where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _drain(receive: Receive, most: int) -> None:
    """Read and discard what a client sends, up to a limit."""
    got = 0
    try:
        async with asyncio.timeout(_IDLE_SECONDS):
            while got <= most:
                message = await receive()
                got += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
