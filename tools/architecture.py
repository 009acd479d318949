"""The rooms of this package and who uses whom, from its imports: the picture of docs/architecture.md.

python -m maskflownet.tools.architecture           prints the figures and the picture
python -m maskflownet.tools.architecture --write   puts the picture into docs/architecture.md
"""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from maskflownet.settings.cli import run
from maskflownet.settings.folders import ROOT

# From below to above: a room imports from itself and from those before it.
ROOMS = ["errors", "processes", "network", "reader", "scenes", "settings"]
ROOMS += ["checkpoints", "engine", "inference", "report", "training"]
ABOVE = ["tools", "programs", "examples", "benchmarks"]
PAGE = ROOT / "docs" / "architecture.md"


def modules(package: Path = ROOT) -> dict[str, Path]:
    """Name -> file of every module, without tests."""
    paths = sorted(package.glob("*.py")) + sorted(package.glob("[!.]*/**/*.py"))
    names = {".".join(p.relative_to(package).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}
    return {name: path for name, path in names.items() if room_of(name) in ROOMS + ABOVE}


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return first if rest or first in ROOMS + ABOVE else "programs"


def imports(package: Path = ROOT) -> dict[str, set[str]]:
    """Module -> the modules that it imports, wherever the import stands."""
    known = modules(package)
    graph = {}
    for name, path in known.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskflownet"):
                base = node.module.removeprefix("maskflownet").lstrip(".")
                named = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
                found |= (named & known.keys()) or ({base} & known.keys())
        graph[name] = found - {name}
    return graph


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """Module -> length of its longest chain of imports; CycleError names modules that import each other in a circle."""
    heights: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        heights[name] = 1 + max((heights[other] for other in graph[name]), default=0)
    return heights


def arrows(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """(room, room that it uses), without those that follow from two others."""
    pairs = {(room_of(a), room_of(b)) for a, found in graph.items() for b in found}
    direct = {(a, b) for a, b in pairs if a != b}
    reach = {a: {b for x, b in direct if x == a} for a in ROOMS + ABOVE}
    for room in ROOMS + ABOVE:  # from below to above, so that what is below is complete
        reach[room] |= set().union(*(reach[b] for b in reach[room]), set())
    return {(a, b) for a, b in direct if not any(b in reach[c] for x, c in direct if x == a and c != b)}


def picture(graph: dict[str, set[str]], package: Path = ROOT) -> str:
    """The rooms as a Mermaid flow chart, with their lines of code."""
    lines = dict.fromkeys(ROOMS + ABOVE, 0)
    for name, path in modules(package).items():
        lines[room_of(name)] += len(path.read_text(encoding="utf-8").splitlines())
    rows = [f'    {room}["{room}<br/>{round(count, -1):,} lines"]' for room, count in lines.items()]
    rows += [f"    {a} --> {b}" for a, b in sorted(arrows(graph))]
    return "```mermaid\nflowchart TD\n" + "\n".join(rows) + "\n```"


def main(arguments: list[str]) -> None:
    graph = imports()
    heights = floors(graph)
    chart = picture(graph)
    top = max(heights, key=heights.get)
    print(f"{len(graph)} modules, {heights[top]} floors below {top}\n\n{chart}")
    if "--write" in arguments:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(r"```mermaid.*?```", lambda match: chart, text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run(main))
