"""A whole training run: steps, validation, checkpoints, the log; it can be stopped and resumed.

The state is kept in one folder: `last.pt`; `best.pt`, of the lowest validation error of the
averaged weights; `good.pt`, of the last step whose number `checkpoint_every` divides. The folder's
name should be the fingerprint of a `Recipe`, everything that defines the run, so that a changed
parameter starts afresh instead of going on from a run it does not belong to.

When the loss spikes or is no longer finite, training is rolled back to `good.pt` and continues with
the batches after the one that caused it. A run that was stopped in between is rolled back to the
same state, so it still equals the uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from colorized.data.dataset import Pictures
from colorized.devices import Meter
from colorized.model.weights import CheckpointError
from colorized.training.checkpoint import load_checkpoint, save_checkpoint
from colorized.training.loop import Diverged, OutOfMemory, Step, TrainState, train, validate

LAST, BEST, GOOD = "last.pt", "best.pt", "good.pt"
TIMINGS = ("pictures_per_second", "device_utilization", "peak_memory_gb", "minutes")
"""What is logged that depends on the machine, and on how long it took."""


class Log(Protocol):
    """Receives named numbers of a step."""

    def __call__(self, step: int, values: Mapping[str, float], /) -> None: ...


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; the checkpoint of its last step is on disk."""


def fingerprint(values: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of the values that define a run."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


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
    on_restore: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train until the state is done, going on from the folder's checkpoint when there is one.

    Of several processes the first alone reads and writes the folder, validates, and calls what is
    given here; `should_stop` is asked in each, and one that says so stops all.

    Parameters
    ----------
    log
        Gets, after every validation, `val_loss` and `val_t…`; but for step 0, before training, also
        `loss`, `gradient_norm`, `learning_rate` and the objective's other parts, averaged over the
        steps since it was last called or the run went on, `rollbacks` so far in this process, and
        `TIMINGS`.
    workers
        Processes that prepare batches ahead.
    on_step, on_validate
        Called after every step; after every validation, with `state.ema` up to date.
    on_restore
        Gets a line on each rollback to the last good state.
    should_stop
        Asked after every step.
    clock
        Seconds, by which the settings' `minutes` are counted.

    Raises
    ------
    Interrupted
        When `should_stop` said so; the checkpoint is saved.
    CheckpointError
        When the checkpoint is damaged or belongs to another network.
    FloatingPointError
        When the loss spiked or was no longer finite more often than the settings' `max_rollbacks`,
        with no good state in between; the last good checkpoint stays.
    OutOfMemory
        The checkpoint of the step before is saved.
    """
    main = state.processes.main
    best = resume(state, folder)

    def save(name: str) -> None:
        save_checkpoint(folder / name, {**state.state_dict(), "best": best})

    def measure() -> dict[str, float]:
        errors = validate(state.ema, state.config, val_pictures, state.settings.seed)
        named = {"val_loss": errors.pop("mean")}
        return named | {f"val_{name}": value for name, value in errors.items()}

    if main and not (folder / GOOD).exists():
        save(GOOD)
    if main and state.step == 0:
        log(0, measure())
        on_validate(0)
    window = _Window(state, clock)
    rollbacks = 0

    def restored(line: str) -> None:
        nonlocal rollbacks
        rollbacks += 1
        window.restart()
        if main:
            on_restore(line)

    try:
        for step in _guarded(state, pictures, folder, checkpoint_every, workers, restored, clock):
            stopping = state.processes.any(should_stop()) and not state.done()
            if main:
                on_step(step)
                window.steps.append(step)
                number = step.number
                if number % validate_every == 0 or state.done():
                    values = window.values() | {"rollbacks": rollbacks} | measure()
                    log(number, values)
                    on_validate(number)
                    if values["val_loss"] < best:
                        best = values["val_loss"]
                        save(BEST)
                    window.restart()
                regular = number % checkpoint_every == 0
                if regular or stopping or state.done():
                    save(LAST)
                if regular:
                    save(GOOD)
            if stopping:
                of = "" if state.settings.minutes else f" of {state.settings.steps}"
                raise Interrupted(
                    f"stopped after step {step.number}{of}; the same command goes on from there"
                )
    except OutOfMemory:
        if main:
            save(LAST)
        raise


def _guarded(
    state: TrainState,
    pictures: Pictures,
    folder: Path,
    checkpoint_every: int,
    workers: int,
    on_restore: Callable[[str], None],
    clock: Callable[[], float],
) -> Iterator[Step]:
    """The steps of `train`; after one that diverged, those from the last good state on."""
    rollbacks = 0  # since that state
    while not state.done():
        try:
            for step in train(state, pictures, workers, clock):
                yield step
                if step.number % checkpoint_every == 0:
                    rollbacks = 0
        except Diverged as error:
            if rollbacks == state.settings.max_rollbacks:
                again = f" again after {rollbacks} rollbacks; lower train.lr" if rollbacks else ""
                raise FloatingPointError(f"{error}{again}") from error
            rollbacks += 1
            _load(state, folder / GOOD)
            state.skipped = error.place + 1 - state.step
            on_restore(
                f"{error}: back to step {state.step}, and on with the batches after that one"
            )


def resume(state: TrainState, folder: Path) -> float:
    """Load the folder's last checkpoint, if any; returns the lowest validation error so far.

    Where `last.pt` is not there but `good.pt` is, it is that one. Raises CheckpointError when the
    checkpoint is damaged or belongs to another network; nothing is lost by it.
    """
    path = next((folder / name for name in (LAST, GOOD) if (folder / name).exists()), None)
    if state.processes.share(path) is None:
        return float("inf")
    return _load(state, path or folder / LAST)


def _load(state: TrainState, path: Path) -> float:
    """Go on from the checkpoint that the first process reads; the lowest validation error then."""
    processes = state.processes
    try:
        checkpoint = processes.share(load_checkpoint(path) if processes.main else {})
        state.load_state_dict(checkpoint)
        return float(checkpoint["best"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError) and str(error).startswith(str(path)):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: belongs to another configuration ({reason})") from error


class _Window:
    """The steps since the last line of the log."""

    def __init__(self, state: TrainState, clock: Callable[[], float]) -> None:
        self.state = state
        self.clock = clock
        self.meter = Meter(state.processes.device)
        self.restart()

    def restart(self) -> None:
        """Begin the next line."""
        self.steps: list[Step] = []
        self.began = self.clock()
        self.meter.restart()

    def values(self) -> dict[str, float]:
        """What is logged of them."""
        count = len(self.steps)
        crops = count * self.state.settings.batch_size
        return {
            "loss": sum(s.loss for s in self.steps) / count,
            "gradient_norm": sum(s.gradient_norm for s in self.steps) / count,
            "learning_rate": self.steps[-1].learning_rate,
            **{
                name: sum(s.parts[name] for s in self.steps) / count
                for name in self.steps[-1].parts
            },
            "pictures_per_second": crops / (self.clock() - self.began),
            "minutes": self.state.seconds / 60,
            **self.meter.read(),
        }
