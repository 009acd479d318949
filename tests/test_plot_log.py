"""The picture of a run's log."""

import numpy as np
import pytest

from benchmarks import plot_log
from engine.cli import run
from reader.pictures import read_image

LOG = """[2026-01-01 00:00:00] run abcJan01-0000 starts at step 0 of 3
[2026-01-01 00:00:01] steps=1, loss=2.500000, epe=6.0000, lr=0.0001, total_time=1.0
[2026-01-01 00:00:02] steps=2, loss=2.000000, epe=5.0000, lr=0.0001, total_time=2.0
[2026-01-01 00:00:03] steps=2, synthetic.val:epe=4.5000, synthetic.val:epe.pooled=4.6000
[2026-01-01 00:00:04] steps=2, loss=2.000000, epe=5.5000, lr=0.0001, total_time=1.0
"""


def test_curves_are_read_and_drawn(tmp_path):
    log = tmp_path / "run.log"
    log.write_text(LOG)
    curves = plot_log.read_curves(log)
    assert curves.training == {1: 6.0, 2: 5.5}  # the later line of a step that was done twice
    assert curves.validation == {"synthetic.val": {2: 4.5}}
    assert run(plot_log.main, [str(log), str(tmp_path / "run.png"), "--zero", "7"]) == 0
    picture = read_image(tmp_path / "run.png")
    assert picture.shape == (500, 900, 3)
    assert len(np.unique(picture)) > 10


@pytest.mark.parametrize("text", ["", "no log at all"])
def test_what_is_no_log_is_one_sentence(tmp_path, capsys, text):
    (tmp_path / "run.log").write_text(text)
    assert run(plot_log.main, [str(tmp_path / "run.log"), str(tmp_path / "run.png")]) == 2
    assert "no log of a training run" in capsys.readouterr().err
    assert run(plot_log.main, [str(tmp_path / "none.log"), str(tmp_path / "run.png")]) == 2
    assert not (tmp_path / "run.png").exists()
