"""Archives as they are: names that collide, folders that cannot be read, colors that are there."""

from __future__ import annotations

import builtins
import csv
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
import tifffile
from conftest import Run
from pictures import PHOTOS
from PIL import Image

from colorized import photo
from colorized.api import Colorizer
from colorized.batch import plan
from colorized.batch.colorize_file import colorize_file
from colorized.batch.job import FileDigest, Job, Settings
from colorized.batch.journal import Entry, Journal
from colorized.options import UNTUNED
from colorized.photo import provenance

SETTINGS = Settings(UNTUNED.override(steps=1), max_pixels=300_000_000)


@pytest.fixture(scope="module")
def model() -> Colorizer:
    return Colorizer()


def picture(index: int = 0, gray: bool = False) -> Image.Image:
    with Image.open(PHOTOS[index]) as image:
        return image.convert("L" if gray else "RGB").resize((90, 70))


def toned(index: int = 0) -> Image.Image:
    """A sepia print."""
    levels = np.asarray(picture(index, gray=True), float) / 255
    colors = [(20, 140, 250), (12, 110, 238), (6, 75, 215)]
    return Image.fromarray(
        np.stack([np.interp(levels, (0, 0.5, 1), c) for c in colors], -1).astype(np.uint8)
    )


# ---- In color already --------------------------------------------------------------------------


def test_photograph_in_color_is_passed_over(tmp_path: Path, model: Colorizer) -> None:
    job = Job(tmp_path / "a.png", tmp_path / "out" / "a.png")
    picture().save(job.source)
    outcome = colorize_file(job, model, SETTINGS)
    assert (outcome.error, outcome.files) == ("", ())
    assert outcome.passed_over == (
        f"{job.source}: is in color already; --recolor colors it all the same"
    )
    assert not job.target.parent.exists()
    recolor = Settings(**{**vars(SETTINGS), "recolor": True})
    assert colorize_file(job, model, recolor).files[0][0] == job.target


@pytest.mark.parametrize("kind", ["gray", "toned"])
def test_monochrome_photograph_is_not_in_color(tmp_path: Path, model: Colorizer, kind: str) -> None:
    job = Job(tmp_path / "a.jpg", tmp_path / "out" / "a.jpg")
    (toned() if kind == "toned" else picture(gray=True).convert("RGB")).save(job.source)
    outcome = colorize_file(job, model, SETTINGS)
    assert (outcome.error, outcome.passed_over) == ("", "")
    # Its colored copy carries marks, which say more than its chroma.
    again = colorize_file(Job(job.target, tmp_path / "again" / "a.jpg"), model, SETTINGS)
    assert again.passed_over.endswith(
        "this program has colored it, as its marks say; --recolor colors it all the same"
    )


def test_pages_in_color_keep_their_colors(tmp_path: Path, model: Colorizer) -> None:
    rgb = np.asarray(picture())
    job = Job(tmp_path / "a.tif", tmp_path / "out" / "a.tif")
    with tifffile.TiffWriter(job.source) as tif:
        tif.write(np.asarray(picture(1, gray=True)), photometric="minisblack", metadata=None)
        tif.write(rgb, photometric="rgb", metadata=None)
    outcome = colorize_file(job, model, SETTINGS)
    assert outcome.error == ""
    assert outcome.notes == (f"{job.source}: page 2 is in color and keeps its colors",)
    with photo.open_scan(job.target) as scan:
        kept = scan.pages[1].rgb8(0, scan.pages[1].height)
    assert np.abs(kept.astype(int) - rgb).max() <= 1

    with tifffile.TiffWriter(job.source) as tif:
        tif.write(rgb, photometric="rgb", metadata=None)
        tif.write(rgb[::-1], photometric="rgb", metadata=None)
    job.target.unlink()
    outcome = colorize_file(job, model, SETTINGS)
    assert "all its pages are in color already" in outcome.passed_over
    assert not any(path.is_file() for path in job.target.parent.rglob("*.tif"))


def test_pages_in_color_are_colored_later(tmp_path: Path, run: Run) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(np.asarray(picture(1, gray=True)), photometric="minisblack", metadata=None)
        tif.write(np.asarray(picture()), photometric="rgb", metadata=None)
    command = "colorize", "a.tif", "-o", "out", "--steps", 1, "--workers", 0
    kept = f"warning: {Path('a.tif')}: page 2 is in color and keeps its colors"
    done = 0, [], ["note: 1 of 1 photographs are done already"]
    assert run(*command) == (0, ["out/a.tif"], [kept])
    assert run(*command) == done
    assert run(*command, "--recolor") == (0, ["out/a.tif"], [])
    assert run(*command, "--recolor") == run(*command) == done


def test_color_negative_gets_a_hint(tmp_path: Path, model: Colorizer) -> None:
    """Dyes of the inverted colors on an orange base (densities of Kodak's datasheets, about)."""
    light = np.asarray(picture(2), float) / 255
    density = light * (1.0, 0.9, 0.8) + (0.2, 0.6, 0.9)
    negative = Image.fromarray((255 * 10**-density).round().astype(np.uint8))
    job = Job(tmp_path / "a.png", tmp_path / "out" / "a.png")
    negative.save(job.source)
    recolor = Settings(**{**vars(SETTINGS), "recolor": True})
    notes = colorize_file(job, model, recolor).notes
    assert notes == (f"{job.source}: it looks like a color negative; invert it first",)


def test_what_is_in_color() -> None:
    known = [photo.is_in_color(np.asarray(picture(index))) for index in range(len(PHOTOS))]
    assert np.mean(known) > 0.97
    for index in range(len(PHOTOS)):
        assert not photo.is_in_color(np.asarray(toned(index)))
        assert not photo.is_in_color(np.asarray(picture(index, gray=True).convert("RGB")))


# ---- No work twice -----------------------------------------------------------------------------


def test_files_are_read_and_hashed_once(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(gray=True).save(tmp_path / "a.png")
    read: Counter[str] = Counter()
    for module in (builtins, io):

        def counted(file: Any, mode: str = "r", *args: Any, open: Any = module.open, **names: Any):
            if mode == "rb":
                read[Path(str(file)).name] += 1
            return open(file, mode, *args, **names)

        monkeypatch.setattr(module, "open", counted)
    done = run("colorize", "a.png", "-o", "new.png", "--steps", 1, "--workers", 0)
    assert done == (0, ["new.png"], [])
    assert {name: read[name] for name in ("a.png", "new.png", "new.png.json")} == {
        "a.png": 1, "new.png": 1, "new.png.json": 1
    }  # fmt: skip


def test_pages_of_a_pdf_are_rendered_once(
    tmp_path: Path, model: Colorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path / "a.pdf", tmp_path / "out" / "a.pdf.tif")
    pages = [picture(index, gray=True) for index in range(3)]
    pages[0].save(job.source, save_all=True, append_images=pages[1:])
    rendered = []
    render = pypdfium2.PdfPage.render
    monkeypatch.setattr(
        pypdfium2.PdfPage, "render", lambda *a, **names: rendered.append(a) or render(*a, **names)
    )
    refused = colorize_file(job, model, Settings(**{**vars(SETTINGS), "max_pixels": 1000}))
    assert "more than --max-pixels 1000" in refused.error
    assert rendered == []
    assert colorize_file(job, model, SETTINGS).error == ""
    assert len(rendered) == len(pages)


# ---- Names, in the journal of an earlier version -----------------------------------------------


def colored(journal: Journal, source: Path, target: Path) -> None:
    target.write_bytes(b"colored")
    name = journal.relative(target)
    stamp = FileDigest.of(source)
    files = {name: FileDigest.of(target)}
    journal.add(Entry(name, str(source), stamp, {"seed": 0}, files, (1, 1), 1.0, (), 1.0))


def test_results_with_old_names_are_known(tmp_path: Path) -> None:
    source = tmp_path / "s" / "scan.pdf"
    source.parent.mkdir()
    source.write_bytes(b"a document")
    out = tmp_path / "out"
    with Journal(out) as journal:
        colored(journal, source, out / "scan.tif")
    # The archive has moved meanwhile.
    moved = source.parent.rename(tmp_path / "moved")
    with Journal(out) as journal:
        found = plan.plan([moved], out)
        assert [job.target for job in found.jobs] == [out / "scan.pdf.tif"]
        jobs, old = plan.with_known_names(found.jobs, journal)
        assert ([job.target for job in jobs], old) == ([out / "scan.tif"], 1)
        assert plan.remaining(jobs, journal, {"seed": 0}, False)[1:] == (jobs, [])
        # With a TIFF of that name beside it, the old name is the TIFF's.
        (moved / "scan.tif").write_bytes(b"a picture")
        jobs, old = plan.with_known_names(plan.plan([moved], out).jobs, journal)
        assert [job.target.name for job in jobs] == ["scan.pdf.tif", "scan.tif"]


def test_one_photograph_under_two_names(tmp_path: Path) -> None:
    """A result that was named by hand is nobody's old name."""
    source = tmp_path / "a.png"
    source.write_bytes(b"a picture")
    with Journal(tmp_path) as journal:
        colored(journal, source, tmp_path / "red.png")
        for out, expected in ((tmp_path / "blue.png", "blue.png"), (tmp_path / "out", "a.png")):
            jobs, old = plan.with_known_names(plan.plan([source], out).jobs, journal)
            assert ([job.target.name for job in jobs], old) == ([expected], 0)


def test_one_result_that_was_changed_is_one_failure(tmp_path: Path) -> None:
    out, jobs = tmp_path / "out", []
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
        jobs.append(Job(tmp_path / f"{name}.png", out / f"{name}.png"))
    with Journal(out) as journal:
        for job in jobs[:2]:
            colored(journal, job.source, job.target)
        jobs[0].target.write_bytes(b"retouched")
        todo, done, failed = plan.remaining(jobs, journal, {"seed": 0}, False)
        assert (todo, done) == ([jobs[2]], [jobs[1]])
        assert [result.outcome.error for result in failed] == [
            f"{jobs[0].target}: was changed after it was colored; --overwrite replaces it"
        ]
        # Other settings are of the whole command.
        with pytest.raises(
            plan.BatchError, match=r"b\.png: was colored with other settings .*1 more"
        ):
            plan.remaining(jobs, journal, {"seed": 1}, False)


def test_names_of_250_bytes(tmp_path: Path, model: Colorizer) -> None:
    job = Job(tmp_path / ("é" * 123 + ".png"), tmp_path / "out" / ("é" * 123 + ".png"))
    picture(gray=True).save(job.source)
    settings = Settings(**{**vars(SETTINGS), "candidates": 2, "uncertainty": True, "layer": True})
    outcome = colorize_file(job, model, settings)
    assert outcome.error == ""
    names = [path.name for path, _ in outcome.files]
    assert len(names) == len(set(names)) == 7
    assert max(len(os.fsencode(name)) for name in names) <= 255
    assert provenance.sidecar_name(job.target) in [path for path, _ in outcome.files]


def test_report_counts_and_names_everything(tmp_path: Path, run: Run) -> None:
    scans = tmp_path / "s"
    (scans / "raw").mkdir(parents=True)
    picture(gray=True).save(scans / "a.gif")
    picture(1, gray=True).save(scans / "a.png")
    picture(2).save(scans / "c.jpg")
    (scans / "bad.tif").write_bytes(b"II*\0")
    for name in ("x.dng", "y.dng", "z"):
        (scans / "raw" / name).touch()
    out = tmp_path / "out"
    code, told, err = run("colorize", scans, "-o", out, "--steps", 1, "--workers", 0)
    assert (code, told) == (1, [str(out / "a.gif.png"), str(out / "a.png")])
    assert err == [
        "note: passed over, no pictures by their names: 2 .dng, 1 without suffix",
        f"error: {scans / 'bad.tif'}: cannot be read: the file ends early",
        f"note: {scans / 'c.jpg'}: is in color already; --recolor colors it all the same",
        "note: 1 of 4 photographs are in color already; --recolor colors them",
        "error: 1 of 4 photographs could not be colored",
    ]
    with open(out / "colorized-report.csv", encoding="utf-8", newline="") as file:
        states = {Path(row["original"]).name: row["state"] for row in csv.DictReader(file)}
    assert states == {
        "bad.tif": "failed",
        "c.jpg": "in color already",
        "a.gif": "colored",
        "a.png": "colored",
        **dict.fromkeys(("x.dng", "y.dng", "z"), "no picture"),
    }
    page = (out / "colorized-report.html").read_text(encoding="utf-8")
    assert "2 .dng, 1 without suffix" in page and "1 in color already" in page
    assert page.count("data:image/jpeg") == 2


def test_without_a_report_no_thumbnails_are_kept(tmp_path: Path, run: Run) -> None:
    picture(gray=True).save(tmp_path / "a.png")
    done = run("colorize", "a.png", "-o", "new.jpg", "--steps", 1, "--workers", 0)
    assert done == (0, ["new.jpg"], [])
    assert {p.name for p in (tmp_path / ".colorized").iterdir()} == {"journal.jsonl", "lock"}
