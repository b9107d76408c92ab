"""What the download stage left in data/raw, as a source of pictures."""

from __future__ import annotations

import json

from colorized.data.sources import LabArrays, Source, listed_photographs
from pipelines import stage


def open_source() -> Source:
    """The pictures that the download stage listed or unpacked."""
    manifest = json.loads(stage.MANIFEST.read_text(encoding="utf-8"))
    if manifest["source"] == "kaggle":
        return LabArrays(stage.RAW)
    return listed_photographs(manifest["files"], stage.ROOT)
