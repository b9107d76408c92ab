"""Pictures of the user interfaces → docs/pictures/.

python docs/screenshot.py [mlflow] [--store sqlite:///…/mlflow.db] [--out FILE]
    the two newest training runs, compared in MLflow
python docs/screenshot.py prefect [--out FILE]
    the newest retraining with its artifacts in Prefect, from the database in PREFECT_HOME
python docs/screenshot.py web [--out FILE]
    the page with a photograph of the archive, on a desktop in light colors, on a phone in dark ones

Needs Chromium on the PATH (Debian: `apt-get install chromium`); uses no network.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
from PIL import Image
from playwright.sync_api import Page, Route, ViewportSize, expect, sync_playwright

from colorized import tracking
from colorized.tracking.store import search

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium")
FLAGS = ["--disable-gpu", "--disable-quic"]
SIZE = ViewportSize(width=1400, height=1060)
RUN_HEIGHT, GRID_HEIGHT = 840, 700
METRICS = ("loss", "val_loss", "fid", "colorfulness", "delta_e", "diversity")
CHARTS = f"^({'|'.join(METRICS)})$"
DESKTOP_SIZE, PHONE_SIZE = ViewportSize(width=1280, height=844), ViewportSize(width=390, height=844)
WEB_GAP = 24
STARTUP_SECONDS = 120
TIMEOUT_MS = 60_000
SETTLE_MS = 3000  # until charts have faded in


def newest_runs(store: str) -> tuple[str, list[str]]:
    """The experiment's id and those of its two newest finished runs."""
    os.environ["MLFLOW_TRACKING_URI"] = store
    runs = search(tracking.connect(ROOT), "attributes.status = 'FINISHED'", 2)
    if (found := len(runs)) < 2:
        sys.exit(f"error: {store}: a comparison needs two finished training runs, found {found}")
    return runs[0].info.experiment_id, [run.info.run_id for run in runs]


@contextmanager
def serve(command: str, health: str, **environment: str) -> Iterator[str]:
    """The address of a server, for as long as it is needed.

    In its command and environment PORT stands for the port.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = command.replace("PORT", port).split()
    named = {name: value.replace("PORT", port) for name, value in environment.items()}
    server = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "DO_NOT_TRACK": "true"} | named,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not _answers(f"{address}{health}"):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: {' '.join(arguments)} did not start on {address}")
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def newest_retraining(address: str) -> str:
    """The id of the newest flow run that trained, as its artifacts tell."""
    filters = {
        "sort": "START_TIME_DESC",
        "flows": {"name": {"any_": ["retrain"]}},
        "flow_runs": {"state": {"name": {"any_": ["Completed"]}}},
    }
    runs = httpx.post(f"{address}/api/flow_runs/filter", json=filters, timeout=60).json()
    if not runs:
        sys.exit("error: Prefect knows no retraining: run `colorized retrain` first")
    return str(runs[0]["id"])


@contextmanager
def browse() -> Iterator[Page]:
    """A page of a browser that sees this machine alone."""
    if CHROMIUM is None:
        sys.exit("error: no chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)

        def stay_here(route: Route) -> None:
            local = urlsplit(route.request.url).hostname == "127.0.0.1"
            route.continue_() if local else route.abort()

        page.route("**/*", stay_here)
        yield page
        browser.close()


def photograph_mlflow(address: str, experiment: str, runs: list[str]) -> Image.Image:
    """The runs' charts."""
    chosen = ", ".join(f"'{run}'" for run in runs)
    query = quote(f"attributes.run_id IN ({chosen})")
    url = (
        f"{address}/#/experiments/{experiment}/runs"
        f"?workflowType=machine_learning&compareRunsMode=CHART&searchFilter={query}"
    )
    with browse() as page:
        # MLflow opens a chat over a third of its first page.
        page.add_init_script(
            "localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = true;"
            "localStorage['mlflow.assistant.panelOpen_v1'] = false;"
        )
        page.goto(url)
        page.get_by_role("button", name="Toggle sidebar").click()
        page.get_by_placeholder("Search metric charts").fill(CHARTS)
        shown = page.get_by_test_id("experiment-view-compare-runs-card")
        expect(shown).to_have_count(len(METRICS))
        for i in range(len(METRICS)):
            expect(shown.nth(i).locator(".main-svg").first).to_be_visible()
        page.add_style_tag(content="button[data-assistant-ui] {display: none}")
        return shot(page).quantize(256)  # curves have few colors: a third of the size


def photograph_prefect(address: str, run: str) -> Image.Image:
    """The run's page, with its artifacts, above the page of the picture grid."""
    with browse() as page:
        page.goto(f"{address}/runs/flow-run/{run}")
        page.get_by_text("Artifacts", exact=True).first.click()
        expect(page.get_by_text("promotion").last).to_be_visible()
        above = shot(page).crop((0, 0, SIZE["width"], RUN_HEIGHT))
        page.get_by_text("grid", exact=True).last.click()
        expect(page.get_by_role("img", name="picture grid")).to_be_visible()
        below = shot(page).crop((0, 0, SIZE["width"], GRID_HEIGHT))
    both = Image.new("RGB", (SIZE["width"], RUN_HEIGHT + GRID_HEIGHT))
    both.paste(above, (0, 0))
    both.paste(below, (0, RUN_HEIGHT))
    return both


def photograph_web(address: str) -> Image.Image:
    """The page on a desktop in light colors and on a phone in dark ones, side by side."""
    shots = []
    for size in (DESKTOP_SIZE, PHONE_SIZE):
        with browse() as page:
            page.set_viewport_size(size)
            page.emulate_media(color_scheme="dark" if size is PHONE_SIZE else "light")
            page.goto(address)
            page.get_by_role("button", name="Dust Bowl Home").click()
            expect(page.locator("#save")).to_be_enabled()
            page.locator("#several").click()
            expect(page.locator("#colorings label")).to_have_count(5)
            expect(page.locator("#save")).to_be_enabled()
            if size is PHONE_SIZE:
                page.get_by_role("radio", name="oxblood").check()
                page.locator("#stage").scroll_into_view_if_needed()
                box = page.locator("#now").bounding_box()
                x, y, width, height = (box[key] for key in ("x", "y", "width", "height"))
                page.mouse.click(x + 0.62 * width, y + 0.5 * height)
                page.get_by_role("radio", name="dry grass").check()
                page.mouse.move(x + 0.1 * width, y + 0.78 * height)
                page.mouse.down()
                page.mouse.move(x + 0.4 * width, y + 0.72 * height)
                page.mouse.up()
                page.locator("#rerun").click()
                expect(page.locator("#colorings label")).to_have_count(6)
                expect(page.locator("#save")).to_be_enabled()
            page.evaluate("scrollTo(0, 0)")
            shots.append(shot(page))
    desktop, phone = shots
    both = Image.new("RGB", (desktop.width + WEB_GAP + phone.width, desktop.height), "white")
    both.paste(desktop, (0, 0))
    both.paste(phone, (desktop.width + WEB_GAP, 0))
    return both


def shot(page: Page) -> Image.Image:
    """The page as it is when nothing moves any more."""
    page.wait_for_timeout(SETTLE_MS)
    return Image.open(io.BytesIO(page.screenshot(animations="disabled")))


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tool", nargs="?", choices=["mlflow", "prefect", "web"], default="mlflow")
    parser.add_argument("--store", default=tracking.tracking_uri(ROOT), help="of MLflow")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.tool == "mlflow":
        experiment, runs = newest_runs(arguments.store)
        store = {"MLFLOW_TRACKING_URI": arguments.store, "MLFLOW_DISABLE_TELEMETRY": "true"}
        with serve("pipelines.ui", "/health", PORT="PORT", **store) as address:
            picture = photograph_mlflow(address, experiment, runs)
    elif arguments.tool == "web":
        with serve("colorized web --port PORT", "/healthz") as address:
            picture = photograph_web(address)
    else:
        api = {"PREFECT_SERVER_UI_API_URL": "http://127.0.0.1:PORT/api"}
        start = "prefect server start --port PORT"
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        with serve(start, "/api/health", **api, **quiet) as address:
            picture = photograph_prefect(address, newest_retraining(address))
    # Photographs are smaller as JPEG.
    suffix = "png" if arguments.tool == "mlflow" else "jpg"
    out = arguments.out or ROOT / "docs" / "pictures" / f"{arguments.tool}.{suffix}"
    out.parent.mkdir(exist_ok=True)
    mode = "RGB" if out.suffix == ".jpg" else picture.mode
    picture.convert(mode).save(out, optimize=True, quality=80)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
