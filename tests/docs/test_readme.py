"""README.md and docs: commands run, links lead somewhere, numbers are those measured."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tables
from pictures import results
from PIL import Image

from colorized.model.header import sampling_defaults
from colorized.model.released import RELEASED

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
COLORING = ROOT / "docs" / "coloring.md"
TEXTS = [README, *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    texts = (README, COLORING, ROOT / "docs" / "pipeline.md")
    blocks = [
        block
        for path in texts
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    ]
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def shell(command: str, folder: Path, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def anchors(text: str) -> set[str]:
    """The names GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


RUN = [
    c
    for c in dict.fromkeys(commands())
    if re.match(r"(\.venv/bin/)?(colorized colorize|dvc (?!add|repro|exp|push|remote))", c)
]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_command_runs(command: str, tmp_path: Path) -> None:
    if command.startswith("dvc"):
        page = f" -o {tmp_path}" if command == "dvc plots diff" else ""
        output = shell(command + page, ROOT)
        assert "Traceback" not in output
        if command == "dvc dag":
            assert all(stage in output for stage in ("download", "train", "evaluate"))
        return
    # A folder that looks like the project's to who has photographs in it.
    (tmp_path / ".venv").symlink_to(sys.prefix)
    photograph = ROOT / "data" / "sample" / "archive" / "dust-bowl-home.jpg"
    (tmp_path / "scans").mkdir()
    with Image.open(photograph) as image:
        small = image.convert("L").resize((96, 64))
    small.save(tmp_path / "photo.jpg")
    text = COLORING.read_text(encoding="utf-8")
    hints = re.findall(r"^```json\n(.*?)^```", text, re.M | re.S)[0]
    (tmp_path / "hints.json").write_text(hints)
    small.save(tmp_path / "scans" / "old.png")
    shell(command, tmp_path)
    if " -o " in command:
        out = tmp_path / re.findall(r"-o (\S+)", command)[0]
        names = ["old.png", "photo.jpg"] if "scans/" in command else ["photo.jpg"]
        found = set(results(out))
        if "--candidates" in command:
            assert {"photo.jpg.candidates.png", "photo.jpg.uncertainty.png"} <= found
            found = {name for name in found if not name.startswith("photo.jpg.")}
            names = [*(f"photo.candidate-{k}.jpg" for k in range(2, 6)), *names]
        assert sorted(found) == names
        for name in names:
            with Image.open(out / name) as image:
                assert image.size == (96, 64)
                assert image.mode == "RGB"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links or path != README
    for link in links:
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_options_are_those_of_the_command() -> None:
    usage = shell("colorized colorize --help", ROOT)
    table = COLORING.read_text(encoding="utf-8").partition("| option |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`(--[a-z-]+)`", table))
    assert documented == set(re.findall(r"(?<![\w-])--[a-z-]+", usage)) - {"--help"}
    told = re.findall(r"^\| `--([a-z]+)` \| (\S+) ¹ \|", table, re.MULTILINE)
    assert len(told) == 5
    released = sampling_defaults(RELEASED)
    assert {name: float(value) for name, value in told} == {
        name: getattr(released, name) for name, _ in told
    }


def test_the_weights_are_as_told() -> None:
    from colorized.model.weights import load_weights

    text = README.read_text(encoding="utf-8")
    network = load_weights(RELEASED).denoiser.network
    count = sum(p.numel() for p in network.parameters())
    assert f"{count / 1e6:.1f} million parameters" in text
    assert f"{RELEASED.stat().st_size / 1e6:.1f} MB" in text
    digest = hashlib.sha256(RELEASED.read_bytes()).hexdigest()
    assert digest in (ROOT / "docs" / "archive.md").read_text(encoding="utf-8")


def test_tables_are_those_measured() -> None:
    made = tables.made()
    # As committed: `make repro` replaces them by those of this machine, which differ a little.
    committed = json.loads(shell("git show HEAD:reports/metrics.json", ROOT))
    made["metrics"] = tables.METRIC_ROWS.format(**committed)
    shown = set()
    for path in tables.TEXTS:
        text = path.read_text(encoding="utf-8")
        shown |= {match["name"] for match in tables.MARKED.finditer(text)}
        assert tables.renew(text, made) == text
        assert text.count("begin (docs/") == len(tables.MARKED.findall(text))
    assert shown == {*made, "exiftool"}


def test_a_changed_figure_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.md"
    monkeypatch.setattr(tables, "TEXTS", [text])
    begin, end = "<!-- quality: begin (docs/tables.py) -->\n", "<!-- quality: end -->"
    text.write_text(f"before\n{begin}old\n{end}\nafter\n")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["tables.py", *arguments])
        return int(tables.main())

    assert run("--check") == 1
    assert "text.md is out of date" in capsys.readouterr().err
    assert (run(), run("--check")) == (0, 0)
    assert text.read_text().startswith("before\n") and text.read_text().endswith("\nafter\n")
    (tmp_path / "metrics.json").write_text('{"n": 1}')
    monkeypatch.setattr(tables, "METRICS", tmp_path / "metrics.json")
    assert run("--check") == 1
    assert capsys.readouterr().err == "error: a result lacks 'fid'\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_screenshot_of_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from colorized.tracking import Run

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    for name in ("one", "two"):
        with Run.start(tmp_path, name, {"train": {"seed": 0}}, {}) as run:
            for step in (1, 2):
                run.metrics(step, {"loss": 1 / step, "val_loss": 1 / step})
            run.metrics(0, {"fid": 80, "colorfulness": 30, "delta_e": 9, "diversity": 5})
    shell(f"python docs/screenshot.py --store {store} --out {tmp_path}/a.png", ROOT)
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1400
        assert len(image.convert("RGB").getcolors(image.width * image.height) or []) > 50
    assert (tmp_path / "a.png").stat().st_size < 400_000
