"""Which way of rounding serves which format; what they compute is tested with the formats."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from golden.fixed import FixedSpec
from golden.rounding import FEW, IntegerRounder, ScaledTable, UnitTable, ValueTable, gather
from golden.tapered import TaperedSpec


def table_of(spec):
    return ValueTable.of_codes(spec.value_table, spec.bits)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_look_up_up_to_8_bits(bits):
    """Without it, coding would still be right, but slow."""
    for max_run in range(1, bits + 1):
        for scale_exp in (-4, 3):
            spec = TaperedSpec(bits=bits, max_run=max_run, scale_exp=scale_exp)
            assert table_of(spec).narrow_codes is not None
    for frac_bits in (-64, 0, 64):
        table = table_of(FixedSpec(bits=bits, frac_bits=frac_bits))
        assert table.narrow_codes is not None
        assert table.grid is not None


def test_other_tables():
    """More significant bits than narrowed binary32 numbers have, then more than a table has."""
    for spec in (FixedSpec(bits=9), FixedSpec(bits=16, frac_bits=-64), TaperedSpec(bits=12)):
        table = table_of(spec)
        assert table.narrow_codes is None
        assert table.grid is not None
        assert IntegerRounder(np.unique(spec.operand_table), table, 9).narrow_codes is not None
    spec = TaperedSpec(bits=16)
    assert table_of(spec).grid is None
    assert IntegerRounder(np.unique(spec.operand_table), table_of(spec), 9).narrow_codes is None


def test_narrow_needs_normal_cuts():
    """Binary32 numbers below its normal ones have fewer bits to narrow."""
    values = np.ldexp([0.0, 1.0, -2.0, -1.0], -140)
    table = ValueTable.of_codes(values, 2)
    assert table.narrow_codes is None
    x = np.float32(2.0**-149) * np.arange(-1200, 1200, dtype=np.float32)
    expected = np.clip(np.rint(np.ldexp(x.astype(float), 140)), -2, 1).astype(int) & 3
    np.testing.assert_array_equal(table.encode(x), expected)


def test_scale_that_is_no_power_of_two():
    """Any values with exact midpoints are rounded right, by search if need be."""
    scale = float(np.float32(0.1))
    values = scale * np.array([0.0, 1.0, 3.0, 4.0, -4.0, -3.0, -2.0, -1.0])
    table = ValueTable.of_codes(values, 3)
    assert table.narrow_codes is None
    assert table.grid is None
    x = scale * np.array([0.4, 0.5, 1.9, 2.0, 2.1, 3.5, 9.0, -0.5, -1.5, -3.5, np.nan])
    np.testing.assert_array_equal(table.encode(x), [0, 0, 1, 2, 2, 2, 3, 0, 6, 4, 0])


def test_shared_values_give_the_smallest_code():
    table = ValueTable.of_codes(np.array([0.0, 1.0, 2.0, 1.0]), 2)
    assert table.encode(np.float32([0.0, 1.0, 1.4, 1.6, -1.0])).tolist() == [0, 1, 1, 2, 0]


def test_gather():
    table = np.array([10, 20, 30], np.int16)
    codes = np.array([[2, 0], [1, 1], [0, 2]], np.uint8)
    entries = gather(table, codes.T)
    assert entries.dtype == np.int16
    assert entries.tolist() == [[30, 20, 10], [10, 20, 30]]


@pytest.mark.parametrize("ties", ["away", "zero"])
@pytest.mark.parametrize("fraction_bits", [None, 4])
@pytest.mark.parametrize("scale", [1.0, float(np.float32(0.3))])
def test_search_and_look_up_of_scaled_formats_agree(ties, fraction_bits, scale):
    operands = np.array([0.0, 1, 2, 6, 9, -1, -2, -6, -9, -14, 2, 5, 7, 20, -3, 11])
    table = ScaledTable(UnitTable(operands, 4, ties, fraction_bits), scale)
    middles = np.ldexp(np.arange(-640, 641), -5) * scale
    x = np.concatenate([middles, np.random.default_rng(1).normal(0, 9, 500)]).astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, np.float32(-99)), np.nextafter(x, np.float32(99))])
    codes = table.encode(x)
    np.testing.assert_array_equal(codes, table.search(x))
    np.testing.assert_array_equal(codes, table.encode(x.astype(np.float64)))
    for number, code in zip(x.tolist(), codes.tolist(), strict=True):
        exact = Fraction(number) / Fraction(scale)
        if fraction_bits is not None:
            exact = Fraction(round(exact * 2**fraction_bits), 2**fraction_bits)
        sign = 1 if ties == "zero" else -1
        best = min(operands, key=lambda v: (abs(Fraction(v) - exact), sign * abs(v), v))
        assert operands[code] == best


@pytest.mark.parametrize("shift", [-70, -62, -3, 0, 1, 2, 9, 57, 60, 61, 62, 63, 64, 65, 70, 1000])
@pytest.mark.parametrize("spec", [TaperedSpec(bits=5), FixedSpec(bits=4, frac_bits=2)], ids=str)
def test_search_and_look_up_of_integers_agree(spec, shift):
    """Also where a unit of the format is more than any integer, or all midpoints are in one."""
    values = sorted(set(spec.operand_table.tolist()))
    codes = [spec.operand_table.tolist().index(value) for value in values]
    rounder = IntegerRounder(np.array(values), table_of(spec), shift)
    unit = Fraction(2) ** shift
    middles = [(a + b) * unit / 2 for a, b in pairwise(values)]
    limits = np.iinfo(np.int64)
    near = {int(middle) + i for middle in middles for i in range(-3, 4)}
    edges = {limits.min + i for i in range(3)} | {limits.max - i for i in range(3)} | {-1, 0, 1}
    integers = sorted(n for n in near | edges if limits.min <= n <= limits.max)
    expected = []
    for integer in integers:
        errors = [abs(value * unit - integer) for value in values]
        best = [code for code, error in zip(codes, errors, strict=True) if error == min(errors)]
        expected.append(min(best, key=lambda code: code % 2))
    few = np.array(integers)
    assert few.size < FEW
    np.testing.assert_array_equal(rounder.encode(few), expected)
    many = np.tile(few, FEW)
    np.testing.assert_array_equal(rounder.encode(many), np.tile(expected, FEW))
