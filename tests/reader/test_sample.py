"""The sample is a plain tuple that workers can send."""

import pickle

import numpy as np
from maskflownet.reader.sample import Sample


def test_sample_is_a_picklable_tuple():
    image = np.zeros((2, 3, 3), np.uint8)
    sample = Sample(image, image, None, None, "a/b")
    assert Sample._fields == ("img1", "img2", "flow", "mask", "name")
    copy = pickle.loads(pickle.dumps(sample))
    assert copy.name == "a/b"
    assert copy.flow is None
    np.testing.assert_array_equal(copy.img1, image)
