"""`make ui`: the MLflow page of the runs that were logged here, on loopback."""

from __future__ import annotations

import os
import sys

from colorized.tracking import redact, tracking_uri
from pipelines import stage

PORT = os.environ.get("PORT", "5000")

if __name__ == "__main__":
    uri = tracking_uri(stage.ROOT)
    if uri.startswith(("http://", "https://")):
        sys.exit(f"the runs are on a server, which shows them itself: {redact(uri)}")
    print(f"http://127.0.0.1:{PORT} shows {redact(uri)}; Ctrl-C ends it", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--backend-store-uri", uri]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", PORT])
