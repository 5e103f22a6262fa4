"""The tile of ABFP, stage by stage: exact rationals, the vectors, and the hardware's constants."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden.abfp_tile import GAINS, AbfpTileSpec, TileProduct, add_saturated
from golden.bfloat16 import from_bits, rounded, to_bits
from tests.abfp_oracle import bfloat16_bits, convert, noise, partial, unclamped
from tests.golden_oracle import load_vectors

SIZES = [(8, 8, 8), (6, 6, 8)]
ONE = np.uint16(0x3F80)


def tile_spec(bits=(8, 8, 8), **parameters):
    weight_bits, activation_bits, adc_bits = bits
    return AbfpTileSpec(
        weight_bits=weight_bits, activation_bits=activation_bits, adc_bits=adc_bits, **parameters
    )


def patterns(texts):
    """Bits from nested lists of hexadecimal strings."""
    return np.vectorize(lambda text: int(text, 16), otypes=[np.int64])(np.array(texts))


def test_vectors_adc():
    cases = load_vectors("abfp")["adc"]
    assert len(cases) == 525
    for case in cases:
        word, noise_bits = case["noise"] or (None, 0)
        for exp_only, key in ((False, "k"), (True, "k_exp")):
            tile = tile_spec(
                case["bits"],
                tile=case["n"],
                gain=case["G"],
                noise_bits=noise_bits,
                exp_only=exp_only,
            )
            assert tile.convert(case["S"], word) == case[key]


def test_vectors_rescale():
    cases = load_vectors("abfp")["rescale"]
    assert len(cases) > 30
    for case in cases:
        tile = AbfpTileSpec(adc_bits=case["bY"], tile=case["n"], gain=case["G"])
        part = tile.rescale(case["k"], int(case["sw"], 16), int(case["sx"], 16))
        assert part.dtype == np.uint16
        assert part == int(case["part"], 16)


def test_vectors_accumulate():
    cases = load_vectors("abfp")["accumulate"]
    assert len(cases) > 15
    for case in cases:
        total = AbfpTileSpec().accumulate(patterns(case["parts"]))
        assert total.dtype == np.float32
        assert to_bits(total) == int(case["y"], 16)


def test_sum_bits():
    """spec/abfp.md, section 2: 22 bits for 8/8, n = 128; they hold the largest sum."""
    assert tile_spec().sum_bits == 22
    assert tile_spec((6, 6, 8)).sum_bits == 18
    for bits in (2, 6, 8):
        for n in (1, 8, 1024):
            tile = tile_spec((bits, 8, 8), tile=n)
            assert tile.largest_sum == n * (2 ** (bits - 1) - 1) * 127
            assert tile.largest_sum < 1 << tile.sum_bits - 1


@pytest.mark.parametrize(
    ("n", "steps"),
    [
        # spec/abfp.md, section 2: ADC LSB in units of S, 8/8/8, G = 1, 2, 4, 8, 16.
        (8, [1016, 508, 254, 127, 63.5]),
        (32, [4064, 2032, 1016, 508, 254]),
        (128, [16256, 8128, 4064, 2032, 1016]),
    ],
)
def test_published_steps(n, steps):
    for gain, step in zip(GAINS, steps, strict=True):
        numerator, denominator = tile_spec(tile=n, gain=gain).adc_ratio
        assert denominator / numerator == step


@pytest.mark.parametrize(
    ("n", "gain", "total", "code"),
    [
        # spec/abfp.md, section 8: ties of the ADC.
        (128, 1, 8128, 0),
        (128, 1, 8129, 1),
        (128, 1, 24384, 2),
        (128, 1, -24384, -2),
        (128, 1, 2056384, 126),
        (128, 1, 2056385, 127),
        (8, 16, 31, 0),
        (8, 16, 32, 1),
        (8, 16, 8032, 126),
        (8, 16, 8033, 127),
    ],
)
def test_published_ties(n, gain, total, code):
    assert tile_spec(tile=n, gain=gain).convert(total) == code


def test_exp_shift():
    """Section 9: sh = 11 for 8/8/8, n = 128, G = 8, and at least 2 for listed parameters."""
    assert tile_spec(tile=128, gain=8, exp_only=True).adc_ratio == (1, 1 << 11)
    for bits in SIZES:
        for n in (8, 32, 128):
            for gain in GAINS:
                numerator, denominator = tile_spec(bits, tile=n, gain=gain, exp_only=True).adc_ratio
                assert numerator == 1
                assert denominator >= 4


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("n", [8, 32, 128])
@pytest.mark.parametrize("bits", SIZES)
def test_adc_against_hardware(bits, n, gain):
    """Every dot product against the multiply and shift of section 7, step 5."""
    constants = load_vectors("abfp")["hardware_constants"]["adc_" + "".join(map(str, bits))]
    mult, shift, modulus = constants["mult"], constants["shift"], constants["modulus"]
    tile = tile_spec(bits, tile=n, gain=gain)
    totals = np.arange(0, tile.largest_sum + 1)
    a = totals * gain * (1 if modulus == 127 else 127)
    b = a + modulus * n // 2
    k = (b // n * mult) >> shift
    k -= (b == k * modulus * n) & (k % 2 == 1)
    saturated = a > (253 * modulus * n) >> 1
    k[saturated] = 127
    np.testing.assert_array_equal(tile.convert(totals), k)
    np.testing.assert_array_equal(tile.convert(-totals), -k)


def single_sums(tile):
    """Codes of one activation and of many weights whose dot products are of any size.

    The activation is L, .., L, 1: a dot product is L * (sum of all weights but one) + the last.
    """
    rng = np.random.default_rng(tile.tile)
    n, w_limit, x_limit = tile.tile, tile.weight_limit, tile.activation_limit
    activation = np.full((1, n), x_limit, np.int8)
    activation[0, -1] = 1
    numerator, denominator = tile.adc_ratio
    # Around each step between two codes, and anywhere.
    halves = (2 * np.arange(tile.adc_limit + 2) + 1) * denominator // (2 * numerator)
    totals = np.concatenate([halves + offset for offset in (-1, 0, 1, 2)])
    totals = np.concatenate([totals, rng.integers(0, tile.largest_sum, 500)])
    totals = np.unique(np.concatenate([totals, -totals]))
    heads = (totals + x_limit // 2) // x_limit
    tails = totals - heads * x_limit
    keep = (np.abs(heads) <= (n - 1) * w_limit) & (np.abs(tails) <= w_limit)
    heads, tails, totals = heads[keep], tails[keep], totals[keep]
    weights = np.empty((len(totals), n), np.int8)
    for index in range(n - 1):
        left = n - 1 - index
        part = np.clip(np.rint(heads / left), -w_limit, w_limit).astype(np.int64)
        weights[:, index] = part
        heads = heads - part
    assert not heads.any()
    weights[:, -1] = tails
    return activation, weights, totals


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize(
    ("bits", "n"),
    [
        *[(bits, n) for bits in SIZES for n in (8, 32, 128)],
        # Quotients by a step of more than 17 bits, which float32 does not tell from ties.
        ((8, 8, 8), 1024),
        ((6, 6, 8), 256),
        ((7, 5, 8), 512),
        ((8, 6, 7), 1024),
        ((5, 3, 4), 64),
        ((2, 2, 2), 4),
        ((2, 8, 8), 2),
    ],
)
def test_stages_against_rationals(bits, n, exp_only):
    """Dot products near every step of the ADC, through both implementations."""
    for gain in GAINS:
        tile = tile_spec(bits, tile=n, gain=gain, exp_only=exp_only)
        activation, weights, totals = single_sums(tile)
        assert len(totals) > 6
        codes = [convert(int(total), tile) for total in totals]
        one = 128 if exp_only else ONE  # 2 or 1
        w_scales = np.full((len(totals), 1), one, np.uint16)
        x_scales = np.full((1, 1), one, np.uint16)
        trace = tile.trace(weights, w_scales, activation, x_scales)
        np.testing.assert_array_equal(trace.sums[0, 0], totals)
        np.testing.assert_array_equal(trace.conversions[0, 0], codes)
        scale = Fraction(2 if exp_only else 1)
        expected = {code: bfloat16_bits(partial(code, scale, scale, tile)) for code in set(codes)}
        np.testing.assert_array_equal(trace.partials[0, 0], [expected[code] for code in codes])
        assert trace.saturations == sum(
            abs(unclamped(int(total), tile)) > tile.adc_limit for total in totals
        )
        product = TileProduct(tile, weights, w_scales)
        np.testing.assert_array_equal(product(activation, x_scales), trace.totals)


@pytest.mark.parametrize("noise_bits", [1, 3, 8, 16])
@pytest.mark.parametrize(("bits", "n"), [((8, 8, 8), 128), ((6, 6, 8), 32), ((8, 8, 8), 1024)])
def test_noise_against_rationals(bits, n, noise_bits):
    rng = np.random.default_rng(3)
    for exp_only in (False, True):
        tile = tile_spec(bits, tile=n, gain=2, noise_bits=noise_bits, exp_only=exp_only)
        activation, weights, totals = single_sums(tile)
        words = rng.integers(0, 1 << noise_bits, (1, 1, len(totals)))
        words[0, 0, ::5] = 0
        words[0, 0, 1::5] = (1 << noise_bits) - 1
        codes = [
            convert(int(total), tile, noise(int(word), noise_bits))
            for total, word in zip(totals, words[0, 0], strict=True)
        ]
        scales = np.full((len(totals), 1), 127 if exp_only else ONE, np.uint16)
        trace = tile.trace(weights, scales, activation, scales[:1], words)
        np.testing.assert_array_equal(trace.conversions[0, 0], codes)
        product = TileProduct(tile, weights, scales)
        np.testing.assert_array_equal(
            product(activation, scales[:1], noise=words.astype(np.uint16)), trace.totals
        )


def test_noise_is_centred():
    """Section 3: zero mean, variance (1 - 2**-2R) / 12, k = 0 for S = 0."""
    for bits in (1, 4, 8):
        values = [noise(word, bits) for word in range(1 << bits)]
        assert sum(values) == 0
        variance = sum(value * value for value in values) / len(values)
        assert variance == (1 - Fraction(1, 4**bits)) / 12
        tile = tile_spec(noise_bits=bits)
        assert not tile.convert(np.zeros(1 << bits, int), np.arange(1 << bits)).any()


def test_gain_then_noise_then_round_then_clamp():
    """Half a step of noise does not pull a saturated conversion back."""
    tile = tile_spec(tile=128, gain=8, noise_bits=8)
    step = 2032
    assert tile.convert(127 * step, 0) == 127
    assert tile.convert(200 * step, 0) == 127
    assert tile.convert(126 * step, 255) == 126
    assert tile.convert(126 * step + 10, 255) == 127
    assert tile.convert(-126 * step - 10, 0) == -127


@pytest.mark.parametrize("adc_bits", range(2, 9))
def test_every_rescaling(adc_bits):
    """All ADC codes times all pairs of significands, through both implementations."""
    limit = (1 << adc_bits - 1) - 1
    significands = np.arange(128, 256)
    k, m_w, m_x = np.meshgrid(np.arange(1, limit + 1), significands, significands, indexing="ij")
    numerators = k * m_w * m_x
    # The nearest 8-bit significand: q / 2 ** shift.
    lengths = np.zeros_like(numerators)
    while np.any(numerators >= limit << lengths):
        lengths += numerators >= limit << lengths
    shift = 16 - lengths
    scaled = numerators << shift
    q = scaled // (limit << 8)
    rest = scaled - q * (limit << 8)
    q += (2 * rest > limit << 8) | ((2 * rest == limit << 8) & (q % 2 == 1))
    # Scales of 1 to 2 are significands / 128.
    expected = to_bits(np.ldexp(q.astype(np.float64), 8 - shift - 14))

    tile = tile_spec((8, 8, adc_bits), tile=1, gain=1)
    scales = (ONE + significands - 128).astype(np.uint16)
    np.testing.assert_array_equal(tile.rescale(k, scales[:, None], scales[None, :]), expected)
    # With one element, k is any code: RNE(w * 127 * L / 127**2) for w = RNE(k * 127 / L).
    weights = np.rint(np.arange(1, limit + 1) * 127 / limit).astype(np.int8)
    w_scales = np.tile(scales, limit)[:, None]
    for sign in (1, -1):
        product = TileProduct(tile, sign * np.repeat(weights, 128)[:, None], w_scales)
        result = product(np.full((128, 1), 127, np.int8), scales[:, None])
        np.testing.assert_array_equal(result.T.reshape(k.shape), sign * from_bits(expected))


def test_rescaling_against_hardware():
    """Section 7, step 6: the quotient by 127 as a multiplication, for 8/8/8."""
    constants = load_vectors("abfp")["hardware_constants"]["rescale_div127"]
    rng = np.random.default_rng(0)
    for _ in range(500):
        k, m_w, m_x = (int(rng.integers(*limits)) for limits in ((1, 128), (128, 256), (128, 256)))
        twice = 2 * k * m_w * m_x
        q = (twice * constants["mult"]) >> constants["shift"]
        assert q == twice // 127
        drop = q.bit_length() - 8
        kept, half, rest = q >> drop, q >> drop - 1 & 1, q & (1 << drop - 1) - 1
        kept += half and (kept & 1 or rest > 0 or twice != 127 * q)
        value = np.float32(kept * 2.0 ** (drop - 1 - 14))
        tile = tile_spec(tile=1, gain=1)
        assert tile.rescale(k, ONE + m_w - 128, ONE + m_x - 128) == to_bits(value)


@pytest.mark.parametrize("exp_only", [False, True])
def test_rescaling_in_all_ranges(exp_only):
    """Any scale, legal or not, with the rules of range."""
    rng = np.random.default_rng(5)
    count = 4000
    largest = 0xFF if exp_only else 0x7FFF
    w, x = rng.integers(0, largest + 1, (2, count))
    # Pairs whose product is near the smallest normal number, and near the largest.
    shift = 0 if exp_only else 7
    centre = rng.choice([127 - 124, 127 + 126], count) << shift
    near = np.arange(count) % 4 > 0
    x = np.where(near, np.clip(centre + (127 << shift) - w, 0, largest), x)
    gain, n = 4, 32
    tile = tile_spec((8, 8, 8), tile=n, gain=gain, exp_only=exp_only)
    k = rng.integers(-127, 128, count)

    def value(scale):
        if exp_only:
            return Fraction(2) ** (int(scale) - 127) if scale else Fraction(0)
        number = float(from_bits(int(scale)))
        return Fraction(number) if np.isfinite(number) else Fraction(0)

    expected = [
        bfloat16_bits(partial(int(code), value(a), value(b), tile))
        for code, a, b in zip(k, w, x, strict=True)
    ]
    assert 200 < sum(bits == 0 for bits in expected) < 3000
    assert 200 < sum(bits & 0x7FFF == 0x7F7F for bits in expected) < 3000
    np.testing.assert_array_equal(tile.rescale(k, w, x), expected)


def test_sum_with_rules_of_range():
    largest, tiny = np.finfo(np.float32).max, np.finfo(np.float32).smallest_normal
    total = np.float32([largest, -largest, tiny, -tiny, -0.0, 1.0, 2.0**24, tiny])
    term = np.float32([largest, -1e32, -tiny * 1.5, tiny * 1.25, -0.0, -1.0, 1.0, tiny])
    result = add_saturated(total, term)
    expected = np.float32([largest, -largest, 0, 0, 0, 0, 2.0**24, 2 * tiny])
    np.testing.assert_array_equal(result, expected)
    assert not np.signbit(result[2:6]).any()


def random_operands(rng, tile, outputs, vectors, length, spread):
    """Random codes, and scales whose exponents spread so far."""
    tiles = tile.tiles(length)
    w = rng.integers(-tile.weight_limit, tile.weight_limit + 1, (outputs, length), np.int8)
    x = rng.integers(-tile.activation_limit, tile.activation_limit + 1, (vectors, length), np.int8)
    if tile.exp_only:
        w_scales, x_scales = (
            np.clip(127 + rng.integers(-spread, spread + 1, shape), 1, 255)
            for shape in ((outputs, tiles), (vectors, tiles))
        )
    else:
        w_scales, x_scales = (
            to_bits(np.exp2(rng.uniform(-spread, spread, shape)))
            for shape in ((outputs, tiles), (vectors, tiles))
        )
    for scales in (w_scales, x_scales):
        scales[rng.random(scales.shape) < 0.05] = 0
    return w, w_scales.astype(np.uint16), x, x_scales.astype(np.uint16)


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize(
    ("n", "outputs", "vectors", "length", "spread"),
    [
        (128, 600, 150, 300, 3),
        (8, 20, 300, 70, 38),
        (8, 700, 3, 1000, 3),
        (32, 33, 140, 64, 70),
        (16, 5, 7, 31, 120),
        (1, 9, 4, 5, 120),
        (1024, 3, 2, 1500, 3),
        (64, 520, 130, 64, 41),
    ],
)
def test_product_is_trace(n, outputs, vectors, length, spread, exp_only):
    """Blocks of all shapes, with scales near 1 and far away, with noise and without."""
    rng = np.random.default_rng(n)
    for bits, gain, noise_bits in (((8, 8, 8), 4, 0), ((6, 6, 8), 16, 8), ((8, 3, 5), 1, 0)):
        tile = tile_spec(bits, tile=n, gain=gain, noise_bits=noise_bits, exp_only=exp_only)
        operands = random_operands(rng, tile, outputs, vectors, length, spread)
        words = None
        if noise_bits:
            words = rng.integers(0, 256, (tile.tiles(length), vectors, outputs), np.uint8)
        bias = rng.normal(size=outputs).astype(np.float32)
        bias[::7] *= np.float32(1e-38)
        bias[1::7] *= np.float32(1e38)
        trace = tile.trace(*operands, words)
        product = TileProduct(tile, *operands[:2])
        result = product(*operands[2:], noise=words)
        assert result.tobytes() == trace.totals.tobytes()
        biased = product(*operands[2:], bias, words)
        assert biased.tobytes() == add_saturated(trace.totals, bias).tobytes()
        plain = np.abs(bias) > 1e-3
        small = TileProduct(tile, operands[0][plain], operands[1][plain])
        cut = None if words is None else words[:, :, plain]
        np.testing.assert_array_equal(
            small(*operands[2:], np.where(plain, bias, 0)[plain], cut), biased[:, plain]
        )


def sums_about_ties(tile):
    """Codes [m, n] by which weights L_W, .., L_W, 1 add up to all sums about ties of the ADC."""
    numerator, denominator = tile.adc_ratio
    halves = (2 * np.arange(tile.adc_limit + 1) + 1) * denominator // (2 * numerator)
    sums = np.unique(halves[:, None] + np.arange(-2, 4))
    # The last element makes up what the others cannot.
    rest = sums % tile.weight_limit
    wanted = np.minimum(sums // tile.weight_limit, (tile.tile - 1) * tile.activation_limit)
    fits = (rest <= tile.activation_limit) & (sums < tile.largest_sum)
    rest, wanted = rest[fits], wanted[fits]
    before = tile.activation_limit * np.arange(tile.tile - 1)
    most = np.clip(wanted[:, None] - before, 0, tile.activation_limit)
    return np.c_[most, rest].astype(np.int8)


@pytest.mark.parametrize("adc_bits", range(2, 9))
def test_product_at_every_tie(adc_bits):
    """Float32 and its reciprocals round every sum about a tie as integers do, in every tile."""
    sizes = itertools.combinations_with_replacement(range(2, 9), 2)
    for (low, high), n, gain in itertools.product(sizes, 2 ** np.arange(11), GAINS):
        tile = tile_spec((low, high, adc_bits), tile=int(n), gain=gain)
        codes = sums_about_ties(tile)
        weights = np.full((1, n), tile.weight_limit, np.int8)
        weights[:, -1] = 1
        scales = np.full((len(codes), 1), ONE, np.uint16)
        trace = tile.trace(weights, scales[:1], codes, scales)
        result = TileProduct(tile, weights, scales[:1])(codes, scales)
        np.testing.assert_array_equal(result, trace.totals, str(tile))


def test_one_far_scale_keeps_the_rest_exact():
    """Only the block of the far scale leaves float32; its results follow the rules of range."""
    rng = np.random.default_rng(9)
    tile = tile_spec(tile=8, gain=1)
    w, w_scales, x, x_scales = random_operands(rng, tile, 600, 200, 24, 3)
    w_scales[555, 1] = 0x7F7F
    x_scales[130:133, 1:] = 0x7F7F
    x_scales[5, 2] = 0x0080
    trace = tile.trace(w, w_scales, x, x_scales)
    assert np.isfinite(trace.totals).all()
    assert np.abs(trace.totals).max() > 1e38
    np.testing.assert_array_equal(TileProduct(tile, w, w_scales)(x, x_scales), trace.totals)


def test_saturations():
    """The counter, the least sum that it counts, and the count of a product for each gain."""
    rng = np.random.default_rng(4)
    for bits in (*SIZES, (8, 4, 6)):
        for exp_only in (False, True):
            tile = tile_spec(bits, tile=8, gain=1, exp_only=exp_only)
            w, w_scales, x, x_scales = random_operands(rng, tile, 530, 140, 40, 1)
            limits, counts = [], []
            for gain in GAINS:
                geared = replace(tile, gain=gain)
                limit = geared.first_saturated
                limits.append(limit)
                assert abs(unclamped(limit, geared)) > tile.adc_limit
                assert abs(unclamped(limit - 1, geared)) <= tile.adc_limit
                trace = geared.trace(w, w_scales, x, x_scales)
                assert trace.saturations == np.count_nonzero(np.abs(trace.sums) >= limit)
                counts.append(trace.saturations)
            assert counts[-1] > counts[-2] > 0
            product = TileProduct(tile, w, w_scales)
            assert product.count_at_least(x, limits) == counts
    # Section 2: gain 1 never saturates.
    assert tile_spec(tile=128, gain=1).first_saturated > tile_spec(tile=128).largest_sum
    # At n = 8, G = 16 one full-scale product saturates.
    assert tile_spec(tile=8, gain=16).saturations([127 * 127]) == 1
    assert tile_spec(tile=8, gain=8).saturations([127 * 127]) == 0


def test_default_gain():
    """n / G = 16 within the gains of the paper."""
    gains = {n: AbfpTileSpec(tile=n).gain for n in (1, 8, 16, 32, 64, 128, 256, 1024)}
    assert gains == {1: 1, 8: 1, 16: 1, 32: 2, 64: 4, 128: 8, 256: 16, 1024: 16}


def test_nothing_to_multiply():
    tile = tile_spec(tile=8)
    for outputs, vectors, length in ((0, 3, 10), (3, 0, 10), (3, 2, 0), (0, 0, 0)):
        tiles = tile.tiles(length)
        product = TileProduct(
            tile, np.zeros((outputs, length), np.int8), np.zeros((outputs, tiles), np.uint16)
        )
        x, scales = np.zeros((vectors, length), np.int8), np.zeros((vectors, tiles), np.uint16)
        bias = np.arange(outputs, dtype=np.float32)
        result = product(x, scales, bias)
        assert result.shape == (vectors, outputs)
        np.testing.assert_array_equal(result, np.broadcast_to(bias, result.shape))
        assert product.count_at_least(x, [1]) == [0]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"weight_bits": 1}, ValueError, "weight_bits must be between 2 and 8, not 1"),
        ({"activation_bits": 9}, ValueError, "activation_bits must be between 2 and 8, not 9"),
        ({"adc_bits": 8.0}, TypeError, r"adc_bits must be an int, not 8\.0"),
        ({"tile": 0}, ValueError, "tile must be between 1 and 1024, not 0"),
        ({"tile": 2048}, ValueError, "tile must be between 1 and 1024, not 2048"),
        ({"tile": 12}, ValueError, "tile must be a power of two, not 12"),
        ({"gain": 0}, ValueError, "gain must be between 1 and 16, not 0"),
        ({"gain": 3}, ValueError, "gain must be one of 1, 2, 4, 8, 16, not 3"),
        ({"gain": 32}, ValueError, "gain must be between 1 and 16, not 32"),
        ({"gain": "8"}, TypeError, "gain must be an int, not '8'"),
        ({"noise_bits": -1}, ValueError, "noise_bits must be between 0 and 16, not -1"),
        ({"noise_bits": 17}, ValueError, "noise_bits must be between 0 and 16, not 17"),
        ({"exp_only": 1}, TypeError, "exp_only must be a bool, not 1"),
    ],
)
def test_bad_spec(parameters, error, message):
    with pytest.raises(error, match=message):
        AbfpTileSpec(**parameters)


def test_bad_stages():
    tile = AbfpTileSpec(tile=8)
    with pytest.raises(ValueError, match="sums must be between -129032 and 129032, not 129033"):
        tile.convert([129033])
    with pytest.raises(TypeError, match="sums must be integers, not float64"):
        tile.saturations(0.5)
    with pytest.raises(ValueError, match="noise must be None where noise_bits is 0"):
        tile.convert([1], [0])
    noisy = AbfpTileSpec(tile=8, noise_bits=3)
    with pytest.raises(ValueError, match="noise must be between 0 and 7, not 8"):
        noisy.convert([1], [8])
    with pytest.raises(TypeError, match="noise must be integers, not float64"):
        noisy.convert([1], [0.5])
    with pytest.raises(ValueError, match="conversions must be between -127 and 127, not 128"):
        tile.rescale(128, 0x3F80, 0x3F80)
    with pytest.raises(ValueError, match="scales must be between 0 and 32767, not 49024"):
        tile.rescale(1, 0x3F80, 0xBF80)
    with pytest.raises(ValueError, match="scales must be between 0 and 255, not 256"):
        AbfpTileSpec(exp_only=True).rescale(1, 256, 1)
    product = TileProduct(noisy, np.ones((2, 8), np.int8), np.full((2, 1), ONE))
    x, scales = np.ones((3, 8), np.int8), np.full((3, 1), ONE)
    with pytest.raises(ValueError, match=r"noise must be \[1, 3, 2\], not \[1, 2, 3\]"):
        product(x, scales, noise=np.zeros((1, 2, 3), np.uint8))
    assert rounded(product(x, scales)).shape == (3, 2)
