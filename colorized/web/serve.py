"""`colorized web`: a socket, the service on it, and graceful shutdown."""

from __future__ import annotations

import asyncio
import signal
import socket
import tempfile
from urllib.parse import quote

import uvicorn

from colorized.text import line
from colorized.web import app
from colorized.web.decoder import warm_up
from colorized.web.guard import is_loopback
from colorized.web.service import Service

MIN_TOKEN = 8
"""Characters of a token."""


class ServeError(ValueError):
    """One line that says why the service cannot be started."""


def check(host: str, token: str | None) -> None:
    """Validate host and token.

    Raises ServeError: another machine could reach `host`, and there is no token, or a very short
    one.
    """
    if token is None and not is_loopback(host):
        raise ServeError(
            f"--host {host} is reached from other machines: give a --token, or set COLORIZED_TOKEN"
        )
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or " " in token):
        raise ServeError(f"a token has at least {MIN_TOKEN} characters, ASCII without spaces")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any that is free.

    Raises ServeError: the address cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        # Python appends the address to the system's words.
        why = str(error.strerror or error).partition(" (while")[0]
        raise ServeError(f"{host} port {port}: {why}") from error


def run(service: Service, listening: socket.socket, token: str | None) -> None:
    """Serve until SIGTERM or Ctrl-C; then finish active requests, and take no new ones.

    Prints the address on one line when the service answers on it.

    Raises ServeError: decoder processes cannot be started.
    """
    try:
        warm_up()
    except OSError as error:  # the folder's path may be too long for a socket
        folder = tempfile.gettempdir()
        raise ServeError(
            f"cannot start decoders, with {folder} for temporary files: {line(error)}"
        ) from error
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
    address = f"http://{name}:{port}/"
    if token is not None:  # behind #, browsers do not send it; the page signs in with it
        address += f"#token={quote(token)}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(address, flush=True)

    config = uvicorn.Config(
        app.create(service, token),
        log_level="warning",
        lifespan="on",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    # uvicorn passes a signal on to the previous handler, which is to do nothing.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    asyncio.run(Server(config).serve(sockets=[listening]))
