"""The house keeps its shape: one way down, no circle, few floors, as docs/architecture.md shows it."""

import ast
import re
from graphlib import TopologicalSorter

from maskflownet.settings.folders import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ARROWS = set(re.findall(r"^ +(\w+) --> (\w+)$", PAGE, re.M))
ROOMS = {room for arrow in ARROWS for room in arrow}


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


def test_rooms_use_each_other_as_the_arrows_say():
    """Along one or several arrows, which lead down; each arrow is an import."""
    below = {}
    for room in TopologicalSorter({a: {b for x, b in ARROWS if x == a} for a in ROOMS}).static_order():
        below[room] = set().union(*({b} | below[b] for a, b in ARROWS if a == room))
    used = {(room_of(name), room_of(other)) for name, found in GRAPH.items() for other in found}
    assert not {(a, b) for a, b in used if a != b and b not in below[a]}
    assert used >= ARROWS


def test_the_executors_do_not_know_each_other():
    for one, other in (("engine.mxnet", "engine.torch"), ("engine.torch", "engine.mxnet")):
        assert not [n for name, found in GRAPH.items() if name.startswith(one) for n in found if n.startswith(other)]
