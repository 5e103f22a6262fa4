"""Decoder, product and encoder of tapered fixed point against the golden model."""

import itertools

import numpy as np
import pytest

from golden.tapered import TaperedSpec
from golden.tapered_mac import TaperedMacSpec
from hdl.tapered import TaperedDecoder, TaperedEncoder, TaperedProduct
from tests.simulate import apply_comb

SPECS = [
    TaperedMacSpec(bits=bits, min_run=low, max_run=high, form=form, length=4)
    for bits in (3, 4, 5, 6, 7, 8)
    for low, high in {(1, bits), (min(4, bits), min(7, bits)), (2, 3)}
    for form in ("significand", "even", "integer")
]
each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)


def runs(spec):
    return range(spec.min_run, spec.max_run + 1)


def operand_of(spec, codes, run):
    """Operands in units of 2**-(bits - 2), with IS = 1 as IS = 2, from the golden values."""
    values = TaperedSpec(bits=spec.bits, max_run=run).decode(codes).astype(np.float64)
    operands = values * 2.0 ** (spec.bits - 2) * (2 if run == 1 else 1)
    assert np.all(operands == np.rint(operands))
    return operands.astype(np.int64)


def as_integer(spec, operand):
    if spec.form == "integer":
        return operand
    magnitude = operand.significand << operand.shift * spec.shift_step
    return -magnitude if operand.negative else magnitude


@each_spec
def test_decoder_every_code_and_run(spec):
    codes = np.arange(1 << spec.bits)
    for run in runs(spec):
        inputs = {"code": codes, "run_limit": np.full(len(codes), run - 1)}
        got = apply_comb(TaperedDecoder(spec), inputs, ["operand"])["operand"]
        expected = operand_of(spec, codes, run)
        np.testing.assert_array_equal([as_integer(spec, operand) for operand in got], expected)


def test_decoder_limits_the_run_setting():
    """Settings outside the runs that the hardware was built for act as the nearest one inside."""
    spec = TaperedMacSpec(bits=8, min_run=4, max_run=6)
    codes = np.arange(256)
    for setting, run in [(0, 4), (2, 4), (3, 4), (5, 6), (6, 6), (7, 6)]:
        inputs = {"code": codes, "run_limit": np.full(256, setting)}
        got = apply_comb(TaperedDecoder(spec), inputs, ["operand"])["operand"]
        expected = operand_of(spec, codes, run)
        np.testing.assert_array_equal([as_integer(spec, operand) for operand in got], expected)


@pytest.mark.parametrize("form", ["significand", "even", "integer"])
@pytest.mark.parametrize(
    ("bits", "low", "codes"),
    [
        (3, 1, range(8)),
        (5, 1, range(32)),
        # Shifts of up to 2 and 4 steps; 0x80 has the largest, 0x7f, 0x7d and 0x6f end in ones.
        (8, 4, [0, 1, 0x3F, 0x4F, 0x5F, 0x67, 0x6F, 0x7D, 0x7F, 0x80, 0x81, 0x9F, 0xFF]),
    ],
)
def test_product_of_every_pair(form, bits, low, codes):
    """All pairs of codes, through both decoders, for every pair of runs."""
    spec = TaperedMacSpec(bits=bits, min_run=low, max_run=bits, form=form)
    for run_a, run_w in itertools.product(runs(spec), repeat=2):
        operands = {}
        for run in (run_a, run_w):
            inputs = {"code": codes, "run_limit": [run - 1] * len(codes)}
            operands[run] = apply_comb(TaperedDecoder(spec), inputs, ["operand"])["operand"]
        pairs = list(itertools.product(range(len(codes)), repeat=2))
        inputs = {
            "activation": [operands[run_a][a] for a, _ in pairs],
            "weight": [operands[run_w][w] for _, w in pairs],
        }
        outputs = ["term"] if form == "integer" else ["term", "carry"]
        got = apply_comb(TaperedProduct(spec), inputs, outputs)
        total = np.add(got["term"], got.get("carry", 0))
        values = np.outer(
            operand_of(spec, np.array(codes), run_a), operand_of(spec, np.array(codes), run_w)
        )
        np.testing.assert_array_equal(total, values.ravel())


def totals(spec, rng):
    """Limits, powers of two and their neighbours, small and random sums."""
    top = 1 << spec.sum_width - 1
    powers = 1 << np.arange(spec.sum_width - 1)
    edges = np.concatenate([powers - 1, powers, powers + 1, [0, top - 1]])
    small = rng.integers(-300, 300, 200)
    wide = rng.integers(-top, top, 200)
    near = rng.integers(-top, top, 400) >> rng.integers(0, spec.sum_width, 400)
    return np.concatenate([edges, -edges, [-top], small, wide, near])


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_encoder(bits):
    """Ties, neighbours of ties, limits and random sums, for every run and every scale."""
    spec = TaperedMacSpec(bits=bits, max_run=bits, length=3)
    rng = np.random.default_rng(bits)
    half = 1 << spec.scale_width - 1
    for run, scale_exp in itertools.product(range(1, bits + 1), range(-half, half)):
        result = TaperedSpec(bits=bits, max_run=run)
        exponent = scale_exp - 2 * (bits - 1)
        values = np.sort(result.decode(np.arange(1 << bits)).astype(np.float64))
        cuts = np.floor((values[1:] + values[:-1]) / 2 * 2.0**-exponent)
        ties = cuts[np.abs(cuts) < 2.0 ** (spec.sum_width - 1) - 2].astype(np.int64)
        ties = rng.permutation(np.unique(ties))[:60]
        x = np.unique(np.concatenate([totals(spec, rng)[::3], ties, ties - 1, ties + 1]))
        inputs = {
            "total": x,
            "run_limit": np.full(len(x), run - 1),
            "scale_exp": np.full(len(x), scale_exp),
        }
        got = apply_comb(TaperedEncoder(spec), inputs, ["code"])["code"]
        # An integer below 2**53 times a power of two is exact, so this rounds once.
        np.testing.assert_array_equal(got, result.encode(x * 2.0**exponent))


def test_settings():
    spec = TaperedMacSpec(bits=8, min_run=1, max_run=8)
    weights = TaperedSpec(bits=8, max_run=1, scale_exp=-3)
    activations = TaperedSpec(bits=8, max_run=5)
    result = TaperedSpec(bits=8, max_run=4)
    assert spec.settings(weights, activations, result) == {
        "activation_run_limit": 4,
        "weight_run_limit": 0,
        "result_run_limit": 3,
        "result_scale_exp": -4,
    }


def test_settings_refused():
    spec = TaperedMacSpec(bits=8, min_run=4, max_run=7)
    good = TaperedSpec(bits=8, max_run=5)
    with pytest.raises(ValueError, match=r"weights\.max_run must be between 4 and 7, not 3"):
        spec.settings(TaperedSpec(bits=8, max_run=3), good, good)
    with pytest.raises(ValueError, match=r"result\.bits must be 8, not 7"):
        spec.settings(good, good, TaperedSpec(bits=7))
    with pytest.raises(TypeError, match="activations must be a TaperedSpec, not 8"):
        spec.settings(good, 8, good)
    low = TaperedSpec(bits=8, max_run=5, scale_exp=-4)
    high = TaperedSpec(bits=8, max_run=5, scale_exp=3)
    with pytest.raises(ValueError, match="must be between -8 and 7, not -11"):
        spec.settings(low, low, high)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("bits", 2, ValueError, "bits must be between 3 and 16, not 2"),
        ("length", 0, ValueError, "length must be between 1 and 1048576, not 0"),
        ("min_run", 9, ValueError, "min_run must be between 1 and 8, not 9"),
        ("max_run", 9, ValueError, "max_run must be between 1 and 8, not 9"),
        ("max_run", 8.0, TypeError, r"max_run must be an int, not 8\.0"),
        ("form", "x", ValueError, "form must be 'significand', 'even' or 'integer', not 'x'"),
    ],
)
def test_bad_spec(field, value, error, message):
    with pytest.raises(error, match=message):
        TaperedMacSpec(**{field: value})


@pytest.mark.parametrize("component", [TaperedDecoder, TaperedProduct, TaperedEncoder])
def test_bad_component_spec(component):
    with pytest.raises(TypeError, match="spec must be a TaperedMacSpec, not 8"):
        component(8)
