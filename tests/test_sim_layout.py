"""Port words against bits written by hand, and against Amaranth's own packing."""

import numpy as np
import pytest
from amaranth.hdl import signed
from amaranth.lib import data

from narrowgauge.regression import _layout
from sim.layout import pack, unpack

BYTE = {"width": 8, "signed": False}
NIBBLE = {"width": 4, "signed": True}
WORD = {
    "width": 21,
    "fields": {
        "codes": {"offset": 0, "width": 16, "lanes": 2, "lane": BYTE},
        "small": {"offset": 16, "width": 4, "signed": True},
        "last": {"offset": 20, "width": 1, "signed": False},
    },
}


def test_bits():
    """The first lane and the first field have the low bits."""
    values = {"codes": [[0x12, 0x34], [0xFF, 0]], "small": [-1, 7], "last": [0, 1]}
    assert pack(WORD, values) == [0x0F_34_12, 0x17_00_FF]
    back = unpack(WORD, [0x0F_34_12, 0x17_00_FF])
    for name, column in values.items():
        np.testing.assert_array_equal(back[name], column)


def test_limits():
    assert pack(NIBBLE, [-8, -1, 0, 7]) == [8, 15, 0, 7]
    assert unpack(NIBBLE, [8, 15, 0, 7]).tolist() == [-8, -1, 0, 7]
    wide = {"width": 63, "signed": True}
    values = [-(1 << 62), -1, (1 << 62) - 1]
    assert pack(wide, values) == [1 << 62, (1 << 63) - 1, (1 << 62) - 1]
    assert unpack(wide, pack(wide, values)).tolist() == values


def test_against_amaranth():
    """Random values of a nested structure."""
    rng = np.random.default_rng(1)
    shape = data.StructLayout(
        {"a": 3, "lanes": data.ArrayLayout(signed(5), 3), "wide": signed(40), "last": 1}
    )
    values = {
        "a": rng.integers(0, 8, 20),
        "lanes": rng.integers(-16, 16, (20, 3)),
        "wide": rng.integers(-(1 << 39), 1 << 39, 20),
        "last": rng.integers(0, 2, 20),
    }
    rows = [{name: column[row].tolist() for name, column in values.items()} for row in range(20)]
    layout = _layout(shape)
    words = [shape.const(row).as_bits() for row in rows]
    assert pack(layout, values) == words
    for name, column in unpack(layout, words).items():
        np.testing.assert_array_equal(column, values[name])


@pytest.mark.parametrize(
    ("layout", "values", "message"),
    [
        (NIBBLE, [7, 8], "value must fit 4 bits from -8 on, not 8"),
        (NIBBLE, [-9], "value must fit 4 bits from -8 on, not -9"),
        (BYTE, [-1], "value must fit 8 bits from 0 on, not -1"),
        (WORD["fields"]["codes"], [[1, 2, 3]], "lanes must be 2, not 3"),
        (WORD, {"codes": [[1, 2]], "last": [0]}, "fields must be codes, small, last, not codes, l"),
    ],
)
def test_refused(layout, values, message):
    with pytest.raises(ValueError, match=message):
        pack(layout, values)
