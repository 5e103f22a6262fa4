"""ABFP tensors and products against exact rationals, the worked example and the vectors."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from golden.abfp import AbfpCodes, AbfpFormat, AbfpSpec
from golden.abfp_layers import saturated_shares
from golden.abfp_tile import TileProduct
from golden.bfloat16 import from_bits, rounded, to_bits
from tests.abfp_oracle import BFLOAT16_VALUES, accumulator, bfloat16, float32_sum, quantise
from tests.golden_oracle import load_vectors

SMALL = 2.0**-126


def patterns(texts):
    """Bits from nested lists of hexadecimal strings."""
    return np.vectorize(lambda text: int(text, 16), otypes=[np.int64])(np.array(texts))


def fractions(vector):
    """Exact values of a vector as ABFP reads it."""
    return [bfloat16(Fraction(float(x))) if np.isfinite(x) else Fraction(0) for x in vector]


def scale_value(scale, *, exp_only):
    """Value of a stored scale."""
    if exp_only:
        return Fraction(2) ** (int(scale) - 127) if scale else Fraction(0)
    return BFLOAT16_VALUES[scale]


# spec/abfp.md, section 8.
E1_X = [2, 1, -1, 0.5, -2, 0.25, 1.5, -0.75, 0.5, -0.25, 0.125, 0.5, 0.375, -0.5, 0.25, -0.5]
E1_W = [
    [1, -0.5, 0.25, 0.75, -1, 0.125, 0.5, -0.25, 3, -1.5, 0.375, 0, 2.25, -0.75, 1.5, -3],
    [0.0625, 0.03125, -0.0625, 0.046875, 0.015625, 0, -0.03125, 0.0625, *[0.5] * 8],
]


def e1(bits, gain, *, exp_only=False):
    """Trace of the worked example and its results."""
    spec = AbfpSpec(bits=bits, tile=8, gain=gain, exp_only=exp_only)
    w, x = spec.encode(np.float32(E1_W)), spec.encode(np.float32([E1_X]))
    return w, x, spec.trace(w, spec, x), spec.matmul(w, spec, x)


def test_worked_example_codes():
    w, x, trace, _ = e1(8, 1)
    assert w.codes.tolist() == [
        [127, -64, 32, 95, -127, 16, 64, -32, 127, -64, 16, 0, 95, -32, 64, -127],
        [127, 64, -127, 95, 32, 0, -64, 127, *[127] * 8],
    ]
    assert x.codes.tolist() == [
        [127, 64, -64, 32, -127, 16, 95, -48, 127, -64, 32, 127, 95, -127, 64, -127]
    ]
    assert from_bits(w.scales).tolist() == [[1, 3], [0.0625, 0.5]]
    assert from_bits(x.scales).tolist() == [[2, 0.5]]
    assert trace.sums[:, 0].T.tolist() == [[37026, 54051], [15153, 16129]]
    assert e1(6, 1)[2].sums[:, 0].T.tolist() == [[2202, 3243], [909, 961]]


@pytest.mark.parametrize(
    ("bits", "gain", "codes", "partials", "results", "hexes"),
    [
        (8, 1, [[36, 53], [15, 16]], [[4.53125, 5], [0.1181640625, 0.251953125]],
         [9.5, 0.37109375], [0x4118, 0x3EBE]),
        (8, 2, [[73, 106], [30, 32]], [[4.59375, 5], [0.1181640625, 0.251953125]],
         [9.625, 0.37109375], [0x411A, 0x3EBE]),
        (8, 4, [[127, 127], [60, 64]], [[4, 3], [0.1181640625, 0.251953125]],
         [7, 0.37109375], [0x40E0, 0x3EBE]),
        (8, 8, [[127, 127], [119, 127]], [[2, 1.5], [0.1171875, 0.25]],
         [3.5, 0.3671875], [0x4060, 0x3EBC]),
        (6, 1, [[36, 54], [15, 16]], [[4.53125, 5.09375], [0.1181640625, 0.251953125]],
         [9.625, 0.37109375], [0x411A, 0x3EBE]),
        (6, 8, [[127, 127], [120, 127]], [[2, 1.5], [0.1181640625, 0.25]],
         [3.5, 0.3671875], [0x4060, 0x3EBC]),
    ],
)  # fmt: skip
def test_worked_example(bits, gain, codes, partials, results, hexes):
    _, _, trace, totals = e1(bits, gain)
    assert trace.conversions[:, 0].T.tolist() == codes
    assert from_bits(trace.partials)[:, 0].T.tolist() == partials
    assert trace.saturations == {(8, 4): 2, (8, 8): 2, (6, 8): 2}.get((bits, gain), 0)
    np.testing.assert_array_equal(totals, trace.totals)
    assert rounded(totals[0]).tolist() == results
    assert to_bits(totals[0]).tolist() == hexes


@pytest.mark.parametrize(
    ("gain", "codes", "hexes"),
    [
        (1, [[9, 20], [4, 4]], [0x4118, 0x3EC0]),
        (4, [[37, 80], [15, 16]], [0x411A, 0x3EBC]),
        (8, [[74, 127], [30, 32]], [0x410A, 0x3EBC]),
    ],
)
def test_worked_example_with_exponents(gain, codes, hexes):
    """spec/abfp.md, section 9."""
    w, x, trace, totals = e1(8, gain, exp_only=True)
    assert (w.scales.astype(int) - 127).tolist() == [[1, 2], [-3, 0]]
    assert (x.scales.astype(int) - 127).tolist() == [[2, 0]]
    assert trace.sums[:, 0].T.tolist() == [[9408, 20544], [3840, 4096]]
    assert trace.conversions[:, 0].T.tolist() == codes
    assert to_bits(totals[0]).tolist() == hexes


def test_vectors_quantise():
    entries = load_vectors("abfp")["quantise"]
    assert len(entries) > 20
    for entry in entries:
        vector = from_bits(patterns(entry["v"]))
        tile = max(8, 1 << (len(vector) - 1).bit_length())
        coded = AbfpSpec(bits=entry["b"], tile=tile).encode(vector)
        assert coded.codes.tolist() == entry["codes"]
        assert coded.scales.tolist() == [int(entry["scale"], 16)]
        assert coded.bad_input is entry["flag"]
        coded = AbfpSpec(bits=entry["b"], tile=tile, exp_only=True).encode(vector)
        assert coded.codes.tolist() == entry["exp_codes"]
        assert coded.scales.tolist() == [0 if entry["E"] is None else entry["E"] + 127]
        assert coded.bad_input is entry["flag"]


def test_vectors_matmul():
    vectors = load_vectors("abfp")
    assert len(vectors["matmul"]) == 28
    for entry in vectors["matmul"]:
        inputs = vectors["inputs"][entry["inputs"]]
        weight_bits, activation_bits, adc_bits = entry["bits"]
        words = None
        if entry["noise"]:
            words = np.array(entry["noise"])[:, None, :, 0]
        for exp_only, expected in ((False, entry), (True, entry["exp"])):
            weights = AbfpSpec(
                bits=weight_bits,
                adc_bits=adc_bits,
                tile=entry["n"],
                gain=entry["G"],
                noise_bits=8 if entry["noise"] else 0,
                exp_only=exp_only,
            )
            activations = AbfpSpec(bits=activation_bits, tile=entry["n"], exp_only=exp_only)
            w = weights.encode(from_bits(patterns(inputs["w"])))
            x = activations.encode(from_bits(patterns([inputs["x"]])))
            trace = weights.trace(w, activations, x, words)
            assert trace.sums[:, 0].tolist() == expected["S"]
            assert trace.conversions[:, 0].tolist() == expected["k"]
            np.testing.assert_array_equal(trace.partials[:, 0], patterns(expected["part"]))
            totals = weights.matmul(w, activations, x, noise=words)
            np.testing.assert_array_equal(to_bits(totals[0]), patterns(expected["y"]))


def test_vectors_input_codes():
    for inputs in load_vectors("abfp")["inputs"].values():
        for bits, codes in inputs["codes"].items():
            spec = AbfpSpec(bits=int(bits), tile=inputs["n"])
            for texts, expected, scales in (
                (inputs["w"], codes["qw"], inputs["sw"]),
                ([inputs["x"]], [codes["qx"]], [inputs["sx"]]),
            ):
                coded = spec.encode(from_bits(patterns(texts)))
                np.testing.assert_array_equal(coded.scales, patterns(scales))
                padded = np.concatenate(expected, axis=1) if np.ndim(expected) < 3 else expected
                padded = np.reshape(padded, (len(expected), -1))
                np.testing.assert_array_equal(coded.codes, padded[:, : coded.length])
                assert not padded[:, coded.length :].any()


def element_pairs():
    """A scale and an element for all pairs of significands and differences of exponents 0 .. 12."""
    m_s, m_v, d = np.meshgrid(
        np.arange(128, 256), np.arange(128, 256), np.arange(13), indexing="ij"
    )
    legal = m_v <= m_s << d
    m_s, m_v, d = m_s[legal], m_v[legal], d[legal]
    assert m_s.size == 204_864  # as many as the specification, section 4, counts
    return m_s, m_v, d, np.stack([m_s, m_v / 2.0**d], axis=1).astype(np.float32)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_element(bits):
    """All pairs against integers, both signs, in bfloat16 and power-of-two scales."""
    m_s, m_v, d, vectors = element_pairs()
    limit = (1 << bits - 1) - 1
    for exp_only in (False, True):
        # q = RNE(numerator / denominator)
        numerator, denominator = (limit * m_v, m_s << d)
        if exp_only:
            numerator, denominator = m_v << bits, 1 << 9 + d
        q, rest = np.divmod(numerator, denominator)
        q += (2 * rest > denominator) | ((2 * rest == denominator) & (q % 2 == 1))
        q = np.minimum(q, limit)
        spec = AbfpSpec(bits=bits, tile=2, exp_only=exp_only)
        for sign in (1, -1):
            coded = spec.encode(vectors * np.float32(sign))
            np.testing.assert_array_equal(coded.codes[:, 1], sign * q)
            if not exp_only:
                np.testing.assert_array_equal(coded.codes[:, 0], sign * limit)
                np.testing.assert_array_equal(coded.scales[:, 0], to_bits(vectors[:, 0]))


@pytest.mark.parametrize("bits", [6, 8])
def test_every_element_against_hardware(bits):
    """Section 7, step 2: reciprocals of 17 fraction bits, and the fix of ties."""
    constants = load_vectors("abfp")["hardware_constants"]
    m_s, m_v, d, vectors = element_pairs()
    limit = (1 << bits - 1) - 1
    reciprocals = np.array(constants[f"R{bits}"])[m_s - 128]
    np.testing.assert_array_equal(reciprocals, -(-(limit << 17) // m_s))
    q = (m_v * reciprocals + (1 << 16 + d)) >> 17 + d
    q -= (2 * limit * m_v == (2 * q - 1) * (m_s << d)) & (q % 2 == 1)
    q[d >= (9 if bits == 8 else 7)] = 0
    np.testing.assert_array_equal(AbfpSpec(bits=bits, tile=2).encode(vectors).codes[:, 1], q)


def test_scales_of_all_magnitudes():
    """The same codes at every exponent that a scale may have; smaller numbers are zeros."""
    vector = np.float64([[255, 129, -64.5, 1, 0, -255]]) / 128
    for exp_only in (False, True):
        spec = AbfpSpec(tile=8, exp_only=exp_only)
        codes = spec.encode(vector).codes
        for exponent in range(-126, 128):
            coded = spec.encode(np.ldexp(vector, exponent))
            # Elements below 2**-126 read as +0.
            gone = np.abs(np.ldexp(vector, exponent)) < SMALL
            np.testing.assert_array_equal(coded.codes, np.where(gone, 0, codes))
            field = exponent + 128 if exp_only else (exponent + 127 << 7) + 127
            assert coded.scales.tolist() == [[field]]
        coded = spec.encode(np.ldexp(vector, -128))
        assert not coded.codes.any()
        assert not coded.scales.any()
        assert not coded.bad_input


SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-39, SMALL, -SMALL, 3.4e38, -3.4e38, 1e300]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    npst.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
        elements=st.one_of(
            st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 0.5, -1.0]),
            st.floats(-60000, 60000, width=16),
            st.floats(-1, 1, width=16, allow_subnormal=True),
        ),
    ),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(2, 8),
    st.booleans(),
)
def test_encode_against_rationals(x, tile, bits, exp_only):
    x.flags.writeable = False
    spec = AbfpSpec(bits=bits, tile=tile, exp_only=exp_only)
    for array in (x, x.T) if x.ndim > 1 else (x, x[::-1]):
        coded = spec.encode(array)
        assert coded.codes.shape == array.shape
        assert coded.codes.dtype == np.int8
        assert coded.bad_input == (not np.isfinite(array).all())
        tiles = -(-array.shape[-1] // tile)
        assert coded.scales.shape == (*array.shape[:-1], tiles)
        values = spec.decode(coded)
        assert values.shape == array.shape
        assert values.dtype == np.float32
        for index in np.ndindex(array.shape[:-1]):
            exact = fractions(array[index])
            for number in range(tiles):
                columns = slice(number * tile, (number + 1) * tile)
                scale, q = quantise(exact[columns], bits, exp_only=exp_only)
                stored = coded.scales[(*index, number)]
                assert scale_value(stored, exp_only=exp_only) == scale
                assert coded.codes[index][columns].tolist() == q
                divisor = 2 ** (bits - 1) - (not exp_only)
                expected = [np.float32(float(code * scale / divisor)) for code in q]
                assert values[index][columns].tolist() == expected


def test_special_numbers():
    x = np.float64(SPECIAL)
    coded = AbfpSpec(tile=4).encode(x)
    assert coded.bad_input
    assert coded.scales.tolist() == [0, 0x0080, 0x7F7F]
    assert coded.codes.tolist() == [0, 0, 0, 0, 0, 0, 0, 127, 0, 127, -127, 127]
    coded = AbfpSpec(tile=4).encode(np.abs(x[5:9]))
    assert not coded.bad_input
    assert coded.codes.tolist() == [0, 0, 127, 127]
    # Vectors of float32 take a shorter way where all are ordinary numbers.
    short = from_bits([0x7F80, 0x3F80, 0x8000, 0xFFC0])
    coded = AbfpSpec(tile=4).encode(short)
    assert coded.bad_input
    assert coded.codes.tolist() == [0, 127, 0, 0]
    subnormal = np.array([0x00010000, 0x007F0000], np.uint32).view(np.float32)
    assert AbfpSpec(tile=2).encode(subnormal).scales.tolist() == [0]
    beside = np.array([0x00800000, 0x007F0000], np.uint32).view(np.float32)
    assert AbfpSpec(tile=2).encode(beside).codes.tolist() == [127, 0]


def test_large_arrays():
    """Blocks are joined rightly, whatever their shape."""
    rng = np.random.default_rng(7)
    for shape in ((3, 50_000), (50_000, 3), (300, 7, 131), (40_000,)):
        x = rng.normal(size=shape).astype(np.float32)
        for tile in (1, 8, 128):
            spec = AbfpSpec(tile=tile)
            coded = spec.encode(x)
            bf16 = rounded(x)
            starts = np.arange(0, shape[-1], tile)
            scales = np.maximum.reduceat(np.abs(bf16), starts, axis=-1)
            np.testing.assert_array_equal(from_bits(coded.scales), scales)
            wide = np.repeat(scales.astype(float), tile, axis=-1)[..., : shape[-1]]
            # Ties are no matter here.
            assert np.abs(coded.codes - bf16 / wide * 127).max() <= 0.5 + 1e-6
            assert np.abs(spec.decode(coded) - bf16).max() <= scales.max() * 0.5001 / 127
            np.testing.assert_array_equal(spec.encode(bf16).codes, coded.codes)
            np.testing.assert_array_equal(spec.quantise(x), spec.decode(coded))


@pytest.mark.parametrize("exp_only", [False, True])
def test_short_ways(exp_only):
    """Vectors of ordinary size take a short way to their codes and back; no result shows it."""
    rng = np.random.default_rng(11)
    spec = AbfpSpec(tile=8, exp_only=exp_only)
    largest = np.r_[np.arange(-149, 128), np.repeat([-101, -100, -99, 99, 100, 101], 40)]
    exponents = largest[:, None] - rng.integers(0, 60, (len(largest), 8))
    exponents[:, 0] = largest
    # Few digits, so that ties of bfloat16 are frequent.
    significands = 1 + rng.integers(0, 512, exponents.shape) / 512
    x = np.ldexp(significands * rng.choice([-1, 1], exponents.shape), exponents).astype(np.float32)
    for vector in x:
        coded = spec.encode(vector)
        exact = fractions(vector)
        scale, q = quantise(exact, 8, exp_only=exp_only)
        assert scale_value(coded.scales[0], exp_only=exp_only) == scale
        assert coded.codes.tolist() == q
        # Also where the scale is out of the range of float32.
        values = [float(code * scale / (128 if exp_only else 127)) for code in q]
        with np.errstate(over="ignore"):
            assert spec.decode(coded).tolist() == np.float32(values).tolist()


@pytest.mark.parametrize("exp_only", [False, True])
def test_negation_and_powers_of_two(exp_only):
    rng = np.random.default_rng(8)
    x = rng.laplace(size=(20, 100))
    spec = AbfpSpec(bits=6, tile=32, exp_only=exp_only)
    coded = spec.encode(x)
    np.testing.assert_array_equal(spec.encode(-x).codes, -coded.codes)
    np.testing.assert_array_equal(spec.encode(-x).scales, coded.scales)
    np.testing.assert_array_equal(spec.encode(x * 2.0**50).codes, coded.codes)
    assert np.abs(coded.codes).max() == 31


def exact_result(w, x, weights, activations, bias=None, words=None):
    """Accumulators of a product of float arrays by rationals, as float32."""
    tile = weights.tile_spec(activations)
    result = np.empty((len(x), len(w)), np.float32)
    for row, column in np.ndindex(result.shape):
        cut = None if words is None else words[:, row, column].tolist()
        total, _ = accumulator(fractions(w[column]), fractions(x[row]), tile, cut)
        if bias is not None:
            total = float32_sum(total, Fraction(float(bias[column])))
        result[row, column] = float(total)
    return result


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize(
    ("bits", "activation_bits", "adc_bits", "tile", "gain", "noise_bits"),
    [
        (8, 8, 8, 8, 1, 0),
        (8, 8, 8, 8, 4, 8),
        (6, 6, 8, 16, 16, 0),
        (6, 6, 8, 4, 2, 5),
        (4, 8, 6, 8, 8, 0),
        (2, 3, 2, 2, 1, 0),
        (8, 8, 8, 1, 1, 1),
    ],
)
def test_matmul_against_rationals(
    bits, activation_bits, adc_bits, tile, gain, noise_bits, exp_only
):
    """Ordinary numbers; ranges that flush and saturate; special numbers; a short last tile."""
    rng = np.random.default_rng(bits + tile)
    weights = AbfpSpec(
        bits=bits, tile=tile, gain=gain, adc_bits=adc_bits, noise_bits=noise_bits, exp_only=exp_only
    )
    activations = AbfpSpec(bits=activation_bits, tile=tile, exp_only=exp_only)
    length = 2 * tile + (tile + 1) // 2
    for spread in (0, 30, 63, 125):
        w = rng.laplace(size=(5, length)) * np.exp2(rng.uniform(-spread, spread, (5, length)))
        x = rng.normal(size=(4, length)) * np.exp2(rng.uniform(-spread, spread, (4, length)))
        w[0, :tile] = 0
        x[1] = 0
        if spread == 30:
            w[1, : len(SPECIAL)] = SPECIAL[:length]
        w_codes, a_codes = weights.encode(w), activations.encode(x)
        bias = (rng.normal(size=5) * np.exp2(rng.uniform(-spread, spread, 5))).astype(np.float32)
        tiles = -(-length // tile)
        words = rng.integers(0, 1 << noise_bits, (tiles, 4, 5)) if noise_bits else None
        result = weights.matmul(w_codes, activations, a_codes, noise=words)
        expected = exact_result(w, x, weights, activations, words=words)
        assert result.tobytes() == expected.tobytes()
        result = weights.matmul(w_codes, activations, a_codes, bias, words)
        expected = exact_result(w, x, weights, activations, bias, words)
        assert result.tobytes() == expected.tobytes()
        if noise_bits:
            # Without words the ADC is quiet.
            quiet = weights.matmul(w_codes, activations, a_codes)
            assert quiet.tobytes() == exact_result(w, x, weights, activations).tobytes()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 11),
    st.sampled_from([1, 4, 8]),
    st.sampled_from([1, 2, 16]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_shape(outputs, vectors, length, tile, gain, exp_only, random):
    rng = np.random.default_rng(random.getrandbits(32))
    spec = AbfpSpec(tile=tile, gain=gain, exp_only=exp_only)
    w = rng.normal(size=(outputs, length)).astype(np.float32)
    x = rng.normal(size=(vectors, length)).astype(np.float16)
    result = spec.matmul(spec.encode(w), spec, spec.encode(x), np.zeros(outputs))
    assert result.shape == (vectors, outputs)
    np.testing.assert_array_equal(result, exact_result(w, x, spec, spec))


def test_matmul_of_many_outputs():
    """Weights are copied in parts; bias and noise words follow them."""
    rng = np.random.default_rng(11)
    spec = AbfpSpec(tile=512, gain=4, noise_bits=8)
    w, x = rng.normal(size=(700, 2000)), rng.normal(size=(3, 2000))
    w_codes, a_codes = spec.encode(w), spec.encode(x)
    words = rng.integers(0, 256, (4, 3, 700), np.uint8)
    bias = rng.normal(size=700)
    result = spec.matmul(w_codes, spec, a_codes, bias, words)
    trace = spec.trace(w_codes, spec, a_codes, words)
    np.testing.assert_array_equal(result, trace.totals + bias.astype(np.float32))


# spec/abfp.md, section 8: n, G, power-of-two scales; standard deviation of the error against the
# float32 product without noise and with it; share of saturated conversions.
REGRESSION = [
    (8, 1, False, 1.020, 1.42, 0),
    (8, 2, False, 0.555, 0.74, 0),
    (8, 4, False, 1.211, 1.24, 0.012),
    (8, 8, False, 9.105, 9.11, 0.227),
    (32, 4, False, 0.967, 1.33, 0),
    (32, 8, False, 0.578, 0.73, 0.0001),
    (32, 16, False, 2.942, 2.95, 0.030),
    (128, 1, False, 11.31, 15.97, 0),
    (128, 8, False, 1.477, 2.04, 0),
    (128, 16, False, 0.834, 1.09, 0),
    # Section 9: power-of-two scales, only with noise.
    (128, 8, True, None, 4.20, 0),
    (128, 16, True, None, 2.17, 0),
    (32, 16, True, None, 1.09, 0),
    (8, 4, True, None, 0.87, 0),
]


@pytest.fixture(scope="module")
def regression_data():
    rng = np.random.default_rng(2022)
    w = rounded(rng.laplace(0, 1, (768, 768)))
    x = rounded(rng.normal(0, 1, (400, 768)))
    exact = x @ w.T
    assert abs(exact.std() - 39.14) < 0.005
    return w, x, exact


@pytest.mark.parametrize(("n", "gain", "exp_only", "quiet", "noisy", "saturated"), REGRESSION)
def test_statistical_regression(regression_data, n, gain, exp_only, quiet, noisy, saturated):
    w, x, exact = regression_data
    spec = AbfpSpec(tile=n, gain=gain, noise_bits=8, exp_only=exp_only)
    w_codes, a_codes = spec.encode(w), spec.encode(x)
    if quiet is not None:
        error = rounded(spec.matmul(w_codes, spec, a_codes)) - exact
        # The same data: as many digits as the specification gives.
        assert abs(error.std() - quiet) < 0.002 * quiet
        # The shares of the table are those of the codes -127 and 127; the counter of section 5,
        # which leaves out what rounds to 127, counts a little less.
        numerator, denominator = spec.tile_spec(spec).adc_ratio
        product = TileProduct(spec.tile_spec(spec), w_codes.codes, w_codes.scales)
        limit = -(-253 * denominator // (2 * numerator))
        (count,) = product.count_at_least(a_codes.codes, [limit])
        share = count / (w_codes.scales.size * 400)
        assert round(share, 4 if saturated < 0.001 else 3) == saturated
        counted = saturated_shares(spec.tile_spec(spec), [w_codes], [a_codes])[gain]
        assert 0.85 * share - 1e-6 <= counted <= share
    words = np.random.default_rng(1).integers(0, 256, (768 // n, 400, 768), np.uint8)
    error = rounded(spec.matmul(w_codes, spec, a_codes, noise=words)) - exact
    assert abs(error.std() - noisy) < 0.03 * noisy


@pytest.mark.parametrize("tile", [8, 128])
def test_memory(tile):
    """At most 3 times the inputs and outputs, and a few blocks."""
    rng = np.random.default_rng(2)
    blocks = 3_000_000
    spec = AbfpSpec(tile=tile, noise_bits=8)
    x = rng.normal(size=(1500, 1100)).astype(np.float32)
    w = rng.normal(size=(1300, 1100)).astype(np.float32)

    def check(run, inputs):
        tracemalloc.start()
        result = run()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        arrays = (result.codes, result.scales) if isinstance(result, AbfpCodes) else (result,)
        sizes = sum(array.nbytes for array in (*inputs, *arrays))
        # The inputs were there before.
        assert peak < 3 * sizes - sum(array.nbytes for array in inputs) + blocks
        return result

    a_codes = check(lambda: spec.encode(x), [x])
    w_codes = check(lambda: spec.encode(w), [w])
    check(lambda: spec.decode(a_codes), [a_codes.codes, a_codes.scales])
    coded = [array for codes in (w_codes, a_codes) for array in (codes.codes, codes.scales)]
    check(lambda: spec.matmul(w_codes, spec, a_codes), coded)
    one = AbfpCodes(codes=a_codes.codes[:1], scales=a_codes.scales[:1])
    check(lambda: spec.matmul(w_codes, spec, one), [*coded[:2], one.codes, one.scales])
    long = spec.encode(rng.normal(size=(301, 20_000)).astype(np.float32))
    one = AbfpCodes(codes=long.codes[:1], scales=long.scales[:1])
    arrays = [array for codes in (long, one) for array in (codes.codes, codes.scales)]
    check(lambda: spec.matmul(long, spec, one), arrays)


def test_storage():
    """Section 1: n * b bits + 16 per vector, 0.125 bit per element at n = 128."""
    assert AbfpSpec(tile=128).storage_bits((10, 1280)) == 12800 * (8 + 0.125)
    assert AbfpSpec(bits=6, tile=8).storage_bits((3, 9)) == 27 * 6 + 6 * 16
    assert AbfpSpec(tile=8, exp_only=True).storage_bits((2, 3, 17)) == 6 * (17 * 8 + 3 * 8)
    assert AbfpSpec(tile=8).storage_bits((0, 8)) == 0
    assert AbfpSpec(tile=8).storage_bits((4, 0)) == 0
    assert AbfpSpec(bits=3, tile=8).storage_bits((1,)) == 19


def test_code_table():
    table = AbfpSpec(bits=3).code_table()
    assert table["code"] == [0, 1, 2, 3, 5, 6, 7]
    assert table["integer"] == [0, 1, 2, 3, -3, -2, -1]
    assert table["binary"] == ["000", "001", "010", "011", "101", "110", "111"]
    assert table["hex"] == ["0", "1", "2", "3", "5", "6", "7"]
    assert table["value"] == [0, 1 / 3, 2 / 3, 1, -1, -2 / 3, -1 / 3]
    assert AbfpSpec(bits=3, exp_only=True).code_table()["value"] == [
        0, 0.25, 0.5, 0.75, -0.75, -0.5, -0.25
    ]  # fmt: skip
    assert AbfpSpec(bits=8).code_table()["hex"][-1] == "ff"
    assert len(AbfpSpec(bits=8).code_table()["code"]) == 255


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("abfp8:tile=128,gain=8", AbfpSpec()),
        ("abfp8:tile=8,gain=1", AbfpSpec(tile=8)),
        ("abfp6:tile=32,gain=16", AbfpSpec(bits=6, tile=32, gain=16)),
        (
            "abfp6:tile=32,gain=2,adc_bits=7,noise_bits=8,exp_only=yes",
            AbfpSpec(bits=6, tile=32, adc_bits=7, noise_bits=8, exp_only=True),
        ),
    ],
)
def test_spec_strings(text, spec):
    assert str(spec) == text
    stem, _, rest = text.partition(":")
    fmt = AbfpFormat.from_texts(int(stem[-1]), dict(part.split("=") for part in rest.split(",")))
    assert fmt.spec() == spec
    assert str(fmt) == text


def test_format_strings():
    assert str(AbfpFormat(bits=6)) == "abfp6"
    fmt = AbfpFormat.from_texts(8, {"exp_only": "no", "activation_bits": "6", "tile": "64"})
    assert fmt == AbfpFormat(bits=8, tile=64, activation_bits=6, exp_only=False)
    assert str(fmt) == "abfp8:tile=64,activation_bits=6,exp_only=no"
    assert fmt.spec() == AbfpSpec(bits=8, tile=64, gain=4)


def test_fit():
    fmt = AbfpFormat(bits=8, tile=32, activation_bits=5, gain=4)
    for tensor in (np.float32([1, -3e38]), np.zeros((0, 3)), np.zeros(4, np.float16)):
        assert fmt.fit(tensor) == AbfpSpec(bits=8, tile=32, gain=4)
        assert fmt.fit(tensor, "activations", "paper") == AbfpSpec(bits=5, tile=32, gain=4)
    assert AbfpFormat(bits=6).fit(np.ones(3), "activations") == AbfpSpec(bits=6)
    with pytest.raises(
        ValueError, match=r"tensor must be finite in binary32, not nan at index \(1"
    ):
        fmt.fit(np.float32([[0, 1], [np.nan, np.inf]]))
    with pytest.raises(ValueError, match=r"not -inf at index \(0, 1\)"):
        fmt.fit(np.float32([[0, -np.inf]]), "activations")
    with pytest.raises(ValueError, match="role must be weights or activations, not 'bias'"):
        fmt.fit(np.zeros(3), "bias")
    with pytest.raises(TypeError, match="tensor must be float16, float32 or float64, not int64"):
        fmt.fit(np.arange(3))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits must be between 2 and 8, not 1"),
        ({"bits": "8"}, TypeError, "bits must be an int, not '8'"),
        ({"tile": 0}, ValueError, "tile must be between 1 and 1024, not 0"),
        ({"tile": 24}, ValueError, "tile must be a power of two, not 24"),
        ({"gain": 5}, ValueError, "gain must be one of 1, 2, 4, 8, 16, not 5"),
        ({"adc_bits": 9}, ValueError, "adc_bits must be between 2 and 8, not 9"),
        ({"noise_bits": 20}, ValueError, "noise_bits must be between 0 and 16, not 20"),
        ({"exp_only": "yes"}, TypeError, "exp_only must be a bool, not 'yes'"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=f"^{message}"):
        AbfpSpec(**parameters)
    with pytest.raises(error, match=f"^{message}"):
        AbfpFormat(**parameters)


def test_bad_format():
    with pytest.raises(ValueError, match="activation_bits must be between 2 and 8, not 9"):
        AbfpFormat(activation_bits=9)
    with pytest.raises(ValueError, match="exp_only must be yes or no, not 'maybe'"):
        AbfpFormat.from_texts(8, {"exp_only": "maybe"})
    with pytest.raises(ValueError, match="parameter of abfp must be one of tile, gain, "):
        AbfpFormat.from_texts(8, {"n": "128"})


def test_bad_tensors():
    spec = AbfpSpec(tile=8)
    with pytest.raises(TypeError, match="x must be float16, float32 or float64, not int64"):
        spec.encode(np.arange(8))
    with pytest.raises(ValueError, match="x must have at least 1 axis, not 0"):
        spec.encode(1.0)
    with pytest.raises(ValueError, match="shape must have at least 1 axis, not 0"):
        spec.storage_bits(())
    with pytest.raises(ValueError, match="shape must be at least 0, not -1"):
        spec.storage_bits((3, -1))
    codes, scales = np.zeros((2, 9), np.int8), np.zeros((2, 2), np.uint16)
    with pytest.raises(TypeError, match="codes must be an ndarray of int8, not int16"):
        AbfpCodes(codes=codes.astype(np.int16), scales=scales)
    with pytest.raises(TypeError, match="scales must be an ndarray of uint16, not list"):
        AbfpCodes(codes=codes, scales=[[0, 0]])
    with pytest.raises(ValueError, match=r"scales must be \[2, tiles\], not \[3, 2\]"):
        AbfpCodes(codes=codes, scales=np.zeros((3, 2), np.uint16))
    with pytest.raises(ValueError, match=r"scales must be \[tiles\], not \[\]"):
        AbfpCodes(codes=codes[0], scales=np.array(0, np.uint16))
    with pytest.raises(ValueError, match="codes must have at least 1 axis, not 0"):
        AbfpCodes(codes=np.array(0, np.int8), scales=scales)
    with pytest.raises(TypeError, match="codes must be AbfpCodes, not array"):
        spec.decode(codes)
    with pytest.raises(ValueError, match=r"codes\.codes must be between -127 and 127, not -128"):
        spec.decode(AbfpCodes(codes=codes - np.int8(127) - np.int8(1), scales=scales))
    with pytest.raises(ValueError, match=r"codes\.codes must be between -31 and 31, not 32"):
        AbfpSpec(bits=6, tile=8).decode(AbfpCodes(codes=codes + np.int8(32), scales=scales))
    with pytest.raises(
        ValueError, match=r"codes\.scales must be 3 for 9 elements in tiles of 4, not 2"
    ):
        AbfpSpec(tile=4).decode(AbfpCodes(codes=codes, scales=scales))


def test_bad_products():
    spec = AbfpSpec(tile=8, noise_bits=2)
    w, x = spec.encode(np.ones((3, 10))), spec.encode(np.ones((2, 10)))
    for run in (spec.matmul, spec.trace):
        with pytest.raises(TypeError, match="activations must be an AbfpSpec, not 'abfp8'"):
            run(w, "abfp8", x)
        with pytest.raises(ValueError, match=r"activations\.tile must be 8, not 16"):
            run(w, AbfpSpec(tile=16), x)
        with pytest.raises(ValueError, match=r"activations\.exp_only must be False, not True"):
            run(w, AbfpSpec(tile=8, exp_only=True), x)
        with pytest.raises(TypeError, match="w_codes must be AbfpCodes, not array"):
            run(w.codes, spec, x)
        with pytest.raises(ValueError, match="a_codes must have 2 axes, not 1"):
            run(w, spec, spec.encode(np.ones(10)))
        with pytest.raises(ValueError, match=r"a_codes\.codes must be between -7 and 7, not 127"):
            run(w, AbfpSpec(bits=4, tile=8), x)
        with pytest.raises(ValueError, match="a_codes must be of 10 elements, not 11"):
            run(w, spec, spec.encode(np.ones((2, 11))))
        with pytest.raises(ValueError, match=r"noise must be \[2, 2, 3\], not \[2, 3, 2\]"):
            run(w, spec, x, noise=np.zeros((2, 3, 2), int))
        with pytest.raises(ValueError, match="noise must be between 0 and 3, not 4"):
            run(w, spec, x, noise=np.full((2, 2, 3), 4))
    with pytest.raises(ValueError, match="noise must be None where noise_bits is 0"):
        AbfpSpec(tile=8).matmul(w, spec, x, noise=np.zeros((2, 2, 3), int))
    with pytest.raises(ValueError, match=r"bias must be \[3\], not \[2\]"):
        spec.matmul(w, spec, x, np.zeros(2))
    with pytest.raises(ValueError, match=r"bias must be finite in binary32, not inf at index \(1,"):
        spec.matmul(w, spec, x, np.array([0, np.inf, np.nan]))
    with pytest.raises(ValueError, match=r"bias must be finite in binary32, not 1e\+39"):
        spec.matmul(w, spec, x, np.array([1e39, 0, 0]))
    with pytest.raises(TypeError, match="bias must be float16, float32 or float64, not int64"):
        spec.matmul(w, spec, x, [1, 2, 3])
