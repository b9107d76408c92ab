"""Pictures → batches: what a batch holds, and that (seed, step) alone decides which."""

import multiprocessing
import re
import signal
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from colorized.data.dataset import (
    Batch,
    CropBatches,
    Shard,
    batches,
    open_shard,
    pack,
    random_boxes,
    resize_packed,
    step_seed,
    unpack,
)

STATUS = Path("/proc/self/smaps_rollup")


def save(shard: Shard, folder: Path, split: str = "train") -> Path:
    np.save(folder / f"{split}_L.npy", shard.L)
    np.save(folder / f"{split}_ab.npy", shard.ab)
    return folder


def noise(count: int, size: int) -> Shard:
    rng = np.random.default_rng(0)
    L, ab = (rng.integers(0, 256, (count, size, size, n), dtype=np.uint8) for n in (1, 2))
    return Shard(L[..., 0], ab)


def take(shard: Shard, count: int, first: int = 0, seed: int = 0, size: int = 4) -> list[Batch]:
    return list(batches(CropBatches(shard, size, 32, 0.5, seed), range(first, first + count)))


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.lightness, other.lightness) and torch.equal(one.ab, other.ab)


def test_batch_has_the_units_of_opencv_float_lab(shard: Shard) -> None:
    batch = shard.batch(np.array([3, 0]))
    assert batch.lightness.shape == (2, 1, 32, 32)
    assert batch.ab.shape == (2, 2, 32, 32)
    lab8 = np.concatenate([shard.L[3, :, :, None], shard.ab[3]], axis=-1)
    rgb = cv2.cvtColor(lab8, cv2.COLOR_Lab2RGB).astype(np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)  # 0 … 100 and ±127
    # Back through 8-bit RGB, which cuts what is out of gamut: close, not equal.
    assert np.median(np.abs(batch.lightness[0, 0].numpy() - lab[..., 0])) < 0.5
    assert np.median(np.abs(batch.ab[0].permute(1, 2, 0).numpy() - lab[..., 1:])) < 1.5


def test_shard_is_read_from_disk_as_it_was_written(shard: Shard, tmp_path: Path) -> None:
    opened = open_shard(save(shard, tmp_path), "train")
    assert isinstance(opened.L, np.memmap)
    assert len(opened) == len(shard) == 6
    assert opened.size == 32
    assert equal(opened.batch(slice(None)), shard.batch(slice(None)))


def test_batches_depend_on_seed_and_step_alone(shard: Shard) -> None:
    whole = take(shard, 5)
    for k in range(5):
        assert equal(take(shard, 1, first=k)[0], whole[k])
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert equal(take(shard, 1)[0], whole[0])
    assert not equal(take(shard, 1, seed=1)[0], whole[0])


def test_batches_leave_the_global_generator_alone(shard: Shard) -> None:
    before = torch.get_rng_state()
    take(shard, 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_what_one_would_see(world: int) -> None:
    pictures = noise(7, 48)
    alone = CropBatches(pictures, 8, 32, 0.5, 0)
    shared = [CropBatches(pictures, 8, 32, 0.5, 0, rank, world) for rank in range(world)]
    for step in range(3):
        assert torch.equal(torch.cat([crops[step] for crops in shared]), alone[step])


@pytest.mark.parametrize(("rank", "world"), [(0, 3), (2, 2), (-1, 2)])
def test_batch_that_cannot_be_shared_out_is_refused(shard: Shard, rank: int, world: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size 8 .* process {rank} of {world}"):
        CropBatches(shard, 8, 32, 0.5, 0, rank, world)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 15])
def test_every_picture_appears_once_per_epoch(batch_size: int) -> None:
    # Picture k is everywhere of lightness k, whatever is cut out of it.
    L = np.repeat(np.arange(7, dtype=np.uint8), 32 * 32).reshape(7, 32, 32)
    flat = Shard(L, np.full((7, 32, 32, 2), 128, dtype=np.uint8))
    seen = torch.cat(
        [b.lightness[:, 0, 0, 0] for b in take(flat, -(-21 // batch_size), size=batch_size)]
    )
    epochs = (seen * 2.55).round().int()[:21].view(3, 7)
    assert (epochs.sort(dim=1).values == torch.arange(7)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1


def test_order_of_an_epoch_is_a_permutation_of_its_own() -> None:
    pictures = noise(50, 16)
    assert sorted(pictures.order(0, 0)) == list(range(50))
    orders = {tuple(pictures.order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_boxes_vary_and_stay_inside() -> None:
    side, y, x, flip = random_boxes(224, 20_000, 0.5, torch.Generator().manual_seed(0)).T
    assert side.min() == 112
    assert side.max() == 224
    assert abs(side.double().mean() - 168) < 1
    for edge in (y, x):
        assert edge.min() == 0
        assert (edge + side).max() == 224
        assert abs((edge + side / 2).mean() - 112) < 1
        assert len(edge.unique()) > 90
    assert set(flip.tolist()) == {0, 1}
    assert abs(flip.double().mean() - 0.5) < 0.02


def test_whole_pictures_are_kept_as_they_are() -> None:
    pictures = noise(8, 64)
    crops = CropBatches(pictures, 8, 64, 1.0, 0)
    flips = random_boxes(64, 8, 1.0, torch.Generator().manual_seed(step_seed(0, 0, "crop")))[:, 3]
    assert 0 < flips.sum() < 8
    batch = unpack(crops[0])
    for i, row in enumerate(pictures.order(0, 0)):
        whole = pictures.batch(np.array([row]))
        expected = whole.lightness.flip(-1) if flips[i] else whole.lightness
        assert torch.equal(batch.lightness[i], expected[0])
        assert torch.equal(batch.ab[i], (whole.ab.flip(-1) if flips[i] else whole.ab)[0])


def triangle(side: int, size: int) -> np.ndarray:
    """Weights (size, side) of a triangle filter, widened where it reduces."""
    scale = side / size
    center = (np.arange(size)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(side) + 0.5 - center) / max(scale, 1)
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("side", "size"), [(224, 64), (171, 96), (65, 64), (50, 64), (96, 96)])
def test_resize_agrees_with_torch_pillow_and_the_formula(side: int, size: int) -> None:
    pictures = noise(1, side)
    packed = resize_packed(pack(pictures.L[0], pictures.ab[0]), size)
    batch = unpack(torch.from_numpy(packed[None]))
    ours = torch.cat([batch.lightness * 2.55, batch.ab + 128], dim=1)[0].numpy()
    planes = np.concatenate([pictures.L, *np.moveaxis(pictures.ab, 3, 0)]).astype(np.float32)

    options = {"size": (size, size), "mode": "bilinear"}
    by_torch = F.interpolate(torch.from_numpy(planes)[None], antialias=True, **options)[0].numpy()
    by_formula = triangle(side, size) @ planes @ triangle(side, size).T
    by_pillow = np.stack(
        [
            Image.fromarray(plane.astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR)
            for plane in planes
        ]
    ).astype(np.float32)
    for other in (by_torch, by_formula):  # which round nothing
        assert np.abs(ours - other).max() < 1.01
        assert np.abs(ours - other).mean() < 0.35
    assert np.abs(ours - by_pillow).max() < 1.01
    assert np.abs(ours - by_pillow).mean() < 0.05
    if side > 1.5 * size:  # negative control
        aliased = F.interpolate(torch.from_numpy(planes)[None], antialias=False, **options)[0]
        assert np.abs(ours - aliased.numpy()).mean() > 10
    if side == size:
        assert np.array_equal(ours.round(), planes)


def test_crops_are_those_that_pillow_cuts() -> None:
    pictures = noise(9, 70)
    batch = unpack(CropBatches(pictures, 16, 40, 0.4, 5)[3])
    boxes = random_boxes(70, 16, 0.4, torch.Generator().manual_seed(step_seed(5, 3, "crop")))
    order = np.concatenate([pictures.order(5, epoch) for epoch in range(8)])
    for i, (row, (side, y, x, flip)) in enumerate(zip(order[48:64], boxes.tolist(), strict=True)):
        picture = Image.fromarray(pictures.L[row]).crop((x, y, x + side, y + side))
        expected = np.asarray(picture.resize((40, 40), Image.Resampling.BILINEAR)).astype(int)
        found = (batch.lightness[i, 0] * 2.55).round().int().numpy()
        assert np.abs(found - (expected[:, ::-1] if flip else expected)).max() <= 1


def test_workers_change_no_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    crops = CropBatches(open_shard(save(noise(20, 70), tmp_path), "train"), 8, 40, 0.4, 5)
    alone = list(batches(crops, range(3, 9)))
    assert len(alone) == 6
    one = list(batches(crops, range(3, 9), 1))
    endless = batches(crops, range(3, 10**9), 2)
    two = [next(endless)]
    for process in psutil.Process().children():
        process.send_signal(signal.SIGINT)  # Ctrl-C is for the first process to handle
    two += islice(endless, 5)
    endless.close()  # workers that are not done leave in peace
    for several in (one, two):
        assert len(several) == 6
        assert all(map(equal, several, alone))
    assert capfd.readouterr().err == ""


def private_growth(shard: Shard) -> tuple[int, int]:
    """Bytes that reading every picture adds to this process: anonymous, and of any kind."""

    def used(name: str) -> int:
        found = re.search(rf"^{name}: +(\d+) kB", STATUS.read_text(), re.MULTILINE)
        assert found
        return 1024 * int(found[1])

    CropBatches(shard, 4, 32, 0.5, 0)[0]  # what torch and NumPy need in any case
    before = used("Anonymous"), used("Rss")
    for L, ab in shard.views(np.arange(len(shard))):
        L.max(), ab.max()
    return used("Anonymous") - before[0], used("Rss") - before[1]


def private_growth_of_a_copy(shard: Shard) -> tuple[int, int]:
    class Copied(Shard):
        def views(self, rows):
            self.__dict__["kept"] = [(L.copy(), ab.copy()) for L, ab in super().views(rows)]
            return iter(self.__dict__["kept"])

    return private_growth(Copied(shard.L, shard.ab))


@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells what memory is private")
def test_pictures_are_not_copied_into_workers(tmp_path: Path) -> None:
    opened = open_shard(save(noise(800, 128), tmp_path), "train")
    pixels = opened.L.nbytes + opened.ab.nbytes
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        anonymous, of_any_kind = pool.apply(private_growth, (opened,))
        assert anonymous < pixels / 10
        assert of_any_kind > pixels / 2  # they are mapped
        # Negative control: a copy shows.
        copied, _ = pool.apply(private_growth_of_a_copy, (opened,))
        assert copied > pixels / 2


def test_step_seeds_differ() -> None:
    seeds = [step_seed(s, k, p) for s in (0, 1) for k in range(50) for p in ("crop", "noise")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "zip"])
def test_damaged_shard_is_named(shard: Shard, tmp_path: Path, damage: str) -> None:
    path = save(shard, tmp_path) / "train_ab.npy"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "zip":
        with open(path, "wb") as file:
            np.savez(file, a=shard.ab)
    else:
        path.write_bytes({"empty": b"", "text": b"not an array", "truncated": data[:-1]}[damage])
    with pytest.raises(ValueError, match=r"train_ab\.npy: not a readable LAB shard") as caught:
        open_shard(tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_arrays_that_do_not_belong_together_are_refused(shard: Shard, tmp_path: Path) -> None:
    for L, ab in (
        (shard.L[:5], shard.ab),
        (shard.L, shard.ab[..., :1]),
        (shard.L.astype(np.float32), shard.ab),
        (shard.L[:, :16], shard.ab[:, :16]),
        (shard.L[:0], shard.ab[:0]),
    ):
        save(Shard(L, ab), tmp_path)
        with pytest.raises(ValueError, match=r"train_\*\.npy: L .* expected uint8"):
            open_shard(tmp_path, "train")
