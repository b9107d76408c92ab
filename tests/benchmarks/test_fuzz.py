"""A sample of benchmarks/fuzz.py: damaged files of every format, in a process that may die."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest

from colorized import photo
from colorized.photo.names import READ

pytestmark = pytest.mark.slow


def test_seeds_are_whole_files_of_every_format() -> None:
    read = set()
    for name, data in fuzz.seeds().items():
        with photo.open_scan(data, name=name) as scan:
            read.add(scan.format)
            for page in scan.pages:
                assert page.read().lightness.shape in ((64, 96), (96, 64))
    assert read == set(READ)


def test_a_sample_of_mutants() -> None:
    result = fuzz.run(n=150, seed=1, workers=2, peer=False)
    assert result["failures"] == []
    # Mutants that are all refused, or none, would test little.
    assert min(result["became"]["colored"], result["became"]["refused"]) > 20


def test_a_crash_and_a_hang_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
