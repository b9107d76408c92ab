"""The Kaggle data set, from an archive to verified arrays on disk.

The archive holds the pictures as OpenCV's 8-bit CIELAB (see `color`), all of them uint8:
`l/gray_scale.npy` (N, H, H) and, in three parts that follow each other, `ab/ab1.npy`, `ab2.npy`,
`ab3.npy` (n, H, H, 2). One more folder may be around the parts, or around everything; other files
are ignored.

Nothing counts as done before all of it is verified: the folder of the arrays appears whole or not
at all, with a manifest of what lies in it and where it came from.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from colorized.data.kaggle_web import (
    CHUNK,
    KaggleError,
    download,
    page,
    progress_bar,
    room,
    shown,
    split_name,
)

__all__ = ["ArrayFile", "KaggleError", "Manifest", "fetch", "open_arrays"]

MIN_SIDE = 32
PARTS = ("ab1", "ab2", "ab3")
ARRAYS = ("L", *PARTS)

# One folder more around the parts, or around all, is accepted.
_MEMBERS = {
    "L": re.compile(r"(?:[^/]+/)?l/gray_scale\.npy"),
    **{part: re.compile(rf"(?:[^/]+/)?ab/(?:ab/)?{part}\.npy") for part in PARTS},
}
_USUAL = {"L": "l/gray_scale.npy", **{part: f"ab/{part}.npy" for part in PARTS}}

# Whether chroma belongs to its lightness: with the L* of another picture, much of it has no color
# in sRGB. Pixels count as outside when a channel leaves [0, 1] by more than 0.1, which rounding to
# 8 bits never causes: measured on 100 photographs, 0 of them with their own L*, 9 % with another's.
_CHECKED_PICTURES = 64
_OUTSIDE = 0.1
_ALLOWED = 0.01


class _UnfitError(Exception):
    """What is wrong with an archive, in one line that names the member."""


@dataclass(frozen=True)
class ArrayFile:
    """One .npy file; `sha256` is that of the whole file."""

    file: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What lies in a folder of arrays and where it came from.

    `version` is None for an archive put there by hand, which does not say. `arrays` maps L, ab1,
    ab2 and ab3 to their files.
    """

    source: str
    dataset: str
    version: int | None
    zip_sha256: str
    zip_bytes: int
    arrays: Mapping[str, ArrayFile]


@dataclass(frozen=True)
class _Header:
    """Of a .npy file of bytes; the values begin at `start`."""

    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        return self.start + math.prod(self.shape)


def fetch(
    dataset: str, version: int | None, *, by_hand: Path, downloads: Path, out: Path
) -> Manifest:
    """Get the archive, verify it and unpack it: `out` then holds L.npy, ab1.npy, ab2.npy, ab3.npy
    and manifest.json, in place of what was there.

    Parameters
    ----------
    dataset
        `owner/slug`.
    version
        None: the newest, found out when an archive is downloaded.
    by_hand
        Folder in which a person may put slug.zip: then it is used, without any network.
    downloads
        Folder that keeps downloaded archives, and what there is of a broken download.

    Raises
    ------
    KaggleError
        One line with what is wrong and what to do. A damaged download is removed, an archive put
        by hand never; `out` is then what it was before.
    """
    partial, replaced = (out.with_name(f"{out.name}{end}.partial") for end in ("", ".replaced"))
    for left in (partial, replaced):  # by a killed run
        shutil.rmtree(left, ignore_errors=True)
    _, slug = split_name(dataset)
    archive, downloaded = _put_by_hand(by_hand, slug), False
    if archive is None:
        place = by_hand / f"{slug}.zip"
        archive, version = download(dataset, version, downloads, place)
        downloaded = True
    try:
        arrays = _unpack(archive, partial)
        manifest = Manifest(
            source="kaggle",
            dataset=dataset,
            version=version if downloaded else None,
            zip_sha256=_sha256(archive),
            zip_bytes=archive.stat().st_size,
            arrays=arrays,
        )
        with room(partial, 0, "the manifest"):
            _write(partial / "manifest.json", manifest)
        if out.exists():  # moved and then removed: never half of it under its name
            os.replace(out, replaced)
        os.replace(partial, out)
        _sync(out.parent)
    except _UnfitError as error:
        if not downloaded:
            raise KaggleError(
                f"{shown(archive)}: {error}; put another download from {page(dataset)} in its "
                "place and run again"
            ) from error
        archive.unlink()
        raise KaggleError(
            f"{shown(archive)}: {error}; it is removed: run again to download it anew, and if that "
            "ends here too, choose another data.version"
        ) from error
    finally:
        for left in (partial, replaced):
            shutil.rmtree(left, ignore_errors=True)
    return manifest


def open_arrays(folder: Path) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """L (N, H, H) and the parts of ab (n, H, H, 2), Σ n = N, memory-mapped; nothing is read yet.

    Raises
    ------
    KaggleError
        Where a file is not there, or is not an array that goes with the others.
    """
    paths = {name: folder / f"{name}.npy" for name in ARRAYS}
    headers = {}
    try:
        for name, path in paths.items():
            with open(path, "rb") as file:
                headers[name] = _read_header(file, path.name, path.stat().st_size)
        _check_shapes({paths[name].name: header.shape for name, header in headers.items()})
    except (OSError, _UnfitError) as error:
        why = f"{path.name}: {error.strerror}" if isinstance(error, OSError) else error
        raise KaggleError(f"{shown(folder)}: not the arrays of the data set ({why})") from error
    L, *ab = (_map(paths[name], headers[name]) for name in ARRAYS)
    return L, ab


def _map(path: Path, header: _Header) -> NDArray[np.uint8]:
    return np.memmap(path, np.uint8, "r", header.start, header.shape)


def _put_by_hand(folder: Path, slug: str) -> Path | None:
    archive = folder / f"{slug}.zip"
    if archive.is_file():
        return archive
    # Browsers save it under names of their own.
    others = sorted(path for path in folder.glob("*.zip") if path.is_file())
    if others:
        raise KaggleError(f"{shown(others[0])}: rename it to {archive.name} if it is the data set")
    return None


def _unpack(archive: Path, out: Path) -> dict[str, ArrayFile]:
    """Every array of the archive to its file in `out`; all that can be checked before is."""
    with _readable("no whole zip archive"), zipfile.ZipFile(archive) as zipped:
        members = _find_members(zipped)
        headers = {name: _member_header(zipped, info) for name, info in members.items()}
        _check_shapes({members[name].filename: header.shape for name, header in headers.items()})
        need = sum(header.bytes for header in headers.values())
        arrays = {}
        with room(out.parent, need, "unpacking"), progress_bar() as bar:
            out.mkdir()
            task = bar.add_task("unpack and verify", total=need)
            for name, info in members.items():
                path = out / f"{name}.npy"
                digest = _copy_member(zipped, info, path, lambda n: bar.advance(task, n))
                arrays[name] = ArrayFile(path.name, headers[name].shape, "uint8", digest)
    _check_alignment(out, {name: info.filename for name, info in members.items()})
    return arrays


def _copy_member(
    zipped: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, advance: Callable[[int], None]
) -> str:
    """One member to `path`; its sha256. zipfile checks length and CRC when it comes to the end."""
    digest = hashlib.sha256()
    damaged = _readable(f"{info.filename} is damaged")
    with damaged, zipped.open(info) as member, open(path, "wb") as file:
        while chunk := member.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextmanager
def _readable(else_it: str) -> Iterator[None]:
    """What zipfile raises for bytes that are not, or no more, what they should be."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _UnfitError(else_it) from error


def _find_members(zipped: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    found = {}
    for name, pattern in _MEMBERS.items():
        matches = [info for info in zipped.infolist() if pattern.fullmatch(info.filename)]
        if not matches:
            raise _UnfitError(f"{_USUAL[name]} is missing")
        if len(matches) > 1:
            both = " and ".join(info.filename for info in matches)
            raise _UnfitError(f"{_USUAL[name]} is there more than once, as {both}")
        found[name] = matches[0]
    return found


def _member_header(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    if info.flag_bits & 1:
        raise _UnfitError(f"{info.filename} is encrypted")
    with _readable(f"{info.filename} is damaged"), zipped.open(info) as member:
        return _read_header(member, info.filename, info.file_size)


def _read_header(file: IO[bytes], name: str, size: int) -> _Header:
    """The header of a .npy file of `size` bytes: C order, uint8, and as long as it says."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read(file)
    except (ValueError, KeyError) as error:
        raise _UnfitError(f"{name} is no .npy file") from error
    if dtype != np.uint8:
        raise _UnfitError(f"{name} must hold uint8, has {dtype}")
    if fortran_order:
        raise _UnfitError(f"{name} must be in C order, is in Fortran's")
    header = _Header(shape, file.tell())
    if header.bytes != size:
        raise _UnfitError(
            f"{name} must have {header.bytes} bytes for its shape {shape}, has {size}"
        )
    return header


def _check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """`shapes`: name → shape, of L first and then of the parts of ab."""
    (L, of_L), *parts = shapes.items()
    if len(of_L) != 3 or of_L[1] != of_L[2] or of_L[1] < MIN_SIDE or of_L[0] < 1:
        raise _UnfitError(f"{L} must have the shape (N, H, H), H ≥ {MIN_SIDE}, has {of_L}")
    for name, shape in parts:
        if len(shape) != 4 or shape[1:] != (*of_L[1:], 2) or shape[0] < 1:
            wanted = f"(n, {of_L[1]}, {of_L[2]}, 2)"
            raise _UnfitError(f"{name} must have the shape {wanted}, has {shape}")
    total = sum(shape[0] for _, shape in parts)
    if total != of_L[0]:
        counts = " + ".join(str(shape[0]) for _, shape in parts)
        raise _UnfitError(f"{L} holds {of_L[0]} pictures, the parts of ab {counts} = {total}")


def _check_alignment(folder: Path, names: Mapping[str, str]) -> None:
    """Every part of ab must fit the pictures of L at its place clearly better than others."""
    L, parts = open_arrays(folder)
    first = 0
    for part, ab in zip(PARTS, parts, strict=True):
        n = len(ab)
        rows = np.unique(np.linspace(0, n - 1, min(n, _CHECKED_PICTURES)).astype(int))
        own = _share_outside(L[first + rows], ab[rows])
        other = _share_outside(L[(first + rows + len(L) // 2) % len(L)], ab[rows])
        if len(L) > 1 and own > max(other / 2, _ALLOWED):
            raise _UnfitError(
                f"{names[part]} does not belong to the pictures of {names['L']} at its place: "
                f"{own:.1%} of its pixels have no color in sRGB, {other:.1%} with other pictures"
            )
        first += n


def _share_outside(L: NDArray[np.uint8], ab: NDArray[np.uint8]) -> float:
    """Share of the pixels of L (n, H, H) with ab (n, H, H, 2) that lie clearly outside sRGB."""
    from colorized import color  # torch comes with it, which takes seconds

    outside = 0
    for one_L, one_ab in zip(L, ab, strict=True):
        rgb = color.lab_to_srgb(color.lab8_to_lab(np.concatenate([one_L[..., None], one_ab], -1)))
        outside += int(((rgb < -_OUTSIDE) | (rgb > 1 + _OUTSIDE)).any(-1).sum())
    return outside / L.size


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, manifest: Manifest) -> None:
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """The names in a folder, to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
