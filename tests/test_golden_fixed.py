"""Fixed point against exact rationals, and the choice of its scale against brute force."""

from fractions import Fraction

import numpy as np
import pytest

from golden.fixed import FixedFormat, FixedSpec, quantise_all, single_splits
from golden.fixed_mac import FixedMacSpec
from golden.formats import parse
from golden.requantiser import Multiplier
from tests.golden_oracle import Rounder, fixed_values

EVERY_SMALL = [(bits, frac) for bits in range(2, 9) for frac in (-64, -3, 0, bits - 1, 20, 64)]
WIDE = [(bits, frac) for bits in (9, 11, 16) for frac in (-5, bits - 1, 64)]


def all_codes(spec):
    return np.arange(1 << spec.bits)


@pytest.mark.parametrize(("bits", "frac_bits"), EVERY_SMALL + WIDE)
def test_every_code(bits, frac_bits):
    spec = FixedSpec(bits=bits, frac_bits=frac_bits)
    codes = all_codes(spec)
    exact = fixed_values(bits, frac_bits)
    values = spec.decode(codes)
    assert values.dtype == np.float32
    assert [Fraction(float(value)) for value in values] == list(exact)
    unit = Fraction(2) ** spec.operand_exp
    assert [int(operand) * unit for operand in spec.operands(codes)] == list(exact)
    assert spec.operand_bits == bits
    for dtype in (np.float32, np.float64):
        encoded = spec.encode(values.astype(dtype))
        assert encoded.dtype == (np.uint8 if bits <= 8 else np.uint16)
        np.testing.assert_array_equal(encoded, codes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("bits", "frac_bits"), EVERY_SMALL)
def test_encode_around_every_midpoint(bits, frac_bits, dtype):
    spec = FixedSpec(bits=bits, frac_bits=frac_bits)
    nearest = Rounder(fixed_values(bits, frac_bits))
    points = nearest.points(dtype)
    np.testing.assert_array_equal(spec.encode(points), [nearest(float(p)) for p in points])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("bits", "frac_bits"), WIDE)
def test_encode_wide(bits, frac_bits, dtype):
    spec = FixedSpec(bits=bits, frac_bits=frac_bits)
    nearest = Rounder(fixed_values(bits, frac_bits))
    points = np.random.default_rng(bits).choice(nearest.points(dtype), 2000)
    np.testing.assert_array_equal(spec.encode(points), [nearest(float(p)) for p in points])


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_encode_is_integer_rounding(bits):
    """Where the scale is 1, coding is rounding to the nearest even integer and clipping."""
    spec = FixedSpec(bits=bits, frac_bits=0)
    x = np.random.default_rng(1).normal(scale=1 << bits - 2, size=5000).astype(np.float32)
    x = np.concatenate([x, np.arange(-20, 20, dtype=np.float32) / 2])
    expected = np.clip(np.rint(x), -(1 << bits - 1), (1 << bits - 1) - 1)
    np.testing.assert_array_equal(spec.quantise(x), expected)


def test_default_frac_bits():
    assert FixedSpec() == FixedSpec(bits=8, frac_bits=7)
    assert FixedSpec(bits=5) == FixedSpec(bits=5, frac_bits=4)
    assert FixedFormat(bits=6).spec() == FixedSpec(bits=6, frac_bits=5)
    assert parse("fixed6:frac_bits=-2").spec() == FixedSpec(bits=6, frac_bits=-2)


@pytest.mark.parametrize(
    ("largest", "bits", "frac_bits"),
    [
        (0.0, 8, 7),
        (0.3, 8, 8),  # up to just below 0.5
        (0.5, 8, 7),
        (0.99, 8, 7),
        (1.0, 8, 6),
        (100.0, 8, 0),
        (1000.0, 8, -3),
        (1000.0, 4, -7),
        (1e-30, 8, 64),  # the limit of the parameter
        (3e38, 8, -64),
    ],
)
def test_rule(largest, bits, frac_bits):
    """The finest scale at which the largest magnitude is in range, worked out by hand."""
    fmt = FixedFormat(bits=bits)
    tensor = np.array([0.0, largest, -largest / 2])
    for role in ("weights", "activations"):
        assert fmt.fit(tensor, role, "paper").frac_bits == frac_bits
        assert fmt.fit(-tensor, role, "paper").frac_bits == frac_bits


@pytest.mark.parametrize("shape", ["normal", "laplace", "uniform", "standard_cauchy"])
@pytest.mark.parametrize("bits", [2, 3, 5, 8, 11])
def test_sweep_is_brute_force(bits, shape):
    """No legal scale is better, also of those that the sweep does not try."""
    rng = np.random.default_rng(bits)
    fmt = FixedFormat(bits=bits)
    for spread in (1e-3, 0.3, 50.0):
        tensor = (spread * getattr(rng, shape)(size=400)).astype(np.float32)
        errors = {}
        for frac_bits in range(-20, 40):
            values = FixedSpec(bits=bits, frac_bits=frac_bits).quantise(tensor)
            errors[frac_bits] = np.mean((tensor - values.astype(float)) ** 2)
        # Coarser scales than that before the rule's give the same error at best, and are not tried.
        coarsest = fmt.fit(tensor, method="paper").frac_bits - 1
        equal = [key for key, error in errors.items() if error == min(errors.values())]
        for role in ("weights", "activations"):
            assert fmt.fit(tensor, role).frac_bits == min(key for key in equal if key >= coarsest)


def test_sweep_prefers_the_coarsest_of_equals():
    """0.5 is exact with 1 fraction bit and with more; the rule is 7, one coarser 6."""
    assert FixedFormat(bits=8).fit(np.float32([0.5, -0.5])).frac_bits == 6
    # All zeros: every scale is exact, and the default is taken.
    assert FixedFormat(bits=8).fit(np.zeros((2, 3))).frac_bits == 7
    assert FixedFormat(bits=8).fit(np.zeros(0)).frac_bits == 7


def test_sweep_clips_an_outlier():
    """One large number among many small ones is better clipped."""
    tensor = np.random.default_rng(2).normal(size=100_000).astype(np.float32)
    tensor[17] = 40.0
    fmt = FixedFormat(bits=4)
    assert fmt.fit(tensor, method="paper").frac_bits == -3
    assert fmt.fit(tensor).frac_bits == 1


def test_fit_keeps_what_was_given():
    tensor = np.random.default_rng(3).normal(size=100)
    for method in ("sweep", "paper"):
        spec = parse("fixed8:frac_bits=-9").fit(tensor, method=method)
        assert spec == FixedSpec(bits=8, frac_bits=-9)


def test_single_splits():
    """I + fs = n with the sign in I and fs = 1 .. n - 1 (paper, section 6)."""
    splits = single_splits(5)
    assert [split.frac_bits for split in splits] == [1, 2, 3, 4]
    assert {split.bits for split in splits} == {5}
    assert [split.frac_bits for split in single_splits(2)] == [1]
    with pytest.raises(ValueError, match="bits must be between 2 and 16, not 1"):
        single_splits(1)


def test_quantise_all():
    tensors = [np.array([[0.3, -9.0]]), np.float32([0.25, 0.125, 0.375])]
    first, second = quantise_all(tensors, FixedSpec(bits=4, frac_bits=2))
    np.testing.assert_array_equal(first, [[0.25, -2.0]])
    np.testing.assert_array_equal(second, [0.25, 0.0, 0.5])


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"bits": 0}, ValueError, "bits must be between [12] and 16, not 0"),
        ({"bits": 17}, ValueError, "bits must be between [12] and 16, not 17"),
        ({"signed": 1}, TypeError, "signed must be a bool, not 1"),
        ({"bits": "8"}, TypeError, "bits must be an int, not '8'"),
        ({"frac_bits": -65}, ValueError, "frac_bits must be between -64 and 64, not -65"),
        ({"frac_bits": 65}, ValueError, "frac_bits must be between -64 and 64, not 65"),
        ({"frac_bits": 1.0}, TypeError, r"frac_bits must be an int, not 1\.0"),
    ],
)
@pytest.mark.parametrize("kind", [FixedSpec, FixedFormat])
def test_bad_parameters(kind, parameters, error, message):
    with pytest.raises(error, match=message):
        kind(**{"bits": 8, **parameters})


def test_weights_may_have_bits_of_their_own():
    x = np.random.default_rng(8).normal(size=100)
    form = FixedFormat(bits=8, weight_bits=3)
    assert form.fit(x) == FixedFormat(bits=3).fit(x)
    assert form.fit(x, method="paper") == FixedFormat(bits=3).fit(x, method="paper")
    assert form.fit(x, "activations") == FixedFormat(bits=8).fit(x, "activations")
    assert FixedFormat(bits=8, weight_bits=3, frac_bits=2).fit(x) == FixedSpec(bits=3, frac_bits=2)
    with pytest.raises(ValueError, match="weight_bits must be between 2 and 16, not 1"):
        FixedFormat(bits=8, weight_bits=1)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_unsigned_codes(bits):
    spec = FixedSpec(bits=bits, frac_bits=3, signed=False)
    codes = np.arange(1 << bits)
    np.testing.assert_array_equal(spec.decode(codes), codes / 8)
    assert spec.operand_bits == bits + 1
    # Half-way goes to the even code; negative numbers are out of range.
    halves = np.arange(-2, 2 << bits) / 16
    expected = [min(max(round(Fraction(n, 2)), 0), (1 << bits) - 1) for n in range(-2, 2 << bits)]
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(spec.encode(halves.astype(dtype)), expected)
    assert str(spec) == f"fixed{bits}:frac_bits=3,signed=no"


def test_unsigned_fit():
    x = np.abs(np.random.default_rng(9).normal(size=300))
    form = FixedFormat(bits=4, signed=False)
    others = [FixedSpec(bits=4, frac_bits=n, signed=False) for n in range(-3, 9)]
    errors = [np.sum((spec.quantise(x) - x) ** 2) for spec in others]
    assert form.fit(x) == others[int(np.argmin(errors))]
    assert form.fit(x, method="paper").frac_bits == 4 - int(np.ceil(np.log2(x.max())))
    with pytest.raises(ValueError, match=r"no negative numbers where signed=no, not -1\.0"):
        form.fit(np.array([1.0, -1.0]))


def test_fixed_hardware_is_signed():
    mac = FixedMacSpec(bits=8, length=4, weight_bits=4)
    assert (mac.product_max, mac.product_width, mac.label) == (1 << 10, 12, "b8w4")
    signed = FixedSpec(bits=8, frac_bits=3)
    weights = FixedSpec(bits=4, frac_bits=2)
    assert mac.settings(weights, signed, signed) == {"result_shift": 2}
    with pytest.raises(ValueError, match=r"activations\.signed must be True, not False"):
        mac.settings(weights, FixedSpec(bits=8, frac_bits=3, signed=False), signed)
    with pytest.raises(ValueError, match=r"weights\.bits must be 4, not 8"):
        mac.settings(signed, signed, signed)
    with pytest.raises(ValueError, match="signed must be yes for multiply-accumulate hardware"):
        FixedMacSpec.for_format(FixedFormat(bits=8, signed=False), 4)


def test_rescaled_by_any_factor():
    accumulators = np.array([-1000, -3, -1, 0, 1, 3, 5, 40, 1000])
    for signed in (True, False):
        spec = FixedSpec(bits=6, frac_bits=2, signed=signed)
        low, high = (-32, 31) if signed else (0, 63)
        multiplier = Multiplier.of(0.3 / 0.25)
        factor = Fraction(multiplier.mult, 1 << multiplier.shift)
        expected = [min(max(round(int(a) * factor), low), high) % 64 for a in accumulators]
        np.testing.assert_array_equal(spec.rescale(accumulators, 0.3), expected)
        rectified = np.where(accumulators < 0, 0, expected)
        np.testing.assert_array_equal(spec.rescale(accumulators, 0.3, relu=True), rectified)
