"""What is in the batches, and in which order."""

import time
import tracemalloc
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
from maskflownet.errors import UserError
from maskflownet.reader.dataset import View
from maskflownet.reader.films import Sintel
from maskflownet.reader.flying import Chairs
from maskflownet.reader.formats import read_flow, write_image
from maskflownet.reader.kitti import HD1K, Kitti
from maskflownet.reader.loader import MOST_DAMAGED, Order, TrainLoader, ordered
from maskflownet.reader.pairs import Pairs

from tests.trees import SINTEL_FRAMES, flow, make_chairs, make_hd1k, make_kitti, make_sintel, picture

CROP = (48, 96)  # of 64x128
RESIZED = {"crop": (60, 100), "resize": (64, 128)}


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    """Sintel 2, KITTI 2015 1 and HD1K 1 per batch."""
    root = tmp_path_factory.mktemp("mix")
    few = {name: SINTEL_FRAMES[name] for name in ("alley_1", "bamboo_1")}
    return [
        (Sintel(make_sintel(root / "sintel", few, {}), "all"), 2),
        (Kitti(make_kitti(root / "kitti", {2012: 1, 2015: 5}, test=0), "all", (2015,)), 1),
        (HD1K(make_hd1k(root / "hd1k")), 1),
    ]


def kept(batch):
    """A copy: the loader overwrites its batches."""
    return batch._replace(**{name: getattr(batch, name).copy() for name in batch._fields[:4]})


def take(parts, number, start=0, crop=CROP, **options):
    order = Order(**{"seed": 3, **{key: options.pop(key) for key in Order._fields if key in options}})
    loader = TrainLoader(parts, crop, order=order, **options)
    with closing(loader.batches(start)) as batches:
        return [kept(batch) for batch in islice(batches, number)]


def names(batches):
    return [name for batch in batches for name in batch.names]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second):
        assert one.names == other.names
        for a, b in zip(one[:4], other[:4]):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_pictures_and_label_belong_together(chairs):
    """Each sample is a window, mirrored or not, of the pair that its name says."""
    mirrored = set()
    for batch in take([(chairs, 4)], 6):
        assert [a.shape for a in batch[:4]] == [(4, *CROP, channels) for channels in (3, 3, 2, 1)]
        assert [a.dtype for a in batch[:4]] == [np.uint8, np.uint8, np.float32, np.uint8]
        assert batch.mask.min() == 255 and len(batch.names) == 4
        for img1, img2, label, name in zip(batch.img1, batch.img2, batch.flow, batch.names):
            k = int(name)
            expected = flow(k, CROP)
            flipped = label[0, 0, 0] != expected[0, 0, 0]
            mirrored.add(bool(flipped))
            step = -1 if flipped else 1
            np.testing.assert_array_equal(label, expected * np.array([step, 1], np.float32))
            whole = np.concatenate([picture(2 * k), picture(2 * k + 1)], axis=-1)
            window = np.concatenate([img1, img2], axis=-1)[:, ::step]
            windows = np.lib.stride_tricks.sliding_window_view(whole, CROP, axis=(0, 1))
            corners = windows[..., 0, 0] == window[0, 0]
            places = np.argwhere(corners.all(-1))
            assert any(np.array_equal(whole[y : y + CROP[0], x : x + CROP[1]], window) for y, x in places)
    assert mirrored == {True, False}


def test_every_sample_once_a_pass_and_the_last_batch_filled_from_the_next(chairs):
    assert len(chairs) == 7
    everything = names(take([(chairs, 4)], 7))  # 28 samples are four passes
    passes = [everything[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(one) == sorted(pair.name for pair in chairs.pairs) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_mix_has_a_fixed_composition(mix):
    for batch in take(mix, 6, crop=(64, 128), resize=(64, 128)):
        kinds = [name.split("/")[0] for name in batch.names]
        assert set(kinds[:2]) <= {"clean", "final"} and kinds[2] == "2015"
        assert batch.names[3] in {pair.name for pair in mix[2][0].pairs}


def test_resize_scales_the_label_and_keeps_holes(mix):
    """KITTI's sizes differ; every sample gets the one size, its label in px of that size."""
    kitti = mix[1][0]
    for batch in take([(kitti, 2)], 5, crop=(96, 192), resize=(96, 192)):
        for label, mask, name in zip(batch.flow, batch.mask, batch.names):
            k = int(name.split("/")[1])
            ratio = np.array([192 / (128 + k % 3), 96 / (64 + k % 2)])
            u, v = flow(k, (1, 1))[0, 0] * ratio
            valid = mask[..., 0] == 255
            assert 0.6 < valid.mean() < 0.75 and set(np.unique(mask)) == {0, 255}
            np.testing.assert_allclose(np.abs(label[valid][:, 0]), abs(u), rtol=1e-5)
            np.testing.assert_allclose(label[valid][:, 1], v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("readers", [1, 2])
def test_readers_change_nothing(mix, readers):
    assert_same(take(mix, 5, **RESIZED), take(mix, 5, readers=readers, **RESIZED))


def test_seeds(chairs):
    assert_same(take([(chairs, 3)], 4), take([(chairs, 3)], 4))
    one, other = take([(chairs, 3)], 4), take([(chairs, 3)], 4, seed=4)
    assert names(one) != names(other)
    again = take([(chairs, 3), (chairs, 3)], 4)
    halves = [[batch.names[i : i + 3] for batch in again] for i in (0, 3)]
    assert halves[0] != halves[1], "two data sets of a mix share an order"
    assert halves[0] == [batch.names for batch in one]


def test_crops_of_a_sample_differ_between_passes(chairs):
    batches = take([(View(chairs, [0]), 1)], 12)
    assert len({batch.img1.tobytes() for batch in batches}) > 8


@pytest.mark.parametrize("readers", [0, 1])
def test_resume_equals_the_tail(mix, readers):
    assert_same(take(mix, 9, **RESIZED)[6:], take(mix, 3, start=6, readers=readers, **RESIZED))


def test_machines_together_are_one_larger_batch(mix):
    machines = [take(mix, 4, machine=(i, 2), **RESIZED) for i in range(2)]
    whole = take([(dataset, 2 * samples) for dataset, samples in mix], 4, **RESIZED)
    for step, batch in enumerate(whole):
        parts = [machines[i][step] for i in range(2)]
        assert sorted(names(parts)) == sorted(batch.names)
        together = {a.tobytes() for part in parts for a in part.flow}
        assert together == {a.tobytes() for a in batch.flow}


def test_processes_take_slices_of_one_batch(mix):
    slices = [take(mix, 3, process=(i, 4), **RESIZED) for i in range(4)]
    for step, batch in enumerate(take(mix, 3, **RESIZED)):
        assert tuple(names(part[step] for part in slices)) == batch.names
        joined = np.concatenate([part[step].img2 for part in slices])
        np.testing.assert_array_equal(joined, batch.img2)


def test_damaged_sample_is_an_error_with_its_path(tmp_path):
    dataset = damaged(tmp_path, [3])
    for readers in (0, 1):
        with pytest.raises(UserError, match="00003_flow.flo"):
            take([(dataset, 4)], 2, readers=readers)
        samples = ordered(dataset, readers=readers)
        assert [next(samples).name for _ in range(2)] == ["00001", "00002"]
        with pytest.raises(UserError, match="00003_flow.flo"):
            next(samples)


def test_skip_damaged_takes_the_next_sample_and_counts(tmp_path):
    dataset = damaged(tmp_path, [3, 5])
    whole = Chairs(make_chairs(tmp_path / "whole", train=8, val=0))
    order = names(take([(whole, 4)], 4))
    loader = TrainLoader([(dataset, 4)], CROP, order=Order(3), skip_damaged=True)
    found = [kept(batch) for batch in islice(loader.batches(), 4)]
    for i, (name, wanted) in enumerate(zip(names(found), order)):
        one_pass = order[i // 8 * 8 : i // 8 * 8 + 8] * 2
        follows = one_pass[one_pass.index(wanted) :]
        assert name == next(n for n in follows if n not in ("00003", "00005"))
    assert len(loader.skipped) == 2
    assert {n for n in ("00003", "00005") for s in loader.skipped if f"{n}_flow.flo" in s} == {"00003", "00005"}
    assert_same(found, take([(dataset, 4)], 4, skip_damaged=True, readers=1))


def test_damage_that_no_reader_expects_is_skipped_too(tmp_path, monkeypatch):
    dataset = Chairs(make_chairs(tmp_path, train=8, val=0))
    read = read_flow

    def unexpected(path):
        if path.endswith("00003_flow.flo"):
            raise IndexError("out of range")
        return read(path)

    monkeypatch.setattr("maskflownet.reader.dataset.read_flow", unexpected)
    loader = TrainLoader([(dataset, 8)], CROP, skip_damaged=True)
    assert len(names([kept(next(loader.batches()))])) == 8
    (sentence,) = loader.skipped
    assert sentence.startswith("cannot read one of ") and sentence.endswith("00003_flow.flo: IndexError: out of range")
    with pytest.raises(UserError, match=r"00003_flow\.flo: IndexError"):
        take([(dataset, 8)], 1)


def test_skip_damaged_gives_up_where_the_whole_folder_is_damaged(tmp_path):
    dataset = damaged(tmp_path, range(1, 41), train=40)
    with pytest.raises(UserError, match=f"{MOST_DAMAGED} damaged samples in a row"):
        take([(dataset, 4)], 1, skip_damaged=True)


def damaged(root, numbers, train=8):
    dataset = Chairs(make_chairs(root / "damaged", train=train, val=0))
    for number in numbers:
        path = root / "damaged" / "data" / f"{number:05d}_flow.flo"
        content = path.read_bytes()[:100]
        path.unlink()  # contents that occur again are hard links
        path.write_bytes(content)
    return dataset


def test_smaller_than_the_crop_is_an_error_even_where_damage_is_skipped(chairs):
    for readers in (0, 1):
        for crop in ((65, 96), (48, 129)):
            with pytest.raises(UserError, match="64x128 .* crop of {}x{}".format(*crop)):
                take([(chairs, 2)], 1, crop=crop, skip_damaged=True, readers=readers)


def test_without_label_is_an_error(tmp_path):
    for k in (1, 2):
        write_image(tmp_path / f"a_img{k}.png", picture(k))
    with pytest.raises(UserError, match="a has no label"):
        take([(Pairs(tmp_path, "test"), 1)], 1)


@pytest.mark.parametrize("readers", [0, 1])
def test_ordered(mix, readers):
    kitti = mix[1][0]
    found = list(ordered(kitti, readers, ahead=2))
    assert [sample.name for sample in found] == [pair.name for pair in kitti.pairs]
    assert len({sample.img1.shape for sample in found}) > 1
    for index, sample in enumerate(found):
        for array, expected in zip(sample[:4], kitti[index][:4]):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("readers", [0, 2])
def test_echo_gives_each_batch_to_several_steps_apart_from_any_step_on(chairs, readers):
    plain = take([(chairs, 3)], 6)
    order = [2, 1, 0, 3, 2, 1, 4, 3, 2, 5, 4, 3]  # batch 2 has its turn in steps 0, 4 and 8
    echoed = [plain[number] for number in order]
    assert_same(take([(chairs, 3)], 12, echo=3, readers=readers), echoed)
    for start in (1, 3, 5):
        assert_same(take([(chairs, 3)], 12 - start, start=start, echo=3), echoed[start:])


@pytest.mark.parametrize(("readers", "echo"), [(2, 1), (1, 3)])
def test_a_batch_stays_as_it_is_until_the_next_one_is_asked_for(chairs, readers, echo):
    expected = take([(chairs, 2)], 15, echo=echo)
    loader = TrainLoader([(chairs, 2)], CROP, order=Order(3, echo), readers=readers)
    with closing(loader.batches()) as batches:
        for wanted in expected:
            batch = next(batches)
            time.sleep(0.05)  # in which the readers fill all places that are free
            assert_same([batch], [wanted])


def test_memory_stays_flat(chairs):
    """Ten passes need no more memory than the first batches did."""
    batches = TrainLoader([(chairs, 2)], (64, 128)).batches()
    tracemalloc.start()
    try:
        for _ in islice(batches, 5):
            pass
        early = tracemalloc.get_traced_memory()[0]
        for _ in islice(batches, 35):
            pass
        late = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        batches.close()
    assert late - early < 64 * 128 * 15, "a sample remains in memory"
