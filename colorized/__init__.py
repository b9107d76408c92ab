"""Color for black-and-white photographs, by a diffusion model: the public interface.

    import colorized
    colorized.Colorizer().colorize("photo.jpg", seed=1).save("photo-in-color.tif")

These names are loaded on first use, so that the import is fast. The rest of the package may change
from version to version. docs/python.md has examples.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Waiting OpenMP threads spin by default, which slows down other programs on the same processor. The
# library reads this variable when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from colorized.api import ColoredPage, ColoredPhoto, Colorizer, Error
    from colorized.batch.folder import Result, colorize_folder
    from colorized.options import SamplingOptions

    __version__: str

__all__ = [
    "ColoredPage",
    "ColoredPhoto",
    "Colorizer",
    "Error",
    "Result",
    "SamplingOptions",
    "__version__",
    "colorize_folder",
]

_FROM = {
    **dict.fromkeys(("ColoredPage", "ColoredPhoto", "Colorizer", "Error"), "colorized.api"),
    **dict.fromkeys(("Result", "colorize_folder"), "colorized.batch.folder"),
    "SamplingOptions": "colorized.options",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("colorized")
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    raise AttributeError(f"module 'colorized' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
