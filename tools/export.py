"""A checkpoint as an ONNX file or a program of torch.export, for programs that know nothing of this code.

PyTorch's exporters trace the network. Height and width are constants of the model, the batch need not be.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import Checkpoint, check_multiplier, sha256
from maskflownet.errors import imported
from maskflownet.reader.files import atomic_path
from maskflownet.settings.configs import NetworkConfig

SIZE = (448, 1024)  # (H, W) px: Sintel's 436x1024 at the next multiples of 64
OPSET = 17  # new enough for GridSample, old enough for every runtime of the last years
ONNX, PT2 = SUFFIXES = ".onnx", ".pt2"
DESCRIPTION = "Optical flow with a learnable occlusion mask: MaskFlownet (Zhao et al., CVPR 2020, arXiv 2003.10955)."
INPUT = (
    "(N, 3, H, W) float32, RGB in [0, 1] (8-bit values / 255). Images of another size are resized "
    "to H x W bilinearly with aligned corners; their flow is that of the model resized back, u "
    "times width / W and v times height / H."
)
OUTPUTS = {
    "flow": "(N, 2, H, W) float32, px, (u, v) = (right, down): the content of pixel (x, y) of img1 "
    "is found at (x + u, y + v) in img2.",
    "mask": "(N, 1, H, W) float32 in [0, 1]: 1 = the pixel of img1 is visible in img2, 0 = occluded.",
}
FAR = -9.0  # a coordinate of grid_sample outside every picture


def describe(path: Path, network: str, size: tuple[int, int], batch: int | None) -> str:
    """Three lines: the file, what it takes and gives, and how to run it."""
    height, width = size
    pairs, count = (f"{batch} pair(s)", batch) if batch else ("any number of pairs", "N")
    kind, example = f"opset {OPSET}", f"python -m maskflownet.examples.run_onnx {path} IMAGE_1 IMAGE_2 flow.png"
    needed = "onnxruntime opencv-python-headless"
    if batch and batch > 1:  # the example has one pair
        example = f"onnxruntime.InferenceSession('{path}').run(None, {{'img1': img1, 'img2': img2}})"
    if path.suffix == PT2:
        kind, example = "torch.export", f"torch.export.load('{path}').module()(img1, img2)"
        needed = "torch"
    return (
        f"wrote {path}: {network} for {pairs} of {height}x{width} px at a time, {kind}, "
        f"{path.stat().st_size / 1e6:.1f} MB\n"
        f"inputs img1 and img2 ({count}, 3, {height}, {width}), float32 RGB in [0, 1]; outputs "
        f"flow ({count}, 2, {height}, {width}), px (u, v), and mask ({count}, 1, {height}, {width}), 1 = visible\n"
        f"run it, after pip install {needed}: {example}"
    )


def export(
    path: Path, config: NetworkConfig, checkpoint: Checkpoint, size: tuple[int, int] | None, batch: int | None
) -> str:
    """Write a checkpoint, or its head if `config` is the head's, as a model with float32 weights inside; how to run it.

    The suffix chooses ONNX or torch.export, whose file holds what an ONNX model says of itself as `facts.json`.

    `size` is that of its images and flow, (H, W) px, by default 448x1024; `batch` its pairs, by default any number.
    UserError: a package is missing, the checkpoint does not fit, or the file cannot be written.
    """
    why = f"--export needs PyTorch, and for {ONNX} the package onnx", "pip install torch onnx onnxruntime"
    torch, onnx = imported("torch", *why), imported("onnx", *why) if path.suffix == ONNX else None
    from maskflownet.engine.torch.network import of_checkpoint  # noqa: PLC0415 - needs PyTorch
    from maskflownet.engine.torch.operators import OPERATORS  # noqa: PLC0415

    network, size = config.network.class_, size or SIZE
    check_multiplier(checkpoint, config)
    operators = {**OPERATORS, "_contrib_DeformableConvolution": deformable_convolution} if onnx else OPERATORS
    module, record = of_checkpoint(network, checkpoint, operators).eval(), checkpoint.record
    facts = {
        "network": network,
        "pyramid": record.pyramid,
        "flow_multiplier": str(record.flow_multiplier),
        "height": str(size[0]),
        "width": str(size[1]),
        "batch": str(batch or "any"),
        "img1, img2": INPUT,
        **OUTPUTS,
        "checkpoint": checkpoint.path.name,
        "checkpoint_sha256": sha256(checkpoint.path.read_bytes()),
        "run": record.run or "",
        "step": "" if record.step is None else str(record.step),
    }
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: sizes become constants, which is wanted
        images = tuple(torch.zeros(batch or 2, 3, *size) for _ in range(2))  # one twice would be taken for one input
        if onnx:
            _write_onnx(temporary, module, images, batch, facts)
        else:
            free = None if batch else ({0: torch.export.Dim("N")},) * 2
            program = torch.export.export(module, images, dynamic_shapes=free)
            torch.export.save(program, temporary, extra_files={"facts.json": json.dumps(facts)})
    return describe(path, network, size, batch)


def _write_onnx(path: Path, module, images, batch: int | None, facts: dict[str, str]) -> None:
    import onnx  # noqa: PLC0415
    import torch  # noqa: PLC0415

    names = {"input_names": ["img1", "img2"], "output_names": list(OUTPUTS)}
    free = {} if batch else {name: {0: "N"} for names_ in names.values() for name in names_}
    torch.onnx.export(module, images, str(path), opset_version=OPSET, dynamo=False, dynamic_axes=free, **names)
    model = onnx.load_model(str(path))
    del model.graph.value_info[:]  # the tracer's shapes, some of which onnxruntime warns of
    model.producer_name, model.doc_string = "MaskFlownet", DESCRIPTION
    model.graph.name, model.graph.doc_string = facts["network"], DESCRIPTION
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = OUTPUTS.get(value.name, INPUT)
        for axis, length in enumerate(({"flow": 2, "mask": 1}.get(value.name, 3), *images[0].shape[2:]), 1):
            value.type.tensor_type.shape.dim[axis].dim_value = length  # the tracer loses those of the outputs
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))


def deformable_convolution(inputs, attrs):
    """Convolution all of whose taps sample (N, C, H, W) at their place + one offset, (y, x).

    A sample with a coordinate < 0 or >= size is 0; inside bilinear, the last row and column held.

    ONNX's DeformConv fades at the borders, and few runtimes have it. As the taps move together, the
    result is bilinear between whole pixels. It is computed there first, for the taps' neighbours
    on both sides where a border makes them differ, see `_cells`, and then sampled once.
    """
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    x, offset, weight, bias = inputs
    kernel, pad = attrs["kernel"], attrs.get("pad", (0, 0))
    whole = F.pad(x, [0, 1, 0, 1])  # the row and the column of zeros that taps outside take
    grid = []
    for i in (0, 1):
        size = int(x.shape[2 + i])
        first, left, windows = _cells(size, np.arange(kernel[i]) - pad[i])
        whole = whole.index_select(2 + i, torch.from_numpy(windows.reshape(-1)))
        pixels = torch.arange(int(offset.shape[2 + i]), dtype=torch.float32)
        position = offset[:, i] + (pixels[:, None] if i == 0 else pixels)
        inside = (position >= first) & (position < first + len(left))  # false of NaN, too
        position = torch.where(inside, position, float(first))
        start = position.floor()
        cell = torch.from_numpy(left)[(start - first).long()]
        place = (cell + position - start) * (2 / (len(windows) - 1)) - 1
        grid.append(torch.where(inside, place, FAR))
    whole = F.conv2d(whole, weight, stride=tuple(kernel))
    out = F.grid_sample(whole, torch.stack(grid[::-1], 3), padding_mode="zeros", align_corners=True)
    return out + bias[:, None, None]


def _cells(size: int, taps: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The cells [i, i + 1) of positions between which the taps along an axis take two pixels each.

    Returns the first cell, the lowest in which a tap is inside; by cell the row of `windows` at its start, the next
    row being that at its end; and the windows, the taps' pixels, `size` = outside. The end of a cell is the start of
    the next one and stored once, but not at the borders: a tap at -0.1 takes nothing, one at 0 takes pixel 0.
    """
    first = -max(taps)
    at = np.arange(first, size - min(taps))[:, None] + taps
    inside = (at >= 0) & (at < size)
    start, end = np.where(inside, at, size), np.where(inside, np.minimum(at + 1, size - 1), size)
    stored = np.ones((len(at), 2), bool)
    stored[1:, 0] = (start[1:] != end[:-1]).any(1)
    rows = np.cumsum(stored).reshape(stored.shape) - 1
    return int(first), rows[:, 0].astype(np.float32), np.stack([start, end], 1)[stored]
