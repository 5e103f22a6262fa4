"""Signed digits against exact rationals, the tables of the specification and its vectors."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from golden.compensation import Grouping, InputStatistics, assign, balance_means, to_units
from golden.dot import accumulator_unit, dot, quantise_bias
from golden.element_layers import ElementCodec
from golden.elp_bsd import DIGIT_SETS, DigitSet, ElpBsdFormat, ElpBsdSpec, ElpBsdSystem
from golden.fixed import FixedSpec
from golden.formats import parse
from golden.inference import quantise
from golden.network import Conv, Flatten, Linear, Network, Relu
from tests.golden_oracle import load_vectors

seeded = settings(derandomize=True, deadline=None, database=None, max_examples=60)

UNIT = 4096

CUSTOM_SETS = [
    DigitSet(positions=((3,),)),
    DigitSet(positions=((0,),), zero_code=True),
    DigitSet(positions=((8, 0, 3, 1),), zero_code=True),
    DigitSet(positions=((1,), (1,))),
    DigitSet(positions=((0, 1), (2, 3), (4, 5))),
    DigitSet(positions=(tuple(range(8)), tuple(range(1, 9)), tuple(range(8)))),
]
SETS = [*DIGIT_SETS.values(), *CUSTOM_SETS]
each_set = pytest.mark.parametrize("digits", SETS, ids=str)
SCALES = [1.0, 0.25, 0.07, 1.3e-5, 977.0]

# spec/elp_bsd.md, section 2.
PUBLISHED_CODES = {
    "E3-1": [1, 2, 4, 8, 0, -2, -4, -8],
    "E3-1nz": [1, 2, 4, 8, -1, -2, -4, -8],
    "E4-1": [1, 2, 4, 8, 16, 32, 64, 128, 0, -2, -4, -8, -16, -32, -64, -128],
    "E4-2": [3, 6, 1, -2, 9, 12, 7, 4, -1, 2, -3, -6, -7, -4, -9, -12],
}
PUBLISHED_LEVELS = {
    "E5-2": "0 1 2 3 4 5 6 7 8 9 12 15 17 20",
    "E6-2": "0 2 3 4 5 6 7 8 9 10 12 14 15 16 17 18 20 24 28 30 31 33 34 36 40",
    "E7-2": "0 2 3 4 5 6 7 8 9 10 12 14 15 16 17 18 20 24 28 30 31 32 33 34 36 40 48 56 60 64 68 "
    "72 80 96 112 120 124 132 136 144 160",
}


def oracle_value(digits, word):
    """W of a code by its bit string, spec/elp_bsd.md, section 2."""
    if digits.zero_code and word == "1" + "0" * (len(word) - 1):
        return 0
    total = 0
    for positions in reversed(digits.positions):
        count = {1: 0, 2: 1, 4: 2, 8: 3}[len(positions)]
        sign, index, word = word[0], word[1 : 1 + count], word[1 + count :]
        total += (-1) ** int(sign) * 2 ** positions[int(index or "0", 2)]
    assert not word
    return total


def oracle_values(digits):
    return [
        oracle_value(digits, format(code, f"0{digits.bits}b")) for code in range(1 << digits.bits)
    ]


def oracle_code(values, scale, number):
    """Code of a finite number, section 3: smallest one of the level nearest to U."""
    binary32 = Fraction(float(np.float32(number)))
    unit = round(binary32 / Fraction(float(np.float32(scale))) * UNIT)
    unit = min(max(unit, -(1 << 23)), 1 << 23)
    x = Fraction(unit, UNIT)
    level = min(set(values), key=lambda value: (abs(value - x), abs(value), value))
    return values.index(level)


@pytest.mark.parametrize("name", PUBLISHED_CODES)
def test_published_codes(name):
    assert DIGIT_SETS[name].code_values.tolist() == PUBLISHED_CODES[name]


@pytest.mark.parametrize("name", PUBLISHED_LEVELS)
def test_published_levels(name):
    magnitudes = [int(level) for level in PUBLISHED_LEVELS[name].split()]
    levels = sorted({sign * level for level in magnitudes for sign in (-1, 1)})
    assert list(DIGIT_SETS[name].levels) == levels


def test_vectors_formats():
    entries = load_vectors("elp_bsd")["formats"]
    assert [entry["name"] for entry in entries] == list(DIGIT_SETS)
    for entry in entries:
        digits = DIGIT_SETS[entry["name"]]
        assert digits.bits == entry["bits"]
        assert [list(digit) for digit in digits.positions] == entry["positions"]
        assert digits.zero_code == (entry["zero_code"] is not None)
        assert digits.code_values.tolist() == entry["W"]
        assert list(digits.levels) == entry["levels"]
        assert digits.canonical_codes.tolist() == entry["canonical_code"]
        assert (1 << digits.bits) - len(digits.levels) == entry["redundant_codes"]
        assert digits.term_bits(8) == entry["term_bits_act8u"]
        assert digits.sum_bits(8) == entry["sum_bits_act8u"] == entry["sum_bits_needed"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_encode(dtype):
    entries = load_vectors("elp_bsd")["encode"]
    assert len(entries) == 28
    for entry in entries:
        spec = ElpBsdSpec(set=DIGIT_SETS[entry["format"]], scale=entry["alpha"])
        numbers = np.array([float(case[0]) for case in entry["cases"]], dtype)
        assert spec.encode(numbers).tolist() == [case[4] for case in entry["cases"]]


def hardware_mac(digits, act_bits, act_signed, code, activation, accumulator, width):
    """Section 5 on bit vectors: one's complement, carries in, everything modulo 2**width."""
    mask = (1 << width) - 1
    if act_signed and activation >> act_bits - 1:
        activation -= 1 << act_bits
    term_width = digits.term_bits(act_bits)
    rest = code
    for positions in digits.positions:
        count = len(positions).bit_length() - 1
        sign = rest >> count & 1
        shifted = (activation << positions[rest & (1 << count) - 1]) & (1 << term_width) - 1
        rest >>= count + 1
        if digits.zero_code and code == 1 << digits.bits - 1:
            continue
        term = shifted ^ (sign * ((1 << term_width) - 1))
        if term >> term_width - 1:
            term |= mask & ~((1 << term_width) - 1)
        accumulator = (accumulator + term + sign) & mask
    return accumulator


def signed(bits, word):
    return word - (1 << bits) if word >> bits - 1 else word


def test_vectors_mac():
    entries = load_vectors("elp_bsd")["mac"]
    assert len(entries) == 29
    for entry in entries:
        digits = DIGIT_SETS[entry["format"]]
        spec = ElpBsdSpec(set=digits)
        bits, is_signed = entry["act_bits"], entry["act_signed"]
        activations = FixedSpec(bits=bits, frac_bits=0, signed=is_signed)
        act_codes = np.array(entry["act"]) % (1 << bits)
        accumulator = 0
        for length, (code, act, expected) in enumerate(
            zip(entry["code"], act_codes.tolist(), entry["acc_after_each"], strict=True), 1
        ):
            accumulator = hardware_mac(digits, bits, is_signed, code, act, accumulator, 24)
            assert signed(24, accumulator) == expected
            assert dot(spec, activations, entry["code"][:length], act_codes[:length]) == expected


def test_mac_chain_of_specification():
    """Section 5, test chain."""
    spec, unsigned = ElpBsdSpec(set=DIGIT_SETS["E4-2"]), FixedSpec(bits=8, signed=False)
    codes, activations = [0b0100, 0b1111, 0b0110, 0b1001], [181, 255, 7, 128]
    sums = [int(dot(spec, unsigned, codes[:n], activations[:n])) for n in range(1, 5)]
    assert sums == [1629, -1431, -1382, -1126]


@pytest.mark.parametrize("act_signed", [False, True])
@each_set
def test_products(digits, act_signed):
    """Products equal the hardware's in the width that is stated, extremes of both included."""
    spec, activations = ElpBsdSpec(set=digits), FixedSpec(bits=8, frac_bits=0, signed=act_signed)
    rng = np.random.default_rng(1)
    codes = range(1 << digits.bits)
    if digits.bits > 7:
        codes = [0, 1 << digits.bits - 1, (1 << digits.bits) - 1, *rng.choice(1 << digits.bits, 60)]
    width = digits.sum_bits(8)
    for code, act in product(map(int, codes), [0, 1, 127, 128, 255, *range(7, 256, 31)]):
        result = signed(width, hardware_mac(digits, 8, act_signed, code, act, 0, width))
        assert dot(spec, activations, [code], [act]) == result


@each_set
def test_widths(digits):
    """Widths hold the extremes, and for the usual activations are the least that do."""
    largest = 255 * max(map(abs, digits.levels))
    assert -(1 << digits.sum_bits(8) - 1) <= -largest
    assert largest < 1 << digits.sum_bits(8) - 1
    spec = ElpBsdSpec(set=digits)
    for length in (1, 2, 3, 9, 1000, 2048):
        assert length * largest < 1 << digits.accumulator_bits(8, length) - 1
        assert spec.accumulator_bits(length) == digits.accumulator_bits(8, length)
    assert digits.accumulator_bits(8, 2) == digits.sum_bits(8) + 1
    assert digits.accumulator_bits(8, 3) == digits.sum_bits(8) + 2
    assert max(map(abs, digits.levels)) < 1 << spec.operand_bits - 1


def test_accumulator_of_specification():
    """Section 5: 24 bits are enough for E4-2 up to K = 2**11."""
    assert DIGIT_SETS["E4-2"].accumulator_bits(8, 1 << 11) == 24
    assert DIGIT_SETS["E4-2"].accumulator_bits(8, (1 << 11) + 1) == 25


@pytest.mark.parametrize("scale", SCALES)
@each_set
def test_every_code(digits, scale):
    """Decode by the bit string; encode gives the smallest code of the same value."""
    spec = ElpBsdSpec(set=digits, scale=scale)
    codes = np.arange(1 << digits.bits)
    values = oracle_values(digits)
    assert spec.operands(codes).tolist() == values
    exact = [value * Fraction(float(np.float32(scale))) for value in values]
    assert spec.operand_unit == float(np.float32(scale))
    decoded = spec.decode(codes)
    assert decoded.dtype == np.float32
    assert decoded.tolist() == [float(np.float32(float(value))) for value in exact]
    encoded = spec.encode(decoded)
    assert encoded.dtype == (np.uint8 if digits.bits <= 8 else np.uint16)
    assert encoded.tolist() == [values.index(value) for value in values]
    assert list(digits.levels) == sorted(set(values))
    assert digits.canonical_codes.tolist() == [values.index(level) for level in digits.levels]


@pytest.mark.parametrize("scale", SCALES)
@each_set
def test_nearest_level(digits, scale):
    """Cuts between levels, half a unit about them, and their neighbours in binary32."""
    spec, values = ElpBsdSpec(set=digits, scale=scale), oracle_values(digits)
    levels = list(digits.levels)
    if len(levels) > 100:
        levels = levels[:3] + levels[len(levels) // 2 - 10 : len(levels) // 2 + 10] + levels[-3:]
    cuts = np.array([(low + high) / 2 for low, high in pairwise(levels)])
    halves = cuts[:, None] + np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5]) / UNIT
    outside = [2 * levels[0], 2 * levels[-1], 5000, -5000, 0]
    points = np.concatenate([halves.reshape(-1), levels, outside])
    x = (points * float(np.float32(scale))).astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, -x)])
    expected = [oracle_code(values, scale, number) for number in x]
    assert spec.encode(x).tolist() == expected
    assert spec.encode(x.astype(np.float64)).tolist() == expected


@given(
    digits=st.sampled_from(SETS[:11]),
    scale=st.floats(2.0**-20, 2.0**20, width=32),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    data=st.data(),
)
@seeded
def test_encode_any_array(digits, scale, dtype, data):
    """All shapes, with NaN, infinities, zeros of both signs, subnormal and huge numbers."""
    width = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(width=width) | st.floats(-64, 64, width=width)
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    x = data.draw(arrays.arrays(dtype, shapes, elements=numbers))
    x.flags.writeable = False
    spec, values = ElpBsdSpec(set=digits, scale=scale), oracle_values(digits)
    expected = np.empty(x.shape, int)
    for index, number in np.ndenumerate(x):
        finite = 0.0 if np.isnan(number) else min(max(float(number), -3e38), 3e38)
        expected[index] = oracle_code(values, scale, finite)
    codes = spec.encode(x)
    np.testing.assert_array_equal(codes, expected)
    if x.ndim:
        np.testing.assert_array_equal(spec.encode(x[..., ::-1]), expected[..., ::-1])
    np.testing.assert_array_equal(spec.quantise(x), spec.decode(codes))


def test_encode_rounds_to_binary32_first():
    """Chosen: w is binary32, so a float64 just above a tie counts as the tie."""
    spec = ElpBsdSpec(set=DIGIT_SETS["E4-2"], scale=1.0)
    tie = 5 + 0.5 / UNIT  # U is midway, and goes to the even one, which is the cut
    assert spec.encode(np.array([tie, tie * (1 + 2.0**-40)])).tolist() == [7, 7]
    assert spec.encode(np.array([tie * (1 + 2.0**-22)])).tolist() == [1]
    assert spec.encode(np.array([1e300, -1e300])).tolist() == [5, 15]


def test_no_zero():
    """E4-2 has no zero: zeros of both signs and NaN are -1."""
    spec = ElpBsdSpec(set=DIGIT_SETS["E4-2"], scale=0.5)
    codes = spec.encode(np.array([0.0, -0.0, np.nan], np.float32))
    assert codes.tolist() == [8, 8, 8]
    assert spec.decode(codes).tolist() == [-0.5] * 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"positions": [(0,)]},
            TypeError,
            r"positions must be a tuple of tuples of int, not \[\(0,",
        ),
        ({"positions": ([0],)}, TypeError, "positions must be a tuple of tuples of int, not"),
        ({"positions": ()}, ValueError, "positions must have 1 to 3 digits, not 0"),
        ({"positions": ((0,),) * 4}, ValueError, "positions must have 1 to 3 digits, not 4"),
        ({"positions": ((0, 1, 2),)}, ValueError, "must be 1, 2, 4 or 8 exponents, not 3"),
        ({"positions": ((),)}, ValueError, "must be 1, 2, 4 or 8 exponents, not 0"),
        ({"positions": ((0, 9),)}, ValueError, "positions must be between 0 and 8, not 9"),
        ({"positions": ((0, -1),)}, ValueError, "positions must be between 0 and 8, not -1"),
        ({"positions": ((0, 1.0),)}, TypeError, r"positions must be an int, not 1\.0"),
        ({"positions": ((2, 2),)}, ValueError, r"of a digit must be different, not \(2, 2\)"),
        ({"positions": ((0,),), "zero_code": 1}, TypeError, "zero_code must be a bool, not 1"),
        (
            {"positions": ((0,), (1,)), "zero_code": True},
            ValueError,
            "zero_code must be False with 2 digits, not True",
        ),
    ],
)
def test_bad_digit_set(arguments, error, message):
    with pytest.raises(error, match=message):
        DigitSet(**arguments)


@each_set
def test_digit_set_texts(digits):
    assert DigitSet.parse(str(digits)) == digits
    text = "/".join("".join(map(str, digit)) for digit in digits.positions)
    assert DigitSet.parse(text + "z" * digits.zero_code) == digits


def test_digit_set_names():
    assert str(DigitSet(positions=((0, 2), (1, 3)))) == "E4-2"
    assert str(DigitSet(positions=((2, 0), (1, 3)))) == "20/13"
    assert str(DigitSet(positions=((0, 1),), zero_code=True)) == "01z"
    for text in ("E4-3", "", "02/", "z", "0.2/1.3", "E4-2z"):
        with pytest.raises(ValueError, match=r"set must be one of E3-1, .* or like 02/13, not "):
            DigitSet.parse(text)


def test_bad_widths():
    digits = DIGIT_SETS["E4-2"]
    with pytest.raises(ValueError, match="act_bits must be between 1 and 16, not 17"):
        digits.term_bits(17)
    with pytest.raises(TypeError, match=r"act_bits must be an int, not 8\.0"):
        digits.sum_bits(8.0)
    with pytest.raises(ValueError, match="length must be at least 1, not 0"):
        digits.accumulator_bits(8, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"set": "E4-2"}, TypeError, "set must be a DigitSet, not 'E4-2'"),
        ({"scale": "1"}, TypeError, "scale must be a float, not '1'"),
        ({"scale": 0.0}, ValueError, r"scale must be between 2\*\*-90 and 2\*\*90, not 0\.0"),
        ({"scale": np.nan}, ValueError, "scale must be between .* not nan"),
    ],
)
def test_bad_spec(arguments, error, message):
    with pytest.raises(error, match=message):
        ElpBsdSpec(**{"set": DIGIT_SETS["E4-2"], **arguments})


def test_bad_arrays():
    spec = ElpBsdSpec(set=DIGIT_SETS["E4-2"])
    with pytest.raises(TypeError, match="x must be float16, float32 or float64, not int64"):
        spec.encode(np.arange(3))
    with pytest.raises(ValueError, match="codes must be between 0 and 15, not 16"):
        spec.decode([16])
    with pytest.raises(TypeError, match="codes must be integers, not float64"):
        spec.operands([1.0])


def test_storage():
    assert ElpBsdSpec(set=DIGIT_SETS["E5-2"]).storage_bits((3, 7, 1)) == 105


@pytest.mark.parametrize(
    "text",
    [
        "elp_bsd4",
        "elp_bsd4:set=E4-2",
        "elp_bsd4:set=20/13,scale=0.07",
        "elp_bsd3:act_bits=6,compensate=never,scale_pow2=yes",
        "elp_bsd12:set=01234567/12345678/01234567",
        "elp_bsd6:pointwise=yes,second_pass=yes,bias_correction=no",
        "elp_bsd5:compensate=always",
        "elp_bsd7:compensate=auto",
    ],
)
def test_format_text(text):
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_spec_text_is_a_format():
    """The text of a spec pins all of it."""
    spec = ElpBsdSpec(set=DIGIT_SETS["E3-1nz"], scale=1 / 3)
    assert parse(str(spec)).spec() == spec
    assert parse(str(spec)).fit(np.ones(3)) == spec
    assert parse("elp_bsd4:set=02/13") == parse("elp_bsd4:set=E4-2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("elp_bsd4:set=E3-1", "set must be of 4 bits, not E3-1"),
        ("elp_bsd4:set=E9", "set must be one of E3-1, "),
        ("elp_bsd2", "set must be given with 2 bits, which no standard set has"),
        ("elp_bsd13", "bits must be between 1 and 12, not 13"),
        ("elp_bsd4:scale=a", "scale must be a number, not 'a'"),
        ("elp_bsd4:scale=0", r"scale must be between 2\*\*-90 and 2\*\*90, not 0\.0"),
        ("elp_bsd4:scale=0.3,scale_pow2=yes", "scale must be a power of two, not 0.3"),
        ("elp_bsd4:act_bits=1", "act_bits must be between 2 and 16, not 1"),
        ("elp_bsd4:compensate=yes", "compensate must be auto, always or never, not 'yes'"),
        ("elp_bsd4:second_pass=1", "second_pass must be yes or no, not '1'"),
        ("elp_bsd4:max_run=3", "parameter of elp_bsd must be one of set, scale, act_bits, comp"),
    ],
)
def test_bad_format_text(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 4.0}, r"bits must be an int, not 4\.0"),
        ({"set": "E4-2"}, "set must be a DigitSet, not 'E4-2'"),
        ({"scale": "1"}, "scale must be a float, not '1'"),
        ({"act_bits": 8.0}, r"act_bits must be an int, not 8\.0"),
        ({"scale_pow2": 1}, "scale_pow2 must be a bool, not 1"),
        ({"pointwise": "yes"}, "pointwise must be a bool, not 'yes'"),
        ({"second_pass": 0}, "second_pass must be a bool, not 0"),
        ({"bias_correction": 2}, "bias_correction must be a bool, not 2"),
    ],
)
def test_bad_format(arguments, message):
    with pytest.raises(TypeError, match=message):
        ElpBsdFormat(**{"bits": 4, **arguments})


def quantiles(kind, count=100_001):
    """Quantiles of a distribution with variance 1, spec/elp_bsd.md, section 3."""
    share = (np.arange(count) + 0.5) / count
    if kind == "Laplace":
        return -np.sign(share - 0.5) * np.log(1 - 2 * np.abs(share - 0.5)) / np.sqrt(2)
    # The inverse of the Gaussian by bisection of math.erf would be slow in Python; interpolation
    # of its sum of densities on a fine grid is good to 1e-7.
    grid = np.linspace(-8, 8, 400_001)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    steps = (density[1:] + density[:-1]) / 2 * (grid[1] - grid[0])
    return np.interp(share, np.concatenate([[0], np.cumsum(steps)]), grid)


# spec/elp_bsd.md, section 3: SQNR in dB and largest level over sigma at the best scale.
SQNR = {
    "E3-1": {"Gaussian": (13.6, 2.2), "Laplace": (12.2, 3.0)},
    "E3-1nz": {"Gaussian": (13.6, 2.2), "Laplace": (11.8, 2.8)},
    "E4-1": {"Gaussian": (14.2, 4.2), "Laplace": (14.2, 6.3)},
    "E4-2": {"Gaussian": (19.2, 2.6), "Laplace": (15.8, 3.4)},
    "E5-2": {"Gaussian": (23.3, 3.1), "Laplace": (21.2, 4.8)},
    "E6-2": {"Gaussian": (27.1, 3.3), "Laplace": (23.9, 5.0)},
    "E7-2": {"Gaussian": (28.5, 5.1), "Laplace": (28.1, 7.2)},
}


def sqnr_db(x, spec):
    x = x.astype(np.float64)
    return 10 * np.log10((x**2).sum() / ((spec.quantise(x) - x) ** 2).sum())


@pytest.mark.parametrize("kind", ["Gaussian", "Laplace"])
@pytest.mark.parametrize("name", SQNR)
def test_sqnr(name, kind):
    """The published figures of the specification, by its scale and by the fitted one."""
    expected, top = SQNR[name][kind]
    x, digits = quantiles(kind), DIGIT_SETS[name]
    assert sqnr_db(x, ElpBsdSpec(set=digits, scale=top / digits.largest)) == pytest.approx(
        expected, abs=0.3
    )
    fitted = ElpBsdFormat(bits=digits.bits, set=digits).fit(x)
    assert sqnr_db(x, fitted) == pytest.approx(expected, abs=0.3)


def brute_force(x, digit_sets, scales):
    """Spec with the least mean squared error, the first of equal ones."""
    x32 = x.astype(np.float32)
    best = None
    for digits, own in zip(digit_sets, scales, strict=True):
        for scale in own:
            spec = ElpBsdSpec(set=digits, scale=scale)
            error = ((spec.operands(spec.encode(x32)) * spec.scale - x32.astype(float)) ** 2).sum()
            if best is None or error < best[0]:
                best = error, spec
    return best[1]


def grid(x, digits):
    """Scales of section 3, in rationals."""
    largest = Fraction(float(np.abs(x.astype(np.float32)).max()))
    return [float(largest / digits.largest * part / 100) for part in range(15, 121, 5)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform"])
@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7])
def test_fit(bits, kind, dtype):
    rng = np.random.default_rng(bits)
    x = getattr(rng, kind)(size=(30, 100)).astype(dtype)
    fmt = ElpBsdFormat(bits=bits)
    sets = [digits for digits in DIGIT_SETS.values() if digits.bits == bits]
    expected = brute_force(x, sets, [grid(x, digits) for digits in sets])
    assert fmt.fit(x) == fmt.fit(x, "weights", "paper") == expected
    assert fmt.fit(x[::-1, ::-1]) == expected
    assert fmt.fit(x).set in sets


def test_fit_chooses_the_digit_set():
    """Two digits for Gaussian weights, one for heavy tails, one with a zero for zeros."""
    rng = np.random.default_rng(2)
    gaussian, heavy = rng.normal(size=5000), rng.standard_t(2, size=5000)
    assert parse("elp_bsd4").fit(gaussian).set == DIGIT_SETS["E4-2"]
    assert parse("elp_bsd4").fit(heavy).set == DIGIT_SETS["E4-1"]
    assert parse("elp_bsd4").fit(np.zeros(5)).set == DIGIT_SETS["E4-1"]
    assert parse("elp_bsd4:set=E4-2").fit(heavy).set == DIGIT_SETS["E4-2"]


@pytest.mark.parametrize(
    ("name", "top"), [("E3-1", 1.0), ("E3-1", 0.7), ("E3-1", 1024.0), ("E4-2", 80.0), ("E4-2", 1.0)]
)
def test_fit_power_of_two(name, top):
    """Powers of two in the range of the grid and one more on either side, by exact comparison.

    With E4-2 and 80, both ends of the range are powers of two.
    """
    digits = DIGIT_SETS[name]
    top = np.float32(top)
    low, high = (Fraction(float(top)) * part / 100 / digits.largest for part in (15, 120))
    inside = [exp for exp in range(-40, 40) if low <= Fraction(2) ** exp <= high]
    exps = [min(inside) - 1, *inside, max(inside) + 1]
    fmt = ElpBsdFormat(bits=digits.bits, set=digits, scale_pow2=True)
    assert [spec.scale for spec in fmt.candidates(float(top))] == [2.0**exp for exp in exps]
    x = np.random.default_rng(3).uniform(-top, top, 500).astype(np.float32)
    x[0] = top
    assert fmt.fit(x) == brute_force(x, [digits], [[2.0**exp for exp in exps]])


def test_fit_ties_go_to_the_smaller_scale():
    """Two scales on which the weights are exact levels."""
    digits = DIGIT_SETS["E4-2"]
    x = np.array([6.0, 3.0])  # exact at 0.5 and 1 of the largest level 12: 12 6, and 6 3
    assert ElpBsdFormat(bits=4, set=digits).fit(x).scale == 0.5


@pytest.mark.parametrize("shape", [(0,), (3, 0), (4,), ()])
@pytest.mark.parametrize("text", ["elp_bsd4", "elp_bsd4:set=E4-2", "elp_bsd4:scale_pow2=yes"])
def test_fit_zeros(text, shape):
    assert parse(text).fit(np.zeros(shape)).scale == 1.0
    spec = parse(text).fit(np.zeros(shape), "activations")
    assert spec == FixedSpec(bits=8, frac_bits=8, signed=False)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e30, 3.4e38])
@pytest.mark.parametrize("text", ["elp_bsd4", "elp_bsd6:scale_pow2=yes"])
def test_fit_extremes(text, size):
    """Scales stay in their range, without a warning."""
    spec = parse(text).fit(np.array([size, -size / 3], np.float32))
    assert 2.0**-90 <= spec.scale <= 2.0**90
    assert np.isfinite(spec.quantise(np.array([size], np.float32))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([0, np.nan]),), r"tensor must be finite in binary32, not nan at index \(1,\)"),
        ((np.array([[0, -np.inf]]),), r"must be finite in binary32, not -inf at index \(0, 1\)"),
        ((np.array([1e39]),), r"must be finite in binary32, not 1e\+39 at index \(0,\)"),
        ((np.zeros(1), "biases"), "role must be weights or activations, not 'biases'"),
        ((np.zeros(1), "weights", "best"), "method must be sweep or paper, not 'best'"),
    ],
)
def test_bad_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        ElpBsdFormat(bits=4).fit(*arguments)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("top", [0.9, 1.0, 37.0])
def test_fit_activations(bits, negative, top):
    """Least squared error among the scales, unsigned if nothing is negative."""
    x = np.random.default_rng(4).exponential(size=2000) ** 2
    x *= top / x.max()
    if negative:
        x[7] *= -1
    spec = ElpBsdFormat(bits=4, act_bits=bits).fit(x.astype(np.float32), "activations")
    errors = {}
    for frac_bits in range(-12, 24):
        own = FixedSpec(bits=bits, frac_bits=frac_bits, signed=negative)
        errors[own] = ((own.quantise(x) - x) ** 2).sum()
    assert errors[spec] == pytest.approx(min(errors.values()), rel=1e-6)


def conv(name, source, inputs, outputs, kernel, seed=0, **parameters):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, inputs, kernel, kernel)) / np.sqrt(inputs) / kernel
    return Conv(
        name=name,
        inputs=(source,),
        weight=weight.astype(np.float32),
        bias=rng.normal(0, 0.1, outputs).astype(np.float32),
        pads=(kernel // 2,) * 4,
        **parameters,
    )


def linear(name, source, features, outputs, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(features, outputs)) / np.sqrt(features)
    bias = rng.normal(0, 0.1, outputs).astype(np.float32)
    return Linear(name=name, inputs=(source,), weight=weight.astype(np.float32), bias=bias)


def small_network():
    """Layers of every kind; the second convolution reads maps that vary slowly."""
    return Network(
        input_name="image",
        input_shape=(3, 8, 8),
        nodes=(
            conv("first", "image", 3, 8, 3, seed=1),
            Relu(name="r1", inputs=("first",)),
            conv("middle", "r1", 8, 8, 3, seed=2),
            Relu(name="r2", inputs=("middle",)),
            conv("depthwise", "r2", 1, 8, 3, seed=3, groups=8),
            conv("point", "depthwise", 8, 8, 1, seed=4),
            Relu(name="r3", inputs=("point",)),
            Flatten(name="flat", inputs=("r3",)),
            linear("hidden", "flat", 512, 20, seed=5),
            linear("last", "hidden", 20, 10, seed=6),
        ),
    )


def smooth_images(count, seed):
    """Images whose neighbouring pixels are alike."""
    coarse = np.random.default_rng(seed).normal(size=(count, 3, 2, 2))
    return np.kron(coarse, np.ones((4, 4))).astype(np.float32)


def quantised(text):
    return quantise(small_network(), parse(text).system(), smooth_images(12, 0))


def test_system_formats():
    """Signed digits but for the first and the last layer; activations without sign after ReLU."""
    network = quantised("elp_bsd4:set=E4-2,act_bits=7")
    specs = {name: layer.weight_spec for name, layer in network.layers.items()}
    assert [name for name, spec in specs.items() if isinstance(spec, ElpBsdSpec)] == [
        "middle",
        "depthwise",
        "point",
        "hidden",
    ]
    assert all(spec.set == DIGIT_SETS["E4-2"] for spec in list(specs.values())[1:-1])
    assert all(isinstance(specs[n], FixedSpec) and specs[n].bits == 8 for n in ("first", "last"))
    signs = {name: codec.spec.signed for name, codec in network.codecs.items()}
    assert signs == {
        "image": True,
        "first": False,
        "middle": False,
        "depthwise": True,
        "point": False,
        "hidden": True,
    }
    assert {codec.spec.bits for codec in network.codecs.values()} == {7}


def test_system_is_exact():
    """Accumulators of every layer are integer sums of activations times W, and the bias."""
    network = quantised("elp_bsd4")
    for stream in network.streams(smooth_images(2, 1)):
        own = stream.operands
        weights = own.weight_spec.operands(own.weight_codes).astype(np.int64)
        activations = own.activation_spec.operands(own.activation_codes).astype(np.int64)
        np.testing.assert_array_equal(own.accumulators, activations @ weights + own.bias_q)
        unit = own.weight_spec.operand_unit * own.activation_spec.operand_unit
        assert own.accumulator_unit == unit


def test_system_of_one_layer():
    network = Network(input_name="x", input_shape=(5,), nodes=(linear("only", "x", 5, 2),))
    result = quantise(network, parse("elp_bsd4").system(), np.ones((2, 5), np.float32))
    assert isinstance(result.layers["only"].weight_spec, FixedSpec)


def test_system_without_compensation():
    """Every weight at its nearest level, with the format that fits best."""
    network = quantised("elp_bsd4:compensate=never")
    for node in network.network.mac_nodes[1:-1]:
        layer = network.layers[node.name]
        assert layer.weight_spec == parse("elp_bsd4").fit(node.matrices())
        np.testing.assert_array_equal(layer.weight_codes, layer.weight_spec.encode(node.matrices()))


def test_compensation_helps():
    """Less error where neighbouring pixels are alike."""
    images = smooth_images(20, 2)
    errors = {
        text: quantised(f"elp_bsd4:compensate={text}").evaluate(images).sqnr_db
        for text in ("auto", "never")
    }
    assert errors["auto"] > errors["never"] + 1


def test_system_with_powers_of_two():
    network = quantised("elp_bsd4:scale_pow2=yes")
    scales = [network.layers[name].weight_spec.scale for name in ("middle", "hidden")]
    assert all(np.frexp(scale)[0] == 0.5 for scale in scales)


UNSIGNED = ElementCodec(FixedSpec(bits=8, signed=False))


def moved_share(text, node, calibration):
    """Share of the weights that are not at their nearest level."""
    layer = parse(text).system().prepare(node, UNSIGNED, calibration)
    nearest = layer.weight_spec.encode(node.matrices())
    return np.mean(layer.weight_codes != nearest)


def correlated(rows, length, seed=0):
    """Inputs that all have the same factor in common."""
    rng = np.random.default_rng(seed)
    return [(rng.exponential(size=(rows, 1)) * rng.uniform(0.8, 1.2, (rows, length))).astype("f4")]


def alternating(rows, length):
    """Inputs of which neighbours cancel, so that errors of weights should not."""
    signs = np.where(np.arange(length) % 2, -1, 1)
    return [(np.random.default_rng(1).normal(size=(rows, 1)) * signs).astype("f4")]


KINDS = {
    "3x3": conv("c", "x", 4, 6, 3),
    "2x2": conv("c", "x", 4, 6, 2, seed=7),
    "1x1": conv("c", "x", 48, 20, 1),
    "linear": linear("l", "x", 48, 20),
}


@pytest.mark.parametrize(
    ("parameters", "measured", "expected"),
    [
        ("", False, ["3x3"]),
        ("", True, ["3x3", "2x2", "linear"]),
        (",compensate=always", False, ["3x3", "2x2", "linear"]),
        (",compensate=never", False, []),
        (",compensate=never", True, []),
        (",pointwise=yes", True, ["3x3", "2x2", "1x1", "linear"]),
        (",pointwise=yes", False, ["3x3"]),
        (",compensate=always,pointwise=yes", False, ["3x3", "2x2", "1x1", "linear"]),
        (",compensate=always", True, ["3x3", "2x2", "linear"]),
        (",second_pass=yes,bias_correction=yes", False, ["3x3"]),
    ],
)
def test_which_layers_are_compensated(parameters, measured, expected):
    moved = [
        kind
        for kind, node in KINDS.items()
        if moved_share(
            "elp_bsd4:set=E4-2" + parameters,
            node,
            correlated(50, node.length) if measured else [],
        )
    ]
    assert moved == expected
    if not measured:
        empty = [np.zeros((0, KINDS["3x3"].length), np.float32)]
        share = moved_share("elp_bsd4:set=E4-2" + parameters, KINDS["3x3"], empty)
        assert (share > 0) == ("3x3" in expected)


@pytest.mark.parametrize("kind", ["2x2", "linear"])
def test_gate(kind):
    """Moves are accepted only if the score falls."""
    node = KINDS[kind]
    # Channel innermost: for a kernel, the sign must alternate with the position.
    columns = alternating(60, node.length)[0]
    if kind == "2x2":
        columns = np.repeat(alternating(60, 4)[0], 4, axis=1)
    assert moved_share("elp_bsd4:set=E4-2", node, [columns]) == 0
    assert moved_share("elp_bsd4:set=E4-2,compensate=always", node, [columns]) > 0


@pytest.mark.parametrize("kind", ["3x3", "2x2"])
@pytest.mark.parametrize("spread", [0, 0.2, 3, None])
@pytest.mark.parametrize("compensate", ["auto", "always"])
def test_choice_by_score(compensate, spread, kind):
    """The digit set and the scale with the least score of all that are allowed.

    Without a spread, inputs of a kernel cancel, so that errors in common lower the score.
    """
    node = KINDS[kind]
    rng = np.random.default_rng(7)
    if spread is None:
        columns = np.repeat(alternating(60, node.length // 4)[0], 4, axis=1)
    else:
        columns = np.abs(rng.normal(size=(60, 1)) + spread * rng.normal(size=(60, node.length)))
    calibration = [columns.astype(np.float32)]
    weights, grouping = node.matrices(), Grouping.of(node)
    statistics = InputStatistics.measure(calibration, grouping)
    best = None
    for digits in (DIGIT_SETS["E4-1"], DIGIT_SETS["E4-2"]):
        for scale in grid(weights, digits):
            scale = float(np.float32(scale))
            units = to_units(weights, scale)
            states = [assign(units, digits.levels, grouping, compensated=True)]
            if compensate == "auto":
                states.append(assign(units, digits.levels, grouping, compensated=False))
            for state in states:
                score = state.score(statistics, scale)
                if best is None or score < best[0]:
                    best = score, ElpBsdSpec(set=digits, scale=scale), state
    layer = parse(f"elp_bsd4:compensate={compensate}").system().prepare(node, UNSIGNED, calibration)
    assert layer.weight_spec == best[1]
    expected = np.array(best[1].set.levels)[best[2].indices]
    np.testing.assert_array_equal(layer.weight_spec.operands(layer.weight_codes), expected)


def test_bias_correction():
    """The bias takes the mean error of the outputs on the calibration inputs."""
    node, calibration = KINDS["linear"], correlated(200, 48)
    plain, corrected = (
        parse(text).system().prepare(node, UNSIGNED, calibration)
        for text in ("elp_bsd4:set=E4-2", "elp_bsd4:set=E4-2,bias_correction=yes")
    )
    np.testing.assert_array_equal(plain.weight_codes, corrected.weight_codes)
    spec = plain.weight_spec
    np.testing.assert_array_equal(plain.bias_q, quantise_bias(spec, UNSIGNED.spec, node.biases()))
    unit = accumulator_unit(spec, UNSIGNED.spec)
    error = spec.operands(plain.weight_codes[0]) * spec.scale - node.matrices()[0]
    blocks = Grouping.of(node).blocks(48)
    means = np.array([calibration[0][:, blocks == b].mean(dtype=float) for b in blocks])
    moved = (corrected.bias_q - plain.bias_q)[0] * unit
    np.testing.assert_allclose(moved, -(means @ error), atol=2 * unit + spec.scale * 0.05)
    assert np.abs(moved).max() > 5 * unit


def test_second_pass_in_the_system():
    node, calibration = KINDS["3x3"], correlated(100, 36)
    text = "elp_bsd4:set=E4-2,scale=0.05"
    one, two = (
        parse(text + more).system().prepare(node, UNSIGNED, calibration)
        for more in ("", ",second_pass=yes")
    )
    state = assign(
        to_units(node.matrices(), 0.05),
        DIGIT_SETS["E4-2"].levels,
        Grouping.of(node),
        compensated=True,
    )
    statistics = InputStatistics.measure(calibration, Grouping.of(node))
    expected = balance_means(state, statistics)
    levels = np.array(DIGIT_SETS["E4-2"].levels)
    np.testing.assert_array_equal(one.weight_spec.operands(one.weight_codes), levels[state.indices])
    np.testing.assert_array_equal(
        two.weight_spec.operands(two.weight_codes), levels[expected.indices]
    )
    assert (one.weight_codes != two.weight_codes).any()


@pytest.mark.parametrize(
    ("text", "levels"),
    [("elp_bsd4:set=E4-2", [1] * 4 + [-1] * 5), ("elp_bsd4:set=E4-1", [0] * 9)],
)
def test_zero_kernels(text, levels):
    """Section 4, edge cases: a layer of zeros."""
    node = Conv(
        name="zero",
        inputs=("x",),
        weight=np.zeros((2, 3, 3, 3), np.float32),
        bias=np.zeros(2, np.float32),
    )
    layer = parse(text).system().prepare(node, UNSIGNED, [])
    assert layer.weight_spec.scale == 1
    operands = layer.weight_spec.operands(layer.weight_codes).reshape(9, 3, 2)
    assert (operands == np.array(levels)[:, None, None]).all()


def test_bad_source():
    system = ElpBsdSystem(format=ElpBsdFormat(bits=4))
    with pytest.raises(TypeError, match="source must be an ElementCodec, not None"):
        system.prepare(KINDS["3x3"], None, [])


def test_bad_weights():
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[1, 2, 0, 1] = np.nan
    node = Conv(name="nan", inputs=("x",), weight=weight, bias=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"tensor must be finite in binary32, not nan at index"):
        parse("elp_bsd4").system().prepare(node, UNSIGNED, [])


def test_sum_dtype():
    system = parse("elp_bsd4").system()
    codecs = [ElementCodec(FixedSpec(bits=8, frac_bits=bits)) for bits in (7, 40)]
    assert system.sum_dtype(codecs[:1]) == np.float32
    assert system.sum_dtype(codecs) == np.float64


@each_set
def test_code_table_adds_up(digits):
    columns = ElpBsdSpec(set=digits, scale=0.5).code_table()
    for terms, integer, value in zip(
        columns["digits"], columns["integer"], columns["value"], strict=True
    ):
        assert sum(int(term) for term in terms.split()) == integer == 2 * value
        assert len(terms.split()) == (1 if terms == "0" else digits.digits)


@each_set
def test_integers_go_to_the_nearest_level(digits):
    spec = ElpBsdSpec(set=digits, scale=0.5)
    halves = np.arange(-2 * digits.largest - 3, 2 * digits.largest + 4)
    for half, code in zip(halves.tolist(), spec.encode_integers(halves, 1).tolist(), strict=True):
        # Ties go to the smaller magnitude, and between equal ones to the negative level.
        best = min(digits.levels, key=lambda level: (abs(2 * level - half), abs(level), level))
        assert digits.code_values[code] == best
