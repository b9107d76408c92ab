"""One of several processes that train: `python tests/ranks.py FOLDER VALUES`, begun by torchrun.

FOLDER holds a shard `train`; VALUES is JSON: `settings` to change and the step to `stop` after. The
first process writes `curve.json` with the losses of the steps that were made, and the others, each
its own, `weights-RANK.pt`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
import trainings

from colorized.data.dataset import Shard, open_shard
from colorized.model.weights import ModelConfig
from colorized.training import fit
from colorized.training.distributed import Processes, open_processes
from colorized.training.loop import Step, TrainState

CONFIG = ModelConfig((8, 16, 32), 16, 32, 1, "cosine", 100, (12.0, 18.0), 32)
SETTINGS = dataclasses.replace(trainings.SETTINGS, steps=6, batch_size=4, condition_dropout=0.2)


def fresh(processes: Processes, **changes: Any) -> TrainState:
    """A new state, as a new process would make it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = CONFIG.build()
    return TrainState(denoiser, CONFIG, dataclasses.replace(SETTINGS, **changes), processes)


def run(
    processes: Processes, shard: Shard, folder: Path, settings: dict[str, Any], stop: int | None
) -> tuple[TrainState, list[Step]]:
    """Train, or go on; the state, and the steps that this process was told of."""
    steps: list[Step] = []
    state = fresh(processes, **settings)
    try:
        fit.fit(
            state, shard, shard, folder, validate_every=3, checkpoint_every=2,
            log=lambda step, values: None, on_step=steps.append,
            # The last process alone is asked to stop.
            should_stop=lambda: state.step == stop and processes.rank == processes.world - 1,
        )  # fmt: skip
    except fit.Interrupted as error:
        print(error)
    return state, steps


def main() -> None:
    folder, values = Path(sys.argv[1]), json.loads(sys.argv[2])
    processes = open_processes("cpu")
    state, steps = run(
        processes, open_shard(folder, "train"), folder / values["name"],
        values["settings"], values["stop"],
    )  # fmt: skip
    place = folder / values["name"]
    if processes.main:
        curve = [[step.number, step.loss, step.gradient_norm] for step in steps]
        (place / "curve.json").write_text(json.dumps(curve))
    # A folder of its own for each process, since a machine of its own would have one.
    torch.save(state.state_dict(), place / f"state-{processes.rank}.pt")
    processes.close()


if __name__ == "__main__":
    main()
