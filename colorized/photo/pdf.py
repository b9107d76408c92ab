"""Pages of a PDF, rendered by PDFium at the resolution of the scans in them."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pypdfium2
import pypdfium2.raw

from colorized.photo import tones
from colorized.photo.names import Check, Damaged, PhotoError, failing
from colorized.photo.page import BandCache, Banded, Metadata, Page
from colorized.photo.tones import Levels
from colorized.text import printable

# Of a page without scans, and the most that one with scans is given.
_DPI, _MAX_DPI = 300.0, 1200.0
_POINTS = 72.0  # per inch
# PDFium is not thread-safe, not even with a document for each thread.
_LOCK = threading.Lock()


def read(file: BinaryIO, path: Path, check: Check, close: Callable[[Any], Any]) -> list[Page]:
    """The pages of a PDF, each a photograph; `close` is given what is to be called at the end.

    Raises PhotoError: `check` does, or the document has no pages.
    """
    with _LOCK:
        document = pypdfium2.PdfDocument(file.read())
        close(lambda: _closed(document))
        scales = [_scale(document[i]) for i in range(len(document))]
        sizes = [document.get_page_size(i) for i in range(len(document))]
    if not scales:
        raise PhotoError(f"{printable(path)}: holds no pages")
    # PDFium rounds up, but for rounding errors.
    shapes = [
        (max(1, int(np.ceil(h * s - 1e-3))), max(1, int(np.ceil(w * s - 1e-3))))
        for (w, h), s in zip(sizes, scales, strict=True)
    ]
    for shape in shapes:
        check(*shape)
    total = sum(height * width for height, width in shapes)
    cache = BandCache()

    def render(number: int, _: int) -> Levels:
        height, width = shapes[number]
        with failing(path):
            with _LOCK:
                bitmap = document[number].render(scale=scales[number], rev_byteorder=True)
                pixels = bitmap.to_numpy()[..., :3].copy()
            if pixels.ndim != 3 or abs(len(pixels) - height) > 1:
                raise Damaged(f"page {number + 1} has another size than it says")
            rows = np.minimum(np.arange(height), pixels.shape[0] - 1)
            columns = np.minimum(np.arange(width), pixels.shape[1] - 1)
            return pixels if pixels.shape[:2] == (height, width) else pixels[rows][:, columns]

    pages = []
    for number, (height, width) in enumerate(shapes):
        notes: list[str] = []
        dpi = scales[number] * _POINTS
        eight = np.dtype(np.uint8)
        raster = Banded(height, width, height, eight, functools.partial(render, number), cache)
        meant = tones.in_color("RGB", eight, b"", notes)
        pages.append(Page(path, "PDF", raster, meant, Metadata(dpi=(dpi, dpi)), notes, total=total))
    return pages


def _closed(document: Any) -> None:
    with _LOCK:
        document.close()


def _scale(page: Any) -> float:
    """Pixels per point: those of the finest scan on the page, if there is one."""
    finest = 0.0
    for found in page.get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        drawn = found.get_matrix()  # of a square of one point; it may turn it
        across, up = math.hypot(drawn.a, drawn.b), math.hypot(drawn.c, drawn.d)
        width, height = found.get_px_size()
        if across and up:
            finest = max(finest, min(width / across, height / up))
    return min(finest, _MAX_DPI / _POINTS) if finest else _DPI / _POINTS
