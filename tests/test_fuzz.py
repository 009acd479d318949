"""Files that nobody meant: mutated files of every loader work or end in one sentence.

MASKFLOWNET_FUZZ=100 pytest -s tests/test_fuzz.py -k LogT    # 100 times as many, other ones at every call
Without -k it takes all loaders. -s prints the counts of both outcomes.
"""

import importlib.util
import os
import re
import resource
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maskflownet.checkpoints.checkpoint import Record, load_checkpoint
from maskflownet.checkpoints.params import file_bytes, params_bytes, read_params
from maskflownet.engine.contract import TrainingSettings, check_state
from maskflownet.engine.graphs import GRAPHS
from maskflownet.engine.symbol import parse_graph
from maskflownet.errors import UserError
from maskflownet.network.draws import draw_step
from maskflownet.reader.formats import (
    FLOW_SUFFIXES,
    VIDEO_SUFFIXES,
    WRITABLE_SUFFIXES,
    read_flow,
    read_image,
    read_images,
    write_flow,
)
from maskflownet.reader.video import VideoReader
from maskflownet.report.curves import with_parents
from maskflownet.scenes.synthetic import Textures
from maskflownet.settings.configs import load_network_config, load_schedule
from maskflownet.settings.datasets import Roots, load_data_config
from maskflownet.settings.folders import CONFIGS, SHIPPED
from maskflownet.settings.schema import parse, read_yaml
from maskflownet.training.launch import Reached

from tests.videos import make

PICTURE = cv2.GaussianBlur(np.random.RandomState(0).randint(0, 256, (24, 32, 3)).astype(np.uint8), (0, 0), 2)
MORE = int(os.environ.get("MASKFLOWNET_FUZZ", "1"))
FUZZ = settings(
    max_examples=150 * MORE,
    deadline=None,
    database=None,
    derandomize=MORE == 1,
    suppress_health_check=list(HealthCheck),
)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose damage its checksums do not tell."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        data = data[:end] + struct.pack(">I", zlib.crc32(data[position + 4 : end])) + data[end + 4 :]
        position = end + 4
    return data


SECONDS, MEMORY = 20, 2**30  # that one file may take; B, that all may
ARRAYS = {
    f"{kind}.conv6a.0.{part}": np.full(shape, 0.5, "f4")
    for kind in ("mean", "var")
    for part, shape in (("weight", (4, 3, 3, 3)), ("bias", (4,)))
}
LOG = """[2026-01-01 00:00:00] run 8caJan01-1200 starts from 8f0Jan02-1200_250 at step 0 of 300
[2026-01-01 00:00:00] steps=1, loss=1.000000, epe=2.0000, lr=0.0001, total_time=1.0
[2026-01-01 00:00:00] steps=50, loss=0.500000, epe=1.0000, lr=0.0001, total_time=2.0
[2026-01-01 00:00:00] steps=50, chairs.val:epe=1.5000, chairs.val:epe.pooled=1.6000
[2026-01-01 00:00:00] steps=100, loss=0.250000, epe=0.5000, lr=5e-05, total_time=3.0
"""
STATE = """scale: 1.0
seed: 0
debug: false
shard: 1
checkpoint: null
stages:
- - MaskFlownet_S_small.yaml
  - synthetic_small.yaml
runs: [05cNov28-1825]
"""


def use_data_config(path):
    """Read a config, and draw with its numbers what a step needs."""
    config = load_data_config(path)
    chosen = TrainingSettings(None, (), config.orig_shape, config.target_shape, config.augmentation, 0)
    with np.errstate(over="ignore"):  # too large for float32: training would end with a loss that is not finite
        draw_step(chosen, min(config.batch_size, 4), 0, 0, 1)


def read_states(path):
    check_state(read_params(path), PARAMETERS)


def read_record(path):
    parse(Record, read_yaml(path), path)


class Loader(NamedTuple):
    """What reads a kind of file, and valid files of that kind."""

    read: Callable[[Path], object]
    suffix: str
    valid: list[bytes] | Callable[[Path], None]  # which writes one
    text: bool = True


def read_texture(path):
    Textures(path.parent).bank()


def write_a_flow(path):
    write_flow(path, np.ones((6, 8, 2), np.float32))


def write_a_video(path):
    make(path, 4, Fraction(25), 24, 32)


PARAMETERS = {name.removeprefix("mean."): array for name, array in ARRAYS.items() if name.startswith("mean.")}
FOREIGN = (".safetensors", ".pth") if importlib.util.find_spec("torch") else (".safetensors",)
LOADERS = {
    "NetCfg": Loader(load_network_config, ".yaml", [(CONFIGS / "MaskFlownet_S_small.yaml").read_bytes()]),
    "DataCfg": Loader(use_data_config, ".yaml", [(CONFIGS / "synthetic_small.yaml").read_bytes()]),
    "Sched": Loader(
        load_schedule, ".yaml", [(CONFIGS / f"{name}.yaml").read_bytes() for name in ("six_stages", "recipe")]
    ),
    "Rec": Loader(read_record, ".yaml", [SHIPPED.with_suffix(".yaml").read_bytes()]),
    "Paths": Loader(lambda path: Roots({}, path).look_up("chairs"), ".yaml", [b"chairs: .\nsintel: ~/data\n"]),
    "StateF": Loader(lambda path: parse(Reached, read_yaml(path), path), ".yaml", [STATE.encode()]),
    "LogT": Loader(with_parents, ".log", [LOG.encode()]),
    "GraphT": Loader(
        lambda path: parse_graph(path.read_bytes(), path), ".json", [(GRAPHS / "colour.json").read_bytes()]
    ),
    "Params": Loader(load_checkpoint, ".params", [params_bytes(PARAMETERS, "")], text=False),
    "Foreign": Loader(
        load_checkpoint,
        ".bin",
        [file_bytes(f"x{suffix}", PARAMETERS, '{"network": "MaskFlownet_S"}') for suffix in FOREIGN],
        text=False,
    ),
    "States": Loader(read_states, ".states", [params_bytes(ARRAYS, "")], text=False),
    "Texture": Loader(read_texture, ".png", [cv2.imencode(".png", PICTURE)[1].tobytes()], text=False),
    **{x: Loader(read_flow, x, write_a_flow, text=False) for x in FLOW_SUFFIXES},
    **{x: Loader(lambda path: list(VideoReader(path)), x, write_a_video, text=False) for x in VIDEO_SUFFIXES},
}
for suffix in (*WRITABLE_SUFFIXES, ".16.png"):
    picture = PICTURE.astype(np.uint16) * 4 if suffix == ".16.png" else PICTURE
    data = cv2.imencode(suffix.removeprefix(".16"), picture)[1].tobytes()
    LOADERS[f"picture{suffix}"] = Loader(lambda path: read_images([path]), suffix, [data], text=False)

WORDS = [
    *("null", "~", "true", "-1", "0", "1e30", "1e999", ".nan", "1" + "0" * 400, "9" * 5000, "0x" + "f" * 5000),
    *("1e-320", "1e308", "inf", "{}", "[]", "[a, [b]]", "{a: b}", "x", "''", "../../x", "~nobody/x", "'a\\0b'"),
    *('"\\ud800"', "2026-13-45", "<<: *a", "&a [*a]", "*a", "&a {a: *a}", "---", "%YAML 9.9", "\t", "\ufeff"),
    *("!!int ''", "!!map [a]", "!!timestamp x", "!!bool x", "!!float ''", "!!binary x", "!!set {a}", "!!omap x"),
    *("[" * 1000, "{a: " * 500, "? " * 500, "- " * 500, "(" * 200, "]", '"', "\\", "steps=" + "9" * 5000, "\u0663"),
]
NUMBERS = [
    struct.pack("<" + layout, value)
    for layout, values in {
        "I": (0, 1, 2, 4, 31, 33, 0x112, 2**31, 2**32 - 1, 0xF993FAC9, 0xF993FACA),
        "q": (-1, 0, 1, 3, 2**31, 2**40, 2**61, 2**62, 2**63 - 1),
        "f": (np.nan, np.inf, -np.inf, -1.0, 1e38, 1e-45),
    }.items()
    for value in values
]


def edits_of(kinds: list[str], pieces) -> st.SearchStrategy:
    """One to three of (place, kind, piece)."""
    return st.lists(st.tuples(st.floats(0, 1), st.sampled_from(kinds), pieces), min_size=1, max_size=3)


TEXT_EDITS = edits_of(
    ["value", "line", "insert", "double", "drop", "bytes"],
    st.sampled_from(WORDS).map(str.encode) | st.binary(max_size=6),
)
BINARY_EDITS = edits_of(["aligned", "bytes", "drop", "double", "cut"], st.sampled_from(NUMBERS) | st.binary(max_size=8))


def edited(data: bytes, text: bool, edits) -> bytes:
    """The content with each edit made at its place, 0 = the beginning, 1 = the end."""
    for place, kind, piece in edits:
        if text and kind != "bytes":
            lines = data.split(b"\n")
            at = round(place * (len(lines) - 1))
            key = re.match(rb"(.*?[:=]\s*|[\s-]*)", lines[at])[0]
            new = {"value": [key + piece], "line": [piece], "insert": [lines[at], piece], "double": [lines[at]] * 2}
            data = b"\n".join(lines[:at] + new.get(kind, []) + lines[at + 1 :])
        else:
            at = round(place * len(data)) // 4 * 4 if kind == "aligned" else round(place * len(data))
            rest = data[at + len(piece) :]
            new = {"drop": rest, "double": piece + data[at:] * 2, "cut": b""}
            data = data[:at] + new.get(kind, piece + rest)
    return data


def outcome(loader: Loader, path: Path) -> str:
    """What a loader does with a file, as one of two words; else an error."""
    begin = time.perf_counter()
    try:
        loader.read(path)
        result = "works"
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2100, str(error)[:2000]
        assert loader.text or loader.read is read_states or path.name in str(error)
        result = "one sentence"
    assert time.perf_counter() - begin < SECONDS
    return result


@pytest.fixture(autouse=True)
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@pytest.mark.parametrize("name", LOADERS)
def test_mutated_files_are_read_or_refused_in_one_sentence(tmp_path, name, capfd):
    loader, counts, path = LOADERS[name], Counter(), tmp_path / f"x{LOADERS[name].suffix}"
    contents = loader.valid
    if callable(contents):
        contents(path)
        contents = [path.read_bytes()]
    for valid in contents:
        path.write_bytes(valid)
        loader.read(path)
    capfd.readouterr()

    @FUZZ
    @given(st.sampled_from(contents), TEXT_EDITS if loader.text else BINARY_EDITS)
    def attempt(valid, edits):
        data = edited(valid, loader.text, edits)
        # Of labels libpng tells such damage itself: they are read without the slow check.
        for content in {data, with_checksums(data) if path.suffix == ".png" and loader.read is not read_flow else data}:
            path.unlink(missing_ok=True)  # file systems are slow to write into a file that there is
            path.write_bytes(content)
            counts[outcome(loader, path)] += 1
        assert capfd.readouterr().err == ""  # no line of a C library's

    attempt()
    print(f"{name}: {dict(counts)}")
    assert counts["one sentence"], counts  # mutations that do nothing would test nothing


FAULTS = {  # what lies beside the folders of shared/cases/faults/fuzz
    "big.log": "LogT",
    "bomb_alias_net.yaml": "NetCfg",
    "data_length_1e11.yaml": "DataCfg",
    "data_size_8.yaml": "DataCfg",
    "old_layout_307_bytes.params": "Params",
    "paths_bool_x.yaml": "Paths",
    "record_alias_bomb.yaml": "Rec",
    "record_int_empty.yaml": "Rec",
    "record_run_outside.yaml": "Rec",
    "shape_0_2e62_2e62.params": "Params",
}


def loader_of(path: Path) -> Loader:
    kind = FAULTS.get(path.name, path.parent.name.removesuffix("Mx"))
    read = {".mp4": VideoReader, ".mkv": VideoReader, ".npz": read_flow, ".pfm": read_flow}.get(path.suffix, read_image)
    return LOADERS.get(kind) or Loader(read, path.suffix, [])


def test_each_file_that_broke_a_loader_once_is_read_or_refused_in_one_sentence(shared):
    cases = shared / "cases"
    found = {path: outcome(loader_of(path), path) for path in sorted(cases.rglob("*.*")) if path.suffix != ".md"}
    for path, result in found.items():
        print(f"{path.relative_to(cases)}: {result}")
    refused = [path.relative_to(cases).parts[0] for path, result in found.items() if result == "one sentence"]
    assert set(refused) == {"animated_webp", "faults"} and len(refused) > len(found) / 2
