"""A run's identity and its log: `logs/RUN.log`, scalars for TensorBoard, a progress bar."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

EVERY_STEP_UNTIL, THEN_EVERY = 20, 50


def is_due(step: int) -> bool:
    """Whether a line is written after `step` steps: the first 20, then every 50."""
    return step <= EVERY_STEP_UNTIL or step % THEN_EVERY == 0


class RunLog:
    """Writes what happens in a run; of several workers only the first one does.

    Parameters
    ----------
    folder : str or Path
        Of the logs; made where it is missing.
    run : str
    start, end : int
        Steps already done and the last one, for the progress bar.
    scalars : bool
        Also write TensorBoard's event files, to `folder/RUN.tensorboard`.
    quiet : bool
        Write and show nothing.
    """

    def __init__(self, folder, run: str, start: int, end: int, scalars=True, quiet=False):
        self.path = Path(folder) / f"{run}.log"
        self.quiet = quiet
        self._started = time.perf_counter()
        self._losses: list[tuple[float, float]] = []
        self._writer = None
        # disable=None: no bar where stderr is no terminal.
        self._bar = tqdm(total=end, initial=start, unit="step", disable=True if quiet else None, smoothing=0.05)
        if quiet:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if scalars:
            from tensorboardX import SummaryWriter  # noqa: PLC0415 - slow, and not for workers

            self._writer = SummaryWriter(str(self.path.with_suffix(".tensorboard")))

    def line(self, text: str) -> None:
        """Append `[time] text` to the log, and print it."""
        if self.quiet:
            return
        stamped = f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}"
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(stamped + "\n")
        tqdm.write(stamped)

    def step(self, step: int, loss: float, epe: float, rate: float) -> None:
        """Note a step; its line holds the means since the line before."""
        self._bar.update()
        self._losses.append((loss, epe))
        if not is_due(step):
            return
        loss, epe = np.mean(self._losses, axis=0)
        self._losses = []
        self.scalars({"loss": loss, "epe": epe, "learning_rate": rate}, step)
        seconds = time.perf_counter() - self._started
        self.line(f"steps={step}, loss={loss:.6f}, epe={epe:.4f}, lr={rate:.3g}, total_time={seconds:.1f}")

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        """Record a JPEG for TensorBoard, as it is: `add_image` would make a PNG, far larger."""
        if self._writer is not None:
            from tensorboardX.proto.summary_pb2 import Summary  # noqa: PLC0415 - as above

            width, height = Image.open(io.BytesIO(jpeg)).size
            image = Summary.Image(encoded_image_string=jpeg, height=height, width=width, colorspace=3)
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            self._writer.file_writer.add_summary(summary, step)

    def close(self) -> None:
        self._bar.close()
        if self._writer is not None:
            self._writer.close()
