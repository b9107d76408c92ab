"""Which package may import which, and that stages depend on the packages they use."""

import ast
from pathlib import Path

import pytest
import structure
import yaml

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "colorized").rglob("*.py"))

LEAVES = {"atomic", "devices", "options", "params", "plots", "progress", "storage", "text"}
INNER = LEAVES | {"color", "photo", "model"}
WORK = INNER | {"data", "training", "inference", "evaluation"}
COLORING = WORK - {"data", "training", "evaluation"}
# What each part of colorized/, a package or a module, may import besides itself. The commands may
# also import pipelines, when they run.
MAY_IMPORT: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "params": {"options"},
    "storage": {"atomic", "text"},
    "color": set(),
    "photo": {"atomic", "color", "text"},
    "model": {"atomic", "color", "options"},
    "data": LEAVES | {"color", "photo"},
    "training": LEAVES | {"color", "data", "model"},
    "evaluation": LEAVES | {"color", "data", "inference", "model"},
    "inference": LEAVES | {"color", "model"},
    "api": COLORING,
    "batch": COLORING | {"api"},
    "tracking": COLORING | {"api", "batch"},
    "web": COLORING | {"api", "batch"},
    "cli": WORK | {"api", "batch", "tracking", "web"},
    "__main__": {"cli"},
    "__init__": {"api", "batch", "options"},  # when they are asked for
}


def at_import(path: Path) -> set[str]:
    """Top-level packages that importing the module imports: functions and classes aside."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    outside = [n for n in body if not isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return {name.partition(".")[0] for name in structure.imports(outside)}


def imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, anywhere in it."""
    return set(structure.imports(ast.parse(path.read_text(encoding="utf-8")).body))


def anywhere(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def part_of(path: Path) -> str:
    """The package or module of colorized/ that a file belongs to."""
    return path.relative_to(ROOT / "colorized").with_suffix("").parts[0]


def modules_of(name: str) -> set[Path]:
    """The files of ours that importing this dotted name runs."""
    parts = name.split(".")
    if parts[0] not in ("colorized", "pipelines"):
        return set()
    places = [ROOT.joinpath(*parts[:k]) for k in range(1, len(parts) + 1)]
    files = [file for p in places for file in (p / "__init__.py", p.with_suffix(".py"))]
    return {file for file in files if file.is_file()}


def test_every_part_has_its_line() -> None:
    assert {part_of(path) for path in LIBRARY} == MAY_IMPORT.keys()


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path: Path) -> None:
    part = part_of(path)
    used = {n.split(".")[1] for n in imports(path) if n.startswith("colorized.")}
    assert used - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_library_knows_nothing_of_pipelines(path: Path) -> None:
    assert not {"pipelines", "dvc", "prefect"} & at_import(path)
    if path.parent.name != "cli":  # its commands may, when they run
        assert not {"pipelines", "dvc", "prefect"} & anywhere(path)


def test_the_picture_is_that_of_the_imports() -> None:
    """`python docs/structure.py` draws it anew."""
    assert structure.PICTURE.read_text(encoding="utf-8") == structure.draw()


def test_the_table_has_no_circle() -> None:
    todo = dict(MAY_IMPORT)
    while todo:
        free = {part for part, others in todo.items() if not others & todo.keys()}
        assert free, sorted(todo)
        todo = {part: others for part, others in todo.items() if part not in free}


def test_only_tracking_imports_mlflow() -> None:
    paths = [p for folder in ("colorized", "pipelines") for p in (ROOT / folder).rglob("*.py")]
    users = {path.parent for path in paths if "mlflow" in anywhere(path)}
    assert users == {ROOT / "colorized" / "tracking"}


def stages() -> dict[str, dict[str, list[str]]]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("name", stages())
def test_stages_depend_on_the_packages_they_reach(name: str) -> None:
    """Or a change of code would leave stale results, or make good ones again."""
    used: set[Path] = set()
    todo = {ROOT / "pipelines" / f"{name}.py"}
    while todo:
        path = todo.pop()
        if path == ROOT / "colorized" / "__init__.py":  # loads what it names when it is asked for
            continue
        used.add(path)
        todo |= {f for n in imports(path) for f in modules_of(n)} - used
    reached = set()
    for path in used:
        parts = path.relative_to(ROOT).parts
        if parts[0] == "colorized" and len(parts) > 2:
            reached.add(f"colorized/{parts[1]}")
        elif path.name != "__init__.py":  # those of colorized and pipelines themselves hold nothing
            reached.add("/".join(parts))
    deps = {dep for dep in stages()[name]["deps"] if dep.startswith(("colorized/", "pipelines/"))}
    assert deps == reached


def test_train_does_not_depend_on_inference() -> None:
    assert "colorized/inference" not in stages()["train"]["deps"]
