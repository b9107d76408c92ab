"""Writes the picture of docs/architecture.md: which package imports which, as the code does."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "structure.svg"
WIDTH, HEIGHT, ACROSS, DOWN = 100, 30, 124, 72
HEAD = """<title>Packages and their imports</title>
<style>
:root{--line:#5b6b7f;--box:#eef2f7;--text:#1c2530}
@media(prefers-color-scheme:dark){:root{--line:#9fb0c4;--box:#25303d;--text:#e8edf3}}
rect{fill:var(--box);stroke:var(--line)}
text{font:14px sans-serif;fill:var(--text);text-anchor:middle}
path{fill:none;stroke:var(--line)}marker path{fill:var(--line)}
</style>
<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z"/></marker>"""
Edges = dict[str, set[str]]


def imports(nodes: list[ast.stmt]) -> Iterator[str]:
    """Dotted names of what these statements, and those inside of them, import."""
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages() -> Edges:
    """Of `pipelines`, `api` and each package of colorized/, which of the others it imports."""
    places = {path.parent.name: path.parent for path in ROOT.glob("colorized/*/__init__.py")}
    places |= {"api": ROOT / "colorized" / "api.py", "pipelines": ROOT / "pipelines"}
    found: Edges = {}
    for name, place in sorted(places.items()):
        files = place.rglob("*.py") if place.is_dir() else [place]
        nodes = [n for path in files for n in ast.parse(path.read_text(encoding="utf-8")).body]
        used = {n.removeprefix("colorized.").partition(".")[0] for n in imports(nodes)}
        found[name] = (used & places.keys()) - {name}
    return found


def laid_out(edges: Edges) -> tuple[Edges, dict[str, tuple[float, float]]]:
    """The edges but those that follow from others, cut at each layer; the place of every node."""
    below: Edges = {}
    level: dict[str, int] = {}
    cut: Edges = {name: set() for name in edges}
    for name in TopologicalSorter(edges).static_order():
        below[name] = edges[name].union(*(below[other] for other in edges[name]))
        level[name] = max((level[other] + 1 for other in edges[name]), default=0)
        for other in edges[name].difference(*(below[other] for other in edges[name])):
            bends = [f"{name} {other} {row}" for row in range(level[name] - 1, level[other], -1)]
            for one, two in zip([name, *bends], [*bends, other], strict=True):
                cut.setdefault(one, set()).add(two)
    sorter = TopologicalSorter(cut)
    sorter.prepare()
    at: dict[str, tuple[float, float]] = {}
    y = 0
    while ready := sorter.get_ready():
        mean = {n: sum(at[other][0] for other in cut[n]) / max(1, len(cut[n])) for n in ready}
        row = sorted(ready, key=lambda n: (mean[n], n))
        at |= {n: (ACROSS * (i - (len(row) - 1) / 2), y) for i, n in enumerate(row)}
        sorter.done(*ready)
        y -= DOWN
    return cut, at


def draw() -> str:
    """The picture as SVG."""
    edges, at = laid_out(packages())
    left, top = min(x for x, _ in at.values()) - ACROSS / 2, min(y for _, y in at.values()) - 24
    view = f"{left:g} {top:g} {-2 * left:g} {24 - top:g}"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}">', HEAD]
    for name, (x, y) in at.items():
        for other in sorted(edges[name]):
            (to_x, to_y), half = at[other], HEIGHT / 2
            curve = f"V{y + half:g}C{x:g} {y + DOWN / 2:g} {to_x:g} {y + DOWN / 2:g}"
            end, arrow = (f"V{to_y:g}", "") if " " in other else ("", ' marker-end="url(#a)"')
            out.append(f'<path d="M{x:g} {y:g}{curve} {to_x:g} {to_y - half:g}{end}"{arrow}/>')
    for name in filter(str.isidentifier, at):
        x, y = at[name]
        box = f'x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}"'
        out.append(f'<rect {box} rx="5"/><text x="{x:g}" y="{y + 5:g}">{name}</text>')
    return "\n".join([*out, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
