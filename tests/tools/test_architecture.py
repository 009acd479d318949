"""The house keeps its shape: one way down, no circle, few floors, as docs/architecture.md shows it.

python -m tests.tools.test_architecture draws the page's picture anew.
"""

import ast
import re
from graphlib import TopologicalSorter

from maskflownet.settings.folders import ROOT

PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROOMS = {*re.findall(r"^\| `(\w+)(?:/|\.py)` \| [a-z]", TEXT, re.M), "tools", "benchmarks", "examples", "programs"}


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return first if rest or first in ROOMS else "programs"


def imports() -> dict[str, set[str]]:
    """Module -> the modules that it imports, wherever the import stands."""
    paths = [*ROOT.glob("*.py"), *ROOT.glob("[!.]*/**/*.py")]
    known = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}
    graph = {name: set() for name in known if room_of(name) in ROOMS}
    for name in graph:
        for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskflownet"):
                base = node.module.removeprefix("maskflownet").lstrip(".")
                named = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
                graph[name] |= ((named & graph.keys()) or ({base} & graph.keys())) - {name}
    return graph


GRAPH = imports()


def test_there_is_no_circle_and_at_most_ten_floors():
    heights = {}
    for name in TopologicalSorter(GRAPH).static_order():
        heights[name] = 1 + max((heights[other] for other in GRAPH[name]), default=0)
    highest = max(heights, key=heights.get)
    assert 5 < heights[highest] <= 10, highest


def picture() -> str:
    """A Mermaid flow chart of who uses whom, without arrows that follow from two others; CycleError for a circle."""
    used = {a: {room_of(other) for name in GRAPH if room_of(name) == a for other in GRAPH[name]} - {a} for a in ROOMS}
    below = {}
    for room in TopologicalSorter(used).static_order():
        below[room] = used[room].union(*(below[other] for other in used[room]))
    arrows = [(a, b) for a in ROOMS for b in used[a] if not any(b in below[other] for other in used[a])]
    return "```mermaid\nflowchart TD\n" + "".join(f"    {a} --> {b}\n" for a, b in sorted(arrows)) + "```"


def test_the_page_shows_who_uses_whom():
    assert picture() in TEXT, "python -m tests.tools.test_architecture draws it anew"


def test_the_executors_do_not_know_each_other():
    for one, other in (("engine.mxnet", "engine.torch"), ("engine.torch", "engine.mxnet")):
        assert not [n for name, found in GRAPH.items() if name.startswith(one) for n in found if n.startswith(other)]


if __name__ == "__main__":
    PAGE.write_text(re.sub(r"```mermaid.*?```", lambda old: picture(), TEXT, flags=re.S), encoding="utf-8")
