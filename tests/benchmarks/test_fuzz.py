"""A sample of benchmarks/fuzz.py: damaged files of every format, in a process that may die."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from colorized import photo
from colorized.photo.names import READ

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    # The path goes to the processes that it starts, too.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("fuzz")


def test_seeds_are_whole_files_of_every_format(fuzz: ModuleType) -> None:
    read = set()
    for name, data in fuzz.seeds().items():
        with photo.open_scan(data, name=name) as scan:
            read.add(scan.format)
            for page in scan.pages:
                assert page.read().lightness.shape in ((64, 96), (96, 64))
    assert read == set(READ)


def test_a_sample_of_mutants(fuzz: ModuleType) -> None:
    result = fuzz.run(n=150, seed=1, workers=2, peer=False)
    assert result["failures"] == []
    # Mutants that are all refused, or none, would test little.
    assert min(result["became"]["colored"], result["became"]["refused"]) > 20


def test_a_crash_and_a_hang_are_seen(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fuzzer itself: a process that ends is a failure, not an end of the run."""
    worker, gray = fuzz.Worker(tmp_path / "w", peer=False), fuzz.seeds()["gray.jpg"]
    worker.process.kill()
    worker.process.join()
    assert worker.treat("gray.jpg", gray)[:2] == ("crash", "exit code -9")
    assert worker.treat("gray.jpg", gray)[0] == "colored"
    monkeypatch.setattr(fuzz, "SECONDS", -60)
    assert worker.treat("gray.jpg", gray)[0] == "hang"
    worker.process.kill()
    worker.process.join()
