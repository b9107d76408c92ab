"""The Kaggle data set: download, verification, and arrays on disk.

The archive holds pictures as OpenCV's 8-bit CIELAB (see `color`), all of them uint8:
`l/gray_scale.npy` (N, H, H) and, in three parts that follow each other, `ab/ab1.npy`, `ab2.npy`,
`ab3.npy` (n, H, H, 2). One more folder may be around the parts, or around everything; other files
are ignored.

The `kaggle` package signs in, names the newest version and gives the address of the archive. The
archive is read here: the package's own download waits five minutes for a silent server and writes
the text of an error over what it resumes. No text of an exception of `requests` is passed on: it
holds the address, which is signed and so a credential.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import requests
from numpy.typing import NDArray

from colorized import atomic
from colorized.progress import Progress

T = TypeVar("T")

MIN_SIDE = 32
PARTS = ("ab1", "ab2", "ab3")
ARRAYS = ("L", *PARTS)
_MEMBERS = {
    "L": re.compile(r"(?:[^/]+/)?l/gray_scale\.npy"),
    **{part: re.compile(rf"(?:[^/]+/)?ab/(?:ab/)?{part}\.npy") for part in PARTS},
}
CHUNK = 1 << 18

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further attempt; they start over after an attempt that made progress."""
TIMEOUT = (10.0, 30.0)
"""Seconds without a connection, and without a byte, after which an attempt has failed."""

# Whether chroma belongs to its lightness: with the L* of another picture, much of it has no color
# in sRGB. Pixels count as outside when a channel leaves [0, 1] by more than 0.1, which rounding to
# 8 bits never causes: measured on 100 photographs, 0 of them with their own L*, 9 % with another's.
_CHECKED_PICTURES = 64
_OUTSIDE = 0.1
_ALLOWED = 0.01


class KaggleError(ValueError):
    """One line that says what is wrong with the data set and what to do."""


def fetch(
    dataset: str, version: int | None, *, by_hand: Path, downloads: Path, out: Path
) -> int | None:
    """Replace `out` by L.npy, ab1.npy, ab2.npy, ab3.npy and manifest.json of the verified archive.

    Parameters
    ----------
    dataset
        `owner/slug`.
    version
        None: the newest, looked up when an archive is downloaded.
    by_hand
        Folder in which a user may put slug.zip, which is then used without any network.
    downloads
        Folder that keeps downloaded archives and the part of an interrupted download.

    Returns
    -------
    int or None
        The version; None for an archive put there by hand.

    Raises
    ------
    KaggleError
        One line with what is wrong and what to do. A damaged download is removed, an archive put
        there by hand never; `out` is left as it was.
    """
    owner, _, slug = dataset.partition("/")
    if not owner or not slug or "/" in slug:
        raise KaggleError(f"data set must be named owner/name, got {dataset!r}")
    archive = by_hand / f"{slug}.zip"
    downloaded = not archive.is_file()
    with _room(out):
        if downloaded:
            for other in by_hand.glob("*.zip"):  # browsers save it under names of their own
                raise KaggleError(f"{other}: rename it to {archive.name} if it is the data set")
            archive, version = _Download(dataset, downloads, archive).get(version)
        try:
            with atomic.replacing_folder(out) as partial:
                manifest = {
                    "source": "kaggle",
                    "dataset": dataset,
                    "version": version if downloaded else None,
                    "zip_sha256": _sha256(archive),
                    "zip_bytes": archive.stat().st_size,
                    "arrays": _unpack(archive, partial),
                }
                text = json.dumps(manifest, indent=2, ensure_ascii=False)
                atomic.write(partial / "manifest.json", text + "\n")
        except KaggleError as error:
            then = f"put another download from {_page(dataset)} in its place and run again"
            if downloaded:
                archive.unlink()
                then = (
                    "it is removed: run again to download it anew, and if that ends here too, "
                    "choose another data.version"
                )
            raise KaggleError(f"{archive}: {error}; {then}") from error
    return version if downloaded else None


def open_arrays(folder: Path) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """L (N, H, H) and the parts of ab (n, H, H, 2), Σ n = N, memory-mapped; nothing is read yet.

    Raises KaggleError when a file is missing, or is not an array that belongs to the others.
    """
    try:
        L, *ab = _arrays(folder)
    except (OSError, KaggleError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        raise KaggleError(f"{folder}: not the arrays of the data set ({why})") from error
    return L, ab


def _page(dataset: str) -> str:
    return f"https://www.kaggle.com/datasets/{dataset}"


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise KaggleError(
            f"the disk of {folder} is full: make room and run again, a download goes on where it "
            "stopped"
        ) from None


# ------------------------------------------------------------------------------------------------
# Download.


class _Download:
    """The download of one data set; `by_hand` is where a user may put the archive instead."""

    def __init__(self, dataset: str, folder: Path, by_hand: Path) -> None:
        self.dataset, self.folder, self.by_hand = dataset, folder, by_hand
        self.owner, self.slug = dataset.split("/")
        self.partial: Path | None = None

    def get(self, version: int | None) -> tuple[Path, int]:
        """The archive in `folder`/slug-vN/slug.zip, downloaded if it is missing, and N."""
        if version is not None and self._place(version).is_file():
            return self._place(version), version
        try:
            api = self._retry(_sign_in)
            if version is None:
                version = self._retry(lambda: self._newest(api))
            archive = self._place(version)
            if not archive.is_file():
                archive.parent.mkdir(parents=True, exist_ok=True)
                self.partial = archive.with_name(archive.name + ".partial")
                self._retry(lambda: self._go_on(self._ask(api, version)))
                self.partial.replace(archive)
        except KaggleError:
            raise
        except json.JSONDecodeError:
            raise KaggleError(
                "Kaggle does not answer as it should: is there a proxy, or a sign-in page of the "
                "network, between?"
            ) from None
        except (SystemExit, ValueError):
            # SystemExit is how the package says that no credentials are there, or accepted; a
            # ValueError comes from a token with a line break or an accent in it.
            raise KaggleError(self._sign_in_text()) from None
        except requests.RequestException as error:
            raise KaggleError(self._explain(error, version)) from None
        return archive, version

    def _place(self, version: int) -> Path:
        return self.folder / f"{self.slug}-v{version}" / f"{self.slug}.zip"

    def _have(self) -> int:
        return self.partial.stat().st_size if self.partial and self.partial.is_file() else 0

    def _newest(self, api: Any) -> int:
        with _quiet():
            answer = api.dataset_status(self.dataset, format="json(current_version_number)")
        return int(json.loads(answer)["current_version_number"])

    def _ask(self, api: Any, version: int) -> requests.Response:
        """The response of the storage to which Kaggle redirects: address and headers, no body."""
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = self.owner, self.slug
        request.dataset_version_number = version
        with _quiet(), api.build_kaggle_client() as client:
            answer: requests.Response = client.datasets.dataset_api_client.download_dataset(request)
            answer.close()
        return answer

    def _go_on(self, address: requests.Response) -> None:
        """One attempt: append to `partial` what is missing of the object at the address.

        A marker beside it identifies the object, so that the rest of another is never appended.
        """
        assert self.partial is not None
        identity = address.headers.get("ETag") or address.headers.get("Last-Modified") or ""
        size = int(address.headers.get("Content-Length", 0))
        marker = self.partial.with_name(self.partial.name + ".json")
        known = marker.read_text(encoding="utf-8") if marker.is_file() else ""
        have = self._have() if identity and known == f"{identity} {size}" else 0
        if have and have == size:
            return
        # Compressed on the way, an archive would have another length and other ranges.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": identity}
        with requests.get(address.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                self.partial.unlink()  # it is longer than the object: the next attempt begins anew
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                have = 0
            with (
                open(self.partial, "ab" if have else "wb") as file,
                Progress(f"{self.slug}.zip", "MB", size / 1e6 or None) as shown,
            ):
                atomic.write(marker, f"{identity} {size}")
                shown.begin(have / 1e6)
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    shown.advance(len(chunk) / 1e6)
                file.flush()
                os.fsync(file.fileno())

    def _retry(self, attempt: Callable[[], T]) -> T:
        furthest, waits = self._have(), iter(WAITS)
        while True:
            try:
                return attempt()
            except requests.RequestException as error:
                if self._have() > furthest:
                    furthest, waits = self._have(), iter(WAITS)
                wait = next(waits, None)
                asked = _asked_to_wait(error)
                if wait is None or asked > WAITS[-1] or not _may_pass(error):
                    raise
            time.sleep(max(wait, asked))

    def _sign_in_text(self) -> str:
        return (
            "no Kaggle credentials, or none that are accepted. Make a token at "
            "https://www.kaggle.com/settings/api and set KAGGLE_API_TOKEN to it, or save it as "
            "~/.kaggle/access_token; or set KAGGLE_USERNAME and KAGGLE_KEY; or put kaggle.json "
            "into ~/.kaggle; or run `kaggle auth login`. Without any: download the zip in a "
            f"browser from {_page(self.dataset)}, put it at {self.by_hand}, and run again"
        )

    def _explain(self, error: requests.RequestException, version: int | None) -> str:
        """What went wrong in a request and what to do, without any of the exception's own text."""
        kept = f"{self._have() / 1e6:.1f} MB are kept, run again to go on"
        again = kept if self._have() else "run again"
        if error.response is None:
            match error:
                case requests.exceptions.SSLError():
                    return "Kaggle's certificate is not trusted: is there a proxy between?"
                case requests.exceptions.ChunkedEncodingError():
                    return f"the connection breaks off before the end of the archive: {again}"
            return f"cannot reach Kaggle: is there a network? {again} when there is"
        code = error.response.status_code
        if code == 429:
            asked = _asked_to_wait(error)
            when = f"in {asked:.0f} seconds" if asked > WAITS[-1] else "in some minutes"
            return f"Kaggle limits the rate of requests (429): {again} {when}"
        if _of_storage(error) or code >= 500:
            return f"Kaggle is out of order ({code}): {again} in some minutes"
        if code == 401:
            return f"(401) {self._sign_in_text()}"
        if code == 403:
            return (
                f"Kaggle does not give {self.dataset} to this account (403): sign in at "
                f"{_page(self.dataset)}, accept what it asks for (terms, a verified telephone "
                f"number) and run again; or put the zip at {self.by_hand}"
            )
        if code == 404:
            which = "data set" if version is None else f"version {version} of the data set"
            page = _page(self.dataset)
            return f"Kaggle has no {which} {self.dataset} (404): {page} shows what there is"
        return f"Kaggle answers with an error of its own ({code}): {again} in some minutes"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package prints hints, warnings and, where VERBOSE is set, credentials: all swallowed."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def _sign_in() -> Any:
    try:
        with _quiet():
            from kaggle import KaggleApi  # which signs in already, and hides why it could not

            api = KaggleApi()
            api.authenticate()
    except requests.RequestException:
        raise
    except OSError as error:
        # The package takes KAGGLE_API_TOKEN for a path first: the error's text may hold the token.
        raise KaggleError(
            f"cannot read the Kaggle credentials: {os.strerror(error.errno or 0)}; save a long "
            "token as ~/.kaggle/access_token"
        ) from None
    return api


def _of_storage(error: requests.RequestException) -> bool:
    """Whether the storage answered and not Kaggle's API, which gets POST requests only."""
    return error.request is not None and error.request.method == "GET"


def _may_pass(error: requests.RequestException) -> bool:
    if error.response is None:
        return not isinstance(error, requests.exceptions.SSLError)
    code = error.response.status_code
    # The storage refuses an address that has grown too old; each attempt gets a new one.
    return code == 429 or code >= 500 or _of_storage(error)


def _asked_to_wait(error: requests.RequestException) -> float:
    """Seconds in the header Retry-After; a date there, which Kaggle does not use, counts as 0."""
    value = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return float(value) if value.isdecimal() else 0.0


# ------------------------------------------------------------------------------------------------
# Unpacking. A KaggleError raised here names the member and what is wrong with it, nothing else.


def _unpack(archive: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Write every array of the archive to its file in `out`, and check what they hold."""
    found = {}
    with _readable("no whole zip archive"), zipfile.ZipFile(archive) as zipped:
        for name, pattern in _MEMBERS.items():
            matches = [i for i in zipped.infolist() if pattern.fullmatch(i.filename)]
            if len(matches) != 1:
                names = " and ".join(i.filename for i in matches)
                problem = f"more than once, as {names}" if matches else "missing"
                raise KaggleError(f"the array {name} is {problem}")
            found[name] = matches[0]
        for name, info in found.items():
            # zipfile checks length and CRC when it comes to the end.
            damaged = _readable(f"{info.filename} is damaged")
            with damaged, zipped.open(info) as member, open(out / f"{name}.npy", "wb") as file:
                shutil.copyfileobj(member, file)
                file.flush()
                os.fsync(file.fileno())
    arrays = _arrays(out)
    _check_alignment(*arrays)
    return {
        name: {
            "file": f"{name}.npy",
            "shape": array.shape,
            "dtype": "uint8",
            "sha256": _sha256(out / f"{name}.npy"),
        }
        for name, array in zip(ARRAYS, arrays, strict=True)
    }


@contextlib.contextmanager
def _readable(else_it: str) -> Iterator[None]:
    """Turn what zipfile raises for damaged bytes into a KaggleError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise KaggleError(else_it) from error


def _arrays(folder: Path) -> list[NDArray[np.uint8]]:
    """L and the parts of ab, memory-mapped; their files are named in what is raised."""
    maps = {}
    for name in (f"{name}.npy" for name in ARRAYS):
        try:
            maps[name] = np.load(folder / name, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise KaggleError(f"{name} is no whole .npy file") from error
        if maps[name].dtype != np.uint8 or not maps[name].flags.c_contiguous:
            raise KaggleError(f"{name} must hold uint8 in C order, has {maps[name].dtype}")
    _check_shapes({name: array.shape for name, array in maps.items()})
    return list(maps.values())


def _check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """`shapes`: name → shape, of L first and then of the parts of ab."""
    (L, of_L), *parts = shapes.items()
    if len(of_L) != 3 or of_L[1] != of_L[2] or of_L[1] < MIN_SIDE or of_L[0] < 1:
        raise KaggleError(f"{L} must have the shape (N, H, H), H ≥ {MIN_SIDE}, has {of_L}")
    for name, shape in parts:
        if len(shape) != 4 or shape[1:] != (*of_L[1:], 2) or shape[0] < 1:
            wanted = f"(n, {of_L[1]}, {of_L[2]}, 2)"
            raise KaggleError(f"{name} must have the shape {wanted}, has {shape}")
    counts = [shape[0] for _, shape in parts]
    if sum(counts) != of_L[0]:
        raise KaggleError(f"{L} holds {of_L[0]} pictures, the parts of ab {sum(counts)}: {counts}")


def _check_alignment(L: NDArray[np.uint8], *parts: NDArray[np.uint8]) -> None:
    """Check that every part of ab fits its own pictures of L clearly better than other ones."""
    first = 0
    for part, ab in zip(PARTS, parts, strict=True):
        n = len(ab)
        rows = np.unique(np.linspace(0, n - 1, min(n, _CHECKED_PICTURES)).astype(int))
        own = _share_outside(L[first + rows], ab[rows])
        other = _share_outside(L[(first + rows + len(L) // 2) % len(L)], ab[rows])
        if len(L) > 1 and own > max(other / 2, _ALLOWED):
            raise KaggleError(
                f"{part}.npy does not belong to the pictures of L.npy at its place: {own:.1%} of "
                f"its pixels have no color in sRGB, {other:.1%} with other pictures"
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
