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
from typing import Any

import kaggle_server
import pytest
import yaml
from mlflow_server import SHORT_TRAINING, save_params

from colorized.model.header import sampling_defaults
from colorized.model.released import RELEASED
from colorized.model.weights import load_weights
from colorized.tracking import Registry
from colorized.tracking.store import search

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# Their hashes put these in all three splits.
PHOTOGRAPHS = ("cat", "dogs", "dahlia", "moose", "goldfish", "macaw", "louvre", "coffee")


def run(folder: Path, *command: str, code: int = 0, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", **variables}
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
    values["train"] |= SHORT_TRAINING
    values["sample"] |= {"steps": 1, "diversity_pictures": 2, "diversity_draws": 2}
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


def linked(project: Path, folder: Path) -> None:
    """Make the folder a project with the data, code and parameters of another."""
    for name in ("data", "scans", "colorized", "pipelines"):
        (folder / name).symlink_to(project / name)
    (folder / "models").mkdir()
    (folder / "models" / "released").symlink_to(project / "models" / "released")
    shutil.copy(project / "params.yaml", folder)


def metrics(folder: Path) -> dict[str, object]:
    return json.loads((folder / "reports" / "metrics.json").read_text())


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
        "vlb_bits_per_dim", "nfe", "fid_released", "kid_released", "colorfulness_released",
    }  # fmt: skip
    assert all(isinstance(value, int | float) for value in found.values())
    assert found["n"] == 9  # three crops of three test photographs
    assert found["lightness_error_max"] <= 0.6
    assert found["nfe"] == 1  # guidance asks a corner only
    assert (project / "reports" / "grid.jpg").stat().st_size > 0
    assert (project / "reports" / "training.png").stat().st_size > 0


def test_fine_tuned_weights_work_at_the_size_of_those_they_began_with(project: Path) -> None:
    tuned = load_weights(project / "models" / "colorized.safetensors").config
    assert tuned.work_size == load_weights(RELEASED).config.work_size > SHORT_TRAINING["crop_size"]


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


def runs(folder: Path) -> list[Any]:
    """All runs of the project's store, the newest first."""
    return search(Registry(folder).client, "")


def test_training_and_evaluation_are_runs(project: Path) -> None:
    client = Registry(project).client
    (evaluation, training) = runs(project)
    assert (training.info.run_name, training.info.status) == ("train released, 4 steps", "FINISHED")
    assert training.data.params["train.steps"] == "4"
    assert not any(name.startswith(("sample.", "evaluate.")) for name in training.data.params)
    assert {"git_sha", "data_sha256", "last_step", "best_step"} <= training.data.tags.keys()
    assert training.data.tags["git_dirty"] == "dvc.lock"
    files = {f.path for f in client.list_artifacts(training.info.run_id)}
    assert files == {"weights", "checkpoints", "dataset", "grids", "version"}
    # Before training, too.
    history = client.get_metric_history(training.info.run_id, "val_loss")
    assert [metric.step for metric in history] == [0, 2, 4]
    (used,) = (entry.dataset for entry in training.inputs.dataset_inputs)
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    (lab,) = (out for out in lock["stages"]["preprocess"]["outs"] if out["path"] == "data/lab")
    assert used.digest == lab["md5"]
    assert json.loads(used.profile)["left_out"] == {"broken": 1}

    assert evaluation.data.tags["mlflow.parentRunId"] == training.info.run_id
    released = sampling_defaults(RELEASED)
    name = f"evaluate 1 steps, guidance {released.guidance:g}, temperature {released.temperature:g}"
    assert evaluation.info.run_name == name
    assert evaluation.data.metrics["fid"] == pytest.approx(metrics(project)["fid"])
    assert evaluation.data.metrics["seconds_per_image"] > 0
    assert evaluation.data.params["sample.guidance"] == "1.6"
    assert evaluation.data.params["train.steps"] == "4"
    files = {f.path for f in client.list_artifacts(evaluation.info.run_id)}
    assert files == {"grid.jpg", "metrics.json", "version"}


def test_released_weights_color_the_same_crops_once(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sampled"
    shutil.copytree(project, folder)
    (kept,) = (folder / "data" / "before").iterdir()
    released = folder / "data" / "samples" / "released.npy"
    colored = released.read_bytes()
    assert colored == kept.read_bytes() != released.with_stem("model").read_bytes()
    marked = colored[:-1] + bytes([colored[-1] ^ 1])
    kept.write_bytes(marked)
    sample = (sys.executable, "-W", "ignore", "-m", "pipelines.sample")
    run(folder, *sample)
    assert released.read_bytes() == marked
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["sample"]["seed"] = 100
    save_params(folder, values)
    run(folder, *sample)
    assert released.read_bytes() not in (marked, colored)
    (other,) = kept.parent.iterdir()
    assert other.name != kept.name


def test_a_comment_restarts_no_training(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "commented"
    shutil.copytree(project, folder)
    path = folder / "colorized" / "model" / "unet.py"
    path.write_text(path.read_text().replace("from __future__", "# A comment.\nfrom __future__"))
    before = len(runs(folder))
    output = dvc(folder, "repro", "train")
    assert "trained before, with these parameters, data and code: run " in output
    assert "step " not in output
    assert len(runs(folder)) == before
    weights = (folder / "models" / "colorized.safetensors").read_bytes()
    assert weights == (project / "models" / "colorized.safetensors").read_bytes()


def test_queued_experiments_are_runs_beside_each_other(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "queued"
    shutil.copytree(project, folder)
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "results")
    for guidance in ("1.0", "2.0"):
        dvc(folder, "exp", "run", "--queue", "-S", f"sample.guidance={guidance}")
    dvc(folder, "exp", "run", "--run-all", "--jobs", "2")
    shown = yaml.safe_load(dvc(folder, "exp", "show", "--json"))
    names = {experiment["name"] for base in shown for experiment in base.get("experiments") or ()}
    found = {each.data.tags.get("dvc_experiment"): each for each in runs(folder)}
    assert len(names) == 2 and names <= found.keys()
    first, second = (found[name] for name in names)
    assert {each.data.params["sample.guidance"] for each in (first, second)} == {"1.0", "2.0"}
    assert first.data.metrics["fid"] != second.data.metrics["fid"]
    for name in names:
        assert found[name].info.run_name.startswith(f"{name}: evaluate 1 steps, guidance ")
        assert found[name].info.status == "FINISHED"
        grid = Registry(folder).client.list_artifacts(found[name].info.run_id)
        assert "grid.jpg" in {file.path for file in grid}
    # Both colored with the weights of the one training.
    (training,) = (each for each in runs(folder) if each.data.tags["stage"] == "train")
    parents = {each.data.tags["mlflow.parentRunId"] for each in (first, second)}
    assert parents == {training.info.run_id}


def test_another_seed_gives_other_weights(project: Path, tmp_path: Path) -> None:
    """And runs no more than training needs; with the same seed, see test_retraining."""
    folder = tmp_path / "seed"
    shutil.copytree(project, folder)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["train"]["seed"] += 1
    save_params(folder, values)
    output = dvc(folder, "repro", "train")
    assert "Running stage 'train'" in output
    assert "Running stage 'preprocess'" not in output
    weights = (folder / "models" / "colorized.safetensors").read_bytes()
    assert weights != (project / "models" / "colorized.safetensors").read_bytes()


def test_interrupted_training_goes_on_to_the_same_weights(project: Path, tmp_path: Path) -> None:
    linked(project, tmp_path)

    command = [sys.executable, "-W", "ignore", "-m", "pipelines.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
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
    linked(project, tmp_path)
    output = run(
        tmp_path, sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch",
        "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m", "pipelines.train",
        HF_HOME=str(tmp_path / "no-settings-of-anybody"),
    )  # fmt: skip
    assert output.count("step 2: ") == 1  # the first process alone logs
    curves = [
        [
            [float(value or 0) for value in line.split(",")]
            for line in (folder / "reports" / "training.csv").read_text().splitlines()[1:]
        ]
        for folder in (project, tmp_path)
    ]
    assert len(curves[0]) == 3
    names = (project / "reports" / "training.csv").read_text().splitlines()[0].split(",")
    judgment = names.index("adversarial")
    for one, two in zip(*curves, strict=True):
        # A mean of both signs, near 0. The critic's first step divides by the root of its
        # gradient's square, so that rounding can turn the sign of a small one.
        assert two.pop(judgment) == pytest.approx(one.pop(judgment), abs=1e-2)
        assert two == pytest.approx(one, rel=2e-3)
    (finished,) = (tmp_path / "models" / "checkpoints").glob("*/finished.json")
    about = json.loads(finished.read_text())
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
    linked(project, tmp_path)
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

    (log,) = (tmp_path / "models" / "unsent").glob("*.jsonl")
    command = (*python, "-m", "colorized", "import-run", str(log))
    output = run(tmp_path, *command)
    assert "imported as " in output
    assert "was imported before" in run(tmp_path, *command)
    found = Registry(tmp_path).find_run(hashlib.sha256(weights).hexdigest())
    assert found is not None and found[0] in output
    client = Registry(tmp_path).client
    assert [m.step for m in client.get_metric_history(found[0], "val_loss")] == [0, 2, 4]
    assert len(client.list_artifacts(found[0], "grids")) == 3
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
    linked(project, tmp_path)
    save_params(tmp_path, values)
    output = run(tmp_path, sys.executable, "-W", "ignore", "-m", "pipelines.train", code=1)
    assert output.count("\n") == 1
    assert output.startswith("error: ")
    assert expected in output
