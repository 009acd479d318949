"""Flow for arrays, by the pair or as a stream: the Python API."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from maskflownet.checkpoints.checkpoint import read_checkpoint
from maskflownet.engine import contract
from maskflownet.engine.contract import ConfidentPrediction, Drawing, Drawn, Engine, OutOfMemory, Prediction, Sizing
from maskflownet.engine.load import load_engine
from maskflownet.errors import UserError
from maskflownet.inference.confidence import submit_both_ways
from maskflownet.reader.formats import read_images
from maskflownet.settings.configs import ENGINES, load_network_config
from maskflownet.settings.folders import WEIGHTS

MOST = 32  # pairs of a batch, however small; more gain nothing


@dataclass(frozen=True)
class Predictor:
    """Predicts flow, visibility mask and warped second image.

    >>> predictor = load("MaskFlownet_S", "weights/my.params")
    >>> flow, mask, warped = predictor(image_1, image_2)
    """

    engine: Engine  # with a loaded checkpoint
    sizing: Sizing = field(default_factory=Sizing)  # at which the network sees the images
    batch: int | None = None  # pairs of equal size that `stream` computes at a time; None: what pays and fits

    def __post_init__(self):
        if self.batch is not None and self.batch < 1:
            raise UserError(f"a batch needs at least one pair, not {self.batch}")

    def __call__(self, image_1: Any, image_2: Any, confidence: bool = False) -> Prediction | ConfidentPrediction:
        """Predict a pair or a batch of pairs.

        Parameters
        ----------
        image_1, image_2 : picture
            File, PIL picture, array or tensor (H, W, 3) or (N, H, W, 3); all that `reader.formats.read_images` takes.
        confidence : bool
            Predict the opposite direction, too, and compare the two (`inference.confidence`): twice the time and
            memory.

        Returns
        -------
        Prediction or, with `confidence`, ConfidentPrediction
            flow (H, W, 2) px (u, v), mask (H, W, 1), 1 = visible, warped (H, W, 3) in [0, 1], and confidence
            (H, W, 1) in [0, 1], above 1/2 = consistent, all float32; with a leading N where the input has one.

        UserError: These are no pictures of 8 or 16 bit, or differ in shape.
        """
        image_1, image_2 = _read_pair((image_1, image_2))
        submit = self._submit(confidence)
        if image_1.ndim == 4:
            return submit(image_1, image_2, self.sizing)()
        return next(contract.singles(submit(image_1[None], image_2[None], self.sizing)()))

    def stream(
        self,
        pairs: Iterable[tuple[Any, Any]],
        mask: bool = True,
        warped: bool = True,
        confidence: bool = False,
        drawing: Drawing | None = None,
    ) -> Iterator[Prediction | ConfidentPrediction | Drawn]:
        """Predict pairs of single pictures one after the other, `batch` at a time where their sizes agree.

        Yields one prediction without batch axis for each pair, in order; with a drawing it is a Drawn. Holds at most
        one batch of pairs, or two where the engine computes one while the other is on its way. A batch that was not
        asked for is halved where the memory does not suffice.
        """
        submit, waiting, limit = self._submit(confidence), deque(), self.batch or MOST

        def most(shape: tuple) -> int:
            return min(limit, self.most(*shape[:2]))

        for batch in contract.equal_sizes(_read_pairs(pairs), most, lambda pair: pair[0].shape):
            parts = [batch]
            while parts:
                try:
                    waiting.append(submit(*map(np.stack, zip(*parts[0])), self.sizing, mask, warped, drawing))
                    del parts[0]
                except OutOfMemory:
                    if self.batch or len(parts[0]) == 1:
                        raise
                    limit = (len(parts[0]) + 1) // 2
                    parts[:1] = parts[0][:limit], parts[0][limit:]
                if len(waiting) > self.engine.ahead:
                    yield from contract.singles(waiting.popleft()())
        while waiting:
            yield from contract.singles(waiting.popleft()())

    def most(self, height: int, width: int) -> int:
        """Pairs of a size that are computed at a time."""
        return self.batch or min(MOST, max(1, self.engine.batch_pixels // (height * width)))

    def _submit(self, confidence: bool):
        return partial(submit_both_ways, self.engine) if confidence else self.engine.submit


def load(
    config: str = "MaskFlownet",
    checkpoint: str | None = None,
    gpus: str | int = "",
    *,
    resize: tuple[int, int] | None = None,
    pad: bool = False,
    batch: int | None = None,
    engine: str = ENGINES[0],
    precision: str | None = None,
    folder: Path = WEIGHTS,
    colour: str | None = None,
) -> Predictor:
    """Make a predictor from a network config and a checkpoint.

    Parameters
    ----------
    config : str
        Name in `config_folder/` or path.
    checkpoint : str, optional
        File (docs/models.md says of which programs), run id, unique prefix of one, or `prefix:steps`. Without it the
        weights that come with the package; for MaskFlownet_S the first stage inside them.
    gpus : str or int
        Comma-separated device ids; the CPU without any.
    resize : (int, int), optional
        Height and width of the network's input, multiples of 64.
    pad : bool
        Repeat the edges instead of scaling the images.
    batch : int, optional
        Pairs that `stream` computes at a time. Without it as many as pay and fit: one on a CPU, on a GPU eight of
        720x1280.
    engine : {"auto", "torch", "mxnet"}
        "auto" is PyTorch where it is installed, else MXNet.
    precision : {"float32", "tf32", "bf16"}, optional
        Of the torch engine's networks; by default float32 on the CPU, tf32 on GPUs.
    folder : Path
        Where run ids are looked for.
    colour : {"RGB", "BGR"}, optional
        Order in which the network takes the channels, if not as the checkpoint's record says. Images are RGB always.

    UserError: Config, checkpoint or device cannot be used.
    """
    sizing = Sizing(resize, pad)
    settings = load_network_config(config)
    found = read_checkpoint(checkpoint, folder, colour)
    return Predictor(load_engine(settings, found, str(gpus), engine, precision), sizing, batch)


def _read_pairs(pairs):
    for pair in pairs:
        image_1, image_2 = _read_pair(pair)
        if image_1.ndim != 3:
            raise UserError(f"a stream takes single pictures, not a batch of shape {image_1.shape}")
        yield image_1, image_2


def _read_pair(pair) -> list[np.ndarray]:
    image_1, image_2 = images = read_images(pair)
    if image_1.shape != image_2.shape:
        raise UserError(f"the images of a pair differ in shape: {image_1.shape}, {image_2.shape}")
    return images
