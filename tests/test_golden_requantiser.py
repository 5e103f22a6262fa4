from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.requantiser import Multiplier, TwoStepMultiplier
from tests.golden_oracle import load_vectors

INT32 = (-(1 << 31), (1 << 31) - 1)
LARGEST = (1 << 47) - 1
REALS = [
    1.0,
    0.5,
    0.75,
    1 / 3,
    0.1,
    3e-7,
    1e-9,
    2.0**-31,
    2.0**-32,
    65535.0,
    float(np.nextafter(65535.5, 0)),
    # The fraction rounds up to 2**16, in the middle and at both ends.
    1 - 2.0**-18,
    4 * (1 - 2.0**-17),
    2.0**-32 * (1 - 2.0**-18),
    65535.49,
    # Halfway between two multipliers: to the even one.
    (40000 + 0.5) / 65536,
    (40001 + 0.5) / 65536,
]


def nearest_even(x):
    """Nearest integer to a rational number, ties to even, from the two candidates."""
    low = x.numerator // x.denominator
    if x - low == Fraction(1, 2):
        return low + low % 2
    return low if x - low < Fraction(1, 2) else low + 1


def requantise(accumulator, mult, shift, low, high, zero_point=0):
    exact = nearest_even(Fraction(accumulator * mult, 1 << shift)) + zero_point
    return min(max(exact, low), high)


def requantise_twice(accumulator, mult, shift):
    raised = Fraction(accumulator * mult << max(shift, 0), 1 << 31)
    once = (raised + Fraction(1, 2)).__floor__()
    scaled = Fraction(abs(once), 1 << max(-shift, 0))
    magnitude = (scaled + Fraction(1, 2)).__floor__()
    return magnitude if once >= 0 else -magnitude


def test_vectors():
    section = load_vectors("weight_pool")["requant_common"]
    assert section["fields"] == ["acc", "mult", "sh", "lo", "hi", "zp", "q"]
    for acc, mult, shift, low, high, zero_point, expected in section["cases"]:
        assert Multiplier(mult, shift).apply(acc, low, high, zero_point) == expected


def test_two_step_vectors():
    section = load_vectors("weight_pool")["requant_two_step"]
    assert section["fields"] == ["acc", "mult", "shift", "q"]
    for acc, mult, shift, expected in section["cases"]:
        assert TwoStepMultiplier(mult, shift).apply(acc, *INT32) == expected


@pytest.mark.parametrize("real", REALS)
def test_multiplier_of(real):
    multiplier = Multiplier.of(real)
    assert 1 << 15 <= multiplier.mult < 1 << 16
    assert 0 <= multiplier.shift <= 47
    # The nearest of all fractions with 16 significant bits, found without a logarithm.
    exp = next(e for e in range(-60, 20) if Fraction(2) ** e > Fraction(real))
    mult = nearest_even(Fraction(real) * (1 << 16) / Fraction(2) ** exp)
    value = Fraction(mult) * Fraction(2) ** (exp - 16)
    assert Fraction(multiplier.mult, 1 << multiplier.shift) == value


def test_multiplier_of_small_numbers():
    assert Multiplier.of(2.0**-32) == Multiplier(1 << 15, 47)
    assert Multiplier.of(2.0**-32 * (1 - 2.0**-18)) == Multiplier(1 << 15, 47)
    assert Multiplier.of(2.0**-32 * (1 - 2.0**-16)) == Multiplier(0, 0)
    for real in (0.0, -0.0, 0, 5e-324, 2.0**-33):
        assert Multiplier.of(real) == Multiplier(0, 0)
    assert Multiplier.of(np.float32(0.5)) == Multiplier(1 << 15, 16)
    assert Multiplier.of(65535.49) == Multiplier(65535, 0)
    assert Multiplier.of(3) == Multiplier(3 << 14, 14)


@pytest.mark.parametrize("real", [65535.5, 1e300, float("inf"), float("nan"), -1e-300, 10**400])
def test_multiplier_of_refuses(real):
    with pytest.raises(ValueError, match=r"real must be at least 0 and below 65535\.5, not "):
        Multiplier.of(real)
    if not real < 1e9:
        with pytest.raises(ValueError, match=r"real must be at least 0 and below 1073741823\.75"):
            TwoStepMultiplier.of(real)


@pytest.mark.parametrize("kind", [Multiplier, TwoStepMultiplier])
@pytest.mark.parametrize("real", ["1", True, None, 1j])
def test_of_refuses_types(kind, real):
    with pytest.raises(TypeError, match="real must be a float, not "):
        kind.of(real)


def accumulators(bits, random):
    """Numbers around powers of two, and random ones of all sizes."""
    powers = [1 << i for i in range(bits)]
    near = [s * (p + d) for p in powers for d in (-1, 0, 1) for s in (1, -1)]
    sizes = random.integers(1, bits + 1, 60)
    drawn = [int(random.integers(-(1 << size - 1), 1 << size - 1)) for size in sizes]
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    return [x for x in [*near, *drawn, low, high, 0] if low <= x <= high]


@pytest.mark.parametrize("shift", [0, 1, 2, 15, 16, 17, 31, 46, 47])
def test_apply_is_exact(shift):
    random = np.random.default_rng(shift)
    numbers = accumulators(48, random)
    for mult in (0, 1, 32768, 32769, 40000, 65535, int(random.integers(32768, 65536))):
        multiplier = Multiplier(mult, shift)
        product = multiplier.product(np.array(numbers))
        assert product.dtype == np.int64
        assert product.tolist() == [x * mult for x in numbers]
        for low, high, zero_point in ((-128, 127, 0), (0, 255, 3), (*INT32, -7), (*INT32, 0)):
            result = multiplier.apply(np.array(numbers), low, high, zero_point)
            assert result.dtype == np.int64
            expected = [requantise(x, mult, shift, low, high, zero_point) for x in numbers]
            assert result.tolist() == expected


def test_every_tie():
    # 3/8, with all residues of the shift on both sides of 0.
    numbers = np.arange(-40, 41)
    expected = [requantise(x, 3, 3, *INT32) for x in numbers.tolist()]
    assert Multiplier(3, 3).apply(numbers, *INT32).tolist() == expected
    assert {-2, 2} < {y for x, y in zip(numbers.tolist(), expected, strict=True) if x * 3 % 8 == 4}


@pytest.mark.parametrize("shift", [-31, -30, -7, -2, -1, 0, 1, 5, 30])
def test_two_step_is_exact(shift):
    random = np.random.default_rng(shift + 31)
    bits = 32 - max(shift, 0)
    numbers = accumulators(bits, random)
    for mult in (
        0,
        1,
        1 << 30,
        (1 << 30) + 1,
        (1 << 31) - 1,
        int(random.integers(1 << 30, 1 << 31)),
    ):
        result = TwoStepMultiplier(mult, shift).apply(np.array(numbers), *INT32)
        assert result.tolist() == [requantise_twice(x, mult, shift) for x in numbers]
        clamped = TwoStepMultiplier(mult, shift).apply(np.array(numbers), -128, 100, -3)
        assert clamped.tolist() == [
            min(max(requantise_twice(x, mult, shift) - 3, -128), 100) for x in numbers
        ]


@pytest.mark.parametrize("real", [*(x for x in REALS if x >= 2.0**-32), 1e9, 1073741823.7])
def test_two_step_of(real):
    multiplier = TwoStepMultiplier.of(real)
    assert 1 << 30 <= multiplier.mult < 1 << 31
    value = Fraction(multiplier.mult) * Fraction(2) ** (multiplier.shift - 31)
    # Half a unit in the last place of 31 bits.
    assert abs(value - Fraction(real)) * 2 <= Fraction(2) ** (multiplier.shift - 31)


def test_two_step_of_edges():
    assert TwoStepMultiplier.of(0.0) == TwoStepMultiplier(0, 0)
    assert TwoStepMultiplier.of(2.0**-32) == TwoStepMultiplier(1 << 30, -31)
    assert TwoStepMultiplier.of(2.0**-33) == TwoStepMultiplier(0, 0)
    assert TwoStepMultiplier.of(1.0) == TwoStepMultiplier(1 << 30, 1)
    # A tie goes up, and to the next power of two.
    assert TwoStepMultiplier.of(1 - 2.0**-32) == TwoStepMultiplier(1 << 30, 1)
    assert TwoStepMultiplier.of(0.5 + 2.0**-32) == TwoStepMultiplier((1 << 30) + 1, 0)


def test_rounding_once_and_twice_differ():
    # 2.5 goes to the even 2 at once; away from zero in two steps.
    assert Multiplier(1 << 15, 17).apply(10, -128, 127) == 2
    assert TwoStepMultiplier(1 << 30, -1).apply(10, -128, 127) == 3
    assert TwoStepMultiplier(1 << 30, -1).apply(-10, -128, 127) == -3


@given(
    st.integers(-(1 << 47), LARGEST),
    st.integers(0, 65535),
    st.integers(0, 47),
    st.integers(*INT32),
)
@settings(derandomize=True, max_examples=200, deadline=None)
def test_apply_property(accumulator, mult, shift, zero_point):
    result = Multiplier(mult, shift).apply(accumulator, *INT32, zero_point)
    assert result == requantise(accumulator, mult, shift, *INT32, zero_point)


@pytest.mark.parametrize("kind", [Multiplier(40001, 17), TwoStepMultiplier(1400000000, -2)])
def test_arrays(kind):
    plain = np.arange(-60, 60, dtype=np.int64).reshape(2, 3, 20)
    expected = kind.apply(plain, -20, 20)
    for array in (
        plain.astype(np.int8),
        plain.astype(np.int32),
        plain.astype(">i4"),
        np.asfortranarray(plain),
        np.repeat(plain, 2, axis=2)[:, :, ::2],
    ):
        array.flags.writeable = False
        np.testing.assert_array_equal(kind.apply(array, -20, 20), expected)
    np.testing.assert_array_equal(
        kind.apply(np.arange(60, dtype=np.uint64), 0, 20), kind.apply(np.arange(60), 0, 20)
    )
    assert kind.apply(np.zeros((0, 3), np.int64), 0, 1).shape == (0, 3)
    scalar = kind.apply(17, -20, 20)
    assert scalar.shape == ()
    assert scalar == kind.apply(np.array([17]), -20, 20)[0]
    np.testing.assert_array_equal(plain.reshape(-1), np.arange(-60, 60))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 0), ValueError, "mult must be between 0 and 65535, not -1"),
        ((65536, 0), ValueError, "mult must be between 0 and 65535, not 65536"),
        ((1, 48), ValueError, "shift must be between 0 and 47, not 48"),
        ((1, -1), ValueError, "shift must be between 0 and 47, not -1"),
        ((1.0, 0), TypeError, r"mult must be an int, not 1\.0"),
        ((1, True), TypeError, "shift must be an int, not True"),
    ],
)
def test_multiplier_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        Multiplier(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1 << 31, 0), ValueError, "mult must be between 0 and 2147483647, not 2147483648"),
        ((1, 31), ValueError, "shift must be between -31 and 30, not 31"),
        ((1, -32), ValueError, "shift must be between -31 and 30, not -32"),
        (("1", 0), TypeError, "mult must be an int, not '1'"),
    ],
)
def test_two_step_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        TwoStepMultiplier(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1 << 47, 0, 1), ValueError, "accumulators must be between .* not 140737488355328"),
        (
            (-(1 << 47) - 1, 0, 1),
            ValueError,
            "accumulators must be between .* not -140737488355329",
        ),
        ((1.0, 0, 1), TypeError, "accumulators must be integers, not float64"),
        ((1, 2, 1), ValueError, "low must be at most high, not 2 and 1"),
        ((1, 0, 1 << 31), ValueError, "high must be between"),
        ((1, -(1 << 31) - 1, 0), ValueError, "low must be between"),
        ((1, 0, 1, 0.5), TypeError, r"zero_point must be an int, not 0\.5"),
    ],
)
def test_apply_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        Multiplier(1, 0).apply(*arguments)


def test_product_refuses():
    with pytest.raises(ValueError, match="accumulators must be between"):
        Multiplier(1, 0).product(1 << 47)


@pytest.mark.parametrize(("shift", "limit"), [(0, 1 << 31), (-5, 1 << 31), (4, 1 << 27)])
def test_two_step_apply_refuses(shift, limit):
    multiplier = TwoStepMultiplier(1 << 30, shift)
    multiplier.apply([-limit, limit - 1], 0, 1)
    with pytest.raises(ValueError, match=f"accumulators must be between {-limit} and {limit - 1}"):
        multiplier.apply(limit, 0, 1)
    with pytest.raises(ValueError, match="low must be at most high"):
        multiplier.apply(0, 1, 0)
