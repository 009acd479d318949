"""The log of a run: `logs/RUN.log`, scalars and pictures for TensorBoard, a progress bar."""

import io
import time
from pathlib import Path

import numpy as np
from maskflownet.engine.contract import Losses, PeerLost
from PIL import Image
from tqdm import tqdm

EVERY_STEP_UNTIL, THEN_EVERY = 20, 50


def is_due(step: int) -> bool:
    """Whether a line is written after `step` steps: the first 20, then every 50."""
    return step <= EVERY_STEP_UNTIL or step % THEN_EVERY == 0


class RunLog:
    """Writes what happens in a run to `folder/RUN.log` and `folder/RUN.tensorboard`; nothing where it is `quiet`.

    `start` and `end` are the steps already done and the last one, for the progress bar.
    """

    def __init__(self, folder, run: str, start: int, end: int, scalars: bool = True, quiet: bool = False):
        self.path = Path(folder) / f"{run}.log"
        self.quiet = quiet
        self._started = time.perf_counter()
        self._unread: list[tuple[int, Losses]] = []
        self._means: list[tuple[float, float]] = []  # loss and EPE of the steps since the last line
        self._skipped = 0  # samples that were named
        self._writer = None
        # disable=None: no bar where stderr is no terminal.
        self._bar = tqdm(total=end, initial=start, unit="step", disable=True if quiet else None, smoothing=0.05)
        if quiet:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if scalars:
            from tensorboardX import SummaryWriter  # noqa: PLC0415 - slow, and for the first process only

            self._writer = SummaryWriter(str(self.path.with_suffix(".tensorboard")))

    def line(self, text: str) -> None:
        """Append `[time] text` to the log, and print it."""
        if self.quiet:
            return
        stamped = f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}"
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(stamped + "\n")
        tqdm.write(stamped)

    def step(self, step: int, losses: Losses, rate: float, skipped: list[str]) -> None:
        """Note a step, and the damaged samples skipped so far; a line holds the means since the line before."""
        self._bar.update()
        self._unread.append((step, losses))
        for sentence in skipped[self._skipped :]:
            self.line(f"skipped a damaged sample: {sentence}")
        self._skipped = len(skipped)
        if not is_due(step):
            return
        self.read_losses()
        loss, epe = np.mean(self._means, axis=0)
        self._means = []
        self.scalars({"loss": loss, "epe": epe, "learning_rate": rate}, step)
        seconds = time.perf_counter() - self._started
        self.line(f"steps={step}, loss={loss:.6f}, epe={epe:.4f}, lr={rate:.3g}, total_time={seconds:.1f}")

    def read_losses(self) -> None:
        """Wait for the steps noted so far; NotFinite if one of their losses is."""
        while self._unread:
            _, losses = self._unread[0]
            self._means.append((losses.loss, losses.epe))
            del self._unread[0]

    def last_done(self, step: int) -> int:
        """The last of `step` steps that is done, once another process has ended."""
        try:
            self.read_losses()
        except PeerLost:
            return self._unread[0][0] - 1
        return step

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
