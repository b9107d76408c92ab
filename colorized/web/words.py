"""The page's strings, in the visitor's language.

`static/words.en.json` holds all of them; a translation is one more file beside it, with the same
keys. In HTML files, {{key}} stands for a string.
"""

from __future__ import annotations

import functools
import html
import json
import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"
COOKIE = "language"
"""What a visitor has chosen, if anything."""


@functools.cache
def languages() -> dict[str, dict[str, str]]:
    """Strings by language, such as "de", English first."""
    files = sorted(STATIC.glob("words.*.json"), key=lambda path: (".en." not in path.name, path))
    return {path.name.split(".")[1]: json.loads(path.read_text("utf-8")) for path in files}


def choose(accept: str, chosen: str = "") -> str:
    """The language of a visitor.

    Parameters
    ----------
    accept
        The browser's `Accept-Language`, RFC 9110, section 12.5.4.
    chosen
        What the visitor has chosen on the page.
    """
    if chosen in languages():
        return chosen
    wanted: list[tuple[float, str]] = []
    for part in accept.split(","):
        tag, _, quality = part.strip().partition(";")
        found = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", quality)
        weight = float(found[1]) if found else 0.0 if quality else 1.0
        wanted.append((weight, tag.partition("-")[0].lower()))
    known = [one for one in wanted if one[1] in languages() and one[0] > 0]
    best = max(known, default=None, key=lambda one: one[0])
    return best[1] if best else "en"


@functools.cache
def page(name: str, language: str) -> str:
    """An HTML file in a language."""
    strings = languages()[language]
    links = " ".join(
        f'<span lang="{code}" aria-current="true">{html.escape(words["name"])}</span>'
        if code == language
        else f'<a href="?language={code}" lang="{code}">{html.escape(words["name"])}</a>'
        for code, words in languages().items()
    )
    text = (STATIC / name).read_text("utf-8").replace("{{languages}}", links)
    return re.sub(r"\{\{([\w.]+)\}\}", lambda found: html.escape(strings[found[1]]), text)
