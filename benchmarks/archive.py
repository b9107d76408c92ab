"""Time and memory of a 12-megapixel JPEG, of a batch, and of the start of the command.

    .venv/bin/python benchmarks/archive.py [--quick]

The peer of one photograph is what anybody would have to do to change a JPEG's colors and leave its
lightness: Pillow decodes it, OpenCV converts it to CIELAB in floating point and back, and Pillow
encodes it. Both run in turn, with the same number of threads, and the median of each is compared.
The network's own time and the start of the program are left out, and given. Decoding and encoding
alone are given, too.

A batch goes through the command line. How busy it keeps the processors is the processor time of all
its processes over that of the clock and the cores, from the first result to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from PIL import Image

from colorized import photo
from colorized.api import Colorizer
from colorized.batch import colorize_file
from colorized.batch.job import Job, Settings
from colorized.model.header import sampling_defaults
from colorized.model.released import RELEASED

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = sorted((ROOT / "data" / "sample" / "photos").glob("*.jpg"))
RESULTS = ROOT / "benchmarks" / "results" / "archive.json"
SIZE = (4000, 3000)
SETTINGS = Settings(sampling_defaults(RELEASED), max_pixels=300_000_000)


def photograph(path: Path, number: int) -> Path:
    """A gray JPEG of 12 megapixels: four embedded photographs, enlarged, side by side."""
    whole = Image.new("L", SIZE)
    width, height = SIZE[0] // 2, SIZE[1] // 2
    for k in range(4):
        with Image.open(PHOTOS[(number + k) % len(PHOTOS)]) as image:
            part = image.convert("L").resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(part, (k % 2 * width, k // 2 * height))
    whole.save(path, quality=92)
    return path


def plain(source: Path, target: Path) -> None:
    """Decode and encode."""
    with Image.open(source) as image:
        image.convert("RGB").save(target, quality=97, subsampling="4:4:4")
    _sync(target)


def peer(source: Path, target: Path) -> None:
    """Decode, to CIELAB and back, encode."""
    with Image.open(source) as image:
        rgb = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    back = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    pixels = np.rint(back.clip(0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(target, quality=97, subsampling="4:4:4")
    _sync(target)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_photograph(folder: Path, repeats: int) -> dict[str, Any]:
    """Medians, in seconds, of one photograph, and the ratio."""
    threads = len(os.sched_getaffinity(0))
    photo.use_threads(threads)
    cv2.setNumThreads(threads)
    source = photograph(folder / "one.jpg", 0)
    model = Colorizer(RELEASED, name="released")
    drawing: list[float] = []
    draw = model.sampler.candidates

    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return draw(*arguments, **named)
        finally:
            drawing.append(time.perf_counter() - began)

    model.sampler.candidates = timed  # type: ignore[method-assign]
    job = Job(source, folder / "ours" / "one.jpg")
    times: dict[str, list[float]] = {"plain": [], "peer": [], "ours": []}
    colorize_file.colorize_file(job, model, SETTINGS)
    drawing.clear()
    for _ in range(repeats):
        times["plain"].append(seconds(lambda: plain(source, folder / "plain.jpg")))
        times["peer"].append(seconds(lambda: peer(source, folder / "peer.jpg")))
        times["ours"].append(seconds(lambda: colorize_file.colorize_file(job, model, SETTINGS)))
    own = [whole - net for whole, net in zip(times["ours"], drawing, strict=True)]
    peers = statistics.median(times["peer"])
    return {
        "threads": threads,
        "repeats": repeats,
        "decode_encode_s": round(statistics.median(times["plain"]), 3),
        "decode_lab_encode_s": round(peers, 3),
        "ours_without_network_s": round(statistics.median(own), 3),
        "network_s": round(statistics.median(drawing), 3),
        "ratio": round(statistics.median(own) / peers, 3),
        "ratio_range": [
            round(f(o / p for o, p in zip(own, times["peer"], strict=True)), 3) for f in (min, max)
        ],
    }


def batch(folder: Path, count: int) -> dict[str, Any]:
    """How busy a batch keeps the cores, and how much memory its processes have at most."""
    scans = folder / "scans"
    scans.mkdir()
    for number in range(count):
        photograph(scans / f"{number:03}.jpg", number)
    process = subprocess.Popen(
        [sys.executable, "-m", "colorized", "colorize", str(scans), "-o", str(folder / "out")],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    watched = psutil.Process(process.pid)
    peak = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.2):
            for each in watched.children():
                try:
                    peak = max(peak, each.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    threading.Thread(target=watch, daemon=True).start()
    assert process.stdout is not None
    process.stdout.readline()
    # Warm: all processes are at work. The last photographs are left out, when one may have none.
    cores = len(os.sched_getaffinity(0))
    began, busy = time.perf_counter(), _processor_seconds(watched)
    counted = count - 1 - cores
    for _ in range(counted):
        process.stdout.readline()
    wall, busy = time.perf_counter() - began, _processor_seconds(watched) - busy
    process.communicate()
    ended.set()
    if process.returncode:
        raise SystemExit(f"the batch ended with {process.returncode}")
    return {
        "photographs": count,
        "cores": cores,
        "busy": round(busy / wall / cores, 3),
        "seconds_each": round(wall / counted, 3),
        "peak_bytes_of_a_worker": peak,
    }


def _processor_seconds(process: psutil.Process) -> float:
    everyone = [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in everyone)


def memory() -> dict[str, Any]:
    """What a worker has at most, for 1 and for 48 megapixels: what each megapixel costs."""
    code = (
        "import sys; from pathlib import Path; from colorized.api import Colorizer; "
        "from colorized.batch import colorize_file; "
        "from colorized.batch.job import *; from colorized.model.released import RELEASED; "
        "m = Colorizer(RELEASED, name='released'); "
        "s = Settings(m.options, 300_000_000); "
        "o = colorize_file.colorize_file(Job(Path(sys.argv[1]), Path(sys.argv[2])), m, s); "
        "assert not o.error, o.error; "
        # Not ru_maxrss, which a process has from the one that started it.
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    )
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for pixels, size in ((1, (1250, 800)), (48, (8000, 6000))):
            source = Path(folder, f"{pixels}.jpg")
            with Image.open(PHOTOS[0]) as image:
                image.convert("L").resize(size).save(source, quality=92)
            done = subprocess.run(
                [sys.executable, "-c", code, str(source), str(source.with_suffix(".out.jpg"))],
                capture_output=True, text=True, check=True, cwd=ROOT,
            )  # fmt: skip
            peaks[pixels] = int(done.stdout) * 1024
    return {
        "peak_bytes_1_megapixel": peaks[1],
        "peak_bytes_48_megapixels": peaks[48],
        "bytes_per_pixel": round((peaks[48] - peaks[1]) / 47e6, 1),
    }


def start(repeats: int) -> dict[str, float]:
    """Seconds until the help is there, and until a worker has loaded everything; the fastest."""

    def run(*arguments: str) -> float:
        return min(
            seconds(lambda: subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT,
                                           stdout=subprocess.DEVNULL))
            for _ in range(repeats)
        )  # fmt: skip

    return {
        "help_s": round(run("-m", "colorized", "--help"), 3),
        "colorize_help_s": round(run("-m", "colorized", "colorize", "--help"), 3),
        "import_s": round(run("-c", "from colorized.batch import colorize_file, workers"), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="12 photographs instead of 200")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "load_before": os.getloadavg()[0],
            "start": start(3 if arguments.quick else 7),
            "one": one_photograph(Path(folder), 3 if arguments.quick else 11),
            "memory": memory(),
            "batch": batch(Path(folder), 12 if arguments.quick else 200),
        }
    text = json.dumps(results, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
