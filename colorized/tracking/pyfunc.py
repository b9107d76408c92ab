"""The model that MLflow serves: pictures in, colored pictures out.

MLflow stores this file with every registered version ("models from code"), with the package
`colorized` and the weights, and runs these where the version is loaded, whatever version of the
package is installed there.

A request is a table, one row a picture, in one of three columns: `image`, the bytes of a file,
base64 where the request is JSON; `gray`, levels (H, W); or `rgb`, levels (H, W, 3), 0 … 255. The
answer has the column `image`: PNG files in base64, or arrays (H, W, 3) with the parameter
`output: array`. Other parameters are those of `colorized colorize`.
"""

from __future__ import annotations

import base64
import importlib.metadata
import io
import shutil
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
from mlflow.types.schema import (
    AnyType,
    Array,
    ColSpec,
    DataType,
    ParamSchema,
    ParamSpec,
    Schema,
    TensorSpec,
)
from numpy.typing import NDArray
from PIL import Image

import colorized
from colorized.api import ColoredPhoto, Colorizer
from colorized.model.header import sampling_defaults
from colorized.options import LIMITS, SamplingOptions

MAX_PICTURES = 16
MAX_PIXELS = 25_000_000
"""Of one request: pictures, and pixels of all of them together."""
COLUMNS = ("image", "gray", "rgb")
NEEDED = (
    "imagecodecs",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pillow-heif",
    "psutil",
    "pypdfium2",
    "safetensors",
    "scipy",
    "tifffile",
    "torch",
)
"""Requirements of a served version, pinned to the installed versions."""


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
            INVALID_PARAMETER_VALUE, which a server answers with status 400: a row without a
            picture or with two, too many of them or of their pixels, bytes that are no picture, an
            impossible parameter.
        """
        try:
            return self._color(model_input, params or {})
        except ValueError as error:
            raise MlflowException(
                " ".join(str(error).split()), error_code=INVALID_PARAMETER_VALUE
            ) from error

    def _color(self, table: Any, params: dict[str, Any]) -> pd.DataFrame:
        if not isinstance(table, pd.DataFrame) or not set(COLUMNS) & set(table):
            raise ValueError("the request has no column 'image', 'gray' or 'rgb'")
        if not 1 <= len(table) <= MAX_PICTURES:
            raise ValueError(f"a request holds 1 to {MAX_PICTURES} pictures, got {len(table)}")
        output, options = _parameters(self.colorizer.options, params)
        left = MAX_PIXELS
        results = []
        for number, row in enumerate(table.to_dict("records")):
            with self.colorizer.colorize(
                _picture(row), max_pixels=left, name=f"picture {number}", **asdict(options)
            ) as colored:
                png = output == "png"
                results.append(_png(colored) if png else np.asarray(colored.image).tolist())
                left -= sum(page.height * page.width for page in colored.pages)
        return pd.DataFrame({"image": results})


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


def _picture(row: dict[str, Any]) -> bytes | NDArray[np.uint8]:
    """The bytes of a picture's file, or an array of levels."""
    given = {name: row[name] for name in COLUMNS if not _is_empty(row.get(name))}
    if len(given) != 1:
        raise ValueError("each row must have one of image, gray and rgb")
    if "image" in given:
        return bytes(given["image"])
    ((name, value),) = given.items()
    try:
        levels: NDArray[Any] = np.array(value.tolist() if hasattr(value, "tolist") else value)
    except ValueError as error:
        raise ValueError(f"{name}: rows of levels must be of one length") from error
    if not (levels.ndim == 2 if name == "gray" else levels.shape[2:] == (3,)):
        shape = "(H, W)" if name == "gray" else "(H, W, 3)"
        raise ValueError(f"{name} must be {shape}, got {levels.shape}")
    if levels.size == 0 or levels.dtype.kind not in "ui" or levels.min() < 0 or levels.max() > 255:
        raise ValueError(f"{name} must hold whole numbers of 0 … 255")
    return levels.astype(np.uint8)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def gradient() -> bytes:
    """A PNG of 48 × 32 pixels from black to white."""
    levels = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="PNG")
    return file.getvalue()


def save(weights: Path, folder: Path) -> None:
    """Write a model that MLflow can serve by itself: weights, code, what it needs, a signature."""
    level = DataType.long
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.binary, "image", required=False),
        ColSpec(Array(Array(level)), "gray", required=False),
        ColSpec(Array(Array(Array(level))), "rgb", required=False),
    ]
    kinds = {int: "long", float: "double", str: "string"}
    defaults = _defaults(sampling_defaults(weights))
    params = [ParamSpec(key, kinds[type(value)], value) for key, value in defaults.items()]
    answer = Schema([ColSpec(AnyType(), "image")])
    with TemporaryDirectory() as name:
        code = Path(name, "colorized")
        # The released weights are not what a version colors with.
        without = shutil.ignore_patterns("__pycache__", "released")
        shutil.copytree(Path(colorized.__file__).parent, code, ignore=without)
        pyfunc.save_model(
            folder,
            python_model=__file__,
            artifacts={"weights": str(weights)},
            code_paths=[str(code)],
            signature=ModelSignature(Schema(columns), answer, ParamSchema(params)),
            input_example=(pd.DataFrame({"image": [gradient()]}), defaults),
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in NEEDED],
        )


set_model(Served())
