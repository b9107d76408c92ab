"""The house: which modules may import which, and that `--help` waits for nothing heavy."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "colorized").rglob("*.py"))
LEAVES = ("color", "params", "schedule", "unet", "devices", "text")


def imports(nodes: list[ast.stmt]) -> Iterator[str]:
    """Dotted names of what these statements and the blocks in them import."""
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Import):
                yield from (alias.name for alias in part.names)
            elif isinstance(part, ast.ImportFrom):
                assert part.level == 0, "imports are absolute"
                yield from (f"{part.module}.{alias.name}" for alias in part.names)


def parse(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def at_import(path: Path) -> set[str]:
    """Top-level packages that importing the module imports: functions and classes aside."""
    body = [n for n in parse(path) if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return {name.partition(".")[0] for name in imports(body)}


def anywhere(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(parse(path))}


def test_the_modules_are_found() -> None:
    assert len(LIBRARY) > 15
    assert "torch" in at_import(ROOT / "colorized" / "unet.py")


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_nothing_of_ours(leaf: str) -> None:
    assert not {"colorized", "pipelines"} & anywhere(ROOT / "colorized" / f"{leaf}.py")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_library_knows_nothing_of_pipelines(path: Path) -> None:
    assert not {"pipelines", "dvc", "prefect"} & at_import(path)
    if path.parent.name != "cli":  # its commands may, when they run
        assert not {"pipelines", "dvc", "prefect"} & anywhere(path)


def test_only_tracking_imports_mlflow() -> None:
    """And the file that MLflow itself runs, where a model is served."""
    paths = [p for folder in ("colorized", "pipelines") for p in (ROOT / folder).rglob("*.py")]
    users = {path for path in paths if "mlflow" in anywhere(path)}
    tracking = {path for path in users if path.parent == ROOT / "colorized" / "tracking"}
    assert tracking
    assert users - tracking == {ROOT / "colorized" / "served.py"}


def test_importing_the_command_line_waits_for_nothing_heavy() -> None:
    code = "import sys, colorized.cli, colorized.tracking; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert {"colorized.cli", "typer"} <= modules
    assert not modules & {"torch", "mlflow", "prefect", "dvc", "matplotlib", "numpy", "PIL"}


def test_every_stage_names_the_modules_it_uses() -> None:
    """Or a change of code would leave stale results: dvc.yaml against the imports."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        used: set[Path] = set()
        todo = [ROOT / "pipelines" / f"{name}.py"]
        while todo:
            path = todo.pop()
            if path in used:
                continue
            used.add(path)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                    places = [ROOT / n.replace(".", "/") for n in names]
                    files = [p.with_suffix(".py") for p in places]
                    files += [p / "__init__.py" for p in places if p.parent.name == "colorized"]
                    todo += [file for file in files if file.exists()]
        deps = [ROOT / dep for dep in stage["deps"]]
        # A package is one dependency.
        assert all({path, path.parent} & set(deps) for path in used), name
