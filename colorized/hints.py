"""What a person knows of a photograph's colors: at points, or in regions.

A hint says chroma. Lightness is the photograph's own, so of a hint's color only a* and b* count.

JSON: ``{"points": [{"x": 0.41, "y": 0.6, "radius": 0.02, "color": "#8b1a1a"}]}``, where x and y are
shares of width and height, from the left and the top, and the radius is a share of the shorter
side. PNG: a picture of the photograph's shape, opaque where it says a color, transparent elsewhere.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_POINTS = 1000
MAX_BYTES = 64 << 20
MAX_PIXELS = 100_000_000


class HintsError(ValueError):
    """One line that names the file, the entry and what is wrong with it."""


class Point(BaseModel):
    """A disc of one color.

    x, y: shares of width and height, 0 … 1; radius: share of the shorter side; color: sRGB.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    x: Annotated[float, Field(ge=0, le=1)]
    y: Annotated[float, Field(ge=0, le=1)]
    radius: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    color: Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 … 255."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    points: Annotated[list[Point], Field(max_length=MAX_POINTS)]


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
    except (ValueError, RecursionError) as error:
        raise HintsError(f"{name}: not JSON: {' '.join(str(error).split())}") from error
    try:
        return Hints(points=tuple(_File.model_validate(given).points))
    except ValidationError as error:
        raise HintsError(f"{name}: {_first(error)}") from error


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


def _first(error: ValidationError) -> str:
    """points[2].color: what is wrong, of the first of a model's errors."""
    first: dict[str, Any] = dict(error.errors()[0])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return f"{where.lstrip('.') or 'the whole'}: {first['msg']}, got {first['input']!r}"
