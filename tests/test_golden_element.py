"""What all element formats share: arrays of any kind, fits, requantisation, and bad arguments."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from golden.element import least_error, squared_errors
from golden.fixed import FixedSpec
from golden.formats import parse
from golden.rounding import BLOCK
from golden.spec import check_int, largest_magnitude
from golden.tapered import TaperedFormat, TaperedSpec
from tests.golden_oracle import Rounder, fixed_values, tapered_values

#: A spec for each way to encode: the binary32 look-up, the grid and the search.
SPECS = [
    FixedSpec(bits=8, frac_bits=7),
    TaperedSpec(bits=8, max_run=4, scale_exp=-1),
    TaperedSpec(bits=5, max_run=5),
    FixedSpec(bits=12, frac_bits=-2),
    TaperedSpec(bits=12, max_run=6),
    TaperedSpec(bits=16, max_run=16),
]
each_spec = pytest.mark.parametrize("spec", SPECS, ids=str)
FLOATS = [np.float16, np.float32, np.float64]

seeded = settings(derandomize=True, deadline=None, database=None, max_examples=60)

shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def exact_values(spec):
    if isinstance(spec, FixedSpec):
        return fixed_values(spec.bits, spec.frac_bits)
    return tapered_values(spec.bits, spec.max_run, spec.scale_exp)


ORACLES = {spec: Rounder(exact_values(spec)) for spec in SPECS}


def expected_codes(spec, x):
    """Codes by exact distances; NaN counts as 0 and infinities saturate."""
    nearest = ORACLES[spec]
    codes = np.empty(x.shape, int)
    for index, number in np.ndenumerate(x):
        number = float(number)
        if np.isnan(number):
            number = 0.0
        codes[index] = nearest(Fraction(min(max(number, -1e300), 1e300)))
    return codes


@pytest.mark.parametrize("dtype", FLOATS)
@each_spec
@given(data=st.data())
@seeded
def test_encode_any_array(spec, dtype, data):
    """All shapes, with NaN, infinities, zeros of both signs, subnormal and huge numbers."""
    width = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(width=width) | st.floats(-8, 8, width=width)
    x = data.draw(arrays.arrays(dtype, shapes, elements=numbers))
    codes = spec.encode(x)
    assert codes.shape == x.shape
    assert codes.dtype == (np.uint8 if spec.bits <= 8 else np.uint16)
    np.testing.assert_array_equal(codes, expected_codes(spec, x))


@pytest.mark.parametrize("dtype", FLOATS)
@each_spec
def test_encode_special_numbers(spec, dtype):
    info = np.finfo(dtype)
    low, high = 1 << spec.bits - 1, (1 << spec.bits - 1) - 1
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, -info.smallest_subnormal], dtype)
    np.testing.assert_array_equal(spec.encode(x), [0, 0, high, low, 0, 0, 0])
    x = np.array([info.tiny, -info.tiny, info.max, info.min], dtype)
    np.testing.assert_array_equal(spec.encode(x), expected_codes(spec, x))


def test_encode_every_pattern_of_a_nan():
    """The look-up drops the low bits of a binary32 number, by which alone some are not infinite."""
    patterns = np.uint32([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFC00000, 0x7F808000])
    np.testing.assert_array_equal(SPECS[0].encode(patterns.view(np.float32)), 0)


def views(x):
    """The same numbers in other places and orders of memory."""
    yield "C", np.ascontiguousarray(x)
    yield "F", np.asfortranarray(x)
    spread = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    spread[...] = x
    yield "spread", spread
    yield "reversed", np.ascontiguousarray(x[::-1])[::-1]
    unaligned = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    yield "unaligned", unaligned
    yield "swapped", x.astype(x.dtype.newbyteorder())
    yield "transposed", np.ascontiguousarray(x.T).T


@each_spec
def test_layouts(spec):
    """Memory order, alignment and byte order change nothing, also beyond one block."""
    rng = np.random.default_rng(4)
    for shape in ((3, 7), (37, 1001)):
        codes = rng.integers(0, 1 << spec.bits, shape).astype(np.uint8 if spec.bits <= 8 else ">u2")
        values = spec.value_table[codes]
        x = values.astype(np.float32)
        for name, view in views(x):
            np.testing.assert_array_equal(spec.encode(view), codes, err_msg=name)
        for name, view in views(codes):
            np.testing.assert_array_equal(spec.decode(view), values, err_msg=name)
            np.testing.assert_array_equal(spec.operands(view), spec.operand_table[codes])
    row = np.broadcast_to(x[0], (4, *x[0].shape))
    np.testing.assert_array_equal(spec.encode(row), np.broadcast_to(codes[0], row.shape))


@each_spec
def test_arguments_stay(spec):
    x = np.linspace(-2, 2, 101, dtype=np.float32)
    x.flags.writeable = False
    codes = spec.encode(x)
    codes.flags.writeable = False
    assert spec.decode(codes).flags.writeable
    assert spec.encode(x).flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        spec.operand_table[0] = 1


@each_spec
def test_scalars_and_lists(spec):
    assert spec.encode(0.3).shape == ()
    assert spec.decode(1).shape == ()
    assert spec.encode([[0.0, 1.0]]).shape == (1, 2)
    assert spec.decode(np.zeros((0, 3), np.uint8)).shape == (0, 3)
    one = spec.encode(1.0)
    assert spec.decode(int(one)) == spec.decode(one) == spec.quantise(1.0)


@each_spec
def test_quantise_is_decode_of_encode(spec):
    x = np.random.default_rng(6).normal(size=1000)
    values = spec.quantise(x)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, spec.value_table[expected_codes(spec, x)])
    np.testing.assert_array_equal(spec.quantise(values), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_decode_any_integers(dtype):
    spec = TaperedSpec(bits=7, max_run=3)
    codes = np.arange(128).astype(dtype)
    np.testing.assert_array_equal(spec.decode(codes), spec.value_table)


@pytest.mark.parametrize("spec", SPECS[:2], ids=str)
def test_memory(spec):
    """Encoding and decoding need the result and a few blocks, not copies of the input."""
    x = np.random.default_rng(7).normal(size=1 << 21).astype(np.float32)
    codes = spec.encode(x)
    spec.decode(codes)
    for function, argument, result in ((spec.encode, x, 1), (spec.decode, codes, 4)):
        tracemalloc.start()
        function(argument)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < result * x.size + 40 * BLOCK


@given(data=st.data())
@settings(seeded, max_examples=300)
def test_sweep_is_brute_force(data):
    """The first of the specs with the least mean squared error by its definition."""
    bits = data.draw(st.integers(2, 10))
    elements = st.one_of(
        st.floats(-20, 20, width=32),
        st.floats(-0.5, 0.5, width=32),
        st.sampled_from([0.0, 0.5, 0.25, -0.125, 0.3125, 1.0, 2.5, -3.0, -0.0]),
    )
    dtype = data.draw(st.sampled_from(FLOATS))
    numbers = data.draw(st.lists(elements, max_size=40))
    tensor = np.array(numbers, dtype)
    specs = [
        TaperedSpec(bits=bits, max_run=max_run, scale_exp=scale_exp)
        for max_run in range(1, bits + 1)
        for scale_exp in (0, -1, -2, -3)
    ]
    errors = [np.sum((tensor - spec.quantise(tensor).astype(float)) ** 2) for spec in specs]
    np.testing.assert_allclose(squared_errors(tensor, specs), errors, rtol=1e-12, atol=0)
    assert TaperedFormat(bits=bits).fit(tensor) == specs[int(np.argmin(errors))]


def test_errors_beyond_one_block():
    tensor = np.random.default_rng(8).normal(size=3 * BLOCK + 17).astype(np.float32)
    errors = [np.sum((tensor - spec.quantise(tensor).astype(float)) ** 2) for spec in SPECS]
    np.testing.assert_allclose(squared_errors(tensor, SPECS), errors, rtol=1e-11)
    assert least_error(tensor, SPECS) == SPECS[int(np.argmin(errors))]
    assert least_error(tensor, SPECS[:3]) == SPECS[int(np.argmin(errors[:3]))]


def test_fit_does_not_sort_its_argument():
    tensor = np.float32([3.0, -1.0, 2.0])
    for method in ("sweep", "paper"):
        parse("tapered8").fit(tensor, method=method)
        parse("fixed8").fit(tensor, method=method)
    assert tensor.tolist() == [3.0, -1.0, 2.0]


@pytest.mark.parametrize("relu", [False, True])
@each_spec
@given(data=st.data())
@settings(seeded, max_examples=30)
def test_requantise(spec, relu, data):
    """One exact rounding, of accumulators of any size and unit."""
    exponent = data.draw(st.integers(-90, 60))
    middle = data.draw(st.sampled_from(ORACLES[spec].values)) * Fraction(2) ** -exponent
    near = [int(middle) + i for i in range(-2, 3)]
    half = [int(middle + Fraction(1, 4) * Fraction(2) ** (spec.operand_exp - exponent)) + 1]
    edges = [-(1 << 63), (1 << 63) - 1, 0, 1, -1]
    anything = data.draw(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=10))
    integers = [i for i in [*near, *half, *edges, *anything] if -(1 << 63) <= i < 1 << 63]
    codes = spec.requantise(np.array(integers, np.int64), exponent, relu=relu)
    assert codes.dtype == (np.uint8 if spec.bits <= 8 else np.uint16)
    unit = Fraction(2) ** exponent
    expected = [ORACLES[spec]((max(i, 0) if relu else i) * unit) for i in integers]
    assert codes.tolist() == expected


@pytest.mark.parametrize("exponent", [-40, -14, -9, -8, -7, -6, 0, 3])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("spec", SPECS[:4], ids=str)
def test_requantise_around_every_midpoint(spec, relu, exponent):
    nearest = ORACLES[spec]
    unit = Fraction(2) ** exponent
    integers = sorted({int(point / unit) + i for point in nearest.midpoints for i in (-1, 0, 1)})
    array = np.array(integers * 3).reshape(3, -1)  # more than one axis
    codes = spec.requantise(array, exponent, relu=relu)
    expected = [nearest((max(i, 0) if relu else i) * unit) for i in integers]
    np.testing.assert_array_equal(codes, [expected] * 3)


def test_requantise_shapes_and_types():
    spec = TaperedSpec(bits=8, max_run=4)
    assert spec.requantise(-70, -7).shape == ()
    assert spec.requantise(np.zeros((0, 2), np.int8), -7).shape == (0, 2)
    wide = np.arange(-300, 300)
    expected = spec.requantise(wide, -7)
    np.testing.assert_array_equal(spec.requantise(wide.astype(np.int16), -7), expected)
    np.testing.assert_array_equal(spec.requantise(wide[::-1], -7), expected[::-1])
    np.testing.assert_array_equal(
        spec.requantise(wide[300:].astype(np.uint64), -7), spec.requantise(wide[300:], -7)
    )
    large = np.random.default_rng(9).integers(-(1 << 20), 1 << 20, 3 * BLOCK + 5)
    np.testing.assert_array_equal(
        spec.requantise(large, -14), spec.encode(large.astype(np.float64) / (1 << 14))
    )


@pytest.mark.parametrize("length", [1, 2, 3, 9, 64, 576, 9216])
@each_spec
def test_accumulator_bits(spec, length):
    """The largest sum fits, and would not fit one bit less."""
    low = -(1 << spec.operand_bits - 1)
    largest = length * low * low
    bits = spec.accumulator_bits(length)
    assert largest <= (1 << bits - 1) - 1
    assert largest > (1 << bits - 2) - 1
    assert length * low * (-low - 1) >= -(1 << bits - 1)
    # Operands themselves are no larger.
    assert np.abs(spec.operand_table.astype(int)).max() <= -low


@each_spec
@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1, 2], "x must be float16, float32 or float64, not int64"),
        (True, "x must be float16, float32 or float64, not bool"),
        (1j, "x must be float16, float32 or float64, not complex128"),
        ("1.0", "x must be float16, float32 or float64, not <U3"),
        (np.longdouble(1), "x must be float16, float32 or float64, not float128"),
        (None, "x must be float16, float32 or float64, not object"),
    ],
)
def test_bad_numbers(spec, x, message):
    with pytest.raises(TypeError, match=message):
        spec.encode(x)
    with pytest.raises(TypeError, match=message):
        spec.quantise(x)


@pytest.mark.parametrize("method", ["decode", "operands"])
def test_bad_codes(method):
    narrow, wide = TaperedSpec(bits=5), FixedSpec(bits=8)
    with pytest.raises(ValueError, match="codes must be between 0 and 31, not 32"):
        getattr(narrow, method)(np.array([[3, 32]], np.uint8))
    with pytest.raises(ValueError, match="codes must be between 0 and 31, not -1"):
        getattr(narrow, method)(np.array([-1, 99]))
    with pytest.raises(ValueError, match="codes must be between 0 and 255, not 256"):
        getattr(wide, method)([256])
    with pytest.raises(ValueError, match="codes must be between 0 and 255, not -128"):
        getattr(wide, method)(np.int8([-128]))
    with pytest.raises(
        ValueError, match="codes must be between 0 and 255, not 18446744073709551615"
    ):
        getattr(wide, method)(np.uint64([(1 << 64) - 1]))
    with pytest.raises(TypeError, match="codes must be integers, not float64"):
        getattr(wide, method)([1.0])
    with pytest.raises(TypeError, match="codes must be integers, not bool"):
        getattr(wide, method)([True])


def test_bad_accumulators():
    spec = FixedSpec()
    with pytest.raises(TypeError, match="accumulators must be integers, not float64"):
        spec.requantise(1.0, 0)
    with pytest.raises(ValueError, match=r"accumulators must be between -\d+ and \d+, not \d{19}"):
        spec.requantise(np.uint64([1 << 63]), 0)
    with pytest.raises(TypeError, match=r"exponent must be an int, not 1\.0"):
        spec.requantise(1, 1.0)
    with pytest.raises(ValueError, match="exponent must be between -1024 and 1024, not 1025"):
        spec.requantise(1, 1025)
    with pytest.raises(ValueError, match="length must be at least 1, not 0"):
        spec.accumulator_bits(0)
    with pytest.raises(TypeError, match=r"length must be an int, not 2\.0"):
        spec.accumulator_bits(2.0)


@pytest.mark.parametrize("method", ["sweep", "paper"])
@pytest.mark.parametrize("text", ["fixed8", "tapered8"])
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ([[0.0, 1.0], [np.nan, np.inf]], r"binary32, not nan at index \(1, 0\)"),
        ([[0.0, -np.inf], [np.nan, 1.0]], r"binary32, not -inf at index \(0, 1\)"),
        ([0.0, 1.0, np.inf], r"tensor must be finite in binary32, not inf at index \(2,\)"),
        ([1e39, 0.0], r"binary32, not 1e\+39 at index \(0,\)"),
        (np.float16([0, np.nan]), r"binary32, not nan at index \(1,\)"),
        (np.nan, r"binary32, not nan at index \(\)"),
    ],
)
def test_fit_refuses_what_is_not_finite(text, method, tensor, message):
    with pytest.raises(ValueError, match=message):
        parse(text).fit(tensor, method=method)


@pytest.mark.parametrize("text", ["fixed8", "tapered8", "tapered8:max_run=1,scale_exp=0"])
def test_fit_with_bad_arguments(text):
    fmt = parse(text)
    with pytest.raises(TypeError, match="tensor must be float16, float32 or float64, not int64"):
        fmt.fit([1, 2])
    with pytest.raises(ValueError, match="role must be weights or activations, not 'bias'"):
        fmt.fit([1.0], role="bias")
    with pytest.raises(ValueError, match="method must be sweep or paper, not 'best'"):
        fmt.fit([1.0], method="best")


def test_largest_magnitude():
    assert largest_magnitude(np.float32([1.0, -3.0])) == 3.0
    assert largest_magnitude(np.float32([1.0, 0.5])) == 1.0
    assert largest_magnitude(np.zeros((0, 2))) == 0.0
    assert np.isnan(largest_magnitude(np.array([1.0, np.nan, -7.0])))


def test_check_int():
    check_int("size", 3, 3, 3)
    check_int("size", 1 << 80, 0, None)
    with pytest.raises(ValueError, match="size must be between 3 and 4, not 5"):
        check_int("size", 5, 3, 4)
    with pytest.raises(ValueError, match="size must be at least 3, not 2"):
        check_int("size", 2, 3, None)
    with pytest.raises(TypeError, match="size must be an int, not False"):
        check_int("size", False, 0, 1)
