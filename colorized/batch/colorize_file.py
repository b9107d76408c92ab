"""All that is done to one photograph: read, color, mark, write.

The command line, worker processes and the nodes of a cluster call the same function.
"""

from __future__ import annotations

import contextlib
import errno
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from colorized import color, devices, photo
from colorized.batch.job import Job, Outcome, Settings, Stamp
from colorized.color import resample
from colorized.color.upsampling import Enlarger
from colorized.inference import contact_sheet
from colorized.inference.candidates import Candidates
from colorized.inference.colorizer import Colorizer
from colorized.model.weights import load_weights
from colorized.photo import provenance
from colorized.text import line, out_of_memory, printable

THUMBNAIL = 120
"""Height of the thumbnails of a report, pixels."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


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


def load_model(path: Path, name: str, device: str) -> Model:
    """The weights in a file, on a device; errors as in `load_weights` and `open_device`."""
    loaded = load_weights(path, devices.open_device(device))
    return Model(
        Colorizer(loaded),
        name,
        Stamp.of(path).sha256,
        str(loaded.about.get("data_sha256", "")),
    )


def colorize_file(job: Job, model: Model, settings: Settings) -> Outcome:
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
        with _one_thread(), photo.open_scan(job.source, settings.max_pixels) as scan:
            first = scan.pages[0]
            size = (first.width, first.height)
            drawn = [_draw(page, model, settings) for page in scan.pages]
            job.target.parent.mkdir(parents=True, exist_ok=True)
            known = [
                _facts(k, drawn[0], original, model, settings) for k in range(settings.candidates)
            ]
            files = [
                (path, Stamp.of(path, sync=True))
                for path in _written(job.target, drawn, known, settings)
            ]
            preview = thumbnail(drawn[0].guide, drawn[0].candidates.ab[0])
            notes = dict.fromkeys(note for page in scan.pages for note in page.notes)
            if settings.hints:
                for page in drawn:
                    notes |= dict.fromkeys(settings.hints.beyond(page.guide))
    except Exception as error:  # a damaged file can make a library raise anything
        why = line(error)
        if out_of_memory(error):
            why = _too_little(job, model)
        elif not isinstance(error, photo.PhotoError | OSError):
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


def _facts(
    k: int, drawn: _Drawn, original: Stamp, model: Model, settings: Settings
) -> provenance.Marks:
    return provenance.Marks(
        model=model.name,
        weights_sha256=model.weights_sha256,
        original_sha256=original.sha256,
        data_sha256=model.data_sha256,
        **asdict(settings.sampling.override(seed=drawn.candidates.seeds[k])),
        candidate=k + 1,
        candidates=settings.candidates,
        hints_sha256=settings.hints_sha256,
    )


def _written(
    target: Path, drawn: Sequence[_Drawn], known: Sequence[provenance.Marks], settings: Settings
) -> Iterator[Path]:
    """Write the files of a photograph, the colored one first, and give each back.

    photo.jpg, photo.jpg.json, photo.candidate-2.jpg, …, photo.jpg.candidates.png,
    photo.jpg.uncertainty.png, photo.jpg.layer.png
    """
    for k, facts in enumerate(known):
        path = candidate_name(target, k)
        pages = (one.colored(k, facts, path) for one in drawn)
        if settings.mark is not None:
            place: photo.Place = settings.mark
            pages = (photo.marked(page, place) for page in pages)
        photo.write_scan(pages, path)
        yield path
        beside = provenance.sidecar_name(path)
        beside.write_bytes(provenance.sidecar(facts, path, Stamp.of(path).sha256))
        yield beside
    several = len(drawn) > 1
    for number, one in enumerate(drawn, start=1):
        page = f".page-{number}" if several else ""
        if settings.candidates > 1:
            path = target.with_name(f"{target.name}{page}.candidates.png")
            Image.fromarray(contact_sheet.contact_sheet(one.candidates, one.guide)).save(path)
            yield path
        if settings.uncertainty:
            path = target.with_name(f"{target.name}{page}.uncertainty.png")
            shown = contact_sheet.uncertainty_map(one.candidates.uncertainty, *one.guide.shape)
            Image.fromarray(shown).save(path)
            yield path
    if settings.layer:
        path = target.with_name(f"{target.name}.layer.{'tif' if several else 'png'}")
        photo.write_scan((photo.layer(one.colored(0, known[0], path)) for one in drawn), path)
        yield path


@dataclass(frozen=True)
class _Drawn:
    """A page, its guide (see `Colorizer.guide`), and its colorings, saturation applied."""

    page: photo.Page
    guide: NDArray[np.float32]
    candidates: Candidates

    def colored(self, k: int, facts: provenance.Marks, path: Path) -> photo.Colored:
        """Candidate number k, with what its file at `path` says of it."""
        height, width = self.page.height, self.page.width
        chroma = Enlarger(self.guide, self.candidates.ab[k], height, width)
        return photo.Colored(self.page, chroma.rows, provenance.for_copy(facts, self.page, path))


def _draw(page: photo.Page, model: Model, settings: Settings) -> _Drawn:
    guide = page.small(*model.colorizer.guide_size(page.height, page.width))
    drawn = model.colorizer.candidates(
        guide,
        settings.candidates,
        settings.sampling,
        hints=settings.hints,
    )
    return _Drawn(page, guide, drawn)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """What torch computes here, it computes with one thread.

    Convolutions add in another order with another number of threads, and the same seed shall give
    the same bytes whether a photograph is colored alone or among many. And it is no slower: a scan
    is worked on in strips by several threads already (see `photo.use_threads`), and where torch's
    own wait for each other beside them, it takes several times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def _too_little(job: Job, model: Model) -> str:
    name = printable(job.source)
    return f"{name}: too little memory on {model.colorizer.device}; a smaller copy needs less"


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False
