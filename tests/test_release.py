"""The recipe of the released weights, a step of each phase on a few photographs."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from colorized import checkpoint
from colorized.sources import CropSettings, split_of
from pipelines import release

ROOT = Path(__file__).resolve().parent.parent


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
    options = "--steps", 1, 1, 1, "--init", checkpoint.RELEASED
    done = train(tmp_path / "pictures", tmp_path / "work", *options, processes=2)
    assert done.returncode == 0, done.stderr
    made = checkpoint.load_weights(tmp_path / "work" / "colorized.safetensors")
    before = checkpoint.load_weights(checkpoint.RELEASED)
    assert made.config == before.config
    network = made.denoiser.network.state_dict()
    for name, tensor in before.denoiser.network.state_dict().items():
        torch.testing.assert_close(network[name], tensor, atol=0.02, rtol=0.02)
        assert torch.equal(network[name], release.rounded(network[name]))
    assert any(
        not torch.equal(network[n], t) for n, t in before.denoiser.network.state_dict().items()
    )
    again = train(tmp_path / "pictures", tmp_path / "work", *options)
    assert again.returncode == 0, again.stderr
    assert '"step"' not in again.stdout  # nothing was left to do
    assert "error:" in train(tmp_path / "nowhere", tmp_path / "other").stderr


@pytest.mark.parametrize("bits", [3, 8])
def test_rounded_to_significant_bits(bits: int) -> None:
    values = torch.tensor([0.0, 1.0, -1.0, 3.14159, 1e-3, -6e4, 0.999])
    found = release.rounded(values, bits)
    assert torch.all((found - values).abs() <= values.abs() * 2.0**-bits)
    mantissa, _ = torch.frexp(found)
    assert torch.equal(mantissa * 2**bits, torch.round(mantissa * 2**bits))
    assert torch.equal(found, found.half().float())
