"""All that is done to one photograph: read, color, mark, write.

The command line, worker processes and the nodes of a cluster call the same function.
"""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorized import color
from colorized.api import ColoredPhoto, Colorizer, Error
from colorized.batch.job import Job, Outcome, Settings, Stamp
from colorized.color import resample
from colorized.photo import provenance
from colorized.text import line, printable

THUMBNAIL = 120
"""Height of the thumbnails of a report, pixels."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def colorize_file(job: Job, colorizer: Colorizer, settings: Settings) -> Outcome:
    """Color the photograph `job.source` and write it to `job.target`, whose folder is made.

    A file of several pages becomes one of as many. Of several candidates the first has the
    target's name. All else that the settings ask for lies beside it: see `_written`.

    Whatever is wrong with the photograph, or with writing, is in the outcome; nothing is raised
    but an interrupt.
    """
    began = time.monotonic()
    original = None
    size = (0, 0)
    try:
        original = Stamp.of(job.source)
        with colorizer.draw(
            job.source,
            job.source,
            original.sha256,
            settings.sampling,
            candidates=settings.candidates,
            hints=settings.hints,
            hints_sha256=settings.hints_sha256,
            max_pixels=settings.max_pixels,
        ) as colored:
            first = colored.pages[0]
            size = (first.width, first.height)
            job.target.parent.mkdir(parents=True, exist_ok=True)
            files = [
                (path, Stamp.of(path, sync=True))
                for path in _written(job.target, colored, settings)
            ]
            preview = thumbnail(first.guide, first.drawn.ab[0])
            notes = colored.notes
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
    )


def _written(target: Path, colored: ColoredPhoto, settings: Settings) -> Iterator[Path]:
    """Write the files of a photograph, the colored one first, and give each back.

    photo.jpg, photo.jpg.json, photo.candidate-2.jpg, …, photo.jpg.candidates.png,
    photo.jpg.uncertainty.png, photo.jpg.layer.png
    """
    for k, marks in enumerate(colored.marks):
        path = candidate_name(target, k)
        colored.save(path, candidate=k, mark=settings.mark)
        yield path
        beside = provenance.sidecar_name(path)
        beside.write_bytes(provenance.sidecar(marks, path, Stamp.of(path).sha256))
        yield beside
    several = len(colored.pages) > 1
    for number, one in enumerate(colored.pages, start=1):
        page = f".page-{number}" if several else ""
        if settings.candidates > 1:
            path = target.with_name(f"{target.name}{page}.candidates.png")
            one.contact_sheet.save(path)
            yield path
        if settings.uncertainty:
            path = target.with_name(f"{target.name}{page}.uncertainty.png")
            one.uncertainty_map.save(path)
            yield path
    if settings.layer:
        path = target.with_name(f"{target.name}.layer.{'tif' if several else 'png'}")
        colored.save_layer(path)
        yield path


def candidate_name(target: Path, k: int) -> Path:
    """The file of a candidate, counted from 0: photo.jpg, photo.candidate-2.jpg, …"""
    return target if k == 0 else target.with_name(f"{target.stem}.candidate-{k + 1}{target.suffix}")


def thumbnail(lightness: NDArray[np.float32], ab: NDArray[np.float32]) -> bytes:
    """A small JPEG file: the photograph before and after, side by side.

    Parameters
    ----------
    lightness
        L* (H, W) of any size; what is colored is small already, so it is that of the network.
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
