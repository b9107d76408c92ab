"""The embedded photographs, and small files made of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import skimage.color
from PIL import Image

PHOTOS = sorted((Path(__file__).parents[1] / "data" / "sample" / "photos").glob("*.jpg"))


def gray(index: int = 0, size: tuple[int, int] = (61, 43)) -> Image.Image:
    """A photograph without color, of this width and height."""
    with Image.open(PHOTOS[index]) as image:
        return image.convert("L").resize(size)


def scan(
    path: str | Path, index: int = 0, size: tuple[int, int] = (61, 43), **options: object
) -> Path:
    """Save it, in a folder that is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    gray(index, size).save(path, **options)
    return path


def encoded(picture: Image.Image | np.ndarray, format: str = "PNG", **options: object) -> bytes:
    """The content of a file."""
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, format, **options)
    return file.getvalue()


def lightness_of(picture: Image.Image | np.ndarray) -> np.ndarray:
    """L* by scikit-image, an independent oracle: of levels in 0 … 1, or of whole numbers."""
    levels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if levels.dtype.kind == "u":
        levels = levels / np.iinfo(levels.dtype).max
    return skimage.color.rgb2lab(levels if levels.ndim == 3 else np.dstack([levels] * 3))[..., 0]


def results(out: Path) -> dict[str, bytes]:
    """The files below a folder of results without the journal, the reports and the sidecars."""
    return {
        p.relative_to(out).as_posix(): p.read_bytes()
        for p in out.rglob("*")
        if p.is_file()
        and ".colorized" not in p.parts
        and p.suffix != ".json"
        and "colorized-report" not in p.name
    }
