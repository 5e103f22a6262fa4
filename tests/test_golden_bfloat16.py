"""bfloat16 against exact rationals, ml_dtypes and the vectors of the ABFP specification."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.bfloat16 import Bfloat16Codec, from_bits, round_in_range, rounded, to_bits
from tests.abfp_oracle import BFLOAT16_VALUES, bfloat16_bits
from tests.golden_oracle import load_vectors


def oracle(x):
    """Bits of the bfloat16 nearest to a finite number."""
    return bfloat16_bits(Fraction(float(x)))


def float32s(*patterns):
    return np.array(patterns, np.uint32).view(np.float32)


def test_vectors_bf16_round():
    cases = load_vectors("abfp")["bf16_round"]["cases"]
    assert len(cases) == 19
    for text, expected in cases:
        assert to_bits(float32s(int(text, 16)))[0] == int(expected, 16)


def test_every_pattern_reads():
    values = from_bits(np.arange(1 << 16))
    assert values.dtype == np.float32
    for sign, half in ((1, values[:0x8000]), (-1, values[0x8000:])):
        assert [sign * Fraction(float(value)) for value in half[:0x7F80]] == BFLOAT16_VALUES
        assert half[0x7F80] == sign * np.inf
        assert np.isnan(half[0x7F81:]).all()
    # No zero is negative.
    assert not np.signbit(values[np.flatnonzero(values == 0)]).any()


def test_every_pattern_returns():
    bits = np.arange(1 << 16)
    fields = bits >> 7 & 0xFF
    expected = np.where(fields == 0, 0, bits)
    expected[(fields == 255) & (bits & 0x7F > 0)] &= 0x8000
    expected[(fields == 255) & (bits & 0x7F > 0)] |= 0x7FC0
    np.testing.assert_array_equal(to_bits(from_bits(bits)), expected)
    finite = fields < 255
    np.testing.assert_array_equal(
        rounded(from_bits(bits[finite])).view(np.uint32), expected[finite] << 16
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_midpoints_and_neighbours(dtype):
    """The middle between any two neighbours goes to the even one; next to it there is no tie."""
    low = np.arange(0x80, 0x7F7F)
    values = from_bits(np.arange(0x80, 0x7F80)).astype(np.float64)
    middles = ((values[:-1] + values[1:]) / 2).astype(dtype)
    for sign in (1, -1):
        signs = 0 if sign > 0 else 0x8000
        np.testing.assert_array_equal(to_bits(sign * middles), (low + low % 2) | signs)
        below, above = np.nextafter(middles, dtype(0)), np.nextafter(middles, dtype(np.inf))
        np.testing.assert_array_equal(to_bits(sign * below), low | signs)
        np.testing.assert_array_equal(to_bits(sign * above), (low + 1) | signs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(dtype):
    """Below 2**-126 numbers are rounded as if there were smaller exponents, then flushed."""
    least, largest = dtype(2.0**-126), dtype(float(BFLOAT16_VALUES[-1]))
    tie = dtype(2.0**-126 * (1 - 2.0**-9))
    zero, infinity = dtype(0), dtype(np.inf)
    cases = {
        least: 0x0080,
        tie: 0x0080,
        np.nextafter(tie, zero): 0,
        # Where digits of a fixed size would round up to 2**-126.
        dtype(2.0**-126 * (1 - 2.0**-8)): 0,
        np.finfo(dtype).smallest_subnormal: 0,
        largest: 0x7F7F,
        np.nextafter(largest, infinity): 0x7F7F,
        np.finfo(dtype).max: 0x7F7F,
        infinity: 0x7F80,
        zero: 0,
    }
    for x, expected in cases.items():
        assert to_bits(x) == expected
        assert to_bits(-x) == (expected | 0x8000 if expected else 0)
        if np.isfinite(x):
            assert oracle(x) == expected
    assert to_bits(dtype(np.nan)) == 0x7FC0
    assert to_bits(-dtype(np.nan)) == 0xFFC0
    assert np.isnan(rounded(dtype(np.nan)))
    assert rounded(-infinity) == -np.inf
    assert not np.signbit(rounded(-zero))
    assert not np.signbit(rounded(-np.finfo(dtype).smallest_subnormal))


def test_float64_is_rounded_once():
    """Just above a tie by less than a float32 can tell, which ml_dtypes rounds to even."""
    x = 1 + 2.0**-8 + 2.0**-40
    assert to_bits(np.float64(x)) == 0x3F81
    assert to_bits(np.float32(x)) == 0x3F80
    assert np.float64(x).astype(ml_dtypes.bfloat16).view(np.uint16) == 0x3F80


def test_against_ml_dtypes():
    """Equal wherever there is no subnormal number, negative zero, overflow or NaN."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 1 << 32, 1 << 20).astype(np.uint32)
    x = patterns.view(np.float32)
    x = x[(np.abs(x) >= 2.0**-126) & (np.abs(x) <= float(BFLOAT16_VALUES[-1])) | np.isinf(x)]
    assert x.size > 1_000_000
    expected = x.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(to_bits(x), expected)
    np.testing.assert_array_equal(rounded(x).view(np.uint32) >> 16, expected)
    np.testing.assert_array_equal(
        from_bits(expected), expected.view(ml_dtypes.bfloat16).astype(np.float32)
    )


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float64(x):
    assert to_bits(np.float64(x)) == oracle(x)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_any_float32(x):
    assert to_bits(np.float32(x)) == oracle(x)


def test_every_float16():
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = x[np.isfinite(x)]
    np.testing.assert_array_equal(to_bits(x), to_bits(x.astype(np.float32)))
    np.testing.assert_array_equal(to_bits(x[::997]), [oracle(value) for value in x[::997]])


def test_every_significand_in_range():
    """Splitting is round-to-nearest-even for each of the 2**23 significands."""
    patterns = np.arange(1 << 23, dtype=np.uint32) | np.uint32(0x3F800000)
    x = patterns.view(np.float32)
    expected = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    for factor in (np.float32(1), np.float32(-(2.0**-100)), np.float32(2.0**99)):
        y = x * factor
        round_in_range(y, np.empty_like(y), y)
        np.testing.assert_array_equal(y, expected * factor)
    zeros = np.zeros(3, np.float32)
    round_in_range(zeros, np.empty_like(zeros), zeros)
    assert not zeros.any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_shapes(dtype):
    rng = np.random.default_rng(1)
    base = rng.normal(size=(40, 30, 50)).astype(dtype)
    base.flags.writeable = False
    flat = np.array([to_bits(value) for value in base.reshape(-1)[:500]])
    np.testing.assert_array_equal(to_bits(base).reshape(-1)[:500], flat)
    for view in (base[::2, ::-3], base.T, base[:, None, 5], base[0, 0, 0], base[:0], base[::40]):
        bits = to_bits(view)
        assert bits.dtype == np.uint16
        assert bits.shape == view.shape
        np.testing.assert_array_equal(bits, to_bits(view.copy()))
        values = rounded(view)
        assert values.dtype == np.float32
        assert values.shape == view.shape
        np.testing.assert_array_equal(values, from_bits(bits))
    np.testing.assert_array_equal(
        to_bits(base.byteswap().view(base.dtype.newbyteorder())), to_bits(base)
    )


def test_rare_numbers_in_large_arrays():
    """Blocks without zeros or huge numbers take shorter ways."""
    x = np.ones(100_000, np.float32)
    x[[3, 50_000, 99_999]] = [-0.0, np.inf, -3.4e38]
    expected = np.full(x.shape, 0x3F80)
    expected[[3, 50_000, 99_999]] = [0, 0x7F80, 0xFF7F]
    np.testing.assert_array_equal(to_bits(x), expected)


def test_codec():
    codec = Bfloat16Codec()
    x = np.float32([[1.00390625, -3e-39], [1.01171875, 0.3]])
    assert str(codec) == "bfloat16"
    np.testing.assert_array_equal(codec.encode(x), [[0x3F80, 0], [0x3F82, 0x3E9A]])
    np.testing.assert_array_equal(codec.quantise(x), from_bits(codec.encode(x)))
    assert Bfloat16Codec() == codec


@pytest.mark.parametrize("function", [to_bits, rounded])
def test_bad_type(function):
    with pytest.raises(TypeError, match="x must be float16, float32 or float64, not int64"):
        function(np.arange(3))
    with pytest.raises(TypeError, match="x must be float16, float32 or float64, not complex"):
        function(np.array([1j]))


def test_bad_bits():
    with pytest.raises(TypeError, match="bits must be integers, not float64"):
        from_bits([1.0])
    with pytest.raises(ValueError, match="bits must be between 0 and 65535, not 65536"):
        from_bits([1, 65536])
    with pytest.raises(ValueError, match="bits must be between 0 and 65535, not -1"):
        from_bits([-1])
