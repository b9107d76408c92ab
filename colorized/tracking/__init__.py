"""MLflow: runs with their parameters, curves, pictures and files, and the registry of models.

Runs are logged to the server or database of `MLFLOW_TRACKING_URI`, or to a SQLite file in the
folder of the repository, also from the copies that DVC makes of it. A `Run` has an id and no global
state. Where the store does not answer, entries wait in a file, and the next run sends them. Where
MLflow is not installed, a `FileRun` writes the same to a file, which `import_run` imports later.
"""

from colorized.tracking.files import FileRun, deliver, import_run, open_run
from colorized.tracking.registry import MODEL, Registry, Version
from colorized.tracking.runs import HEADLINES, PARENT, UNSENT, Run, flatten, system_metrics
from colorized.tracking.store import (
    EXPERIMENT,
    StoreUnavailable,
    TrackingError,
    connect,
    home,
    installed,
    quiet,
    redact,
    run_url,
    tracking_uri,
)
