"""The page in a real browser, on a desktop and on a phone: what people do, and then see."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import skimage.color
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
from web_server import ARCHIVE, Server, scan, serve

from colorized import color, photo
from colorized.photo import provenance

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]
FLAGS = ["--disable-gpu", "--disable-quic"]
TIMEOUT_MS = 60_000
SAMPLES = 8
SIZES = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    """Open the page of a service, in a context of its own; it must not fail nor look elsewhere."""
    failures: list[str] = []
    contexts = []

    def open_page(address: str = server.address, **options: Any) -> Page:
        context = browser.new_context(**{"locale": "en-US", **options})
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on(
            "console",
            lambda message: (
                failures.append(message.text) if "Content Security Policy" in message.text else None
            ),
        )

        def stay_here(route: Route) -> None:
            if urlsplit(route.request.url).hostname == "127.0.0.1":
                route.continue_()
            else:
                failures.append(f"looks at {route.request.url}")
                route.abort()

        context.route("**/*", stay_here)
        page.goto(address)
        expect(page.locator("body[data-ready]")).to_be_attached()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert failures == []


@pytest.fixture(params=SIZES)
def page(open_page: Open, request: pytest.FixtureRequest) -> Page:
    return open_page(**SIZES[request.param])


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scan(tmp_path_factory.mktemp("scan") / "my scan.png", (240, 180))


def upload(page: Page, *paths: Path) -> None:
    page.locator("#file").set_input_files(paths)


def wait_until_colored(page: Page, colorings: int = 0) -> None:
    """Of this many colorings, if it is said."""
    if colorings:
        expect(page.locator("#colorings label")).to_have_count(colorings)
    expect(page.locator("#save")).to_be_enabled()
    expect(page.locator("#status")).to_have_text("Colorized. The colors are AI-made.")


def color_it(page: Page, path: Path) -> None:
    upload(page, path)
    wait_until_colored(page)


def shown(page: Page, canvas: str = "now") -> np.ndarray:
    """RGB (H, W, 3) of a canvas."""
    width, height, data = page.evaluate(
        """(id) => {
            const canvas = document.getElementById(id), { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return [width, height, Array.from(data)];
        }""",
        canvas,
    )
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def repainted(page: Page, act: Callable[[], Any]) -> None:
    """Do something that paints the picture, and wait until it is painted."""
    stage = page.locator("#stage")
    before = int(stage.get_attribute("data-painted") or 0)
    act()
    expect(stage).not_to_have_attribute("data-painted", str(before))


def downloaded(page: Page, format: str = "png", button: str = "#save") -> bytes:
    if button == "#save":
        page.locator("#format").select_option(format)
    with page.expect_download(timeout=180_000) as download:
        page.locator(button).click()
    return Path(download.value.path()).read_bytes()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def colorfulness(rgb: np.ndarray) -> float:
    return float(np.ptp(rgb.astype(int), axis=-1).mean())


def point(page: Page, u: float, v: float) -> tuple[float, float]:
    """Where a point of the picture, in shares of its width and height, is on the screen."""
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#now").bounding_box()
    return box["x"] + u * box["width"], box["y"] + v * box["height"]


def in_sight(page: Page, what: Locator) -> bool:
    """Whether it lies in the window, and nothing lies over it."""
    return what.evaluate(
        """(node) => {
            const { left, top, right, bottom } = node.getBoundingClientRect();
            const found = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
            return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight
                && (node.contains(found) || found?.contains(node));
        }"""
    )


def give(page: Page, kind: str, *files: Path, text: str = "") -> None:
    """Drop or paste files, or drop a link."""
    page.evaluate(
        """([kind, files, text]) => {
            const data = new DataTransfer();
            for (const [name, bytes] of files) {
                data.items.add(new File([Uint8Array.from(bytes)], name));
            }
            if (text) data.setData("text/uri-list", text);
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(kind === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: data })
                : new DragEvent("drop", { ...options, dataTransfer: data }));
        }""",
        [kind, [[path.name, list(path.read_bytes())] for path in files], text],
    )


@contextlib.contextmanager
def at_work(server: Server, picture: Path) -> Iterator[None]:
    """The service has a coloring in hand that takes long."""
    address, data = f"{server.address}/api/preview", {"steps": 100, "candidates": 8}
    files = {"file": picture.read_bytes()}
    with httpx.stream("POST", address, files=files, data=data, timeout=TIMEOUT_MS) as answer:
        lines = answer.iter_lines()  # kept: its end would be that of the request
        assert "waiting" in next(lines)
        yield


class TestFirst:
    def test_from_upload_to_download(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        assert in_sight(page, page.locator("#save"))
        assert in_sight(page, page.locator("#stage"))
        with page.expect_download(timeout=180_000) as download:
            page.get_by_role("button", name="Save", exact=True).click()
        assert download.value.suggested_filename == "my scan-colorized.png"
        data = Path(download.value.path()).read_bytes()
        colored = pixels(data)
        lightness = photo.read_photo(picture).lightness
        L = skimage.color.rgb2lab(colored.astype(np.uint8))[..., 0]
        assert np.abs(L - lightness).max() < 0.6
        assert colorfulness(colored) > 5
        # What was seen is what was got.
        assert np.abs(shown(page).astype(int) - colored).mean() < 1
        made = provenance.parse(photo.read_xmp(data))
        assert made is not None and (made.seed, made.candidate, made.candidates) == (0, 1, 1)
        # Nothing else says it, either: the photograph left no name behind.
        assert b"my scan" not in data

    def test_strength_answers_without_the_service(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        before = shown(page)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        strength = page.get_by_role("slider", name="Color strength")
        strength.focus()
        repainted(page, lambda: page.keyboard.press("Home"))
        gray = shown(page)
        assert colorfulness(gray) == 0
        repainted(page, lambda: page.keyboard.press("End"))
        expect(strength).to_have_attribute("aria-valuetext", "200%")
        strong = shown(page)
        assert colorfulness(strong) > 1.2 * colorfulness(before)
        assert [url for url in requests if "/api/" in url] == []
        # Lightness stays, whatever the strength.
        L = [skimage.color.rgb2lab(rgb)[..., 0] for rgb in (gray, strong)]
        assert np.abs(L[0] - L[1]).max() < 0.7
        # And the file has it, too.
        assert np.abs(pixels(downloaded(page)) - strong).mean() < 1.5


class TestBar:
    """One bar, always in sight, says what is going on and what went wrong."""

    def test_uploading(self, page: Page, tmp_path: Path, picture: Path) -> None:
        large = tmp_path / "large.png"
        Image.effect_noise((700, 700), 60).save(large)
        for working in (False, True):
            network = page.context.new_cdp_session(page)
            slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
            network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": 60_000})
            upload(page, large)
            expect(page.locator("#status")).to_have_text(re.compile(r"^Uploading, [1-9]\d?%$"))
            for part in ("#thumb", "#status", "#progress", "#stop"):
                assert in_sight(page, page.locator(part)), part
            page.locator("#stop").click()
            expect(page.locator("#status")).to_have_text("Stopped.")
            network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
            network.detach()
            expect(page.locator("#work")).to_be_visible(visible=working)
            if not working:
                color_it(page, picture)

    def test_waiting(self, page: Page, server: Server, picture: Path) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(at_work(server, picture))
            upload(page, picture)
            waiting = "Waiting: 3 photographs ahead of yours."
            expect(page.locator("#status")).to_have_text(waiting)
            assert in_sight(page, page.locator("#status"))
        wait_until_colored(page)

    def test_server_busy(self, open_page: Open, picture: Path) -> None:
        with serve("--queue", "1") as server:
            page = open_page(server.address)
            with at_work(server, picture):
                upload(page, picture)
                expect(page.locator("#status")).to_contain_text("Server busy. Trying again in")
            wait_until_colored(page)  # by itself

    def test_errors(self, page: Page, tmp_path: Path, picture: Path) -> None:
        """In sight in both views; the photograph that is there stays usable."""
        path = tmp_path / "notes.jpg"
        path.write_text("no picture")
        trouble = page.get_by_role("alert")
        upload(page, path)
        expect(trouble).to_contain_text("This file isn’t a picture we can read. Use JPEG, PNG")
        assert in_sight(page, trouble)
        expect(page.locator("#work")).to_be_hidden()
        color_it(page, picture)
        expect(trouble).to_be_hidden()
        before = shown(page)
        upload(page, path)
        expect(trouble).to_contain_text("isn’t a picture")
        assert in_sight(page, trouble)
        assert np.abs(pixels(downloaded(page)) - before).mean() < 1

    def test_restart_in_the_middle(self, open_page: Open, picture: Path) -> None:
        with serve() as first:
            page = open_page(first.address)
            color_it(page, picture)
            assert first.end() == 0
            page.get_by_role("button", name="Show four colorings").click()
            expect(page.get_by_role("alert")).to_have_text("Can’t reach the server.")
            assert colorfulness(shown(page)) > 5  # the colors are still there
            port = urlsplit(first.address).port
            with serve(port=port):
                page.get_by_role("button", name="Try again").click()
                expect(page.locator("#colorings label")).to_have_count(5)
                expect(page.get_by_role("alert")).to_be_hidden()


class TestState:
    def test_stop_gives_back_what_save_gives(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        before = shown(page)
        page.evaluate(STOP_MIDWAY)
        repainted(page, lambda: page.locator("#several").click())
        expect(page.locator("#status")).to_have_text("Stopped.")
        assert np.array_equal(shown(page), before)
        assert np.abs(pixels(downloaded(page)) - before).mean() < 1

    def test_stop_of_hints(self, page: Page, picture: Path) -> None:
        """The hints stay, to be colored again or undone."""
        color_it(page, picture)
        before = shown(page)
        page.get_by_role("radio", name="Turkey red").check()
        page.mouse.click(*point(page, 0.5, 0.5))
        page.evaluate(STOP_MIDWAY)
        repainted(page, lambda: page.locator("#rerun").click())
        expect(page.locator("#status")).to_have_text("Stopped.")
        assert np.array_equal(shown(page), before)
        expect(page.locator("#marks button")).to_have_count(1)
        expect(page.locator("#save")).to_be_disabled()
        expect(page.locator("#rerun")).to_be_enabled()
        page.keyboard.press("Control+z")
        assert np.abs(pixels(downloaded(page)) - before).mean() < 1

    def test_the_same_file_again(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        page.locator("#new").click()
        color_it(page, picture)
        page.locator("#new").click()
        expect(page.locator("#visited button")).to_have_count(2)

    def test_drop_and_paste(self, page: Page, picture: Path) -> None:
        for kind in ("drop", "paste"):
            give(page, kind, picture)
            wait_until_colored(page)
            expect(page.locator("#size")).to_have_text("240 × 180")
            page.locator("#new").click()
            expect(page.get_by_text("Drop a photograph here")).to_be_visible()

    def test_a_second_file(self, page: Page, picture: Path, tmp_path: Path) -> None:
        """Dropped on the first, it takes its place."""
        color_it(page, picture)
        give(page, "drop", scan(tmp_path / "second.png", (90, 120)))
        expect(page.locator("#size")).to_have_text("90 × 120")
        wait_until_colored(page)
        assert pixels(downloaded(page)).shape == (120, 90, 3)

    def test_a_link_is_answered(self, page: Page) -> None:
        give(page, "drop", text="https://example.org/photo.jpg")
        expect(page.get_by_role("alert")).to_contain_text("That was a link or text.")

    def test_several_files(self, page: Page, picture: Path, tmp_path: Path) -> None:
        other, text = scan(tmp_path / "other.jpg", (90, 120)), tmp_path / "notes.jpg"
        text.write_text("no picture")
        give(page, "drop", picture, text, other)
        expect(page.locator("#status")).to_have_text("Done, but 1 photograph could not be colored.")
        expect(page.locator("#queued li").nth(1)).to_contain_text("isn’t a picture")
        with zipfile.ZipFile(io.BytesIO(downloaded(page, button="#zip"))) as archive:
            assert archive.testzip() is None
            sizes = {name: pixels(archive.read(name)).shape[:2] for name in archive.namelist()}
        assert sizes == {"my scan-colorized.png": (180, 240), "other-colorized.jpg": (120, 90)}

    def test_several_files_and_a_restart(self, open_page: Open, tmp_path: Path) -> None:
        """What is done can be saved, what is not yet is colored when the server is back."""
        files = [scan(tmp_path / f"{k}.jpg", (90, 120)) for k in range(3)]
        with serve() as first:
            page = open_page(first.address)
            page.route("**/api/colorize", lambda route: route.abort(), times=1)
            give(page, "drop", *files)
            expect(page.get_by_role("alert")).to_have_text("Can’t reach the server.")
            expect(page.locator("#zip")).to_be_disabled()
            answered = []

            def second_fails(route: Route) -> None:
                answered.append(route)
                if len(answered) == 2:
                    route.fulfill(status=502, body="<html>Bad gateway</html>")
                else:
                    route.fallback()

            page.route("**/api/colorize", second_fails)
            page.get_by_role("button", name="Try again").click()
            expect(page.get_by_role("alert")).to_have_text("502")
            expect(page.locator("#zip")).to_have_text("Save 1 photograph as ZIP")
            expect(page.locator("#zip")).to_be_enabled()
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#zip")).to_have_text("Save 3 photographs as ZIP")
            expect(page.locator("#zip")).to_be_enabled()
            with zipfile.ZipFile(io.BytesIO(downloaded(page, button="#zip"))) as archive:
                assert archive.testzip() is None and len(archive.namelist()) == 3

    def test_stop_of_several_files(self, page: Page, tmp_path: Path) -> None:
        held: list[Route] = []

        def hold_the_second(route: Route) -> None:
            held.append(route)
            if len(held) != 2:
                route.fallback()

        page.route("**/api/colorize", hold_the_second)
        give(page, "drop", *(scan(tmp_path / f"{k}.jpg", (90, 120)) for k in range(3)))
        expect(page.locator("#queued li").nth(1)).to_contain_text("coloring")
        page.locator("#stop").click()
        expect(page.locator("#zip")).to_have_text("Save 1 photograph as ZIP")
        expect(page.locator("#zip")).to_be_enabled()
        page.get_by_role("button", name="Color the rest").click()
        expect(page.locator("#zip")).to_have_text("Save 3 photographs as ZIP")
        expect(page.locator("#queue-go")).to_be_hidden()

    def test_a_file_that_is_gone_does_not_hold_up_the_rest(
        self, page: Page, tmp_path: Path
    ) -> None:
        held: list[Route] = []

        def fail(route: Route) -> None:
            held.append(route)
            if len(held) <= 2:
                route.abort()
            else:
                route.fallback()

        page.route("**/api/colorize", fail)
        give(page, "drop", *(scan(tmp_path / f"{k}.jpg", (90, 120)) for k in range(2)))
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#status")).to_have_text("Done, but 1 photograph could not be colored.")
        expect(page.locator("#queued li").first).to_contain_text("Can’t reach the server.")
        expect(page.locator("#zip")).to_have_text("Save 1 photograph as ZIP")

    def test_the_list_is_cleared_at_work(self, page: Page, tmp_path: Path) -> None:
        held: list[Route] = []
        page.route("**/api/colorize", lambda route: held.append(route))
        give(page, "drop", *(scan(tmp_path / f"{k}.jpg", (90, 120)) for k in range(2)))
        expect(page.locator("#queued li").first).to_contain_text("coloring")
        page.get_by_role("button", name="Clear the list").click()
        expect(page.locator("#status")).to_have_text("Stopped.")
        expect(page.locator("#queue")).to_be_hidden()
        assert len(held) == 1

    def test_zips_have_a_largest_size(self, page: Page) -> None:
        sizes = page.evaluate(
            """async ([sizes, most]) => {
                const { parcels } = await import("/static/zip.js");
                const parts = parcels(sizes.map((size) => ({ blob: { size } })), most);
                return parts.map((part) => part.map(({ blob }) => blob.size));
            }""",
            [[4, 5, 2, 11, 1, 1, 1, 1], {"bytes": 10, "files": 3}],
        )
        assert sizes == [[4, 5], [2], [11], [1, 1, 1], [1]]

    @pytest.mark.parametrize("format", ["tif", "pdf"])
    def test_pages(self, page: Page, tmp_path: Path, format: str) -> None:
        path = tmp_path / f"album.{format}"
        pages = [Image.linear_gradient("L").resize((60 + 8 * k, 48)) for k in range(3)]
        pages[0].save(path, save_all=True, append_images=pages[1:])
        color_it(page, path)
        expect(page.locator("#size")).to_have_text("60 × 48")
        page.get_by_label("Page").select_option("Page 2 of 3")
        expect(page.locator("#size")).to_have_text("68 × 48")
        wait_until_colored(page)
        assert pixels(downloaded(page)).shape == (48, 68, 3)
        page.get_by_label("Page").select_option("All pages as ZIP")
        expect(page.locator("#zip")).to_have_text("Save 3 photographs as ZIP")
        with zipfile.ZipFile(io.BytesIO(downloaded(page, button="#zip"))) as archive:
            names = archive.namelist()
        # PDF is not written: its pages become PNG.
        assert names == [
            f"album-{k}-colorized.{'tif' if format == 'tif' else 'png'}" for k in (1, 2, 3)
        ]

    def test_two_tabs(self, open_page: Open, tmp_path: Path) -> None:
        pages = [open_page(), open_page()]
        sizes = [(200, 150), (150, 200)]
        for page, size in zip(pages, sizes, strict=True):
            upload(page, scan(tmp_path / f"{size[0]}.png", size))
        for page, size in zip(pages, sizes, strict=True):
            wait_until_colored(page)
            expect(page.locator("#size")).to_have_text(f"{size[0]} × {size[1]}")
            assert shown(page).shape[:2] == size[::-1]


STOP_MIDWAY = """() => {
    const bar = document.getElementById("progress"), status = document.getElementById("status");
    const observer = new MutationObserver(() => {
        if (status.textContent !== "Coloring …" || bar.value < 0.2) return;
        observer.disconnect();
        document.getElementById("stop").click();
    });
    observer.observe(bar, { attributes: true });
}"""
"""Clicks Stop in the midst of the next coloring, however fast that is."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan with more detail than a page shows at once."""
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    with Image.open(ARCHIVE / "french-alpine-landscape.jpg") as image:
        photograph = image.convert("L").resize((2600, 1800), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((2600, 1800), 40)
    Image.blend(photograph, grain, 0.15).save(path, quality=95)
    return path


def zoom_of(page: Page) -> float:
    return float(page.locator("#stage").get_attribute("data-zoom") or 0)


class TestZoom:
    def test_scan_at_its_own_resolution(self, page: Page, large: Path) -> None:
        """Both sides show the scan's pixels, and the colors that the file will have."""
        color_it(page, large)
        stage = page.locator("#stage")
        # One pixel of the scan on one of the screen.
        x, y = page.evaluate(
            """async () => {
                const { view, zoom } = await import("/static/view.js");
                zoom(2600 / view.width, 200, 100);
                return [Math.round(view.x), Math.round(view.y)];
            }"""
        )
        expect(stage).to_have_attribute("data-level", "0")
        expect(stage).to_have_attribute("data-missing", "0")
        expect(page.locator("#zoom-level")).to_have_text("100%")
        data = pixels(downloaded(page))
        original = np.asarray(Image.open(large).convert("RGB")).astype(int)
        for canvas, expected in (("then-tiles", original), ("now-tiles", data)):
            seen = shown(page, canvas).astype(int)
            height, width = seen.shape[:2]
            part = expected[-y : -y + height, -x : -x + width]
            assert part.shape == seen.shape
            # What is left is the JPEG of the tiles, whose loss is all in the grain.
            assert np.abs(seen - part).mean() < 2.5, canvas
        assert np.abs(seen - shown(page, "then-tiles")).mean() > 3  # in color

    def test_tiles_after_the_service_has_forgotten_them(self, open_page: Open, large: Path) -> None:
        with serve() as first:
            page = open_page(first.address)
            color_it(page, large)
            assert first.end() == 0
            port = urlsplit(first.address).port
            with serve(port=port):
                for _ in range(4):
                    page.locator("#zoom-in").click()
                expect(page.locator("#stage")).to_have_attribute("data-missing", "0")
                assert np.ptp(shown(page, "then-tiles")) > 50

    def test_wheel_keys_and_buttons(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        x, y = point(page, 0.25, 0.5)
        page.mouse.move(x, y)
        page.mouse.wheel(0, -300)
        expect(page.locator("#stage")).not_to_have_attribute("data-zoom", "1.00")
        under = point(page, 0.25, 0.5)
        assert np.hypot(under[0] - x, under[1] - y) < 2  # what was under the pointer stays there
        zoomed = zoom_of(page)
        page.locator("#pointer").focus()
        page.keyboard.press("+")
        assert zoom_of(page) > zoomed
        before = point(page, 0, 0)
        page.keyboard.press("ArrowRight")
        assert point(page, 0, 0)[0] < before[0]
        page.keyboard.press("0")
        expect(page.locator("#stage")).to_have_attribute("data-zoom", "1.00")
        page.locator("#zoom-in").click()
        assert zoom_of(page) == 1.5

    def test_pan(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        for _ in range(3):
            page.locator("#zoom-in").click()
        before = point(page, 0, 0)
        box = page.locator("#stage").bounding_box()
        start = (box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"])
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(start[0] - 50, start[1] - 20)
        page.mouse.up()
        after = point(page, 0, 0)
        assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((-50, -20), abs=1)

    def test_pinch(self, open_page: Open, picture: Path) -> None:
        page = open_page(**SIZES["phone"])
        color_it(page, picture)
        x, y = point(page, 0.5, 0.5)
        touch = page.context.new_cdp_session(page)

        def fingers(kind: str, apart: float) -> None:
            points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
            both = {"type": kind, "touchPoints": [] if kind == "touchEnd" else points}
            touch.send("Input.dispatchTouchEvent", both)

        fingers("touchStart", 20)
        fingers("touchMove", 40)
        fingers("touchMove", 60)
        fingers("touchEnd", 60)
        expect(page.locator("#stage")).to_have_attribute(
            "data-zoom", re.compile(r"^(2\.[5-9]|3\.)")
        )

    def test_full_screen(self, open_page: Open, picture: Path) -> None:
        page = open_page(**SIZES["desktop"])
        color_it(page, picture)
        page.get_by_role("button", name="Full screen").click()
        expect(page.locator("#viewer:fullscreen")).to_be_attached()
        expect(page.locator("#full")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Full screen").click()
        expect(page.locator("#viewer:fullscreen")).not_to_be_attached()


class TestHints:
    @pytest.fixture(autouse=True)
    def hinting(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        page.get_by_role("radio", name="Turkey red").check()
        expect(page.get_by_role("radio", name="Add a color hint")).to_be_checked()

    def drag(self, page: Page, *way: tuple[float, float]) -> None:
        page.mouse.move(*point(page, *way[0]))
        page.mouse.down()
        for at in way[1:]:
            page.mouse.move(*point(page, *at))
        page.mouse.up()

    def made(self, page: Page) -> list[dict[str, Any]]:
        """Hints as the JSON file has them."""
        if not page.locator("#save-hints").is_visible():
            page.get_by_text("Hints as a file").click()
        return json.loads(downloaded(page, button="#save-hints"))["points"]

    def test_a_point(self, page: Page) -> None:
        at = (0.75, 0.6)
        page.mouse.click(*point(page, *at))
        expect(page.locator("#marks button")).to_have_count(1)
        expect(page.locator("#hint-count")).to_have_text(
            "1 hint added. Choose “Color again” to apply it."
        )
        expect(page.locator("#save")).to_be_disabled()
        page.get_by_role("button", name="Color again").click()
        wait_until_colored(page, 2)  # the other stays
        data = downloaded(page)
        lab = skimage.color.rgb2lab(pixels(data).astype(np.uint8))
        here = lab[round(at[1] * lab.shape[0]), round(at[0] * lab.shape[1])]
        red = color.srgb_to_lab(np.array([0xB3, 0x26, 0x2E], np.float32) / 255)
        # At the photograph's own lightness; a color that does not exist there has less chroma.
        hue = np.degrees(np.arctan2(here[2], here[1]) - np.arctan2(red[2], red[1]))
        assert abs(hue) < 12
        assert np.hypot(here[1], here[2]) > 10
        made = provenance.parse(photo.read_xmp(data))
        assert json.loads(made.hints)["points"] == self.made(page)
        # The first coloring has no hints, and Save gives it again.
        first = page.get_by_role("radio", name="Coloring 1, seed 0")
        repainted(page, lambda: first.check())
        expect(page.locator("#marks button")).to_have_count(0)
        assert np.abs(pixels(downloaded(page)) - shown(page)).mean() < 1

    def test_move_recolor_remove_by_pointer(self, page: Page) -> None:
        page.mouse.click(*point(page, 0.3, 0.3))
        self.drag(page, (0.3, 0.3), (0.4, 0.4), (0.6, 0.5))
        (hint,) = self.made(page)
        assert (hint["x"], hint["y"]) == pytest.approx((0.6, 0.5), abs=0.01)
        page.get_by_role("radio", name="Prussian blue").check()
        assert self.made(page)[0]["color"] == "#1d4270"
        page.mouse.click(*point(page, 0.6, 0.5))
        page.get_by_role("button", name="Remove", exact=True).click()
        expect(page.locator("#marks button")).to_have_count(0)
        page.keyboard.press("Control+z")
        expect(page.locator("#marks button")).to_have_count(1)
        page.keyboard.press("Control+Shift+z")
        expect(page.locator("#marks button")).to_have_count(0)

    def test_by_keys(self, page: Page) -> None:
        page.locator("#pointer").focus()
        page.keyboard.press("Shift+ArrowLeft")
        expect(page.locator("#where")).to_have_text("40% from the left, 50% from the top")
        page.keyboard.press("Enter")
        mark = page.get_by_role("button", name=re.compile("^Hint 1: Turkey red, 40% from the left"))
        page.get_by_role("radio", name="Turkey red").focus()
        page.keyboard.press("ArrowRight")  # to mustard, for the next hint
        mark.focus()
        page.keyboard.press("Enter")
        mark = page.get_by_role("button", name=re.compile("^Hint 1: mustard, 40% from the left"))
        expect(mark).to_be_focused()
        page.keyboard.press("ArrowDown")
        mark = page.get_by_role("button", name=re.compile("41% from the left|51% from the top"))
        expect(mark).to_be_focused()
        page.keyboard.press("Delete")
        expect(page.locator("#marks button")).to_have_count(0)
        expect(page.locator("#pointer")).to_be_focused()

    def test_a_stroke(self, page: Page) -> None:
        self.drag(page, (0.2, 0.5), (0.4, 0.5), (0.6, 0.55))
        expect(page.locator("#marks button")).to_have_count(1)
        points = self.made(page)
        assert len(points) > 5
        assert points[0]["x"] == pytest.approx(0.2, abs=0.01)
        assert points[-1]["x"] == pytest.approx(0.6, abs=0.04)

    def test_out_and_in(self, page: Page, tmp_path: Path, picture: Path) -> None:
        self.drag(page, (0.2, 0.5), (0.4, 0.5))
        page.mouse.click(*point(page, 0.7, 0.2))
        before = self.made(page)
        file = tmp_path / "hints.json"
        file.write_text(json.dumps({"points": before}))
        color_it(page, picture)
        page.locator("#load-hints").set_input_files(file)
        expect(page.locator("#marks button")).to_have_count(2)
        assert self.made(page) == before
        file.write_text('{"points": [{"x": 1}]}')
        page.locator("#load-hints").set_input_files(file)
        expect(page.get_by_role("alert")).to_have_text("This file holds no hints.")
        expect(page.locator("#marks button")).to_have_count(2)

    def test_done_again_from_the_file(self, page: Page, tmp_path: Path) -> None:
        page.mouse.click(*point(page, 0.75, 0.6))
        page.get_by_role("button", name="Color again").click()
        wait_until_colored(page, 2)
        before = shown(page)
        path = tmp_path / "colored.png"
        path.write_bytes(downloaded(page))
        color_it(page, path)
        page.get_by_role("button", name="Color as recorded in this file").click()
        wait_until_colored(page, 2)
        assert np.abs(shown(page).astype(int) - before).mean() < 2
        # From other weights.
        marks = provenance.parse(photo.read_xmp(path.read_bytes()))
        assert marks is not None
        xmp = provenance.packet(dataclasses.replace(marks, weights_sha256="0" * 64))
        chunk = PngInfo()
        chunk.add_itxt("XML:com.adobe.xmp", xmp.decode())
        Image.open(path).save(path, pnginfo=chunk)
        color_it(page, path)
        expect(page.locator("#notes")).to_contain_text("those colors can’t be repeated here")
        expect(page.locator("#redo-marks")).to_be_hidden()

    def test_palette_stays_with_the_picture(self, page: Page) -> None:
        page.mouse.click(*point(page, 0.5, 0.5))
        page.locator("#rerun").scroll_into_view_if_needed()
        for part in ("#stage", "#palette", "#rerun"):
            assert in_sight(page, page.locator(part)), part

    def test_softened(self, page: Page, tmp_path: Path) -> None:
        white = tmp_path / "white.png"
        Image.linear_gradient("L").point(lambda v: 235 + v // 16).save(white)
        color_it(page, white)
        page.get_by_role("radio", name="Turkey red").click()
        page.mouse.click(*point(page, 0.5, 0.5))
        page.get_by_role("button", name="Color again").click()
        expect(page.locator("#notes")).to_contain_text(
            "Hint 1: this spot is too light or dark for so strong a color; softened."
        )


class TestHistory:
    def test_colorings_stay(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        first = shown(page)
        page.get_by_role("button", name="Show four colorings").click()
        wait_until_colored(page, 5)
        page.get_by_role("button", name="Show four others").click()
        wait_until_colored(page, 9)
        fourth = page.get_by_role("radio", name=re.compile("Coloring 4, seed"))
        repainted(page, lambda: fourth.check())
        data = downloaded(page)
        assert np.abs(pixels(data) - shown(page)).mean() < 1
        made = provenance.parse(photo.read_xmp(data))
        assert made is not None and (made.candidate, made.candidates) == (3, 4)
        repainted(page, lambda: page.get_by_role("radio", name="Coloring 1, seed 0").check())
        assert np.array_equal(shown(page), first)

    def test_reload_and_back(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        page.get_by_role("radio", name="Turkey red").check()
        page.mouse.click(*point(page, 0.5, 0.5))
        page.get_by_role("button", name="Color again").click()
        wait_until_colored(page, 2)
        before = shown(page)

        def as_before() -> None:
            expect(page.locator("body[data-ready]")).to_be_attached()
            expect(page.locator("#colorings label")).to_have_count(2)
            assert np.array_equal(shown(page), before)
            expect(page.locator("#marks .mark")).to_have_count(1)
            expect(page.locator("#save")).to_be_enabled()

        page.reload()
        as_before()
        page.get_by_role("link", name="API").click()
        expect(page.get_by_role("heading", name="API")).to_be_visible()
        page.go_back()
        as_before()
        page.locator("#new").click()
        expect(page.locator("#work")).to_be_hidden()
        page.go_back()
        as_before()
        page.locator("#new").click()
        page.locator("#visited button").click()
        as_before()
        assert np.abs(pixels(downloaded(page)) - before).mean() < 1

    def test_nothing_readable_is_left_in_the_browser(self, open_page: Open, picture: Path) -> None:
        page = open_page()
        color_it(page, picture)
        page.reload()
        expect(page.locator("#colorings label")).to_have_count(1)
        kept = page.evaluate(
            """() => new Promise((resolve) => {
                const opening = indexedDB.open("colorized");
                opening.onsuccess = () => {
                    const store = opening.result.transaction("visit").objectStore("visit");
                    store.getAll().onsuccess = ({ target }) => resolve(target.result.map(
                        ({ data }) => Array.from(new Uint8Array(data))));
                };
            })"""
        )
        assert len(kept) >= 3
        for data in map(bytes, kept):
            assert b"PNG" not in data and b"my scan" not in data
        page.locator("#new").click()
        page.get_by_role("button", name="Forget all").click()
        expect(page.locator("#visit")).to_be_hidden()

    def test_leaving_warns_before_loss(self, open_page: Open, picture: Path) -> None:
        """Where the browser keeps nothing."""
        page = open_page()
        page.add_init_script("delete Crypto.prototype.subtle;")
        page.reload()
        expect(page.locator("body[data-ready]")).to_be_attached()
        color_it(page, picture)
        page.locator("#several").click()  # a page that was never touched may not ask
        wait_until_colored(page, 5)
        asked: list[str] = []
        page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
        with contextlib.suppress(Exception):  # the navigation is called off
            page.evaluate("location.href = '/docs'")
        page.wait_for_function("true")
        expect(page.locator("#work")).to_be_visible()
        assert asked == ["beforeunload"]


class TestOriginal:
    @pytest.mark.parametrize("tint", [(1, 0.85, 0.65), (0.3, 0.5, 1)], ids=["sepia", "color"])
    def test_is_shown_as_it_is(
        self, page: Page, picture: Path, tmp_path: Path, tint: tuple[float, ...]
    ) -> None:
        gray = np.asarray(Image.open(picture).convert("L"))[..., None]
        tinted = (gray * np.array(tint)).astype(np.uint8)
        path = tmp_path / "tinted.png"
        Image.fromarray(tinted).save(path)
        color_it(page, path)
        assert np.abs(shown(page, "then").astype(int) - tinted).mean() < 3
        note = "The photograph’s own colors were replaced; “Original” shows them."
        expect(page.locator("#notes")).to_have_text(note)

    def test_slider_and_divider_stand_together(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        slider = page.locator("#slider")
        box = page.locator("#now").bounding_box()

        def share() -> float:
            divider = page.locator("#divider").bounding_box()
            return (divider["x"] + divider["width"] / 2 - box["x"]) / box["width"]

        slider.focus()
        page.keyboard.press("Home")
        assert share() == pytest.approx(0, abs=0.01)
        expect(slider).to_have_attribute("aria-valuetext", "100% colorized")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        expect(slider).to_have_value("3")
        assert share() == pytest.approx(0.03, abs=0.01)
        page.mouse.click(*point(page, 0.25, 0.5))
        expect(slider).to_have_value("25")
        box = page.locator("#now").bounding_box()
        assert share() == pytest.approx(0.25, abs=0.01)

    def test_very_tall(self, page: Page, tmp_path: Path) -> None:
        color_it(page, scan(tmp_path / "tall.png", (100, 1500)))
        stage, picture = (page.locator(name).bounding_box() for name in ("#stage", "#now"))
        assert picture["y"] >= stage["y"] - 1
        assert picture["height"] <= stage["height"] + 1
        assert picture["width"] / picture["height"] == pytest.approx(1 / 15, rel=0.05)
        assert in_sight(page, page.locator("#stage"))


class TestWords:
    @pytest.mark.parametrize(
        ("locale", "language", "save"), [("de-CH", "de", "Speichern"), ("es-MX", "es", "Guardar")]
    )
    def test_of_the_browser(
        self, open_page: Open, picture: Path, locale: str, language: str, save: str
    ) -> None:
        page = open_page(locale=locale, **SIZES["phone"])
        expect(page.locator("html")).to_have_attribute("lang", language)
        upload(page, picture)
        expect(page.get_by_role("button", name=save, exact=True)).to_be_enabled()
        assert not page.evaluate(STICKS_OUT)

    def test_a_switch_keeps_the_photograph(self, page: Page, picture: Path) -> None:
        color_it(page, picture)
        page.get_by_role("link", name="Deutsch").click()
        expect(page.locator("html")).to_have_attribute("lang", "de")
        expect(page.get_by_role("button", name="Neu kolorieren")).to_be_visible()
        expect(page.locator("#colorings label")).to_have_count(1)


STICKS_OUT = "document.documentElement.scrollWidth > innerWidth"


def serious(page: Page) -> list[str]:
    """What axe finds that keeps people out."""
    return [
        f"{v['id']}: {v['nodes'][0]['html']}"
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


class TestAccess:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(
        "media", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"forced_colors": "active"}],
        ids=["light", "dark", "forced"],
    )  # fmt: skip
    def test_axe(self, open_page: Open, picture: Path, media: dict[str, str], size: str) -> None:
        page = open_page(**media, **SIZES[size])
        expect(page.locator("#samples button")).to_have_count(SAMPLES)
        assert serious(page) == []
        color_it(page, picture)
        page.get_by_role("button", name="Show four colorings").click()
        expect(page.locator("#colorings label")).to_have_count(5)
        page.get_by_label("Show where colorings differ").check()
        expect(page.locator("#legend-text")).to_contain_text("Darker = colorings differ more")
        expect(page.locator("#doubt")).to_be_visible()
        assert serious(page) == []
        page.get_by_role("radio", name="Turkey red").check()
        page.mouse.click(*point(page, 0.5, 0.5))
        assert serious(page) == []
        home = page.evaluate("location.origin")
        for path in ("docs", "signin"):
            page.goto(f"{home}/{path}")
            assert serious(page) == []

    def test_forced_colors_keep_colors(self, open_page: Open, picture: Path) -> None:
        page = open_page(forced_colors="active")
        color_it(page, picture)
        swatches = page.locator("#palette span")
        found = swatches.evaluate_all(
            "(nodes) => nodes.map((node) => getComputedStyle(node).backgroundColor)"
        )
        assert len(set(found)) == len(found) == 14
        # A hint shows its color, and the mode that is on differs from the other.
        page.get_by_role("radio", name="Turkey red").check()
        page.mouse.click(*point(page, 0.5, 0.5))
        style = "(node, name) => getComputedStyle(node)[name]"
        assert page.locator("#marks .dot").evaluate(style, "backgroundColor") == "rgb(179, 38, 46)"
        assert page.locator("#marks button").evaluate(style, "outlineColor") == "rgb(179, 38, 46)"
        modes = page.locator(".modes span")
        compare, hint = (modes.nth(k).evaluate(style, "backgroundColor") for k in (0, 1))
        assert compare != hint

    def test_by_keyboard_alone(self, page: Page, picture: Path) -> None:
        """From an example to a hint to the saved file."""

        def tab_to(what: Locator, key: str = "Tab") -> None:
            for _ in range(60):
                if what.evaluate("(node) => node === document.activeElement"):
                    return
                page.keyboard.press(key)
            raise AssertionError(f"{what} is not reached")

        samples = page.locator("#samples button")
        expect(samples).to_have_count(SAMPLES)
        tab_to(samples.filter(has_text="Dust Bowl"))
        page.keyboard.press("Enter")
        wait_until_colored(page)
        expect(page.locator("#pointer")).to_be_focused()
        tab_to(page.get_by_role("radio", name="sky"))
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("radio", name="foliage")).to_be_focused()  # the choice keeps it
        tab_to(page.locator("#pointer"), "Shift+Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#where")).to_have_text("1 hint added.")
        tab_to(page.get_by_role("button", name="Color again"))
        page.keyboard.press("Enter")
        wait_until_colored(page, 2)
        tab_to(page.locator("#save"), "Shift+Tab")
        with page.expect_download(timeout=180_000):
            page.keyboard.press("Enter")
        tab_to(page.locator("#new"))
        page.keyboard.press("Enter")
        expect(page.locator("#file")).to_be_focused()

    @pytest.mark.parametrize("width", [360, 768, 1280])
    def test_nothing_sticks_out(self, open_page: Open, picture: Path, width: int) -> None:
        page = open_page(viewport={"width": width, "height": 740})
        expect(page.locator("#samples button")).to_have_count(SAMPLES)
        assert not page.evaluate(STICKS_OUT)
        color_it(page, picture)
        assert not page.evaluate(STICKS_OUT)
        page.get_by_role("radio", name="Turkey red").check()
        assert not page.evaluate(STICKS_OUT)
        page.goto(f"{page.url}docs")
        expect(page.locator("body[data-ready]")).to_be_attached()
        assert not page.evaluate(STICKS_OUT)


def test_docs_tell_of_events_limits_and_the_exact_maximum_of_a_seed(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("link", name="API").click()
    expect(page.locator("body[data-ready]")).to_be_attached()
    expect(page.locator("#paths")).to_contain_text("integer, 0 … 9223372036854775807")
    for event in ("waiting", "opened", "done", "tiles"):
        expect(page.get_by_role("heading", name=event, exact=True)).to_be_visible()
    for text in ("Example: 1", "Retry-After: Seconds to wait", '"color": "#8b1a1a"'):
        expect(page.locator("#paths")).to_contain_text(text)
    expect(page.locator("#limits")).to_contain_text("100,000,000")
    expect(page.locator("main")).to_contain_text("Authorization: Bearer TOKEN")


def test_sign_in_by_the_printed_address(open_page: Open, picture: Path) -> None:
    with serve("--token", "a-token-of-the-tests") as server:
        page = open_page(server.address)
        assert "token" not in page.url
        color_it(page, picture)


def test_paint_is_that_of_the_library(open_page: Open) -> None:
    """lab.js against color.recombine, on chroma of which much does not exist in sRGB."""
    page = open_page()
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, 5000).astype(np.uint8)
    plane = rng.integers(0, 256, (5000, 4)).astype(np.uint8)
    unit, saturation = 0.7, 1.3
    painted = page.evaluate(
        """async ([gray, plane, unit, saturation]) => {
            const { paint } = await import("/static/lab.js");
            const out = new Uint8ClampedArray(plane.length);
            paint(Uint8Array.from(gray), Uint8Array.from(plane), unit, saturation, out);
            return Array.from(out);
        }""",
        [gray.tolist(), plane.ravel().tolist(), unit, saturation],
    )
    ours = np.array(painted).reshape(-1, 4)
    levels = np.repeat(gray[:, None], 3, 1).astype(np.float32) / 255
    ab = ((plane[:, :2].astype(np.float32) - 128) * np.float32(unit)) * np.float32(saturation)
    expected = color.recombine(color.lightness(levels), ab).astype(int)
    assert np.abs(ours[:, :3] - expected).max() <= 1
    assert (ours[:, 3] == 255).all()


def test_scan_of_50_megapixels(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    path = tmp_path / "large.jpg"
    with Image.open(ARCHIVE / "french-alpine-landscape.jpg") as image:
        image.convert("L").resize((8192, 6144), Image.Resampling.BICUBIC).save(path, quality=92)
    upload(page, path)
    wait_until_colored(page)
    expect(page.locator("#size")).to_have_text("8192 × 6144")
    with Image.open(io.BytesIO(downloaded(page, "jpeg"))) as colored:
        assert (colored.format, colored.size) == ("JPEG", (8192, 6144))
        assert colorfulness(np.asarray(colored.reduce(16))) > 3
