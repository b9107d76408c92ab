"""A source of photographs → LAB shards on disk, in splits that share no picture.

`data/lab` holds, for each split, `{split}_L.npy` (N, S, S) and `{split}_ab.npy` (N, S, S, 2) in
OpenCV's 8-bit CIELAB; `index.csv`, a line for each row of them; and `stats.json`, the `Report`.

A picture's split depends on its content only, so it stays the same when others are added. Held-out
pictures are cut first, so that a training picture can be compared with all of them and left out at
once. Only a few pictures are in memory at a time.

Pictures that look alike are found by pHash: the signs of the 63 lowest frequencies (and the mean)
of a picture 32 pixels wide, against their median. Two copies of a photograph, resized, recompressed
or retouched, differ in a few of its 64 bits; two photographs in about 32. Zauner, "Implementation
and Benchmarking of Perceptual Image Hash Functions", 2010.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from colorized import atomic
from colorized.data.sources import (
    SPLITS,
    Crops,
    CropSettings,
    Source,
    SourceError,
    Unusable,
    split_of,
)
from colorized.data.streaming import StreamWriter
from colorized.progress import track

FEW = 16
"""Fewer pictures than this are cut in this process: starting others would take longer."""
AHEAD = 8
"""Pictures that each process is ahead by."""
CHROMA_BINS = 60
"""Bins of the histogram of chroma, 2 units wide each."""

INDEX = ("id", "split", "row", "file", "sha256", "chroma", "y", "x", "side")


def perceptual_hash(L8: NDArray[np.uint8]) -> int:
    """pHash, 64 bits, of lightness (H, W)."""
    bits = imagehash.phash(Image.fromarray(L8)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class Lookalikes:
    """A set of perceptual hashes that finds the nearest one to a new hash.

    Pictures whose hashes differ in at most `max_bits`, 0 … 64, count as alike.
    """

    def __init__(self, max_bits: int) -> None:
        self.max_bits = max_bits
        self._names: list[str] = []
        self._hashes = np.empty(1024, np.uint64)

    def add(self, name: str, hash: int) -> None:
        if len(self._names) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[len(self._names)] = hash
        self._names.append(name)

    def find(self, hash: int) -> str | None:
        """The name of the most similar picture, or None if none is within `max_bits`."""
        if not self._names:
            return None
        known = self._hashes[: len(self._names)]
        differing = np.bitwise_count(known ^ np.uint64(hash))
        nearest = int(differing.argmin())
        return self._names[nearest] if differing[nearest] <= self.max_bits else None


@dataclass
class Chroma:
    """Exact sums over 8-bit pixels, for the statistics of chroma."""

    count: int = 0
    sum: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    squares: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(CHROMA_BINS, np.int64))

    @classmethod
    def of(cls, ab8: NDArray[np.uint8]) -> Chroma:
        """Of pixels (..., 2)."""
        pairs = np.ascontiguousarray(ab8).view(np.uint16).ravel()  # one number for a and b
        found = np.flatnonzero(counts := np.bincount(pairs, minlength=1 << 16))
        counts = counts[found]
        values = np.stack([_A[found], _B[found]]).astype(np.int64)
        histogram = np.bincount(_BIN[found], counts, CHROMA_BINS).astype(np.int64)
        return cls(pairs.size, values @ counts, values**2 @ counts, histogram)

    def __iadd__(self, other: Chroma) -> Chroma:
        self.count += other.count
        self.sum += other.sum
        self.squares += other.squares
        self.histogram += other.histogram
        return self

    def mean(self) -> tuple[float, float]:
        a, b = self.sum / self.count
        return float(a), float(b)

    def deviation(self) -> tuple[float, float]:
        """Deviation from neutral gray, not from the mean: x_0 = 0 stays gray."""
        a, b = np.sqrt(self.squares / self.count)
        return float(a), float(b)


# Of a and b in one number of 16 bits, in the order that the machine stores two bytes.
_A, _B = np.arange(65536, dtype="=u2").view(np.uint8).reshape(-1, 2).T.astype(np.float32) - 128
_CHROMA = np.hypot(_A, _B)
_BIN = np.minimum(_CHROMA / 2, CHROMA_BINS - 1).astype(np.uint8)


@dataclass(frozen=True)
class Cut:
    """One picture's crops and what is known of them, or the reason why it has none."""

    crops: Crops | None = None
    hash: int = 0
    mean_chroma: float = 0.0
    chroma: Chroma = field(default_factory=Chroma)
    kind: str = ""
    reason: str = ""


@dataclass
class Report:
    """Counts and statistics of the pictures that were cut.

    `photographs` and `crops` are counted by split, `left_out` by kind; `rejects` maps a name to its
    reason. `ab_mean` and `ab_std`, CIELAB units, and `chroma_histogram`, shares of pixels in bins 2
    units wide, are those of the training split. No path is absolute, so that equal photographs give
    an equal report in any folder. `storage` holds the `url` and `sha256` of a training split that
    is not in the folder.
    """

    image_size: int
    storage: dict[str, str] = field(default_factory=dict)
    photographs: dict[str, int] = field(default_factory=dict)
    crops: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, str] = field(default_factory=dict)
    ab_mean: tuple[float, float] = (0.0, 0.0)
    ab_std: tuple[float, float] = (1.0, 1.0)
    chroma_histogram: list[float] = field(default_factory=list)


def build_shards(
    source: Source,
    out: Path,
    settings: CropSettings,
    train_writer: StreamWriter | None = None,
) -> Report:
    """Cut every picture and write the shards, `index.csv` and `stats.json` to `out`.

    The folder replaces an older one when everything is written. `train_writer` receives the
    training split, if that does not go to `out`. Raises SourceError when a split would be left
    without a picture, or the disk is full.
    """
    try:
        with atomic.replacing_folder(out) as partial:
            _check_space(source, partial, settings, train_writer is None)
            return _write(source, partial, settings, train_writer)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SourceError(f"{out}: the disk is full; nothing of it was kept") from error


def _check_space(source: Source, folder: Path, settings: CropSettings, with_train: bool) -> None:
    """Raise a SourceError if the shards will not fit on the disk."""
    crops = settings.crops if with_train else settings.crops | {"train": 0}
    rows = sum(crops[split] for split in _splits(source, settings))
    needed, free = rows * settings.image_size**2 * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise SourceError(
            f"{folder.parent}: the shards need up to {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free"
        )


def _splits(source: Source, settings: CropSettings) -> list[str]:
    shares = settings.val_share, settings.test_share
    return [split_of(digest, *shares) for digest in source.digests]


def _write(
    source: Source,
    out: Path,
    settings: CropSettings,
    train_writer: StreamWriter | None,
) -> Report:
    report = Report(settings.image_size)
    splits = _splits(source, settings)
    photographs: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    chroma = Chroma()
    held_out = {split: Lookalikes(settings.lookalike_bits) for split in ("test", "val")}

    def leave_out(name: str, kind: str, reason: str) -> None:
        left_out[kind] += 1
        report.rejects[name] = reason

    unique, original = _unique(source)
    for number, first in original.items():
        leave_out(source.names[number], "duplicate", f"the same picture as {source.names[first]}")
    # Held-out pictures first; the sort keeps the source's order within a split.
    order = sorted(unique, key=lambda number: SPLITS[::-1].index(splits[number]))
    with ExitStack() as stack:
        writers: dict[str, FileWriter | StreamWriter] = {}
        for split in SPLITS:
            remote = train_writer if split == "train" else None
            writers[split] = remote or FileWriter(out, split, settings.image_size)
            stack.enter_context(writers[split])
        file = stack.enter_context(open(out / "index.csv", "w", newline="", encoding="utf-8"))
        index = csv.writer(file, lineterminator="\n")
        index.writerow(INDEX)
        cuts = _cut_all(source, order, splits, settings)
        cuts = track(cuts, "cutting crops", "photographs", len(order))
        for number, cut in zip(order, cuts, strict=True):
            name, digest, split = source.names[number], source.digests[number], splits[number]
            if cut.crops is None:
                leave_out(name, cut.kind, cut.reason)
                continue
            others = [other for other in held_out if other != split] if split != "test" else []
            alike = ((held_out[other].find(cut.hash), other) for other in others)
            found = next(((like, other) for like, other in alike if like is not None), None)
            if found is not None:
                leave_out(name, "lookalike", "looks like {}, which is in {}".format(*found))
                continue
            if split in held_out:
                held_out[split].add(name, cut.hash)
            else:
                chroma += cut.chroma
            writers[split].append(cut.crops.L, cut.crops.ab)
            for i, box in enumerate(cut.crops.boxes):
                row = rows[split] + i
                line = f"{digest[:16]}-{i}", split, row, name, digest, f"{cut.mean_chroma:.2f}"
                index.writerow([*line, *box])
            rows[split] += len(cut.crops.boxes)
            photographs[split] += 1
        _check_splits(photographs, report, len(source.names))
    if train_writer is not None:
        report.storage = {"url": train_writer.url, "sha256": train_writer.sha256}
    report.photographs = {split: photographs[split] for split in SPLITS}
    report.crops = {split: rows[split] for split in SPLITS}
    report.left_out = dict(sorted(left_out.items()))
    report.rejects = dict(sorted(report.rejects.items()))
    report.ab_mean, report.ab_std = chroma.mean(), chroma.deviation()
    report.chroma_histogram = [round(float(n), 6) for n in chroma.histogram / chroma.count]
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
    (out / "stats.json").write_text(text + "\n", encoding="utf-8")
    return report


def _unique(source: Source) -> tuple[list[int], dict[int, int]]:
    """Pictures of a content of their own, and, of each other one, which it repeats."""
    first: dict[str, int] = {}
    repeats = {}
    for number, digest in enumerate(source.digests):
        if first.setdefault(digest, number) != number:
            repeats[number] = first[digest]
    return list(first.values()), repeats


def _check_splits(photographs: Counter[str], report: Report, count: int) -> None:
    for split in SPLITS:
        if not photographs[split]:
            first = next((f", first {n}: {why}" for n, why in sorted(report.rejects.items())), "")
            raise SourceError(
                f"no usable photograph for the {split} split among {count} "
                f"({len(report.rejects)} left out{first}); add photographs"
            )


class FileWriter:
    """One split as two .npy files in `folder`, whole after a `with` block."""

    def __init__(self, folder: Path, split: str, size: int) -> None:
        self._L = ArrayWriter(folder / f"{split}_L.npy", (size, size))
        self._ab = ArrayWriter(folder / f"{split}_ab.npy", (size, size, 2))

    def append(self, L: NDArray[np.uint8], ab: NDArray[np.uint8]) -> None:
        self._L.append(L)
        self._ab.append(ab)

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._L.close()
        self._ab.close()


class ArrayWriter:
    """Appends rows to a .npy file whose length is not known before the end.

    NumPy leaves room in the header for the first axis to grow, so it can be written again in
    place once the number of rows is known: by `close`.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self.row_shape = row_shape
        self.rows = 0
        self._file = open(path, "wb")  # noqa: SIM115
        self._write_header()

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Write rows (n, *row_shape)."""
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Write the number of rows into the header."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def cut(source: Source, number: int, count: int, settings: CropSettings) -> Cut:
    """Cut `count` crops of one picture; a picture that cannot be used says why."""
    try:
        crops = source.cut(number, count, settings)
    except Unusable as error:
        return Cut(kind=error.kind, reason=str(error))
    chroma = Chroma.of(crops.ab)
    mean = float(_CHROMA.take(crops.ab.view(np.uint16)).mean())
    if mean < settings.min_chroma:
        reason = f"monochrome (mean chroma {mean:.1f}, under {settings.min_chroma:g})"
        return Cut(kind="monochrome", reason=reason)
    return Cut(crops, perceptual_hash(crops.L[0]), mean, chroma)


@dataclass(frozen=True)
class _Cuts(Dataset[Cut]):
    """Item n is the `cut` of picture n."""

    source: Source
    splits: Sequence[str]
    settings: CropSettings

    def __getitem__(self, number: int) -> Cut:
        return cut(self.source, number, self.settings.crops[self.splits[number]], self.settings)


def _cut_all(
    source: Source, order: Sequence[int], splits: Sequence[str], settings: CropSettings
) -> Iterator[Cut]:
    """`cut` of each picture, in order, on all processors, a few ahead of the one asked for."""
    cuts = _Cuts(source, splits, settings)
    if len(order) < FEW:
        return (cuts[number] for number in order)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    loader = DataLoader(
        cuts,
        batch_size=None,
        sampler=order,
        num_workers=cores or 1,
        prefetch_factor=AHEAD,
        worker_init_fn=_ignore_interrupts,
        # Spawned, because a fork copies locks that a thread (of torch, of a progress bar) may hold.
        multiprocessing_context="spawn",
    )
    return iter(loader)


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches every process; it is for the first one alone to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
