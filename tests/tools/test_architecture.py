"""The house keeps its shape: one way down, no circle, few floors, and the picture is of the code as it is."""

import re

from maskflownet.tools.architecture import ABOVE, PAGE, ROOMS, floors, imports, picture, room_of

GRAPH = imports()
ORDER = ROOMS + ABOVE


def test_there_is_no_circle_and_at_most_ten_floors():
    heights = floors(GRAPH)
    highest = max(heights, key=heights.get)
    assert heights[highest] <= 10, highest


def test_no_room_uses_one_above_it():
    upwards = {
        (name, other)
        for name, found in GRAPH.items()
        for other in found
        if room_of(name) in ROOMS and ORDER.index(room_of(other)) > ORDER.index(room_of(name))
    }
    assert not upwards


def test_the_executors_do_not_know_each_other():
    for one, other in (("engine.mxnet", "engine.torch"), ("engine.torch", "engine.mxnet")):
        assert not [n for name, found in GRAPH.items() if name.startswith(one) for n in found if n.startswith(other)]


def test_the_page_shows_the_rooms_as_they_are():
    """Lines change with every edit; rooms and arrows only when somebody means it."""
    page = re.search(r"```mermaid.*?```", PAGE.read_text(encoding="utf-8"), re.S).group(0)
    shown = re.sub(r"[\d,]+ lines", "", page), re.sub(r"[\d,]+ lines", "", picture(GRAPH))
    assert shown[0] == shown[1], "run: python -m maskflownet.tools.architecture --write"
