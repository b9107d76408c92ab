"""All that is done to one photograph: read, color, mark, write.

The command line, worker processes and the nodes of a cluster call the same function.
"""

from __future__ import annotations

import errno
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorized import checkpoint, color, devices, marks, photo, resample
from colorized.colorizer import Colorizer
from colorized.job import SAMPLER, Job, Outcome, Settings, Stamp
from colorized.text import line

THUMBNAIL = 120
"""Height of the thumbnails of a report, pixels."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Model:
    """A colorizer, and what is known of its weights.

    `name` is for people; `data_sha256`, the digest of the training data, is empty where the
    weights do not say it; `T` is the largest number of steps.
    """

    colorizer: Colorizer
    name: str
    weights_sha256: str
    data_sha256: str
    T: int


def load_model(path: Path, name: str, device: str) -> Model:
    """The weights in a file, on a device; errors as in `load_weights` and `open_device`."""
    loaded = checkpoint.load_weights(path, devices.open_device(device))
    return Model(
        Colorizer(loaded),
        name,
        Stamp.of(path).sha256,
        str(loaded.about.get("data_sha256", "")),
        loaded.config.T,
    )


def colorize_file(job: Job, model: Model, settings: Settings) -> Outcome:
    """Color the photograph `job.source` and write it to `job.target`, whose folder is made.

    Whatever is wrong with the photograph, or with writing, is in the outcome; nothing is raised
    but an interrupt.
    """
    began = time.monotonic()
    original = None
    size = (0, 0)
    try:
        original = Stamp.of(job.source)
        picture = photo.read_photo(job.source, settings.max_pixels)
        height, width = picture.lightness.shape
        size = (width, height)
        colorizer = model.colorizer
        drawn = colorizer.candidates(
            picture.lightness,
            1,
            steps=settings.steps,
            seed=settings.seed,
            sampler=SAMPLER,
            guidance=settings.guidance,
        )
        small = drawn.ab[0] * np.float32(settings.saturation)
        made = marks.Marks(
            model=model.name,
            weights_sha256=model.weights_sha256,
            original_sha256=original.sha256,
            data_sha256=model.data_sha256,
            sampler=SAMPLER,
            seed=settings.seed,
            steps=settings.steps,
            guidance=settings.guidance,
            saturation=settings.saturation,
        )
        job.target.parent.mkdir(parents=True, exist_ok=True)
        photo.write_photo(
            picture,
            colorizer.enlarge(small, picture.lightness),
            job.target,
            marks.for_copy(made, picture, job.target),
        )
        files = tuple((path, Stamp.of(path, sync=True)) for path in (job.target,))
        preview = thumbnail(colorizer.shrink(picture.lightness), small)
    except MemoryError:
        return Outcome(original=original, size=size, error=_too_little(job, model))
    except Exception as error:  # a damaged file can make a library raise anything
        why = line(error)
        # Where memory lacks, torch raises a RuntimeError that says so in many lines.
        if isinstance(error, RuntimeError) and "allocate" in why:
            why = _too_little(job, model)
        elif not isinstance(error, photo.PhotoError | OSError):
            why = f"{photo.printable(job.source)}: {why}"
        return Outcome(original=original, size=size, error=why, disk_full=_is_full(error))
    return Outcome(
        files,
        original,
        notes=tuple(f"{photo.printable(job.source)}: {note}" for note in picture.notes),
        size=size,
        seconds=time.monotonic() - began,
        thumbnail=preview,
    )


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


def _too_little(job: Job, model: Model) -> str:
    name = photo.printable(job.source)
    return f"{name}: too little memory on {model.colorizer.device}; a smaller copy needs less"


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False
