"""README.md: its commands run, its links lead somewhere, its numbers are those measured."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TEXTS = [README, *sorted((ROOT / "docs").glob("*.md"))]

# The lines between starting the model's server and looking at the answer; the test takes them from
# README itself.
SERVING = [
    line
    for line in README.read_text(encoding="utf-8").splitlines()
    if line.startswith(("mlflow models serve", 'echo "{', "curl -sS", "python -c 'import base64"))
]
# Every command of README, and the file that runs it.
RUN_BY = {
    "make repro": ".ci/run",
    "make test": ".ci/run",
    "make ui": "docs/screenshot.py",
    ".venv/bin/colorized colorize photo.jpg scans/ -o out/": "tests/docs/test_readme.py",
    ".venv/bin/colorized colorize --help": "tests/docs/test_readme.py",
    ".venv/bin/colorized colorize photo.jpg -o out/second-try --seed 1 --steps 20": (
        "tests/docs/test_readme.py"
    ),
    ".venv/bin/colorized colorize photo.jpg -o out/several --candidates 5 --uncertainty": (
        "tests/docs/test_readme.py"
    ),
    ".venv/bin/colorized colorize photo.jpg -o out/known --hints hints.json": (
        "tests/docs/test_readme.py"
    ),
    ".venv/bin/colorized web": "tests/web_server.py",
    "curl -F file=@photo.jpg -F seed=1 http://127.0.0.1:8000/api/colorize -o color.png": (
        "tests/web/test_web.py"
    ),
    "source .venv/bin/activate": "tests/docs/test_readme.py",
    "dvc repro": "tests/pipelines/test_pipeline.py",
    "dvc dag": "tests/docs/test_readme.py",
    "dvc metrics show": "tests/docs/test_readme.py",
    "dvc metrics diff": "tests/docs/test_readme.py",
    "dvc params diff": "tests/docs/test_readme.py",
    "dvc exp run -S train.lr=1e-4": "tests/pipelines/test_pipeline.py",
    "dvc exp show": "tests/pipelines/test_pipeline.py",
    "dvc plots diff": "tests/docs/test_readme.py",
    "PREFECT_SERVER_ANALYTICS_ENABLED=false .venv/bin/prefect server start &": (
        "tests/pipelines/test_flows.py"
    ),
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": "tests/pipelines/test_flows.py",
    '.venv/bin/colorized schedule --cron "0 3 * * 0"': "tests/pipelines/test_flows.py",
    **dict.fromkeys(SERVING, "tests/tracking/test_pyfunc.py"),
    ".venv/bin/python -m pipelines.preset kaggle": "tests/pipelines/test_preset.py",
    ".venv/bin/dvc repro": "tests/pipelines/test_pipeline.py",
    ".venv/bin/pip install -e '.[s3]'": "pyproject.toml",
    ".venv/bin/dvc remote add --default store s3://bucket/folder": "tests/pipelines/test_remote.py",
    ".venv/bin/dvc push": "tests/pipelines/test_remote.py",
}
HERE = [command for command, file in RUN_BY.items() if file == "tests/docs/test_readme.py"]
# How a command looks in the file that runs it, where it does not look like itself.
SPELLED = {
    "make ui": '"-m", "pipelines.ui"',
    "PREFECT_SERVER_ANALYTICS_ENABLED=false .venv/bin/prefect server start &": '"server", "start"',
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": '"PREFECT_API_URL": f"http://127.0.0.1:',
    '.venv/bin/colorized schedule --cron "0 3 * * 0"': '(["--cron", "0 3 * * 0"]',
    **{line: line.split()[0] for line in SERVING},
    ".venv/bin/colorized web": '"-m", "colorized", "web"',
    "curl -F file=@photo.jpg -F seed=1 http://127.0.0.1:8000/api/colorize -o color.png": (
        "curl -F file=@photo.jpg -F seed=1 http://127.0.0.1:8000/api/colorize"
    ),
    ".venv/bin/python -m pipelines.preset kaggle": 'preset.apply("kaggle", params)',
    ".venv/bin/dvc repro": 'dvc(project, "repro"',
    ".venv/bin/pip install -e '.[s3]'": "colorized[imagenet,postgres,ray,s3]",
    ".venv/bin/dvc remote add --default store s3://bucket/folder": (
        '"remote", "add", "--default", "store"'
    ),
    ".venv/bin/dvc push": 'dvc(first, "push")',
}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def shell(command: str, folder: Path, code: int = 0, **variables: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(text: str) -> set[str]:
    """The names GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_command_is_run_somewhere() -> None:
    assert set(commands()) == set(RUN_BY)


@pytest.mark.parametrize("command", [c for c in RUN_BY if c not in HERE])
def test_the_file_that_is_named_runs_the_command(command: str) -> None:
    text = (ROOT / RUN_BY[command]).read_text(encoding="utf-8")
    as_list = ", ".join(f'"{word}"' for word in command.split()[1:])  # dvc(folder, "exp", "run", …)
    spelled = SPELLED.get(command, command if command.startswith("make") else as_list)
    assert spelled in text


def test_make_ui_is_what_the_screenshot_starts() -> None:
    assert "-m pipelines.ui" in shell("make --dry-run ui", ROOT)


@pytest.mark.parametrize("command", HERE)
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
    hints = re.findall(r"^```json\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)[0]
    (tmp_path / "hints.json").write_text(hints)
    small.save(tmp_path / "scans" / "old.png")
    shell(command, tmp_path)
    if " -o " in command:
        out = tmp_path / re.findall(r"-o (\S+)", command)[0]
        names = ["old.png", "photo.jpg"] if "scans/" in command else ["photo.jpg"]
        found = {
            p.name
            for p in out.iterdir()
            if p.suffix != ".json" and not p.name.startswith((".", "colorized-report"))
        }
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
    table = README.read_text(encoding="utf-8").partition("| option |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`(--[a-z-]+)`", table))
    assert documented == set(re.findall(r"(?<![\w-])--[a-z-]+", usage)) - {"--help"}


def test_size_of_the_model_is_as_told() -> None:
    from colorized.model.weights import RELEASED, load_weights

    text = README.read_text(encoding="utf-8")
    network = load_weights(RELEASED).denoiser.network
    count = sum(p.numel() for p in network.parameters())
    assert f"{count / 1e6:.1f} million parameters" in text
    assert f"{RELEASED.stat().st_size / 1e6:.1f} MB" in text


def test_metrics_in_readme_are_those_measured() -> None:
    # As committed: `make repro` replaces them by those of this machine, which differ a little.
    committed = json.loads(shell("git show HEAD:reports/metrics.json", ROOT))
    text = README.read_text(encoding="utf-8")
    assert script("readme").renew(text, committed) == text


def test_tables_of_colors_are_those_measured() -> None:
    shell("python docs/colors.py --check", ROOT)


def test_check_finds_a_changed_figure_of_colors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    colors = script("colors")
    changed = colors.TEXT.read_text(encoding="utf-8").replace(
        "linear interpolation, CIELAB", "?", 1
    )
    monkeypatch.setattr(colors, "TEXT", tmp_path / "colors.md")
    monkeypatch.setattr(sys, "argv", ["colors.py", "--check"])
    colors.TEXT.write_text(changed)
    assert colors.main() == 1
    assert "disagrees" in capsys.readouterr().err
    colors.TEXT.write_text("no markers")
    assert colors.main() == 1
    assert "must be there" in capsys.readouterr().err


def measured() -> dict[str, Any]:
    names = (name for name, _, _ in script("readme").ROWS)
    return dict.fromkeys(names, 1) | {
        "kid_std": 0.1, "vlb_standard_error": 0.1, "extractor_sha256": "0" * 64,
    }  # fmt: skip


def test_check_finds_a_changed_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = script("readme")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "METRICS", tmp_path / "metrics.json")
    (tmp_path / "README.md").write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["readme.py", *arguments])
        return int(readme.main())

    def write(**changes: Any) -> None:
        (tmp_path / "metrics.json").write_text(json.dumps(measured() | changes))

    write(fid=80.14)
    assert run("--check") == 1
    assert run() == 0
    assert run("--check") == 0
    text = (tmp_path / "README.md").read_text()
    assert "| `fid` | 80.1 |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    write(fid=80.26)
    assert run("--check") == 1
    (tmp_path / "metrics.json").write_text('{"n": 1}')
    capsys.readouterr()
    assert run() == 1
    assert capsys.readouterr().err.endswith("metrics.json: lacks 'fid'\n")


def test_screenshot_needs_two_runs(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    output = shell(
        f"python docs/screenshot.py --store {store} --out {tmp_path}/a.png", ROOT, code=1
    )
    assert output.splitlines()[-1].endswith("needs two finished training runs, found 0")
    assert not (tmp_path / "a.png").exists()


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
