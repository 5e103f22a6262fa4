"""Product and encoder of fixed point against the golden model."""

import itertools

import numpy as np
import pytest

from golden.fixed import FixedSpec
from golden.fixed_mac import FixedMacSpec
from hdl.fixed import FixedEncoder, FixedProduct
from tests.simulate import apply_comb


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_product_of_every_pair(bits):
    half = 1 << bits - 1
    pairs = list(itertools.product(range(-half, half), repeat=2))
    inputs = {"activation": [a for a, _ in pairs], "weight": [w for _, w in pairs]}
    got = apply_comb(FixedProduct(FixedMacSpec(bits=bits)), inputs, ["term"])["term"]
    np.testing.assert_array_equal(got, [a * w for a, w in pairs])


def test_product_16_bits():
    rng = np.random.default_rng(1)
    edges = [-(1 << 15), -(1 << 15) + 1, -1, 0, 1, (1 << 15) - 1]
    pairs = list(itertools.product(edges, repeat=2))
    pairs += rng.integers(-(1 << 15), 1 << 15, (500, 2)).tolist()
    inputs = {"activation": [a for a, _ in pairs], "weight": [w for _, w in pairs]}
    got = apply_comb(FixedProduct(FixedMacSpec(bits=16)), inputs, ["term"])["term"]
    np.testing.assert_array_equal(got, [a * w for a, w in pairs])


@pytest.mark.parametrize(("bits", "length"), [(2, 1), (3, 4), (8, 4096), (16, 100)])
def test_encoder(bits, length):
    """Every shift: limits, ties, their neighbours and random sums."""
    spec = FixedMacSpec(bits=bits, length=length)
    rng = np.random.default_rng(bits)
    top = 1 << spec.sum_width - 1
    result = FixedSpec(bits=bits, frac_bits=0)
    for shift in range(1 << spec.shift_width):
        k = rng.integers(-(1 << bits), 1 << bits, 40)
        ties = (2 * k + 1) << shift >> 1
        x = np.concatenate([ties - 1, ties, ties + 1, rng.integers(-top, top, 40)])
        x = np.concatenate([x[(x >= -top) & (x < top)], [-top, 1 - top, -1, 0, 1, top - 1]])
        inputs = {"total": x, "shift": np.full(len(x), shift)}
        got = np.array(apply_comb(FixedEncoder(spec), inputs, ["code"])["code"])
        # An integer below 2**53 times a power of two is exact, so this rounds once.
        expected = result.encode(x * 2.0**-shift)
        np.testing.assert_array_equal(got & (1 << bits) - 1, expected)


def test_settings():
    spec = FixedMacSpec(bits=8, length=4096)
    formats = [FixedSpec(bits=8, frac_bits=n) for n in (9, 6, 4)]
    assert spec.settings(*formats) == {"result_shift": 11}
    assert spec.sum_shift(*formats[:2]) == 0
    with pytest.raises(ValueError, match="must be between 0 and 31, not -1"):
        spec.settings(formats[2], formats[2], formats[0])
    with pytest.raises(ValueError, match=r"weights\.bits must be 8, not 7"):
        spec.settings(FixedSpec(bits=7), *formats[1:])
    with pytest.raises(TypeError, match="result must be a FixedSpec, not None"):
        spec.settings(*formats[:2], None)


def test_widths():
    """-2**7 * -2**7 * 4096 = 2**26 needs 28 bits with its sign."""
    spec = FixedMacSpec(bits=8, length=4096)
    assert (spec.product_width, spec.accumulator_width) == (16, 28)
    assert FixedMacSpec(bits=8, length=4095).accumulator_width == 27


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("bits", 1, ValueError, "bits must be between 2 and 16, not 1"),
        ("bits", True, TypeError, "bits must be an int, not True"),
        ("length", 1 << 21, ValueError, "length must be between 1 and 1048576, not 2097152"),
    ],
)
def test_bad_spec(field, value, error, message):
    with pytest.raises(error, match=message):
        FixedMacSpec(**{field: value})


@pytest.mark.parametrize("component", [FixedProduct, FixedEncoder])
def test_bad_component_spec(component):
    with pytest.raises(TypeError, match="spec must be a FixedMacSpec, not 8"):
        component(8)
