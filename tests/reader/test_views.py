"""Views change which samples are seen, and nothing else."""

import pytest
from maskflownet.errors import DataError
from maskflownet.reader.chairs import Chairs
from maskflownet.reader.dataset import Concat, Thin, first
from maskflownet.reader.sintel import Sintel

from tests import trees


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.make_chairs(tmp_path_factory.mktemp("chairs"), train=10, val=3)


def names(dataset):
    return [dataset[k].name for k in range(len(dataset))]


def test_lesson_12_views_never_touch_the_split(root):
    train, val = Chairs(root, "train"), Chairs(root, "val")
    all_train, all_val = names(train), names(val)
    assert names(Thin(train, 3)) == all_train[::3]
    assert names(first(train, 4)) == all_train[:4]
    assert names(first(Thin(train, 3), 2)) == all_train[0:6:3]
    assert names(train) == all_train
    assert names(val) == all_val == names(Chairs(root, "val"))
    assert not set(names(Thin(train, 2))) & set(all_val)


def test_a_shard_of_one_and_a_long_limit_keep_everything(root):
    train = Chairs(root, "train")
    assert names(Thin(train, 1)) == names(first(train, 1000)) == names(train)


def test_a_shard_longer_than_the_set_keeps_the_first(root):
    train = Chairs(root, "train")
    assert names(Thin(train, 99)) == names(train)[:1]


def test_lesson_02_concat_keeps_every_sample_in_order(root):
    train, val = Chairs(root, "train"), Chairs(root, "val")
    both = Concat([val, train, val])
    assert len(both) == 16
    assert names(both) == names(val) + names(train) + names(val)
    assert both[-1].name == names(val)[-1]
    with pytest.raises(IndexError):
        both[16]
    assert names(both) == [sample.name for sample in both]


def test_views_forward_occlusions(tmp_path):
    trees.make_sintel(tmp_path)
    sintel = Sintel(tmp_path, ("clean",), "val")
    chairs = Chairs(trees.make_chairs(tmp_path / "chairs"))
    assert (first(sintel, 2).occlusion(1) == sintel.occlusion(1)).all()
    assert (Thin(sintel, 9).occlusion(2) == sintel.occlusion(18)).all()
    both = Concat([chairs, sintel])
    assert both.occlusion(0) is None
    assert (both.occlusion(len(chairs)) == sintel.occlusion(0)).all()
    assert both.noc(len(chairs)) is None


@pytest.mark.parametrize("make", [lambda d: Thin(d, 0), lambda d: first(d, 0), lambda d: Concat([])])
def test_views_without_a_sample_are_an_error(root, make):
    with pytest.raises(DataError):
        make(Chairs(root))
