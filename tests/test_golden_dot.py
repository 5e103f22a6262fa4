"""Exact dot products against Python's integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.dot import (
    accumulator_bits,
    accumulator_exp,
    dot,
    encode_sums,
    matmul,
    quantise_bias,
)
from golden.dybit import DybitSpec
from golden.fixed import FixedSpec
from golden.tapered import TaperedSpec
from tests.golden_oracle import fixed_values, tapered_values

FIXED = FixedSpec(bits=8, frac_bits=9)
TAPERED = TaperedSpec(bits=8, max_run=8, scale_exp=-2)
NARROW = TaperedSpec(bits=3, max_run=2)
WIDE = TaperedSpec(bits=16, max_run=16)


def exact_values(spec):
    if isinstance(spec, FixedSpec):
        return fixed_values(spec.bits, spec.frac_bits)
    return tapered_values(spec.bits, spec.max_run, spec.scale_exp)


def exact_matmul(w_spec, a_spec, w_codes, a_codes):
    """Products in units of the accumulator, by sums of rational numbers."""
    w_values, a_values = exact_values(w_spec), exact_values(a_spec)
    unit = Fraction(2) ** accumulator_exp(w_spec, a_spec)
    return [
        [
            sum((w_values[w] * a_values[a] for w, a in zip(row, column, strict=True)), Fraction())
            / unit
            for column in zip(*a_codes, strict=True)
        ]
        for row in w_codes
    ]


@pytest.mark.parametrize("a_spec", [FIXED, TAPERED, NARROW, WIDE], ids=str)
@pytest.mark.parametrize("w_spec", [FIXED, TAPERED, NARROW, WIDE], ids=str)
@given(data=st.data())
@settings(derandomize=True, deadline=None, database=None, max_examples=20)
def test_matmul(w_spec, a_spec, data):
    rows, length, columns = (data.draw(st.integers(1, 5)) for _ in range(3))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    w_codes = rng.integers(0, 1 << w_spec.bits, (rows, length))
    a_codes = rng.integers(0, 1 << a_spec.bits, (length, columns))
    bias = rng.integers(-1000, 1000, (rows, 1))
    expected = exact_matmul(w_spec, a_spec, w_codes.tolist(), a_codes.tolist())
    got = matmul(w_spec, a_spec, w_codes, a_codes, bias)
    assert got.dtype == np.int64
    assert got.tolist() == [
        [value + int(start) for value in row]
        for row, start in zip(expected, bias[:, 0], strict=True)
    ]
    for column in range(columns):
        sums = dot(w_spec, a_spec, w_codes, a_codes[:, column], bias[:, 0])
        assert sums.dtype == np.int64
        assert sums.tolist() == got[:, column].tolist()


@pytest.mark.parametrize(
    ("spec", "length"),
    [
        # As many squares of the most negative operand as make 2**24 without the low zero bits that
        # all operands share: with one more product, binary32 does not hold the sum.
        (FIXED, 1024),
        (TAPERED, 64),
        # The same for 2**53 and binary64.
        (WIDE, 1 << 17),
    ],
)
def test_largest_sums(spec, length):
    """A small odd product beside the largest ones would get lost in a type that is too narrow."""
    codes = np.full(length, 1 << spec.bits - 1)
    operand = int(spec.operands(codes[0]))
    assert dot(spec, spec, codes, codes) == length * operand * operand
    codes = np.append(codes, 1)
    expected = length * operand * operand + int(spec.operands(1)) ** 2
    assert dot(spec, spec, codes, codes) == expected
    assert matmul(spec, spec, codes[np.newaxis], codes[:, np.newaxis]) == expected


def test_odd_sums_above_binary32():
    """2**24 + 1 is the first integer that binary32 lacks: 127 * 127 * 1040 + 31 * 31 and more."""
    rng = np.random.default_rng(10)
    w_codes = rng.integers(100, 128, (3, 1500))
    a_codes = rng.integers(100, 128, (1500, 2))
    expected = [
        [sum(w * a for w, a in zip(row, column, strict=True)) for column in a_codes.T.tolist()]
        for row in w_codes.tolist()
    ]
    assert min(min(row) for row in expected) > 1 << 24
    assert any(value % 2 for row in expected for value in row)
    assert matmul(FIXED, FIXED, w_codes, a_codes).tolist() == expected


def test_batches_and_broadcasting():
    rng = np.random.default_rng(11)
    w_codes = rng.integers(0, 256, (4, 3))
    a_codes = rng.integers(0, 256, (2, 5, 3, 6)).astype(np.uint8)
    got = matmul(TAPERED, FIXED, w_codes, a_codes)
    assert got.shape == (2, 5, 4, 6)
    for i in range(2):
        for j in range(5):
            one = exact_matmul(TAPERED, FIXED, w_codes.tolist(), a_codes[i, j].tolist())
            assert got[i, j].tolist() == one
    sums = dot(TAPERED, FIXED, w_codes[:, np.newaxis], a_codes[0, 0].T)
    assert sums.tolist() == got[0, 0].tolist()


def test_empty():
    """No products give the start value; no rows or columns give none."""
    assert dot(FIXED, TAPERED, np.zeros(0, int), np.zeros(0, int), 7) == 7
    got = matmul(FIXED, TAPERED, np.zeros((2, 0), int), np.zeros((0, 3), int), [[1], [2]])
    assert got.tolist() == [[1, 1, 1], [2, 2, 2]]
    assert matmul(FIXED, TAPERED, np.zeros((0, 4), int), np.zeros((4, 3), int)).shape == (0, 3)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        # In units of 2**-14 * 2**-2 = 2**-16.
        (0.0, 0),
        (-0.0, 0),
        (1.0, 65536),
        (-0.75, -49152),
        (2.0**-17, 0),  # ties go to even
        (3 * 2.0**-17, 2),
        (-3 * 2.0**-17, -2),
        (-5 * 2.0**-17, -2),
        (2.0**-17 + 2.0**-60, 1),
        (1e-300, 0),
    ],
)
def test_bias(bias, expected):
    activations = TaperedSpec(bits=8, max_run=3)
    assert accumulator_exp(TAPERED, activations) == -16
    got = quantise_bias(TAPERED, activations, bias)
    assert got.dtype == np.int64
    assert got == expected


def test_bias_shapes():
    bias = np.float32([[0.5, -0.25], [1.0, 0.0]])
    got = quantise_bias(FIXED, FIXED, bias)
    assert got.tolist() == [[1 << 17, -(1 << 16)], [1 << 18, 0]]
    assert quantise_bias(FIXED, FIXED, np.zeros(0)).shape == (0,)


def test_bad_bias():
    spec = FixedSpec(bits=8, frac_bits=0)
    with pytest.raises(ValueError, match=r"bias must be finite and below 4\.6\d+e\+18, not nan"):
        quantise_bias(spec, spec, [0.0, np.nan, np.inf])
    with pytest.raises(ValueError, match="not -inf"):
        quantise_bias(spec, spec, -np.inf)
    with pytest.raises(ValueError, match=r"not 4\.6\d+e\+18"):
        quantise_bias(spec, spec, 2.0**62)
    assert quantise_bias(spec, spec, 2.0**61) == 1 << 61


def test_bad_shapes():
    with pytest.raises(ValueError, match="w_codes must have at least 1 axis, not 0"):
        dot(FIXED, FIXED, 1, [1])
    with pytest.raises(ValueError, match="a_codes must have at least 1 axis, not 0"):
        dot(FIXED, FIXED, [1], 1)
    with pytest.raises(ValueError, match="w_codes and a_codes must have the same K, not 2 and 3"):
        dot(FIXED, FIXED, [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="w_codes and a_codes must have the same K, not 1 and 2"):
        dot(FIXED, FIXED, [1], [1, 2])
    with pytest.raises(ValueError, match="w_codes must have at least 2 axes, not 1"):
        matmul(FIXED, FIXED, [1], [[1]])
    with pytest.raises(ValueError, match="a_codes must have at least 2 axes, not 1"):
        matmul(FIXED, FIXED, [[1]], [1])
    with pytest.raises(ValueError, match="w_codes and a_codes must have the same K, not 2 and 1"):
        matmul(FIXED, FIXED, [[1, 2]], [[1, 2]])


def test_bad_values():
    with pytest.raises(ValueError, match="codes must be between 0 and 7, not 8"):
        dot(NARROW, FIXED, [8], [1])
    with pytest.raises(ValueError, match="codes must be between 0 and 7, not 8"):
        matmul(FIXED, NARROW, [[1]], [[8]])
    with pytest.raises(TypeError, match="codes must be integers, not float64"):
        dot(FIXED, FIXED, [1.0], [1])
    with pytest.raises(TypeError, match="bias_q must be integers, not float64"):
        dot(FIXED, FIXED, [1], [1], 0.5)
    with pytest.raises(ValueError, match=r"bias_q must be between -\d+ and \d+, not \d{19}"):
        dot(FIXED, FIXED, [1], [1], np.uint64([1 << 63]))
    for bias in ((1 << 63) - 1, -(1 << 63) + 1):
        with pytest.raises(ValueError, match=r"accumulators must be below 2\*\*63"):
            dot(FIXED, FIXED, [1], [1], bias)
    # 127 * 127 is all that one product can add here.
    largest = (1 << 63) - 1 - 128 * 127
    assert dot(FIXED, FIXED, [127], [127], largest) == largest + 127 * 127


def test_one_rounding_for_any_formats():
    sums = np.array([-70, -5, 0, 3, 41, 5000])
    fixed = FixedSpec(bits=4, frac_bits=3)
    scaled = DybitSpec(bits=4, scale=0.3)
    for relu in (False, True):
        np.testing.assert_array_equal(
            encode_sums(fixed, fixed, fixed, sums, relu=relu), fixed.requantise(sums, -6, relu=relu)
        )
        for formats in ((scaled, fixed, fixed), (fixed, scaled, fixed), (fixed, fixed, scaled)):
            unit = formats[0].operand_unit * formats[1].operand_unit
            np.testing.assert_array_equal(
                encode_sums(*formats, sums, relu=relu), formats[2].rescale(sums, unit, relu=relu)
            )


def test_accumulators_of_two_formats():
    assert accumulator_bits(FixedSpec(bits=8), FixedSpec(bits=4), 1) == 12
    assert accumulator_bits(FixedSpec(bits=8), FixedSpec(bits=8, signed=False), 3) == 18
    with pytest.raises(ValueError, match="length must be at least 1, not 0"):
        accumulator_bits(FixedSpec(bits=8), FixedSpec(bits=4), 0)
