"""A whole training run: steps, validation, checkpoints, the log; stops cleanly and goes on.

The state is kept in one folder, `last.pt` and `best.pt` (lowest validation error of the averaged
weights). The folder's name should be a `fingerprint` of everything that defines the run, so that a
changed parameter starts afresh instead of going on from a run it does not belong to.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from colorized.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from colorized.dataset import Pictures
from colorized.training import Step, TrainState, train, validate

LAST, BEST = "last.pt", "best.pt"


class Log(Protocol):
    """Receives named numbers of a step."""

    def __call__(self, step: int, values: Mapping[str, float], /) -> None: ...


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; the checkpoint of its last step is on disk."""


def fingerprint(values: Mapping[str, Any], code: Iterable[Path]) -> str:
    """12 hexadecimal digits of the values and of the source files that define a run."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for path in sorted(code):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def fit(
    state: TrainState,
    pictures: Pictures,
    val_pictures: Pictures,
    folder: Path,
    *,
    validate_every: int,
    checkpoint_every: int,
    log: Log,
    workers: int = 0,
    on_step: Callable[[Step], None] = lambda step: None,
    on_validate: Callable[[int], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train to the last step, going on from the folder's checkpoint when there is one.

    Parameters
    ----------
    log
        Gets `loss`, `gradient_norm`, `learning_rate` and `pictures_per_second`, averaged over the
        steps since it was last called or the run went on, and `val_loss`, `val_t…` where measured.
    workers
        Processes that prepare batches ahead.
    on_step, on_validate
        Called after every step; after every validation, with `state.ema` up to date.
    should_stop
        Asked after every step.

    Raises
    ------
    Interrupted
        When `should_stop` said so; the checkpoint is saved.
    CheckpointError
        When the checkpoint is damaged or belongs to another network.
    FloatingPointError
        When the loss or its gradient is no longer finite; the last good checkpoint stays.
    """
    best = resume(state, folder)
    window: list[Step] = []
    started = time.perf_counter()
    last = state.settings.steps
    for step in train(state, pictures, workers):
        on_step(step)
        window.append(step)
        number = step.number
        stopping = should_stop()
        if number % validate_every == 0 or number == last:
            seconds = time.perf_counter() - started
            values = _averages(window, seconds, state.settings.batch_size)
            errors = validate(state.ema, val_pictures, state.settings.seed)
            values |= {"val_loss": errors.pop("mean")}
            values |= {f"val_{name}": value for name, value in errors.items()}
            log(number, values)
            on_validate(number)
            if values["val_loss"] < best:
                best = values["val_loss"]
                save_checkpoint(folder / BEST, {**state.state_dict(), "best": best})
            window, started = [], time.perf_counter()
        if number % checkpoint_every == 0 or number == last or stopping:
            save_checkpoint(folder / LAST, {**state.state_dict(), "best": best})
        if stopping and number < last:
            raise Interrupted(
                f"stopped after step {number} of {last}; the same command goes on from there"
            )


def resume(state: TrainState, folder: Path) -> float:
    """Load the folder's last checkpoint, if any; returns the lowest validation error so far."""
    path = folder / LAST
    if not path.exists():
        return float("inf")
    checkpoint = load_checkpoint(path)
    try:
        state.load_state_dict(checkpoint)
        return float(checkpoint["best"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: belongs to another configuration ({reason})") from error


def _averages(window: list[Step], seconds: float, batch_size: int) -> dict[str, float]:
    count = len(window)
    return {
        "loss": sum(s.loss for s in window) / count,
        "gradient_norm": sum(s.gradient_norm for s in window) / count,
        "learning_rate": window[-1].learning_rate,
        "pictures_per_second": count * batch_size / seconds,
    }
