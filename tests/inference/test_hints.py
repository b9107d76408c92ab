"""Hints from JSON and PNG, laid over a photograph; bad ones named in one line."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.color
from PIL import Image, ImageDraw

from colorized import color
from colorized.inference import hints
from colorized.inference.colorizer import ChromaSampler
from colorized.inference.hints import Hints, HintsError, Point
from colorized.options import UNTUNED

QUICK = UNTUNED.override(steps=2)
PHOTOS = Path(__file__).parents[2] / "data" / "sample" / "photos"
RED = "#b03020"


def png(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def text(**changes: Any) -> str:
    point = {"x": 0.5, "y": 0.5, "radius": 0.1, "color": RED} | changes
    return json.dumps({"points": [{"x": 0, "y": 0, "color": "#000000"}, point]})


class TestJson:
    def test_points(self) -> None:
        first, second = hints.parse_json(text(x=1)).points
        assert (first.x, first.y, first.radius, first.color) == (0, 0, 0.02, "#000000")
        assert (second.x, second.y, second.radius, second.color) == (1, 0.5, 0.1, RED)
        expected = skimage.color.rgb2lab([[[0xB0 / 255, 0x30 / 255, 0x20 / 255]]])[0, 0, 1:]
        np.testing.assert_allclose(second.ab, expected, atol=0.02)

    def test_none_are_none(self) -> None:
        assert not hints.parse_json('{"points": []}')

    @pytest.mark.parametrize(
        ("given", "line"),
        [
            (b"", "h.json: not JSON: Expecting value: line 1 column 1 (char 0)"),
            (b"\xff\xfe\x00", "h.json: not JSON: "),
            ("[" * 100_000, "h.json: not JSON: "),
            ("[1]", "h.json: the whole: must be an object"),
            ("5", "h.json: the whole: must be an object, got 5"),
            ("{}", "h.json: points: is missing"),
            ('{"points": [], "more": 1}', "h.json: more: is unknown; known: points"),
            ('{"points": {}}', "h.json: points: must be a list"),
            ('{"points": [5]}', "h.json: points[0]: must be an object, got 5"),
            (text(x=1.5), "h.json: points[1].x: must be a number in 0 … 1, got 1.5"),
            (text(y=-0.1), "h.json: points[1].y: must be a number in 0 … 1, got -0.1"),
            (text(x="0.5"), "h.json: points[1].x: must be a number in 0 … 1, got '0.5'"),
            (text(x=None), "h.json: points[1].x: must be a number in 0 … 1, got None"),
            (text(x=True), "h.json: points[1].x: must be a number in 0 … 1, got True"),
            (text(x=math.nan), "h.json: points[1].x: must be a number in 0 … 1, got nan"),
            (text(y=10**300), "h.json: points[1].y: must be a number in 0 … 1"),
            (text(radius=0),
             "h.json: points[1].radius: must be a number above 0 and at most 0.5, got 0"),
            (text(radius=math.inf),
             "h.json: points[1].radius: must be a number above 0 and at most 0.5, got inf"),
            (text(color="red"), "h.json: points[1].color: must be like #8b1a1a, got 'red'"),
            (text(color="#12345"), "h.json: points[1].color: must be like #8b1a1a, got '#12345'"),
            (text(color=RED + "\n"), "h.json: points[1].color: must be like #8b1a1a"),
            (text(color=[RED]), "h.json: points[1].color: must be like #8b1a1a"),
            (text(colour=RED),
             "h.json: points[1].colour: is unknown; known: x, y, color, radius"),
            (text(**{"\n" * 999: 1}), "h.json: points[1].\\n"),
            ('{"points": [{"x": 0, "y": 0}]}', "h.json: points[0].color: is missing"),
            (json.dumps({"points": [{"x": 0, "y": 0, "color": RED}] * 1001}),
             "h.json: points: must be at most 1000, got 1001"),
        ],
    )  # fmt: skip
    def test_faults_are_named(self, given: str | bytes, line: str) -> None:
        with pytest.raises(HintsError) as error:
            hints.parse_json(given, "h.json")
        assert str(error.value).startswith(line)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 200

    def test_a_point_of_python_is_as_strict(self) -> None:
        with pytest.raises(HintsError, match=r"^x: must be a number in 0 … 1, got 2$"):
            Point(x=2, y=0, color=RED)


class TestPng:
    def test_opaque_pixels(self) -> None:
        picture = Image.new("RGBA", (40, 20))
        ImageDraw.Draw(picture).rectangle((10, 5, 19, 9), fill=RED)
        known = hints.parse_png(png(picture)).rasterize(np.full((20, 40), 50, np.float32))
        assert known.share[5:10, 10:20].all() and known.share.sum() == 50
        np.testing.assert_allclose(
            known.ab[5:10, 10:20], np.broadcast_to(ab(RED), (5, 10, 2)), atol=0.02
        )

    def test_palette_with_a_transparent_color(self) -> None:
        picture = Image.new("P", (8, 8), 0)
        picture.putpalette([0, 0, 0, 0xB0, 0x30, 0x20])
        picture.paste(1, (0, 0, 4, 8))
        known = hints.parse_png(png(picture, transparency=0)).rasterize(
            np.full((8, 8), 50, np.float32)
        )
        assert known.share[:, :4].all() and not known.share[:, 4:].any()

    def test_colors_are_not_mixed_with_what_is_transparent(self) -> None:
        """Half of each small pixel is red, the other half says nothing: red, known by half."""
        picture = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
        ImageDraw.Draw(picture).rectangle((0, 0, 63, 63), fill=(0, 255, 0, 100))
        for x in range(0, 64, 8):
            ImageDraw.Draw(picture).rectangle((x, 0, x + 3, 63), fill=RED)
        known = hints.parse_png(png(picture)).rasterize(np.full((8, 8), 50, np.float32))
        np.testing.assert_allclose(known.share, 0.5)
        np.testing.assert_allclose(known.ab, np.broadcast_to(ab(RED), (8, 8, 2)), atol=0.02)

    @pytest.mark.parametrize(
        ("given", "line"),
        [
            (b"", "h.png: not a PNG file"),
            (b"\xff\xd8\xff\xe0", "h.png: not a PNG file"),
            (png(Image.new("RGB", (4, 4))), "h.png: has no transparency"),
            (png(Image.new("RGBA", (4, 4))), "h.png: is transparent everywhere"),
            (png(Image.effect_noise((64, 64), 9).convert("RGBA"))[:600], "h.png: cannot be read: "),
            (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "h.png: cannot be read: "),
            (png(Image.new("LA", (20_000, 20_000))), "h.png: 20000 × 20000 pixels are too many"),
        ],
    )
    def test_faults_are_named(self, given: bytes, line: str) -> None:
        with pytest.raises(HintsError) as error:
            hints.parse_png(given, "h.png")
        assert str(error.value).startswith(line)
        assert "\n" not in str(error.value)

    def test_of_another_shape(self) -> None:
        given = hints.parse_png(png(Image.new("RGBA", (40, 20), RED)))
        with pytest.raises(HintsError, match="40 × 20 pixels does not have the shape of the photo"):
            given.rasterize(np.full((40, 20), 50, np.float32))


def test_files(tmp_path: Path) -> None:
    """What a file is shows in its content; its name is in the error."""
    (tmp_path / "a").write_bytes(png(Image.new("RGBA", (4, 4), RED)))
    assert hints.read_hints(tmp_path / "a").mask is not None
    (tmp_path / "b").write_text(text())
    assert len(hints.read_hints(tmp_path / "b").points) == 2
    (tmp_path / "c").write_text("{")
    with pytest.raises(HintsError, match=f"^{tmp_path / 'c'}: not JSON"):
        hints.read_hints(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        hints.read_hints(tmp_path / "d")


def ab(hexadecimal: str) -> np.ndarray:
    return Point(x=0, y=0, color=hexadecimal).ab


class TestLay:
    GRAY = np.full((300, 400), 50, np.float32)

    def test_a_disc(self) -> None:
        known = Hints((Point(x=0.25, y=0.5, radius=0.1, color=RED),)).rasterize(self.GRAY)
        assert known.share.sum() == pytest.approx(math.pi * 30**2, rel=0.01)
        rows, columns = known.share.nonzero()
        assert (rows.mean(), columns.mean()) == pytest.approx((149.5, 99.5))
        np.testing.assert_allclose(known.ab[150, 100], ab(RED), atol=0.02)

    @pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 1), (0.4999, 1), (0.123, 0.456)])
    def test_the_smallest_is_somewhere(self, x: float, y: float) -> None:
        known = Hints((Point(x=x, y=y, radius=1e-6, color=RED),)).rasterize(self.GRAY)
        rows, columns = (known.share == 1).nonzero()
        assert 1 <= len(rows) <= 4
        assert abs(rows.mean() - (y * 300 - 0.5)) <= 0.5
        assert abs(columns.mean() - (x * 400 - 0.5)) <= 0.5

    def test_later_ones_lie_on_top(self) -> None:
        mask = np.zeros((300, 400, 4), np.uint8)
        mask[..., 1:4] = 255
        points = [Point(x=0.5, y=0.5, radius=r, color=c) for r, c in ((0.3, RED), (0.1, "#2040a0"))]
        known = Hints(tuple(points), mask).rasterize(self.GRAY)
        assert known.share.min() == 1
        for x, expected in ((200, "#2040a0"), (250, RED)):
            np.testing.assert_allclose(known.requested[150, x], ab(expected), atol=0.1)
        np.testing.assert_allclose(known.requested[10, 10], ab("#00ffff"), atol=0.1)

    def test_beyond_the_gamut(self) -> None:
        """Pure blue in a light picture: reduced at the same hue, and said."""
        blue, red = (Point(x=0.5, y=0.5, radius=0.1, color=c) for c in ("#0000ff", RED))
        light = np.full((300, 400), 95, np.float32)
        known = Hints((blue,)).rasterize(light)
        a, b = known.ab[150, 200]
        assert math.atan2(b, a) == pytest.approx(math.atan2(*ab("#0000ff")[::-1]), abs=1e-3)
        assert math.hypot(a, b) < 15
        assert Hints((red,)).out_of_gamut(self.GRAY) == []
        assert Hints((red, blue)).out_of_gamut(self.GRAY) == [
            "hint 2, #0000ff: no such chroma at this lightness; reduced at the same hue"
        ]
        mask = np.full((300, 400, 4), (0, 0, 255, 255), np.uint8)
        (line,) = Hints(mask=mask).out_of_gamut(light)
        assert line.startswith("hints: 9") and "% of their chroma does not exist" in line


def photograph(name: str) -> np.ndarray:
    """RGB, true colors."""
    with Image.open(PHOTOS / f"{name}.jpg") as image:
        return np.asarray(image.convert("RGB"))


def lightness_of(rgb: np.ndarray) -> np.ndarray:
    return color.lightness(rgb.astype(np.float32) / 255)


class TestColorize:
    """On photographs, with the released weights."""

    @staticmethod
    def at_hints(colorizer: ChromaSampler, L: np.ndarray, given: Hints) -> float:
        """Mean CIEDE2000 at the hints of the 8-bit result, by scikit-image."""
        chroma = colorizer.colorize(L, UNTUNED.override(steps=5, guidance=1.5), hints=given)
        result = skimage.color.rgb2lab(color.recombine(L, chroma))
        known = given.rasterize(L)
        wanted = np.concatenate([L[..., None], known.ab], axis=-1)
        return float(skimage.color.deltaE_ciede2000(result, wanted)[known.share > 0.5].mean())

    @pytest.mark.parametrize("name", ["macaw", "grace-hopper", "coffee", "taj-mahal"])
    def test_true_and_odd_colors_are_met(self, colorizer: ChromaSampler, name: str) -> None:
        rgb = photograph(name)
        L = lightness_of(rgb)
        rng = np.random.default_rng(0)
        true, odd = [], []
        for x, y in rng.uniform(0.05, 0.95, (6, 2)):
            row, column = int(y * rgb.shape[0]), int(x * rgb.shape[1])
            for found, value in ((true, rgb[row, column]), (odd, rng.integers(0, 256, 3))):
                red, green, blue = value
                found.append(Point(x=x, y=y, radius=0.02, color=f"#{red:02x}{green:02x}{blue:02x}"))
        for points in (true, odd):
            assert self.at_hints(colorizer, L, Hints(tuple(points))) < 2  # 5 is asked for

    def test_regions_are_met(self, colorizer: ChromaSampler) -> None:
        L = lightness_of(photograph("coffee"))
        picture = Image.new("RGBA", (300, 200))
        ImageDraw.Draw(picture).polygon([(20, 20), (120, 30), (60, 160)], fill="#6080c0")
        assert self.at_hints(colorizer, L, hints.parse_png(png(picture))) < 2

    @pytest.mark.parametrize(
        ("name", "x", "y"),
        [("macaw", 0.55, 0.45), ("grace-hopper", 0.3, 0.85), ("roebling-bridge", 0.5, 0.15)],
    )
    def test_they_spread_over_the_surface_they_lie_on(
        self, colorizer: ChromaSampler, name: str, x: float, y: float
    ) -> None:
        """Surfaces by scikit-image, which is told the lightness alone."""
        L = lightness_of(photograph(name))
        smooth = skimage.filters.gaussian(L / 100, 2)
        flooded = skimage.segmentation.flood(
            smooth, (int(y * L.shape[0]), int(x * L.shape[1])), tolerance=0.1
        )
        given = Hints((Point(x=x, y=y, radius=0.03, color="#803090"),))
        near = given.rasterize(L).share > 0
        how = UNTUNED.override(steps=5)
        shifts = colorizer.colorize(L, how, hints=given) - colorizer.colorize(L, how)
        along = shifts[near].mean(0)
        toward = shifts @ (along / np.square(along).sum())  # 1: as far as at the hint
        surface = toward[flooded & ~near].mean()
        assert surface > 0.4
        assert surface > 2 * toward[~flooded].mean()

    def test_candidates_have_them_all(self, colorizer: ChromaSampler) -> None:
        L = lightness_of(photograph("macaw"))
        given = Hints((Point(x=0.55, y=0.45, radius=0.05, color="#3060b0"),))
        drawn = colorizer.candidates(L, 3, UNTUNED.override(steps=3), hints=given)
        known = given.rasterize(L)
        for small in drawn.ab:
            error = colorizer.enlarge(small, L) - known.ab
            assert np.abs(error[known.share == 1]).mean() < 3
        free = colorizer.candidates(L, 3, UNTUNED.override(steps=3)).uncertainty
        h, w = free.shape
        y, x = int(0.45 * h), int(0.55 * w)
        assert drawn.uncertainty[y, x] < 0.5 < free[y, x]

    def test_none_change_nothing(self, colorizer: ChromaSampler) -> None:
        L = lightness_of(photograph("taj-mahal"))
        same = colorizer.colorize(L, QUICK, hints=Hints())
        np.testing.assert_array_equal(same, colorizer.colorize(L, QUICK))
