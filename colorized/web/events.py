"""The events of `POST /api/preview`, as `/openapi.json` describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Numbers(BaseModel):
    """A picture of numbers.

    Of chroma, a* is (red - 128) * unit and b* is (green - 128) * unit; of a map, the value is
    level * unit; in CIELAB units.
    """

    png: str = Field(description="A PNG file, base64.")
    unit: float


class Waiting(BaseModel):
    """Comes again whenever the queue moves."""

    event: Literal["waiting"]
    ahead: int = Field(ge=0, description="Requests before this one.")


class Reading(BaseModel):
    """The photograph is being decoded."""

    event: Literal["reading"]


class OpenedEvent(BaseModel):
    """The photograph can be read."""

    event: Literal["opened"]
    width: int
    height: int
    page: int
    pages: int = Field(description="Photographs in the file.")
    gray: str = Field(description="Its lightness, at most 1,280 pixels: a PNG, base64.")
    original: str | None = Field(description="As it is, where it has colors: a JPEG, base64.")
    marks: dict[str, Any] | None = Field(
        description="How it was made, where it is a colored photograph of ours."
    )
    repeatable: bool = Field(
        description="Whether that gives its colors again: with these weights, and with hints only "
        "if the file holds them."
    )
    notes: list[str] = Field(description="Notes on the photograph, one line each.")


class Step(BaseModel):
    """A step of sampling is done."""

    event: Literal["step"]
    step: int
    steps: int
    ab: Numbers = Field(description="The present estimate, at the network's scale.")


class Candidate(BaseModel):
    """One coloring."""

    seed: str = Field(description="Draws this coloring again; a decimal number.")
    ab: Numbers = Field(description="Chroma for every pixel of `gray`.")


class Done(BaseModel):
    """The colorings, the most typical first."""

    event: Literal["done"]
    softened: list[int] = Field(description="Numbers of hints too strong for their lightness.")
    candidates: list[Candidate]
    steps: int = Field(description="With which, and the two below, a seed draws these colors.")
    guidance: float
    temperature: float
    uncertainty: Numbers | None = Field(description="Where colorings differ, if several are drawn.")


class Level(BaseModel):
    """One resolution of a photograph."""

    width: int
    height: int


class Scan(BaseModel):
    """Where tiles are: at `/api/tiles/{id}/{level}/{column}/{row}`."""

    id: str
    size: int = Field(description="Side of a tile, pixels.")
    levels: list[Level] = Field(description="The photograph's own resolution, then halves.")


class TilesEvent(Scan):
    """Tiles are held now; the last event where they were asked for."""

    event: Literal["tiles"]


class Error(BaseModel):
    """The last event where something went wrong."""

    event: Literal["error"]
    error: str = Field(description="One line.")
    code: str = Field(description="The reason in one word.")


EVENTS: tuple[type[BaseModel], ...] = (
    Waiting,
    Reading,
    OpenedEvent,
    Step,
    Done,
    TilesEvent,
    Error,
)
