"""Stopping a training by a signal."""

from __future__ import annotations

import signal


class StopOnSignal:
    """The first Ctrl-C or SIGTERM asks training to stop after its step; a second one stops it."""

    def __init__(self) -> None:
        self.stop = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        """Whether training was asked to stop."""
        return self.stop

    def _ask(self, number: int, frame: object) -> None:
        self.stop = True
        signal.signal(number, signal.default_int_handler)
