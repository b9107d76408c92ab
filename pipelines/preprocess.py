"""Stage 2: photographs → crops in 8-bit CIELAB, split by photograph → data/lab/."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from rich.progress import track

from colorized import sources
from colorized.params import Params
from pipelines import stage


def main(params: Params) -> None:
    """Cut, convert and split; say what was left out and why."""
    manifest = json.loads(stage.MANIFEST.read_text(encoding="utf-8"))
    paths = [stage.ROOT / entry["file"] for entry in manifest["files"]]
    p = params.preprocess
    settings = sources.CropSettings(
        image_size=p.image_size,
        crops={"train": p.train_crops, "val": p.val_crops, "test": p.test_crops},
        min_scale=p.min_scale,
        val_share=p.val_share,
        test_share=p.test_share,
        seed=p.seed,
    )

    def progress(cuts: Iterable[sources.Cut]) -> Iterator[sources.Cut]:
        yield from track(cuts, description="cutting crops", total=len(paths))

    report = sources.build_shards(paths, stage.LAB, settings, stage.ROOT, progress)
    for name, reason in report.rejects.items():
        print(f"left out: {name}: {reason}")
    for split in sources.SPLITS:
        print(f"{split}: {report.photographs[split]} photographs, {report.crops[split]} crops")


if __name__ == "__main__":
    stage.run(main)
