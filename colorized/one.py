"""All that is done to one photograph: read, color, mark, write.

The command line, worker processes and the nodes of a cluster call the same function.
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from pathlib import Path

from colorized import checkpoint, devices, marks, photo
from colorized.batch import Job
from colorized.colorizer import Colorizer
from colorized.text import line

SAMPLER = "dpm_solver_pp_2m"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Settings:
    """What a result follows from, beside the photograph and the weights.

    Attributes
    ----------
    steps, seed, guidance, saturation
        As in `Colorizer.colorize`.
    max_pixels
        Larger photographs are refused before they are decoded.
    """

    steps: int
    seed: int
    guidance: float
    saturation: float
    max_pixels: int = photo.MAX_PIXELS


@dataclass(frozen=True)
class Model:
    """A colorizer, and what is known of its weights.

    `name` is for people; `data_sha256`, the digest of the training data, is empty where the
    weights do not say it.
    """

    colorizer: Colorizer
    name: str
    weights_sha256: str
    data_sha256: str
    T: int


@dataclass(frozen=True)
class Outcome:
    """What became of one photograph.

    Attributes
    ----------
    files
        What was written, the colored photograph first; empty where there was an error.
    notes
        What a user should know, one line each, which names the photograph.
    error
        Why it could not be colored, one line that names it; empty where it was.
    disk_full
        Whether that was because the disk, or the user's share of it, is full.
    original_sha256
        Of the file that was read; empty where it could not be.
    """

    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    disk_full: bool = False
    original_sha256: str = ""


def load_model(path: Path, name: str, device: str) -> Model:
    """The weights in a file, on a device; errors as in `load_weights` and `open_device`."""
    loaded = checkpoint.load_weights(path, devices.open_device(device))
    return Model(
        Colorizer(loaded),
        name,
        sha256(path),
        str(loaded.about.get("data_sha256", "")),
        loaded.config.T,
    )


def colorize_file(job: Job, model: Model, settings: Settings) -> Outcome:
    """Color the photograph `job.source` and write it to `job.target`, whose folder is made.

    Whatever is wrong with the photograph, or with writing, is in the outcome; nothing is raised
    but an interrupt.
    """
    original = ""
    try:
        original = sha256(job.source)
        picture = photo.read_photo(job.source, settings.max_pixels)
        ab = model.colorizer.colorize(
            picture.lightness,
            steps=settings.steps,
            seed=settings.seed,
            sampler=SAMPLER,
            guidance=settings.guidance,
            saturation=settings.saturation,
        )
        made = marks.Marks(
            model=model.name,
            weights_sha256=model.weights_sha256,
            original_sha256=original,
            data_sha256=model.data_sha256,
            sampler=SAMPLER,
            seed=settings.seed,
            steps=settings.steps,
            guidance=settings.guidance,
            saturation=settings.saturation,
        )
        job.target.parent.mkdir(parents=True, exist_ok=True)
        photo.write_photo(picture, ab, job.target, marks.for_copy(made, picture, job.target))
    except (photo.PhotoError, OSError) as error:
        return Outcome(error=line(error), disk_full=_is_full(error), original_sha256=original)
    except (MemoryError, RuntimeError, ValueError) as error:
        why = line(error)
        # Where memory lacks, torch raises a RuntimeError that says so in many lines.
        if isinstance(error, MemoryError) or "allocate" in why:
            device = model.colorizer.device
            why = f"too little memory on {device}; a smaller copy needs less"
        return Outcome(error=f"{photo.printable(job.source)}: {why}", original_sha256=original)
    notes = tuple(f"{photo.printable(job.source)}: {note}" for note in picture.notes)
    return Outcome((job.target,), notes, original_sha256=original)


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False
