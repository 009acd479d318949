"""A checkpoint as an ONNX file, for programs that know neither this code nor its engines."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from maskflownet.checkpoints.checkpoint import Checkpoint, check_multiplier, match_network
from maskflownet.checkpoints.records import sha256
from maskflownet.engine.contract import Sizing
from maskflownet.engine.graphs import graph_of
from maskflownet.errors import UserError
from maskflownet.reader.files import atomic_path
from maskflownet.settings.configs import NetworkConfig

SIZE = (448, 1024)  # Sintel's 436x1024 at the next multiples of 64
SUFFIX = ".onnx"


class Exported(NamedTuple):
    """What was written."""

    path: Path
    network: str
    size: tuple[int, int]  # (H, W) px
    batch: int | None
    opset: int

    def describe(self) -> str:
        """Three lines: the file, what it takes and gives, and how to run it."""
        height, width = self.size
        count = "N" if self.batch is None else self.batch
        pairs = "any number of pairs" if self.batch is None else f"{self.batch} pair(s)"
        return (
            f"wrote {self.path}: {self.network} for {pairs} of {height}x{width} px at a time, "
            f"opset {self.opset}, {self.path.stat().st_size / 1e6:.1f} MB\n"
            f"inputs img1 and img2 ({count}, 3, {height}, {width}), float32 RGB in [0, 1]; outputs "
            f"flow ({count}, 2, {height}, {width}), px (u, v), and mask ({count}, 1, {height}, "
            f"{width}), 1 = visible\n"
            "run it, after pip install onnxruntime pillow: python examples/run_onnx.py "
            f"{self.path} IMAGE_1 IMAGE_2 flow.png"
        )


def import_onnx():
    """The package onnx.

    Raises
    ------
    UserError
        It cannot be imported.
    """
    try:
        import onnx  # noqa: PLC0415
        import onnx.reference  # noqa: PLC0415 - since onnx 1.13
    except (ImportError, OSError) as error:
        raise UserError(f"--export_onnx needs the package onnx ({error}): pip install onnx onnxruntime") from error
    return onnx


def check_target(path, sizing: Sizing) -> Path:
    """Check what can be checked of an export before a checkpoint is read.

    Raises
    ------
    UserError
        The name or the folder of the file cannot be, or the sizing is no fixed size.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise UserError(f"cannot write {path}: the name of an ONNX model ends in {SUFFIX}")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: its folder {path.parent} does not exist")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    if sizing.pad:
        raise UserError("--pad is not for --export_onnx, whose model has one size: --resize H,W")
    return path


def export_onnx(
    path,
    config: NetworkConfig,
    checkpoint: Checkpoint,
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    batch: int | None = None,
) -> Exported:
    """Write a checkpoint, or its head, as an ONNX model with float32 weights inside.

    Parameters
    ----------
    path : str or Path
        The file; it appears when it is complete.
    config : NetworkConfig
        The network to export: that of the checkpoint, or its head.
    checkpoint : Checkpoint
    sizing : Sizing
        `resize` is the size of the model's images and flow, by default 448x1024.
    batch : int, optional
        Pairs of each call; by default any number.

    Raises
    ------
    UserError
        The package onnx is missing, the checkpoint does not fit, or the file cannot be written.
    """
    path = check_target(path, sizing)
    onnx = import_onnx()
    from maskflownet.tools.onnx_graph.builder import OPSET  # noqa: PLC0415 - they need onnx
    from maskflownet.tools.onnx_graph.model import build_model  # noqa: PLC0415

    network, record = config.network.class_, checkpoint.record
    settings = {"flow_multiplier": record.flow_multiplier, "pyramid": record.pyramid}
    graph = graph_of("network", network=network, **settings)
    checkpoint = match_network(checkpoint, network, graph.parameters)
    check_multiplier(checkpoint, config)
    record = checkpoint.record
    metadata = {
        "checkpoint": checkpoint.path.name,
        "checkpoint_sha256": sha256(checkpoint.path),
        "run": record.run or "",
        "step": "" if record.step is None else str(record.step),
    }
    size = sizing.resize or SIZE
    model = build_model(record, checkpoint.parameters, size, batch, metadata)
    with atomic_path(path) as temporary:
        onnx.save_model(model, str(temporary))
    return Exported(path, network, size, batch, OPSET)
