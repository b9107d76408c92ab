"""The whole pipeline under DVC, on a handful of the embedded photographs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import kaggle_server
import pytest
import yaml

from colorized.tracking import Registry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# Their hashes put these in all three splits.
PHOTOGRAPHS = ("cat", "dogs", "dahlia", "moose", "goldfish", "macaw", "louvre", "coffee")
TIMINGS = {"seconds_per_image"}


def run(folder: Path, *command: str, code: int = 0, **variables: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output, output
    return output


def dvc(folder: Path, *arguments: str, code: int = 0, **variables: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *arguments, code=code, **variables)


def small_project(folder: Path) -> Path:
    """A project of its own: the real code and stages, few photographs, few steps."""
    folder.mkdir()
    for name in ("colorized", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").mkdir()
    (folder / "data").mkdir()
    shutil.copytree(ROOT / "data" / "kaggle", folder / "data" / "kaggle")
    shutil.copytree(ROOT / "models" / "released", folder / "models" / "released")
    for name in ("dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    photographs = folder / "scans"
    photographs.mkdir()
    for name in PHOTOGRAPHS:
        (found,) = (ROOT / "data" / "sample").glob(f"photos*/{name}.jpg")
        shutil.copy(found, photographs)
    (photographs / "notes.txt").write_text("not a picture")
    (photographs / "broken.jpg").write_bytes(b"not a picture either")

    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"] |= {"source": "folder", "path": "scans"}
    values["preprocess"] |= {"image_size": 64, "train_crops": 4, "val_crops": 2, "test_crops": 3}
    values["train"] |= {
        "steps": 4, "batch_size": 4, "crop_size": 64, "warmup_steps": 1, "cooldown_steps": 2,
        "validate_every": 2, "checkpoint_every": 2, "precision": "float32",
    }  # fmt: skip
    values["sample"] |= {"steps": 2, "diversity_pictures": 2, "diversity_draws": 2}
    values["evaluate"] |= {"vlb_pictures": 4, "vlb_draws": 2, "grid_pictures": 2, "kid_subsets": 2}
    save_params(folder, values)
    run(folder, "git", "init", "-q")
    # Of the project's own, for `dvc exp run` commits too, and a bare machine has none.
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@localhost")
    dvc(folder, "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")
    return folder


def save_params(folder: Path, values: object) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def metrics(folder: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((folder / "reports" / "metrics.json").read_text())
    return {name: value for name, value in values.items() if name not in TIMINGS}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_project(tmp_path_factory.mktemp("pipeline") / "first")
    dvc(folder, "repro")
    return folder


def test_repro_measures_what_the_issue_names(project: Path) -> None:
    found = json.loads((project / "reports" / "metrics.json").read_text())
    assert set(found) >= {
        "n", "fid", "fid_monochrome", "kid", "kid_std", "colorfulness", "colorfulness_real",
        "delta_colorfulness", "psnr", "delta_e", "lightness_error_max", "diversity",
        "vlb_bits_per_dim", "nfe", "seconds_per_image", "extractor_sha256",
    }  # fmt: skip
    assert found["n"] == 9  # three crops of three test photographs
    assert found["lightness_error_max"] <= 0.6
    assert found["nfe"] == 4  # two steps, both guided
    assert (project / "reports" / "grid.jpg").stat().st_size > 0
    assert (project / "reports" / "training.png").stat().st_size > 0


def test_repro_names_the_photograph_it_left_out(project: Path) -> None:
    stats = json.loads((project / "data" / "lab" / "stats.json").read_text())
    assert list(stats["rejects"]) == ["scans/broken.jpg"]
    assert sum(stats["photographs"].values()) == len(PHOTOGRAPHS)
    report = project / "reports" / "dataset"
    assert "| scans/broken.jpg | no picture of a known format" in (report / "README.md").read_text()
    assert {path.name for path in report.iterdir()} == {
        "README.md", "chroma.png", "contact-sheet.jpg"
    }  # fmt: skip


def test_a_picture_added_means_a_new_run(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "more")
    shutil.copy(ROOT / "data" / "sample" / "photos" / "burj.jpg", tmp_path / "more" / "scans")
    dvc(tmp_path / "more", "repro", "preprocess")
    stats = json.loads((tmp_path / "more" / "data" / "lab" / "stats.json").read_text())
    assert sum(stats["photographs"].values()) == len(PHOTOGRAPHS) + 1
    assert "train" in dvc(tmp_path / "more", "status")


def test_repro_again_runs_nothing(project: Path) -> None:
    assert "up to date" in dvc(project, "repro")


def test_run_is_in_mlflow_with_its_metrics(project: Path) -> None:
    from colorized.tracking import Run

    run_id = json.loads((project / "models" / "run.json").read_text())["run_id"]
    opened = Run.reopen(project, run_id)
    assert opened is not None
    run = opened.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "4"
    assert run.data.metrics["fid"] == pytest.approx(metrics(project)["fid"])
    assert {"git_sha", "data_sha256", "last_step", "best_step"} <= run.data.tags.keys()
    files = {f.path for f in opened.client.list_artifacts(run_id)}
    assert {"weights", "checkpoints", "dataset", "grids", "grid.jpg", "metrics.json"} <= files
    (used,) = (entry.dataset for entry in run.inputs.dataset_inputs)
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    (lab,) = (out for out in lock["stages"]["preprocess"]["outs"] if out["path"] == "data/lab")
    assert used.digest == lab["md5"]
    assert json.loads(used.profile)["left_out"] == {"broken": 1}


def test_second_clone_gives_the_same_bytes(project: Path) -> None:
    second = small_project(project.parent / "second")
    dvc(second, "repro")
    first_weights = (project / "models" / "colorized.safetensors").read_bytes()
    assert (second / "models" / "colorized.safetensors").read_bytes() == first_weights
    assert metrics(second) == metrics(project)

    # Negative control: another seed gives other weights, and reruns no more than training needs.
    values = yaml.safe_load((second / "params.yaml").read_text())
    values["train"]["seed"] += 1
    save_params(second, values)
    output = dvc(second, "repro", "train")
    assert "Running stage 'train'" in output
    assert "Running stage 'preprocess'" not in output
    assert (second / "models" / "colorized.safetensors").read_bytes() != first_weights


def test_interrupted_training_goes_on_to_the_same_weights(project: Path, tmp_path: Path) -> None:
    for name in ("data", "scans", "colorized", "pipelines"):
        (tmp_path / name).symlink_to(project / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "released").symlink_to(project / "models" / "released")
    shutil.copy(project / "params.yaml", tmp_path)

    command = [sys.executable, "-W", "ignore", "-m", "pipelines.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if line.startswith("step 2:"))
        process.send_signal(signal.SIGINT)
        message = process.stderr.read()
        assert process.wait() == 130, message
    assert "Traceback" not in message
    assert message.splitlines()[-1].startswith("error: stopped after step ")
    assert not (tmp_path / "models" / "colorized.safetensors").exists()

    run(tmp_path, *command)
    resumed = (tmp_path / "models" / "colorized.safetensors").read_bytes()
    assert resumed == (project / "models" / "colorized.safetensors").read_bytes()


def test_two_processes_train_what_one_does(project: Path, tmp_path: Path) -> None:
    for name in ("data", "scans", "colorized", "pipelines"):
        (tmp_path / name).symlink_to(project / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "released").symlink_to(project / "models" / "released")
    shutil.copy(project / "params.yaml", tmp_path)
    output = run(
        tmp_path, sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch",
        "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m", "pipelines.train",
        HF_HOME=str(tmp_path / "no-settings-of-anybody"),
    )  # fmt: skip
    assert output.count("step 2: ") == 1  # the first process alone logs
    curves = [
        [
            [float(value) for value in line.split(",")]
            for line in (folder / "reports" / "training.csv").read_text().splitlines()[1:]
        ]
        for folder in (project, tmp_path)
    ]
    assert len(curves[0]) == 2
    for one, two in zip(*curves, strict=True):
        assert two == pytest.approx(one, rel=2e-3)
    about = json.loads((tmp_path / "models" / "run.json").read_text())
    weights = (tmp_path / "models" / "colorized.safetensors").read_bytes()
    assert about["weights_sha256"] == hashlib.sha256(weights).hexdigest()


# Put before all else on the path, it lets Python find none of these.
BARE = """
import sys

class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mlflow", "dvc", "prefect", "accelerate"):
            raise ModuleNotFoundError(f"no {name} on a bare machine", name=name)

sys.meta_path.insert(0, Bare())
"""


def test_bare_machine_trains_the_same_weights_and_its_run_is_imported(
    project: Path, tmp_path: Path
) -> None:
    for name in ("data", "scans", "colorized", "pipelines"):
        (tmp_path / name).symlink_to(project / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "released").symlink_to(project / "models" / "released")
    shutil.copy(project / "params.yaml", tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(BARE)
    python = (sys.executable, "-W", "ignore")
    bare = {"PYTHONPATH": str(tmp_path / "bare")}
    assert "no mlflow on a bare machine" in run(
        tmp_path, *python, "-c",
        "try:\n    import mlflow\nexcept ModuleNotFoundError as error:\n    print(error)", **bare,
    )  # fmt: skip
    output = run(tmp_path, *python, "-m", "pipelines.train", **bare)
    assert "MLflow is not installed: the run is kept in " in output
    weights = (tmp_path / "models" / "colorized.safetensors").read_bytes()
    assert weights == (project / "models" / "colorized.safetensors").read_bytes()

    (log,) = (tmp_path / "models" / "checkpoints").glob("*/run.jsonl")
    command = (*python, "-m", "colorized", "import-run", str(log))
    output = run(tmp_path, *command)
    assert "imported as " in output
    assert "was imported before" in run(tmp_path, *command)
    found = Registry(tmp_path).find_run(hashlib.sha256(weights).hexdigest())
    assert found is not None and found[0] in output
    client = Registry(tmp_path).client
    assert [m.step for m in client.get_metric_history(found[0], "val_loss")] == [2, 4]
    assert len(client.list_artifacts(found[0], "grids")) == 2
    assert len(client.list_artifacts(found[0], "weights")) == 1


def test_kaggle_from_the_download_to_the_metrics(tmp_path: Path) -> None:
    project = small_project(tmp_path / "kaggle")
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["data"]["source"] = "kaggle"
    values["preprocess"] |= {"train_crops": 1, "val_crops": 1, "test_crops": 1, "val_share": 0.2}
    save_params(project, values)
    (tmp_path / "home").mkdir()
    output = dvc(project, "repro", code=255, HOME=str(tmp_path / "home"))  # nobody has signed in
    assert "no Kaggle credentials" in output
    photos = sorted((ROOT / "data" / "sample" / "photos").glob("*.jpg"))[:24]
    files = kaggle_server.members(kaggle_server.real_pictures(photos), (10, 10, 4))
    archive = project / "data" / "kaggle" / f"{kaggle_server.SLUG}.zip"
    archive.write_bytes(kaggle_server.pack(files))
    dvc(project, "repro")
    manifest = json.loads((project / "data" / "raw" / "manifest.json").read_text())
    assert manifest["zip_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    stats = json.loads((project / "data" / "lab" / "stats.json").read_text())
    total = sum(stats["photographs"].values()) + len(stats["rejects"])
    assert total == len(photos)
    found = metrics(project)
    assert found["n"] == stats["photographs"]["test"] >= 2
    assert found["fid"] > 0 and found["colorfulness_real"] > 0
    assert (project / "reports" / "grid.jpg").stat().st_size > 0
    assert "up to date" in dvc(project, "repro")


def test_metrics_diff_and_experiments(project: Path) -> None:
    assert "fid" in dvc(project, "metrics", "show")
    output = dvc(project, "exp", "run", "-S", "train.lr=1e-4", "train")
    assert "Running stage 'train'" in output
    assert "0.0001" in dvc(project, "exp", "show", "--csv")
    dvc(project, "metrics", "diff")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("steps", "four", "train.steps"),
        ("stepz", 4, "train.stepz: unknown key"),
        ("device", "cuda:7", "cuda:7"),
        ("init", "nowhere.safetensors", "nowhere.safetensors: no such weights file"),
    ],
)
def test_bad_params_are_one_line(
    project: Path, tmp_path: Path, key: str, value: object, expected: str
) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["train"][key] = value
    for name in ("data", "models"):
        (tmp_path / name).symlink_to(project / name)
    save_params(tmp_path, values)
    for name in ("colorized", "pipelines"):
        (tmp_path / name).symlink_to(project / name)
    output = run(tmp_path, sys.executable, "-W", "ignore", "-m", "pipelines.train", code=1)
    assert output.count("\n") == 1
    assert output.startswith("error: ")
    assert expected in output
