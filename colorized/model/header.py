"""What a weights file says of itself; read without its tensors, and without torch.

The metadata of the `.safetensors` file holds JSON under one key: the format, the configuration that
rebuilds the denoiser, the default options for sampling with it, and where it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

from colorized.options import UNTUNED, SamplingOptions

FORMAT = 6
METADATA_KEY = "colorized"


class CheckpointError(ValueError):
    """One line that names the file and what is wrong with it."""


def read_header(path: Path) -> dict[str, Any]:
    """The description in a weights file.

    Raises
    ------
    CheckpointError
        The file is missing, is no safetensors file, or no weights of this program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise not_safetensors(path, error) from error
    return parse_header(path, metadata)


def parse_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The description in the metadata of the file at `path`; errors as in `read_header`."""
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{path}: holds no weights of this program")
    try:
        described: dict[str, Any] = json.loads(metadata[METADATA_KEY])
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']}, this program reads {FORMAT}")
        return described
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(path, error) from error


def sampling_defaults(path: Path) -> SamplingOptions:
    """The options that the weights in a file were tuned for; errors as in `read_header`."""
    described = read_header(path)
    try:
        return parse_sampling(described["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(path, error) from error


def parse_sampling(config: Mapping[str, Any]) -> SamplingOptions:
    """The default options in a configuration; raises TypeError or ValueError."""
    return SamplingOptions(**config["sampling"]) if "sampling" in config else UNTUNED


def unusable(path: Path, error: Exception) -> CheckpointError:
    """For a configuration that cannot be used."""
    return CheckpointError(f"{path}: its configuration cannot be used ({error})")


def not_safetensors(path: Path, error: Exception) -> CheckpointError:
    """For a file of another kind."""
    return CheckpointError(
        f"{path}: not a safetensors file or a damaged one ({error}); other formats, "
        "pickles among them, are not opened"
    )
