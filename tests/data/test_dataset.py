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
from skimage.color import lab2xyz, xyz2lab
from skimage.color.colorconv import xyz_from_rgb
from trainings import noise

from colorized.data.dataset import (
    Batch,
    CropBatches,
    Shard,
    batches,
    open_shard,
    prepare,
    random_boxes,
    step_seed,
    unpack,
)

STATUS = Path("/proc/self/smaps_rollup")


def save(shard: Shard, folder: Path, split: str = "train") -> Path:
    np.save(folder / f"{split}_L.npy", shard.L)
    np.save(folder / f"{split}_ab.npy", shard.ab)
    return folder


def take(shard: Shard, count: int, first: int = 0, seed: int = 0, size: int = 4) -> list[Batch]:
    return list(batches(CropBatches(shard, size, 32, 0.5, seed), range(first, first + count)))


def equal(one: Batch, other: Batch) -> bool:
    names = ("lightness", "ab", "seen")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


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


def test_boxes_vary_and_stay_inside() -> None:
    side, y, x, flip = random_boxes(224, 20_000, 112, torch.Generator().manual_seed(0)).T
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
    crops = CropBatches(pictures, 8, 64, 0.0, 0)
    flips = random_boxes(64, 8, 64, torch.Generator().manual_seed(step_seed(0, 0, "crop")))[:, 3]
    assert 0 < flips.sum() < 8
    batch = unpack(crops[0])
    for i, row in enumerate(pictures.order(0, 0)):
        whole = pictures.batch(np.array([row]))
        expected = whole.lightness.flip(-1) if flips[i] else whole.lightness
        assert torch.equal(batch.lightness[i], expected[0])
        assert torch.equal(batch.ab[i], (whole.ab.flip(-1) if flips[i] else whole.ab)[0])


@pytest.mark.parametrize(("side", "size"), [(224, 64), (171, 96), (65, 64), (96, 96)])
def test_crops_are_resized_in_linear_light(side: int, size: int) -> None:
    """Against OpenCV's area filter on scikit-image's linear RGB."""
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.random((side // 3, side // 3, 3)).astype(np.float32), (side, side)).clip(
        0, 1
    )
    lab8 = cv2.cvtColor((255 * rgb).round().astype(np.uint8), cv2.COLOR_RGB2Lab)
    L, ab = lab8[..., 0], np.ascontiguousarray(lab8[..., 1:])
    batch = unpack(torch.from_numpy(prepare(L, ab, size)[None]))
    found = torch.cat([batch.lightness, batch.ab], 1)[0].permute(1, 2, 0).numpy()
    assert torch.equal(batch.seen, batch.lightness)

    values = np.concatenate([L[..., None] * (100 / 255), ab.astype(float) - 128], -1)
    linear = lab2xyz(values) @ np.linalg.inv(xyz_from_rgb).T
    small = cv2.resize(linear.clip(0, 1), (size, size), interpolation=cv2.INTER_AREA)
    expected = xyz2lab(small @ xyz_from_rgb.T)
    # OpenCV's weights have few digits, and 8 bits are rounded.
    assert np.abs(found - expected).mean() < 0.5
    if side > 2 * size:  # negative control: gamma-coded values merged as if they were light
        naive = cv2.resize(lab8, (size, size), interpolation=cv2.INTER_AREA)
        assert np.abs(naive[..., 0] * (100 / 255) - expected[..., 0]).max() > 1


def test_pictures_are_never_enlarged() -> None:
    with pytest.raises(ValueError, match="crops of 64 pixels need pictures as large, not 48"):
        CropBatches(noise(2, 48), 2, 64, 0.0, 0)


def test_film_is_seen_and_the_target_stays(shard: Shard) -> None:
    clean, filmed = (unpack(CropBatches(shard, 8, 24, share, 3)[0]) for share in (0.0, 1.0))
    assert torch.equal(clean.lightness, filmed.lightness)
    assert torch.equal(clean.ab, filmed.ab)
    assert torch.equal(clean.seen, clean.lightness)
    assert ((filmed.seen - filmed.lightness).abs().mean((1, 2, 3)) > 1).all()


# DataLoader advises against more workers than cores.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_no_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    crops = CropBatches(open_shard(save(noise(20, 70), tmp_path), "train"), 8, 40, 0.5, 5)
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
