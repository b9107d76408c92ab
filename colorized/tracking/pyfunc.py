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
import hashlib
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

from colorized import color, photo
from colorized.inference.colorizer import Colorizer
from colorized.model.header import sampling_defaults
from colorized.model.weights import load_weights
from colorized.options import LIMITS, SamplingOptions
from colorized.photo import provenance

MAX_PICTURES = 16
MAX_PIXELS = 25_000_000
"""Of one request: pictures, and pixels of all of them together."""


class Served(PythonModel):
    """Colors the pictures of a request."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the version's weights."""
        path = Path(context.artifacts["weights"])
        self.weights_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.weights = load_weights(path)
        self.colorizer = Colorizer(self.weights)

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
        output, options = _parameters(self.colorizer.defaults, params)
        left = MAX_PIXELS
        results = []
        for number, value in enumerate(table["image"]):
            with TemporaryDirectory() as folder:
                path = Path(folder) / f"picture {number}"
                try:
                    path.write_bytes(_as_file(value))
                    picture = photo.read_photo(path, left)
                    results.append(self._one(picture, options, output, path))
                except ValueError as error:  # names the file, which nobody knows here
                    raise ValueError(str(error).replace(f"{folder}/", "")) from error
            left -= picture.lightness.size
        return pd.DataFrame({"image": results})

    def _one(self, picture: photo.Photo, options: SamplingOptions, output: str, path: Path) -> Any:
        ab = self.colorizer.colorize(picture.lightness, options)
        if output == "array":
            return color.recombine(picture.lightness, ab).tolist()
        made = provenance.Marks(
            model="colorized",
            weights_sha256=self.weights_sha256,
            original_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            data_sha256=str(self.weights.about.get("data_sha256", "")),
            **asdict(options),
        )
        colored = path.with_suffix(".png")
        photo.write_photo(picture, ab, colored, provenance.for_copy(made, picture, colored))
        return base64.b64encode(colored.read_bytes()).decode()


def _defaults(sampling: SamplingOptions) -> dict[str, Any]:
    """The parameters of a request with their defaults."""
    return {name: getattr(sampling, name) for name in LIMITS} | {"output": "png"}


def _parameters(defaults: SamplingOptions, params: dict[str, Any]) -> tuple[str, SamplingOptions]:
    given = _defaults(defaults) | params
    output = given.pop("output")
    if output not in ("png", "array"):
        raise ValueError(f"output must be png or array, got {output!r}")
    return output, defaults.override(**given)


def _as_file(value: Any) -> bytes:
    """The bytes of a picture's file; an array becomes a PNG."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"image is neither base64 nor an array: {error}") from error
    levels: NDArray[Any] = np.array(value)
    shape = levels.shape[2:]
    if levels.ndim not in (2, 3) or levels.size == 0 or shape not in ((), (3,)):
        raise ValueError(f"an array must be (H, W) or (H, W, 3), got {levels.shape}")
    if levels.dtype.kind not in "ui" or levels.min() < 0 or levels.max() > 255:
        raise ValueError(f"an array must hold whole numbers of 0 … 255, got {levels.dtype}")
    file = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()


def gradient() -> bytes:
    """A PNG of 48 × 32 pixels from black to white."""
    levels = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    return _as_file(levels)


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
