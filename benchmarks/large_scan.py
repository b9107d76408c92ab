"""A scan of 200 megapixels from disk to disk: how much memory and time it takes.

    python benchmarks/large_scan.py [--megapixels 200] [--quick]

The scan, a 16-bit gray TIFF, is made of the embedded photographs. The command line colors it in a
process of its own, whose peak of resident memory the system keeps (VmHWM): PyTorch, the network
and everything else are in it. The processes that it starts are watched, too, and of all of them the
largest is named, and the sum, in which what they share is counted twice. The peer is a process
that only decodes the same scan with tifffile and encodes its levels three times over as a TIFF in
color, the plainest way to a colored copy. An ordinary photograph, a JPEG of 12 megapixels, is
measured in the same way, and of both what each megapixel takes beyond a small one. Writes
benchmarks/results/large_scan.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import tifffile
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "large_scan.json"
PHOTOS = sorted((ROOT / "data" / "sample" / "photos").glob("*.jpg"))
LIMIT_GIB = 2.0

PEER = """
import sys, numpy as np, tifffile
gray = tifffile.imread(sys.argv[1])
rgb = np.repeat(gray[..., None], 3, axis=2)
tifffile.imwrite(sys.argv[2], rgb, photometric="rgb", compression="adobe_deflate", predictor=True)
"""


def strip(rows: int, width: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Part of a scan: a photograph enlarged to its width, with grain, 16 bits, (rows, width)."""
    with Image.open(PHOTOS[number % len(PHOTOS)]) as image:
        gray = image.convert("L").resize((width, rows), Image.Resampling.BICUBIC)
    levels = np.asarray(gray, np.float32) * 257
    levels += rng.normal(0, 300, levels.shape).astype(np.float32)
    return levels.clip(0, 65535).astype(np.uint16)


def make_scan(path: Path, megapixels: float) -> tuple[int, int]:
    """A 3:2 scan, uncompressed as most scanners write them; its height and width."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5 / 8) * 8
    width = round(megapixels * 1e6 / height)
    rng = np.random.default_rng(0)
    out = tifffile.memmap(path, shape=(height, width), dtype=np.uint16, photometric="minisblack")
    for number in range(8):
        rows = height // 8
        out[number * rows : (number + 1) * rows] = strip(rows, width, number, rng)
    out.flush()
    return height, width


def measured(command: list[str]) -> dict[str, float]:
    """Peak memory and time of a process and those it starts, which must succeed.

    The system's own ru_maxrss will not do: a child begins with that of its parent.
    """
    began = time.monotonic()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    watched = psutil.Process(child.pid)
    peaks: dict[int, int] = {}
    together = 0
    while child.poll() is None:
        resident = 0
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            for process in (watched, *watched.children(recursive=True)):
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                fields = dict(line.split(":", 1) for line in status.splitlines())
                if "VmHWM" in fields:
                    peaks[process.pid] = int(fields["VmHWM"].split()[0]) << 10
                    resident += int(fields["VmRSS"].split()[0]) << 10
        together = max(together, resident)
        time.sleep(0.02)
    if child.returncode:
        sys.exit(f"error: {command[0]} … ended with {child.returncode}")
    return {
        "peak_rss_gib": max(peaks.values()) / 2**30,
        "peak_rss_of_all_processes_gib": together / 2**30,
        "seconds": time.monotonic() - began,
    }


def colored(source: Path, out: Path) -> dict[str, float]:
    return measured([
        sys.executable, "-m", "colorized", "colorize", str(source), "-o", str(out), *OPTIONS
    ])  # fmt: skip


OPTIONS = ["--steps", "4", "--guidance", "1"]


def check(source: Path, target: Path) -> dict[str, object]:
    """That the copy has the scan's lightness, looked at in some strips, and how it is stored."""
    from colorized import photo

    worst = 0.0
    with photo.open_scan(source) as before, photo.open_scan(target) as after:
        a, b = before.pages[0], after.pages[0]
        if (a.height, a.width, a.bits) != (b.height, b.width, b.bits):
            sys.exit("error: the copy has another size or depth")
        for start in range(0, a.height, max(1, a.height // 16)):
            stop = min(start + 32, a.height)
            worst = max(worst, float(np.abs(a.rows(start, stop) - b.rows(start, stop)).max()))
    with tifffile.TiffFile(target) as tif:
        big = tif.is_bigtiff
    return {"lightness_error_max": worst, "bits": b.bits, "bigtiff": big}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=200)
    parser.add_argument("--quick", action="store_true", help="20 megapixels")
    arguments = parser.parse_args()
    megapixels = 20 if arguments.quick else arguments.megapixels
    with TemporaryDirectory() as name:
        folder = Path(name)
        height, width = make_scan(folder / "scan.tif", megapixels)
        run = colored(folder / "scan.tif", folder / "out")
        run |= check(folder / "scan.tif", folder / "out" / "scan.tif")
        peer = measured(
            [sys.executable, "-c", PEER, str(folder / "scan.tif"), str(folder / "peer.tif")]
        )
        small = Image.fromarray(strip(400, 600, 0, np.random.default_rng(0)) >> 8).convert("L")
        small.save(folder / "small.jpg")
        least = colored(folder / "small.jpg", folder / "out")
        with Image.open(PHOTOS[0]) as image:
            image.convert("RGB").resize((4000, 3000)).save(folder / "ordinary.jpg", quality=92)
        ordinary = colored(folder / "ordinary.jpg", folder / "out")
    base = least["peak_rss_gib"]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "scan": {"height": height, "width": width, "bits": 16, "pixels": height * width},
        "options": OPTIONS,
        "colorized": run,
        "peer_decode_encode": peer,
        "memory_ratio_to_peer": run["peak_rss_gib"] / peer["peak_rss_gib"],
        "small_photograph": least,
        "jpeg_12_megapixels": ordinary,
        "mib_per_megapixel": {
            "tiff_in_strips": (run["peak_rss_gib"] - base) * 1024 / (height * width / 1e6),
            "jpeg": (ordinary["peak_rss_gib"] - base) * 1024 / 12,
        },
    }
    print(json.dumps(result, indent=2))
    if not arguments.quick:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        if run["peak_rss_of_all_processes_gib"] > LIMIT_GIB:
            sys.exit(f"error: more than {LIMIT_GIB} GiB")


if __name__ == "__main__":
    main()
