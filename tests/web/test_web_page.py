"""The reading room in a real browser: what people do there, and what they then see."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import skimage.color
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from web_server import ARCHIVE, Server, scan, serve

from colorized import color, photo
from colorized.photo import provenance

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 120_000
SAMPLES = 6

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("room")) as server:
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
        context = browser.new_context(**options)
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


@pytest.fixture
def page(open_page: Open) -> Page:
    return open_page()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scan(tmp_path_factory.mktemp("scan") / "my scan.png", (240, 180))


def upload(page: Page, path: Path) -> None:
    page.get_by_label("Choose a photograph").set_input_files(path)


def wait_until_colored(page: Page) -> None:
    expect(page.get_by_role("button", name="Download")).to_be_enabled()


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


def repainted(page: Page, act: Callable[[], None]) -> None:
    """Do something that paints the picture, and wait until it is painted."""
    stage = page.locator("#stage")
    before = int(stage.get_attribute("data-painted") or 0)
    act()
    expect(stage).not_to_have_attribute("data-painted", str(before))


def downloaded(page: Page, format: str = "png") -> bytes:
    page.get_by_label("Format").select_option(format)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    return Path(download.value.path()).read_bytes()


def colorfulness(rgb: np.ndarray) -> float:
    return float(np.ptp(rgb.astype(int), axis=-1).mean())


def test_from_upload_to_download(page: Page, picture: Path) -> None:
    upload(page, picture)
    wait_until_colored(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "my scan-colorized.png"
    data = Path(download.value.path()).read_bytes()
    colored = np.asarray(Image.open(io.BytesIO(data)))
    lightness = photo.read_photo(picture).lightness
    L = skimage.color.rgb2lab(colored)[..., 0]
    assert np.abs(L - lightness).max() < 0.6
    assert colorfulness(colored) > 5
    # What was seen is what was got.
    assert np.abs(shown(page).astype(int) - colored).mean() < 1
    made = provenance.parse(photo.read_xmp(data))
    assert made is not None and made.seed == 0
    # Nothing else says it, either: the photograph left no name behind.
    assert b"my scan" not in data


def test_a_photograph_of_the_archive(page: Page) -> None:
    samples = page.locator("#samples button")
    expect(samples).to_have_count(SAMPLES)
    samples.filter(has_text="Dust Bowl").click()
    wait_until_colored(page)
    expect(page.locator("#size")).to_have_text("665 × 512 pixels")
    assert colorfulness(shown(page)) > 5
    assert colorfulness(shown(page, "then")) == 0


def test_color_appears_as_sampling_goes_on(page: Page, picture: Path) -> None:
    upload(page, picture)
    wait_until_colored(page)
    # Once for the photograph's arrival at least, and for the end.
    assert int(page.locator("#stage").get_attribute("data-painted") or 0) >= 1
    expect(page.get_by_role("status").first).to_have_text("Colored by machine.")


def test_slider_by_keyboard_and_pointer(page: Page, picture: Path) -> None:
    upload(page, picture)
    wait_until_colored(page)
    slider = page.get_by_role("slider", name="Then and now")
    slider.focus()
    page.keyboard.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "100 percent in color")
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_value("99")
    stage = page.locator("#stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
    expect(slider).to_have_value("75")
    share = stage.evaluate("(stage) => stage.style.getPropertyValue('--share')")
    assert share == "75%"


def test_saturation_answers_without_the_service(page: Page, picture: Path) -> None:
    upload(page, picture)
    wait_until_colored(page)
    before = shown(page)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    strength = page.get_by_role("slider", name="Strength of color")
    strength.focus()
    repainted(page, lambda: page.keyboard.press("Home"))
    gray = shown(page)
    assert colorfulness(gray) == 0
    repainted(page, lambda: page.keyboard.press("End"))
    strong = shown(page)
    assert colorfulness(strong) > 1.2 * colorfulness(before)
    assert [url for url in requests if "/api/" in url] == []
    # Lightness stays, whatever the strength.
    L = [skimage.color.rgb2lab(rgb)[..., 0] for rgb in (gray, strong)]
    assert np.abs(L[0] - L[1]).max() < 0.7
    # And the file has it, too.
    colored = np.asarray(Image.open(io.BytesIO(downloaded(page))))
    assert np.abs(colored.astype(int) - strong).mean() < 1.5


def test_candidates_and_where_they_disagree(page: Page, picture: Path) -> None:
    upload(page, picture)
    wait_until_colored(page)
    page.get_by_role("button", name="Show four colorings").click()
    choices = page.get_by_role("radio", name=re.compile(r"Coloring \d of 4"))
    expect(choices).to_have_count(4)
    wait_until_colored(page)
    first = shown(page)
    repainted(page, lambda: choices.nth(2).check())
    third = shown(page)
    assert np.abs(first.astype(int) - third).mean() > 1
    colored = np.asarray(Image.open(io.BytesIO(downloaded(page))))
    assert np.abs(colored.astype(int) - third).mean() < 1
    doubt = page.get_by_label("Show where they disagree")
    doubt.check()
    expect(page.locator("#legend-text")).to_contain_text("CIELAB units")
    assert page.locator("#doubt").is_visible()


def test_hints(page: Page, picture: Path) -> None:
    upload(page, picture)
    wait_until_colored(page)
    page.get_by_role("radio", name="Turkey red").check()
    stage = page.locator("#stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    at = (0.75, 0.6)
    page.mouse.click(box["x"] + box["width"] * at[0], box["y"] + box["height"] * at[1])
    marks_shown = page.locator("#marks span")
    expect(marks_shown).to_have_count(1)
    # By keyboard: the crosshair is where the click was.
    page.locator("#pointer").focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    expect(marks_shown).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(marks_shown).to_have_count(1)
    expect(page.get_by_role("button", name="Download")).to_be_disabled()
    page.get_by_role("button", name="Color again").click()
    wait_until_colored(page)
    data = downloaded(page)
    lab = skimage.color.rgb2lab(np.asarray(Image.open(io.BytesIO(data))))
    here = lab[round(at[1] * lab.shape[0]), round(at[0] * lab.shape[1])]
    red = color.srgb_to_lab(np.array([0xB3, 0x26, 0x2E], np.float32) / 255)
    # At the photograph's own lightness; a color that does not exist there has less chroma.
    hue = np.degrees(np.arctan2(here[2], here[1]) - np.arctan2(red[2], red[1]))
    assert abs(hue) < 12
    assert np.hypot(here[1], here[2]) > 10
    page.get_by_role("button", name="Clear").click()
    expect(marks_shown).to_have_count(0)


def test_paint_is_that_of_the_library(page: Page) -> None:
    """lab.js against color.recombine, on chroma of which much does not exist in sRGB."""
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


def test_drop_and_paste(page: Page, picture: Path) -> None:
    give = """([bytes, kind]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], "given.png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(kind === "paste"
            ? new ClipboardEvent("paste", { ...options, clipboardData: data })
            : new DragEvent("drop", { ...options, dataTransfer: data }));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [list(picture.read_bytes()), kind])
        wait_until_colored(page)
        expect(page.locator("#size")).to_have_text("240 × 180 pixels")
        page.get_by_role("button", name="Another photograph").click()
        expect(page.get_by_text("Drop a photograph here")).to_be_visible()


def test_text_that_is_called_a_photograph(page: Page, tmp_path: Path, picture: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("no picture")
    upload(page, path)
    trouble = page.get_by_role("alert")
    expect(trouble).to_contain_text("the photograph: no picture of a known format")
    expect(page.locator("#work")).to_be_hidden()
    upload(page, picture)
    wait_until_colored(page)
    expect(trouble).to_be_hidden()


def test_scan_of_50_megapixels(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with Image.open(ARCHIVE / "french-alpine-landscape.jpg") as image:
        image.convert("L").resize((8192, 6144), Image.Resampling.BICUBIC).save(path, quality=92)
    upload(page, path)
    wait_until_colored(page)
    expect(page.locator("#size")).to_have_text("8192 × 6144 pixels")
    with Image.open(io.BytesIO(downloaded(page, "jpeg"))) as colored:
        assert (colored.format, colored.size) == ("JPEG", (8192, 6144))
        assert colorfulness(np.asarray(colored.reduce(16))) > 3


def test_two_tabs(open_page: Open, tmp_path: Path) -> None:
    pages = [open_page(), open_page()]
    sizes = [(200, 150), (150, 200)]
    for page, size in zip(pages, sizes, strict=True):
        upload(page, scan(tmp_path / f"{size[0]}.png", size))
    for page, size in zip(pages, sizes, strict=True):
        wait_until_colored(page)
        expect(page.locator("#size")).to_have_text(f"{size[0]} × {size[1]} pixels")
        assert shown(page).shape[:2] == size[::-1]


def test_restart_in_the_middle(open_page: Open, tmp_path: Path, picture: Path) -> None:
    with serve(tmp_path / "first") as first:
        page = open_page(first.address)
        upload(page, picture)
        wait_until_colored(page)
        assert first.end() == 0
        page.get_by_role("button", name="Show four colorings").click()
        expect(page.get_by_role("alert")).to_contain_text("Your photograph is still here")
        assert colorfulness(shown(page)) > 5  # and so are its colors
        port = urlsplit(first.address).port
        assert port is not None
        with serve(tmp_path / "second", port=port):
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#colorings label")).to_have_count(4)
            expect(page.get_by_role("alert")).to_be_hidden()


def test_sign_in_by_the_printed_address(open_page: Open, tmp_path: Path, picture: Path) -> None:
    with serve(tmp_path / "room", "--token", "a-token-of-the-tests") as server:
        page = open_page(server.address)
        assert "token" not in page.url
        upload(page, picture)
        wait_until_colored(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(open_page: Open, picture: Path, scheme: str) -> None:
    """axe finds nothing serious."""
    page = open_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})

    def serious() -> list[str]:
        found = Axe().run(page).response["violations"]
        return [
            f"{v['id']}: {v['nodes'][0]['html']}"
            for v in found
            if v["impact"] in ("serious", "critical")
        ]

    expect(page.locator("#samples button")).to_have_count(SAMPLES)
    assert serious() == []
    upload(page, picture)
    wait_until_colored(page)
    page.get_by_role("button", name="Show four colorings").click()
    expect(page.locator("#colorings label")).to_have_count(4)
    page.get_by_label("Show where they disagree").check()
    assert serious() == []
    page.get_by_role("radio", name="Say a color").check()
    assert serious() == []
    home = page.url
    for path in ("docs", "signin"):
        page.goto(home + path)
        assert serious() == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out(open_page: Open, picture: Path, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 740})
    expect(page.locator("#samples button")).to_have_count(SAMPLES)
    sticks_out = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(sticks_out)
    upload(page, picture)
    wait_until_colored(page)
    assert not page.evaluate(sticks_out)
    page.goto(f"{page.url}docs")
    expect(page.locator("body[data-ready]")).to_be_attached()
    assert not page.evaluate(sticks_out)
