"""Colour photographs on disk → LAB shards.

A photograph belongs to one split, chosen by the hash of its bytes, so it keeps its split when
others are added, and no crop of it can be in another. Its crops are resized in linear light (see
`resample`), converted to OpenCV's 8-bit CIELAB and appended to the split's arrays; what a
photograph leaves in memory are its crops, until those before it are written.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorized import color, photo, resample

SPLITS = ("train", "val", "test")
MIN_SIDE = 32
FEW = 16
"""Fewer photographs than this are cut sooner than processes for them would have started."""
MIN_CHROMA = 2.0
"""Mean C* under which a photograph counts as monochrome: toned prints reach 2, dull days 4."""

_SALT = b"colorized split 1"


class SourceError(ValueError):
    """One line that says what is wrong with the photographs and where."""


@dataclass(frozen=True)
class CropSettings:
    """See the section `preprocess` of params.yaml; `crops`: split → crops of a photograph."""

    image_size: int
    crops: dict[str, int]
    min_scale: float
    val_share: float
    test_share: float
    seed: int


@dataclass(frozen=True)
class Cut:
    """One photograph's crops, or the reason why it has none."""

    path: Path
    digest: str = ""
    split: str = ""
    reject: str = ""
    boxes: tuple[tuple[int, int, int], ...] = ()
    L: NDArray[np.uint8] | None = None
    ab: NDArray[np.uint8] | None = None


@dataclass
class Report:
    """What became of the photographs.

    `rejects` maps a name to its reason, `arrays` a shard file to the sha256 of its rows. No path
    is absolute, so that equal photographs give an equal report in any folder;
    `ab_mean` and `ab_std` are those of the training split, CIELAB units.
    """

    photographs: dict[str, int] = field(default_factory=dict)
    crops: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, str] = field(default_factory=dict)
    ab_mean: tuple[float, float] = (0.0, 0.0)
    ab_std: tuple[float, float] = (1.0, 1.0)
    arrays: dict[str, str] = field(default_factory=dict)


def list_photographs(folder: Path) -> list[Path]:
    """Picture files below `folder`, known by their suffix, sorted by their path.

    Raises
    ------
    SourceError
        When the folder is not there or holds none.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder of photographs")
    paths = sorted(
        p
        for p in folder.rglob("*")
        if photo.is_picture_name(p) and not p.name.startswith(".") and p.is_file()
    )
    if not paths:
        raise SourceError(f"{folder}: holds no photographs")
    return paths


def list_sample(folder: Path) -> list[Path]:
    """The embedded color photographs: those that `photos.csv`, their attribution, lists.

    Raises
    ------
    SourceError
        When the list or a photograph of it is not there, or the list is empty.
    """
    listing = folder / "photos.csv"
    try:
        with open(listing, newline="", encoding="utf-8") as file:
            names = [row["file"] for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise SourceError(f"{listing}: not the list of the embedded photographs") from error
    paths = [folder / name for name in sorted(names) if name.startswith("photos")]
    if not paths:
        raise SourceError(f"{listing}: lists no photographs")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise SourceError(f"{missing[0]}: listed in {listing.name} but not there")
    return paths


def hash_files(paths: Sequence[Path], root: Path) -> list[dict[str, str | int]]:
    """Name below `root`, size and sha256 of each file."""
    entries: list[dict[str, str | int]] = []
    for path in paths:
        data = path.read_bytes()
        name = _name(path, root)
        entries.append(
            {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        )
    return entries


def split_of(digest: str, val_share: float, test_share: float) -> str:
    """`train`, `val` or `test`, by a salted hash of the photograph's sha256 alone."""
    salted = hashlib.sha256(_SALT + bytes.fromhex(digest)).digest()
    u = int.from_bytes(salted[:8], "big") / 2**64
    if u < test_share:
        return "test"
    return "val" if u < test_share + val_share else "train"


def cut(path: Path, settings: CropSettings) -> Cut:
    """Read one photograph and cut its crops; a photograph that cannot be used says why."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        rgb = photo.read_rgb(path)
    except photo.PhotoError as error:
        return Cut(path, digest, reject=str(error).removeprefix(f"{path}: "))
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        return Cut(path, digest, reject=f"{width}×{height}, a side is under {MIN_SIDE}")
    split = split_of(digest, settings.val_share, settings.test_share)
    rng = np.random.default_rng([settings.seed, int(digest[:15], 16)])
    boxes = crop_boxes(height, width, settings.crops[split], settings.min_scale, rng)
    size = settings.image_size
    crops = [
        resample.resize_rgb(rgb[y : y + side, x : x + side], size, size) for y, x, side in boxes
    ]
    lab = color.srgb_to_lab(np.stack(crops))
    if float(np.hypot(lab[..., 1], lab[..., 2]).mean()) < MIN_CHROMA:
        return Cut(path, digest, reject=f"monochrome (mean chroma under {MIN_CHROMA})")
    lab8 = color.lab_to_lab8(lab)
    L, ab = np.ascontiguousarray(lab8[..., 0]), np.ascontiguousarray(lab8[..., 1:])
    return Cut(path, digest, split, "", tuple(boxes), L, ab)


def crop_boxes(
    height: int, width: int, count: int, min_scale: float, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """`count` squares (y, x, side); the first is the largest, in the middle, the others random.

    A random square's side lies between `min_scale` and the whole of the shorter side, but is
    never under `MIN_SIDE`.
    """
    shorter = min(height, width)
    boxes = [((height - shorter) // 2, (width - shorter) // 2, shorter)]
    for _ in range(count - 1):
        side = max(min(MIN_SIDE, shorter), round(shorter * rng.uniform(min_scale, 1.0)))
        y = int(rng.integers(0, height - side + 1))
        x = int(rng.integers(0, width - side + 1))
        boxes.append((y, x, side))
    return boxes


def build_shards(
    paths: Sequence[Path],
    out: Path,
    settings: CropSettings,
    root: Path,
    progress: Callable[[Iterable[Cut]], Iterable[Cut]] = iter,
) -> Report:
    """Cut every photograph and write the shards, `index.csv` and `stats.json` to `out`.

    Photographs are named in the index and the report by their path below `root`. The folder
    appears, in place of an older one, when all of it is written.

    Raises
    ------
    SourceError
        When a split would be left without a photograph.
    """
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        report = _write_shards(paths, partial, settings, root, progress)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _write_shards(
    paths: Sequence[Path],
    out: Path,
    settings: CropSettings,
    root: Path,
    progress: Callable[[Iterable[Cut]], Iterable[Cut]],
) -> Report:
    report = Report()
    photographs: Counter[str] = Counter()
    seen: dict[str, str] = {}
    chroma = ChromaStatistics()
    size = settings.image_size
    with ExitStack() as stack:
        writers = {
            split: (
                stack.enter_context(ShardWriter(out / f"{split}_L.npy", (size, size))),
                stack.enter_context(ShardWriter(out / f"{split}_ab.npy", (size, size, 2))),
            )
            for split in SPLITS
        }
        file = stack.enter_context(open(out / "index.csv", "w", newline="", encoding="utf-8"))
        index = csv.writer(file, lineterminator="\n")
        index.writerow(["split", "row", "file", "sha256", "y", "x", "side"])
        for done in progress(_cut_all(paths, settings)):
            name = _name(done.path, root)
            if done.L is None or done.ab is None:
                report.rejects[name] = done.reject
                continue
            if done.digest in seen:
                report.rejects[name] = f"the same picture as {seen[done.digest]}"
                continue
            seen[done.digest] = name
            photographs[done.split] += 1
            write_L, write_ab = writers[done.split]
            for i, box in enumerate(done.boxes):
                index.writerow([done.split, write_L.rows + i, name, done.digest, *box])
            write_L.append(done.L)
            write_ab.append(done.ab)
            if done.split == "train":
                chroma.add(done.ab)
    for split in SPLITS:
        if not photographs[split]:
            left_out = next((f", first {n}: {why}" for n, why in report.rejects.items()), "")
            raise SourceError(
                f"no usable photograph for the {split} split among {len(paths)} files "
                f"({len(report.rejects)} left out{left_out}); add photographs"
            )
    report.photographs = {split: photographs[split] for split in SPLITS}
    report.crops = {split: writers[split][0].rows for split in SPLITS}
    report.ab_mean, report.ab_std = chroma.mean(), chroma.deviation()
    report.arrays = {w.path.name: w.sha256 for pair in writers.values() for w in pair}
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
    (out / "stats.json").write_text(text + "\n", encoding="utf-8")
    return report


def read_stats(folder: Path) -> dict[str, Any]:
    """`stats.json` of a folder of shards.

    Raises
    ------
    SourceError
        When it is not there or damaged.
    """
    path = folder / "stats.json"
    try:
        stats: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: not the report of a folder of shards ({error})") from error
    return stats


class ChromaStatistics:
    """Mean and root mean square of a* and b*, summed exactly over 8-bit values."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = np.zeros(2, dtype=np.int64)
        self.squares = np.zeros(2, dtype=np.int64)

    def add(self, ab8: NDArray[np.uint8]) -> None:
        values = ab8.reshape(-1, 2).astype(np.int64) - 128
        self.count += len(values)
        self.sum += values.sum(0)
        self.squares += (values**2).sum(0)

    def mean(self) -> tuple[float, float]:
        a, b = self.sum / self.count
        return float(a), float(b)

    def deviation(self) -> tuple[float, float]:
        """Deviation from neutral grey, not from the mean: x_0 = 0 stays grey."""
        a, b = np.sqrt(self.squares / self.count)
        return float(a), float(b)


class ShardWriter:
    """Appends rows to a .npy file whose length is not known before the end.

    NumPy leaves room in the header for the first axis to grow, so it can be written again in
    place once the number of rows is known: by `close`, or at the end of a `with` block.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self.path = path
        self.row_shape = row_shape
        self.rows = 0
        self._file = open(path, "wb")  # noqa: SIM115
        self._hash = hashlib.sha256()
        self._write_header()

    @property
    def sha256(self) -> str:
        """Of the rows written so far."""
        return self._hash.hexdigest()

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Write rows (n, *row_shape)."""
        data = rows.tobytes()
        self._hash.update(data)
        self._file.write(data)
        self.rows += len(rows)

    def close(self) -> None:
        """Write the number of rows into the header."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _name(path: Path, root: Path) -> str:
    """Path below `root` with forward slashes, or the whole path of a file elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _cut_all(paths: Sequence[Path], settings: CropSettings) -> Iterator[Cut]:
    """`cut` of each path, in order, on all processors."""
    if len(paths) < FEW:
        yield from (cut(path, settings) for path in paths)
        return
    # Spawned, because a fork copies locks that a thread (of torch, of a progress bar) may hold.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(mp_context=context, initializer=_leave_interrupts) as pool:
            yield from pool.map(partial(cut, settings=settings), paths, chunksize=8)
    except BrokenProcessPool as error:
        raise SourceError("a process that cuts crops died, perhaps for want of memory") from error


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process; it is for the first one alone to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
