"""Variants of a colored photograph: with a visible mark, and its colors alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from colorized.photo.names import PhotoError
from colorized.photo.page import Page
from colorized.photo.tones import Levels
from colorized.photo.writing import Colored

Gray: TypeAlias = NDArray[np.float32]
Place: TypeAlias = Literal["corner", "margin"]

TEXT = "Colors by machine"
LAYER_LIGHTNESS = 65.0
"""L* of a layer, at which the least chroma that sRGB has for any hue is largest: 36 units."""

_SMALLEST = 10  # a font that can still be read
# The text's share of the shorter side, and the space around it in its own height.
_SHARE, _SPACE = 1 / 30, 0.5
# Of the plate behind a text in a corner: what is left of lightness and chroma.
_DARK = 0.35
_PAPER, _INK = 96.0, 10.0


def marked(one: Colored, place: Place) -> Colored:
    """The photograph with the words "Colors by machine".

    In the lower right corner they lie on the picture, which is darkened there; a margin is added
    below it, and the picture stays whole. Outside of them nothing changes. Raises PhotoError: the
    picture is too small for words that can be read.
    """
    picture = one.picture
    words = _words(picture.height, picture.width)
    if place == "margin":
        full = np.zeros((len(words), picture.width), np.float32)
        full[:, -words.shape[1] :] = words
        words = full
    return dataclasses.replace(
        one,
        picture=cast(Page, _Marked(picture, words, place)),
        chroma=lambda start, stop, L: _chroma(one, words, place, start, stop, L),
    )


def layer(one: Colored) -> Colored:
    """The colors alone, at one lightness: to lay over the scan, with the blend mode Color."""
    picture = one.picture
    return dataclasses.replace(
        one,
        picture=cast(Page, _Layer(picture)),
        chroma=lambda start, stop, L: one.chroma(start, stop, picture.rows(start, stop)),
    )


@dataclass(frozen=True)
class _Around:
    """A picture like another, but for what a subclass changes."""

    picture: Page

    def __getattr__(self, name: str) -> Any:
        return getattr(self.picture, name)


class _Layer(_Around):
    bits = 8

    def rows(self, start: int, stop: int) -> Gray:
        return np.full((stop - start, self.width), LAYER_LIGHTNESS, np.float32)


@dataclass(frozen=True)
class _Marked(_Around):
    words: Gray  # the share of ink in each pixel, (h, w)
    place: Place

    @property
    def height(self) -> int:
        return self.picture.height + (len(self.words) if self.place == "margin" else 0)

    def rows(self, start: int, stop: int) -> Gray:
        height, inside = self.picture.height, min(stop, self.picture.height)
        parts = []
        if start < inside:
            L = self.picture.rows(start, inside)
            if self.place == "corner" and (ink := _part(self.words, height, start, inside)).size:
                L = L.copy()
                plate = L[-len(ink) :, -ink.shape[1] :]
                plate *= _DARK
                plate += ink * (100 - plate)
            parts.append(L)
        if stop > height:
            ink = self.words[max(start - height, 0) : stop - height]
            parts.append(_PAPER + ink * (_INK - _PAPER))
        return np.concatenate(parts)

    def opacity(self, start: int, stop: int) -> Levels | None:
        if not self.has_alpha:
            return None
        inside = min(stop, self.picture.height)
        found = [self.picture.opacity(start, inside)] if start < inside else []
        parts = [part for part in found if part is not None]
        if stop > inside:
            depth = np.uint16 if self.bits == 16 else np.uint8
            shape = (stop - max(start, inside), self.width)
            parts.append(np.full(shape, np.iinfo(depth).max, depth))
        return np.concatenate(parts)

    def strips(self) -> list[tuple[int, int]]:
        first, last = self.picture.strips()[0]
        return [
            (start, min(start + last - first, self.height))
            for start in range(0, self.height, last - first)
        ]


def _chroma(
    one: Colored,
    words: Gray,
    place: Place,
    start: int,
    stop: int,
    L: Gray,
) -> Gray:
    """ab of a marked picture's rows: less on the plate, none in the margin."""
    height = one.picture.height
    ab = np.zeros((*L.shape, 2), np.float32)
    if start < (inside := min(stop, height)):
        ab[: inside - start] = one.chroma(start, inside, L[: inside - start])
        if place == "corner" and (ink := _part(words, height, start, inside)).size:
            plate = ab[inside - start - len(ink) : inside - start, -ink.shape[1] :]
            plate *= _DARK * (1 - ink[..., None])
    return ab


def _part(words: Gray, height: int, start: int, stop: int) -> Gray:
    """The part of the words, in the lower corner, that is in the rows [start, stop)."""
    first = height - len(words)
    if stop <= first:
        return words[:0]
    return words[max(start - first, 0) : stop - first]


def _words(height: int, width: int) -> Gray:
    """The words for a picture of that size, with space around: share of ink, (h, w)."""
    size = max(_SMALLEST, round(min(height, width) * _SHARE))
    for text in (TEXT, TEXT.replace(" by", "\nby"), TEXT.replace(" ", "\n")):
        font = ImageFont.load_default(size)
        space = round(size * _SPACE)
        canvas = ImageDraw.Draw(Image.new("L", (1, 1)))
        left, top, right, bottom = canvas.multiline_textbbox((0, 0), text, font, align="right")
        w, h = round(right - left) + 2 * space, round(bottom - top) + 2 * space
        if w <= width and h <= height:
            image = Image.new("L", (w, h))
            place = (space - left, space - top)
            ImageDraw.Draw(image).multiline_text(place, text, 255, font, align="right")
            return np.asarray(image, np.float32) / np.float32(255)
    raise PhotoError(f"{width} × {height} pixels are too few for a visible mark")
