"""Stage 2: pictures → crops in 8-bit CIELAB, split by picture → data/lab/, reports/dataset/."""

from __future__ import annotations

from colorized.data import report as dataset_report
from colorized.data import shards, sources, streaming
from colorized.params import Params
from pipelines import raw, stage


def main(params: Params) -> None:
    """Cut, convert and split; print the counts of what was left out."""
    source = raw.open_source()
    p = params.preprocess
    counts = {f"{split}_crops" for split in sources.SPLITS}
    settings = sources.CropSettings(
        **p.model_dump(exclude=counts),
        crops={split: getattr(p, f"{split}_crops") for split in sources.SPLITS},
    )
    url = params.data.storage
    writer = None if url == "local" else streaming.StreamWriter(url)
    report = shards.build_shards(source, stage.LAB, settings, writer)
    dataset_report.write(stage.DATASET, report, stage.LAB)
    for split in sources.SPLITS:
        print(f"{split}: {report.photographs[split]} photographs, {report.crops[split]} crops")
    for kind, count in report.left_out.items():
        print(f"left out: {count} {kind}")
    if report.left_out:
        print(f"each of them, with the reason: {stage.DATASET / 'README.md'}")


if __name__ == "__main__":
    stage.run(main)
