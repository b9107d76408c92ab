"""The command that opens the page and the service."""

from __future__ import annotations

import click

from colorized.cli.coloring import weights_file, weights_option
from colorized.cli.messages import finite


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0 takes any free port.")
@click.option("--host", default="127.0.0.1", help="Any but 127.0.0.1 needs a --token.")
@click.option("--token", envvar="COLORIZED_TOKEN", show_envvar=True, help="Secret of the clients.")
@weights_option
@click.option("--device", default="cpu", help="cpu, cuda, cuda:1 or mps.")
@click.option(
    "--queue",
    type=click.IntRange(1, 1000),
    default=16,
    help="Requests at a time; more are asked to retry.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=100_000_000,
    help="Larger photographs are refused.",
)
@click.option(
    "--max-megabytes", type=click.IntRange(1), default=256, help="Larger files are refused."
)
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=180,
    callback=finite,
    help="Seconds for one photograph.",
)
def web(
    port: int,
    host: str,
    token: str | None,
    weights: str | None,
    device: str,
    queue: int,
    max_pixels: int,
    max_megabytes: int,
    timeout: float,
) -> None:
    """Start a web page and a service that color photographs, and print their address.

    Ctrl-C or SIGTERM stops them after the current requests.
    """
    from colorized.web import serve

    serve.check(host, token)
    with serve.bind(host, port) as listening:
        from colorized.api import Colorizer
        from colorized.web.service import Limits, Service

        with weights_file(weights) as (path, name):
            colorizer = Colorizer(path, device=device, name=name)
        limits = Limits(
            places=queue, max_bytes=max_megabytes << 20, max_pixels=max_pixels, seconds=timeout
        )
        serve.run(Service(colorizer, limits), listening, token)
