"""What every stage shares: where things are, and errors that are one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from colorized.fit import Interrupted
from colorized.params import Params, load_params

ROOT = Path.cwd()
"""Stages run in the project's folder, as DVC runs them."""

MANIFEST = ROOT / "data" / "raw" / "manifest.json"
LAB = ROOT / "data" / "lab"
CHECKPOINTS = ROOT / "models" / "checkpoints"
WEIGHTS = ROOT / "models" / "colorized.safetensors"
RUN = ROOT / "models" / "run.json"
SAMPLES = ROOT / "data" / "samples"
FEATURES = ROOT / "data" / "features"
REPORTS = ROOT / "reports"


def run(main: Callable[[Params], None]) -> None:
    """Run a stage with params.yaml; a foreseen failure is one line on stderr and exit code 1."""
    # DVC and terminals end a stage with either signal; both mean: stop cleanly.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(load_params(ROOT / "params.yaml"))
    except Interrupted as stop:
        sys.exit(_fail(f"{stop}; run the same command again to go on", 130))
    except KeyboardInterrupt:
        sys.exit(_fail("stopped", 130))
    except (OSError, ValueError, FloatingPointError, ModuleNotFoundError) as error:
        sys.exit(_fail(" ".join(str(error).split()), 1))


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
