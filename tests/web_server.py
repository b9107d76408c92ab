"""`colorized web` as a process of its own, on a port of its own, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "data" / "sample" / "archive"
END_SECONDS = 120


@dataclass
class Server:
    """A running service: where it is, and the only folder that it may write to."""

    address: str
    folder: Path
    process: subprocess.Popen[str]

    def end(self) -> int:
        """Ask it to end, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(END_SECONDS)


@contextmanager
def serve(
    *options: str,
    port: int = 0,
    python: str | Path = sys.executable,
    path: str = str(ROOT),
) -> Iterator[Server]:
    """A service with these options; killed at the end, if it has not ended."""
    # Not pytest's tmp_path: the sockets that multiprocessing makes in TMPDIR need a short path.
    with TemporaryDirectory(prefix="web-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [str(python), "-m", "colorized", "web", "--port", str(port), *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TMPDIR": folder},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            address = process.stdout.readline().strip().removesuffix("/")
            assert address.startswith("http://"), "it did not start"
            yield Server(address, Path(folder), process)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def scan(path: Path, size: tuple[int, int] = (120, 90), name: str = "dust-bowl-home") -> Path:
    """A small gray scan of an archive photograph."""
    with Image.open(ARCHIVE / f"{name}.jpg") as image:
        image.convert("L").resize(size).save(path)
    return path
