"""What all stages share: paths, and errors as one line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from colorized.params import Params, load_params
from colorized.text import out_of_memory
from pipelines import lock

ROOT = Path.cwd()
"""Stages run in the project's folder, as DVC runs them."""

RAW = ROOT / "data" / "raw"
MANIFEST = RAW / "manifest.json"
CHUNKS = ROOT / "data" / "chunks"
DOWNLOADS = ROOT / "data" / "downloads"
BY_HAND = ROOT / "data" / "kaggle"
LAB = ROOT / "data" / "lab"
CHECKPOINTS = ROOT / "models" / "checkpoints"
WEIGHTS = ROOT / "models" / "colorized.safetensors"
SAMPLES = ROOT / "data" / "samples"
TIMING = ROOT / "data" / "timing.json"
FEATURES = ROOT / "data" / "features"
BEFORE = ROOT / "data" / "before"
"""Test crops colored with the released weights."""
REPORTS = ROOT / "reports"
METRICS = REPORTS / "metrics.json"
GRID = REPORTS / "grid.jpg"
DATASET = REPORTS / "dataset"

AGAIN = "COLORIZED_TRAIN_AGAIN"
"""Environment variable: train even if this training was finished before."""
RAN = "COLORIZED_STAGE_RAN"
"""Environment variable: a file that a stage creates when it runs, unlike a restored one."""

OUT_OF_MEMORY = "out of memory: close other programs, or use a machine with more"


def run(main: Callable[[Params], None]) -> None:
    """Run a stage under the lock; a foreseen failure is one line on stderr and exit code 1."""
    # SIGTERM and SIGINT both stop a stage cleanly.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if ran := os.environ.get(RAN):
        Path(ran).touch()
    # The first of several training processes holds the lock for all.
    alone = os.environ.get("RANK", "0") == "0"
    try:
        with lock.take(ROOT) if alone else nullcontext():
            main(load_params(ROOT / "params.yaml"))
    except KeyboardInterrupt as stop:
        sys.exit(_fail(str(stop) or "stopped", 130))
    except MemoryError:
        sys.exit(_fail(OUT_OF_MEMORY, 1))
    except KeyError as error:
        sys.exit(_fail(f"a file of an earlier stage lacks {error}; run `dvc repro -f`", 1))
    except (OSError, ValueError, FloatingPointError, ModuleNotFoundError) as error:
        sys.exit(_fail(" ".join(str(error).split()), 1))
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            sys.exit(_fail("a process that prepares batches died, perhaps for want of memory", 1))
        if not out_of_memory(error):
            raise
        sys.exit(_fail(OUT_OF_MEMORY, 1))


def surroundings() -> dict[str, str]:
    """Tags that name the Prefect run of which a stage is part."""
    flow = os.environ.get("PREFECT__FLOW_RUN_ID")
    return {"prefect_flow_run": flow} if flow else {}


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
