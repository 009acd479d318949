"""Engines for tests: one without a network, whose flow follows from the images by a rule, and real ones by name."""

from importlib import import_module

import numpy as np
import pytest
from maskflownet.checkpoints.checkpoint import Checkpoint
from maskflownet.engine.contract import Engine, Prediction, Sizing, draw
from maskflownet.engine.load import load_into
from maskflownet.inference.validation import Results, ValidationOptions, validate
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.datasets import ValidationSets


class KnownEngine(Engine):
    """Predicts `rule(image_1, image_2)`, (H, W, 2) px, for each pair, and half visible pixels; remembers its calls."""

    def __init__(self, rule):
        self.rule = rule
        self.calls: list[tuple[tuple, Sizing]] = []  # shape of the images, sizing
        self.asked: list[tuple[bool, bool]] = []  # for mask, for warped

    @classmethod
    def of_labels(cls, *datasets, offset=(0, 0)) -> "KnownEngine":
        """Predict the labels of data sets, everywhere off by (u, v) px."""
        flows = {}
        for dataset in datasets:
            for i in range(len(dataset)):
                sample = dataset[i]
                key = sample.img1.tobytes(), sample.img2.tobytes()
                assert np.array_equal(flows.setdefault(key, sample.flow), sample.flow), "ambiguous"
        return cls(lambda *images: flows[tuple(i.tobytes() for i in images)] + np.array(offset))

    def parameters(self):
        return {}

    def rebuild(self, record):
        raise TypeError("this engine has no network")

    assign = training = rebuild

    def submit(self, image_1, image_2, sizing=None, mask=True, warped=True, drawing=None):
        self.calls.append((image_1.shape, sizing))
        self.asked.append((mask, warped))
        flow = np.stack([self.rule(*pair) for pair in zip(image_1, image_2)]).astype(np.float32)
        prediction = Prediction(flow, np.full_like(flow[..., :1], 0.5) if mask else None, None)
        return lambda: prediction if drawing is None else draw(prediction, drawing)


def validated(engine, sets, unions=None, skipped=None, watcher=None, **options) -> Results:
    """Validate on data sets by name; `options` are those of ValidationOptions."""
    found = ValidationSets(sets=sets, unions=unions or {}, skipped=skipped or {})
    return validate(engine, found, ValidationOptions(**options), watcher)


def on_gpu(value, gpus: int = 1):
    """A value of a test's parameter for a machine with so many GPUs; on the CPU the same test gets other values."""
    try:
        found = import_module("torch").cuda.device_count()
    except ImportError:
        found = 0
    marks = [pytest.mark.gpu, pytest.mark.skipif(found < gpus, reason=f"PyTorch finds {found} of {gpus} GPUs")]
    return pytest.param(value, marks=marks)


def make(kind: str, checkpoint: Checkpoint, config: str | None = None, devices: int = 1, precision: str = "float32"):
    """An engine with a checkpoint: "mxnet" or "torch" on the CPU, "gpu" for PyTorch on GPUs."""
    config = load_network_config(config or checkpoint.record.network)
    if kind == "mxnet":
        mx = pytest.importorskip("maskflownet.network.compat", reason="MXNet is not installed").mx
        engine = import_module("maskflownet.engine.mxnet").MXNetEngine(config, [mx.cpu(i) for i in range(devices)])
    else:
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        found = [torch.device("cuda", i) if kind == "gpu" else torch.device("cpu") for i in range(devices)]
        engine = import_module("maskflownet.engine.torch.engine").TorchEngine(config, found, precision=precision)
    load_into(engine, checkpoint)
    return engine
