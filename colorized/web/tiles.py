"""Tiles of photographs on open pages, in memory only.

They are held until the page deletes them, or until none was requested for some minutes; the least
recently used are deleted first when all together are too large.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

Key = tuple[int, int, int]
"""(level, column, row)."""


@dataclass
class _Held:
    tiles: Mapping[Key, bytes]
    bytes: int
    used: float


class Tiles:
    """Tiles by the secret name of their photograph.

    Parameters
    ----------
    most
        Bytes of all of them.
    seconds
        After which unused tiles are deleted.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self.bytes = 0

    def add(self, tiles: Mapping[Key, bytes]) -> str:
        """Hold tiles; returns their name."""
        size = sum(map(len, tiles.values()))
        self.expire()
        while self._held and self.bytes + size > self._most:
            self.remove(next(iter(self._held)))
        name = secrets.token_urlsafe(16)
        if size <= self._most:
            self._held[name] = _Held(tiles, size, time.monotonic())
            self.bytes += size
        return name

    def get(self, name: str, key: Key) -> bytes | None:
        """A tile; None where it is not held."""
        self.expire()
        held = self._held.get(name)
        if held is None:
            return None
        held.used = time.monotonic()
        self._held.move_to_end(name)
        return held.tiles.get(key)

    def remove(self, name: str) -> None:
        """Delete the tiles of a photograph, if they are held."""
        held = self._held.pop(name, None)
        if held is not None:
            self.bytes -= held.bytes

    def expire(self) -> None:
        """Delete tiles that were not used for too long."""
        oldest = time.monotonic() - self._seconds
        for name in [name for name, held in self._held.items() if held.used < oldest]:
            self.remove(name)
