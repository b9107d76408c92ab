"""Stage 1: the pictures and their sha256 sums → data/raw/.

Photographs stay where they are and are listed; the Kaggle data set is downloaded to
data/downloads/, verified, and unpacked.
"""

from __future__ import annotations

import json

from colorized.data import kaggle, sources
from colorized.params import Params
from colorized.progress import track
from colorized.tracking import versions
from pipelines import stage


def main(params: Params) -> None:
    """Get the pictures of `data.source`."""
    data = params.data
    if data.source == "kaggle":
        version = kaggle.fetch(
            data.dataset,
            None if data.version == "latest" else data.version,
            by_hand=stage.BY_HAND,
            downloads=stage.DOWNLOADS,
            out=stage.RAW,
        )
        print(f"{data.dataset}{'' if version is None else f', version {version}'}: verified")
        return
    folder = stage.ROOT / data.path
    sample = data.source == "sample"
    paths = sources.list_sample(folder) if sample else sources.list_photographs(folder)
    files = sources.hash_files(track(paths, "reading", "photographs"), stage.ROOT)
    stage.RAW.mkdir(parents=True, exist_ok=True)
    listed = {"source": data.source, "path": data.path, "files": files}
    text = json.dumps(listed, indent=2, ensure_ascii=False)
    stage.MANIFEST.write_text(text + "\n", encoding="utf-8")
    print(f"{len(files)} photographs in {data.path}")
    if not versions.is_versioned(stage.ROOT, data.path):
        print(f"note: {versions.unversioned(data.path)}")


if __name__ == "__main__":
    stage.run(main)
