"""`SamplingOptions`: how chroma is sampled. This module imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

DRAWING = ("consistency", "tinted_consistency")
"""Samplers for weights that were finished to draw."""
SAMPLERS = ("dpm_solver_pp_2m", "ddim", "ddpm", *DRAWING)
LIMITS = {
    "steps": (1, 1000),
    "guidance": (0, 10),
    "temperature": (0, 2),
    "seed": (0, 2**63 - 1),
    "saturation": (0, 4),
}
"""Smallest and largest value of each number."""


@dataclass(frozen=True)
class SamplingOptions:
    """How the colors of a photograph are drawn.

    A weights file holds the defaults tuned for it.

    Attributes
    ----------
    steps
        Noise levels at which the network is evaluated. Guidance doubles the evaluations, but for
        the samplers of `DRAWING`.
    sampler
        One of `SAMPLERS`.
    guidance
        Weight of the condition, see `model.guidance`; 1 is the model of P(ab | L) itself.
    temperature
        Factor on the standard deviation of all noise; below 1, draws are likelier and more alike.
    seed
        Seed of the noise.
    saturation
        Factor on chroma.

    Raises
    ------
    ValueError
        Names the option that has a wrong type or is outside `LIMITS`.
    """

    steps: int
    sampler: str
    guidance: float
    temperature: float
    seed: int = 0
    saturation: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            whole = name in ("steps", "seed")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"{name} must be {kind}, got {value!r}")
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name} must be in {low} … {high}, got {value}")

    def override(self, **given: Any) -> SamplingOptions:
        """A copy with the given options changed; None keeps the present value.

        If the sampler is one of `DRAWING` and more steps are given without a sampler, the other
        options but the seed become those of `UNTUNED`, whose sampler supports them.
        """
        changed = {name: value for name, value in given.items() if value is not None}
        if self.sampler in DRAWING and "sampler" not in changed:
            steps = changed.get("steps", 0)
            if isinstance(steps, int) and steps > self.steps:
                return replace(UNTUNED, **{"seed": self.seed} | changed)
        return replace(self, **changed)


UNTUNED = SamplingOptions(steps=10, sampler="dpm_solver_pp_2m", guidance=1.0, temperature=1.0)
"""The options of a weights file that names none: draws of P(ab | L) as learned."""
