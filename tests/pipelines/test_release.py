"""The recipe of the released weights, a step of each phase on a few photographs."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from commands import python
from PIL import Image

from colorized import photo
from colorized.color.subsampling import restore_chroma
from colorized.data.dataset import open_shard
from colorized.data.sources import CropSettings, split_of
from colorized.model.weights import RELEASED, load_weights
from pipelines import release

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def train(
    pictures: Path, work: Path, *options: object, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)
    module = *(launcher if processes > 1 else ()), "-m", "pipelines.release"
    return python(*module, pictures, work, *options)


def in_split(content: bytes, split: str, crops: CropSettings) -> bytes:
    """The same picture in a file that goes to this split."""
    for number in itertools.count():
        changed = content + str(number).encode()  # behind its end
        digest = hashlib.sha256(changed).hexdigest()
        if split_of(digest, crops.val_share, crops.test_share) == split:
            return changed
    raise AssertionError


def test_chroma_of_lossy_webp_is_what_it_stores(tmp_path: Path) -> None:
    with Image.open(ROOT / "data" / "sample" / "photos" / "citrus.jpg") as picture:
        for name, options in (("a.webp", {}), ("b.webp", {"lossless": True}), ("c.png", {})):
            picture.convert("RGB").save(tmp_path / name, **options)
    source, changed = release.photographs(tmp_path), {}
    for name in source.names:
        decoded = photo.read_rgb(tmp_path / name)
        found = source.decode((tmp_path / name).read_bytes(), tmp_path / name)
        changed[name] = not np.array_equal(found, decoded)
        assert np.array_equal(found, restore_chroma(decoded) if changed[name] else decoded)
    assert changed == {"a.webp": True, "b.webp": False, "c.png": False}


def test_from_photographs_to_weights(tmp_path: Path) -> None:
    photographs = iter(sorted((ROOT / "data" / "sample" / "photos").glob("*.jpg")))
    (tmp_path / "pictures").mkdir()
    for split in ("val", "test", "train", "train"):
        path = next(photographs)
        content = in_split(path.read_bytes(), split, release.CROPS)
        (tmp_path / "pictures" / path.name).write_bytes(content)
    options = "--minutes", 0.001, 0.001, "--init", RELEASED
    done = train(tmp_path / "pictures", tmp_path / "work", *options, processes=2)
    assert done.returncode == 0, done.stderr
    phases = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert [name for name in phases if name in ("denoise", "finish")] == ["denoise", "finish"]
    assert len(open_shard(tmp_path / "work" / "lab", "train")) == 4  # two crops of each
    path = tmp_path / "work" / "colorized.safetensors"
    assert torch.int8 in {t.dtype for t in safetensors.torch.load_file(path).values()}  # packed
    made = load_weights(path)
    before = load_weights(RELEASED)
    assert made.config == before.config
    network = made.denoiser.network.state_dict()
    known = before.denoiser.network.state_dict()
    for name, tensor in known.items():
        assert (network[name] - tensor).norm() <= 0.1 * tensor.norm() + 0.05, name
    assert any(not torch.equal(network[name], tensor) for name, tensor in known.items())
    again = train(tmp_path / "pictures", tmp_path / "work", *options)
    assert again.returncode == 0, again.stderr
    assert '"step"' not in again.stdout  # nothing was left to do
    other = train(tmp_path / "pictures", tmp_path / "work", "--minutes", 0, 0.001, *options[3:])
    # The finish of another network; the time for the first batch decides how many steps it makes.
    assert re.search(r'"step": [1-9]', other.stdout), other.stderr
    new = "--minutes", 0.001, 0, "--depth", 0
    assert train(tmp_path / "pictures", tmp_path / "new", *new).returncode == 0
    assert load_weights(tmp_path / "new" / path.name).config.depth == 0
    assert "--depth" in train(tmp_path / "pictures", tmp_path / "work", *options, *new[3:]).stderr
    assert "error:" in train(tmp_path / "nowhere", tmp_path / "other").stderr
