"""A photograph as rows of L*, with the metadata of its copy."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from colorized import color
from colorized.color import resample
from colorized.photo import colorfulness
from colorized.photo.colorfulness import Mosaic
from colorized.photo.tones import Levels, ToneMapping

A = TypeVar("A")
B = TypeVar("B")

# Pixels of a strip: large enough to keep threads busy, small enough for the processor's cache.
_STRIP = 1 << 19
# A picture is reported as blank where all of its L* is below the one or above the other.
_BLACK, _WHITE = 1.0, 99.0


class Raster(Protocol):
    """Levels of a picture, upright. `rows` may be called from several threads."""

    height: int
    width: int
    band: int  # rows that are decoded together
    dtype: np.dtype[Any]  # uint8 or uint16, known before anything is decoded

    def rows(self, start: int, stop: int) -> Levels:
        """(stop - start, W) or, in color, (stop - start, W, C)."""


@dataclass(frozen=True)
class Metadata:
    """Metadata of a photograph, for its copy.

    `dpi` and `aspect` are horizontal and vertical; `aspect` is pixels per unit, where the unit is
    not named and they differ. `exif` is a block without orientation and thumbnail, `iptc` an
    IPTC-IIM record, `xmp` a packet. `comments` are those of a JPEG or GIF, `texts` whole chunks of
    a PNG, `private_tags` those of a TIFF beyond the baseline, GeoTIFF's among them: code, type,
    count, and bytes in little-endian order.
    """

    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    iptc: bytes = b""
    xmp: bytes = b""
    comments: tuple[bytes, ...] = ()
    texts: tuple[bytes, ...] = ()
    private_tags: tuple[tuple[int, int, int, bytes], ...] = ()
    aspect: tuple[float, float] | None = None


class Page:
    """One photograph of a file, whose rows are decoded on demand.

    `height` and `width` are those of the upright picture, `bits`, 8 or 16, those of its copy where
    the format has them, `format` Pillow's name of the file's format, `total` the pixels of all
    pages. `notes` are lines for the user, on a profile that could not be used, for instance.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        raster: Raster,
        tones: ToneMapping,
        metadata: Metadata,
        notes: list[str],
        alpha: bool = False,
        total: int = 0,
    ) -> None:
        self.path = path
        self.format = format
        self.height, self.width = raster.height, raster.width
        self.metadata = metadata
        self.notes = notes
        self.has_alpha = alpha
        self.total = total or self.height * self.width
        self._raster = raster
        self._tones = tones
        self.bits = 8 * raster.dtype.itemsize

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """L* of the rows [start, stop), (stop - start, W), 0 … 100.

        Raises PhotoError: they cannot be decoded.
        """
        if "lightness" in vars(self):
            return self.lightness[start:stop]
        return self._tones.lightness(self._levels(start, stop))

    def opacity(self, start: int, stop: int) -> Levels | None:
        """Opacity of the rows [start, stop), or None where the file has none."""
        if not self.has_alpha or "alpha" in vars(self):
            return None if self.alpha is None else self.alpha[start:stop]
        return self._raster.rows(start, stop)[..., -1]

    def rgb8(self, start: int, stop: int) -> NDArray[np.uint8]:
        """sRGB of the rows [start, stop), (stop - start, W, 3)."""
        return self._tones.rgb8(self._levels(start, stop))

    def small(self, height: int, width: int) -> NDArray[np.float32]:
        """L* (height, width), averaged in linear light as by `resample.resize_lightness`."""
        if height > self.height or width > self.width:
            whole = gather(self, self.rows, np.float32)
            self._check_range(whole)
            return resample.resize_lightness(whole, height, width)
        short = np.zeros((height, self.width), np.float32)
        cells = Mosaic(self.height, self.width)

        def shrink(strip: tuple[int, int]) -> tuple[int, NDArray[np.float32], Levels | None]:
            levels = self._levels(*strip)
            luminance = self._tones.luminance(levels)
            rgb = None if self._tones.is_gray else self._tones.rgb8(levels)
            return *resample.shrink_rows(luminance, strip[0], self.height, height), rgb

        strips = self.strips()
        for strip, (first, part, rgb) in zip(strips, in_order(shrink, strips), strict=True):
            short[first : first + len(part)] += part
            if rgb is not None:
                cells.add(strip[0], rgb)
        if not self._tones.is_gray:
            self._cells = cells.mean()
        small = resample.lightness_of(resample.resize(short, height, width))
        self._check_range(small)
        return small

    @functools.cached_property
    def _cells(self) -> NDArray[np.float32] | None:
        """Means of a `Mosaic` of its colors, None of a gray page; `small` sets it, too."""
        if self._tones.is_gray:
            return None
        cells = Mosaic(self.height, self.width)
        for strip in self.strips():
            cells.add(strip[0], self.rgb8(*strip))
        return cells.mean()

    @property
    def is_in_color(self) -> bool:
        """Whether it has colors of its own, beyond toning and age; quick after `small`."""
        return self._cells is not None and colorfulness.chroma_beyond_toning(self._cells) > 1

    @property
    def looks_like_color_negative(self) -> bool:
        """Whether it has the orange of color negative film where it is brightest."""
        return self._cells is not None and colorfulness.looks_like_color_negative(self._cells)

    def cells_chroma(self) -> NDArray[np.float32]:
        """The colors that it has, small: ab of `colorfulness.Mosaic`, zeros of a gray page."""
        if self._cells is None:
            return np.zeros((1, 1, 2), np.float32)
        return color.srgb_to_lab(self._cells / np.float32(255))[..., 1:]

    def chroma(self, start: int, stop: int) -> NDArray[np.float32]:
        """The colors that it has: ab of the rows [start, stop), CIELAB units."""
        srgb = self._tones.srgb(self._levels(start, stop))
        return color.srgb_to_lab(srgb / np.float32(np.iinfo(srgb.dtype).max))[..., 1:]

    def strips(self) -> list[tuple[int, int]]:
        """[start, stop) of strips of rows, top to bottom; what is decoded together is in one."""
        return cut(self.height, self.width, self._raster.band)

    @functools.cached_property
    def lightness(self) -> NDArray[np.float32]:
        """L* of all rows, (H, W)."""
        whole = gather(self, self.rows, np.float32)
        self._check_range(whole)
        return whole

    @functools.cached_property
    def alpha(self) -> Levels | None:
        """Opacity of all rows, uint8 or uint16 (H, W); None where the file has none."""
        depth = np.uint16 if self.bits == 16 else np.uint8
        return gather(self, self.opacity, depth) if self.has_alpha else None

    def read(self) -> Page:
        """Decode all rows, which can then be written when the file is closed, as a page alone."""
        self.total = self.lightness.size
        _ = self.alpha
        return self

    def _check_range(self, lightness: NDArray[np.float32]) -> None:
        """Note where it is all black or all white, though its levels are not all the same."""
        shade = "black" if lightness.max() < _BLACK else "white" if lightness.min() > _WHITE else ""
        if not shade:
            return
        first = self._levels(0, 1).reshape(-1, *self._levels(0, 1).shape[2:])[0]
        if any((self._levels(*strip) != first).any() for strip in self.strips()):
            note = f"it comes out all {shade}, though its levels are not all the same"
            self.notes.extend([note] if note not in self.notes else [])

    def _levels(self, start: int, stop: int) -> Levels:
        levels = self._raster.rows(start, stop)
        if not self.has_alpha:
            return levels
        return levels[..., 0] if levels.shape[-1] == 2 else levels[..., :-1]


def turned(levels: Levels, orientation: int) -> Levels:
    """The picture upright: EXIF's orientation 1 … 8 applied, another ignored."""
    if orientation in (5, 6, 7, 8):
        levels = levels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        levels = levels[::-1]
    if orientation in (2, 3, 6, 7):
        levels = levels[:, ::-1]
    return levels


class Whole:
    """A raster that is in memory."""

    band = 1

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self.height, self.width = levels.shape[:2]
        self.dtype = levels.dtype

    def rows(self, start: int, stop: int) -> Levels:
        return self._levels[start:stop]


class BandCache:
    """The bands decoded last, of all pages of a file."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.file_lock = threading.Lock()  # of the file they are read from
        self.bands: dict[tuple[int, int], Future[Levels]] = {}


class Banded:
    """A raster decoded band by band, of which the newest are kept: two passes, little memory.

    Parameters
    ----------
    band
        Rows of a band; the last one may have fewer.
    decode
        Gives the rows of the band of that number; called from several threads.
    cache
        Where bands are kept, for all pages of a file.
    """

    def __init__(
        self,
        height: int,
        width: int,
        band: int,
        dtype: np.dtype[Any],
        decode: Callable[[int], Levels],
        cache: BandCache,
    ) -> None:
        self.height, self.width, self.band, self.dtype = height, width, band, dtype
        self._decode = decode
        self._cache = cache
        # Strips are asked for in order, so of bands larger than strips two are in use at once.
        self._room = 1 if band >= height else 2 if band * width > _STRIP else 2 * threads() + 1

    def rows(self, start: int, stop: int) -> Levels:
        bands = range(start // self.band, (stop - 1) // self.band + 1)
        parts = []
        for number in bands:
            first = number * self.band
            levels = self._band(number)
            parts.append(levels[max(start - first, 0) : stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _band(self, number: int) -> Levels:
        key = id(self), number
        with self._cache.lock:
            bands = self._cache.bands
            found = bands.get(key)
            if mine := found is None:
                found = bands[key] = Future()
                while len(bands) > self._room:
                    del bands[next(iter(bands))]
        if mine:
            try:
                found.set_result(self._decode(number))
            except BaseException as error:
                found.set_exception(error)
        return found.result()


def turned_raster(raster: Raster, orientation: int, cache: BandCache) -> Banded:
    """The raster upright, decoded as a whole when rows of it are asked for."""
    height, width = raster.height, raster.width
    if orientation in (5, 6, 7, 8):
        height, width = width, height

    def decode(_: int) -> Levels:
        return turned(raster.rows(0, raster.height), orientation)

    return Banded(height, width, height, raster.dtype, decode, cache)


def cut(height: int, width: int, band: int = 1) -> list[tuple[int, int]]:
    """[start, stop) of strips of rows of about half a megapixel, of whole bands if they fit."""
    rows = max(1, _STRIP // width)
    if band < rows:
        rows -= rows % band
    return [(start, min(start + rows, height)) for start in range(0, height, rows)]


def gather(page: Page, part: Callable[[int, int], Any], dtype: Any) -> NDArray[Any]:
    """All rows of a part of a page, (H, W), computed by several threads."""
    whole = np.empty((page.height, page.width), dtype)

    def fill(strip: tuple[int, int]) -> None:
        whole[slice(*strip)] = part(*strip)

    for _ in in_order(fill, page.strips()):
        pass
    return whole


_threads: int | None = None


def use_threads(count: int) -> None:
    """Set how many strips are worked on at once in this process."""
    global _threads
    _threads = count


def threads() -> int:
    """How many strips are worked on at once; by default as many as torch has threads."""
    return torch.get_num_threads() if _threads is None else _threads


def in_order(f: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """f of each item, by several threads, in order, a few items ahead of the consumer."""
    if (count := threads()) == 1:
        yield from map(f, items)
        return
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(f, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
