"""Pictures that outgrow a disk: litdata chunks in an S3-compatible store.

A set is a folder `s3://bucket/folder` of chunks and an index, in the format of the package litdata
(its `TokensLoader`: a row is the S² bytes of L and then the 2·S² of ab). `StreamWriter` uploads
each chunk when it is full, and the index last, so that a folder that was not finished holds no
set. A `Stream` is `dataset.Pictures`: it keeps the chunks that are in use in a folder of
bounded size, and its order of an epoch fetches each about once.

Endpoint and credentials are those of the environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_PROFILE, …
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from colorized.data.dataset import Lab8, Pictures

CHUNK_BYTES = 64 << 20
WINDOW = 8
"""Chunks among which the rows of one are spread in an epoch's order."""

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 30, 3
INDEX = "index.json"


class StorageError(OSError):
    """One line that names the URL and what failed."""


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
    """A set that `open_stream` found, read through a folder of chunks."""

    url: str
    row_bytes: int
    chunks: tuple[Chunk, ...]
    sha256: str
    cache: Path
    cache_bytes: int

    @property
    def size(self) -> int:
        """Side of the pictures, pixels."""
        return math.isqrt(self.row_bytes // 3)

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
                _fetch(f"{self.url}/{chunk.name}", path, chunk.sha256)
            return self._map(path, chunk)

    def _map(self, path: Path, chunk: Chunk) -> NDArray[np.uint8]:
        shape = chunk.rows, self.row_bytes
        mapped = np.memmap(path, np.uint8, "r", offset=_header_bytes(chunk.rows), shape=shape)
        return np.asarray(mapped)


class StreamWriter:
    """Writes a set to a folder, in place of what it holds: `with StreamWriter(url) as writer: …`.

    The set is there when the block ended well, and then `sha256` names it.

    Parameters
    ----------
    url
        `s3://bucket/folder`.
    chunk_bytes
        Size of the files; about three times as much memory is used.

    Raises
    ------
    StorageError
        When the store cannot be written to.
    ModuleNotFoundError
        When the extra is not installed.
    """

    def __init__(self, url: str, chunk_bytes: int = CHUNK_BYTES) -> None:
        _split(url)
        self.url = url
        self.rows = 0
        self.sha256 = ""
        """Of the index, which holds those of the chunks."""
        self._chunk_bytes = chunk_bytes
        self._digests: dict[str, str] = {}
        self._new_writer = _binary_writer()

    def append(self, L: NDArray[np.uint8], ab: NDArray[np.uint8]) -> None:
        """Add pictures L (n, S, S) and ab (n, S, S, 2)."""
        for row in np.concatenate([L.reshape(len(L), -1), ab.reshape(len(ab), -1)], axis=1):
            full = self._writer.add_item(self.rows, row)
            self.rows += 1
            if full:
                self._upload(Path(full))

    def __enter__(self) -> StreamWriter:
        _clear(self.url)
        self._folder = tempfile.TemporaryDirectory(prefix="colorized-")
        self._writer = self._new_writer(self._folder.name, self._chunk_bytes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._folder:
            if error is None:
                self._publish()

    def _publish(self) -> None:
        """Upload what is left, then the index."""
        if not self.rows:
            raise ValueError(f"{self.url}: no pictures to store")
        for last in self._writer.done():
            self._upload(Path(last))
        (path,) = Path(self._folder.name).glob(f"*.{INDEX}")
        index = json.loads(path.read_text(encoding="utf-8"))
        for chunk in index["chunks"]:
            chunk["sha256"] = self._digests[chunk["filename"]]
        data = json.dumps(index, sort_keys=True).encode()
        _put(f"{self.url}/{INDEX}", data)
        self.sha256 = hashlib.sha256(data).hexdigest()

    def _upload(self, path: Path) -> None:
        data = path.read_bytes()
        path.unlink()
        _put(f"{self.url}/{path.name}", data)
        self._digests[path.name] = hashlib.sha256(data).hexdigest()


def open_stream(url: str, cache: Path, cache_bytes: int, sha256: str = "") -> Stream:
    """Open a set that was written to `s3://bucket/folder`.

    Parameters
    ----------
    cache, cache_bytes
        Folder for chunks, and how much of it may be filled; several processes may share it.
    sha256
        Of the set that is meant, as its writer gave it; any, if empty.

    Raises
    ------
    StorageError
        When the store cannot be read, or holds no set there, or another one.
    ValueError
        When `cache_bytes` is less than the chunks take that are in use at a time.
    """
    _split(url)
    data = _get(f"{url}/{INDEX}")
    found = hashlib.sha256(data).hexdigest()
    if sha256 and sha256 != found:
        raise StorageError(f"{url}: holds another set than was written; preprocess again")
    try:
        row_bytes, chunks = _read_index(json.loads(data))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise StorageError(f"{url}/{INDEX}: not the index of a set of pictures") from error
    stream = Stream(url, row_bytes, chunks, found, cache, cache_bytes)
    # Those whose rows are mixed, the next, and one that a slower process may still read.
    needed = sum(sorted(chunk.bytes for chunk in chunks)[-(WINDOW + 2) :])
    if cache_bytes < needed:
        raise ValueError(
            f"cache_bytes {cache_bytes}: {url} needs {needed}, for {WINDOW + 2} of its chunks"
        )
    return stream


def _header_bytes(rows: int) -> int:
    """litdata begins a chunk with its number of items and their offsets, uint32."""
    return 4 * (rows + 2)


def _read_index(index: Any) -> tuple[int, tuple[Chunk, ...]]:
    """Bytes of a row, and the chunks."""
    row_bytes = index["chunks"][0]["dim"] // index["chunks"][0]["chunk_size"]
    chunks = []
    start = 0
    for entry in index["chunks"]:
        name, rows, length = entry["filename"], entry["chunk_size"], entry["chunk_bytes"]
        if length != _header_bytes(rows) + rows * row_bytes or Path(name).name != name:
            raise ValueError(name)
        chunks.append(Chunk(name, start, rows, length, entry["sha256"]))
        start += rows
    if row_bytes != 3 * math.isqrt(row_bytes // 3) ** 2 or start < 1:
        raise ValueError(row_bytes)
    return row_bytes, tuple(chunks)


def _make_room(cache: Path, free: int) -> None:
    """Delete the chunks that were used longest ago until the rest takes at most `free` bytes."""
    for abandoned in cache.glob("*/*.partial*"):
        abandoned.unlink()
    files = sorted((p.stat().st_mtime_ns, p.stat().st_size, p) for p in cache.glob("*/*.bin"))
    total = sum(length for _, length, _ in files)
    for _, length, path in files:
        if total <= free:
            break
        path.unlink()
        total -= length


def _fetch(url: str, path: Path, sha256: str) -> None:
    """Download to `path`, which appears when it is whole and what was written."""
    bucket, key = _split(url)
    partial = path.with_name(path.name + ".partial")
    try:
        with _connection(url) as client:
            client.download_file(bucket, key, str(partial))  # goes on where a connection breaks
        with open(partial, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise StorageError(f"{url}: damaged or replaced; preprocess again")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _get(url: str) -> bytes:
    bucket, key = _split(url)
    with _connection(url) as client:
        data: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return data


def _put(url: str, data: bytes) -> None:
    bucket, key = _split(url)
    with _connection(url) as client:
        client.put_object(Bucket=bucket, Key=key, Body=data)


def _clear(url: str) -> None:
    """Delete a set: the index first, so that what is left of it is none."""
    bucket, key = _split(url)
    with _connection(url) as client:
        client.delete_object(Bucket=bucket, Key=f"{key}/{INDEX}")
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{key}/chunk-"
        )
        for page in pages:
            for found in page.get("Contents", ()):
                client.delete_object(Bucket=bucket, Key=found["Key"])


def _split(url: str) -> tuple[str, str]:
    """Bucket and key."""
    parts = urlsplit(url)
    bucket, key = parts.netloc, parts.path.removeprefix("/")
    if parts.scheme != "s3" or not bucket or not key.strip("/") or key.endswith("/"):
        raise ValueError(f"{url}: expected s3://bucket/folder")
    return bucket, key


def _binary_writer() -> Callable[[str, int], Any]:
    """Of litdata: a writer to a folder, of chunks of about so many bytes."""
    # litdata would ask the package index for its newest release where this is not set.
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    try:
        from litdata import TokensLoader
        from litdata.streaming.writer import BinaryWriter
    except ModuleNotFoundError as error:
        raise _missing() from error
    return lambda folder, size: BinaryWriter(folder, chunk_bytes=size, item_loader=TokensLoader())


def _missing() -> ModuleNotFoundError:
    return ModuleNotFoundError("pictures in an S3 store need pip install 'colorized[s3]'")


@contextmanager
def _connection(url: str) -> Iterator[Any]:
    """A client of the store; what fails is one line that names the URL."""
    try:
        import boto3
        from boto3.exceptions import Boto3Error
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        raise _missing() from error
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        # Checksums of every request are AWS's own; other stores refuse them.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        yield boto3.client("s3", config=config)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise StorageError(f"{url}: {_WHY.get(code, ' '.join(str(error).split()))}") from error
    except (Boto3Error, BotoCoreError, ValueError) as error:
        raise StorageError(f"{url}: {' '.join(str(error).split())}") from error


_REFUSED = "the store refused the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …)"
_NOT_THERE = "not there: the set was not written, or not to its end; preprocess again"
_WHY = {
    "NoSuchBucket": "the store has no such bucket",
    "NoSuchKey": _NOT_THERE,
    "404": _NOT_THERE,
    "AccessDenied": _REFUSED,
    "403": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
}
