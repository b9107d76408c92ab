"""Shards → batches: what a batch holds, and that (seed, step) alone decides which."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from colorized.dataset import (
    Batch,
    Shard,
    batches,
    epoch_order,
    open_shard,
    random_crops,
    step_seed,
)


def save(shard: Shard, folder: Path, split: str = "train") -> Path:
    np.save(folder / f"{split}_L.npy", shard.L)
    np.save(folder / f"{split}_ab.npy", shard.ab)
    return folder


def take(
    shard: Shard, count: int, first_step: int = 0, seed: int = 0, batch_size: int = 4
) -> list[Batch]:
    return list(islice(batches(shard, batch_size, 32, 0.5, seed, first_step), count))


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
    assert equal(opened.batch(slice(None)), shard.batch(slice(None)))


def test_batches_depend_on_seed_and_step_alone(shard: Shard) -> None:
    whole = take(shard, 5)
    for k in range(5):
        assert equal(take(shard, 1, first_step=k)[0], whole[k])
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert equal(take(shard, 1)[0], whole[0])
    assert not equal(take(shard, 1, seed=1)[0], whole[0])


def test_batches_leave_the_global_generator_alone(shard: Shard) -> None:
    before = torch.get_rng_state()
    take(shard, 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 15])
def test_every_picture_appears_once_per_epoch(batch_size: int) -> None:
    # Picture k is everywhere of lightness k, whatever is cut out of it.
    L = np.repeat(np.arange(7, dtype=np.uint8), 32 * 32).reshape(7, 32, 32)
    flat = Shard(L, np.full((7, 32, 32, 2), 128, dtype=np.uint8))
    seen = torch.cat(
        [b.lightness[:, 0, 0, 0] for b in take(flat, -(-21 // batch_size), batch_size=batch_size)]
    )
    epochs = (seen * 2.55).round().int()[:21].view(3, 7)
    assert (epochs.sort(dim=1).values == torch.arange(7)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1


def test_epoch_order_is_a_permutation_of_its_own() -> None:
    assert sorted(epoch_order(50, 0, 0)) == list(range(50))
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_crops_and_flips_vary_and_stay_inside() -> None:
    # a* grows with x, b* with y: a crop tells where it was and whether it was flipped.
    line = torch.linspace(-1, 1, 64)
    ab = torch.stack([line.expand(64, 64), line[:, None].expand(64, 64)])
    picture = Batch(torch.full((200, 1, 64, 64), 50.0), ab.expand(200, 2, 64, 64))
    crops = random_crops(picture, 32, 0.5, torch.Generator().manual_seed(0))
    assert crops.lightness.shape == (200, 1, 32, 32)
    assert torch.allclose(crops.lightness, torch.tensor(50.0))
    assert crops.ab.abs().max() <= 1
    width = crops.ab[:, 0, 0, -1] - crops.ab[:, 0, 0, 0]
    height = crops.ab[:, 1, -1, 0] - crops.ab[:, 1, 0, 0]
    assert torch.allclose(width.abs(), height, atol=0.05)  # squares, never upside down
    assert 0.4 < (width < 0).float().mean() < 0.6
    assert height.min() < 1.1 and height.max() > 1.8  # from a half to the whole of 2
    assert crops.ab.mean((2, 3)).std(0).min() > 0.1


def test_whole_picture_is_kept_as_it_is(shard: Shard) -> None:
    batch = shard.batch(slice(None))
    crops = random_crops(batch, 32, 1.0, torch.Generator().manual_seed(0))
    for i in range(len(shard)):
        flipped = batch.ab[i].flip(-1)
        kept = torch.allclose(crops.ab[i], batch.ab[i], atol=1e-3)
        assert kept or torch.allclose(crops.ab[i], flipped, atol=1e-3)


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
