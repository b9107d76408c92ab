"""The package as others install it: built, put into a fresh environment, used in an empty folder.

The environment holds the wheel and what its metadata asks for, linked from the one that runs the
tests; nothing is downloaded.
"""

from __future__ import annotations

import ast
import functools
import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import httpx
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pictures import scan
from PIL import Image
from start import CLEAN, needed
from structure import imports
from web_server import serve

from colorized.text import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PROVIDERS = metadata.packages_distributions()
NOT_FOR_COLORING = (
    "accelerate", "boto3", "dvc", "fastapi", "kaggle", "matplotlib", "mlflow", "pandas", "prefect",
    "pydantic", "pytorch_fid", "ray", "scipy", "sklearn", "sqlalchemy", "torchvision",
)  # fmt: skip
ONE_OF_EACH = (
    "colorized/sample/archive/black-canyon.jpg",
    "colorized/sample/ATTRIBUTION.md",
    "colorized/sample/photos.csv",
    "colorized/released/colorized.safetensors",
    "colorized/batch/templates/report.html",
    "colorized/web/static/index.html",
    "colorized/py.typed",
)


class Environment:
    """A virtual environment without anything, made in a folder."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        (self.site,) = folder.glob("lib/python*/site-packages")

    def install(self, wheel: Path, *extras: str) -> None:
        pip = (sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install")
        command = (*pip, "-q", "--no-deps", "--no-index", str(wheel))
        subprocess.run(command, env=CLEAN, check=True)
        self.add(*extras)

    def add(self, *extras: str) -> None:
        """What the wheel asks for, with these extras."""
        (own,) = metadata.distributions(name="colorized", path=[str(self.site)])
        asked = [Requirement(text) for text in own.requires or []]
        wanted = [
            r for r in asked
            if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras or ("",))
        ]  # fmt: skip
        for distribution in needed(map(str, wanted)).values():
            for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
                link = self.site / top
                if not link.exists():
                    link.symlink_to(Path(str(distribution.locate_file(top))))

    def run(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """A command of the environment, which knows of no other Python."""
        program, *arguments = map(str, command)
        return subprocess.run(
            [str(self.bin / program), *arguments],
            cwd=cwd, env={**CLEAN, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, made from a copy of the sources, and a wheel, made from the sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("colorized", "models/released", "data/sample"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (sdist,) = out.glob("*.tar.gz")
    wheel = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run([sys.executable, *wheel, "-w", str(out), str(sdist)], check=True)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment") / "env")
    made.install(wheel)
    return made


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    return scan(tmp_path / "photo.png", size=(90, 120))


@pytest.mark.slow
class TestBuilt:
    def test_wheel_and_sdist_hold_what_a_user_needs(self, built: Path, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as file:
            names = set(file.namelist())
        assert names.issuperset(ONE_OF_EACH)
        ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "colorized").rglob("*.py")}
        assert ours == {name for name in names if name.endswith(".py")}
        (sdist,) = built.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            files = {name.partition("/")[2] for name in archive.getnames()}
        assert files.issuperset(ONE_OF_EACH)

    def test_small(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as file:
            sizes = {info.filename: info.compress_size for info in file.infolist()}
        weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
        assert 0 < weights < 30e6
        assert sum(sizes.values()) - weights < 1.5e6


@pytest.mark.slow
class TestInstalled:
    def test_nothing_of_the_pipeline(self, environment: Environment, tmp_path: Path) -> None:
        code = f"""
from importlib.util import find_spec
print(*(name for name in {NOT_FOR_COLORING} if find_spec(name)))
"""
        assert environment.run("python", "-c", code, cwd=tmp_path).stdout.split() == []

    def test_command(self, environment: Environment, tmp_path: Path, photograph: Path) -> None:
        """With all that it writes, by a worker process, and the report."""
        everything = "--candidates", "2", "--uncertainty", "--layer", "--mark", "corner", "--report"
        done = environment.run(
            "colorized", "colorize", "photo.png", "-o", "out", "--steps", "2", *everything,
            cwd=tmp_path,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        with Image.open(tmp_path / "out" / "photo.png") as image:
            assert np.ptp(np.asarray(image.convert("RGB")).astype(int), axis=2).max() > 5
        assert (tmp_path / "out" / "colorized-report.html").is_file()

    def test_python(self, environment: Environment, tmp_path: Path, photograph: Path) -> None:
        code = """
import colorized
photo = colorized.Colorizer().colorize("photo.png", seed=1, steps=2)
photo.save("in-color.tif")
print(photo.image.size)
"""
        done = environment.run("python", "-W", "error", "-c", code, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("(90, 120)\n", "")
        with Image.open(tmp_path / "in-color.tif") as image:
            assert image.mode == "RGB"

    @pytest.mark.parametrize(
        ("command", "lacks"),
        [
            (("web",), "uvicorn is not installed: pip install 'colorized[web]' brings it"),
            (("import-run", "run.jsonl"), "mlflow"),
            (("colorize", "photo.png", "-o", "out", "--weights", "runs:/1"), "mlflow"),
            (("colorize", "photo.png", "-o", "out", "--engine", "ray"), "--engine ray needs"),
            (("colorize", "s3://a/b", "-o", "out", "--engine", "ray"), "s3://a/b: needs"),
        ],
    )
    def test_what_lacks_an_extra_names_it(
        self,
        environment: Environment,
        tmp_path: Path,
        photograph: Path,
        command: tuple[str, ...],
        lacks: str,
    ) -> None:
        (tmp_path / "mlflow.db").touch()
        (tmp_path / "pipelines").mkdir()
        (tmp_path / "pipelines" / "flows.py").touch()
        run = {"run": "1", "name": "a run", "params": {}, "tags": {}, "time": 0}
        (tmp_path / "run.jsonl").write_text(json.dumps(run))
        done = environment.run("colorized", *command, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        (row,) = done.stderr.splitlines()
        assert row.startswith(f"error: {lacks}")
        assert "pip install 'colorized[" in row

    def test_page(self, wheel: Path, tmp_path: Path, photograph: Path) -> None:
        made = Environment(tmp_path / "env")
        made.install(wheel, "web")
        with serve(python=made.bin / "python", path="") as server:
            assert "<html" in httpx.get(server.address).text
            samples = httpx.get(f"{server.address}/api/about").json()["samples"]
            assert len(samples) >= 6
            answer = httpx.get(server.address + samples[0]["url"])
            assert answer.headers["content-type"] == "image/jpeg"


def third_party() -> set[tuple[str, str]]:
    """Modules of others that colorized/ or pipelines/ import anywhere, each with one user."""
    used = {}
    for folder in ("colorized", "pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            names = imports(ast.parse(path.read_text(encoding="utf-8")).body)
            used |= {name.partition(".")[0]: path.relative_to(ROOT) for name in names}
    own = {"colorized", "pipelines", *sys.stdlib_module_names}
    return {(name, str(path)) for name, path in used.items() if name not in own}


def test_exact_versions_are_within_the_ranges() -> None:
    """And all of them are exact, or two clones might install different ones."""
    rows = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = {}
    for row in rows:
        if row and not row.startswith("#"):
            requirement = Requirement(row)
            (version,) = requirement.specifier
            assert version.operator == "==", row
            exact[canonicalize_name(requirement.name)] = version.version
    extras = PROJECT["optional-dependencies"].values()
    for requirement in map(
        Requirement, [*PROJECT["dependencies"], *(r for e in extras for r in e)]
    ):
        name = canonicalize_name(requirement.name)
        if name not in ("colorized", "setuptools"):  # the build's own, which pip brings by itself
            assert requirement.specifier.contains(exact[name]), requirement


@functools.cache
def names_of(extra: str | None) -> set[str]:
    """The distributions that the package, or one of its extras, brings."""
    asked = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return set(needed(asked))


@pytest.mark.parametrize(("module", "user"), sorted(third_party()))
def test_every_import_is_asked_for(module: str, user: str) -> None:
    """By the package, or by the extra that the command's one line names."""
    brought = names_of(EXTRAS.get(module))
    provides = {canonicalize_name(d) for d in PROVIDERS[module]}
    assert provides & brought, f"{user} imports {module}"
