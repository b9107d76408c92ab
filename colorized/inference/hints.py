"""Color hints: colors that a user gives at points of a photograph, or in regions.

Of a hint's color only a* and b* are used; lightness is that of the photograph. Where it is so dark
or light that sRGB holds no such chroma, chroma is reduced at the same hue.

JSON: ``{"points": [{"x": 0.41, "y": 0.6, "radius": 0.02, "color": "#8b1a1a"}]}``, where x and y are
shares of width and height, from the left and the top, and the radius is a share of the shorter
side. PNG: a picture of the photograph's shape, opaque where it says a color, transparent elsewhere.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorized import color
from colorized.text import printable

MAX_POINTS = 1000
MAX_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which would warn

_OPAQUE = 128
# Share of chroma below which a loss is not reported: colors of a color picker are rarely exact.
_WORTH_SAYING = 0.1


class HintsError(ValueError):
    """One line that names the file, the entry and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A disc of one color.

    x, y: shares of width and height, 0 … 1; radius: share of the shorter side, above 0 and at most
    0.5; color: sRGB, as #8b1a1a. Raises HintsError, which names the value, where one is not so.
    """

    x: float
    y: float
    radius: float = 0.02
    color: str

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            share = getattr(self, name)
            if not (_is_number(share) and 0 <= share <= 1):
                raise HintsError(f"{name}: must be a number in 0 … 1{_got(share)}")
        if not (_is_number(self.radius) and 0 < self.radius <= 0.5):
            raise HintsError(f"radius: must be a number above 0 and at most 0.5{_got(self.radius)}")
        if not (isinstance(self.color, str) and re.fullmatch("#[0-9A-Fa-f]{6}", self.color)):
            raise HintsError(f"color: must be like #8b1a1a{_got(self.color)}")

    @property
    def ab(self) -> NDArray[np.float32]:
        """a* and b* of the color, (2,)."""
        rgb = np.frombuffer(bytes.fromhex(self.color[1:]), np.uint8).astype(np.float32) / 255
        return color.srgb_to_lab(rgb)[1:]


@dataclass(frozen=True, eq=False)
class Known:
    """Hints rasterized for a photograph of (H, W).

    Attributes
    ----------
    share
        (H, W): how much of a pixel is known, 0 … 1.
    ab
        (H, W, 2), CIELAB units: its chroma, in the gamut; it means something where share > 0.
    requested
        The same before it was reduced to the gamut.
    """

    share: NDArray[np.float32]
    ab: NDArray[np.float32]
    requested: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Hints:
    """Points, of which later ones lie on top, and a picture below them.

    Parameters
    ----------
    points
        Discs of one color each.
    mask
        uint8 (H, W, 4), sRGB and opacity, of any size: it is laid over the photograph. A pixel
        says a color where its opacity is at least 128.
    """

    points: tuple[Point, ...] = ()
    mask: NDArray[np.uint8] | None = None

    def rasterize(self, lightness: NDArray[np.float32]) -> Known:
        """Share and chroma of known color for a photograph whose L* is (H, W).

        Raises
        ------
        HintsError
            The picture of the hints has another shape than the photograph.
        """
        height, width = lightness.shape
        share = np.zeros((height, width), np.float32)
        ab = np.zeros((height, width, 2), np.float32)
        if self.mask is not None:
            share, ab = self._laid_mask(height, width)
        for point in self.points:
            _add(point, share, ab)
        known = share > 0
        fitted = np.zeros_like(ab)
        fitted[known] = _fitted(lightness[known], ab[known])
        return Known(share, fitted, ab)

    def out_of_gamut(self, lightness: NDArray[np.float32]) -> list[str]:
        """One line for each hint whose chroma does not exist at the lightness it is given for."""
        lines = [
            f"hint {number}, {self.points[number - 1].color}: no such chroma at this lightness; "
            "reduced at the same hue"
            for number in self.softened(lightness)
        ]
        if self.mask is not None:
            known = Hints(mask=self.mask).rasterize(lightness)
            at = known.share > 0
            lost = _lost(known.share[at], known.requested[at], known.ab[at])
            if lost > _WORTH_SAYING:
                lines.append(
                    f"hints: {lost:.0%} of their chroma does not exist at this lightness; "
                    "reduced at the same hue"
                )
        return lines

    def softened(self, lightness: NDArray[np.float32]) -> list[int]:
        """Numbers, from 1 on, of the points whose chroma does not exist at their lightness."""
        numbers = []
        for number, point in enumerate(self.points, start=1):
            window, cover = _disc(point, *lightness.shape)
            share, L = cover[cover > 0], lightness[window][cover > 0]
            requested = np.broadcast_to(point.ab, (len(L), 2))
            if _lost(share, requested, _fitted(L, requested)) > _WORTH_SAYING:
                numbers.append(number)
        return numbers

    def _laid_mask(
        self, height: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Share (H, W) and chroma (H, W, 2) of the picture of hints."""
        from colorized.color import resample  # loads torch, which checking hints does not need

        assert self.mask is not None
        rows, columns = self.mask.shape[:2]
        stretch = (columns / rows) / (width / height)
        # The guide of a photograph may be a little wider than it, or less long than a panorama.
        if not 0.85 < stretch < 1.18 and max(width / height, height / width) < 7:
            raise HintsError(
                f"hints: a picture of {columns} × {rows} pixels does not have the shape of the "
                f"photograph, {width} × {height}"
            )
        opaque = self.mask[..., 3] >= _OPAQUE
        weighted = np.zeros((rows, columns, 2), np.float32)
        rgb = self.mask[opaque, :3].astype(np.float32) / 255
        weighted[opaque] = color.srgb_to_lab(rgb)[:, 1:]
        share = resample.resize(opaque.astype(np.float32), height, width).clip(0, 1)
        ab = resample.resize(weighted, height, width)
        return share, ab / np.maximum(share, 1e-3)[..., None]

    def __bool__(self) -> bool:
        return bool(self.points) or (
            self.mask is not None and bool((self.mask[..., 3] > 127).any())
        )


def parse_json(text: str | bytes, name: str = "hints") -> Hints:
    """Hints of a JSON text; `name` is what an error calls it.

    Raises
    ------
    HintsError
        It is no JSON, or no hints.
    """
    try:
        given = json.loads(text)
    except RecursionError as error:
        raise HintsError(f"{name}: not JSON: nested too deeply") from error
    except ValueError as error:
        raise HintsError(f"{name}: not JSON: {' '.join(str(error).split())}") from error
    try:
        return Hints(points=tuple(_points(given)))
    except HintsError as error:
        raise HintsError(f"{name}: {error}") from error


def parse_png(data: bytes, name: str = "hints") -> Hints:
    """Hints of a PNG file's bytes: opaque pixels say a color.

    Raises
    ------
    HintsError
        It is no PNG, is damaged or too large, has no transparency, or says nothing.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise HintsError(f"{name}: not a PNG file")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise HintsError(f"{name}: {image.width} × {image.height} pixels are too many")
            if not image.has_transparency_data:
                raise HintsError(
                    f"{name}: has no transparency: it must be transparent where it says no color"
                )
            mask = np.asarray(image.convert("RGBA"))
    except HintsError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise HintsError(f"{name}: cannot be read: {' '.join(str(error).split())}") from error
    hints = Hints(mask=mask)
    if not hints:
        raise HintsError(f"{name}: is transparent everywhere and says no color")
    return hints


def read_hints(path: Path) -> Hints:
    """Hints of a file: PNG if it begins as one, else JSON."""
    if path.stat().st_size > MAX_BYTES:
        raise HintsError(f"{path}: more than {MAX_BYTES >> 20} MB are no hints")
    data = path.read_bytes()
    if data.startswith(b"\x89PNG"):
        return parse_png(data, str(path))
    return parse_json(data, str(path))


def _disc(point: Point, height: int, width: int) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """A window of (height, width), and how much of each pixel in it the disc covers."""
    y, x = point.y * height - 0.5, point.x * width - 0.5
    radius = point.radius * min(height, width)
    top, left = (max(0, math.floor(c - radius - 1)) for c in (y, x))
    rows = np.arange(top, min(height, math.ceil(y + radius + 2)))
    columns = np.arange(left, min(width, math.ceil(x + radius + 2)))
    distance = np.hypot(rows[:, None] - y, columns[None, :] - x)
    cover = (radius + 0.5 - distance).clip(0, 1).astype(np.float32)
    # A small disc may miss the center of every pixel: it is known where it lies nonetheless.
    cover[distance == distance.min()] = 1
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)), cover


def _add(point: Point, share: NDArray[np.float32], ab: NDArray[np.float32]) -> None:
    """Lay a disc over share (H, W) and ab (H, W, 2), in place, its rim blended."""
    window, cover = _disc(point, *share.shape)
    below = share[window] * (1 - cover)
    total = np.maximum(below + cover, 1e-6)
    ab[window] = (below[..., None] * ab[window] + cover[..., None] * point.ab) / total[..., None]
    share[window] = below + cover


def _fitted(lightness: NDArray[np.float32], ab: NDArray[np.float32]) -> NDArray[np.float32]:
    """ab (N, 2) in the gamut at L* (N,)."""
    return color.fit_gamut(np.concatenate([lightness[:, None], ab], axis=-1))[:, 1:]


def _lost(
    share: NDArray[np.float32], requested: NDArray[np.float32], kept: NDArray[np.float32]
) -> float:
    """The share of chroma `requested` (N, 2) that `kept` (N, 2) lacks, 0 … 1; weights (N,)."""
    had, has = (float((share * np.linalg.norm(ab, axis=-1)).sum()) for ab in (requested, kept))
    return 1 - has / had if had > 0 else 0.0


def _points(given: Any) -> Iterator[Point]:
    """The points of what a JSON text holds; a HintsError begins with the place of the fault."""
    listed = _object(given, "", required=("points",))["points"]
    if not isinstance(listed, list):
        raise HintsError("points: must be a list")
    if len(listed) > MAX_POINTS:
        raise HintsError(f"points: must be at most {MAX_POINTS}, got {len(listed)}")
    for index, entry in enumerate(listed):
        where = f"points[{index}]"
        values = _object(entry, where, required=("x", "y", "color"), optional=("radius",))
        try:
            yield Point(**values)
        except HintsError as error:
            raise HintsError(f"{where}.{error}") from error


def _object(
    given: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A JSON object, which has the required keys and no unknown ones."""
    if not isinstance(given, dict):
        raise HintsError(f"{where or 'the whole'}: must be an object{_got(given)}")
    at = f"{where}." if where else ""
    known = (*required, *optional)
    for key in given:
        if key not in known:
            raise HintsError(f"{at}{printable(key)[:40]}: is unknown; known: {', '.join(known)}")
    for key in required:
        if key not in given:
            raise HintsError(f"{at}{key}: is missing")
    return given


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _got(value: object) -> str:
    """The end of a message that names a wrong value, if it is short."""
    plain = value is None or isinstance(value, str | int | float)
    return f", got {value!r}" if plain and len(repr(value)) < 40 else ""
