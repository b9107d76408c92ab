"""Stage 1: which photographs there are, each with its sha256 → data/raw/manifest.json."""

from __future__ import annotations

import json

from colorized import sources
from colorized.params import Params
from pipelines import stage


def main(params: Params) -> None:
    """List and hash the photographs of `data.source`."""
    folder = stage.ROOT / params.data.path
    if params.data.source == "sample":
        paths = sources.list_sample(folder)
    else:
        paths = sources.list_photographs(folder)
    files = sources.hash_files(paths, stage.ROOT)
    stage.MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    manifest = {"source": params.data.source, "path": params.data.path, "files": files}
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    stage.MANIFEST.write_text(text + "\n", encoding="utf-8")
    print(f"{len(files)} photographs in {params.data.path}")


if __name__ == "__main__":
    stage.run(main)
