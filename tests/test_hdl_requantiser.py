"""The common requantiser against exact fractions and against the golden model."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from golden.fixed import FixedSpec
from golden.requantiser import Multiplier
from hdl.requantiser import Requantiser
from tests.simulate import apply_comb, run


def limits(bits, signed):
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def codes_of(width, bits, signed, rows, *, run_time=False):
    """Codes for rows of total, mult and shift."""
    totals, mults, shifts = zip(*rows, strict=True)
    dut = Requantiser(width, bits, None if run_time else signed)
    inputs = {"total": totals, "mult": mults, "shift": shifts}
    if run_time:
        inputs["has_sign"] = [signed] * len(totals)
    return apply_comb(dut, inputs, ["code"])["code"]


@pytest.mark.parametrize("run_time", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_every_sum(bits, signed, run_time):
    """All sums of 6 bits with multipliers that make ties, wholes and neither, at small shifts."""
    low, high = limits(bits, signed)
    rows = list(itertools.product(range(-32, 32), (0, 1, 2, 3, 5, 8), range(8)))
    expected = [
        # round() of a fraction takes a tie to the even integer.
        min(max(round(Fraction(total * mult, 1 << shift)), low), high) % (1 << bits)
        for total, mult, shift in rows
    ]
    assert codes_of(6, bits, signed, rows, run_time=run_time) == expected


def draw_rows(rng, width, bits, count):
    """Sums of all magnitudes, with shifts of which most leave some of the code; and ties."""
    limit = 1 << width - 1
    totals = rng.integers(-limit, limit, count) >> rng.integers(0, width, count)
    totals[:4] = [-limit, limit - 1, 0, -1]
    mults = rng.integers(0, 1 << 16, count) >> rng.integers(0, 16, count)
    sizes = [max(int(t) * int(m), -int(t) * int(m), 1) for t, m in zip(totals, mults, strict=True)]
    offsets = rng.integers(-2, 4, count)
    shifts = [
        min(max(size.bit_length() - bits + int(offset), 0), 47)
        for size, offset in zip(sizes, offsets, strict=True)
    ]
    rows = list(zip(totals.tolist(), mults.tolist(), shifts, strict=True))
    # An odd multiple of half the last place, and what is next to it.
    for shift in range(1, min(width - 1, 47)):
        tie = int(rng.integers(0, max(limit >> shift, 1))) << shift | 1 << shift - 1
        rows += [(sign * tie + near, 1, shift) for sign in (-1, 1) for near in (-1, 0, 1)]
    # A bit at the very end of what a shift drops decides a tie.
    for shift in range(width, 48):
        mult = 1 << max(shift - width + 2, 0)
        rows += [(sign * (limit // 2) + near, mult % (1 << 16), shift)
                 for sign in (-1, 1) for near in (-1, 0)]  # fmt: skip
    rows += [(limit - 1, 65535, shift) for shift in range(48)]
    rows += [(-limit, 65535, shift) for shift in range(48)]
    return [row for row in rows if -limit <= row[0] < limit]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("width", "bits"), [(3, 2), (16, 8), (27, 8), (33, 4), (40, 16), (48, 8)])
def test_wide_sums(width, bits, signed):
    """Against both golden forms of the same rounding, and fractions."""
    rows = draw_rows(np.random.default_rng(width + signed), width, bits, 600)
    low, high = limits(bits, signed)
    got = codes_of(width, bits, signed, rows, run_time=True)
    expected = [
        min(max(round(Fraction(total * mult, 1 << shift)), low), high)
        for total, mult, shift in rows
    ]
    assert got == [code % (1 << bits) for code in expected]
    for (total, mult, shift), code in list(zip(rows, expected, strict=True))[::7]:
        assert int(Multiplier(mult, shift).apply(total, low, high)) == code
    assert min(expected) == low
    assert max(expected) == high


def test_fixed_results():
    """A layer of scaled operands, whose results are fixed point."""
    rng = np.random.default_rng(3)
    for signed in (False, True):
        result = FixedSpec(bits=8, frac_bits=5, signed=signed)
        unit = 3.3e-5
        totals = rng.integers(-(1 << 20), 1 << 20, 500) >> rng.integers(0, 12, 500)
        multiplier = Multiplier.of(unit / result.operand_unit)
        rows = [(int(total), multiplier.mult, multiplier.shift) for total in totals]
        got = codes_of(22, 8, signed, rows)
        np.testing.assert_array_equal(got, result.rescale(totals, unit))


def test_shift_beyond_the_product():
    """Shifts that the golden model has no use for act as what they are."""
    rows = [(total, 65535, shift) for total in (-(1 << 47), -1, 0, (1 << 47) - 1)
            for shift in range(48, 64)]  # fmt: skip
    expected = [round(Fraction(total * mult, 1 << shift)) for total, mult, shift in rows]
    assert codes_of(48, 32, True, rows) == [code % (1 << 32) for code in expected]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1, 8), ValueError, "total_width must be between 2 and 48, not 1"),
        ((49, 8), ValueError, "total_width must be between 2 and 48, not 49"),
        ((8.0, 8), TypeError, r"total_width must be an int, not 8\.0"),
        ((8, 0), ValueError, "bits must be between 1 and 32, not 0"),
        ((8, 33), ValueError, "bits must be between 1 and 32, not 33"),
        ((8, 8, 1), TypeError, "signed_code must be a bool or None, not 1"),
    ],
)
def test_bad_parameters(arguments, error, message):
    with pytest.raises(error, match=message):
        Requantiser(*arguments)


@pytest.mark.parametrize(
    ("latency", "error", "message"),
    [
        (4, ValueError, "latency must be between 0 and 3, not 4"),
        (True, TypeError, "latency must be an int, not True"),
    ],
)
def test_bad_latency(latency, error, message):
    with pytest.raises(error, match=message):
        Requantiser(8, 8, latency=latency)


@pytest.mark.parametrize("latency", [1, 2, 3])
@pytest.mark.parametrize(("width", "bits"), [(2, 1), (12, 4), (32, 8), (48, 32)])
def test_latency(width, bits, latency):
    """Sums follow one another; each moves when it may, and its code comes ``latency`` moves on."""
    rng = np.random.default_rng(width)
    rows = draw_rows(rng, width, bits, 200)
    dut = Requantiser(width, bits, latency=latency)
    got, expected = [], []

    async def testbench(ctx):
        for index in range(0, 200, 20):
            _, mult, shift = rows[index]
            has_sign = index // 20 % 2
            for port, value in (("mult", mult), ("shift", shift), ("has_sign", has_sign)):
                ctx.set(getattr(dut, port), value)
            low, high = limits(bits, has_sign)
            totals = [total for total, _, _ in rows[index : index + 20]]
            for total in totals:
                value = min(max(round(Fraction(total * mult, 1 << shift)), low), high)
                expected.append(value % (1 << bits))
            codes = []
            for total in totals + [0] * (latency - 1):
                for move in [0] * rng.integers(3) + [1]:
                    ctx.set(dut.total, total if move else ~total)
                    ctx.set(dut.move, move)
                    await ctx.tick()
                ctx.set(dut.total, ~total)
                codes.append(ctx.get(dut.code))
            got.extend(codes[latency - 1 :])

    run(dut, testbench)
    assert got == expected
