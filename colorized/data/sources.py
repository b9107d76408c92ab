"""Where color photographs come from, and how crops in 8-bit CIELAB are cut from them.

A `Source` numbers its pictures: `Photographs` are files, `LabArrays` the arrays of the
Kaggle data set. Crops are resized in linear light (see `resample`); one that has its size already
is taken as it is.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from colorized import color, photo
from colorized.color import resample
from colorized.data import kaggle

SPLITS = ("train", "val", "test")

_SALT = b"colorized split 1"

Box = tuple[int, int, int]
"""A square in a picture: top row, left column, side; pixels."""


class SourceError(ValueError):
    """One line that says what is wrong with the photographs and where."""


class Unusable(ValueError):
    """Why a picture has no crops; `kind` is what such pictures are counted under."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class CropSettings:
    """See the section `preprocess` of params.yaml; `crops`: split → crops of a photograph."""

    image_size: int
    crops: dict[str, int]
    min_scale: float
    val_share: float
    test_share: float
    seed: int
    min_chroma: float
    lookalike_bits: int


class Source(Protocol):
    """Color pictures by number. It is sent to other processes, so it holds no open file."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each picture for messages and reports."""

    @property
    def digests(self) -> Sequence[str]:
        """sha256 of each picture's content, hexadecimal."""

    def cut(self, number: int, count: int, settings: CropSettings) -> Crops:
        """Crops of one picture, the first of them the largest central square.

        Raises Unusable when it cannot be read, is too small, or is no longer what its digest says.
        """

    def rgb(self, name: str) -> NDArray[np.uint8]:
        """The whole picture of that name: sRGB (H, W, 3)."""


@dataclass(frozen=True)
class Crops:
    """Squares of one picture in 8-bit CIELAB: L (n, S, S) and ab (n, S, S, 2), uint8."""

    boxes: tuple[Box, ...]
    L: NDArray[np.uint8]
    ab: NDArray[np.uint8]


@dataclass(frozen=True)
class Photographs:
    """Picture files below `root`."""

    root: Path
    names: tuple[str, ...]
    digests: tuple[str, ...]

    def cut(self, number: int, count: int, settings: CropSettings) -> Crops:
        path = self.root / self.names[number]
        try:
            content = path.read_bytes()
            rgb = self.decode(content, path)
        except OSError as error:
            raise Unusable("broken", error.strerror or str(error)) from error
        except photo.PhotoError as error:
            raise Unusable("broken", str(error).removeprefix(f"{path}: ")) from error
        except MemoryError as error:
            raise Unusable("broken", "needs more memory than there is") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.digests[number]:
            raise Unusable("changed", "changed since the download stage; run `dvc repro` again")
        boxes = _boxes(rgb.shape, count, digest, settings)
        size = settings.image_size
        squares = (resample.linear_of_rgb8(rgb[y : y + n, x : x + n]) for y, x, n in boxes)
        lab8 = np.stack(
            [color.linear_to_lab8(resample.resize_linear(s, size, size)) for s in squares]
        )
        return Crops(boxes, lab8[..., 0], np.ascontiguousarray(lab8[..., 1:]))

    def rgb(self, name: str) -> NDArray[np.uint8]:
        return photo.read_rgb(self.root / name)

    def decode(self, content: bytes, path: Path) -> NDArray[np.uint8]:
        """sRGB (H, W, 3) of a file's content; errors as of `photo.read_rgb`."""
        return photo.read_rgb(content, name=path)


class LabArrays:
    """The verified arrays of the Kaggle data set in `folder`; a picture is a row of them.

    Raises KaggleError when the arrays are not there or do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()
        self.names = [f"picture-{row:05d}" for row in range(len(self._L))]
        with ThreadPoolExecutor() as pool:  # hashing lets other threads run
            self.digests = list(pool.map(self._digest, range(len(self._L)), chunksize=64))

    def cut(self, number: int, count: int, settings: CropSettings) -> Crops:
        L, ab = self._rows(number)
        boxes = _boxes(L.shape, count, self.digests[number], settings)
        size = settings.image_size
        crops, linear = [], None
        for y, x, side in boxes:
            part = np.s_[y : y + side, x : x + side]
            if side == size:
                crops.append((L[part], ab[part]))
                continue
            if linear is None:
                # Rounding to 8 bits may have put a color just outside the gamut.
                lab = color.lab8_to_lab(np.dstack([L, ab]))
                linear = color.lab_to_linear(lab).clip(0, 1)
            lab8 = color.linear_to_lab8(resample.resize_linear(linear[part], size, size))
            crops.append((lab8[..., 0], lab8[..., 1:]))
        return Crops(boxes, np.stack([L for L, _ in crops]), np.stack([ab for _, ab in crops]))

    def rgb(self, name: str) -> NDArray[np.uint8]:
        L, ab = self._rows(int(name.removeprefix("picture-")))
        lab = color.lab8_to_lab(np.dstack([L, ab]))
        return color.recombine(lab[..., 0], lab[..., 1:])

    def _open(self) -> None:
        self._L, self._ab = kaggle.open_arrays(self.folder)
        self._starts = np.cumsum([0] + [len(part) for part in self._ab])

    def _rows(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._L[row], self._ab[part][row - self._starts[part]]

    def _digest(self, row: int) -> str:
        L, ab = self._rows(row)
        digest = hashlib.sha256(L.data)
        digest.update(ab.data)
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "names": self.names, "digests": self.digests}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()


def list_photographs(folder: Path) -> list[Path]:
    """Picture files below `folder`, known by their suffix, sorted by their path.

    Raises SourceError when the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder of photographs")
    paths = sorted(
        p
        for p in folder.rglob("*")
        if photo.is_picture_name(p) and not p.name.startswith(".") and p.is_file()
    )
    if not paths:
        raise SourceError(f"{folder}: holds no photographs")
    return paths


def list_sample(folder: Path) -> list[Path]:
    """The embedded color photographs: those that `photos.csv`, their attribution, lists.

    Raises SourceError when the list or a photograph in it is missing, or the list is empty.
    """
    listing = folder / "photos.csv"
    try:
        with open(listing, newline="", encoding="utf-8") as file:
            names = [row["file"] for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise SourceError(f"{listing}: not the list of the embedded photographs") from error
    paths = [folder / name for name in sorted(names) if name.startswith("photos")]
    if not paths:
        raise SourceError(f"{listing}: lists no photographs")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise SourceError(f"{missing[0]}: listed in {listing.name} but not there")
    return paths


def hash_files(paths: Iterable[Path], root: Path) -> list[dict[str, str | int]]:
    """Name below `root`, size and sha256 of each file."""

    def entry(path: Path) -> dict[str, str | int]:
        data = path.read_bytes()
        # A file elsewhere has its whole path for a name.
        name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
        return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return [entry(path) for path in paths]


def photographs(paths: Iterable[Path], root: Path) -> Photographs:
    """These files as a source, named by their path below `root`."""
    return listed_photographs(hash_files(paths, root), root)


def listed_photographs(files: Sequence[Mapping[str, Any]], root: Path) -> Photographs:
    """The files that `hash_files` listed, as a source."""
    names, digests = (tuple(str(file[key]) for file in files) for key in ("file", "sha256"))
    return Photographs(root, names, digests)


def split_of(digest: str, val_share: float, test_share: float) -> str:
    """`train`, `val` or `test`, by a salted hash of the picture's sha256 alone."""
    salted = hashlib.sha256(_SALT + bytes.fromhex(digest)).digest()
    u = int.from_bytes(salted[:8], "big") / 2**64
    if u < test_share:
        return "test"
    return "val" if u < test_share + val_share else "train"


def crop_boxes(
    height: int, width: int, count: int, min_scale: float, size: int, rng: np.random.Generator
) -> list[Box]:
    """`count` squares; the first is the largest, in the middle, the others random.

    A random square's side lies between `min_scale` and the whole of the shorter side. It is under
    `size`, to which it will be resized, only where the picture is: enlarging would teach blur.
    """
    shorter = min(height, width)
    boxes = [((height - shorter) // 2, (width - shorter) // 2, shorter)]
    for _ in range(count - 1):
        side = max(min(size, shorter), round(shorter * rng.uniform(min_scale, 1.0)))
        y = int(rng.integers(0, height - side + 1))
        x = int(rng.integers(0, width - side + 1))
        boxes.append((y, x, side))
    return boxes


def _boxes(
    shape: tuple[int, ...], count: int, digest: str, settings: CropSettings
) -> tuple[Box, ...]:
    height, width = shape[:2]
    if min(height, width) < kaggle.MIN_SIDE:
        raise Unusable("tiny", f"{width}×{height}, a side is under {kaggle.MIN_SIDE}")
    rng = np.random.default_rng([settings.seed, int(digest[:15], 16)])
    return tuple(crop_boxes(height, width, count, settings.min_scale, settings.image_size, rng))
