"""The command that opens the page and the service."""

from __future__ import annotations

from typing import Annotated

import typer

from colorized.cli.coloring import WeightsOption, weights_file
from colorized.cli.messages import finite


def web(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
    host: Annotated[str, typer.Option(help="Any but 127.0.0.1 needs a --token.")] = ("127.0.0.1"),
    token: Annotated[
        str | None,
        typer.Option(envvar="COLORIZED_TOKEN", help="Secret of the clients.", show_default=False),
    ] = None,
    weights: WeightsOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
    queue: Annotated[
        int, typer.Option(min=1, max=1000, help="Requests at a time; more are asked to retry.")
    ] = 16,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger photographs are refused.")
    ] = 100_000_000,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Larger files are refused.")] = 256,
    timeout: Annotated[
        float, typer.Option(min=1, callback=finite, help="Seconds for one photograph.")
    ] = 180.0,
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
