"""Files in a folder or in an S3-compatible store, by one interface.

Endpoint and credentials are those of the environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_PROFILE, …
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colorized import atomic
from colorized.text import line, printable

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 30, 3


class StorageError(OSError):
    """One line that names the URL and what failed."""


def is_remote(url: str) -> bool:
    """Whether this names a store rather than a folder."""
    return url.startswith("s3://")


@dataclass(frozen=True)
class Found:
    """A file of a store: its size, and the time of its last change."""

    size: int
    mtime_ns: int


class Store:
    """Files below a folder, or below `s3://bucket/prefix`; names are relative, with slashes.

    Every method raises StorageError where a store cannot be used, FileNotFoundError for a file that
    is not there, and OSError for other faults of a folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if is_remote(url) else os.path.abspath(url)
        """`/` for the root of all folders, whose names begin with no slash."""

    def path(self, name: str = "") -> str:
        """The path or URL of a file of the store."""
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def files(self, folder: str = "") -> dict[str, Found]:
        """All files below `folder`, sorted by name; none where it does not exist."""
        if not is_remote(self.url):
            paths = sorted(p for p in Path(self.url, folder).rglob("*") if p.is_file())
            return {
                p.relative_to(self.url).as_posix(): Found(p.stat().st_size, p.stat().st_mtime_ns)
                for p in paths
            }
        root = f"{self.url.removeprefix('s3://')}/"
        with self._remote(folder) as fs:
            found = fs.find(f"{root}{folder}".rstrip("/"), detail=True)
        return {
            key.removeprefix(root): Found(
                about["size"], round(about["LastModified"].timestamp() * 1e9)
            )
            for key, about in sorted(found.items())
        }

    def read(self, name: str) -> bytes:
        """The content of a file."""
        if not is_remote(self.url):
            return Path(self.url, name).read_bytes()
        with self._remote(name) as fs:
            content: bytes = fs.cat_file(self.path(name))
            return content

    def fetch(self, name: str, path: Path) -> Path:
        """A local file with the content: in a store a copy at `path`, in a folder itself."""
        if not is_remote(self.url):
            return Path(self.url, name)
        with self._remote(name) as fs:
            fs.get_file(self.path(name), str(path))
        return path

    def put(self, name: str, content: bytes) -> None:
        """Write a file; it appears whole or not at all, in place of one that is there."""
        if not is_remote(self.url):
            atomic.write(Path(self.url, name), content)
            return
        with self._remote(name) as fs:
            fs.pipe_file(self.path(name), content)

    def remove(self, name: str) -> None:
        """Delete a file; nothing where there is none."""
        if not is_remote(self.url):
            Path(self.url, name).unlink(missing_ok=True)
            return
        with self._remote(name) as fs:
            fs.rm_file(self.path(name))

    @contextlib.contextmanager
    def _remote(self, name: str) -> Iterator[Any]:
        """A client; what fails is one line that names the file."""
        try:
            import s3fs
            from botocore.exceptions import BotoCoreError
        except ModuleNotFoundError as error:
            raise StorageError(f"{self.url}: needs pip install 'colorized[s3]'") from error
        what = printable(self.path(name))
        # One client for each endpoint and process. Listings are not kept: others write, too.
        fs = s3fs.S3FileSystem(
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL")),
            use_listings_cache=False,
            max_concurrency=1,  # more would ask for a file's size before the file
            config_kwargs={
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"total_max_attempts": 1},  # s3fs has its own
                # Checksums of every request are AWS's own; other stores refuse them.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        )
        fs.retries = ATTEMPTS
        try:
            yield fs
        except (OSError, BotoCoreError, ValueError) as error:
            cause = getattr(error.__cause__, "response", None) or {}
            code = cause.get("Error", {}).get("Code", "")
            if code == "NoSuchBucket":
                raise StorageError(f"{what}: the store has no such bucket") from error
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(2, "not there", what) from error
            why = _WHY.get(code) or " ".join(filter(None, [code, line(error)]))
            raise StorageError(f"{what}: {why}") from error


_REFUSED = "the store refused the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …)"
_WHY = dict.fromkeys(
    ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"), _REFUSED
)
