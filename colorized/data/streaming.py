"""Data sets larger than a disk: chunks of pictures in an S3-compatible store.

A set is a folder `s3://bucket/folder` of chunks and an index. A chunk holds rows one after the
other, each the S² bytes of L and then the 2·S² of ab. `StreamWriter` uploads each chunk when it is
full, and the index last, so that a folder that was not finished holds no set. A `Stream` is
`dataset.Pictures`: it keeps the chunks that are in use in a folder of bounded size, and its order
of an epoch fetches each about once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from colorized import atomic
from colorized.data.dataset import Lab8, Pictures
from colorized.storage import StorageError, Store

CHUNK_BYTES = 64 << 20
WINDOW = 8
"""Chunks among which the rows of one are spread in an epoch's order."""
INDEX = "index.json"


@dataclass(frozen=True)
class Chunk:
    """One file of a set; `start` is its first row."""

    name: str
    start: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Stream(Pictures):
    """A set opened by `open_stream`, read through a local cache of chunks."""

    url: str
    row_bytes: int
    chunks: tuple[Chunk, ...]
    sha256: str
    cache: Path
    cache_bytes: int

    @property
    def size(self) -> int:
        """Side of the pictures, pixels."""
        return round((self.row_bytes / 3) ** 0.5)

    def __len__(self) -> int:
        return self.chunks[-1].start + self.chunks[-1].rows

    def views(self, rows: NDArray[np.int64]) -> Iterator[Lab8]:
        """See `dataset.Pictures`; each chunk is opened once."""
        found = np.searchsorted(self._starts, rows, side="right") - 1
        opened = {i: self._open(self.chunks[i]) for i in np.unique(found)}
        size, area = self.size, self.size**2
        for row, i in zip(rows, found, strict=True):
            picture = opened[i][row - self._starts[i]]
            yield picture[:area].reshape(size, size), picture[area:].reshape(size, size, 2)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """See `dataset.Pictures`; chunks in any order, rows among `WINDOW` chunks."""
        rng = np.random.default_rng([seed, epoch])
        if len(self.chunks) <= WINDOW:
            return rng.permutation(len(self))
        places = rng.permutation(len(self.chunks)).repeat([c.rows for c in self.chunks])
        return np.argsort(places + WINDOW * rng.random(len(self)), kind="stable")

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.array([chunk.start for chunk in self.chunks])

    def _open(self, chunk: Chunk) -> NDArray[np.uint8]:
        """The chunk's rows (n, 3·S²), memory-mapped from the cache, fetched if they must be."""
        path = self.cache / self.sha256[:16] / chunk.name
        with suppress(FileNotFoundError):
            os.utime(path)  # what was used last is deleted last
            return self._map(path, chunk)
        # One process fetches at a time; a chunk that it deletes stays mapped where it is in use.
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / "lock"):
            if not path.exists():
                _make_room(self.cache, self.cache_bytes - chunk.bytes)
                _fetch(self.url, chunk, path)
            return self._map(path, chunk)

    def _map(self, path: Path, chunk: Chunk) -> NDArray[np.uint8]:
        return np.asarray(np.memmap(path, np.uint8, "r", shape=(chunk.rows, self.row_bytes)))


class StreamWriter:
    """Replaces the set in a folder of a store: `with StreamWriter(url) as writer: …`.

    The set is complete when the block ends without an error; `sha256` then identifies it. Raises
    StorageError when the store cannot be written to, or the extra is not installed.

    Parameters
    ----------
    url
        `s3://bucket/folder`.
    chunk_bytes
        Size of the files, about; twice as much memory is used.
    """

    def __init__(self, url: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.url = url
        self.rows = 0
        self.sha256 = ""
        """Of the index, which holds those of the chunks."""
        self._store = _store(url)
        self._chunk_bytes = chunk_bytes
        self._waiting: list[bytes] = []
        self._chunks: list[Chunk] = []
        self._size = 0

    def append(self, L: NDArray[np.uint8], ab: NDArray[np.uint8]) -> None:
        """Add pictures L (n, S, S) and ab (n, S, S, 2)."""
        self._size = L.shape[1]
        for row in np.concatenate([L.reshape(len(L), -1), ab.reshape(len(ab), -1)], axis=1):
            self._waiting.append(row.tobytes())
            self.rows += 1
            if (len(self._waiting) + 1) * len(row) > self._chunk_bytes:
                self._upload()

    def __enter__(self) -> StreamWriter:
        # The index first, so that an interrupted deletion leaves no set.
        self._store.remove(INDEX)
        for name in self._store.files():
            if re.fullmatch(r"chunk-\d+\.bin", name):
                self._store.remove(name)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Upload what is left, then the index."""
        if kind is not None:
            return
        if not self.rows:
            raise ValueError(f"{self.url}: no pictures to store")
        if self._waiting:
            self._upload()
        index = {"size": self._size, "chunks": [asdict(chunk) for chunk in self._chunks]}
        data = json.dumps(index, sort_keys=True).encode()
        self._store.put(INDEX, data)
        self.sha256 = hashlib.sha256(data).hexdigest()

    def _upload(self) -> None:
        data, rows = b"".join(self._waiting), len(self._waiting)
        self._waiting.clear()
        name = f"chunk-{len(self._chunks)}.bin"
        digest = hashlib.sha256(data).hexdigest()
        self._store.put(name, data)
        self._chunks.append(Chunk(name, self.rows - rows, rows, len(data), digest))


def open_stream(url: str, cache: Path, cache_bytes: int, sha256: str = "") -> Stream:
    """Open a set that was written to `s3://bucket/folder`.

    Parameters
    ----------
    cache, cache_bytes
        Folder for chunks, and how much of it may be filled; several processes may share it.
    sha256
        Expected digest of the set, as its writer gave it; empty: any set.

    Raises
    ------
    StorageError
        When the store cannot be read, or holds no set or another one.
    ValueError
        When `cache_bytes` is too small for the chunks in use at a time.
    """
    try:
        data = _store(url).read(INDEX)
    except FileNotFoundError as error:
        raise StorageError(
            f"{url}: the set was not written, or not to its end; preprocess again"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 and sha256 != found:
        raise StorageError(f"{url}: holds another set than was written; preprocess again")
    try:
        index = json.loads(data)
        row_bytes = 3 * index["size"] ** 2
        chunks = tuple(Chunk(**chunk) for chunk in index["chunks"])
        if not chunks or any(c.bytes != c.rows * row_bytes or "/" in c.name for c in chunks):
            raise ValueError(url)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{url}/{INDEX}: not the index of a set of pictures") from error
    stream = Stream(url, row_bytes, chunks, found, cache, cache_bytes)
    # Those whose rows are mixed, the next, and one that a slower process may still read.
    needed = sum(sorted(chunk.bytes for chunk in chunks)[-(WINDOW + 2) :])
    if cache_bytes < needed:
        raise ValueError(
            f"cache_bytes {cache_bytes}: {url} needs {needed}, for {WINDOW + 2} of its chunks"
        )
    return stream


def _make_room(cache: Path, free: int) -> None:
    """Delete the chunks that were used longest ago until the rest takes at most `free` bytes."""
    for abandoned in cache.glob("*/.*.partial"):
        abandoned.unlink()
    files = sorted((p.stat().st_mtime_ns, p.stat().st_size, p) for p in cache.glob("*/*.bin"))
    total = sum(length for _, length, _ in files)
    for _, length, path in files:
        if total <= free:
            break
        path.unlink()
        total -= length


def _fetch(url: str, chunk: Chunk, path: Path) -> None:
    """Download to `path`, which appears only when it is complete and its digest is right."""
    with atomic.replacing(path) as partial:
        try:
            _store(url).fetch(chunk.name, partial)
        except FileNotFoundError as error:
            raise StorageError(f"{url}/{chunk.name}: not there; preprocess again") from error
        with open(partial, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != chunk.sha256:
                raise StorageError(f"{url}/{chunk.name}: damaged or replaced; preprocess again")


def _store(url: str) -> Store:
    bucket, _, folder = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not folder.strip("/") or url.endswith("/"):
        raise ValueError(f"{url}: expected s3://bucket/folder")
    return Store(url)
