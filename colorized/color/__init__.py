"""Color: CIELAB (`lab`), resizing in linear light, and chroma along the edges of lightness."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colorized.color.lab import (
        LUMINANCE,
        fit_gamut,
        lab8_to_lab,
        lab_planes_to_linear,
        lab_to_linear,
        lab_to_srgb,
        lightness,
        lightness_to_luminance,
        linear_to_lab8,
        linear_to_srgb,
        luminance_to_lightness,
        recombine,
        srgb_to_lab,
        srgb_to_linear,
        unstandardize_ab,
    )

__all__ = [
    "LUMINANCE",
    "fit_gamut",
    "lab8_to_lab",
    "lab_planes_to_linear",
    "lab_to_linear",
    "lab_to_srgb",
    "lightness",
    "lightness_to_luminance",
    "linear_to_lab8",
    "linear_to_srgb",
    "luminance_to_lightness",
    "recombine",
    "srgb_to_lab",
    "srgb_to_linear",
    "unstandardize_ab",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # On first use, because it loads torch.
        if name in __all__:
            return getattr(importlib.import_module("colorized.color.lab"), name)
        raise AttributeError(f"module 'colorized.color' has no attribute {name!r}")
