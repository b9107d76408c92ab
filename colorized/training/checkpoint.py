"""Checkpoints to go on from: `torch.save` files of a training run's whole state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from colorized import atomic
from colorized.model.weights import CheckpointError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state (tensors, numbers, strings, containers of them)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as partial:
        torch.save(dict(state), partial)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training state; nothing but tensors and plain values is ever unpickled.

    Raises CheckpointError: the file is missing, half-written or something else.
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
