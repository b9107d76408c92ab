"""Color one photograph: read, color, mark, write.

The command line, worker processes and the nodes of a cluster call the same function.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorized import color, photo
from colorized.api import ColoredPhoto, Colorizer, Error
from colorized.batch.job import FileDigest, Job, Outcome, Settings
from colorized.color import resample
from colorized.photo import provenance
from colorized.text import line, printable

THUMBNAIL = 120
"""Height of the thumbnails of a report, pixels."""

_READ_AT_ONCE = 1 << 26
_RECOLOR = "--recolor colors it all the same"
_MARKED = f"this program has colored it, as its marks say; {_RECOLOR}"
_IN_COLOR = f"is in color already; {_RECOLOR}"
_ALL_IN_COLOR = f"all its pages are in color already; {_RECOLOR}"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def colorize_file(
    job: Job,
    colorizer: Colorizer,
    settings: Settings,
    on_page: Callable[[int], object] = lambda page: None,
) -> Outcome:
    """Color the photograph `job.source` and write it to `job.target`, whose folder is made.

    A file of several pages becomes one of as many. Of several candidates the first has the
    target's name. Other files that the settings ask for are written beside it: see `_written`.

    A photograph in color is skipped, unless the settings say otherwise; of a file of several pages
    those in color keep their colors. `on_page` is called with the number of each page, from 1 on,
    when it is begun.

    Errors of reading, coloring and writing are in the outcome; only an interrupt is raised.
    """
    began = time.monotonic()
    original = None
    size = (0, 0)
    try:
        original, content = _read(job.source)
        with colorizer.draw(
            content or job.source,
            job.source,
            original.sha256,
            settings.sampling,
            candidates=settings.candidates,
            hints=settings.hints,
            hints_sha256=settings.hints_sha256,
            max_pixels=settings.max_pixels,
            keep_colors=not settings.recolor,
            on_page=on_page,
            drawn_before=job.drawn_before,
        ) as colored:
            first = colored.pages[0]
            size = (first.width, first.height)
            if first.colored_before or (first.keeps_colors and len(colored.pages) == 1):
                why = _MARKED if first.colored_before else _IN_COLOR
                why = f"{printable(job.source)}: {why}"
                return Outcome(original=original, size=size, passed_over=why)
            job.target.parent.mkdir(parents=True, exist_ok=True)
            files = list(_written(job.target, colored, settings))
            if all(page.keeps_colors for page in colored.pages):
                for path, _ in files:
                    path.unlink(missing_ok=True)
                why = f"{printable(job.source)}: {_ALL_IN_COLOR}"
                return Outcome(original=original, size=size, passed_over=why)
            preview = thumbnail(first.guide, first.drawn.ab[0])
            notes = colored.notes
            kept = any(page.keeps_colors for page in colored.pages)
    except Exception as error:
        why = line(error)
        if not isinstance(error, Error | OSError):
            why = f"{printable(job.source)}: {why}"
        return Outcome(original=original, size=size, error=why, disk_full=_is_full(error))
    return Outcome(
        tuple(files),
        original,
        notes=tuple(f"{printable(job.source)}: {note}" for note in notes),
        size=size,
        seconds=time.monotonic() - began,
        thumbnail=preview,
        kept=kept,
    )


def _read(path: Path) -> tuple[FileDigest, bytes]:
    """Digest of a photograph, and its content; empty for a large file, which is read in parts."""
    if not path.is_file():
        with photo.open_scan(path):  # says what is wrong
            pass
    if path.stat().st_size > _READ_AT_ONCE:
        return FileDigest.of(path), b""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read()
    digest = hashlib.sha256(content).hexdigest()
    return FileDigest(digest, len(content), status.st_mtime_ns), content


def _written(
    target: Path, colored: ColoredPhoto, settings: Settings
) -> Iterator[tuple[Path, FileDigest]]:
    """Write the files of a photograph, the colored one first, and yield each with its digest.

    photo.jpg, photo.jpg.json, photo.candidate-2.jpg, …, photo.jpg.candidates.png,
    photo.jpg.uncertainty.png, photo.jpg.layer.png
    """
    for k, marks in enumerate(colored.marks):
        path = target
        if k:
            suffix = f".candidate-{k + 1}{target.suffix}"
            path = target.with_name(photo.fitting(target.stem, suffix))
        colored.save(path, candidate=k, mark=settings.mark)
        stamp = FileDigest.of(path, sync=True)
        yield path, stamp
        sidecar = provenance.sidecar_name(path)
        sidecar.write_bytes(provenance.sidecar(marks, path, stamp.sha256))
        yield sidecar, FileDigest.of(sidecar, sync=True)
    several = len(colored.pages) > 1
    for number, one in enumerate(colored.pages, start=1):
        page = f".page-{number}" if several else ""
        if settings.candidates > 1:
            path = beside(target, f"{page}.candidates.png")
            one.contact_sheet.save(path)
            yield path, FileDigest.of(path, sync=True)
        if settings.uncertainty:
            path = beside(target, f"{page}.uncertainty.png")
            one.uncertainty_map.save(path)
            yield path, FileDigest.of(path, sync=True)
    if settings.layer:
        path = beside(target, f".layer.{'tif' if several else 'png'}")
        colored.save_layer(path)
        yield path, FileDigest.of(path, sync=True)


def beside(target: Path, suffix: str) -> Path:
    """A file beside the colored one: photo.jpg.layer.png of photo.jpg."""
    return target.with_name(photo.fitting(target.name, suffix))


def thumbnail(lightness: NDArray[np.float32], ab: NDArray[np.float32]) -> bytes:
    """A small JPEG file: the photograph before and after, side by side.

    Parameters
    ----------
    lightness
        L* (H, W) of any size.
    ab
        (h, w, 2), CIELAB units.
    """
    height, width = lightness.shape
    size = (THUMBNAIL, min(max(1, round(THUMBNAIL * width / height)), 4 * THUMBNAIL))
    L, chroma = resample.resize_lightness(lightness, *size), resample.resize(ab, *size)
    pair = [color.recombine(L, np.zeros_like(chroma)), color.recombine(L, chroma)]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(pair, axis=1)).save(file, "JPEG", quality=75)
    return file.getvalue()


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False
