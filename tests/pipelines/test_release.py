"""The recipe of the released weights, a step of each phase on a few photographs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from colorized.data.dataset import open_shard
from colorized.data.sources import CropSettings, split_of
from colorized.model.weights import RELEASED, load_weights, save_weights
from pipelines import release

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def train(
    pictures: Path, work: Path, *options: object, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else ()), "-m", "pipelines.release",
         pictures, work, *map(str, options)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def in_split(content: bytes, split: str, crops: CropSettings) -> bytes:
    """The same picture in a file that goes to this split."""
    for number in itertools.count():
        changed = content + str(number).encode()  # behind its end
        digest = hashlib.sha256(changed).hexdigest()
        if split_of(digest, crops.val_share, crops.test_share) == split:
            return changed
    raise AssertionError


def test_from_photographs_to_weights(tmp_path: Path) -> None:
    photographs = iter(sorted((ROOT / "data" / "sample" / "photos").glob("*.jpg")))
    for name in release.SETS:
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for split in ("val", "test", "train", "train"):
            path = next(photographs)
            content = in_split(path.read_bytes(), split, release.SETS[name])
            (tmp_path / "pictures" / name / path.name).write_bytes(content)
    options = "--steps", 0, 1, 1, "--scenes", 3, "--init", RELEASED
    done = train(tmp_path / "pictures", tmp_path / "work", *options, processes=2)
    assert done.returncode == 0, done.stderr
    assert [line[:8] for line in done.stdout.splitlines() if "phase" in line] == [
        "phase 1:",
        "phase 2:",
    ]  # the first was left out
    lab = tmp_path / "work" / "lab"
    counts = {n: len(open_shard(lab / n, "train")) for n in release.SETS}
    assert len(open_shard(lab, "train")) == sum(counts.values()) + 2 * counts["scenes"]
    path = tmp_path / "work" / "colorized.safetensors"
    assert torch.int8 in {t.dtype for t in safetensors.torch.load_file(path).values()}  # packed
    made = load_weights(path)
    before = load_weights(RELEASED)
    assert made.config == before.config
    network = made.denoiser.network.state_dict()
    for name, tensor in before.denoiser.network.state_dict().items():
        assert (network[name] - tensor).norm() <= 0.05 * tensor.norm() + 0.02, name
    assert any(
        not torch.equal(network[n], t) for n, t in before.denoiser.network.state_dict().items()
    )
    again = train(tmp_path / "pictures", tmp_path / "work", *options)
    assert again.returncode == 0, again.stderr
    assert '"step"' not in again.stdout  # nothing was left to do
    assert "error:" in train(tmp_path / "nowhere", tmp_path / "other").stderr
    none = train(tmp_path / "pictures", tmp_path / "work", "--steps", 0, 0, 0)
    assert none.stderr == "error: --steps: all are 0\n"

    mean = tmp_path / "mean"
    both = train(tmp_path, mean, "--steps", 0, 0, 0, "--init", path, RELEASED)
    assert both.returncode == 0, both.stderr
    saved = load_weights(mean / path.name).denoiser.network.state_dict()
    halfway = (network["out.bias"] + before.denoiser.network.state_dict()["out.bias"]) / 2
    torch.testing.assert_close(saved["out.bias"], halfway, atol=1e-4, rtol=1e-3)

    config = dataclasses.replace(before.config, channels=(8, 16, 32))
    other = tmp_path / "other.safetensors"
    save_weights(other, config.build().network.state_dict(), config, {})
    misfit = train(tmp_path, mean, "--steps", 0, 0, 0, "--init", path, other)
    assert misfit.stderr.startswith(f"error: {other}: ")
    assert misfit.stderr.count("\n") == 1
