"""A Kaggle data set from the web: signing in, and a download that goes on where it broke off.

The `kaggle` package signs in, names the newest version and gives the address of the archive. The
archive itself is read here: the package's own way of resuming writes the text of an error over
what is already there, waits for a silent server without end, and takes a full disk for a bad line.

Nothing here shows, logs or stores a credential. An address of the archive is one too, since it is
signed: no text of an exception of `requests`, which holds the address, is ever passed on.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from kaggle import KaggleApi

T = TypeVar("T")

API_HOST = "api.kaggle.com"
SETTINGS_PAGE = "https://www.kaggle.com/settings/api"
CHUNK = 1 << 18

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further attempt."""
LONGEST_WAIT = 5.0
"""Seconds that a server may ask to wait between two attempts; more, and it is for a later run."""
TIMEOUT = (10.0, 30.0)
"""Seconds without a connection, and without a byte, after which an attempt has failed."""

_BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class KaggleError(ValueError):
    """One line that says what is wrong with the data set and what to do."""


def page(dataset: str) -> str:
    """Where a person finds the data set."""
    return f"https://www.kaggle.com/datasets/{dataset}"


def split_name(dataset: str) -> tuple[str, str]:
    """owner, slug of `owner/slug`."""
    owner, _, slug = dataset.partition("/")
    if not owner or not slug or "/" in slug:
        raise KaggleError(f"data set must be named owner/name, got {dataset!r}")
    return owner, slug


def progress_bar() -> Progress:
    """A bar for bytes, shown on a terminal alone."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def shown(path: Path) -> Path:
    """The path as a person would write it here: from the working folder, where it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def size_text(count: int) -> str:
    """1.5 MB, decimal, as disks and browsers count."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


@contextlib.contextmanager
def room(folder: Path, need: int, what: str, kept: str = "") -> Iterator[None]:
    """Make `folder`; what is written inside the block needs `need` bytes of its disk.

    Raises
    ------
    KaggleError
        When they are not free, now or at any time in the block; it ends with `kept`.
    """
    lacking = f"{what} needs {size_text(need)} of disk in {shown(folder)}"
    then = f"make room and run again{kept}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < need:
            raise KaggleError(f"{lacking}, where {size_text(free)} are free: {then}")
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise KaggleError(f"{lacking}, and the disk is full: {then}") from None


def download(dataset: str, version: int | None, folder: Path, by_hand: Path) -> tuple[Path, int]:
    """The archive of the data set, on disk and as long as it was announced.

    It lies in `folder`/slug-vN/slug.zip, under another name while it is not complete. One that is
    there is not asked for again: with a version, that takes no network at all.

    Parameters
    ----------
    version
        None: the newest.
    folder
        Keeps the archives, and what there is of a broken download, from one run to the next.
    by_hand
        Where a person may put the archive instead, for the messages.

    Returns
    -------
    The archive and its version.

    Raises
    ------
    KaggleError
        When it cannot be had now; what is downloaded is kept.
    """
    owner, slug = split_name(dataset)

    def place(number: int) -> Path:
        return folder / f"{slug}-v{number}" / f"{slug}.zip"

    if version is not None and place(version).is_file():
        return place(version), version
    # Before the package looks for them: it deletes an expired login.
    found = _credentials_found()
    archive = None
    try:
        api = _retry(lambda: _sign_in(found))
        if version is None:
            version = _retry(lambda: _newest_version(api, dataset))
        archive = place(version)
        if not archive.is_file():
            _fetch(api, owner, slug, version, archive)
    except SystemExit:
        # How the package says that it has no credentials, or none that are accepted.
        raise KaggleError(_signed_out(found, dataset, by_hand)) from None
    except requests.RequestException as error:
        told = _explain(error, dataset, version, found, by_hand, archive)
        # The exception and its traceback hold signed addresses: they end here.
        raise KaggleError(told) from None
    except json.JSONDecodeError:
        raise KaggleError(
            f"{API_HOST} does not answer as Kaggle does: is there a proxy, or a sign-in page of "
            "the network, between?"
        ) from None
    except KaggleError:
        raise
    except ValueError:
        # http.client quotes the whole header that it cannot send.
        raise KaggleError(
            f"{_refused(found)} (they cannot be sent: is there a line break or an accent in them?)"
        ) from None
    return archive, version


def _fetch(api: KaggleApi, owner: str, slug: str, version: int, archive: Path) -> None:
    """Download to another name beside `archive`, in as many attempts as it takes."""
    partial = _partial(archive)
    with progress_bar() as bar:
        task = bar.add_task(f"{slug}, version {version}", total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        _retry(
            lambda: _go_on(_ask(api, owner, slug, version), partial, show),
            lambda: _size(partial),
        )
    os.replace(partial, archive)
    _marker(partial).unlink(missing_ok=True)


def _go_on(
    address: requests.Response, partial: Path, show: Callable[[int, int | None], None]
) -> None:
    """One attempt: append to `partial` what it lacks of the object that `address` answered with.

    Beside it lies what it is a part of; the rest of another object would never be appended.
    """
    there = _identity(address)
    have = _size(partial) if _recorded(partial) == there else 0
    size = there["size"]
    kept = ", it goes on where it stopped"
    with room(partial.parent, (size or 0) - have, "the download", kept):
        if have and have == size:
            return
        # Compressed on the way, an archive would have another length and other ranges.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": there["identity"]}
        with requests.get(address.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                _discard(partial)
                raise KaggleError(
                    "the archive is shorter than was announced: what came of it is removed, run "
                    "again to download it anew"
                )
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                have = 0
            with open(partial, "ab" if have else "wb") as file:
                if not have:  # and the file is empty by now
                    size = _record(partial, _identity(answer))
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    show(have, size)
                file.flush()
                os.fsync(file.fileno())


def _identity(answer: requests.Response) -> dict[str, Any]:
    """What tells one object from another; without an identity, nothing can be resumed."""
    length = answer.headers.get("Content-Length")
    return {
        "identity": answer.headers.get("ETag") or answer.headers.get("Last-Modified"),
        "size": int(length) if length else None,
    }


def _recorded(partial: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(_marker(partial).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("identity") else None


def _record(partial: Path, identity: dict[str, Any]) -> int | None:
    _marker(partial).write_text(json.dumps(identity), encoding="utf-8")
    size: int | None = identity["size"]
    return size


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _marker(partial).unlink(missing_ok=True)


def _partial(archive: Path) -> Path:
    return archive.with_name(archive.name + ".partial")


def _marker(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _retry(attempt: Callable[[], T], reached: Callable[[], int] = lambda: 0) -> T:
    """`attempt`, and again after failures that may pass.

    There is a further attempt for each of the waits; they begin anew whenever one got further
    than all before it.
    """
    furthest, waits = reached(), iter(WAITS)
    while True:
        try:
            return attempt()
        except requests.RequestException as error:
            if reached() > furthest:
                furthest, waits = reached(), iter(WAITS)
            wait = next(waits, None)
            asked = _asked_to_wait(error)
            if wait is None or asked > LONGEST_WAIT or not _may_pass(error):
                raise
        time.sleep(max(wait, asked))


def _may_pass(error: requests.RequestException) -> bool:
    if error.response is None:
        return isinstance(error, _BROKEN) and not isinstance(error, requests.exceptions.SSLError)
    code = error.response.status_code
    # The storage refuses an address that has grown too old; each attempt gets a new one.
    return code == 429 or code >= 500 or _host(error) != API_HOST


def _asked_to_wait(error: requests.RequestException) -> float:
    """Seconds in the header Retry-After; a date there, which Kaggle does not use, counts as 0."""
    value = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return float(value) if value.isdecimal() else 0.0


def _host(error: requests.RequestException) -> str:
    url = error.response.url if error.response is not None else getattr(error.request, "url", "")
    return urlsplit(url or "").hostname or API_HOST


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package prints hints, warnings and, where VERBOSE is set, credentials: all swallowed."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def _sign_in(found: list[str]) -> KaggleApi:
    try:
        with _quiet():
            import kaggle  # which signs in, and keeps to itself why it could not

            api: KaggleApi = kaggle.api
            if not api.get_config_value(api.CONFIG_NAME_AUTH_METHOD):
                api.authenticate()
    except requests.RequestException:
        raise
    except OSError as error:
        # The package takes KAGGLE_API_TOKEN for a path first: the error may name the token.
        why = error.strerror or type(error).__name__
        if error.errno == errno.ENAMETOOLONG:
            why = "KAGGLE_API_TOKEN is too long, save it as ~/.kaggle/access_token instead"
        raise KaggleError(f"cannot use the credentials of {' and '.join(found)}: {why}") from None
    return api


def _newest_version(api: KaggleApi, dataset: str) -> int:
    with _quiet():
        answer = api.dataset_status(dataset, format="json(current_version_number)")
    version: int = json.loads(answer)["current_version_number"]
    if version < 1:
        raise KaggleError(f"Kaggle does not say which version of {dataset} is the newest: pin one")
    return version


def _ask(api: KaggleApi, owner: str, slug: str, version: int) -> requests.Response:
    """The answer of the storage to which Kaggle leads, unread: its address and headers count."""
    with _quiet():
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = owner, slug
        request.dataset_version_number = version
        with api.build_kaggle_client() as client:
            answer: requests.Response = client.datasets.dataset_api_client.download_dataset(request)
            answer.close()
    return answer


def _credentials_found() -> list[str]:
    """Variables and files that the package would use, by name; what they hold is not read."""
    home = Path.home()
    other = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    folders = (Path(os.environ.get("KAGGLE_CONFIG_DIR") or home / ".kaggle"), other)
    files = [home / ".kaggle" / name for name in ("access_token", "access_token.txt")]
    files += [folder / "kaggle.json" for folder in folders]
    files.append(home / ".kaggle" / "credentials.json")
    variables = [("KAGGLE_API_TOKEN",), ("KAGGLE_USERNAME", "KAGGLE_KEY")]
    found = [" + ".join(names) for names in variables if all(map(os.environ.get, names))]
    return found + [str(path).replace(str(home), "~", 1) for path in files if path.is_file()]


def _signed_out(found: list[str], dataset: str, by_hand: Path) -> str:
    if found:
        return _refused(found)
    return (
        "no Kaggle credentials. Make a token at "
        f"{SETTINGS_PAGE} and set KAGGLE_API_TOKEN to it, or save it as ~/.kaggle/access_token; "
        "or set KAGGLE_USERNAME and KAGGLE_KEY; or put kaggle.json into ~/.kaggle; or run "
        f"`kaggle auth login`. Without any: {_manual_way(dataset, by_hand)}"
    )


def _manual_way(dataset: str, by_hand: Path) -> str:
    return (
        f"download the zip in a browser from {page(dataset)}, put it at {shown(by_hand)}, and run "
        "again"
    )


def _refused(found: list[str], code: str = "") -> str:
    forms = " and ".join(found) or "the environment"
    return (
        f"Kaggle does not accept the credentials of {forms}{code}: damaged, expired or revoked? "
        f"make new ones at {SETTINGS_PAGE}, or run `kaggle auth login`"
    )


def _explain(
    error: requests.RequestException,
    dataset: str,
    version: int | None,
    found: list[str],
    by_hand: Path,
    archive: Path | None,
) -> str:
    """What went wrong in a request and what to do, without any of the exception's own text."""
    kept = _size(_partial(archive)) if archive is not None else 0
    again = f"{size_text(kept)} are kept, run again to go on" if kept else "run again"
    host = _host(error)
    if error.response is None:
        match error:
            case requests.exceptions.InvalidHeader():  # a token with a line break in it, perhaps
                return _refused(found)
            case requests.exceptions.SSLError():
                return f"{host} shows a certificate that is not trusted: is there a proxy between?"
            case requests.ConnectionError() | requests.Timeout() if error.request is not None:
                return f"cannot reach {host}: is there a network? {again} when there is"
            case requests.ConnectionError() | requests.exceptions.ChunkedEncodingError():
                return f"the connection breaks off before the end of the archive: {again}"
        return f"the request to {host} fails ({type(error).__name__}): {again}"
    code = error.response.status_code
    if code == 429:
        asked = _asked_to_wait(error)
        when = f"in {asked:.0f} seconds" if asked > LONGEST_WAIT else "in some minutes"
        return f"Kaggle limits the rate of requests (429): {again} {when}"
    if host != API_HOST or code >= 500:
        return f"{host} is out of order ({code}): {again} in some minutes"
    if code == 401:
        return _refused(found, " (401)")
    if code == 403:
        return (
            f"Kaggle does not give {dataset} to this account (403): sign in at {page(dataset)}, "
            "accept what it asks for (terms, a verified telephone number) and run again; or "
            f"{_manual_way(dataset, by_hand)}"
        )
    if code == 404:
        which = "data set" if version is None else f"version {version} of the data set"
        return f"Kaggle has no {which} {dataset} (404): {page(dataset)} shows what there is"
    return f"Kaggle answers with an error of its own ({code}): {again} in some minutes"
