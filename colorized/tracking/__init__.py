"""MLflow: runs with their parameters, curves, pictures and files, and the registry of models.

What is logged goes to the server or database `MLFLOW_TRACKING_URI` names, or to a SQLite file in
the project's folder. A `Run` holds its id and nothing global, so a stage can write to the run of
another. A store that does not answer for a while stops nobody: what is logged waits, and goes out
in its order when the store is back. Where MLflow is not installed, a `FileRun` writes the same to
a file, which `import_run` brings into a store later.
"""

from colorized.tracking.files import FileRun, import_run
from colorized.tracking.registry import MODEL, Registry, Version
from colorized.tracking.runs import PARENT, UNSENT, Run, flatten, system_metrics
from colorized.tracking.store import (
    EXPERIMENT,
    StoreAway,
    TrackingError,
    connect,
    installed,
    quiet,
    redact,
    run_url,
    tracking_uri,
)

__all__ = [
    "EXPERIMENT",
    "MODEL",
    "PARENT",
    "UNSENT",
    "FileRun",
    "Registry",
    "Run",
    "StoreAway",
    "TrackingError",
    "Version",
    "connect",
    "flatten",
    "import_run",
    "installed",
    "quiet",
    "redact",
    "run_url",
    "system_metrics",
    "tracking_uri",
]
