"""Time of installation, `--help`, import, the first photograph, and `make repro`.

    python benchmarks/start.py [--install] [--lowest] [--repro] [--avx2] [--rounds 9]

Sizes are those of the files of the packages in the environment that runs this, and say which extra
brings them. `--install` makes a fresh environment with `pip install .`, of HEAD and the present
version of torch, and takes all else there; `--lowest` takes the lowest version of each range, and
colors a photograph with them. `--repro` runs the stages of the pipeline in a clone of HEAD; with
`--avx2` as on a processor that has AVX2 and no bfloat16. Times are medians, on whatever processor
and beside whatever load the file says: beside other work, the seconds of the processor count, which
are those of one core. Writes benchmarks/results/start.json; what is not measured this time is kept
there.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "start.json"
PHOTOGRAPH = ROOT / "data" / "sample" / "archive" / "dust-bowl-home.jpg"
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Keeps torch and its libraries from newer instructions, and so from bfloat16."""
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
"""What an installed package is used with."""
EXTRAS = ("web", "pipeline", "s3", "ray", "postgres", "dev")
"""In the order in which each adds to those before it."""


def machine() -> dict[str, Any]:
    """Processor, what of it matters to torch, memory, and the load that is on it now."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.M)
    flags = re.search(r"^flags\s*: (.*)$", text, re.M)
    known = flags[1].split() if flags else []
    return {
        "processor": name[1] if name else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "features": [feature for feature in FEATURES if feature in known],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def needed(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that requirements ask for, and what those ask for, by name."""
    found: dict[str, metadata.Distribution] = {}
    todo, seen = [Requirement(text) for text in requirements], set()
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or name == "colorized":
            continue
        seen.add((name, extras))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        todo += [
            other
            for other in map(Requirement, found[name].requires or [])
            if other.marker is None
            or any(other.marker.evaluate({"extra": extra}) for extra in extras or {""})
        ]
    return found


def megabytes(distribution: metadata.Distribution) -> float:
    """Of the files of a distribution."""
    paths = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def packages() -> dict[str, Any]:
    """MB that each part of the installation adds to those before it, and its largest packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = {"torch": ["torch"], "coloring": project["dependencies"]}
    parts |= {extra: project["optional-dependencies"][extra] for extra in EXTRAS}
    known: set[str] = set()
    table = {}
    for part, requirements in parts.items():
        added = {k: megabytes(d) for k, d in needed(requirements).items() if k not in known}
        known |= added.keys()
        largest = sorted(added.items(), key=lambda item: -item[1])
        table[part] = {
            "mb": round(sum(added.values()), 1),
            "packages": len(added),
            "largest": {name: round(size, 1) for name, size in largest[:8] if size >= 10},
        }
    own = [ROOT / "colorized", ROOT / "models" / "released", PHOTOGRAPH.parent]
    files = [p for folder in own for p in folder.rglob("*") if "__pycache__" not in p.parts]
    size = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
    table["coloring"]["mb_with_colorized"] = round(table["coloring"]["mb"] + size, 1)
    return table


def timed(command: Sequence[str | Path], **options: Any) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command takes, its children's included."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, **options)
    clock, after = time.perf_counter() - began, os.times()
    busy = after.children_user + after.children_system
    return clock, busy - before.children_user - before.children_system


def seconds(commands: Iterable[Sequence[str | Path]], cwd: Path) -> dict[str, float]:
    """Median and least time of commands, and the median of the processor's."""
    times = [timed(c, cwd=cwd, env=CLEAN, stdout=subprocess.DEVNULL) for c in commands]
    clock, busy = zip(*times, strict=True)
    return {
        "median": round(statistics.median(clock), 3),
        "least": round(min(clock), 3),
        "processor": round(statistics.median(busy), 3),
    }


def use(python: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Times of an installed package's first steps."""
    command = python.with_name("colorized")
    subprocess.run(
        [command, "--help"], env=CLEAN, check=True, stdout=subprocess.DEVNULL
    )  # compiles
    outs = [folder / f"{python.parent.parent.name}-{k}" for k in range(3)]
    return {
        "import_seconds": seconds([(python, "-c", "import colorized")] * rounds, folder),
        "help_seconds": seconds([(command, "--help")] * rounds, folder),
        "first_photograph_seconds": seconds(
            [(command, "colorize", PHOTOGRAPH, "-o", out) for out in outs], folder
        ),
    }


def lowest() -> list[str]:
    """The lowest version of each package's range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = []
    for requirement in map(Requirement, project["dependencies"]):
        floor = next(s.version for s in requirement.specifier if s.operator == ">=")
        pins.append(f"{requirement.name}=={floor}")
    return pins


def install(folder: Path, pins: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """The Python of a fresh environment with the package in it, and what that took."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    began = time.perf_counter()
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    # Not in the checkout, where a build leaves its folders.
    source = folder.with_name(f"{folder.name}-source")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    subprocess.run([*pip, str(source), *pins], check=True)
    taken = time.perf_counter() - began
    command = [*pip[:3], "list", "--format", "json", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    versions = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    size = sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return python, {
        "seconds": round(taken, 1),
        "mb": round(size / 1e6, 1),
        "versions": versions,
    }


def repro(folder: Path, variables: dict[str, str]) -> dict[str, dict[str, float]]:
    """Seconds of each stage of the pipeline, in a clone of HEAD."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    environment = {
        **os.environ,
        **variables,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    taken = {}
    for stage in stages:
        command = (sys.executable, "-m", "dvc", "repro", "-q", "-f", "--single-item", stage)
        clock, busy = timed(command, cwd=folder, env=environment)
        taken[stage] = {"clock": round(clock, 1), "processor": round(busy, 1)}
        print(stage, taken[stage], flush=True)
    keys = ("clock", "processor")
    return {**taken, "all": {k: round(sum(t[k] for t in taken.values()), 1) for k in keys}}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--install", action="store_true", help="in a fresh environment")
    parser.add_argument("--lowest", action="store_true", help="with the lowest versions, too")
    parser.add_argument("--repro", action="store_true", help="the stages, too")
    parser.add_argument("--avx2", action="store_true", help="the stages without AVX-512, bfloat16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    results["packages"] = packages()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = Path(sys.executable)
        if options.install:
            python, results["install"] = install(
                folder / "env", [f"torch=={metadata.version('torch').partition('+')[0]}"]
            )
        results["use"] = {"machine": machine(), **use(python, options.rounds, folder)}
        if options.lowest:
            low, results["lowest"] = install(folder / "low", lowest())
            results["lowest"] |= use(low, 1, folder)
        if options.repro:
            variables = AVX2 if options.avx2 else {}
            results["repro_seconds"] = {
                "machine": machine() | {"as_if_avx2_only": options.avx2},
                **repro(folder / "clone", variables),
            }
    print(json.dumps(results, indent=2))
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
