"""How fast pictures become shards, and in how much memory: `python benchmarks/data.py WORK`.

Two sets are made in WORK (12 GB while it runs): one of the layout and size of the Kaggle data set,
and small JPEG files cut from the embedded photographs. Both go through the preprocess stage's code,
against a peer in the same run on the same processors:

* Kaggle: a plain NumPy copy of the same bytes to a file, and their sha256.
* Folder: bare Pillow decoding, sha256, a perceptual hash and OpenCV's conversion to LAB.

Results go to benchmarks/results/data.json. Times are medians; all is read from the page cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import imagehash
import numpy as np
from PIL import Image

from colorized.data import shards, sources

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "data.json"
SIDE = 224
PARTS = (10_000, 10_000, 5_000)
CROPS = dict.fromkeys(sources.SPLITS, 1)
PROCESSES = os.cpu_count() or 1


def main() -> None:
    """Make the sets, time both, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="an empty folder, or one of an earlier run")
    parser.add_argument("--share", type=float, default=1.0, help="of the full sizes, for a trial")
    parser.add_argument("--repeats", type=int, default=3, help="of the Kaggle layout")
    parser.add_argument("--folder-repeats", type=int, default=1, help="each takes minutes")
    options = parser.parse_args()
    work: Path = options.work
    kaggle = make_kaggle(work / "kaggle", [round(n * options.share) for n in PARTS])
    folder = make_folder(work / "photographs", round(100_000 * options.share))
    results = {
        "processes": PROCESSES,
        "kaggle": time_kaggle(kaggle, work, options.repeats),
        "folder": time_folder(folder, work, options.folder_repeats),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if options.share == 1:
        RESULTS.write_text(text + "\n", encoding="utf-8")


def make_kaggle(folder: Path, parts: list[int]) -> Path:
    """Arrays of the true layout; each picture smooth, colored, and unlike the others."""
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    L = shards.ArrayWriter(folder / "L.npy", (SIDE, SIDE))
    for number, count in enumerate(parts, 1):
        ab = shards.ArrayWriter(folder / f"ab{number}.npy", (SIDE, SIDE, 2))
        for _ in range(count):
            coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            smooth = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            L.append(smooth[None, ..., 0])
            ab.append(smooth[None, ..., 1:])
        ab.close()
    L.close()
    (folder / "done").touch()
    return folder


def make_folder(folder: Path, count: int) -> Path:
    """JPEG files of 64 to 100 pixels, cut from the embedded photographs at random."""
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = []
    for path in sources.list_sample(ROOT / "data" / "sample"):
        with Image.open(path) as picture:
            pictures.append(picture.convert("RGB"))
    for number in range(count):
        picture = pictures[number % len(pictures)]
        scale = rng.uniform(0.3, 0.9)
        width, height = (round(scale * side) for side in picture.size)
        x = int(rng.integers(0, picture.width - width + 1))
        y = int(rng.integers(0, picture.height - height + 1))
        size = tuple(int(side) for side in rng.integers(64, 101, 2))
        small = picture.resize(size, Image.Resampling.BILINEAR, (x, y, x + width, y + height))
        small.save(folder / f"{number:06d}.jpg", quality=90)
    (folder / "done").touch()
    return folder


def settings(size: int) -> sources.CropSettings:
    return sources.CropSettings(size, CROPS, 0.5, 0.04, 0.22, 0, 2.0, 8)


def time_kaggle(folder: Path, work: Path, repeats: int) -> dict[str, Any]:
    """The stage against a copy of the same bytes and their hash."""
    names = ["L", "ab1", "ab2", "ab3"]
    size = sum((folder / f"{name}.npy").stat().st_size for name in names)
    ours, peer, copied, memory, bare = [], [], [], [], []
    for _ in range(repeats):
        peer.append(seconds(lambda: copy_and_hash(folder, names, work / "copy.npy")))
        copied.append(seconds(lambda: copy(folder, names, work / "copy.npy")))
        run, peak = measured("kaggle", folder, work / "lab")
        ours.append(run["seconds"])
        memory.append(peak)
        bare.append(run["interpreters"])
    shutil.rmtree(work / "lab")
    (work / "copy.npy").unlink()
    return {
        "repeats": repeats,
        "pictures": run["pictures"],
        "gigabytes": round(size / 1e9, 3),
        "seconds": spread(ours),
        "copy_and_hash_seconds": spread(peer),
        "copy_seconds": spread(copied),
        "ratio": round(statistics.median(ours) / statistics.median(peer), 2),
        "ratio_must_be_at_most": 3,
        "peak_anonymous_mib": round(statistics.median(memory)),
        "of_the_interpreters_mib": round(statistics.median(bare)),
        "peak_above_interpreters_must_be_at_most_mib": 1024,
    }


def time_folder(folder: Path, work: Path, repeats: int) -> dict[str, Any]:
    """The stage against decoding, hashing and converting the same files."""
    paths = sources.list_photographs(folder)
    ours, peer, memory = [], [], []
    for _ in range(repeats):
        peer.append(seconds(lambda: decode_all(paths)))
        run, peak = measured("folder", folder, work / "lab")
        ours.append(run["seconds"])
        memory.append(peak)
    shutil.rmtree(work / "lab")
    n = len(paths)
    return {
        "repeats": repeats,
        "photographs": n,
        "kept": run["pictures"],
        "photographs_per_second": round(n / statistics.median(ours)),
        "bare_photographs_per_second": round(n / statistics.median(peer)),
        "seconds": spread(ours),
        "bare_seconds": spread(peer),
        "rate_ratio": round(statistics.median(peer) / statistics.median(ours), 2),
        "rate_ratio_must_be_at_least": 0.6,
        "peak_anonymous_mib": round(statistics.median(memory)),
    }


def copy(folder: Path, names: list[str], target: Path) -> None:
    """Every array into one file of the same size, with NumPy."""
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    total = sum(array.size for array in arrays)
    out = np.lib.format.open_memmap(target, "w+", np.uint8, (total,))
    start = 0
    for array in arrays:
        np.copyto(out[start : start + array.size], array.reshape(-1))
        start += array.size
    out.flush()


def copy_and_hash(folder: Path, names: list[str], target: Path) -> None:
    """`copy`, and the sha256 of what was copied."""
    copy(folder, names, target)
    for name in names:
        hashlib.sha256(np.load(folder / f"{name}.npy", mmap_mode="r").data).hexdigest()


def decode_all(paths: list[Path]) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        for _ in pool.map(decode, paths, chunksize=64):
            pass


def decode(path: Path) -> str:
    """What nobody can do without: decode, hash, hash what is seen, convert."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    seen = imagehash.phash(rgb)
    lab = cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2LAB)
    return f"{digest}{seen}{lab[0, 0, 0]}"


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def measured(kind: str, folder: Path, out: Path) -> tuple[dict[str, Any], float]:
    """Run `build` in a process of its own; its result, and the peak of anonymous memory, MiB."""
    command = [sys.executable, __file__, "--build", kind, str(folder), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, anonymous_mib(process.pid))
            time.sleep(0.05)
        assert process.stdout is not None
        output = process.stdout.read()
    if process.returncode:
        sys.exit(f"error: the build of {folder} failed")
    return json.loads(output.splitlines()[-1]), peak


def anonymous_mib(pid: int) -> float:
    """Anonymous memory of a process and its children now."""
    total, todo = 0.0, [pid]
    while todo:
        pid = todo.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue  # it has ended
        found = [line for line in status.splitlines() if line.startswith("RssAnon")]
        total += int(found[0].split()[1]) / 1024 if found else 0
    return total


def build(kind: str, folder: Path, out: Path) -> None:
    """Download's and preprocess's work on one set; the interpreters' own memory is read first."""
    interpreter = anonymous_mib(os.getpid())
    started = time.perf_counter()
    if kind == "kaggle":
        source: sources.Source = sources.LabArrays(folder)
        size = SIDE
    else:
        source = sources.photographs(sources.list_photographs(folder), folder)
        size = 64
    report = shards.build_shards(source, out, settings(size))
    taken = time.perf_counter() - started
    pictures = sum(report.photographs.values())
    # Workers import no more than this process has.
    interpreters = interpreter * (1 + PROCESSES)
    print(json.dumps({"seconds": taken, "pictures": pictures, "interpreters": interpreters}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        build(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
