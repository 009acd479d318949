"""Batches that a thread fetches ahead."""

from itertools import islice

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.loader import IN_USE, BatchesAhead, TrainLoader

from tests.trees import make_chairs

CROP = (48, 96)


@pytest.fixture
def root(tmp_path):
    return make_chairs(tmp_path / "chairs", train=5, val=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_loader_and_closing_ends_it(root, workers):
    chairs = Chairs(root)
    with TrainLoader([(chairs, 2)], CROP, seed=3) as loader:
        expected = [batch.names for batch in islice(loader.batches(4), 5)]
    loader = TrainLoader([(chairs, 2)], CROP, seed=3, workers=workers)
    ahead = BatchesAhead(loader, 4)
    assert [batch.names for batch in islice(ahead, 5)] == expected
    ahead.close()
    assert not loader._pools


@pytest.mark.parametrize(("workers", "echo"), [(0, 1), (2, 1), (0, 2), (2, 3)])
def test_in_the_callers_memory_a_batch_outlives_the_next_one(root, workers, echo):
    """As a step still reads its batch while the next one is asked for."""
    chairs = Chairs(root)
    with TrainLoader([(chairs, 2)], CROP, seed=3, echo=echo) as loader:
        expected = list(islice(loader.batches(), 15))
    given = []

    def allocate(size):
        given.append(np.full(size, 77, np.uint8))
        return given[-1]

    loader = TrainLoader([(chairs, 2)], CROP, seed=3, workers=workers, echo=echo)
    ahead = BatchesAhead(loader, 0, allocate)
    before = None
    for number in range(15):
        batch = next(ahead)
        ahead._next.result()  # the third one has been fetched, too
        for one, wanted in ((before, number - 1), (batch, number)):
            if one is not None:
                assert one.names == expected[wanted].names
                for array, right in zip(one[:4], expected[wanted][:4]):
                    assert any(np.may_share_memory(array, memory) for memory in given)
                    np.testing.assert_array_equal(array, right)
        before = batch
    ahead.close()
    assert len(given) == echo + IN_USE


def test_an_error_comes_with_the_batch_that_has_it(root):
    (root / "data" / "00002_flow.flo").write_bytes(b"")
    loader = TrainLoader([(Chairs(root), 1)], CROP, seed=3)
    ahead = BatchesAhead(loader)
    seen = []
    with pytest.raises(UserError, match="00002_flow.flo"):
        for batch in ahead:
            seen += batch.names
    ahead.close()
    with TrainLoader([(Chairs(root), 1)], CROP, seed=3) as again:
        batches = again.batches()
        assert seen == [name for batch in islice(batches, len(seen)) for name in batch.names]
