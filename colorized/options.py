"""How chroma is sampled: one value for commands, pages, stages, marks and weights files.

Nothing heavy is imported for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

SAMPLERS = ("dpm_solver_pp_2m", "ddim", "ddpm", "consistency")
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

    The defaults for a set of weights stand in their file, since they were tuned for them.

    Attributes
    ----------
    steps
        Noise levels at which the network is evaluated; where it is guided, twice.
    sampler
        One of `SAMPLERS`.
    guidance
        Weight of the condition, see `model.guidance`: 1 is the model of P(ab | L) itself.
    temperature
        The deviation of all noise that sampling draws is multiplied by this. Below 1, draws are
        likelier and more alike.
    seed
        Of the noise.
    saturation
        Chroma is multiplied by this.

    Raises
    ------
    ValueError
        Naming the option that is of a wrong type or outside `LIMITS`.
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
        """These options but for those given; None keeps what is here.

        Where these are of the sampler ``consistency``, and more steps than these are asked for but
        no sampler, the sampler is that of `UNTUNED`, which takes them.
        """
        changed = {name: value for name, value in given.items() if value is not None}
        if self.sampler == "consistency" and "sampler" not in changed:
            steps = changed.get("steps", 0)
            if isinstance(steps, int) and steps > self.steps:
                changed["sampler"] = UNTUNED.sampler
        return replace(self, **changed)


UNTUNED = SamplingOptions(steps=10, sampler="dpm_solver_pp_2m", guidance=1.0, temperature=1.0)
"""Of weights whose file names no options: draws of P(ab | L) as it was learned."""
