"""A stand-in for Kaggle on loopback, for the unmodified `kaggle` package, and an archive for it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

OWNER, SLUG, VERSION = "shravankumar9892", "image-colorization", 3

# Planted where a person has the real ones: nothing that is written or said may hold any of them.
USER, KEY = "someone", "0123key4567890abcdef0123456789ab"
TOKEN, REFRESH = "KGAT_token5d41402abc4b2a76b9719d911", "refresh7d793037a0760186574b0282f2f43"
SIGNATURE = "signature9e107d9d372bb6826bd81d3542a419d6"
SECRETS = (KEY, TOKEN, REFRESH, SIGNATURE)


@dataclass
class Kaggle:
    """What it serves, what it is to do wrong, and what it was asked.

    `faults`: the last word of a call, `address` or `object` → what to do instead, once each: an
    answer's status, value and headers, the byte before which the connection breaks, or `hold`: half
    is sent, and then nothing until the event.
    """

    archive: bytes
    faults: dict[str, list[Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def fault(self, call: str) -> Any:
        return self.faults[call].pop(0) if self.faults.get(call) else None


@contextlib.contextmanager
def serve(archive: bytes) -> Iterator[Kaggle]:
    kaggle = Kaggle(archive)
    handler = type("Handler", (_Handler,), {"kaggle": kaggle})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        kaggle.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield kaggle
        finally:
            kaggle.hold.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    kaggle: Kaggle

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        call = self.path.rpartition("/")[2]
        self.kaggle.calls.append(call)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        signed_in = self.headers["Authorization"] in (f"Bearer {TOKEN}", f"Basic {key}")
        if fault := self.kaggle.fault(call):
            self.answer(*fault)
        elif call == "IntrospectToken":
            active = asked["token"] == TOKEN
            self.answer(200, {"active": active, "username": USER if active else ""})
        elif call == "GenerateAccessToken" and asked["refreshToken"] == REFRESH:
            self.answer(200, {"token": TOKEN, "expiresIn": 43200, "userName": USER, "userId": 1})
        elif not signed_in:
            self.answer(401, {"code": 401, "message": "Unauthenticated"})
        elif (asked["ownerSlug"], asked["datasetSlug"]) != (OWNER, SLUG):
            self.answer(404, {"code": 404, "message": "Not found"})
        elif call == "GetDataset":
            self.answer(200, {"id": 1, "currentVersionNumber": VERSION})
        elif asked["datasetVersionNumber"] > VERSION:
            self.answer(404, {"code": 404, "message": "Not found"})
        else:
            self.answer(302, b"", {"Location": f"{self.kaggle.url}/archive.zip?X={SIGNATURE}"})

    def do_GET(self) -> None:
        data = self.kaggle.archive
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        # The first answer, to which Kaggle leads, is not read: what counts is what follows.
        body = self.headers.get("User-Agent", "").startswith("python-requests/")
        asked = self.headers.get("Range", "")
        if body:
            self.kaggle.ranges.append(asked)
        fault = self.kaggle.fault("object" if body else "address")
        if isinstance(fault, tuple):
            self.answer(*fault)
            return
        start = 0
        if (match := re.fullmatch(r"bytes=(\d+)-", asked)) and self.headers["If-Range"] == etag:
            start = int(match[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", etag)
        self.end_headers()
        with contextlib.suppress(OSError):  # the caller has hung up, or was killed
            if fault == "hold":
                self.wfile.write(data[: len(data) // 2])
                self.kaggle.hold.wait()
            else:
                self.wfile.write(data[start:fault])
        self.close_connection = True

    def answer(self, status: int, value: Any = "", headers: Mapping[str, str] = {}) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        kind = "text/html" if isinstance(value, bytes) else "application/json"
        for name, text in {"Content-Type": kind, **headers}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


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
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            zipped.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 1)
    return file.getvalue()
