"""The service behind the page: a real server, real sockets, real photographs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import gc
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import schemathesis
import skimage.color
from click.testing import CliRunner
from commands import until
from hypothesis import HealthCheck, given, settings
from pictures import encoded
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from prometheus_client.parser import text_string_to_metric_families
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks
from web_server import ARCHIVE, ROOT, Server, scan, serve

from colorized import cli, color, photo
from colorized.api import Colorizer
from colorized.model.weights import RELEASED
from colorized.options import UNTUNED
from colorized.photo import provenance
from colorized.web import decoder, service, words
from colorized.web import serve as serving
from colorized.web.decoder import DecoderProcess, Refused
from colorized.web.service import Limits
from colorized.web.tiles import Tiles

pytestmark = pytest.mark.slow

STATIC = ROOT / "colorized" / "web" / "static"
TOKEN = "a-token-of-the-tests"
DEADLINE = 120
LONG = {"steps": 100, "candidates": 8}
CHECKS = [
    not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--max-pixels", "400000") as server:
        yield server


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A service of one place, of one megabyte, and with a token."""
    with serve("--queue", "1", "--max-megabytes", "1", "--token", TOKEN) as server:
        server.address = server.address.partition("/#")[0]
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, timeout=DEADLINE) as client:
        yield client


@pytest.fixture
def known(small: Server) -> Iterator[httpx.Client]:
    """A client that has the token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=small.address, timeout=DEADLINE, headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return scan(tmp_path_factory.mktemp("scan") / "scan.png").read_bytes()


def color_it(client: httpx.Client, data: bytes, **fields: Any) -> httpx.Response:
    return client.post("/api/colorize", files={"file": ("photo", data)}, data=fields)


def begin(server: Server, length: int, more: str = "") -> socket.socket:
    """Begin to send a photograph, of which nothing comes."""
    host, port = server.address.removeprefix("http://").split(":")
    held = socket.create_connection((host, int(port)), timeout=DEADLINE)
    held.sendall(
        f"POST /api/colorize HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n"
        f"{more}Content-Length: {length}\r\n\r\n".encode()
    )
    return held


def measured(client: httpx.Client) -> dict[str, float]:
    """Samples of /metrics, those with labels by their last label's value."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {"/".join([s.name, *s.labels.values()]): s.value for s in samples}


class TestColorize:
    def test_what_the_library_does(self, client: httpx.Client, picture: bytes) -> None:
        asked = {"seed": 3, "steps": 4, "saturation": 1.3, "guidance": 2, "temperature": 0.9}
        answer = color_it(client, picture, **asked)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        model = Colorizer(RELEASED, name="colorized.safetensors")
        lightness = photo.read_photo(picture).lightness
        ab = model.sampler.colorize(lightness, UNTUNED.override(**asked))
        expected = color.recombine(lightness, ab).astype(int)
        given = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
        assert np.ptp(given, axis=-1).max() > 20
        assert np.abs(given - expected).max() <= 1
        L = skimage.color.rgb2lab(given.astype(np.uint8))[..., 0]
        assert np.abs(L - lightness).max() < 0.6

    @pytest.mark.parametrize(
        ("original", "format", "expected"),
        [
            ("PNG", "jpeg", "JPEG"),
            ("JPEG", "original", "JPEG"),
            ("TIFF", "original", "TIFF"),
            ("WEBP", "original", "WEBP"),
            ("GIF", "original", "PNG"),
            ("TIFF", "png", "PNG"),
        ],
    )
    def test_formats(
        self, client: httpx.Client, picture: bytes, original: str, format: str, expected: str
    ) -> None:
        data = encoded(Image.open(io.BytesIO(picture)), original)
        answer = color_it(client, data, format=format, steps=1)
        assert answer.status_code == 200, answer.text
        image = Image.open(io.BytesIO(answer.content))
        assert (image.format, image.size) == (expected, (120, 90))
        assert answer.headers["content-type"] == Image.MIME[expected]

    def test_16_bits_stay(self, client: httpx.Client, picture: bytes) -> None:
        gray = np.asarray(Image.open(io.BytesIO(picture))).astype(np.uint16) * 257 + 3
        answer = color_it(client, encoded(gray), steps=1)
        written = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert written.dtype == np.uint16

    def test_notes_of_the_photograph(self, client: httpx.Client, picture: bytes) -> None:
        data = encoded(Image.open(io.BytesIO(picture)), icc_profile=b"no profile")
        notes = json.loads(color_it(client, data, steps=1).headers["colorized-notes"])
        assert notes and "profile" in notes[0]


class TestPreview:
    def events(self, client: httpx.Client, data: bytes, **fields: Any) -> list[dict[str, Any]]:
        answer = client.post("/api/preview", files={"file": ("p", data)}, data=fields)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    @pytest.fixture
    def three(self) -> bytes:
        """A TIFF of three pages, of different sizes."""
        pages = [Image.linear_gradient("L").resize((60 + 8 * k, 48)) for k in range(3)]
        return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])

    def test_pages(self, client: httpx.Client, three: bytes) -> None:
        answer = color_it(client, three, steps=1)
        assert (answer.status_code, answer.json()["code"]) == (422, "pages")
        assert answer.json()["n"] == 3
        second = color_it(client, three, steps=1, page=2)
        assert Image.open(io.BytesIO(second.content)).size == (68, 48)
        opened = self.events(client, three, steps=1, page=3)
        (event,) = [event for event in opened if event["event"] == "opened"]
        assert (event["page"], event["pages"], event["width"]) == (3, 3, 76)
        assert color_it(client, three, steps=1, page=4).status_code == 422

    def test_tiles_are_the_photograph(self, client: httpx.Client) -> None:
        size = (1300, 300)
        noise = np.random.default_rng(0).integers(0, 256, (30, 130), np.uint8)
        large = np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
        held = client.post("/api/tiles", files={"file": encoded(large)}).json()
        assert held["levels"] == [{"width": 1300, "height": 300}]
        whole = np.zeros_like(large)
        for column in range(3):
            answer = client.get(f"/api/tiles/{held['id']}/0/{column}/0")
            assert answer.headers["content-type"] == "image/jpeg"
            tile = np.asarray(Image.open(io.BytesIO(answer.content)))
            left = column * held["size"]
            whole[:, left : left + tile.shape[1]] = tile
        assert np.abs(whole.astype(int) - large).mean() < 1.5
        assert client.get(f"/api/tiles/{held['id']}/0/3/0").status_code == 404
        assert client.get("/api/tiles/guessed/0/0/0").status_code == 404
        assert client.delete(f"/api/tiles/{held['id']}").status_code == 204
        assert client.get(f"/api/tiles/{held['id']}/0/0/0").status_code == 404

    def test_tells_how_it_goes(self, client: httpx.Client, picture: bytes) -> None:
        events = self.events(client, picture, steps=3, candidates=2, seed=5)
        kinds = ["waiting", "reading", "opened", "step", "step", "step", "done"]
        assert [event["event"] for event in events] == kinds
        assert (events[2]["width"], events[2]["height"]) == (120, 90)
        candidates = events[-1]["candidates"]
        assert len(candidates) == 2
        assert len({candidate["seed"] for candidate in candidates}) == 2
        assert events[-1]["uncertainty"]["unit"] > 0

    def test_a_candidate_is_what_its_seed_gives(self, client: httpx.Client, picture: bytes) -> None:
        done = self.events(client, picture, candidates=3)[-1]
        how = {name: done[name] for name in ("steps", "guidance", "temperature")}
        assert how["steps"] > 1  # as several are drawn, not one
        for candidate in done["candidates"]:
            alone = self.events(client, picture, seed=candidate["seed"], **how)[-1]
            first, second = (chroma(one["ab"]) for one in (candidate, alone["candidates"][0]))
            assert np.abs(first - second).max() < 1.5  # two roundings of up to half a unit each

    def test_a_file_that_is_none(self, client: httpx.Client) -> None:
        *_, last = self.events(client, b"a text")
        assert last["event"] == "error"
        assert last["error"].startswith("the photograph: no picture of a known format")


def chroma(plane: dict[str, Any]) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(plane["png"])))).astype(float)
    return (pixels[..., :2] - 128) * plane["unit"]


class TestRefused:
    @pytest.mark.parametrize(
        ("data", "line"),
        [
            (b"", "the photograph: the file is empty"),
            (b"a text", "the photograph: no picture of a known format"),
            (b"\xff\xd8\xff\xe0" + bytes(50), "the photograph: "),
        ],
    )
    def test_no_picture(self, client: httpx.Client, data: bytes, line: str) -> None:
        answer = color_it(client, data)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(line)

    def test_too_many_pixels_before_decoding(self, client: httpx.Client) -> None:
        bomb = encoded(Image.new("1", (30_000, 30_000)))  # 110 kB for 900 megapixels
        answer = color_it(client, bomb)
        assert answer.status_code == 422
        error = "the photograph: 30000 × 30000 pixels are more than 400000"
        assert answer.json() == {"error": error, "code": "pixels", "megapixels": 0}

    @pytest.mark.parametrize(
        ("fields", "line"),
        [
            ({"steps": 0}, "steps: "),
            ({"steps": 101}, "steps: "),
            ({"seed": -1}, "seed: "),
            ({"seed": 2**63}, "seed: "),
            ({"saturation": "nan"}, "saturation: "),
            ({"guidance": "inf"}, "guidance: "),
            ({"temperature": "3"}, "temperature: "),
            ({"format": "exe"}, "format: "),
            ({"hints": "{"}, "hints: not JSON"),
            ({"hints": "[" * 100_000}, "hints: not JSON: nested too deeply"),
            ({"hints": "[]"}, "hints: the whole: must be an object"),
            ({"hints": '{"points": [3]}'}, "hints: points[0]: must be an object"),
            ({"page": 0}, "page: "),
            ({"candidate": 2}, "candidate: must be at most candidates, 1"),
            ({"hints": '{"points": [{"x": 2, "y": 0, "color": "#000000"}]}'}, "hints: points[0].x"),
            ({"stepz": 3}, "'stepz': no such field"),
        ],
    )
    def test_impossible_options(
        self, client: httpx.Client, picture: bytes, fields: dict[str, Any], line: str
    ) -> None:
        answer = color_it(client, picture, **fields)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(line)

    def test_no_file(self, client: httpx.Client) -> None:
        answer = client.post("/api/colorize", data={"steps": 1})
        assert (answer.status_code, answer.json()["error"]) == (422, "file: Field required")

    def test_file_that_is_a_text(self, client: httpx.Client) -> None:
        answer = client.post("/api/colorize", data={"file": "photo.jpg"})
        error = answer.json()["error"]
        assert (answer.status_code, error) == (422, "file: must be a file, with a filename")

    @pytest.mark.parametrize("path", ["/api/colorize", "/api/preview", "/api/tiles"])
    def test_two_files(self, client: httpx.Client, picture: bytes, path: str) -> None:
        answer = client.post(path, files=[("file", picture), ("file", picture)])
        error = answer.json()["error"]
        assert (answer.status_code, error) == (422, "file: given 2 times, not once")

    def test_every_error_is_json(self, client: httpx.Client) -> None:
        got = ("/nowhere", "/static/none.js", "/api/colorize", "/samples/x")
        for method, path in (("PUT", "/healthz"), ("POST", "/"), *(("GET", path) for path in got)):
            answer = client.request(method, path)
            assert answer.status_code in (404, 405), path
            assert set(answer.json()) == {"error", "code"}, path

    def test_no_form(self, client: httpx.Client) -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = client.post("/api/colorize", content=b"--y\r\n", headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("malformed form data")
        assert answer.json()["code"] == "malformed"

    def test_name_of_the_client_is_no_path(
        self, client: httpx.Client, server: Server, picture: bytes
    ) -> None:
        for name in ("../../out.png", "/etc/passwd", "a\nb.png", "x" * 500):
            answer = client.post(
                "/api/colorize", files={"file": (name, picture)}, data={"steps": 1}
            )
            assert answer.status_code == 200
            assert answer.headers["content-disposition"] == 'attachment; filename="colorized.png"'

    def test_more_bytes_than_allowed(self, known: httpx.Client) -> None:
        answer = color_it(known, bytes(3 << 20))
        assert (answer.status_code, answer.json()["error"]) == (413, "larger than 1 MB")

    @pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
    def test_announced_too_large_is_answered_at_once(self, small: Server, expect: str) -> None:
        """Before any of the body has come."""
        with begin(small, 999_999_999, expect) as asking:
            assert asking.recv(1000).startswith(b"HTTP/1.1 413 ")

    def test_more_bytes_than_allowed_and_none_announced(self, known: httpx.Client) -> None:
        def body() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(48):
                yield bytes(1 << 16)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = known.post("/api/colorize", content=body(), headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (413, "larger than 1 MB")


class TestLanguage:
    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("fr, es;q=0.5, en;q=0.4", "es"),
            ("en;q=0.2, es;q=0.1", "en"),
            ("de;q=0, fr", "en"),
            ("", "en"),
            (";;,q=", "en"),
        ],
    )
    def test_is_what_the_browser_asks_for(
        self, client: httpx.Client, accept: str, expected: str
    ) -> None:
        for path in ("/", "/docs", "/signin"):
            page = client.get(path, headers={"Accept-Language": accept}).text
            assert f'<html lang="{expected}">' in page
            assert "{{" not in page

    def test_a_choice_stays(self, server: Server) -> None:
        with httpx.Client(base_url=server.address, follow_redirects=True) as visitor:
            assert '<html lang="es">' in visitor.get("/?language=es").text
            assert '<html lang="es">' in visitor.get("/", headers={"Accept-Language": "de"}).text
            assert '<html lang="es">' in visitor.get("/?language=xx").text

    def test_translations_are_whole(self) -> None:
        """Each has all strings, with the same values in them."""
        english, *others = words.languages().values()
        values = {key: set(re.findall(r"\{\w+\}", text)) for key, text in english.items()}
        for other in others:
            assert {k: set(re.findall(r"\{\w+\}", text)) for k, text in other.items()} == values

    def test_no_string_is_missing_or_left_over(self) -> None:
        english = next(iter(words.languages().values()))
        text = "".join(path.read_text("utf-8") for path in STATIC.glob("*.[hj][ts]*"))
        pages = re.findall(r"\{\{([\w.]+)\}\}", text)
        assert set(pages) <= {*english, "languages"}
        scripts = re.findall(r"""\btn?\(\s*(?:[\w?. !>]+\? )?"([\w.]+)"(?: : "([\w.]+)")?""", text)
        asked = {key for pair in scripts for key in pair if key}
        forms = {re.sub(r"\.(one|other)$", "", key) for key in english}
        assert asked <= {*english, *forms}


class TestWhoAsks:
    @pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8000"])
    def test_names_of_this_machine(self, client: httpx.Client, host: str) -> None:
        assert client.get("/healthz", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1.evil.example", "", "[", "10.0.0.1"]
    )
    def test_another_name_is_refused(self, client: httpx.Client, host: str) -> None:
        """It was rebound to this address."""
        assert client.get("/healthz", headers={"Host": host}).status_code == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://["},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_page_of_another_origin_is_refused(
        self, client: httpx.Client, headers: dict[str, str]
    ) -> None:
        answer = client.post("/api/colorize", data={"a": "b"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (
            403,
            "the request comes from a page of another origin",
        )

    def test_page_of_ours_is_not(
        self, client: httpx.Client, server: Server, picture: bytes
    ) -> None:
        headers = {"Origin": server.address, "Sec-Fetch-Site": "same-origin"}
        answer = client.post(
            "/api/colorize", files={"file": picture}, data={"steps": 1}, headers=headers
        )
        assert answer.status_code == 200

    def test_token(self, small: Server, known: httpx.Client) -> None:
        assert known.get("/api/about").status_code == 200
        # By any name: a page that was rebound has no token.
        assert known.get("/api/about", headers={"Host": "room.example"}).status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "colorized=wrong"}):
            for path in ("/api/about", "/metrics", "/openapi.json", "/static/app.js", "/samples/x"):
                answer = httpx.get(f"{small.address}{path}", headers=headers)
                assert (answer.status_code, path) == (401, path)
            answer = httpx.post(f"{small.address}/api/colorize", headers=headers)
            assert answer.status_code == 401
        assert httpx.get(f"{small.address}/healthz").status_code == 200

    def test_sign_in(self, small: Server) -> None:
        with httpx.Client(base_url=small.address, follow_redirects=True) as client:
            assert client.get("/").url.path == "/signin"
            wrong = client.post("/signin", data={"token": "wrong"})
            assert (wrong.url.path, wrong.url.query) == ("/signin", b"wrong")
            right = client.post("/signin", data={"token": TOKEN})
            assert (right.status_code, right.url.path) == (200, "/")
            (cookie,) = client.cookies.jar
            assert TOKEN not in str(cookie.value)
            assert cookie.has_nonstandard_attr("HttpOnly")
            assert cookie.get_nonstandard_attr("SameSite") == "strict"

    def test_headers(self, client: httpx.Client) -> None:
        for path in ("/", "/docs", "/static/app.js", "/healthz", "/nowhere", "/samples/../x"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert "access-control-allow-origin" not in headers

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
    def test_other_machines_need_a_token(self, host: str) -> None:
        with pytest.raises(serving.ServeError, match="give a --token"):
            serving.check(host, None)
        serving.check(host, TOKEN)

    @pytest.mark.parametrize("token", ["", "short", "with a space", "schlüssel-schlüssel"])
    def test_token_that_is_none(self, token: str) -> None:
        with pytest.raises(serving.ServeError, match="a token has at least 8"):
            serving.check("127.0.0.1", token)

    def test_temporary_folder_that_is_no_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def warm_up() -> None:
            raise OSError("AF_UNIX path too long")  # not of every release of Python

        monkeypatch.setattr(serving, "warm_up", warm_up)
        with pytest.raises(serving.ServeError, match=r"^cannot start decoders.+ AF_UNIX path too"):
            serving.run(None, None, None)


class TestQueue:
    def test_full(self, known: httpx.Client, picture: bytes) -> None:
        with known.stream("POST", "/api/preview", files={"file": picture}, data=LONG) as working:
            lines = working.iter_lines()  # whose end would be that of the request
            assert json.loads(next(lines))["event"] == "waiting"
            answer = color_it(known, picture, steps=1)
            assert (answer.status_code, answer.json()["code"]) == (429, "busy")
            assert int(answer.headers["retry-after"]) >= 1
        until(lambda: known.get("/healthz").json()["taken"] == 0)
        assert color_it(known, picture, steps=1).status_code == 200

    def test_slow_uploads_keep_nobody_waiting(
        self, small: Server, known: httpx.Client, picture: bytes
    ) -> None:
        """There is one place; twenty are on their way to it."""
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(begin(small, 1000))
            until(lambda: known.get("/healthz").json()["uploading"] == 20)
            assert color_it(known, picture, steps=1).status_code == 200
        until(lambda: known.get("/healthz").json()["uploading"] == 0)

    def test_too_many_uploads(self, small: Server, known: httpx.Client, picture: bytes) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(Limits().uploads):
                stack.enter_context(begin(small, 1000))
            until(lambda: known.get("/healthz").json()["uploading"] == Limits().uploads)
            assert color_it(known, picture, steps=1).status_code == 429
        until(lambda: known.get("/healthz").json()["uploading"] == 0)

    def test_ahead_falls_as_the_queue_moves(self, client: httpx.Client, picture: bytes) -> None:
        with contextlib.ExitStack() as stack:
            lines = []
            for fields in (LONG, LONG, {"steps": 1}):
                request = client.stream(
                    "POST", "/api/preview", files={"file": picture}, data=fields
                )
                answer = stack.enter_context(request)
                lines.append((stack.pop_all(), answer.iter_lines()))
                assert json.loads(next(lines[-1][1]))["event"] == "waiting"
            for closing, _ in lines[:2]:
                closing.close()
            closing, told = lines[2]
            with closing:
                events = [json.loads(line) for line in told]
        ahead = [event["ahead"] for event in events if event["event"] == "waiting"]
        assert events[-1]["event"] == "done"
        assert ahead == sorted(ahead, reverse=True) and ahead[-1] < 2

    def test_who_leaves_is_forgotten(self, client: httpx.Client, picture: bytes) -> None:
        before = measured(client)
        with client.stream("POST", "/api/preview", files={"file": picture}, data=LONG) as answer:
            for line in answer.iter_lines():
                if json.loads(line)["event"] == "step":
                    break
        left = "colorized_requests_total/left"
        until(lambda: measured(client)[left] == before[left] + 1)
        until(lambda: client.get("/healthz").json()["taken"] == 0)
        # The network is free again, long before 100 steps.
        assert color_it(client, picture, steps=1).status_code == 200

    def test_who_leaves_the_queue_is_forgotten(
        self, client: httpx.Client, server: Server, picture: bytes
    ) -> None:
        before = measured(client)["colorized_requests_total/left"]
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.address}/api/colorize",
                files={"file": picture},
                data={"steps": 100, "guidance": 3},
                timeout=httpx.Timeout(DEADLINE, read=0.05),
            )
        until(lambda: measured(client)["colorized_requests_total/left"] == before + 1)
        until(lambda: client.get("/healthz").json()["taken"] == 0)

    def test_metrics(self, client: httpx.Client, picture: bytes) -> None:
        before = measured(client)
        color_it(client, picture, steps=1)
        color_it(client, b"no picture")
        after = measured(client)
        for outcome in ("done", "refused"):
            name = f"colorized_requests_total/{outcome}"
            assert after[name] == before[name] + 1
        assert after["colorized_pixels_total"] == before["colorized_pixels_total"] + 120 * 90
        assert after["colorized_places"] == 16


class TestDecoder:
    @pytest.fixture
    def at(self) -> Iterator[DecoderProcess]:
        with contextlib.closing(DecoderProcess()) as at:
            yield at

    def test_a_crash_costs_one_photograph(self, at: DecoderProcess, picture: bytes) -> None:
        assert at.ask("look", picture, seconds=DEADLINE) == 120 * 90
        os.kill(at._process.pid or 0, signal.SIGSEGV)
        with pytest.raises(Refused, match=r"its decoder crashed \(exit code -11\)"):
            at.ask("open", 10**6, 128, True, None, seconds=DEADLINE)

    def test_a_decoder_that_hangs(self, at: DecoderProcess, picture: bytes) -> None:
        with pytest.raises(Refused, match="given up, it took too long"):
            at.ask("look", picture, seconds=0)

    def test_an_error_of_ours_is_no_refusal(self, at: DecoderProcess) -> None:
        with pytest.raises(RuntimeError, match="^AttributeError: "):
            at.ask("open", 1, 128, True, None, seconds=DEADLINE)

    def test_planes_keep_chroma(self) -> None:
        ab = np.random.default_rng(0).uniform(-60, 60, (20, 30, 2)).astype(np.float32)
        made = decoder.plane(ab)
        pixels = np.asarray(Image.open(io.BytesIO(made.png))).astype(float)
        assert np.abs((pixels[..., :2] - 128) * made.unit - ab).max() <= made.unit / 2 + 1e-6


def test_work_that_is_given_up_leaves_nothing_behind() -> None:
    """Cancelled twice, it is seen to end, and asyncio has no error to report."""
    reported: list[dict[str, Any]] = []
    began, stopped = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        stopped.wait(DEADLINE)
        raise Refused("given up")

    async def give_up(pool: ThreadPoolExecutor) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, found: reported.append(found))
        working = asyncio.create_task(service._finish(pool, work, lambda: None))
        await asyncio.to_thread(began.wait, DEADLINE)
        working.cancel()
        await asyncio.wait([working], timeout=0)
        working.cancel()
        await asyncio.wait([working], timeout=0)
        assert not working.done()
        stopped.set()
        await asyncio.wait([working])
        assert working.cancelled()

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(give_up(pool))
    gc.collect()
    assert reported == []


class TestTiles:
    def test_the_oldest_make_room(self) -> None:
        tiles = Tiles(100, 60)
        first, second = (tiles.add({(0, 0, 0): bytes(40)}) for _ in range(2))
        assert tiles.get(first, (0, 0, 0)) is not None  # used later than the second
        third = tiles.add({(0, 0, 0): bytes(40)})
        found = [name for name in (first, second, third) if tiles.get(name, (0, 0, 0))]
        assert found == [first, third]
        assert tiles.bytes == 80
        assert tiles.get(tiles.add({(0, 0, 0): bytes(101)}), (0, 0, 0)) is None

    def test_nobody_asks(self) -> None:
        tiles = Tiles(100, 0)
        name = tiles.add({(0, 0, 0): bytes(40)})
        until(lambda: tiles.get(name, (0, 0, 0)) is None)
        assert tiles.bytes == 0


def test_head(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/healthz", "/openapi.json", "/static/app.js", "/api/about"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path


def test_hints_are_in_the_file(client: httpx.Client, picture: bytes) -> None:
    """So that the coloring can be done again from it alone."""
    known = '{"points": [{"x": 0.5, "y": 0.5, "radius": 0.1, "color": "#b3262e"}]}'
    fields = {"seed": 2**63 - 1, "steps": 3, "candidate": 3, "candidates": 4, "hints": known}
    answer = color_it(client, picture, **fields)
    made = provenance.parse(photo.read_xmp(answer.content))
    assert (made.hints, made.candidate, made.candidates) == (known, 3, 4)
    assert made.original_sha256 == hashlib.sha256(picture).hexdigest()
    again = {"seed": made.seed, "steps": made.steps, "guidance": made.guidance, "hints": made.hints}
    once_more = color_it(client, answer.content, **again, temperature=made.temperature)
    first, second = (np.asarray(Image.open(io.BytesIO(a.content))) for a in (answer, once_more))
    # From its own colored copy: lightness has been rounded once more.
    assert np.abs(first.astype(int) - second).mean() < 2
    events = client.post(
        "/api/preview", files={"file": answer.content}, data={"steps": 1}
    ).text.splitlines()
    (opened,) = [e for e in map(json.loads, events) if e["event"] == "opened"]
    assert opened["marks"]["seed"] == str(2**63 - 1)
    assert opened["marks"]["hints"] == known
    assert opened["repeatable"]


def test_what_cannot_be_repeated_is_told(client: httpx.Client, picture: bytes) -> None:
    def repeatable(picture: bytes) -> bool:
        told = client.post("/api/preview", files={"file": picture}, data={"steps": 1}).text
        (opened,) = [e for e in map(json.loads, told.splitlines()) if e["event"] == "opened"]
        return bool(opened["repeatable"])

    assert not repeatable(picture)  # it is nobody's coloring
    colored = color_it(client, picture, steps=5).content  # by another sampler than by default
    assert repeatable(colored)
    marks = provenance.parse(photo.read_xmp(colored))
    for changed in ({"weights_sha256": "0" * 64}, {"hints_sha256": "0" * 64}):
        chunk = PngInfo()
        xmp = provenance.packet(dataclasses.replace(marks, **changed))
        chunk.add_itxt("XML:com.adobe.xmp", xmp.decode())
        Image.open(io.BytesIO(colored)).save(saved := io.BytesIO(), "png", pnginfo=chunk)
        assert not repeatable(saved.getvalue()), changed


def test_the_end_is_graceful(picture: bytes) -> None:
    """What is in the room when the signal comes is finished; nothing is left behind."""
    with serve() as server:
        with (
            httpx.Client(base_url=server.address, timeout=DEADLINE) as client,
            client.stream(
                "POST", "/api/preview", files={"file": picture}, data={"steps": 20}
            ) as answer,
        ):
            lines = answer.iter_lines()
            assert json.loads(next(lines))["event"] == "waiting"
            server.process.send_signal(signal.SIGTERM)
            events = [json.loads(line)["event"] for line in lines]
        assert events[-1] == "done"
        assert server.process.wait(DEADLINE) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.address)
        assert list(server.folder.iterdir()) == []


def test_nothing_is_kept(client: httpx.Client, server: Server, picture: bytes) -> None:
    """Its working folder, which is also that of temporary files, is empty after a photograph."""
    assert color_it(client, picture, steps=1).status_code == 200
    large = (ARCHIVE / "black-canyon.jpg").read_bytes() + bytes(
        3 << 20
    )  # beyond what stays in memory
    assert color_it(client, large, steps=1).status_code == 200
    found = [path.name for path in server.folder.iterdir()]
    assert [name for name in found if not name.startswith("pymp-")] == []  # a socket, until the end


def test_the_command_of_the_page(server: Server, tmp_path: Path) -> None:
    scan(tmp_path / "photo.jpg")
    (curl,) = re.findall(r"^curl .*$", (ROOT / "docs" / "web.md").read_text("utf-8"), re.M)
    command = curl.replace("http://127.0.0.1:8000", server.address)
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    with Image.open(tmp_path / "color.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (120, 90))


def test_port_that_is_taken(server: Server) -> None:
    port = server.address.rpartition(":")[2]
    result = CliRunner().invoke(cli.app, ["web", "--port", port])
    assert str(result.exception) == f"127.0.0.1 port {port}: Address already in use"


def test_a_process_that_decodes_has_its_libraries_before_it_is_forked() -> None:
    """Or each request would load them."""
    lacks = "{'imagecodecs', 'pypdfium2', 'tifffile', 'torch'} - set(__import__('sys').modules)"
    with decoder._context.Pool(1) as pool:
        assert pool.apply(eval, (lacks,)) == set()


def test_samples_are_those_of_the_clone(client: httpx.Client) -> None:
    samples = client.get("/api/about").json()["samples"]
    assert len(samples) == len(list(ARCHIVE.glob("*.jpg"))) + 2 == 8
    for portrait in samples[:2]:
        shown = np.asarray(Image.open(io.BytesIO(client.get(portrait["url"]).content)))
        assert shown.ndim == 2
    for sample in samples:
        assert client.get(sample["url"]).headers["content-type"] == "image/jpeg"
        assert len(sample["title"]) > 10
    for name in ("..%2Fphotos.csv", "black-canyon", "ATTRIBUTION.md"):
        assert client.get(f"/samples/{name}").status_code == 404


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_openapi_holds(server: Server, mode: GenerationMode) -> None:
    """schemathesis: whatever is sent, the answer is one that /openapi.json tells of, and no 5xx."""
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 8
    answers: Counter[int] = Counter()
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.method != "post":
            continue  # they take nothing that could be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=40, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: schemathesis.Case) -> None:
            response = case.call(timeout=DEADLINE)
            answers[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        check()
    assert answers.total() >= 50
    assert answers[422] > 10
