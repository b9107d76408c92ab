"""Checkpoints to go on from: `torch.save` files of a training run's whole state.

They are written beside their target and moved into place, so that a file that has its name is
whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from colorized.model.weights import CheckpointError, replacing


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state (tensors, numbers, strings, containers of them)."""
    with replacing(path) as file:
        torch.save(dict(state), file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training state; nothing but tensors and plain values is ever unpickled.

    Raises
    ------
    CheckpointError
        The file is missing, half-written or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # damaged data makes torch raise anything
        raise CheckpointError(
            f"{path}: not a checkpoint or a damaged one; delete it to go on from the state before"
            " it, if there is one"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint")
    return state
