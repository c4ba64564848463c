"""Every zoo net has one picture of its groups, as read and kept (see tests/pictures.py)."""

import pytest

from nets.zoo import NETS
from tests import pictures
from tests.laws import analysed


def test_there_is_one_picture_per_net():
    assert list(pictures.written()) == list(NETS)


@pytest.mark.parametrize("name", NETS)
def test_groups_are_as_pictured(name):
    assert pictures.picture(analysed(name)) == pictures.written()[name]
