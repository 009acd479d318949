"""At which size the network sees an image."""

import pytest
from maskflownet.engine.contract import Sizing
from maskflownet.errors import UserError


@pytest.mark.parametrize(("size", "network"), [((436, 1024), (448, 1024)), ((64, 64), (64, 64)), ((1, 65), (64, 128))])
def test_next_multiples_of_64(size, network):
    assert Sizing().network_size(*size) == network


def test_lesson_05_resize_is_height_width():
    assert Sizing(resize=(384, 1280)).network_size(375, 1242) == (384, 1280)


@pytest.mark.parametrize("resize", [(100, 128), (64, 0), (63, 64), (-64, 64)])
def test_other_sizes_are_refused(resize):
    with pytest.raises(UserError, match="must be multiples of 64"):
        Sizing(resize=resize)


def test_padding_is_symmetric():
    assert Sizing(pad=True).padding(101, 128) == (13, 14, 0, 0)
    with pytest.raises(UserError, match="exclude each other"):
        Sizing((64, 64), pad=True)
