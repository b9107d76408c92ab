"""A sample of benchmarks/fuzz.py: damaged files of every format, in a process that may die."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

import pytest

from colorized import photo

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # so that its processes find it
    spec.loader.exec_module(module)
    return module


def test_seeds_are_whole_files_of_every_format(fuzz: ModuleType) -> None:
    read = set()
    for name, data in fuzz.seeds().items():
        with photo.open_scan(io.BytesIO(data).getvalue(), name=name) as scan:
            read.add(scan.format)
            for page in scan.pages:
                assert page.read().lightness.shape in ((64, 96), (96, 64))
    assert {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PDF", "PNG", "PPM", "TIFF", "WEBP"} \
        == read  # fmt: skip


def test_a_sample_of_mutants(fuzz: ModuleType) -> None:
    result = fuzz.run(n=150, seed=1, workers=2, peer=False)
    assert result["failures"] == []
    # Mutants that are all refused, or none, would test little.
    assert min(result["became"]["colored"], result["became"]["refused"]) > 20


def test_a_crash_and_a_hang_are_seen(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fuzzer itself: a process that ends is a failure, not an end of the run."""
    worker = fuzz.Worker(tmp_path / "w", peer=False)
    worker.give(("gray.jpg", "flip", fuzz.seeds()["gray.jpg"]))
    worker.process.kill()
    worker.process.join()
    assert worker.answer()[0] == "crash"
    worker.give(("gray.jpg", "flip", fuzz.seeds()["gray.jpg"]))
    while not worker.ready():
        worker.process.join(0.1)
    assert worker.answer()[0] == "colored"
    worker.process.kill()
    worker.process.join()
