"""DyBit against exact rationals, a posit decoder, its specification and the vectors."""

import math
from bisect import bisect_left
from fractions import Fraction
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.dot import accumulator_bits, accumulator_unit, dot, quantise_bias
from golden.dybit import DybitFormat, DybitSpec, magnitudes
from golden.element import squared_errors
from golden.formats import parse
from golden.requantiser import Multiplier
from tests.golden_oracle import load_vectors

EVERY = [(bits, signed) for bits in range(2, 9) for signed in (False, True)]
ODD_SCALE = float(np.float32(0.3))


def magnitude_value(word):
    """Value of a magnitude code by its bits; spec/dybit.md, section 1."""
    m = len(word)
    if word[0] == "0":
        return Fraction(int(word, 2), 1 << m - 1)
    ones = len(word) - len(word.lstrip("1"))
    if ones == m:
        return Fraction(1 << m - 1)
    rest = word[ones + 1 :]
    return (1 << ones - 1) * (1 + Fraction(int(rest or "0", 2), 1 << len(rest)))


def code_values(bits, signed, scale=1.0):
    """Value of each code."""
    width = bits - signed
    values = []
    for code in range(1 << bits):
        word = format(code, f"0{bits}b")
        sign = -1 if signed and word[0] == "1" else 1
        values.append(sign * magnitude_value(word[-width:]) * Fraction(scale))
    return values


@cache
def sorted_codes(bits, signed, scale):
    """Distinct values, ascending, and the code that is made for each."""
    values = code_values(bits, signed, scale)
    codes = sorted((v, code) for code, v in enumerate(values) if v != 0 or code == 0)
    return [v for v, _ in codes], [code for _, code in codes]


def nearest(x, bits, signed, scale=1.0):
    """Code nearest to a rational, ties to the larger magnitude, never -0."""
    values, codes = sorted_codes(bits, signed, scale)
    above = min(bisect_left(values, x), len(values) - 1)
    pair = [max(above - 1, 0), above]
    best = min(pair, key=lambda i: (abs(values[i] - x), -abs(values[i])))
    return codes[best]


def posit_value(word):
    """Value of a positive posit with es = 0: regime, terminator, fraction."""
    assert word[0] == "0"
    body = word[1:]
    if "1" not in body:
        return Fraction(0)
    run = len(body) - len(body.lstrip(body[0]))
    regime = run - 1 if body[0] == "1" else -run
    fraction = body[run + 1 :]
    return Fraction(2) ** regime * (1 + Fraction(int(fraction or "0", 2), 1 << len(fraction)))


def as_number(x):
    return float(x)  # knows "nan", "inf", "-inf" and "-0.0"


@pytest.mark.parametrize("width", range(1, 13))
def test_magnitudes(width):
    expected = [
        magnitude_value(format(code, f"0{width}b")) * 2 ** (width - 1) for code in range(1 << width)
    ]
    assert magnitudes(width).tolist() == expected
    assert np.all(np.diff(magnitudes(width)) > 0)


@pytest.mark.parametrize("width", range(2, 13))
def test_magnitudes_are_posits(width):
    # The stated identity: code for code, posit<width + 1, es = 0>.
    expected = [posit_value("0" + format(code, f"0{width}b")) for code in range(1 << width)]
    assert [Fraction(int(v), 1 << width - 1) for v in magnitudes(width)] == expected


def test_codes_are_posits_of_an_independent_library():
    softposit = pytest.importorskip("softposit", reason="softposit is not installed")
    values = DybitSpec(bits=8).decode(np.arange(128))
    for code in range(128):
        posit = softposit.posit8(0)
        posit.fromBits(code)  # 8 bits, es = 0
        assert float(posit) == values[code]


@pytest.mark.parametrize("width", range(2, 13))
def test_hardware_identity(width):
    # V = significand << leading ones; spec/dybit.md, section 1.
    for code, value in enumerate(magnitudes(width).tolist()):
        word = format(code, f"0{width}b")
        ones = len(word) - len(word.lstrip("1"))
        mask = (1 << width - 1) - 1
        significand = code & mask if ones == 0 else code << ones - 1 & mask | 1 << width - 2
        assert value == significand << ones


def test_code_table():
    for entry in load_vectors("dybit")["magnitude_tables"]:
        if entry["m"] >= 2:
            columns = DybitSpec(bits=entry["m"], signed=False).code_table()
            assert (columns["significand"], columns["shift"]) == (entry["sig"], entry["shift"])
            assert columns["integer"] == entry["V"]
        if entry["m"] <= 7:
            columns = DybitSpec(bits=entry["m"] + 1).code_table()
            assert columns["significand"] == entry["sig"] * 2
            assert columns["shift"] == entry["shift"] * 2
            assert columns["integer"] == entry["V"] + [-v for v in entry["V"]]


@pytest.mark.parametrize(("bits", "signed"), EVERY)
@pytest.mark.parametrize("scale", [1.0, 0.25, ODD_SCALE, 12345.678])
def test_decode_and_back(bits, signed, scale):
    spec = DybitSpec(bits=bits, signed=signed, scale=scale)
    codes = np.arange(1 << bits)
    values = [float(np.float32(float(v))) for v in code_values(bits, signed, spec.scale)]
    np.testing.assert_array_equal(spec.decode(codes), values)
    back = spec.encode(spec.decode(codes))
    if signed:
        codes[1 << bits - 1] = 0  # -0 is read as 0 and never made
    np.testing.assert_array_equal(back, codes)
    assert not np.signbit(spec.decode(np.array([1 << bits - 1]))[0]) or not signed
    assert spec.operand_bits == int(spec.operand_table.max()).bit_length() + 1
    if signed:
        half = 1 << bits - 1
        np.testing.assert_array_equal(
            spec.decode(np.arange(half)), -spec.decode(np.arange(half, 2 * half))
        )


@pytest.mark.parametrize(("bits", "signed"), EVERY)
@pytest.mark.parametrize("scale", [1.0, ODD_SCALE, 2.0**-87])
def test_midpoints_and_their_neighbours(bits, signed, scale):
    spec = DybitSpec(bits=bits, signed=signed, scale=scale)
    values = sorted(set(code_values(bits, signed, spec.scale)))
    middles = [(low + high) / 2 for low, high in pairwise(values)]
    for dtype in (np.float64, np.float32):
        numbers = np.array([float(middle) for middle in middles]).astype(dtype)
        around = np.concatenate(
            [numbers, np.nextafter(numbers, dtype(-np.inf)), np.nextafter(numbers, dtype(np.inf))]
        )
        expected = [nearest(Fraction(float(x)), bits, signed, spec.scale) for x in around]
        np.testing.assert_array_equal(spec.encode(around), expected)


@pytest.mark.parametrize("bits", [9, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_wide_codes(bits, signed):
    spec = DybitSpec(bits=bits, signed=signed, scale=ODD_SCALE)
    numbers = np.random.default_rng(bits).standard_cauchy(50).astype(np.float32)
    expected = [nearest(Fraction(float(x)), bits, signed, spec.scale) for x in numbers]
    np.testing.assert_array_equal(spec.encode(numbers), expected)
    codes = np.arange(1 << bits)
    back = spec.encode(spec.decode(codes)).astype(int)
    assert np.flatnonzero(back != codes).tolist() == ([1 << bits - 1] if signed else [])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_special_numbers(dtype, signed):
    spec = DybitSpec(bits=4, signed=signed, scale=ODD_SCALE)
    top = 7 if signed else 15
    tiny = np.finfo(dtype).smallest_subnormal
    numbers = np.array([np.nan, np.inf, -np.inf, -0.0, tiny, -tiny, np.finfo(dtype).max], dtype)
    expected = [0, top, 15 if signed else 0, 0, 0, 0, top]
    np.testing.assert_array_equal(spec.encode(numbers), expected)
    assert spec.encode(numbers).dtype == np.uint8


def test_signalling_nan():
    spec = DybitSpec(bits=4)
    bits = np.array([0x7F800001, 0xFF800001], np.uint32)
    np.testing.assert_array_equal(spec.encode(bits.view(np.float32)), [0, 0])


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_numbers_that_nearly_are_midpoints(bits):
    """A binary32 number can differ from midpoint * scale by 2**-31 of its size, and no less."""
    unit = DybitSpec(bits=bits)
    values = np.unique(unit.operand_table[unit.operand_table > 0]).tolist()
    for low, high in pairwise(values):
        middle = low + high  # twice the midpoint
        middle //= middle & -middle
        lost = middle.bit_length() - (middle < 2)
        if lost < 3:
            continue
        for off in (-1, 1):
            # middle * mantissa is off by one from a multiple of 2**lost, which has 24 bits.
            mantissa = off * pow(middle, -1, 1 << lost) % (1 << lost) + (1 << 24) - (1 << lost)
            product = middle * mantissa
            number = product - off
            if number >> lost >= 1 << 24:
                continue
            spec = DybitSpec(bits=bits, scale=math.ldexp(mantissa, -23))
            x = float(Fraction(number) * Fraction(low + high, middle) / 2 * Fraction(1, 1 << 23))
            x = x * unit.operand_unit
            assert float(np.float32(x)) == x
            code = nearest(Fraction(x), bits, True, spec.scale)
            assert spec.encode(np.float32(x)) == spec.encode(np.float64(x)) == code
            assert spec.decode(code) == pytest.approx(
                (low if off > 0 else high) * unit.operand_unit * spec.scale
            )


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    signed=st.booleans(),
    exponent=st.integers(-80, 80),
    fraction=st.integers(1 << 23, (1 << 24) - 1),
    mantissas=st.lists(st.integers(-(1 << 24), 1 << 24), max_size=8),
    span=st.integers(-8, 8),
)
def test_nearest_for_any_scale(bits, signed, exponent, fraction, mantissas, span):
    spec = DybitSpec(bits=bits, signed=signed, scale=math.ldexp(fraction, exponent - 23))
    numbers = np.ldexp(np.array(mantissas, float), exponent + span - 20).astype(np.float32)
    expected = [nearest(Fraction(float(x)), bits, signed, spec.scale) for x in numbers]
    np.testing.assert_array_equal(spec.encode(numbers), expected)
    np.testing.assert_array_equal(spec.encode(numbers.astype(np.float64)), expected)


def test_shapes_strides_and_read_only():
    spec = DybitSpec(bits=8, scale=ODD_SCALE)
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    whole = spec.encode(x)
    np.testing.assert_array_equal(spec.encode(x[::2, :, 1::2]), whole[::2, :, 1::2])
    np.testing.assert_array_equal(spec.encode(x.T), whole.T)
    x.setflags(write=False)
    np.testing.assert_array_equal(spec.encode(x), whole)
    assert spec.encode(np.zeros((0, 3), np.float32)).shape == (0, 3)
    assert spec.encode(np.float32(0.3)).shape == ()


# --- the vectors of the specification ---


def test_vectors_magnitude_tables():
    for entry in load_vectors("dybit")["magnitude_tables"]:
        assert magnitudes(entry["m"]).tolist() == entry["V"]


def test_vectors_code_tables():
    for entry in load_vectors("dybit")["code_tables"]:
        spec = DybitSpec(bits=entry["n"], signed=entry["signed"])
        assert spec.decode(np.arange(1 << spec.bits)).tolist() == entry["values"]


def test_vectors_encode():
    for entry in load_vectors("dybit")["encode"]:
        spec = DybitSpec(bits=entry["n"], signed=entry["signed"], scale=entry["scale"])
        numbers, codes = zip(*entry["cases"], strict=True)
        assert spec.encode(np.array([as_number(x) for x in numbers])).tolist() == list(codes)
        exact = [as_number(x) for x in numbers]
        for x, code in zip(exact, codes, strict=True):
            if math.isnan(x) or float(np.float32(x)) == x:
                assert spec.encode(np.float32(x)) == code


def test_vectors_encode_fixed():
    for m, fraction_bits, y, code in load_vectors("dybit")["encode_fixed"]["cases"]:
        if m >= 2:
            spec = DybitSpec(bits=m, signed=False)
            assert spec.encode_integers(np.array([y]), fraction_bits)[0] == code
        if m <= 7:
            spec = DybitSpec(bits=m + 1)
            assert spec.encode_integers(np.array([y]), fraction_bits)[0] == code


def test_vectors_dot():
    for entry in load_vectors("dybit")["dot"]:
        weights = DybitSpec(bits=entry["nW"], signed=entry["signedW"])
        activations = DybitSpec(bits=entry["nA"], signed=entry["signedA"])
        assert dot(weights, activations, entry["w"], entry["a"]) == entry["acc"]


def test_vectors_requantise():
    for acc, mult, shift, bits, signed, code in load_vectors("dybit")["requant"]["cases"]:
        spec = DybitSpec(bits=bits, signed=signed)
        product = Multiplier(mult, shift).product(np.array([acc]))
        assert spec.encode_integers(product, shift)[0] == code


def test_vectors_widths():
    for entry in load_vectors("dybit")["widths"]:
        weights = DybitSpec(bits=entry["nW"])
        activations = DybitSpec(bits=entry["nA"], signed=bool(entry["signedA"]))
        largest = int(weights.operand_table.max()) * int(activations.operand_table.max())
        assert largest.bit_length() == entry["product_bits"]
        assert accumulator_bits(weights, activations, 1) == entry["product_bits"] + 1


# --- requantisation and products ---


@pytest.mark.parametrize(("bits", "signed"), EVERY)
@pytest.mark.parametrize("fraction_bits", [0, 1, 7, 40])
def test_encode_integers_is_nearest(bits, signed, fraction_bits):
    spec = DybitSpec(bits=bits, signed=signed)
    operands = np.unique(spec.operand_table).astype(object)
    middles = [(low + high) << fraction_bits for low, high in pairwise(operands)]
    integers = sorted({(m >> 1) + d for m in middles for d in (-1, 0, 1)} | {-(1 << 60), 1 << 60})
    width = spec.width
    expected = [
        nearest(Fraction(y, 1 << fraction_bits + width - 1), bits, signed) for y in integers
    ]
    got = spec.encode_integers(np.array(integers, np.int64), fraction_bits)
    np.testing.assert_array_equal(got, expected)


def test_rescale_goes_through_the_multiplier():
    spec = DybitSpec(bits=6, scale=ODD_SCALE)
    accumulators = np.random.default_rng(3).integers(-(1 << 20), 1 << 20, 200)
    unit = 3.3e-6
    multiplier = Multiplier.of(unit / spec.operand_unit)
    factor = Fraction(multiplier.mult, 1 << multiplier.shift) / (1 << spec.width - 1)
    expected = [nearest(int(a) * factor, 6, True) for a in accumulators]
    np.testing.assert_array_equal(spec.rescale(accumulators, unit), expected)
    rectified = spec.rescale(accumulators, unit, relu=True)
    np.testing.assert_array_equal(rectified, np.where(accumulators < 0, 0, expected))


def test_matmul_is_exact():
    weights, activations = (
        DybitSpec(bits=8, scale=ODD_SCALE),
        DybitSpec(bits=4, signed=False, scale=1.7),
    )
    rng = np.random.default_rng(5)
    w, a = rng.integers(0, 256, (3, 40)), rng.integers(0, 16, (5, 40))
    bias = np.array([0.5, -2.0, 1e-3])
    w_values = code_values(8, True, weights.scale)
    a_values = code_values(4, False, activations.scale)
    unit = Fraction(accumulator_unit(weights, activations))
    got = weights.matmul(w, activations, a, bias)
    for i in range(5):
        for j in range(3):
            total = sum(w_values[x] * a_values[y] for x, y in zip(w[j], a[i], strict=True))
            start = round(Fraction(float(bias[j])) / unit) * unit
            assert got[i, j] == float(total + start)
    assert quantise_bias(weights, activations, bias).tolist() == [
        round(Fraction(float(b)) / unit) for b in bias
    ]


# --- the choice of the scale ---


@cache
def quantiles(name, count=100001):
    """Numbers of a distribution at even probabilities."""
    p = (np.arange(count) + 0.5) / count
    if name == "uniform":
        return math.sqrt(3) * (2 * p - 1)
    if name == "laplace":
        return -np.sign(p - 0.5) * np.log1p(-2 * np.abs(p - 0.5)) / math.sqrt(2)
    normal = np.vectorize(NormalDist().inv_cdf)(p)
    return np.maximum(normal, 0) if name == "rectified" else normal


# spec/dybit.md, section 3: rmse / sigma at the best scale, and s / sigma.
TARGETS = [
    ("normal", 2, 0.436, 1.22),
    ("normal", 3, 0.218, 1.04),
    ("normal", 4, 0.122, 1.25),
    ("normal", 8, 0.0084, 1.46),
    ("laplace", 2, 0.514, 1.41),
    ("laplace", 4, 0.148, 1.46),
    ("laplace", 8, 0.0103, 1.62),
    ("uniform", 3, 0.165, 0.72),
    ("uniform", 8, 0.0061, 0.86),
    ("rectified", 2, 0.264, None),
    ("rectified", 4, 0.079, None),
    ("rectified", 8, 0.0051, None),
]


@pytest.mark.parametrize(("name", "bits", "error", "ratio"), TARGETS)
def test_best_scale(name, bits, error, ratio):
    x = quantiles(name)
    role = "activations" if name == "rectified" else "weights"
    spec = DybitFormat(bits=bits).fit(x, role)
    assert spec.signed == (name != "rectified")
    rmse = math.sqrt(squared_errors(x, [spec])[0] / x.size)
    assert rmse / x.std() == pytest.approx(error, rel=0.02)
    if ratio is not None:
        assert spec.scale / x.std() == pytest.approx(ratio, abs=0.04)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scale_beats_a_dense_grid(bits):
    x = np.random.default_rng(bits).laplace(size=4000).astype(np.float32)
    spec = DybitFormat(bits=bits).fit(x)
    sigma = math.sqrt(float(np.mean(x.astype(float) ** 2)))
    others = [DybitSpec(bits=bits, scale=sigma * s) for s in np.linspace(0.1, 8, 800)]
    best = squared_errors(x, others).min()
    assert squared_errors(x, [spec])[0] <= best * 1.002


def test_largest_number_does_not_set_the_scale():
    x = np.random.default_rng(1).normal(size=20000).astype(np.float32)
    spec = DybitFormat(bits=8).fit(x)
    assert np.abs(spec.decode(np.arange(256))).max() > 10 * np.abs(x).max()


def test_powers_of_two():
    x = np.random.default_rng(2).normal(0, 0.03, 5000)
    spec = DybitFormat(bits=4, pow2=True).fit(x)
    assert math.frexp(spec.scale)[0] == 0.5
    others = [DybitSpec(bits=4, scale=2.0**e) for e in range(-20, 10)]
    assert spec == others[int(np.argmin(squared_errors(x, others)))]


def test_weight_bits():
    """Weights of other widths than activations are fitted like any format of that width."""
    x = np.random.default_rng(3).normal(size=500)
    form = parse("dybit8:weight_bits=4")
    assert str(form) == "dybit8:weight_bits=4"
    assert form.fit(x) == DybitFormat(bits=4).fit(x)
    assert form.fit(x, "activations") == DybitFormat(bits=8).fit(x, "activations")
    assert DybitFormat(bits=8, weight_bits=3, scale=0.5).fit(x) == DybitSpec(bits=3, scale=0.5)
    assert DybitFormat(bits=8, weight_bits=3, pow2=True).fit(x).bits == 3


@pytest.mark.parametrize(
    ("tensor", "role", "expected"),
    [
        (np.zeros(5), "weights", DybitSpec(bits=4)),
        (np.zeros((0, 2)), "activations", DybitSpec(bits=4, signed=False)),
        (np.full(3, -0.1), "weights", DybitSpec(bits=4, scale=0.1)),
        (np.full(3, 7.5), "activations", DybitSpec(bits=4, signed=False, scale=7.5)),
        (np.float32(1e-40), "weights", DybitSpec(bits=4, scale=2.0**-90)),
    ],
)
def test_fit_of_degenerate_tensors(tensor, role, expected):
    assert DybitFormat(bits=4).fit(tensor, role) == expected


def test_constant_is_exact_in_two_bits():
    x = np.full(4, np.float32(0.37))
    np.testing.assert_array_equal(DybitFormat(bits=2).fit(x).quantise(x), x)


def test_fit_far_from_zero():
    x = np.random.default_rng(6).normal(5, 0.001, 1000)
    spec = DybitFormat(bits=8).fit(x)
    assert np.abs(spec.quantise(x) - x).max() < 0.1


def test_fit_keeps_what_is_given():
    x = np.random.default_rng(4).normal(size=100)
    assert DybitFormat(bits=4, scale=0.3).fit(x) == DybitSpec(bits=4, scale=0.3)
    assert DybitFormat(bits=4, signed=True).fit(abs(x), "activations").signed
    assert DybitFormat(bits=4).fit(x, "activations").signed
    assert not DybitFormat(bits=4).fit(abs(x), "activations").signed
    assert DybitFormat(bits=4).fit(abs(x), "weights").signed


@pytest.mark.parametrize(
    "spec",
    [DybitSpec(bits=4, scale=0.1), DybitSpec(bits=8, signed=False, scale=3e-8), DybitSpec(bits=2)],
)
def test_strings(spec):
    assert parse(str(spec)).spec() == spec


def test_scale_is_binary32():
    assert DybitSpec(bits=4, scale=0.1).scale == float(np.float32(0.1))
    assert str(DybitSpec(bits=4, scale=0.1)) == "dybit4:scale=0.1"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DybitSpec(bits=1), ValueError, "bits must be between 2 and 16, not 1"),
        (lambda: DybitSpec(bits=17), ValueError, "bits must be between 2 and 16, not 17"),
        (lambda: DybitSpec(bits=8, signed=1), TypeError, "signed must be a bool, not 1"),
        (lambda: DybitSpec(bits=8, scale=0.0), ValueError, r"scale must be between 2\*\*-90 and"),
        (lambda: DybitSpec(bits=8, scale=np.nan), ValueError, "scale must be .*, not nan"),
        (lambda: DybitSpec(bits=8, scale="1"), TypeError, "scale must be a float, not '1'"),
        (lambda: DybitFormat(bits=8, pow2=1), TypeError, "pow2 must be a bool, not 1"),
        (
            lambda: DybitFormat(bits=8, pow2=True, scale=0.3),
            ValueError,
            r"scale must be a power of two where pow2=yes, not 0\.3",
        ),
        (
            lambda: DybitFormat(bits=8, signed=False).fit(np.array([1.0, -2.0])),
            ValueError,
            r"tensor must have no negative numbers where signed=no, not -2\.0",
        ),
        (
            lambda: DybitFormat(bits=8).fit(np.array([[1.0, np.inf]])),
            ValueError,
            r"tensor must be finite in binary32, not inf at index \(0, 1\)",
        ),
        (
            lambda: DybitFormat(bits=8, weight_bits=17),
            ValueError,
            "weight_bits must be between 2 and 16, not 17",
        ),
        (lambda: parse("dybit4:scale=x"), ValueError, "scale must be a number, not 'x'"),
        (lambda: parse("dybit4:scale=inf"), ValueError, "scale must be a number, not 'inf'"),
        (lambda: parse("dybit4:pow2=1"), ValueError, "pow2 must be yes or no, not '1'"),
        (lambda: DybitSpec(bits=4).encode(np.arange(3)), TypeError, "x must be float16"),
        (lambda: DybitSpec(bits=4).decode([16]), ValueError, "codes must be between 0 and 15"),
        (
            lambda: DybitSpec(bits=4).encode_integers([1], -1),
            ValueError,
            "fraction_bits must be between 0 and 1024, not -1",
        ),
        (
            lambda: DybitSpec(bits=4).matmul([[1]], None, [[1]]),
            TypeError,
            "activations must be an ElementSpec, not None",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
