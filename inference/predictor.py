"""Flow in both directions, predicted as one batch, and the confidence that follows from them.

Flow for arrays, by the pair or as a stream: for `predict_new_data.py` and Python users.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from maskflownet.checkpoints.checkpoint import find_checkpoint, read_checkpoint
from maskflownet.engine.contract import ConfidentPrediction, Engine, Prediction, Sizing, singles
from maskflownet.engine.load import load_engine
from maskflownet.errors import UserError
from maskflownet.inference.confidence import consistency
from maskflownet.settings.configs import ENGINES, load_network_config
from maskflownet.settings.folders import WEIGHTS


def submit_both_ways(
    engine: Engine,
    image_1: np.ndarray,
    image_2: np.ndarray,
    sizing: Sizing = Sizing(),  # noqa: B008 - frozen
    mask: bool = True,
    warped: bool = True,
) -> Callable[[], ConfidentPrediction]:
    """As `Engine.submit`, with the confidence of `maskflownet.inference.confidence` beside the prediction.

    The N pairs and their swaps go to the engine as one batch of 2N.
    """
    count = len(image_1)
    there_and_back = np.concatenate([image_1, image_2]), np.concatenate([image_2, image_1])
    prediction = engine.submit(*there_and_back, sizing, mask, warped)

    def result() -> ConfidentPrediction:
        arrays = prediction()
        backward = arrays.flow[count:]
        flow, *others = (None if array is None else array[:count] for array in arrays)
        confidences = [consistency(*flows).confidence for flows in zip(flow, backward)]
        return ConfidentPrediction(flow, *others, np.stack(confidences)[..., None])

    return result


class Predictor:
    """Predicts flow, visibility mask and warped second image.

    Parameters
    ----------
    engine : Engine
        With a loaded checkpoint.
    sizing : Sizing
        The size at which the network sees the images.
    batch : int
        Pairs of equal size that `stream` computes at a time.

    Examples
    --------
    >>> predictor = Predictor.load("MaskFlownet_S.yaml", "weights/my.params")
    >>> flow, mask, warped = predictor(image_1, image_2)
    """

    def __init__(self, engine: Engine, sizing: Sizing = Sizing(), batch: int = 1):  # noqa: B008
        if batch < 1:
            raise UserError(f"a batch needs at least one pair, not {batch}")
        self.engine = engine
        self.sizing = sizing
        self.batch = batch

    @classmethod
    def load(
        cls,
        config: str,
        checkpoint: str,
        gpus: str = "",
        resize: tuple[int, int] | None = None,
        pad: bool = False,
        batch: int = 1,
        folder: Path = WEIGHTS,
        engine: str = ENGINES[0],
        precision: str | None = None,
    ) -> Predictor:
        """Make a predictor from a network config and a checkpoint.

        Parameters
        ----------
        config : str
            Name in `config_folder/` or path.
        checkpoint : str
            Path, run id, unique prefix of one, or `prefix:steps`.
        gpus : str
            Comma-separated device ids; the CPU without any.
        resize : (int, int), optional
            Height and width of the network's input, multiples of 64.
        pad : bool
            Repeat the edges instead of scaling the images.
        batch : int
            Pairs that `stream` computes at a time.
        folder : Path
            Where run ids are looked for.
        engine : {"mxnet", "torch"}
        precision : {"float32", "tf32", "bf16"}, optional
            Of the torch engine's networks; by default float32 on the CPU, tf32 on GPUs.

        Raises
        ------
        UserError
            Config, checkpoint or device cannot be used.
        """
        sizing = Sizing(resize, pad)
        if batch < 1:
            raise UserError(f"a batch needs at least one pair, not {batch}")
        settings = load_network_config(config)
        find_checkpoint(checkpoint, folder)  # before the wait for the engine's import
        loaded = read_checkpoint(checkpoint, folder)
        return cls(load_engine(settings, loaded, gpus, engine, precision), sizing, batch)

    def __call__(
        self, image_1: np.ndarray, image_2: np.ndarray, confidence: bool = False
    ) -> Prediction | ConfidentPrediction:
        """Predict a pair or a batch of pairs.

        Parameters
        ----------
        image_1, image_2 : (H, W, 3) or (N, H, W, 3) uint8 arrays, RGB
        confidence : bool
            Predict the opposite direction, too, and compare the two (`maskflownet.inference.confidence`), which
            takes twice the time and memory.

        Returns
        -------
        Prediction or, with `confidence`, ConfidentPrediction
            flow (H, W, 2) px (u, v), mask (H, W, 1), 1 = visible, warped (H, W, 3) in [0, 1], and
            confidence (H, W, 1) in [0, 1], above 1/2 = consistent, all float32; with a leading N
            where the input has one.

        Raises
        ------
        UserError
            The arrays are no uint8 RGB images, or differ in shape.
        """
        image_1, image_2 = np.asarray(image_1), np.asarray(image_2)
        check_pair(image_1, image_2)
        submit = self._submit(confidence)
        if image_1.ndim == 4:
            return submit(image_1, image_2, self.sizing)()
        prediction = submit(image_1[None], image_2[None], self.sizing)()
        return type(prediction)(*(array[0] for array in prediction))

    def stream(
        self,
        pairs: Iterable[tuple[np.ndarray, np.ndarray]],
        mask: bool = True,
        warped: bool = True,
        confidence: bool = False,
    ) -> Iterator[Prediction | ConfidentPrediction]:
        """Predict pairs one after the other, `batch` at a time where their sizes agree.

        Yields one Prediction without batch axis for each pair, in order, or with `confidence` one
        ConfidentPrediction; never more than one batch of pairs is held, or two where the engine
        computes one while the other is on its way.
        """
        submit = self._submit(confidence)
        waiting: deque = deque()
        for images in batches(pairs, self.batch):
            waiting.append(submit(*images, self.sizing, mask, warped))
            if len(waiting) > self.engine.ahead:
                yield from singles(waiting.popleft()())
        while waiting:
            yield from singles(waiting.popleft()())

    def _submit(self, confidence: bool):
        return partial(submit_both_ways, self.engine) if confidence else self.engine.submit


def check_pair(image_1: np.ndarray, image_2: np.ndarray) -> None:
    for image in (image_1, image_2):
        if image.dtype != np.uint8 or image.ndim not in {3, 4} or image.shape[-1] != 3:
            raise UserError(
                f"images must be uint8 RGB arrays (H, W, 3) or (N, H, W, 3), not {image.dtype} of shape {image.shape}"
            )
    if image_1.shape != image_2.shape:
        raise UserError(f"the images of a pair differ in shape: {image_1.shape}, {image_2.shape}")
    if 0 in image_1.shape:
        raise UserError(f"the images are empty: their shape is {image_1.shape}")


def batches(pairs, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stack consecutive pairs of equal size, at most `size` of them: (n, H, W, 3) twice."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for image_1, image_2 in pairs:
        check_pair(image_1, image_2)
        if waiting and waiting[0][0].shape != image_1.shape:
            yield _stack(waiting)
            waiting = []
        waiting.append((image_1, image_2))
        if len(waiting) == size:
            yield _stack(waiting)
            waiting = []
    if waiting:
        yield _stack(waiting)


def _stack(pairs) -> tuple[np.ndarray, np.ndarray]:
    first, second = zip(*pairs)
    return np.stack(first), np.stack(second)
