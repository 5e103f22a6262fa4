"""Decoder, product and encoder of dybit against tables and the rule of its specification."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from golden.dot import accumulator_unit, encode_sums
from golden.dybit import DybitFormat, DybitSpec
from golden.dybit_mac import DybitMacSpec
from golden.fixed import FixedSpec
from hdl.dybit import DybitDatapath, DybitDecoder, DybitEncoder, DybitProduct
from tests.simulate import apply_comb

#: Magnitudes of the codes in order, in units of 2**(1 - m): the specification's tables.
MAGNITUDES = {
    1: [0, 1],
    2: [0, 1, 2, 4],
    3: [0, 1, 2, 3, 4, 6, 8, 16],
    4: [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32, 64],
}


def magnitude(code, width):
    """Magnitude in units of 2**(1 - m), from the bits of the code as text (section 1)."""
    text = f"{code:0{width}b}"
    ones = len(text) - len(text.lstrip("1"))
    if ones == 0:
        return code
    if ones == width:
        return 1 << 2 * width - 2
    rest = text[ones + 1 :]
    return (1 << width + ones - 2) + (int("0" + rest, 2) << 2 * ones - 1)


def values(bits, signed):
    """Operand of every code, -0 among them."""
    width = bits - signed
    positive = [magnitude(code, width) for code in range(1 << width)]
    return positive + [-value for value in positive] if signed else positive


def test_magnitudes():
    for width, expected in MAGNITUDES.items():
        assert [magnitude(code, width) for code in range(1 << width)] == expected


def as_integer(operand):
    number = operand.significand << operand.shift
    return -number if operand.negative else number


def decode(spec, role, signed):
    """Operands of all codes."""
    codes = range(1 << spec.code_bits(role))
    inputs = {"code": codes}
    if role == "activation":
        inputs["has_sign"] = [int(signed)] * len(codes)
    return apply_comb(DybitDecoder(spec, role), inputs, ["operand"])["operand"]


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_decoder_every_code(bits, table):
    spec = DybitMacSpec(bits=bits, table=table)
    for role, signed, factor in (
        ("weight", True, 1),
        ("activation", True, 2),  # in units of an unsigned code
        ("activation", False, 1),
    ):
        got = decode(spec, role, signed)
        expected = [factor * value for value in values(bits, signed)]
        assert [as_integer(operand) for operand in got] == expected
        # No bit is set for zero, and some are for all other numbers.
        assert [bool(operand.as_bits()) for operand in got] == [value != 0 for value in expected]
        width = spec.significand_bits(role)
        assert all(operand.significand < 1 << width for operand in got)


@pytest.mark.parametrize(("bits", "weight_bits"), [(5, 5), (2, 2), (4, 2), (2, 5), (6, 3)])
def test_product_of_every_pair(bits, weight_bits):
    """All pairs of codes through both decoders."""
    spec = DybitMacSpec(bits=bits, weight_bits=weight_bits)
    weights = decode(spec, "weight", True)
    for signed in (False, True):
        activations = decode(spec, "activation", signed)
        pairs = list(itertools.product(activations, weights))
        inputs = {"activation": [a for a, _ in pairs], "weight": [w for _, w in pairs]}
        got = apply_comb(DybitProduct(spec), inputs, ["term", "carry"])
        expected = np.outer(values(bits, signed), values(weight_bits, True)) * (1 + signed)
        np.testing.assert_array_equal(np.add(got["term"], got["carry"]), expected.ravel())
        # A zero activation does not turn the bits of the sum.
        zero = np.repeat(np.array(values(bits, signed)) == 0, len(weights))
        assert not np.any(np.array(got["term"])[zero])


def rounded(value, bits, signed):
    """Code nearest to a rational number of last places; ties go away from zero (section 2)."""
    if value < 0 and not signed:
        return 0
    positive = [magnitude(code, bits - signed) for code in range(1 << bits - signed)]
    cuts = [Fraction(low + high, 2) for low, high in itertools.pairwise(positive)]
    code = sum(cut <= abs(value) for cut in cuts)
    return code | 1 << bits - 1 if value < 0 and code else code


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_encoder(bits, signed):
    """Ties, neighbours of ties, limits and random sums, for shifts and multipliers of all sizes."""
    spec = DybitMacSpec(bits=bits, weight_bits=min(bits, 4), length=9)
    rng = np.random.default_rng(bits)
    top = 1 << spec.sum_width - 1
    width = bits - signed
    positive = [magnitude(code, width) for code in range(1 << width)]
    cuts = [Fraction(low + high, 2) for low, high in itertools.pairwise(positive)]
    rows = []
    for shift, mult in itertools.product((0, 1, 2, 3, 9, 20, 40, 63), (1, 2, 3, 32768, 65535, 0)):
        unit = Fraction(mult << 1, 1 << shift) / (1 + signed)
        totals = {0, 1, -1, top - 1, -top, 1 - top}
        totals |= {int(rng.integers(-top, top) >> rng.integers(0, spec.sum_width)) for _ in "12345"}
        if mult:
            chosen = rng.permutation(len(cuts))[: None if (shift, mult) == (3, 1) else 8]
            ties = {int(cuts[index] / unit) for index in chosen} | {int(cuts[-1] / unit)}
            totals |= {sign * (tie + near) for tie in ties for sign in (1, -1) for near in (0, 1)}
        rows += [(t, mult, shift, unit) for t in totals if -top <= t < top]
    totals, mults, shifts, units = zip(*rows, strict=True)
    inputs = {"total": totals, "mult": mults, "shift": shifts, "has_sign": [signed] * len(rows)}
    got = apply_comb(DybitEncoder(spec), inputs, ["code"])["code"]
    expected = [rounded(t * unit, bits, signed) for t, unit in zip(totals, units, strict=True)]
    assert got == expected
    assert len(set(expected)) == (1 << bits) - signed  # -0 is never made


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("activations_signed", [False, True])
@pytest.mark.parametrize("result_signed", [False, True])
def test_settings_make_the_golden_codes(bits, activations_signed, result_signed):
    """A sum of the hardware's, which is twice as large for signed activations."""
    spec = DybitMacSpec(bits=bits, weight_bits=4, length=64)
    weights = DybitSpec(bits=4, scale=0.37)
    activations = DybitSpec(bits=bits, signed=activations_signed, scale=1.9)
    result = DybitSpec(bits=bits, signed=result_signed, scale=0.71)
    settings = spec.settings(weights, activations, result)
    shift = spec.sum_shift(weights, activations)
    assert shift == activations_signed
    limit = 1 << spec.sum_width - 1 - shift
    rng = np.random.default_rng(2)
    sums = rng.integers(-limit, limit, 300) >> rng.integers(0, spec.sum_width, 300)
    inputs = {"total": sums << shift} | {
        name: [settings[f"result_{name}"]] * len(sums) for name in ("mult", "shift", "has_sign")
    }
    got = apply_comb(DybitEncoder(spec), inputs, ["code"])["code"]
    np.testing.assert_array_equal(got, encode_sums(weights, activations, result, sums))
    real = accumulator_unit(weights, activations) / result.operand_unit
    assert settings["result_mult"] / 2 ** settings["result_shift"] == pytest.approx(
        real / 2**shift / (2 - result_signed), rel=2**-16
    )
    assert settings["activation_has_sign"] == activations_signed


def test_settings_refused():
    spec = DybitMacSpec(bits=8, weight_bits=4)
    weights, other = DybitSpec(bits=4), DybitSpec(bits=8)
    with pytest.raises(ValueError, match=r"weights\.bits must be 4, not 8"):
        spec.settings(other, other, other)
    with pytest.raises(ValueError, match=r"result\.bits must be 8, not 4"):
        spec.settings(weights, other, weights)
    with pytest.raises(TypeError, match="activations must be a DybitSpec, not FixedSpec"):
        spec.settings(weights, FixedSpec(bits=8), other)
    with pytest.raises(ValueError, match=r"weights\.signed must be True, not False"):
        spec.settings(DybitSpec(bits=4, signed=False), other, other)
    large = DybitSpec(bits=8, scale=2.0**20)
    with pytest.raises(ValueError, match=r"must be below 65535\.5 units of the result, not 2621"):
        spec.settings(weights, large, DybitSpec(bits=8, scale=1.0))


def test_for_format():
    form = DybitFormat(bits=8, weight_bits=4)
    assert DybitMacSpec.for_format(form, 99) == DybitMacSpec(bits=8, weight_bits=4, length=99)
    assert DybitMacSpec.for_format(DybitFormat(bits=4), 5).weight_bits == 4
    with pytest.raises(ValueError, match="signed must be yes for multiply-accumulate hardware"):
        DybitMacSpec.for_format(DybitFormat(bits=8, signed=False), 5)


def test_widths():
    """Section 4: bits of products and accumulators of signed weights and unsigned activations.

    One bit less than there: the largest product is a power of two.
    """
    for bits, weight_bits, product, accumulator in [
        (8, 8, 27, 41), (4, 8, 19, 33), (8, 4, 19, 33), (4, 4, 11, 25), (2, 2, 3, 17),
    ]:  # fmt: skip
        spec = DybitMacSpec(bits=bits, weight_bits=weight_bits, length=4608)
        assert spec.product_width - 1 == product
        assert spec.accumulator_width == accumulator - 1


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("bits", 1, ValueError, "bits must be between 2 and 8, not 1"),
        ("bits", 9, ValueError, "bits must be between 2 and 8, not 9"),
        ("weight_bits", 9, ValueError, "weight_bits must be between 2 and 8, not 9"),
        ("weight_bits", 4.0, TypeError, r"weight_bits must be an int, not 4\.0"),
        ("length", 0, ValueError, "length must be between 1 and 1048576, not 0"),
        ("table", 1, TypeError, "table must be a bool, not 1"),
    ],
)
def test_bad_spec(field, value, error, message):
    with pytest.raises(error, match=message):
        DybitMacSpec(**{field: value})


def test_bad_component_spec():
    for make in (DybitProduct, DybitEncoder, DybitDatapath, lambda x: DybitDecoder(x, "weight")):
        with pytest.raises(TypeError, match="spec must be a DybitMacSpec, not 8"):
            make(8)
