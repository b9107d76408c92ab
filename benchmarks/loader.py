"""How many random LAB crops of 64 pixels the loader delivers from the page cache.

    python benchmarks/loader.py [--workers 2] [--seconds 6] [--folder FOLDER]

Pictures of 64 and of 224 pixels, of random bytes, lie in `FOLDER` as a split of `data/lab` would.
Each rate stands beside that of a peer, torchvision's RandomResizedCrop and RandomHorizontalFlip of
one picture at a time in a DataLoader, with equal workers, batches and crops, and beside the rate at
which NumPy copies memory. Writes benchmarks/results/loader.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colorized.data.dataset import (
    CropBatches,
    Shard,
    batches,
    open_shard,
    pack,
    random_boxes,
    resize_packed,
)
from colorized.evaluation._torchvision_shim import import_torchvision

import_torchvision()
from torchvision.transforms import v2  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {64: 25_000, 224: 4_000}
CROP, MIN_CROP, BATCH = 64, 0.75, 64
TARGET, WINDOWS = 20_000, 9


class Peer(Dataset[tuple[Tensor, Tensor]]):
    """One picture → one crop, as a DataLoader is usually fed; the same shares of the side."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(CROP, (MIN_CROP**2, 1.0), (1.0, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __len__(self) -> int:
        return len(self.shard)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        lab = np.concatenate([self.shard.L[row, ..., None], self.shard.ab[row]], axis=-1)
        crop = self.transform(torch.from_numpy(lab).permute(2, 0, 1)).float()
        return crop[:1] * (100 / 255), crop[1:] - 128


def write_pictures(folder: Path, size: int) -> Shard:
    """Random pictures, written and read once, so that they are in the page cache."""
    rng = np.random.default_rng(0)
    for name, shape in {"L": (size, size), "ab": (size, size, 2)}.items():
        array = rng.integers(0, 256, (PICTURES[size], *shape), dtype=np.uint8)
        np.save(folder / f"{size}_{name}.npy", array)
    shard = open_shard(folder, str(size))
    for array in (shard.L, shard.ab):
        array.max()
    return shard


@dataclass(frozen=True)
class Speed:
    """Crops a second in the middle and in the best of the windows, and processor time of a crop."""

    middle: float
    best: float
    cpu_microseconds: float


def speed(loader: Iterable[Any], seconds: float) -> Speed:
    """Measure windows one after the other, once the workers have started."""
    iterator = iter(loader)
    for _ in islice(iterator, 20):
        pass
    rates, total, cpu = [], 0, processor_seconds()
    for _ in range(WINDOWS):
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds / WINDOWS:
            next(iterator)
            count += BATCH
        rates.append(count / (time.perf_counter() - started))
        total += count
    cpu = processor_seconds() - cpu
    return Speed(sorted(rates)[WINDOWS // 2], max(rates), 1e6 * cpu / total)


def processor_seconds() -> float:
    """Of this process and its workers."""
    this = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in (this, *this.children(recursive=True)))


def peer_batches(shard: Shard, workers: int) -> Iterable[Any]:
    """Epoch after epoch of the peer."""
    loader = DataLoader(
        Peer(shard),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
    while True:
        yield from loader


def copy_bandwidth() -> float:
    """GB that NumPy copies in a second, one process, from memory to memory."""
    source = np.ones(256 << 20, dtype=np.uint8)
    target = np.empty_like(source)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - started)
    return len(source) / min(seconds) / 1e9


def bare_resize(shard: Shard, seconds: float) -> float:
    """Crops a second of one process that only resizes what lies ready, packed."""
    boxes = random_boxes(shard.size, 64, MIN_CROP, torch.Generator().manual_seed(0))
    packed = [
        pack(shard.L[0, :side, :side], shard.ab[0, :side, :side]) for side in boxes[:, 0].tolist()
    ]

    def endless() -> Iterator[None]:
        while True:
            for i in range(BATCH):
                resize_packed(packed[i % len(packed)], CROP)
            yield

    return speed(endless(), seconds).middle


def mean_box_bytes(size: int) -> float:
    """Bytes of L and ab that a crop is made from."""
    boxes = random_boxes(size, 100_000, MIN_CROP, torch.Generator().manual_seed(0))
    return float(3 * boxes[:, 0].double().square().mean())


def measure(shard: Shard, workers: int, seconds: float) -> dict[str, float]:
    """Ours with and without workers, and the peer, one after the other."""
    crops = CropBatches(shard, BATCH, CROP, MIN_CROP, seed=0)
    steps = range(10**9)
    ours = speed(batches(crops, steps, workers), seconds)
    peer = speed(peer_batches(shard, workers), seconds)
    alone = speed(batches(crops, steps), seconds / 2)
    resize = bare_resize(shard, seconds / 2)
    bandwidth = copy_bandwidth()
    read = mean_box_bytes(shard.size)
    return {
        "crops_per_second": round(ours.middle),
        "crops_per_second_best_window": round(ours.best),
        "share_of_target": round(ours.middle / TARGET, 3),
        "cpu_microseconds_per_crop": round(ours.cpu_microseconds, 1),
        "crops_per_second_without_workers": round(alone.middle),
        "peer_crops_per_second": round(peer.middle),
        "peer_cpu_microseconds_per_crop": round(peer.cpu_microseconds, 1),
        "ratio_to_peer": round(ours.middle / peer.middle, 2),
        "bare_resize_crops_per_second_of_one_process": round(resize),
        "bytes_read_per_crop": round(read),
        "bytes_delivered_per_crop": CROP * CROP * 3 * 4,
        "read_gb_per_second": round(ours.middle * read / 1e9, 3),
        "copy_gb_per_second": round(bandwidth, 3),
        "read_share_of_copy_bandwidth": round(ours.middle * read / 1e9 / bandwidth, 3),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each rate")
    parser.add_argument("--folder", type=Path, help="for the pictures, 0.9 GB")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)

    results: dict[str, Any] = {
        "crop": CROP,
        "min_crop": MIN_CROP,
        "batch_size": BATCH,
        "workers": options.workers,
        "target_crops_per_second": TARGET,
        "peer": "torchvision.transforms.v2.RandomResizedCrop + RandomHorizontalFlip, per picture",
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for size in PICTURES:
            shard = write_pictures(Path(folder), size)
            found = measure(shard, options.workers, options.seconds)
            results[f"pictures_of_{size}"] = found
            print(size, json.dumps(found), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "loader.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
