"""The two newest training runs, compared in the MLflow UI → docs/pictures/mlflow.png.

python docs/screenshot.py [--store sqlite:///…/mlflow.db] [--out FILE]

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
from urllib.error import URLError
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Route, ViewportSize, expect, sync_playwright

from colorized import tracking

ROOT = Path(__file__).resolve().parent.parent
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
SIZE = ViewportSize(width=1400, height=1060)
METRICS = ("loss", "val_loss", "fid", "colorfulness", "delta_e", "diversity")
CHARTS = f"^({'|'.join(METRICS)})$"
STARTUP_SECONDS = 120
TIMEOUT_MS = 60_000
SETTLE_MS = 3000  # until charts have faded in


def newest_runs(store: str) -> tuple[str, list[str]]:
    """The experiment's id and those of its two newest finished runs."""
    os.environ["MLFLOW_TRACKING_URI"] = store
    client = tracking.connect(ROOT)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    runs = experiment and client.search_runs(
        [experiment.experiment_id],
        "attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=2,
    )
    if not experiment or not runs or len(runs) < 2:
        found = len(runs) if runs else 0
        sys.exit(f"error: {store}: a comparison needs two finished training runs, found {found}")
    return experiment.experiment_id, [run.info.run_id for run in runs]


@contextmanager
def serve(store: str) -> Iterator[str]:
    """The address of what `make ui` starts, for as long as it is needed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PORT": str(port)}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    server = subprocess.Popen(
        [sys.executable, "-m", "pipelines.ui"], cwd=ROOT, env=environment, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: the MLflow UI did not start on {address}")
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5):
            return True
    except (URLError, TimeoutError):
        return False


def photograph(address: str, experiment: str, runs: list[str]) -> bytes:
    """PNG of the runs' charts."""
    chosen = ", ".join(f"'{run}'" for run in runs)
    query = quote(f"attributes.run_id IN ({chosen})")
    url = (
        f"{address}/#/experiments/{experiment}/runs"
        f"?workflowType=machine_learning&compareRunsMode=CHART&searchFilter={query}"
    )
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
        page.wait_for_timeout(SETTLE_MS)
        shot = page.screenshot(animations="disabled")
        browser.close()
    return shot


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=tracking.tracking_uri(ROOT))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "mlflow.png")
    arguments = parser.parse_args()
    experiment, runs = newest_runs(arguments.store)
    with serve(arguments.store) as address:
        shot = photograph(address, experiment, runs)
    arguments.out.parent.mkdir(exist_ok=True)
    # A user interface has few colors: a palette makes a third of the size.
    Image.open(io.BytesIO(shot)).quantize(256).save(arguments.out, optimize=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
