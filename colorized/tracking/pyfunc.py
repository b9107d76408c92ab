"""The model that MLflow serves: pictures in, colored pictures out.

MLflow keeps a copy of this file with every registered version ("models from code") and runs it
where the version is loaded; the weights come from the version, the rest from the installed package.

A request is a table with the column `image`, one row a picture: the bytes of a file, base64 where
the request is JSON, or an array of gray (H, W) or RGB (H, W, 3) levels, 0 … 255. The answer has the
same column: PNG files in base64, or arrays (H, W, 3) with the parameter `output: array`. Parameters
are those of `colorized colorize`.
"""

from __future__ import annotations

import base64
import binascii
import importlib.metadata
import io
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import AnyType, ColSpec, ParamSchema, ParamSpec, Schema
from numpy.typing import NDArray
from PIL import Image

from colorized.api import ColoredPhoto, Colorizer
from colorized.model.header import sampling_defaults
from colorized.options import LIMITS, SamplingOptions

MAX_PICTURES = 16
MAX_PIXELS = 25_000_000
"""Of one request: pictures, and pixels of all of them together."""


class Served(PythonModel):
    """Colors the pictures of a request."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the version's weights."""
        self.colorizer = Colorizer(context.artifacts["weights"], name="colorized")

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A table (N, 1) of pictures → a table of colored ones; see the module.

        Raises
        ------
        MlflowException
            INVALID_PARAMETER_VALUE, which a server answers with status 400: no column `image`, too
            many pictures or pixels, bytes that are no picture, an impossible parameter.
        """
        try:
            return self._color(model_input, params or {})
        except ValueError as error:
            raise MlflowException(
                " ".join(str(error).split()), error_code=INVALID_PARAMETER_VALUE
            ) from error

    def _color(self, table: Any, params: dict[str, Any]) -> pd.DataFrame:
        if not isinstance(table, pd.DataFrame) or "image" not in table:
            raise ValueError("the request has no column 'image'")
        if not 1 <= len(table) <= MAX_PICTURES:
            raise ValueError(f"a request holds 1 to {MAX_PICTURES} pictures, got {len(table)}")
        output, options = _parameters(self.colorizer.options, params)
        left = MAX_PIXELS
        results = []
        for number, value in enumerate(table["image"]):
            with self.colorizer.colorize(
                _picture(value), max_pixels=left, name=f"picture {number}", **asdict(options)
            ) as colored:
                results.append(_png(colored) if output == "png" else _array(colored))
                left -= sum(page.height * page.width for page in colored.pages)
        return pd.DataFrame({"image": results})


def _array(colored: ColoredPhoto) -> list[Any]:
    levels: list[Any] = np.asarray(colored.image).tolist()
    return levels


def _png(colored: ColoredPhoto) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder, "colored.png")
        colored.save(path)
        return base64.b64encode(path.read_bytes()).decode()


def _defaults(sampling: SamplingOptions) -> dict[str, Any]:
    """The parameters of a request with their defaults."""
    return {name: getattr(sampling, name) for name in LIMITS} | {"output": "png"}


def _parameters(defaults: SamplingOptions, params: dict[str, Any]) -> tuple[str, SamplingOptions]:
    given = _defaults(defaults) | params
    output = given.pop("output")
    if output not in ("png", "array"):
        raise ValueError(f"output must be png or array, got {output!r}")
    return output, defaults.override(**given)


def _picture(value: Any) -> bytes | NDArray[Any]:
    """The bytes of a picture's file, or an array of levels."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"image is neither base64 nor an array: {error}") from error
    levels: NDArray[Any] = np.array(value)
    if levels.dtype.kind not in "ui" or ((levels < 0) | (levels > 255)).any():
        raise ValueError(f"an array must hold whole numbers of 0 … 255, got {levels.dtype}")
    return levels.astype(np.uint8)


def gradient() -> bytes:
    """A PNG of 48 × 32 pixels from black to white."""
    levels = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="PNG")
    return file.getvalue()


def save(weights: Path, folder: Path) -> None:
    """Write a model that MLflow can serve: the weights, this file, a signature, an example."""
    # Bytes, base64 and arrays all are an `image`.
    image = Schema([ColSpec(AnyType(), "image")])
    kinds = {int: "long", float: "double", str: "string"}
    defaults = _defaults(sampling_defaults(weights))
    params = [ParamSpec(key, kinds[type(value)], value) for key, value in defaults.items()]
    picture = base64.b64encode(gradient()).decode()
    pyfunc.save_model(
        folder,
        python_model=__file__,
        artifacts={"weights": str(weights)},
        signature=ModelSignature(image, image, ParamSchema(params)),
        input_example=(pd.DataFrame({"image": [picture]}), defaults),
        pip_requirements=[f"colorized=={importlib.metadata.version('colorized')}"],
    )


set_model(Served())
