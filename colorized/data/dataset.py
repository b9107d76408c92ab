"""Batches for training, from pictures in CIELAB.

Training reads `Pictures`: a `Shard`, two memory-mapped arrays on disk, or a `streaming.Stream`,
chunks in an S3-compatible store. `batches` yields random crops of them as tensors. The batch of
step k depends on (seed, k) only, and each of several processes gets a slice of it: an interrupted
run goes on with the same batches, and two processes together see what one would see.

Crops are resized in linear light, as scans are in use, and never enlarged, which would teach blur.
A share of them is shown to the network through `colorized.data.film`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colorized import color
from colorized.color import resample
from colorized.data import film

CPU = torch.device("cpu")
AHEAD = 2
"""Batches that each worker has under way."""

Lab8 = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""One picture in OpenCV's 8-bit CIELAB: L (S, S) and ab (S, S, 2)."""


@dataclass(frozen=True)
class Batch:
    """Square pictures, float32.

    `lightness` is L* (B, 1, S, S) in 0 … 100, `ab` is (B, 2, S, S) in CIELAB units, and `seen` the
    network's input in place of L*: the same, or a simulation of film.
    """

    lightness: Tensor
    ab: Tensor
    seen: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(self.lightness.to(device), self.ab.to(device), self.seen.to(device))


def chroma_target(batch: Batch, ab_std: tuple[float, float]) -> Tensor:
    """x_0 (B, 2, S/2, S/2): ab in units of its deviation, averaged over 2×2 pixels."""
    std = torch.tensor(ab_std, device=batch.ab.device).view(1, 2, 1, 1)
    return F.avg_pool2d(batch.ab / std, 2)


def chroma_8bit(batch: Batch) -> Tensor:
    """ab at the model's resolution as 8-bit values, to which the variational bound refers.

    uint8 (B, 2, S/2, S/2): a* + 128 and b* + 128, averaged over 2×2 pixels and rounded.
    """
    return (F.avg_pool2d(batch.ab, 2) + 128).round().clamp(0, 255).to(torch.uint8)


class Pictures(Protocol):
    """Square pictures of one size in 8-bit CIELAB, by row. Pickled, they carry no pixels."""

    @property
    def size(self) -> int:
        """Side of the pictures, pixels."""

    def __len__(self) -> int: ...

    def views(self, rows: NDArray[np.int64]) -> Iterator[Lab8]:
        """The pictures in the order of `rows`, as views of memory that is not to be written to."""

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of the rows that depends on (seed, epoch) alone.

        The storage decides how well it mixes: chunks that are fetched one by one cannot be read in
        any order.
        """

    def batch(self, rows: NDArray[np.int64] | slice) -> Batch:
        """Whole pictures, in the order of `rows`."""
        L, ab = zip(*self.views(np.arange(len(self))[rows]), strict=True)
        lightness = torch.from_numpy(np.stack(L)).float()[:, None] * (100 / 255)
        chroma = torch.from_numpy(np.stack(ab)).float().permute(0, 3, 1, 2) - 128
        return Batch(lightness, chroma, lightness)


@dataclass(frozen=True)
class Shard(Pictures):
    """L (N, S, S) and ab (N, S, S, 2), uint8; of `open_shard`, memory-mapped."""

    L: NDArray[np.uint8]
    ab: NDArray[np.uint8]
    opened: tuple[Path, str] | None = field(default=None, repr=False)
    """Folder and split of the files, if it has any."""

    @property
    def size(self) -> int:
        """Side of the pictures, pixels."""
        return self.L.shape[1]

    def __len__(self) -> int:
        return len(self.L)

    def views(self, rows: NDArray[np.int64]) -> Iterator[Lab8]:
        """See `Pictures`."""
        L, ab = np.asarray(self.L), np.asarray(self.ab)
        return ((L[row], ab[row]) for row in rows)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """See `Pictures`; any order is as likely as any other."""
        return np.random.default_rng([seed, epoch]).permutation(len(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # NumPy pickles a memory map as a copy of its bytes; another process maps the files itself.
        return (open_shard, self.opened) if self.opened else (Shard, (self.L, self.ab))


def open_shard(folder: Path, split: str) -> Shard:
    """Memory-map `{split}_L.npy` (N, S, S) and `{split}_ab.npy` (N, S, S, 2).

    Raises
    ------
    ValueError
        When an array is missing, damaged or empty, or the two do not belong together; names the
        file.
    """
    arrays = []
    for name in (f"{split}_L.npy", f"{split}_ab.npy"):
        path = folder / name
        try:
            arrays.append(np.lib.format.open_memmap(path, mode="r"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: not a readable LAB shard ({error})") from error
    L, ab = arrays
    fits = L.ndim == 3 and L.shape[1] == L.shape[2] and ab.shape == (*L.shape, 2)
    if not (L.dtype == ab.dtype == np.uint8 and fits and L.size):
        raise ValueError(
            f"{folder / split}_*.npy: L {L.dtype} {L.shape}, ab {ab.dtype} {ab.shape}; "
            "expected uint8 (N, S, S) and (N, S, S, 2), N ≥ 1"
        )
    return Shard(L, ab, (folder, split))


@dataclass
class CropBatches:
    """Item k is the batch of step k: random crops and flips, one process's slice of the batch.

    An item is packed, int32 of `shape`; `unpack` makes it a `Batch`.

    Parameters
    ----------
    batch_size
        Crops of a step, over all processes; batch k holds entries k·B … (k+1)·B - 1 of the orders
        of the epochs.
    crop_size
        Side of the square crops, pixels; a crop covers between this and the picture's whole side.
    film
        Share of the crops that pass through the simulation of film.
    rank, world
        Which of how many processes this is.
    """

    pictures: Pictures
    batch_size: int
    crop_size: int
    film: float
    seed: int
    rank: int = 0
    world: int = 1
    _order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if self.batch_size % self.world or not 0 <= self.rank < self.world:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared out: process {self.rank} of "
                f"{self.world}"
            )
        if self.crop_size > self.pictures.size:
            raise ValueError(
                f"crops of {self.crop_size} pixels need pictures as large, not {self.pictures.size}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an item: (B / world, crop_size, crop_size)."""
        return self.batch_size // self.world, self.crop_size, self.crop_size

    def __getitem__(self, step: int) -> Tensor:
        out = torch.empty(self.shape, dtype=torch.int32)
        self.cut(step, out.numpy())
        return out

    def cut(self, step: int, out: NDArray[np.int32]) -> None:
        """Put item `step` into `out`."""
        mine = slice(self.rank * len(out), (self.rank + 1) * len(out))
        generator = torch.Generator().manual_seed(step_seed(self.seed, step, "crop"))
        # Drawn for the whole batch, so that how many processes share it changes no crop.
        boxes = random_boxes(self.pictures.size, self.batch_size, self.crop_size, generator)
        on_film = torch.rand(self.batch_size, generator=generator) < self.film
        views = self.pictures.views(self._rows(step)[mine])
        for i, ((L, ab), (side, y, x, flip)) in enumerate(
            zip(views, boxes[mine].tolist(), strict=True)
        ):
            box = slice(y, y + side), slice(x, x + side)
            place = mine.start + i
            rng = np.random.default_rng([self.seed, step, place]) if on_film[place] else None
            crop = prepare(L[box], ab[box], self.crop_size, rng)
            out[i] = crop[:, ::-1] if flip else crop

    def _rows(self, step: int) -> NDArray[np.int64]:
        """Rows of the pictures of the whole batch."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(positions, len(self.pictures))
        rows = np.empty(self.batch_size, dtype=np.int64)
        for epoch in range(epochs[0], epochs[-1] + 1):
            if self._order[0] != epoch:
                self._order = epoch, self.pictures.order(self.seed, epoch)
            inside = epochs == epoch
            rows[inside] = self._order[1][places[inside]]
        return rows


def batches(
    crops: CropBatches,
    steps: range,
    workers: int = 0,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """The batches of the steps, on the device; equal bit for bit whatever the number of workers.

    `workers` are processes that prepare batches ahead; without any, this one prepares each when it
    is needed.

    Raises
    ------
    OSError, ValueError
        From reading the pictures, in any process.
    """
    items = _from_workers(crops, steps, workers) if workers else (crops[step] for step in steps)
    for packed in items:
        if device.type == "cuda":  # a quarter of the bytes travels, while the device computes
            packed = packed.pin_memory().to(device, non_blocking=True)
        yield unpack(packed).to(device)


def _from_workers(crops: CropBatches, steps: range, workers: int) -> Iterator[Tensor]:
    """Each item is valid until the next is asked for."""
    # Workers write to memory that is shared once and for all: to hand over a tensor of its own for
    # each batch costs as much again as making it. All that are under way and the one in use fit.
    ring = torch.empty(AHEAD * workers + 1, *crops.shape, dtype=torch.int32).share_memory_()
    loader = DataLoader(
        _Ring(crops, steps, ring),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=AHEAD,
        # Spawned, because a fork copies locks that a thread (of torch, of a progress bar) may hold.
        multiprocessing_context="spawn",
        # Its seed for the workers' global generators, which nothing uses, would else be drawn from
        # this process's.
        generator=torch.Generator(),
    )
    # Ctrl-C reaches every process, from its first moment; it is for this one alone to handle.
    # Workers inherit what is blocked. The tracker, were it not running, would unblock it.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        places = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for place in places:
        if isinstance(place, Exception):
            raise place
        yield ring[place]


@dataclass
class _Ring(Dataset[int | Exception]):
    """Item k is the place of the batch of step k in the ring, or an error for the user.

    Raised in a worker, the loader would put its traceback into the error's message.
    """

    crops: CropBatches
    steps: range
    ring: Tensor

    def __getitem__(self, step: int) -> int | Exception:
        place = self.steps.index(step) % len(self.ring)
        try:
            self.crops.cut(step, self.ring[place].numpy())
        except (OSError, ValueError) as error:
            return error
        return place


def random_boxes(size: int, count: int, least: int, generator: torch.Generator) -> Tensor:
    """Random squares of pictures of side `size`: int64 (count, 4), side, y, x and 0 or 1 for flip.

    The side is `least` to `size` pixels, the place any that is inside.
    """
    scale, y, x, flip = torch.rand(4, count, dtype=torch.float64, generator=generator)
    side = (least + (size - least) * scale).round()
    room = size - side + 1
    return torch.stack([side, (y * room).floor(), (x * room).floor(), (flip < 0.5)], dim=1).long()


def prepare(
    L: NDArray[np.uint8],
    ab: NDArray[np.uint8],
    size: int,
    rng: np.random.Generator | None = None,
) -> NDArray[np.int32]:
    """A square picture at the size of training, and the network's input, packed.

    Parameters
    ----------
    L, ab
        8-bit CIELAB (H, H) and (H, H, 2), H at least `size`.
    rng
        For the simulation of film; None: the network's input is L*.

    Returns
    -------
    ndarray
        int32 (size, size): the bytes of L, a, b and the input; see `unpack`.
    """
    lab8 = np.concatenate([L[..., None], ab], axis=-1)
    if len(L) == size and rng is None:
        return np.concatenate([lab8, lab8[..., :1]], axis=-1).view("<i4")[..., 0]
    linear = color.lab_to_linear(color.lab8_to_lab(lab8)).clip(0, 1)
    if len(L) != size:
        linear = np.ascontiguousarray(resample.resize(linear, size, size).clip(0, 1))
        lab8 = color.linear_to_lab8(linear)
    shown = lab8[..., :1]
    if rng is not None:
        shown = np.rint(film.expose(linear, rng) * 2.55).astype(np.uint8)[..., None]
    return np.concatenate([lab8, shown], axis=-1).view("<i4")[..., 0]


def unpack(packed: Tensor) -> Batch:
    """The batch of B pictures that `prepare` packed, (B, S, S)."""
    L, a, b, shown = (packed >> shift & 255 for shift in (0, 8, 16, 24))
    lightness = L[:, None] * (100 / 255)
    return Batch(lightness, torch.stack([a, b], 1) - 128.0, shown[:, None] * (100 / 255))


def step_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed of its own for each (seed, step, purpose)."""
    words = np.random.SeedSequence([seed, step, *purpose.encode()]).generate_state(2, np.uint64)
    return int(words[0] >> np.uint64(1))
