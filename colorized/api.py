"""The Python interface, which the command and the served model call, too.

A photograph is read, its chroma drawn, and the result written as `colorized colorize` would, with
its depth, profile and metadata, and marks that say a machine made the colors.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from colorized import atomic, color, photo
from colorized.color import resample
from colorized.color.upsampling import Enlarger
from colorized.devices import open_device
from colorized.inference import contact_sheet
from colorized.inference.candidates import Candidates
from colorized.inference.colorizer import ChromaSampler
from colorized.inference.hints import Hints, parse_json, read_hints
from colorized.model.weights import RELEASED, load_weights
from colorized.options import SamplingOptions
from colorized.photo import provenance
from colorized.text import line, out_of_memory, printable

Photograph: TypeAlias = str | os.PathLike[str] | bytes | NDArray[Any] | Image.Image
"""A file, the content of one, levels of pixels, or a Pillow image."""

Progress: TypeAlias = Callable[[int, int], object]

_SHOWN = 768
"""Longer side of what a notebook shows, pixels."""


class Error(ValueError):
    """One line that says what cannot be done, the same as the command prints."""


class Options(TypedDict, total=False):
    """The fields of `SamplingOptions`; those that are not given are those of the weights."""

    steps: int
    sampler: str
    guidance: float
    temperature: float
    seed: int
    saturation: float


class Colorizer:
    """Colors photographs with one set of weights.

    Parameters
    ----------
    weights
        A `.safetensors` file of this program; by default the one that came with it.
    device
        "cpu", "cuda", "cuda:1" or "mps".
    name
        Name of the weights in marks; by default the file's name.

    Attributes
    ----------
    options
        Default options of the weights: `SamplingOptions`.
    weights_sha256
        Digest of the weights file.

    Raises
    ------
    Error
        The file is missing or holds no weights, or this machine lacks the device.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        name: str | None = None,
    ) -> None:
        path = RELEASED if weights is None else Path(weights)
        with failing():
            loaded = load_weights(path, open_device(device))
            self.weights_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.sampler = ChromaSampler(loaded)
        self.options = self.sampler.defaults
        self.name = name or path.name
        self.data_sha256 = str(loaded.about.get("data_sha256", ""))

    def colorize(
        self,
        photograph: Photograph,
        *,
        candidates: int = 1,
        hints: Hints | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        max_pixels: int = photo.MAX_PIXELS,
        name: str | None = None,
        **options: Unpack[Options],
    ) -> ColoredPhoto:
        """Color a photograph, and all pages of a file of several.

        Parameters
        ----------
        photograph
            A path; the content of a file; a Pillow image; or an array (H, W) of gray or (H, W, 3)
            of sRGB levels: uint8, uint16, or floating point in 0 … 1.
        candidates
            How many colorings: the first is the most typical of those that were drawn.
        hints
            Color hints: a JSON or PNG file, or the content of such a JSON file.
        progress
            Is given the number of evaluations of the network that are done, and that of all. What
            it raises ends the work, and is passed on.
        max_pixels
            A larger photograph is refused before it is decoded.
        name
            Name of the photograph in messages; by default the file's name.
        **options
            Of `SamplingOptions`: steps, seed, guidance, temperature, saturation, sampler. The same
            ones give the same colors, on one machine to the byte.

        Raises
        ------
        Error
            The photograph, the hints or an option cannot be used; names it.
        """
        sampling = override(self.options, **options)
        if isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 1:
            raise Error(f"candidates must be a whole number from 1 on, got {candidates!r}")
        known, hints_sha256 = _hints(hints)
        source, called, digest = _source(photograph)
        return self.draw(
            source,
            Path(name) if name else called,
            digest,
            sampling,
            candidates=candidates,
            hints=known,
            hints_sha256=hints_sha256,
            progress=progress,
            max_pixels=max_pixels,
        )

    def draw(
        self,
        source: Path | bytes,
        name: Path,
        sha256: str,
        sampling: SamplingOptions,
        *,
        candidates: int,
        hints: Hints | None,
        hints_sha256: str,
        max_pixels: int,
        progress: Progress | None = None,
        keep_colors: bool = False,
        on_page: Callable[[int], object] | None = None,
        drawn_before: Path | None = None,
    ) -> ColoredPhoto:
        """As `colorize`, of values that are checked: `sha256` is the digest of the source.

        Parameters
        ----------
        keep_colors
            Pages that are in color already keep their colors, and nothing is drawn for them.
        on_page
            Is given the number of each page, from 1 on, that is begun. Pages are colored when they
            are asked for then: one that is written next is decoded once.
        drawn_before
            A folder, of a file of several pages: what is drawn is kept there, and what an earlier
            call with the same values has drawn is not drawn again.
        """
        raised: list[BaseException] = []
        with contextlib.ExitStack() as stack:
            with failing(name, self.sampler.device):
                scan = stack.enter_context(photo.open_scan(source, max_pixels, name))

            def colored(number: int) -> ColoredPage:
                page = scan.pages[number]
                if on_page is not None:
                    on_page(number + 1)
                step = _step(progress, number, len(scan.pages), raised)
                with failing(name, self.sampler.device, raised), one_thread():
                    guide = page.small(*self.sampler.guide_size(page.height, page.width))
                    if page.looks_like_color_negative:
                        page.notes.append("it looks like a color negative; invert it first")
                    before = provenance.NAMESPACE.encode() in page.metadata.xmp
                    if keep_colors and (before or page.is_in_color):
                        if len(scan.pages) > 1:
                            page.notes.append(f"page {number + 1} is in color and keeps its colors")
                        kept = _own_colors(page, guide, sampling.seed, candidates)
                        return ColoredPage(page, guide, kept, True, before)

                    def draw() -> Candidates:
                        return self.sampler.candidates(
                            guide, candidates, sampling, hints=hints, on_step=step
                        )

                    if drawn_before is None or len(scan.pages) == 1:
                        return ColoredPage(page, guide, draw())
                    kept_at = drawn_before / f"{sha256}-{number + 1}.npz"
                    return ColoredPage(page, guide, _kept(kept_at, draw))

            pages: Sequence[ColoredPage] = _Lazy(colored, len(scan.pages))
            if on_page is None:
                pages = tuple(pages)
            marks = [
                provenance.Marks(
                    model=self.name,
                    weights_sha256=self.weights_sha256,
                    original_sha256=sha256,
                    data_sha256=self.data_sha256,
                    **asdict(sampling.override(seed=seed)),
                    candidate=k,
                    candidates=candidates,
                    hints_sha256=hints_sha256,
                )
                for k, seed in enumerate(pages[0].seeds, start=1)
            ]
            where = _Where(name, None if isinstance(source, bytes) else source, self.sampler.device)
            return ColoredPhoto(where, pages, marks, hints, stack.pop_all(), on_page)


class ColoredPage:
    """A photograph of a file, in color.

    Attributes
    ----------
    height, width
        Its size in pixels, upright.
    seeds
        Of each candidate: with it alone the same colors are drawn.
    uncertainty
        (h, w), small: the mean distance of two colorings at a pixel, of all that were drawn,
        CIELAB units; 0 where there was but one.
    keeps_colors, colored_before
        Whether its colors are its own, and whether its marks say that this program drew them.
    """

    def __init__(
        self,
        page: photo.Page,
        guide: NDArray[np.float32],
        drawn: Candidates,
        keeps_colors: bool = False,
        colored_before: bool = False,
    ) -> None:
        self.keeps_colors, self.colored_before = keeps_colors, colored_before
        self.height, self.width = page.height, page.width
        self.seeds = drawn.seeds
        self.uncertainty = drawn.uncertainty
        self.page, self.guide, self.drawn = page, guide, drawn

    @functools.cached_property
    def lightness(self) -> NDArray[np.float32]:
        """L* (H, W), 0 … 100, as in the file."""
        with failing(self.page.path):
            return self.page.lightness

    def chroma(self, candidate: int = 0) -> NDArray[np.float32]:
        """ab (H, W, 2) of a candidate, CIELAB units, not yet fitted to the gamut of sRGB."""
        with one_thread():
            return self.rows(candidate)(0, self.height, self.lightness)

    def rows(self, candidate: int) -> photo.Rows:
        """Chroma of a candidate for any rows."""
        if self.keeps_colors:
            return lambda start, stop, L: self.page.chroma(start, stop)
        return Enlarger(self.guide, self.drawn.ab[candidate], self.height, self.width).rows

    @property
    def candidates(self) -> tuple[Image.Image, ...]:
        """All colorings at full size, the most typical first."""
        return tuple(self._image(k) for k in range(len(self.seeds)))

    @property
    def image(self) -> Image.Image:
        """The first coloring at full size: RGB, 8 bits."""
        return self._image(0)

    @property
    def contact_sheet(self) -> Image.Image:
        """The photograph and its colorings, with the seed of each."""
        return Image.fromarray(contact_sheet.contact_sheet(self.drawn, self.guide))

    @property
    def uncertainty_map(self) -> Image.Image:
        """Where the candidates disagree, with a scale."""
        return Image.fromarray(contact_sheet.uncertainty_map(self.uncertainty, *self.guide.shape))

    def _image(self, candidate: int) -> Image.Image:
        return Image.fromarray(color.recombine(self.lightness, self.chroma(candidate)))


class _Lazy(Sequence[ColoredPage]):
    """Pages that are colored when they are first asked for."""

    def __init__(self, colored: Callable[[int], ColoredPage], count: int) -> None:
        self._colored, self._count = colored, count
        self._known: dict[int, ColoredPage] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if index not in range(self._count):
            raise IndexError(index)
        if index not in self._known:
            self._known[index] = self._colored(index)
        return self._known[index]


def _kept(path: Path, draw: Callable[[], Candidates]) -> Candidates:
    """The candidates that an earlier run saved at `path`, or else new ones, which are saved."""
    damaged = contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with damaged, np.load(path, allow_pickle=False) as known:
        return Candidates(
            known["ab"],
            tuple(known["seeds"].tolist()),
            tuple(known["distances"].tolist()),
            known["uncertainty"],
        )
    drawn = draw()
    # Without it the page is drawn again; that must not end a batch.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as partial, open(partial, "xb") as file:
            np.savez(file, **asdict(drawn))
    return drawn


def _own_colors(page: photo.Page, guide: NDArray[np.float32], seed: int, count: int) -> Candidates:
    """The colors that a page has, small, as so many colorings of it."""
    ab = resample.resize(page.cells_chroma(), *guide.shape)
    nothing = np.zeros(guide.shape, np.float32)
    return Candidates(np.stack([ab] * count), (seed,) * count, (0.0,) * count, nothing)


@dataclass(frozen=True)
class _Where:
    name: Path
    original: Path | None
    device: torch.device


class ColoredPhoto:
    """The result of `Colorizer.colorize`, which a notebook shows and `save` writes.

    The original stays open until `close`, the end of a `with` block, or the end of this object:
    its pixels are read when they are asked for.

    Attributes
    ----------
    pages
        One `ColoredPage`, or as many as the file has.
    marks
        The marks in the file of each candidate.
    close
        Close the original.
    """

    def __init__(
        self,
        where: _Where,
        pages: Sequence[ColoredPage],
        marks: Sequence[provenance.Marks],
        hints: Hints | None,
        opened: contextlib.ExitStack,
        on_page: Callable[[int], object] | None = None,
    ) -> None:
        self._on_page = on_page
        self.pages = pages
        self.marks = tuple(marks)
        self._where, self._hints = where, hints
        self.close = weakref.finalize(self, opened.close)

    @property
    def image(self) -> Image.Image:
        """The first coloring of the first page at full size: RGB, 8 bits."""
        return self.pages[0].image

    @property
    def candidates(self) -> tuple[Image.Image, ...]:
        """All colorings of the first page at full size, the most typical first."""
        return self.pages[0].candidates

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of each candidate: with it alone the same colors are drawn."""
        return self.pages[0].seeds

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """Of the first page: see `ColoredPage`."""
        return self.pages[0].uncertainty

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the photograph, the hints and the saved files, one line each."""
        notes = dict.fromkeys(note for page in self.pages for note in page.page.notes)
        if self._hints:
            for page in self.pages:
                notes |= dict.fromkeys(self._hints.out_of_gamut(page.guide))
        return tuple(notes)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        candidate: int = 0,
        mark: Literal["corner", "margin"] | None = None,
    ) -> None:
        """Write a coloring with all that the original carries, as the command does.

        The format is that of the suffix; of several pages TIFF. The file appears whole or not at
        all, and one that exists is replaced.

        Parameters
        ----------
        candidate
            Which one, from 0 on.
        mark
            Where to write in the picture that a machine colored it.

        Raises
        ------
        Error
            The format holds no color, the file cannot be written, or it is the original.
        """
        path = Path(path)
        self._check_target(path)
        if not 0 <= candidate < len(self.marks):
            raise Error(f"candidate must be in 0 … {len(self.marks) - 1}, got {candidate}")
        if mark not in (None, "corner", "margin"):
            raise Error(f"mark must be corner or margin, got {mark!r}")
        pages = self._colored(path, candidate)
        if mark is not None:
            place: photo.Place = mark
            pages = (photo.marked(page, place) for page in pages)
        self._write(pages, path)

    def save_layer(self, path: str | os.PathLike[str]) -> None:
        """Write the first coloring's colors alone, to lay over the scan; errors as in `save`."""
        path = Path(path)
        self._check_target(path)
        self._write((photo.layer(page) for page in self._colored(path, 0)), path)

    def _write(self, pages: Iterable[photo.Colored], path: Path) -> None:
        with failing(self._where.name, self._where.device), one_thread():
            photo.write_scan(pages, path)

    def _check_target(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            if self._where.original is not None and os.path.samefile(path, self._where.original):
                raise Error(f"{printable(path)}: is the original; choose another name")

    def _colored(self, path: Path, candidate: int) -> Iterator[photo.Colored]:
        for number, one in enumerate(self.pages, start=1):
            if self._on_page is not None:
                self._on_page(number)
            xmp = provenance.for_copy(self.marks[candidate], one.page, path)
            yield photo.Colored(one.page, one.rows(candidate), xmp)

    def __enter__(self) -> ColoredPhoto:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repr_png_(self) -> bytes:
        """The picture for Jupyter."""
        shown = self.pages[0].image
        shown.thumbnail((_SHOWN, _SHOWN))
        file = io.BytesIO()
        shown.save(file, "PNG")
        return file.getvalue()


def override(defaults: SamplingOptions, **options: Unpack[Options]) -> SamplingOptions:
    """The defaults but for the options that are given; an `Error` names one that cannot be."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise Error(f"unknown option {min(unknown)!r}: the options are {known}")
    with failing():
        return defaults.override(**options)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread.

    Sums of convolutions depend on the number of threads, and the same seed is to give the same
    bytes whether a photograph is colored alone or among many. It is no slower: several threads work
    on the strips of a scan already (see `photo.use_threads`).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def failing(
    name: Path | None = None,
    device: torch.device | None = None,
    own: Sequence[BaseException] = (),
) -> Iterator[None]:
    """Reraise errors as an `Error` that names the photograph; those of `own` as they are."""
    try:
        yield
    except Error:
        raise
    except Exception as error:  # a damaged file can make a library raise anything
        if error in own:
            raise
        why = line(error)
        called = printable(name) if name else ""
        if out_of_memory(error):
            where = f" on {device}" if device else ""
            why = f"{called}: too little memory{where}; a smaller copy needs less"
        elif called and not isinstance(error, photo.PhotoError | OSError):
            why = f"{called}: {why}"
        raise Error(why) from error


def _step(
    progress: Progress | None,
    number: int,
    pages: int,
    raised: list[BaseException],
) -> Callable[[int, int, NDArray[np.float32]], None] | None:
    if progress is None:
        return None

    def step(i: int, n: int, ab: NDArray[np.float32]) -> None:
        try:
            progress(number * n + i, pages * n)
        except BaseException as error:
            raised.append(error)
            raise

    return step


def _hints(given: Any) -> tuple[Hints | None, str]:
    """Hints, and the digest of the file they are from or could be from."""
    if given is None or isinstance(given, Hints):
        return given, ""
    with failing():
        if isinstance(given, Mapping):
            data = json.dumps(given).encode()
            return parse_json(data), hashlib.sha256(data).hexdigest()
        path = Path(given)
        return read_hints(path), hashlib.sha256(path.read_bytes()).hexdigest()


def _source(given: Photograph) -> tuple[Path | bytes, Path, str]:
    """A photograph for `open_scan`, its name and its digest."""
    if isinstance(given, bytes):
        return given, Path("photograph"), hashlib.sha256(given).hexdigest()
    if isinstance(given, Image.Image | np.ndarray):
        made = _encoded(given) if isinstance(given, Image.Image) else _of_levels(given)
        return made, Path("photograph.png"), hashlib.sha256(made).hexdigest()
    try:
        path = Path(given)
    except TypeError as error:
        raise Error(
            f"a photograph is a path, bytes, an array or a Pillow image, got {type(given).__name__}"
        ) from error
    with failing(path), open(path, "rb") as file:
        return path, path, hashlib.file_digest(file, "sha256").hexdigest()


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    with failing():
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "F"):
            image = image.convert("RGB")
        image.save(file, "PNG", icc_profile=image.info.get("icc_profile"))
    return file.getvalue()


def _of_levels(levels: NDArray[Any]) -> bytes:
    """A PNG of an array as `Colorizer.colorize` takes it."""
    if levels.ndim not in (2, 3) or levels.shape[2:] not in ((), (3,)) or levels.size == 0:
        raise Error(f"an array must be (H, W) or (H, W, 3), got {levels.shape}")
    if levels.dtype.kind == "f":
        if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= 1):
            raise Error("an array of floating point must hold finite numbers in 0 … 1")
        levels = np.round(levels.astype(np.float64) * 65535).astype(np.uint16)
    elif levels.dtype not in (np.uint8, np.uint16):
        raise Error(f"an array must be uint8, uint16 or floating point, got {levels.dtype}")
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(levels), level=1))
