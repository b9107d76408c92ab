"""The command as a user meets it: exit codes, stdout, stderr, and the files it leaves."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pty
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.color
import torch
from commands import python
from conftest import Result, Run
from pictures import PHOTOS, results, scan
from PIL import Image

from colorized import photo
from colorized.cli import coloring
from colorized.inference.colorizer import ChromaSampler
from colorized.model import released
from colorized.model.weights import RELEASED, load_weights, save_weights

COMMAND = str(Path(sys.executable).with_name("colorized"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def colorize(run: Run) -> Run:
    """In this process altogether: starting workers takes seconds."""
    return lambda *arguments: run("colorize", "--steps", 2, "--workers", 0, *arguments)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def files(folder: str | Path) -> list[str]:
    return sorted(results(Path(folder)))


class TestHints:
    def test_met_and_marked(self, colorize: Run) -> None:
        """The middle is blue; the file with the hints is told by its hash."""
        scan("a.png", size=(300, 200))
        text = '{"points": [{"x": 0.5, "y": 0.5, "radius": 0.1, "color": "#4060a0"}]}'
        Path("h.json").write_text(text)
        code, out, _ = colorize("a.png", "-o", "out", "--hints", "h.json")
        assert (code, out) == (0, ["out/a.png"])
        lab = skimage.color.rgb2lab(pixels("out/a.png")[90:110, 140:160])
        wanted = skimage.color.rgb2lab([[[0x40 / 255, 0x60 / 255, 0xA0 / 255]]])
        wanted = np.concatenate([lab[..., :1], np.broadcast_to(wanted, lab.shape)[..., 1:]], -1)
        assert skimage.color.deltaE_ciede2000(lab, wanted).mean() < 5
        assert hashlib.sha256(text.encode()).hexdigest().encode() in Path("out/a.png").read_bytes()

    def test_what_no_color_can_be_is_said(self, colorize: Run) -> None:
        Image.new("L", (64, 64), 250).save("a.png")
        Path("h.json").write_text('{"points": [{"x": 0.5, "y": 0.5, "color": "#0000ff"}]}')
        code, out, err = colorize("a.png", "-o", "out", "--hints", "h.json")
        assert (code, out) == (0, ["out/a.png"])
        assert err == [
            "warning: a.png: hint 1, #0000ff: no such chroma at this lightness; "
            "reduced at the same hue"
        ]

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            ('{"points": [{"x": 2, "y": 0, "color": "#0000ff"}]}',
             "error: h: points[0].x: must be a number in 0 … 1, got 2"),
            ("what?", "error: h: not JSON: Expecting value: line 1 column 1 (char 0)"),
            (None, "error: h: No such file or directory"),
        ],
    )  # fmt: skip
    def test_bad_ones(self, colorize: Run, content: str | None, line: str) -> None:
        scan("a.png")
        if content is not None:
            Path("h").write_text(content)
        assert colorize("a.png", "-o", "out", "--hints", "h") == (1, [], [line])
        assert not Path("out").exists()


class TestProcess:
    """In a process of its own, from another folder."""

    def test_files_and_folders(self, tmp_path: Path) -> None:
        scan(f"{tmp_path}/a photo.jpg")
        scan(f"{tmp_path}/scans/b.png", 1)
        scan(f"{tmp_path}/scans/1900/c.pgm", 2)
        (tmp_path / "scans" / "1900" / "bad.jpg").write_bytes(b"not a picture")
        (tmp_path / "scans" / "notes.txt").touch()
        command = "colorize", "a photo.jpg", "scans/", "-o", "out", "--steps", "2"
        done = python("-m", "colorized", *command, cwd=tmp_path)
        assert done.returncode == 1
        expected = ["out/1900/c.pgm.png", "out/a photo.jpg", "out/b.png"]
        assert sorted(done.stdout.splitlines()) == expected
        assert done.stderr.splitlines() == [
            "note: passed over, no pictures by their names: 1 .txt",
            "error: scans/1900/bad.jpg: no picture of a known format "
            "(AVIF, BMP, GIF, HEIF, JPEG, JPEG2000, PDF, PNG, PPM, TIFF, WEBP)",
            "error: 1 of 4 photographs could not be colored",
        ]
        assert files(tmp_path / "out") == ["1900/c.pgm.png", "a photo.jpg", "b.png"]
        for name, format in (("a photo.jpg", "JPEG"), ("b.png", "PNG"), ("1900/c.pgm.png", "PNG")):
            with Image.open(tmp_path / "out" / name) as image:
                assert (image.format, image.mode, image.size) == (format, "RGB", (61, 43))
                assert np.ptp(np.asarray(image).astype(int), axis=-1).max() > 10

    def test_help_imports_nothing_heavy(self, tmp_path: Path) -> None:
        command = "-X", "importtime", "-m", "colorized", "colorize", "--help"
        done = python(*command, cwd=tmp_path)
        assert done.returncode == 0
        assert "--saturation" in done.stdout
        imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
        assert "click" in imported
        heavy = {"torch", "numpy", "PIL", "pydantic", "rich", "mlflow", "prefect", "dvc"}
        assert not imported & heavy

    def test_only_the_workers_load_torch(self, tmp_path: Path) -> None:
        """Which takes a second: once is what a user waits for."""
        scan(f"{tmp_path}/a.png")
        (tmp_path / "h.json").write_text('{"points": [{"x": 0.5, "y": 0.5, "color": "#4060a0"}]}')
        code = """
import sys
from colorized import cli
try:
    cli.main()
finally:
    print(*sys.modules)
"""
        command = ("colorize", "a.png", "-o", "out", "--steps", "1", "--hints", "h.json")
        done = python("-c", code, *command, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        colored, modules = done.stdout.splitlines()
        assert colored == "out/a.png"
        heavy = {"torch", "imagecodecs", "jinja2", "pydantic", "scipy", "tifffile", "mlflow"}
        assert "multiprocessing" in modules.split()
        assert not heavy & set(modules.split())

    def test_reader_that_leaves(self, tmp_path: Path) -> None:
        scan(f"{tmp_path}/a.png")
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [COMMAND, "colorize", "a.png", "-o", "out", "--steps", "1"],
            cwd=tmp_path, env=ENVIRONMENT, stdout=writing, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, b"")

    def test_progress_bar_on_a_terminal_only(self, tmp_path: Path) -> None:
        scan(f"{tmp_path}/a.png")
        terminal, its_end = pty.openpty()
        with subprocess.Popen(
            [COMMAND, "colorize", "a.png", "-o", "out", "--steps", "1"],
            cwd=tmp_path, env={**ENVIRONMENT, "TERM": "xterm"},
            stdout=subprocess.PIPE, stderr=its_end,
        ) as process:  # fmt: skip
            os.close(its_end)
            shown = b""
            # Linux says EIO when the other end is closed.
            with contextlib.suppress(OSError):
                while some := os.read(terminal, 100_000):
                    shown += some
            assert process.stdout is not None and process.stdout.read() == b"out/a.png\n"
        os.close(terminal)
        assert process.returncode == 0
        assert b"coloring" in shown and b"1 of 1 photographs" in shown


class TestResults:
    def test_same_seed_same_bytes_whatever_else_is_colored(self, colorize: Run) -> None:
        scan("a.jpg", 0), scan("b.png", 1), scan("c.png", 2, (300, 20))
        assert colorize("a.jpg", "b.png", "c.png", "-o", "one").code == 0
        assert colorize("c.png", "b.png", "-o", "two").code == 0
        assert colorize("b.png", "--seed", 0, "-o", "three").code == 0
        assert colorize("b.png", "--seed", 1, "-o", "four").code == 0
        b = Path("one/b.png").read_bytes()
        assert Path("two/c.png").read_bytes() == Path("one/c.png").read_bytes()
        assert Path("two/b.png").read_bytes() == b
        assert Path("three/b.png").read_bytes() == b
        assert Path("four/b.png").read_bytes() != b

    @pytest.mark.parametrize("size", [(1, 1), (500, 1), (1, 500), (211, 37)])
    def test_any_size_keeps_lightness(self, colorize: Run, size: tuple[int, int]) -> None:
        source = scan("a.png", size=size)
        assert colorize(source, "-o", "out", "--saturation", 2) == (0, ["out/a.png"], [])
        gray, colored = pixels(source), pixels("out/a.png")
        assert colored.shape == (size[1], size[0], 3)
        L, L_out = (skimage.color.rgb2lab(v)[..., 0] for v in (gray, colored))
        assert np.abs(L_out - L).max() <= 0.6

    def test_saturation_0_is_gray(self, colorize: Run) -> None:
        source = scan("a.png")
        assert colorize(source, "-o", "out", "--saturation", 0).code == 0
        gray, colored = pixels(source), pixels("out/a.png")
        np.testing.assert_array_equal(colored, gray)

    @pytest.mark.parametrize(
        "option", [("--steps", 3), ("--guidance", 3), ("--temperature", 0.5), ("--saturation", 0.5)]
    )
    def test_options_change_the_colors(self, colorize: Run, option: tuple[object, ...]) -> None:
        scan("a.png")
        assert colorize("a.png", "-o", "one").code == 0
        assert colorize("a.png", "-o", "two", *option).code == 0
        assert not np.array_equal(pixels("one/a.png"), pixels("two/a.png"))

    def test_weights_are_those_named(self, colorize: Run) -> None:
        scan("a.png")
        released = load_weights(RELEASED)
        tensors = released.denoiser.network.state_dict()
        tensors["out.bias"] = tensors["out.bias"] + 0.1
        save_weights(Path("other.safetensors"), tensors, released.config, {})
        assert colorize("a.png", "-o", "one").code == 0
        assert colorize("a.png", "-o", "two", "--weights", RELEASED).code == 0
        assert colorize("a.png", "-o", "three", "--weights", "other.safetensors").code == 0
        one, two, three = (Path(d, "a.png").read_bytes() for d in ("one", "two", "three"))
        assert one == two
        assert one != three
        assert not np.array_equal(pixels("one/a.png"), pixels("three/a.png"))

    def test_original_is_untouched_and_overwriting_replaces(self, colorize: Run) -> None:
        original = scan("a.png").read_bytes()
        Path("out").mkdir()
        Path("out/a.png").write_text("mine")
        result = colorize("a.png", "-o", "out")
        assert result == (1, [], ["error: out/a.png: exists already; --overwrite replaces it"])
        assert Path("out/a.png").read_text() == "mine"
        assert colorize("a.png", "-o", "out", "--overwrite") == (0, ["out/a.png"], [])
        assert pixels("out/a.png").shape == (43, 61, 3)
        assert Path("a.png").read_bytes() == original

    def test_one_photograph_to_a_file_of_another_format(self, colorize: Run) -> None:
        scan("a.png")
        assert colorize("a.png", "-o", "colored.jpg") == (0, ["colored.jpg"], [])
        with Image.open("colored.jpg") as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
        assert colorize("a.png", "-o", "colored.jpg") == (
            0, [], ["note: 1 of 1 photographs are done already"],
        )  # fmt: skip

    def test_photograph_in_place_of_a_command(self, run: Run) -> None:
        scan("a b.png")
        assert run("a b.png", "--steps", 2) == (
            2,
            [],
            [
                "error: there is no command a b.png; type: "
                "colorized colorize 'a b.png' --steps 2 -o colored"
            ],
        )
        assert run("frobnicate") == (2, [], ["error: No such command 'frobnicate'."])

    def test_url_is_called_one(self, colorize: Run) -> None:
        url = "https://example.org/a.jpg"
        assert colorize(url, "-o", "out") == (
            1, [], [f"error: {url}: is a URL; download the photograph and name its file"],
        )  # fmt: skip

    def test_line_per_file_whatever_its_name(self, colorize: Run) -> None:
        names = ["two\nlines.png", "écran 写真.png", os.fsdecode(b"\xff.png")]
        for name in names:
            scan(f"s/{name}")
        code, out, err = colorize("s", "-o", "out")
        assert (code, err) == (0, [])
        expected = ["out/two\\nlines.png", "out/écran 写真.png", "out/\\udcff.png"]
        assert sorted(out) == sorted(expected)
        assert files("out") == sorted(names)

    def test_all_that_can_be_asked_for_lies_beside_it(self, colorize: Run) -> None:
        scan("a.png", size=(160, 120))
        asked = ("--candidates", 2, "--uncertainty", "--layer", "--mark", "margin")
        assert colorize("a.png", "-o", "out", *asked) == (0, ["out/a.png"], [])
        assert files("out") == [
            "a.candidate-2.png",
            "a.png",
            "a.png.candidates.png",
            "a.png.layer.png",
            "a.png.uncertainty.png",
        ]
        assert pixels("out/a.png").shape[0] > 120
        assert pixels("out/a.png.layer.png").shape == (120, 160, 3)
        for name, candidate in (("a.png", 1), ("a.candidate-2.png", 2)):
            facts = json.loads(Path("out", f"{name}.json").read_text(encoding="utf-8"))
            assert (facts["file"], facts["candidate"], facts["candidates"]) == (name, candidate, 2)
            digest = hashlib.sha256(Path("out", name).read_bytes()).hexdigest()
            assert facts["sha256"] == digest
        assert colorize("a.png", "-o", "out", *asked)[:2] == (0, [])

    def test_hints_are_for_one_photograph(self, colorize: Run) -> None:
        scan("a.png"), scan("b.png", 1)
        Path("hints.json").write_text('{"points": [{"x": 0.5, "y": 0.5, "color": "#c02020"}]}')
        assert colorize("a.png", "b.png", "-o", "out", "--hints", "hints.json") == (
            1, [], ["error: --hints is for one photograph, not for 2"],
        )  # fmt: skip

    def test_what_is_left_out_is_a_warning(self, colorize: Run) -> None:
        Image.fromarray(pixels(PHOTOS[0])[:40, :30]).convert("CMYK").save("b.jpg")
        code, out, err = colorize("b.jpg", "-o", "out")
        assert (code, out) == (0, ["out/b.jpg"])
        assert err == ["warning: b.jpg: its CMYK has no color profile: its tones are approximate"]


class TestUsage:
    def test_version(self, run: Run) -> None:
        code, out, err = run("--version")
        weights = hashlib.sha256(RELEASED.read_bytes()).hexdigest()
        assert (code, err) == (0, [])
        assert out[:3] == [
            f"colorized {version('colorized')}", f"weights {weights}", f"torch {torch.__version__}"
        ]  # fmt: skip
        assert out[3].startswith("device cpu")

    def test_no_arguments_show_the_help(self, run: Run) -> None:
        code, out, err = run()
        assert code == 2
        assert "colorize" in "\n".join(out)
        assert err == []

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("paint",), "paint"),
            (("colorize",), "PHOTOGRAPHS"),
            (("colorize", "a.png"), "--out"),
            (("colorize", "a.png", "-o", "out", "--steps", 0), "--steps"),
            (("colorize", "a.png", "-o", "out", "--steps", 1001), "--steps"),
            (("colorize", "a.png", "-o", "out", "--seed", -1), "--seed"),
            (("colorize", "a.png", "-o", "out", "--seed", 2**63), "--seed"),
            (("colorize", "a.png", "-o", "out", "--saturation", -1), "--saturation"),
            (("colorize", "a.png", "-o", "out", "--saturation", "nan"), "--saturation"),
            (("colorize", "a.png", "-o", "out", "--guidance", "inf"), "--guidance"),
            (("colorize", "a.png", "-o", "out", "--temperature", 3), "--temperature"),
            (("colorize", "a.png", "-o", "out", "--uncertainty"), "--uncertainty"),
            (("colorize", "a.png", "-o", ""), "a name is empty"),
            (("colorize", "", "-o", "out"), "a name is empty"),
            (("colorize", "a.png", "-o", "out", "--address", "127.0.0.1"), "--address"),
            (("colorize", "a.png", "-o", "out", "--engine", "ray", "--workers", 2), "--workers"),
            (("colorize", "a.png", "-o", "out", "--engine", "ray", "--report"), "--report"),
        ],
    )
    def test_wrong_usage_exits_with_2(
        self, run: Run, arguments: tuple[object, ...], named: str
    ) -> None:
        scan("a.png")
        code, out, err = run(*arguments)
        assert (code, out) == (2, [])
        assert len(err) == 1
        assert err[0].startswith("error: ")
        assert named in err[0]
        assert files(".") == ["a.png"]

    def test_limit_of_size_is_that_of_the_library(self) -> None:
        defaults = {option.name: option.default for option in coloring.colorize.params}
        assert defaults["max_pixels"] == photo.MAX_PIXELS


class TestFailures:
    """One line each, exit code 1, and nothing left behind."""

    def refused(self, result: Result, expected: str) -> None:
        assert result.code == 1
        assert result.out == []
        assert len(result.err) == 1
        assert result.err[0].startswith(f"error: {expected}")
        assert not Path("out").is_dir()

    def test_name_too_long(self, colorize: Run) -> None:
        name = "a" * 300 + ".png"
        self.refused(colorize(name, "-o", "out"), f"{name}: File name too long")

    def test_too_large_names_the_flag(self, colorize: Run) -> None:
        scan("a.png", size=(11, 10))
        result = colorize("a.png", "-o", "out", "--max-pixels", 109)
        self.refused(result, "a.png: 11 × 10 pixels are more than --max-pixels 109")
        assert colorize("a.png", "-o", "out", "--max-pixels", 110).code == 0

    @pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", ""])
    def test_device_that_is_not_there(self, colorize: Run, device: str) -> None:
        scan("a.png")
        self.refused(colorize("a.png", "-o", "out", "--device", device), f"device {device!r}")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("nowhere.safetensors", "no such weights file"),
            ("half.safetensors", "not a safetensors file"),
            ("lacking.safetensors", "tensor out.bias is missing"),
        ],
    )
    def test_weights(self, colorize: Run, name: str, reason: str) -> None:
        scan("a.png")
        Path("half.safetensors").write_bytes(RELEASED.read_bytes()[:-1000])
        released = load_weights(RELEASED)
        tensors = released.denoiser.network.state_dict()
        del tensors["out.bias"]
        save_weights(Path("lacking.safetensors"), tensors, released.config, {})
        self.refused(colorize("a.png", "-o", "out", "--weights", name), f"{name}: {reason}")

    def test_released_weights_that_are_not_installed(
        self, colorize: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scan("a.png")
        monkeypatch.setattr(released, "RELEASED", Path("/nowhere/colorized.safetensors"))
        result = colorize("a.png", "-o", "out")
        self.refused(result, "the released weights are not at /nowhere/colorized.safetensors")
        assert "--weights" in result.err[0]


class TestMidway:
    """Something happens to the second of three photographs."""

    @pytest.fixture(autouse=True)
    def scans(self, run: Run) -> None:
        for i, name in enumerate("abc"):
            scan(f"s/{name}.png", i)

    def at_call(
        self, number: int, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Any
    ) -> None:
        """Let a certain call of a function fail."""
        original, calls = getattr(owner, name), []

        def function(*arguments: Any, **named: Any) -> Any:
            calls.append(arguments)
            if len(calls) == number:
                raise error
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, function)

    @pytest.mark.parametrize(
        ("number", "owner", "name", "error", "line"),
        [
            # Of each photograph three files are moved: the picture, when it is whole, and when the
            # journal has it, it again, and its sidecar.
            (4, os, "replace", OSError(errno.EIO, "Input/output error"),
             "out/b.png: cannot be written: Input/output error"),
            (2, ChromaSampler, "candidates", MemoryError(),
             "s/b.png: too little memory on cpu; a smaller copy needs less"),
            (2, ChromaSampler, "candidates",
             RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory\nframe #0"),
             "s/b.png: too little memory on cpu; a smaller copy needs less"),
            (2, ChromaSampler, "candidates", RuntimeError("the device\nwas lost"),
             "s/b.png: the device was lost"),
        ],
    )  # fmt: skip
    def test_the_others_are_colored(
        self, colorize: Run, monkeypatch: pytest.MonkeyPatch,
        number: int, owner: Any, name: str, error: Exception, line: str,
    ) -> None:  # fmt: skip
        self.at_call(number, monkeypatch, owner, name, error)
        assert colorize("s", "-o", "out") == (
            1,
            ["out/a.png", "out/c.png"],
            [f"error: {line}", "error: 1 of 3 photographs could not be colored"],
        )
        assert files("out") == ["a.png", "c.png"]

    @pytest.mark.parametrize(
        ("number", "owner", "name"),
        [
            (2, ChromaSampler, "candidates"),
            (4, os, "replace"),
            (5, os, "replace"),
            (2, photo, "open_scan"),
        ],
    )
    def test_interrupt_and_going_on(
        self, colorize: Run, monkeypatch: pytest.MonkeyPatch, number: int, owner: Any, name: str
    ) -> None:
        with monkeypatch.context() as patch:
            self.at_call(number, patch, owner, name, KeyboardInterrupt())
            code, out, err = colorize("s", "-o", "out")
        assert (code, out) == (130, ["out/a.png"])
        assert err == ["error: interrupted; no file is half-written"]
        assert files("out") == ["a.png"]
        before = os.stat("out/a.png")
        assert colorize("s", "-o", "out") == (
            0,
            ["out/b.png", "out/c.png"],
            ["note: 1 of 3 photographs are done already"],
        )
        assert os.stat("out/a.png") == before
        assert files("out") == ["a.png", "b.png", "c.png"]
        assert sorted(os.listdir("out/.colorized")) == ["journal.jsonl", "lock", "thumbnails.jsonl"]
