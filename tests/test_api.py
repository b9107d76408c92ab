"""The public interface: the colors of the command, and one line for whatever cannot be done."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
from commands import python
from conftest import Run
from PIL import Image

import colorized


@pytest.fixture(scope="module")
def colorizer() -> colorized.Colorizer:
    return colorized.Colorizer()


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small gray photograph in the working folder, which is empty otherwise."""
    monkeypatch.chdir(tmp_path)
    return pictures.scan("scan.png", size=(61, 83))


class TestColors:
    def test_a_file_is_written_as_by_the_command(
        self, colorizer: colorized.Colorizer, scan: Path, run: Run
    ) -> None:
        asked = "--steps", 2, "--seed", 3, "--candidates", 2, "--mark", "corner", "--workers", 0
        assert run("colorize", "scan.png", "-o", "out", *asked).code == 0
        with colorizer.colorize("scan.png", steps=2, seed=3, candidates=2) as colored:
            colored.save("first.png", mark="corner")
            colored.save("second.png", candidate=1, mark="corner")
        assert Path("first.png").read_bytes() == Path("out/scan.png").read_bytes()
        assert Path("second.png").read_bytes() == Path("out/scan.candidate-2.png").read_bytes()

    def test_a_folder_is_colored_as_by_the_command(self, scan: Path, run: Run) -> None:
        Path("scans").mkdir()
        scan.rename("scans/a.png")
        Path("scans/b.png").write_bytes(b"no picture")
        asked = "--steps", 2, "--no-report", "--workers", 0
        assert run("colorize", "scans", "-o", "one", *asked).code == 1
        results = list(colorized.colorize_folder("scans", "two", steps=2))
        assert [r.job.source.name for r in results if not r.outcome.error] == ["a.png"]
        (failed,) = (r.outcome.error for r in results if r.outcome.error)
        assert failed.startswith("scans/b.png: ")
        assert Path("one/a.png").read_bytes() == Path("two/a.png").read_bytes()
        assert [r.job.source.name for r in colorized.colorize_folder("scans", "two", steps=2)] == [
            "b.png"
        ]

    def test_array_image_and_bytes_have_the_colors_of_the_file(
        self, colorizer: colorized.Colorizer, scan: Path
    ) -> None:
        with Image.open(scan) as image:
            image.load()
        levels = np.asarray(image)
        expected = colorizer.colorize(scan, steps=2, seed=1).pages[0].chroma()
        assert expected.shape == (83, 61, 2)
        assert expected.std() > 1
        for given in (scan.read_bytes(), image, levels):
            found = colorizer.colorize(given, steps=2, seed=1).pages[0].chroma()
            np.testing.assert_array_equal(found, expected)
        in_color, deep = np.stack([levels] * 3, axis=-1), levels.astype(np.uint16) * 257
        for close in (in_color, deep, levels / 255, np.float32(levels) / 255):
            found = colorizer.colorize(close, steps=2, seed=1).pages[0].chroma()
            np.testing.assert_allclose(found, expected, atol=0.01)

    def test_pages(self, colorizer: colorized.Colorizer, scan: Path) -> None:
        with Image.open(scan) as image:
            image.save("two.tif", save_all=True, append_images=[image.transpose(2)])
        done: list[tuple[int, int]] = []
        colored = colorizer.colorize("two.tif", steps=2, progress=lambda i, n: done.append((i, n)))
        assert [(page.height, page.width) for page in colored.pages] == [(83, 61), (61, 83)]
        n = done[0][1]
        assert done == [(i, n) for i in range(1, n + 1)]
        colored.save("colored.tif")
        with Image.open("colored.tif") as image:
            assert image.n_frames == 2

    def test_hints(self, colorizer: colorized.Colorizer, scan: Path) -> None:
        blue = {"points": [{"x": 0.5, "y": 0.5, "radius": 0.2, "color": "#4060a0"}]}
        colored = colorizer.colorize(scan, steps=2, hints=blue)
        assert colored.pages[0].chroma()[35:45, 25:35, 1].mean() < -15
        assert len(colored.marks[0].hints_sha256) == 64

    def test_what_a_notebook_shows(self, colorizer: colorized.Colorizer, scan: Path) -> None:
        colored = colorizer.colorize(scan, steps=2, candidates=2)
        with Image.open(io.BytesIO(colored._repr_png_())) as shown:
            assert shown.size == colored.image.size == (61, 83)
        assert len(colored.candidates) == len(colored.seeds) == 2
        assert colored.uncertainty.max() > 0

    def test_nothing_stays_open(
        self, colorizer: colorized.Colorizer, scan: Path, recwarn: pytest.WarningsRecorder
    ) -> None:
        with Image.open(scan) as image:
            image.save("scan.tif")  # read while it is open
        colorizer.colorize("scan.tif", steps=1).close()
        colorizer.colorize("scan.tif", steps=1)
        gc.collect()
        assert not recwarn.list


Use = Callable[[colorized.Colorizer], Any]
BAD_ARRAYS = {
    "an array must be (H, W) or (H, W, 3), got (4,)": np.zeros(4, np.uint8),
    "an array must be (H, W) or (H, W, 3), got (4, 4, 4)": np.zeros((4, 4, 4), np.uint8),
    "an array must be (H, W) or (H, W, 3), got (0, 4)": np.zeros((0, 4), np.uint8),
    "an array must be uint8, uint16 or floating point, got int64": np.zeros((4, 4), np.int64),
    "an array must be uint8, uint16 or floating point, got bool": np.zeros((4, 4), bool),
    "an array of floating point must hold finite numbers in 0 … 1": np.full((4, 4), 1.5),
}


class TestErrors:
    @pytest.mark.parametrize(
        ("use", "line"),
        [
            (lambda c: c.colorize("none.png"), "none.png: No such file or directory"),
            (lambda c: c.colorize("."), ".: Is a directory"),
            (lambda c: c.colorize(b""), "photograph: the file is empty"),
            (lambda c: c.colorize(3),
             "a photograph is a path, bytes, an array or a Pillow image, got int"),
            (lambda c: c.colorize("scan.png", max_pixels=100), "scan.png: "),
            (lambda c: c.colorize("scan.png", candidates=0),
             "candidates must be a whole number from 1 on, got 0"),
            (lambda c: c.colorize("scan.png", step=3),
             "unknown option 'step': the options are steps, "),
            (lambda c: c.colorize("scan.png", steps=0), "steps must be in 1 … 1000, got 0"),
            (lambda c: c.colorize("scan.png", steps="2"),
             "steps must be a whole number, got '2'"),
            (lambda c: c.colorize("scan.png", hints={"points": [{"x": 2}]}), "hints: points[0]"),
            (lambda c: c.colorize("scan.png", hints="none.json"),
             "none.json: No such file or directory"),
            (lambda c: c.colorize("scan.png", steps=1).save("out.gif"), "out.gif: "),
            (lambda c: c.colorize("scan.png", steps=1).save("none/out.png"), "none/out.png: "),
            (lambda c: c.colorize("scan.png", steps=1).save("scan.png"),
             "scan.png: is the original; choose another name"),
            (lambda c: c.colorize("scan.png", steps=1).save("out.png", candidate=1),
             "candidate must be in 0 … 0, got 1"),
            (lambda c: colorized.Colorizer("none.safetensors"), "none.safetensors: "),
            (lambda c: colorized.Colorizer("scan.png"), "scan.png: "),
            (lambda c: colorized.Colorizer(device="tpu"), "device 'tpu'"),
            (lambda c: list(colorized.colorize_folder("none", "out")),
             "none: no such file or folder"),
            (lambda c: list(colorized.colorize_folder("scan.png", "out", steps=0)),
             "steps must be in 1 … 1000, got 0"),
            (lambda c: list(colorized.colorize_folder("scan.png", "out", uncertainty=True)),
             "uncertainty needs candidates, 2 or more"),
        ],
    )  # fmt: skip
    def test_one_line(
        self, colorizer: colorized.Colorizer, scan: Path, use: Use, line: str
    ) -> None:
        before = scan.read_bytes()
        with pytest.raises(colorized.Error) as error:
            use(colorizer)
        assert str(error.value).startswith(line)
        assert "\n" not in str(error.value)
        assert scan.read_bytes() == before
        assert not Path("out").exists()

    @pytest.mark.parametrize("line", BAD_ARRAYS)
    def test_arrays(self, colorizer: colorized.Colorizer, line: str) -> None:
        with pytest.raises(colorized.Error) as error:
            colorizer.colorize(BAD_ARRAYS[line])
        assert str(error.value) == line

    def test_what_progress_raises_is_passed_on(
        self, colorizer: colorized.Colorizer, scan: Path
    ) -> None:
        class Stop(Exception):
            pass

        def stop(done: int, total: int) -> None:
            raise Stop

        with pytest.raises(Stop):
            colorizer.colorize(scan, progress=stop)


def test_importing_loads_nothing() -> None:
    loaded = set(python("-c", "import sys, colorized; print(*sys.modules)").stdout.split())
    assert not loaded & {"torch", "numpy", "PIL", "importlib.metadata", "click"}


@pytest.mark.parametrize("first", ["colorized", "pipelines.train", "colorized.model.unet"])
def test_threads_do_not_spin(first: str) -> None:
    """What is imported first sets it before torch, whose OpenMP reads it as it is loaded."""
    code = f"""
import builtins, os, sys
real = builtins.__import__
def told(name, *rest, **more):
    if name == "torch" and "torch" not in sys.modules:
        print(os.environ["OMP_WAIT_POLICY"])
    return real(name, *rest, **more)
builtins.__import__ = told
os.environ.pop("OMP_WAIT_POLICY", None)
import {first}
import torch
"""
    assert python("-c", code).stdout.split()[0] == "PASSIVE"
