"""Pictures that look alike, found by a perceptual hash, so that none is in two splits.

The hash is pHash: the signs of the 63 lowest frequencies (and the mean) of a picture 32 pixels
wide, against their median. Two copies of a photograph, resized, recompressed or retouched, differ
in a few of its 64 bits; two photographs in about 32.

Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
"""

from __future__ import annotations

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def perceptual_hash(L8: NDArray[np.uint8]) -> int:
    """pHash, 64 bits, of lightness (H, W)."""
    bits = imagehash.phash(Image.fromarray(L8)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class Lookalikes:
    """A set of perceptual hashes that finds the nearest one to a new hash.

    Pictures whose hashes differ in at most `max_bits`, 0 … 64, count as alike.
    """

    def __init__(self, max_bits: int) -> None:
        self.max_bits = max_bits
        self._names: list[str] = []
        self._hashes = np.empty(1024, np.uint64)

    def add(self, name: str, hash: int) -> None:
        if len(self._names) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[len(self._names)] = hash
        self._names.append(name)

    def find(self, hash: int) -> str | None:
        """The name of the most similar picture, or None if none is within `max_bits`."""
        if not self._names:
            return None
        known = self._hashes[: len(self._names)]
        differing = np.bitwise_count(known ^ np.uint64(hash))
        nearest = int(differing.argmin())
        return self._names[nearest] if differing[nearest] <= self.max_bits else None
