"""The parameters of params.yaml as checked types; see that file for what each one means."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from colorized.options import UNTUNED


class ParamsError(ValueError):
    """One line that names the file and the key."""


Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    # Strict: "32" is not 32, and True is not 1. An int is accepted where a float is meant.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Section):
    source: Literal["sample", "folder", "kaggle"]
    path: Annotated[str, Field(min_length=1)]
    dataset: Annotated[str, Field(pattern=r"^[\w-]+/[\w-]+$")]
    version: Literal["latest"] | Annotated[int, Field(ge=1)]
    storage: Annotated[str, Field(pattern=r"^(local|s3://[^/]+/.*[^/])$")]


class Preprocess(Section):
    image_size: Annotated[int, Field(ge=32, multiple_of=16)]
    train_crops: Count
    val_crops: Count
    test_crops: Count
    min_scale: Annotated[float, Field(gt=0, le=1)]
    val_share: Share
    test_share: Share
    seed: Seed
    min_chroma: Annotated[float, Field(ge=0)]
    lookalike_bits: Annotated[int, Field(ge=0, le=32)]


class Model(Section):
    channels: Annotated[
        list[Annotated[int, Field(gt=0, multiple_of=8)]], Field(min_length=3, max_length=3)
    ]
    time_channels: Count
    width: Annotated[int, Field(gt=0, multiple_of=32)]
    depth: Annotated[int, Field(ge=0)]

    @field_validator("channels")
    @classmethod
    def _channels(cls, channels: list[int]) -> list[int]:
        if channels[-1] % 32:  # the heads of the attention at stride 16
            raise ValueError("the last must be a multiple of 32")
        return channels


class Diffusion(Section):
    schedule: Literal["cosine", "linear"]
    T: Annotated[int, Field(ge=10)]


class Train(Section):
    init: Annotated[str, Field(min_length=1)]
    objective: Literal["finish", "denoise"]
    steps: Count
    minutes: Annotated[float, Field(ge=0)]
    batch_size: Count
    accumulate: Count
    crop_size: Annotated[int, Field(ge=32, multiple_of=16)]
    film: Annotated[float, Field(ge=0, le=1)]
    levels: Count
    lr: Annotated[float, Field(gt=0, lt=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    cooldown_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0)]
    loss_spike_factor: Annotated[float, Field(ge=0)]
    max_rollbacks: Annotated[int, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    condition_dropout: Annotated[float, Field(ge=0, lt=1)]
    noise_shift: Annotated[float, Field(gt=0)]
    encoder_lr_scale: Annotated[float, Field(ge=0, le=1)]
    precision: Literal["auto", "float32", "bfloat16"]
    compile: bool
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")]
    threads: Annotated[int, Field(ge=0)]
    workers: Annotated[int, Field(ge=0)]
    seed: Seed
    validate_every: Count
    checkpoint_every: Count

    @field_validator("init")
    @classmethod
    def _init(cls, init: str) -> str:
        words = ("released", "scratch", "imagenet")
        if init not in words and not init.endswith(".safetensors"):
            raise ValueError(f"must be one of {', '.join(words)} or a .safetensors file")
        return init

    @field_validator("loss_spike_factor")
    @classmethod
    def _factor(cls, factor: float) -> float:
        if 0 < factor <= 1:
            raise ValueError("must be more than 1, or 0")
        return factor


Levels = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=4)]


class Finish(Section):
    sigmas: Levels
    sampling_sigmas: Levels
    guidance: Annotated[float, Field(ge=0, le=10)]
    adversarial: Annotated[float, Field(ge=0)]
    squared_error: Annotated[float, Field(ge=0)]
    roughness: Annotated[float, Field(ge=0)]
    detail: Annotated[float, Field(ge=0)]
    denoising: Annotated[float, Field(ge=0)]
    window: Annotated[int, Field(ge=0)]
    critic_lr: Annotated[float, Field(gt=0, lt=1)]

    @field_validator("sigmas", "sampling_sigmas")
    @classmethod
    def _sigmas(cls, sigmas: list[float]) -> list[float]:
        if any(a <= b for a, b in itertools.pairwise(sigmas)):
            raise ValueError("must fall")
        return sigmas


class Sample(Section):
    pictures: Count
    sampler: str | None
    steps: int | None
    guidance: float | None
    temperature: float | None
    seed: int
    diversity_draws: Annotated[int, Field(ge=2)]
    diversity_pictures: Count

    @field_validator("sampler", "steps", "guidance", "temperature", "seed")
    @classmethod
    def _sampling(cls, value: Any, info: ValidationInfo) -> Any:
        """Checked as an option; None is that of the weights."""
        UNTUNED.override(**{str(info.field_name): value})
        return value


class Evaluate(Section):
    kid_subsets: Count
    kid_subset_size: Annotated[int, Field(ge=2)]
    vlb_pictures: Annotated[int, Field(ge=2)]
    vlb_draws: Count
    grid_pictures: Count


class Promote(Section):
    pictures: Annotated[int, Field(ge=2)]
    seeds: Count
    margin: Annotated[float, Field(ge=0, lt=1)]
    min_colorfulness: Annotated[float, Field(ge=0, lt=1)]


class Keep(Section):
    trainings: Count


class Params(Section):
    data: Data
    preprocess: Preprocess
    model: Model
    diffusion: Diffusion
    train: Train
    finish: Finish
    sample: Sample
    evaluate: Evaluate
    promote: Promote
    keep: Keep

    @model_validator(mode="after")
    def _fits(self) -> Params:
        if self.preprocess.val_share + self.preprocess.test_share >= 1:
            raise ValueError(
                "preprocess.val_share + preprocess.test_share must leave something to train on"
            )
        if self.train.crop_size > self.preprocess.image_size:
            raise ValueError("train.crop_size must not exceed preprocess.image_size")
        if self.train.batch_size % self.train.accumulate:
            raise ValueError("train.batch_size must be a multiple of train.accumulate")
        if self.train.objective == "finish":
            for key, only in (("accumulate", 1), ("compile", False)):
                if getattr(self.train, key) != only:
                    raise ValueError(f"train.{key} is for train.objective denoise")
        return self


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises
    ------
    ParamsError
        One line naming the file and the key: missing file, invalid YAML, unknown, missing or
        repeated key, wrong type, impossible value.
    """
    try:
        # As DVC reads it, so that both see the same values: YAML 1.2, where 1e-4 is a number.
        values: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from error
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParamsError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ParamsError(f"{path}: not valid YAML: {reason}") from error
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: must hold sections such as 'train:', found none")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{path}: {'; '.join(_describe(e) for e in error.errors())}") from error


def _describe(error: Any) -> str:
    """`train.steps: …` for one of pydantic's errors."""
    key = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key"
    elif error["type"] == "missing":
        message = "missing"
    elif error["type"] == "model_type":
        message = "must be a section with keys of its own"
    else:
        shown = "" if isinstance(error["input"], dict | BaseModel) else f", got {error['input']!r}"
        message = message[0].lower() + message[1:] + shown
    return f"{key}: {message}" if key else message
