"""A process for each photograph, in which it is decoded, enlarged and encoded.

Decoders are C code that reads untrusted bytes. In a separate process a crash ends the process and
not the service, a hang is ended by a time limit, and memory is returned to the system. The process
is forked from a server that has loaded the libraries only (multiprocessing's *forkserver*), which
takes 10 ms.

The network runs in the service: it gets the lightness of a few hundred pixels, and returns chroma
at its scale. The scan at its full size leaves the process as the finished file only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import signal
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from colorized import color, photo
from colorized.color import resample, upsampling
from colorized.inference.colorizer import working_size
from colorized.photo import provenance
from colorized.text import line

SHOWN_SIDE = 1280
"""Longer side of the picture that a page shows."""

TILE = 512
"""Side of a tile, pixels."""

_QUALITY = 92  # of JPEG: of a scan's grain, tiles are off by 2.1 levels of 255; at 88 by 3.5
# Of 255: the least difference of two channels that is color, and not JPEG noise or a rounding.
_COLOR_LEVELS = 12
_NAME = "the photograph"
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "JPEG2000": ".jp2", "WEBP": ".webp"}
_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".jp2": "image/jp2",
    ".webp": "image/webp",
}
MEDIA_TYPES = tuple(_TYPES.values())
"""What a finished photograph can be."""

_context = multiprocessing.get_context("forkserver")
# `photo` loads its codecs on first use, which would be in each process anew.
_context.set_forkserver_preload([__name__, "colorized.photo.reading"])


class Refused(ValueError):
    """One line for the client: this photograph cannot be colored, and why.

    Parameters
    ----------
    code
        The reason in one word, for programs and for translations.
    facts
        Values that belong to it, such as a limit.
    """

    def __init__(self, message: str, code: str = "refused", **facts: int | str) -> None:
        super().__init__(message)
        self.code = code
        self.facts = facts


@dataclass(frozen=True)
class Opened:
    """A photograph that was read.

    `guide` is its L* (h, w) as by `ChromaSampler.guide`, `gray` a PNG of its lightness for the
    page, `original` a JPEG of the same size where it has colors; both may be empty. `pages` counts
    the photographs in the file, and `marks` are its `provenance.Marks` as a dictionary, or None.
    """

    width: int
    height: int
    guide: NDArray[np.float32]
    gray: bytes
    original: bytes
    pages: int
    marks: dict[str, Any] | None
    notes: list[str]


@dataclass(frozen=True)
class Pyramid:
    """A photograph as it is, in JPEG tiles of `TILE` pixels.

    Attributes
    ----------
    levels
        (width, height) of each level: the photograph's own, then halves, as long as they are
        larger than the picture that a page shows.
    tiles
        JPEG files by (level, column, row).
    """

    levels: list[tuple[int, int]] = field(default_factory=list)
    tiles: dict[tuple[int, int, int], bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Plane:
    """Chroma as a PNG: red is a*, green is b*, each (level - 128) · unit in CIELAB units."""

    png: bytes
    unit: float


@dataclass(frozen=True)
class Finished:
    """A colored photograph as a file."""

    data: bytes
    media_type: str
    suffix: str
    notes: list[str]


class DecodedPhoto:
    """A photograph in a decoder process, whose methods can be called from outside in this order."""

    _data: bytes
    _page: photo.Page
    _guide: NDArray[np.float32]
    _shown: NDArray[np.float32]
    _in_color: bool

    def __init__(self) -> None:
        self._files = contextlib.ExitStack()  # open as long as the process

    def look(self, data: bytes) -> int:
        """Take a file's bytes; returns its number of pixels by its header, or 0 without one."""
        self._data = data
        try:
            with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
                warnings.simplefilter("ignore")
                return image.width * image.height
        except Exception:  # `open` reports what is wrong with it
            return 0

    def open(self, max_pixels: int, work_size: int, show: bool, page: int | None) -> Opened:
        """Read a page of the file, by default the only one; with `show`, pictures to show too."""
        if not self._data:
            raise Refused(f"{_NAME}: the file is empty", "unreadable")
        with _refusals():
            scan = self._files.enter_context(photo.open_scan(self._data, max_pixels, _NAME))
        count = len(scan.pages)
        if page is None and count > 1:
            raise Refused(f"{_NAME}: holds {count} pages: choose one with `page`", "pages", n=count)
        if page is not None and page > count:
            raise Refused(f"{_NAME}: has no page {page} of {count}", "pages", n=count)
        self._page = scan.pages[(page or 1) - 1]
        with _refusals():
            self._page.read()
        lightness = self._page.lightness
        height, width = lightness.shape
        h, w = working_size(height, width, work_size)
        guide_size = upsampling.guide_size(h // 2, w // 2, height, width)
        self._guide = resample.resize_lightness(lightness, *guide_size)
        gray = original = b""
        if show:
            scale = min(1.0, SHOWN_SIDE / max(height, width))
            size = max(1, round(height * scale)), max(1, round(width * scale))
            linear = resample.resize(color.lightness_to_luminance(lightness), *size).clip(0, 1)
            levels = np.rint(color.linear_to_srgb(linear) * 255).astype(np.uint8)
            # The page has these levels as lightness, so its chroma follows their edges.
            linear = color.srgb_to_linear(levels.astype(np.float32) / 255)
            self._shown = color.luminance_to_lightness(linear)
            gray = png(Image.fromarray(levels))
            original = self._original(size)
        marks = _marks(self._page.metadata.xmp) if show else None
        return Opened(width, height, self._guide, gray, original, count, marks, self._page.notes)

    def _original(self, size: tuple[int, int]) -> bytes:
        """The photograph as it is, of `size` (h, w), where it has colors; else empty."""
        step = max(1, max(self._page.height, self._page.width) // (2 * SHOWN_SIDE))
        rows = [self._page.rgb8(a, b)[-a % step :: step, ::step] for a, b in self._page.strips()]
        rgb = np.concatenate(rows)
        self._in_color = in_color(rgb)
        if not self._in_color:
            return b""
        return _jpeg(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BOX, reducing_gap=2))

    def tiles(self) -> Pyramid:
        """The photograph at its own resolution; the last call."""
        page = self._page
        del page.lightness
        mode = "RGB" if self._in_color else "L"
        image = Image.new(mode, (page.width, page.height))
        for a, b in page.strips():
            rgb = page.rgb8(a, b)
            image.paste(Image.fromarray(rgb if self._in_color else rgb[..., 0]), (0, a))
        pyramid = Pyramid()
        while max(image.size) > SHOWN_SIDE:
            level = len(pyramid.levels)
            pyramid.levels.append(image.size)
            for y in range(0, image.height, TILE):
                for x in range(0, image.width, TILE):
                    box = (x, y, min(x + TILE, image.width), min(y + TILE, image.height))
                    pyramid.tiles[level, x // TILE, y // TILE] = _jpeg(image.crop(box))
            image = image.reduce(2)
        return pyramid

    def plane(self, ab: NDArray[np.float32]) -> Plane:
        """Chroma (h, w, 2) at the network's scale → chroma of the picture that the page shows."""
        return plane(self._enlarge(ab, self._shown))

    def finish(self, ab: NDArray[np.float32], format: str, facts: dict[str, Any]) -> Finished:
        """The file, with chroma (h, w, 2) at the network's scale, marked with `facts`."""
        wanted = self._page.format if format == "original" else format.upper()
        suffix = _SUFFIXES.get(wanted, ".png")
        full = self._enlarge(ab, self._page.lightness)
        made = provenance.Marks(original_sha256=hashlib.sha256(self._data).hexdigest(), **facts)
        name = f"{_NAME}{suffix}"
        with _refusals():
            xmp = provenance.for_copy(made, self._page, name)
            data = photo.encode_photo(self._page, full, name, xmp)
        return Finished(data, _TYPES[suffix], suffix, self._page.notes)

    def _enlarge(
        self, ab: NDArray[np.float32], lightness: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        height, width = lightness.shape
        return upsampling.Enlarger(self._guide, ab, height, width).rows(0, height, lightness)


def plane(ab: NDArray[np.float32]) -> Plane:
    """Chroma (h, w, 2) as a PNG of the same size."""
    unit = max(float(np.abs(ab).max()), 1.0) / 127
    levels = np.full((*ab.shape[:2], 3), 0, np.uint8)
    levels[..., :2] = np.rint(ab / unit) + 128
    return Plane(png(Image.fromarray(levels)), unit)


def in_color(rgb: NDArray[np.uint8]) -> bool:
    """Whether a picture (H, W, 3) has any color, be it that of sepia."""
    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    return bool((spread > _COLOR_LEVELS).mean() > 0.01)


def _marks(xmp: bytes) -> dict[str, Any] | None:
    try:
        found = provenance.parse(xmp)
    except ValueError:  # a stranger's packet
        return None
    return {**asdict(found), "seed": str(found.seed)} if found else None


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn errors of the photograph into `Refused`."""
    try:
        yield
    except photo.TooManyPixels as error:
        raise Refused(
            f"{_NAME}: {error.width} × {error.height} pixels are more than {error.most}",
            "pixels",
            megapixels=error.most // 1_000_000,
        ) from error
    except photo.PhotoError as error:
        unknown = isinstance(error.__cause__, UnidentifiedImageError)
        raise Refused(line(error), "unreadable" if unknown else "damaged") from error


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()


def png(image: Image.Image) -> bytes:
    """The file of a picture that goes to a page."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return file.getvalue()


def _serve_requests(connection: Connection) -> None:
    # Ctrl-C goes to all processes of a terminal; the service handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    photograph = DecodedPhoto()
    answer: object
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            method, arguments = connection.recv()
            try:
                answer = getattr(photograph, method)(*arguments)
            except Refused as error:
                answer = error
            except MemoryError:
                answer = Refused(f"{_NAME}: too little memory; a smaller copy needs less", "memory")
            except Exception as error:  # the service logs it
                answer = RuntimeError(f"{type(error).__name__}: {line(error)}")
            connection.send(answer)


class DecoderProcess:
    """A decoder process. `ask` blocks; `kill` may be called from another thread."""

    def __init__(self) -> None:
        self._connection, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve_requests, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any, seconds: float) -> Any:
        """Call a method of the `DecodedPhoto`.

        Raises
        ------
        Refused
            No picture, one that is too large or crashes its decoder, or the call took longer than
            `seconds`.
        RuntimeError
            A fault of the program.
        """
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(seconds):
                raise Refused(f"{_NAME}: given up, it took too long", "time")
            answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._process.join()
            code = self._process.exitcode
            raise Refused(f"{_NAME}: its decoder crashed (exit code {code})", "damaged") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process; a call of `ask` that is running then raises `Refused`."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """End the process, and release its resources; no call may be running."""
        self.kill()
        self._connection.close()
        self._process.close()


def warm_up() -> None:
    """Start the server that decoders are forked from, and wait until it has loaded libraries."""
    decoder = DecoderProcess()
    try:
        decoder.ask("look", b"", seconds=120)
    finally:
        decoder.close()
