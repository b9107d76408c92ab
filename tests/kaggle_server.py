"""A stand-in for Kaggle on this machine, reached by the unmodified `kaggle` package.

It is a forward proxy for HTTPS on loopback that answers by itself for Kaggle's hosts, with
certificates of an authority made for it; a process is led to it by the variables that `requests`
reads. It speaks the calls that a download uses, and fails in the ways it is told to.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import re
import ssl
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trustme
from numpy.typing import NDArray

API, STORAGE = "api.kaggle.com", "storage.googleapis.com"
OWNER, SLUG, VERSION = "shravankumar9892", "image-colorization", 3

# Planted where a person has the real ones. Whatever the program writes must not hold any of them;
# an address of the storage is signed, which makes its signature another.
USER = "someone"
KEY = "0123key4567890abcdef0123456789ab"
TOKEN = "KGAT_token5d41402abc4b2a76b9719d911"
REFRESH = "refresh7d793037a0760186574b0282f2f43"
SIGNATURE = "signature9e107d9d372bb6826bd81d3542a419d6"
SECRETS = (KEY, TOKEN, REFRESH, SIGNATURE)

CREDENTIALS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    # form: (variables, files below the home folder)
    "KAGGLE_API_TOKEN": ({"KAGGLE_API_TOKEN": TOKEN}, {}),
    "access_token": ({}, {".kaggle/access_token": TOKEN + "\n"}),
    "KAGGLE_USERNAME + KAGGLE_KEY": ({"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY}, {}),
    "kaggle.json": ({}, {".kaggle/kaggle.json": json.dumps({"username": USER, "key": KEY})}),
    # As `kaggle auth login` leaves it, the hours of its access token over.
    "kaggle auth login": (
        {},
        {
            ".kaggle/credentials.json": json.dumps(
                {
                    "refresh_token": REFRESH,
                    "access_token": "of-yesterday",
                    "access_token_expiration": "2020-01-01T00:00:00+00:00",
                    "username": USER,
                    "scopes": ["resources.admin:*"],
                }
            )
        },
    ),
}


@dataclass
class Fault:
    """What goes wrong, at one of the calls, `times` times."""

    at: str
    """The last word of a call of the API, or `object`: the archive itself."""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    """The connection breaks before this byte of the archive."""
    hold: int | None = None
    """Before this byte nothing more is sent until `Kaggle.go` is set."""
    longer: int = 0
    """Bytes that are announced and never come."""
    text: str = ""
    """A page that is sent instead, as if all were well."""
    times: int = 1_000_000


@dataclass
class Kaggle:
    """One running stand-in: what it serves, what it is to do wrong, what it was asked."""

    archive: bytes
    version: int = VERSION
    faults: list[Fault] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    authority: Path = Path()

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.archive).hexdigest()}"'

    def variables(self) -> dict[str, str]:
        """What leads a process here, and its requests nowhere else."""
        proxy = f"http://127.0.0.1:{self.port}"
        return {
            "HTTPS_PROXY": proxy,
            "https_proxy": proxy,
            "HTTP_PROXY": proxy,
            "http_proxy": proxy,
            "REQUESTS_CA_BUNDLE": str(self.authority),
        }

    def fault(self, at: str) -> Fault:
        for fault in self.faults:
            if fault.at == at and fault.times > 0:
                fault.times -= 1
                return fault
        return Fault(at)


AUTHORITY = trustme.CA()
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
AUTHORITY.issue_cert(API, STORAGE).configure_cert(_TLS)


@contextlib.contextmanager
def serve(archive: bytes, folder: Path) -> Iterator[Kaggle]:
    """A stand-in that serves `archive`; `folder` gets the certificate of its authority."""
    kaggle = Kaggle(archive, authority=folder / "authority.pem")
    AUTHORITY.cert_pem.write_to_path(str(kaggle.authority))
    handler = type("Handler", (_Handler,), {"kaggle": kaggle})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        kaggle.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield kaggle
        finally:
            kaggle.go.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    kaggle: Kaggle
    host = ""

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        host = self.path.partition(":")[0]
        self.kaggle.hosts.append(host)
        if host not in (API, STORAGE):
            self.send_error(403)
            return
        self.send_response_only(200)
        self.end_headers()
        self.host = host
        try:
            self.connection = _TLS.wrap_socket(self.connection, server_side=True)
        except OSError:
            return  # a caller that does not trust the authority
        with self.connection:
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", buffering=0)
            with contextlib.suppress(OSError):  # the caller has hung up, or was killed
                self.handle_one_request()
            self.wfile = io.BytesIO()
        self.close_connection = True

    def do_POST(self) -> None:
        if self.host != API:
            self.send_error(403)
            return
        call = self.path.rpartition("/")[2]
        self.kaggle.calls.append(call)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.kaggle.fault(call)
        if fault.status:
            self.answer(fault.status, {"code": fault.status, "message": "no"}, fault.headers)
        elif fault.text:
            self.page(fault.text)
        elif call == "GenerateAccessToken":
            good = asked == {
                "refreshToken": REFRESH,
                "apiVersion": "API_VERSION_V1",
                "expirationDuration": "43200s",
            }
            fresh = {"token": TOKEN, "expiresIn": 43200, "userName": USER, "userId": 1}
            self.answer(200 if good else 401, fresh if good else {"code": 401, "message": "no"})
        elif call == "IntrospectToken":
            active = asked == {"token": TOKEN}
            self.answer(200, {"active": active, "username": USER if active else ""})
        elif not self.signed_in():
            self.answer(401, {"code": 401, "message": "Unauthenticated"})
        elif (asked.get("ownerSlug"), asked.get("datasetSlug")) != (OWNER, SLUG):
            self.answer(404, {"code": 404, "message": "Not found"})
        elif call == "GetDataset":
            self.answer(200, {"id": 1, "currentVersionNumber": self.kaggle.version})
        elif asked["datasetVersionNumber"] > self.kaggle.version:
            self.answer(404, {"code": 404, "message": "Not found"})
        else:
            version = asked["datasetVersionNumber"]
            self.send_response(302)
            self.send_header(
                "Location",
                f"https://{STORAGE}/kaggle-data-sets/{SLUG}/{version}/bundle/archive.zip"
                f"?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Signature={SIGNATURE}",
            )
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

    def do_GET(self) -> None:
        if self.host != STORAGE or f"X-Goog-Signature={SIGNATURE}" not in self.path:
            self.send_error(403)
            return
        data, etag = self.kaggle.archive, self.kaggle.etag
        # The first answer, to which Kaggle leads, is not read: what counts is what follows.
        body = self.headers.get("User-Agent", "").startswith("python-requests/")
        asked = self.headers.get("Range", "")
        if body:
            self.kaggle.ranges.append(asked)
        fault = self.kaggle.fault("object" if body else "address")
        if fault.status:
            self.send_response(fault.status)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"<?xml version='1.0'?><Error><Code>no</Code></Error>")
            return
        start = 0
        if (match := re.fullmatch(r"bytes=(\d+)-", asked)) and self.headers["If-Range"] == etag:
            start = int(match[1])
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(len(data) - start + fault.longer))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", "Sun, 01 Mar 2020 00:00:00 GMT")
        self.send_header("Connection", "close")
        self.end_headers()
        if fault.hold is not None:
            self.wfile.write(data[start : fault.hold])
            self.kaggle.go.wait()
            start = max(start, fault.hold)
        self.wfile.write(data[start : fault.cut])

    def signed_in(self) -> bool:
        key = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return self.headers["Authorization"] in (f"Bearer {TOKEN}", f"Basic {key}")

    def answer(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self.page(
            json.dumps(value), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def page(self, text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {"Content-Type": "text/html"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text.encode())


def real_pictures(paths: Sequence[Path], side: int = 224) -> NDArray[np.uint8]:
    """OpenCV's 8-bit LAB of photographs, (N, side, side, 3): as the data set was made."""
    pictures = []
    for path in paths:
        bgr = cv2.imread(str(path))
        size = min(bgr.shape[:2])
        y, x = ((n - size) // 2 for n in bgr.shape[:2])
        square = bgr[y : y + size, x : x + size]
        square = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
        pictures.append(cv2.cvtColor(square, cv2.COLOR_BGR2LAB))
    return np.stack(pictures)


def members(lab: NDArray[np.uint8], counts: Sequence[int]) -> dict[str, bytes]:
    """The files of the archive in its layout, of pictures (N, H, H, 3) in parts of `counts`."""
    files = {"l/gray_scale.npy": npy(lab[..., 0])}
    for i, part in enumerate(np.split(lab[..., 1:], np.cumsum(counts)[:-1]), start=1):
        files[f"ab/ab/ab{i}.npy"] = npy(part)
    files["inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5"] = b"\x89HDF\r\n\x1a\n" * 99
    return files


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array))
    return file.getvalue()


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip of the files, deflated; the same bytes each time."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for name, data in files.items():
            zipped.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 1)
    return file.getvalue()
