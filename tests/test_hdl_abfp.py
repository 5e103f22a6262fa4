"""Units of the ABFP tile against the golden model, exact rationals and the vectors."""

from dataclasses import replace

import numpy as np
import pytest

from golden.abfp import AbfpSpec
from golden.abfp_tile import GAINS, AbfpTileSpec, add_saturated
from golden.bfloat16 import to_bits
from hdl.abfp_arithmetic import divider
from hdl.abfp_float import Bfloat16Rounder, Float32Adder
from hdl.abfp_units import (
    AbfpConverter,
    AbfpQuantiser,
    AbfpReciprocal,
    AbfpRescaler,
    reciprocals,
)
from tests.abfp_oracle import BFLOAT16_VALUES, quantise
from tests.golden_oracle import load_vectors
from tests.simulate import apply_comb

ONE = 0x3F80


def tile_spec(bits=(8, 8, 8), **parameters):
    weight_bits, activation_bits, adc_bits = bits
    return AbfpTileSpec(
        weight_bits=weight_bits, activation_bits=activation_bits, adc_bits=adc_bits, **parameters
    )


def quantised(bits, elements, scales, *, exp_only=False):
    """Codes of elements by the hardware; scales are bits of bfloat16 in either variant."""
    inputs = {"element": elements, "exponent": [int(scale) >> 7 for scale in scales]}
    if not exp_only:
        table = reciprocals(bits)
        inputs["reciprocal"] = [table[int(scale) & 0x7F] for scale in scales]
    return apply_comb(AbfpQuantiser(bits, exp_only), inputs, ["code"])["code"]


def golden_codes(bits, elements, scales, *, exp_only=False):
    """Codes of pairs of a scale and an element that is no larger."""
    pairs = np.stack([scales, elements], axis=-1).astype(np.uint32) << 16
    spec = AbfpSpec(bits=bits, tile=2, exp_only=exp_only)
    return spec.encode(pairs.view(np.float32)).codes[:, 1].tolist()


def mantissa_pairs(distance, *, step=1):
    """Bits of all scales with the exponent 0 and elements ``distance`` below, as two columns."""
    scales, elements = np.meshgrid(np.arange(0, 128, step), np.arange(128), indexing="ij")
    scales, elements = scales.ravel() | ONE, elements.ravel() + ONE - (distance << 7)
    keep = elements <= scales
    return elements[keep], scales[keep]


@pytest.mark.parametrize(("bits", "step"), [(8, 1), (6, 3), (2, 9), (3, 9), (4, 9), (5, 9), (7, 9)])
def test_quantiser_mantissas(bits, step):
    """Pairs of significands at every distance of exponents at which a code may not be zero."""
    for distance in range(bits + 2):
        elements, scales = mantissa_pairs(distance, step=step)
        signs = np.arange(len(elements)) % 2 << 15
        got = quantised(bits, elements | signs, scales)
        assert got == golden_codes(bits, elements | signs, scales)


@pytest.mark.parametrize("bits", [8, 6, 2])
def test_quantiser_power_of_two(bits):
    """Every element near a power of two; the scale's significand does not matter."""
    for distance in range(bits + 2):
        elements = np.arange(128) + ONE - (distance << 7)
        elements = np.concatenate([elements, elements | 0x8000])
        scales = np.full(len(elements), ONE | 0x7F)
        got = quantised(bits, elements, scales, exp_only=True)
        assert got == golden_codes(bits, elements, scales, exp_only=True)
    assert max(golden_codes(bits, [ONE | 0x7F], [ONE | 0x7F], exp_only=True)) == 2 ** (bits - 1) - 1


def test_quantiser_exponents():
    """All exponents of elements and scales, and numbers that read as zero."""
    rng = np.random.default_rng(1)
    elements = rng.integers(0, 0x7F80, 4000)
    scales = np.minimum(elements + rng.integers(0, 12 << 7, 4000), 0x7F7F)
    scales = np.maximum(scales, 0x80)
    scales[::7] = np.maximum(elements, 0x80)[::7]
    scales[1::7] = 0x7F7F
    elements[::5] |= 0x8000
    special = [0x0000, 0x8000, 0x0001, 0x807F, 0x7F80, 0xFF80, 0x7FC1, 0xFFFF]
    elements = np.concatenate([elements, special * 3])
    scales = np.concatenate([scales, np.repeat([0x0080, ONE, 0x7F7F], 8)])
    for exp_only in (False, True):
        got = quantised(8, elements, scales, exp_only=exp_only)
        # The golden scale is the largest of both: NaN and infinities count as nothing there.
        assert got == golden_codes(8, elements, scales, exp_only=exp_only)
        assert got[-24:] == [0] * 24


def test_quantiser_against_rationals():
    """A few pairs without the golden model, ties among them."""
    rng = np.random.default_rng(2)
    elements, scales = (np.concatenate(c) for c in zip(*map(mantissa_pairs, range(9)), strict=True))
    chosen = rng.choice(len(elements), 1500, replace=False)
    chosen = np.concatenate([chosen, np.flatnonzero(scales == ONE | 0x7F)[::3]])
    elements, scales = elements[chosen], scales[chosen]
    for bits in (8, 6):
        expected = [
            quantise([BFLOAT16_VALUES[s], BFLOAT16_VALUES[v]], bits)[1][1]
            for v, s in zip(elements, scales, strict=True)
        ]
        assert quantised(bits, elements, scales) == expected


def test_reciprocals():
    constants = load_vectors("abfp")["hardware_constants"]
    for bits in (8, 6):
        dut = AbfpReciprocal(bits)
        got = apply_comb(dut, {"fraction": range(128)}, ["reciprocal"])["reciprocal"]
        assert got == constants[f"R{bits}"]


def test_vectors_quantise():
    cases = load_vectors("abfp")["quantise"]
    for exp_only, key in ((False, "codes"), (True, "exp_codes")):
        for case in cases:
            elements = [int(text, 16) for text in case["v"]]
            scale = int(case["scale"], 16)
            got = quantised(case["b"], elements, [scale] * len(elements), exp_only=exp_only)
            assert got == case[key]


def test_divider():
    """The constants of the specification, and every number for small divisors."""
    constants = load_vectors("abfp")["hardware_constants"]
    for name, limit in (
        ("adc_888", 128 * 127 - 1),
        ("adc_668", 128 * 961 - 1),
        ("rescale_div127", 2 * 127 * 255 * 255),
    ):
        divisor = constants[name].get("modulus", 127)
        assert divider(divisor, limit) == (constants[name]["mult"], constants[name]["shift"])
    for divisor in (1, 3, 7, 15, 31, 63, 105, 961):
        for limit in (divisor - 1, divisor, 5 * divisor + 1, 3000):
            mult, shift = divider(divisor, limit)
            numbers = np.arange(limit + 1)
            np.testing.assert_array_equal(numbers * mult >> shift, numbers // divisor)
            np.testing.assert_array_equal(
                numbers * mult % (1 << shift) < mult, numbers % divisor == 0
            )


def converted(spec, totals, gain, noise=None, *, enable=True):
    """Codes and flags by the hardware."""
    inputs = {"total": totals, "gain": [gain.bit_length() - 1] * len(totals)}
    if noise is not None:
        inputs |= {"noise": noise, "noise_enable": [enable] * len(totals)}
    return apply_comb(AbfpConverter(spec), inputs, ["code", "saturated"])


def check_conversions(spec, totals, gain, noise=None, *, enable=True):
    got = converted(spec, totals, gain, noise, enable=enable)
    golden = replace(spec, gain=gain)
    words = noise if enable else None
    np.testing.assert_array_equal(got["code"], golden.convert(totals, words))
    over = np.abs(golden.unclamped(totals, words)) > spec.adc_limit
    np.testing.assert_array_equal(got["saturated"], over)


def near_ties(spec, gain):
    """Dot products at all ties between codes, and next to them, of both signs."""
    numerator, denominator = replace(spec, gain=gain).adc_ratio
    halves = (2 * np.arange(spec.adc_limit + 3) + 1) * denominator // (2 * numerator)
    totals = np.concatenate([halves + near for near in (-1, 0, 1)])
    totals = np.concatenate([totals, [0, 1, spec.largest_sum - 1, spec.largest_sum]])
    totals = totals[(totals >= 0) & (totals <= spec.largest_sum)]
    return np.unique(np.concatenate([totals, -totals]))


@pytest.mark.parametrize("bits", [(6, 6, 8), (4, 4, 4), (3, 3, 8)])
def test_every_conversion(bits):
    """All dot products of 8 elements, with all gains."""
    spec = tile_spec(bits, tile=8)
    for gain in GAINS:
        check_conversions(spec, np.arange(-spec.largest_sum, spec.largest_sum + 1), gain)


def test_conversions_wide():
    """Dot products of 8 elements of 8 bits at steps that meet every remainder."""
    spec = tile_spec(tile=8)
    for gain in GAINS:
        step = 5 if gain == 1 else 61
        check_conversions(spec, np.arange(0, spec.largest_sum + 1, step), gain)


SPECS = [
    *[(bits, n) for bits in ((8, 8, 8), (6, 6, 8)) for n in (8, 32, 128)],
    ((8, 8, 8), 1024),
    ((7, 5, 8), 1),
    ((8, 6, 7), 2),
    ((5, 3, 4), 64),
    ((2, 2, 2), 1),
    ((2, 2, 8), 1),
    ((2, 8, 8), 4),
]


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize(("bits", "n"), SPECS)
def test_conversion_ties(bits, n, exp_only):
    """All ties and their neighbours, and other dot products of all magnitudes."""
    rng = np.random.default_rng(n)
    spec = tile_spec(bits, tile=n, exp_only=exp_only)
    limit = spec.largest_sum
    others = rng.integers(-limit, limit + 1, 200) >> rng.integers(0, 20, 200)
    for gain in GAINS:
        check_conversions(spec, np.concatenate([near_ties(spec, gain), others]), gain)


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize("noise_bits", [1, 8, 16])
@pytest.mark.parametrize(("bits", "n"), [((8, 8, 8), 128), ((6, 6, 8), 8), ((2, 2, 8), 1)])
def test_conversion_noise(bits, n, noise_bits, exp_only):
    rng = np.random.default_rng(noise_bits)
    spec = tile_spec(bits, tile=n, noise_bits=noise_bits, exp_only=exp_only)
    largest = (1 << noise_bits) - 1
    for gain in (1, 2, 16):
        totals = near_ties(spec, gain)
        steps = np.unique(np.concatenate([totals, rng.integers(-1, 2, 50)]))
        totals = np.tile(steps, 3)
        words = rng.integers(0, largest + 1, len(totals))
        words[: len(steps) : 2], words[1 : len(steps) : 2] = 0, largest
        check_conversions(spec, totals, gain, words)
        check_conversions(spec, steps, gain, words[: len(steps)], enable=False)


def test_vectors_adc():
    """The cases one by one share simulations where they share a tile."""
    groups = {}
    for case in load_vectors("abfp")["adc"]:
        word, noise_bits = case["noise"] or (0, 0)
        for exp_only, key in ((False, "k"), (True, "k_exp")):
            spec = tile_spec(case["bits"], tile=case["n"], noise_bits=noise_bits, exp_only=exp_only)
            group = groups.setdefault((spec, case["G"]), ([], [], []))
            for column, value in zip(group, (case["S"], word, case[key]), strict=True):
                column.append(value)
    assert len(groups) > 20
    for (spec, gain), (totals, words, expected) in groups.items():
        got = converted(spec, totals, gain, words if spec.noise_bits else None)
        assert got["code"] == expected


def check_rescaling(spec, codes, w_scales, a_scales, gains):
    logs = [int(gain).bit_length() - 1 for gain in gains]
    inputs = {"code": codes, "weight_scale": w_scales, "activation_scale": a_scales, "gain": logs}
    got = np.array(apply_comb(AbfpRescaler(spec), inputs, ["partial"])["partial"])
    for gain in GAINS:
        rows = np.asarray(gains) == gain
        expected = replace(spec, gain=gain).rescale(codes[rows], w_scales[rows], a_scales[rows])
        np.testing.assert_array_equal(got[rows], expected)


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize(("adc_bits", "n"), [(8, 128), (8, 8), (6, 32), (3, 1024), (2, 1)])
def test_rescaler(adc_bits, n, exp_only):
    """Random codes and scales near 1 and anywhere, with carries and at the ends of the range."""
    rng = np.random.default_rng(adc_bits)
    spec = AbfpTileSpec(adc_bits=adc_bits, tile=n, exp_only=exp_only)
    count = 2500
    codes = rng.integers(-spec.adc_limit, spec.adc_limit + 1, count)
    gains = rng.choice(GAINS, count)
    unit, low, high = (1, 0, 255) if exp_only else (128, 0, 0x7FFF)
    scales = rng.integers(low, high + 1, (2, count))
    # The exponent of the result in range, and at either end of it.
    wanted = np.array([127, 0, 254])[np.arange(count) % 3]
    wanted += rng.integers(-9, 10, count)
    fields = np.clip(wanted + 127 - scales[0] // unit, 0, 255)
    scales[1] = fields * unit + scales[1] % unit
    scales[1] = np.clip(scales[1], low, high)
    check_rescaling(spec, codes, scales[0], scales[1], gains)


def test_rescaler_mantissas():
    """Odd codes of both signs with many significands."""
    spec = AbfpTileSpec(tile=16)
    codes, first, second = np.meshgrid(
        np.arange(-127, 128, 2), np.arange(0, 128, 9), [0, 1, 86, 127], indexing="ij"
    )
    codes, first, second = codes.ravel(), first.ravel() | ONE, second.ravel() | ONE
    check_rescaling(spec, codes, first, second, np.ones(len(codes), int))


def test_vectors_rescale():
    for case in load_vectors("abfp")["rescale"]:
        spec = AbfpTileSpec(adc_bits=case["bY"], tile=case["n"])
        inputs = {
            "code": [case["k"]],
            "weight_scale": [int(case["sw"], 16)],
            "activation_scale": [int(case["sx"], 16)],
            "gain": [case["G"].bit_length() - 1],
        }
        got = apply_comb(AbfpRescaler(spec), inputs, ["partial"])
        assert got == {"partial": [int(case["part"], 16)]}


def float_pairs(rng, count):
    """Bits of finite float32 numbers in pairs that meet in every way."""
    a = rng.integers(0, 0x7F800000, count)
    fields = (a >> 23) + rng.integers(-27, 28, count)
    b = np.clip(fields, 0, 254) << 23 | rng.integers(0, 1 << 23, count)
    kind = np.arange(count) % 8
    b = np.where(kind == 1, a ^ rng.integers(0, 4, count), b)  # cancel almost
    b = np.where(kind == 2, b & 0x7FFF0000, b)  # a partial
    a = np.where(kind == 3, a & 0x7FFFF000, a)  # ties
    b = np.where(kind == 3, b & 0x7F800000, b)
    a = np.where(kind == 4, a % (4 << 23), a)  # near the least
    b = np.where(kind == 4, b % (4 << 23), b)
    a = np.where(kind == 5, a % (2 << 23) + (253 << 23), a)  # near the largest
    b = np.where(kind == 5, b % (27 << 23) + (228 << 23), b)
    a = np.where(kind == 6, a | 0x7FFFFF, a)  # carries
    a[:4], b[:4] = [0, 0, 1, 0x7F7FFFFF], [0, 0x7F7FFFFF, 0, 0x7F7FFFFF]
    signs = rng.integers(0, 2, (2, count)) << 31
    return np.minimum(a, 0x7F7FFFFF) | signs[0], np.minimum(b, 0x7F7FFFFF) | signs[1]


def as_float32(bits):
    return np.asarray(bits).astype(np.uint32).view(np.float32)


def test_adder():
    a, b = float_pairs(np.random.default_rng(4), 5000)
    got = apply_comb(Float32Adder(), {"a": a, "b": b}, ["sum"])["sum"]
    expected = add_saturated(as_float32(a), as_float32(b)).view(np.uint32)
    np.testing.assert_array_equal(got, expected)
    assert np.count_nonzero(expected & 0x7FFFFFFF == 0x7F7FFFFF) > 20
    assert np.count_nonzero(expected == 0) > 20


def test_vectors_accumulate():
    """Sums of partials, and their rounding."""
    for case in load_vectors("abfp")["accumulate"]:
        total = 0
        for text in case["parts"]:
            inputs = {"a": [total], "b": [int(text, 16) << 16]}
            (total,) = apply_comb(Float32Adder(), inputs, ["sum"])["sum"]
        got = apply_comb(Bfloat16Rounder(), {"total": [total]}, ["result"])
        assert got == {"result": [int(case["y"], 16)]}


def test_rounder():
    """Random numbers, every tie of one exponent, and the largest."""
    rng = np.random.default_rng(5)
    totals = rng.integers(0x800000, 0x7F800000, 4000)
    ties = (np.arange(128) << 16) + (ONE << 16) + 0x8000
    edges = [0x800000, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0x7F7F0000, 0]
    totals = np.concatenate([totals, ties, ties + 1, ties - 1, edges])
    totals = np.concatenate([totals, totals[:-1] | 1 << 31])
    got = apply_comb(Bfloat16Rounder(), {"total": totals}, ["result"])["result"]
    np.testing.assert_array_equal(got, to_bits(as_float32(totals)))
    cases = load_vectors("abfp")["bf16_round"]["cases"]
    numbers = [int(text, 16) for text, _ in cases]
    rows = [row for row, number in enumerate(numbers) if 0 < number >> 23 & 0xFF < 255]
    assert len(rows) > 10
    got = apply_comb(Bfloat16Rounder(), {"total": [numbers[row] for row in rows]}, ["result"])
    assert got["result"] == [int(cases[row][1], 16) for row in rows]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AbfpQuantiser(9), ValueError, "bits must be between 2 and 8, not 9"),
        (lambda: AbfpQuantiser(8, 1), TypeError, "exp_only must be a bool, not 1"),
        (lambda: AbfpReciprocal(1), ValueError, "bits must be between 2 and 8, not 1"),
        (lambda: AbfpConverter(8), TypeError, "spec must be an AbfpTileSpec, not 8"),
        (lambda: AbfpRescaler(None), TypeError, "spec must be an AbfpTileSpec, not None"),
    ],
)
def test_bad_parameters(make, error, message):
    with pytest.raises(error, match=message):
        make()
