"""Multiply-accumulate of bfloat16 numbers against exact rationals."""

from fractions import Fraction

import numpy as np

from golden.bfloat16 import from_bits, to_bits
from golden.bfloat16_mac import accumulate, dot

ONE = 0x3F80


def test_by_hand():
    """1.5 * 2 - 0.5 * 3 = 1.5, and a sum that loses what is below its last place."""
    a = to_bits(np.array([1.5, -0.5]))
    w = to_bits(np.array([2.0, 3.0]))
    assert accumulate(a, w) == np.float32(1.5)
    assert dot(a, w) == 0x3FC0
    big = to_bits(np.array([2.0**24, 1.0, -(2.0**24)]))
    assert accumulate(big, np.full(3, ONE)) == 0


def test_range():
    """Subnormal operands and infinities read as zero; products vanish and saturate."""
    pairs = np.array(
        [
            [0x0001, ONE],  # subnormal
            [0x7F80, ONE],  # infinity
            [0x7FC0, 0xBF80],  # NaN
            [0x0080, 0x3F00],  # 2**-126 / 2
            [0x0080, ONE],  # the least number
            [0x7F7F, 0x7F7F],
            [0xFF7F, 0x4000],
            [0x8000, ONE],
        ]
    )
    largest = float(np.finfo(np.float32).max)
    expected = [0, 0, 0, 0, 2.0**-126, largest, -largest, 0]
    got = accumulate(pairs[:, :1], pairs[:, 1:])
    assert got.tolist() == expected
    assert not np.signbit(got[7])
    assert dot(pairs[:, :1], pairs[:, 1:])[5:7].tolist() == [0x7F7F, 0xFF7F]


def test_products_are_exact():
    """Every product of significands, against integers."""
    a, b = np.meshgrid(np.arange(128), np.arange(128), indexing="ij")
    got = accumulate((a.ravel() | ONE)[:, None], (b.ravel() | ONE)[:, None])
    assert (got * 2.0**14 == (a.ravel() + 128) * (b.ravel() + 128)).all()


def test_order():
    """Sums of random numbers, rounded after each addition by exact rationals."""
    rng = np.random.default_rng(1)
    a, w = (to_bits(rng.normal(size=(20, 12))) for _ in range(2))
    got = accumulate(a, w)
    for row in range(20):
        total = np.float32(0)
        for x, y in zip(from_bits(a[row]).tolist(), from_bits(w[row]).tolist(), strict=True):
            exact = Fraction(float(total)) + Fraction(x) * Fraction(y)
            # Both parts have so few bits that binary64 is exact.
            assert Fraction(float(exact)) == exact
            total = np.float32(float(exact))
        assert got[row] == total
