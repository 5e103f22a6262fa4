"""Units of the ABFP tile against the golden model, exact rationals and the vectors."""

import random
from dataclasses import replace

import numpy as np
import pytest

from golden.abfp import AbfpSpec
from golden.abfp_tile import GAINS, AbfpTileSpec, add_saturated
from golden.bfloat16 import to_bits
from hdl.abfp import AbfpTile
from hdl.abfp_arithmetic import divider
from hdl.abfp_float import Bfloat16Rounder, Float32Adder
from hdl.abfp_tile import AbsMax, DotTile, NoiseSource, RowStore
from hdl.abfp_units import (
    AbfpConverter,
    AbfpQuantiser,
    AbfpReciprocal,
    AbfpRescaler,
    reciprocals,
)
from sim.abfp import AbfpProduct, AbfpSystem, noise_words
from synth.verilog import to_verilog
from tests.abfp_oracle import BFLOAT16_VALUES, quantise
from tests.golden_oracle import load_vectors
from tests.simulate import apply_comb, run, stream_get, stream_put
from tests.verilog_tools import needs_verilator, verilator_complaints

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


@pytest.mark.parametrize(("bits", "step"), [(8, 2), (6, 5), (2, 16), (4, 16), (7, 16)])
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


@pytest.mark.parametrize("bits", [(5, 6, 8), (4, 4, 4), (3, 3, 8)])
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
    a, b = float_pairs(np.random.default_rng(4), 4000)
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


# ------------------------------------------------------------------------------- sequential units


def largest_magnitudes(vectors, exp_only):
    """Largest magnitude of each vector [n, words, lanes], and which words have a bad number."""
    fields = vectors >> 7 & 0xFF
    magnitudes = np.where((fields == 0) | (fields == 255), 0, vectors & 0x7FFF)
    magnitudes >>= 7 if exp_only else 0
    return magnitudes.max(axis=(1, 2)).tolist(), (fields == 255).any(axis=2)


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_abs_max(lanes, exp_only, pipelined):
    """Vectors of 3 words one after the other with pauses; each is known when it is stated to be."""
    rng = np.random.default_rng(lanes)
    vectors = rng.integers(0, 1 << 16, (150, 3, lanes))
    vectors[::3] &= 0x3FFF
    vectors[1::7] &= 0x807F  # subnormal numbers alone, which are no larger than zero
    expected, is_bad = largest_magnitudes(vectors, exp_only)
    dut = AbsMax(lanes, exp_only, pipelined)
    dropped = 7 if exp_only else 0
    known, ends, bad = [], [], 0

    async def testbench(ctx):
        nonlocal bad
        cycle = 0

        async def tick():
            nonlocal bad, cycle
            if ctx.get(dut.known):
                known.append((cycle, ctx.get(dut.largest)))
            bad += ctx.get(dut.bad)
            cycle += 1
            await ctx.tick()

        for vector in vectors.tolist():
            for index, word in enumerate(vector):
                while rng.random() < 0.2:
                    await tick()
                ctx.set(dut.magnitudes, [(e & 0x7FFF) >> dropped for e in word])
                ctx.set(dut.first, index == 0)
                ctx.set(dut.last, index == 2)
                ctx.set(dut.valid, 1)
                await tick()
                ctx.set(dut.valid, 0)
            ends.append(cycle - 1)
        for _ in range(dut.latency + 1):
            await tick()

    run(dut, testbench)
    assert known == [(end + dut.latency, e) for end, e in zip(ends, expected, strict=True)]
    assert bad == is_bad.sum()
    assert 0 < bad < is_bad.size


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_dot_tile(lanes, pipelined):
    """Dot products one after the other, with pauses and stops, and the largest there is."""
    spec = tile_spec((8, 6, 8), tile=8)
    rng = np.random.default_rng(lanes)
    weights = rng.integers(-127, 128, (20, 8))
    activations = rng.integers(-31, 32, (20, 8))
    weights[0], activations[0] = 127, 31
    weights[1], activations[1] = -127, 31
    dut = DotTile(spec, lanes, pipelined)

    async def testbench(ctx):
        async def advance():
            while rng.random() < 0.3:
                await ctx.tick()  # nothing moves
            ctx.set(dut.move, 1)
            await ctx.tick()
            ctx.set(dut.move, 0)
            ctx.set(dut.valid, 0)

        for w, x in zip(weights.tolist(), activations.tolist(), strict=True):
            for start in range(0, 8, lanes):
                if rng.random() < 0.3:
                    await advance()
                ctx.set(dut.weights, w[start : start + lanes])
                ctx.set(dut.activations, x[start : start + lanes])
                ctx.set(dut.first, start == 0)
                ctx.set(dut.valid, 1)
                await advance()
            for _ in range(dut.latency - 1):
                await advance()
            assert ctx.get(dut.o_valid)
            ctx.set(dut.take, 1)
            await ctx.tick()
            ctx.set(dut.take, 0)
            assert ctx.get(dut.sum) == sum(a * b for a, b in zip(w, x, strict=True))

    run(dut, testbench)


FLOWS = {
    "quantiser": lambda latency: AbfpQuantiser(8, False, latency),
    "quantiser_exp": lambda latency: AbfpQuantiser(8, True, latency),
    "converter": lambda latency: AbfpConverter(tile_spec(tile=8), latency),
    "converter_noise": lambda latency: AbfpConverter(tile_spec(tile=8, noise_bits=4), latency),
    "converter_668": lambda latency: AbfpConverter(tile_spec((6, 6, 8), tile=32), latency),
    "rescaler": lambda latency: AbfpRescaler(tile_spec(tile=128), latency),
    "rescaler_narrow": lambda latency: AbfpRescaler(tile_spec((4, 4, 3), tile=2), latency),
    "rescaler_exp": lambda latency: AbfpRescaler(tile_spec(tile=128, exp_only=True), latency),
    "adder": Float32Adder,
}


def legal_inputs(name, rng, count):
    """Columns of inputs that a unit may get."""
    signs = rng.integers(0, 2, count) << 15
    match name.partition("_")[0]:
        case "quantiser":
            scales = rng.integers(0x80, 0x7F80, count)
            elements = np.maximum(scales - rng.integers(0, 8 << 7, count), 0)
            inputs = {"element": elements | signs, "exponent": scales >> 7}
            if not name.endswith("_exp"):
                inputs["reciprocal"] = np.array(reciprocals(8))[scales & 0x7F]
            return inputs
        case "converter":
            limit = FLOWS[name](0).spec.largest_sum
            inputs = {"total": rng.integers(-limit, limit + 1, count) >> rng.integers(0, 9, count)}
            inputs["gain"] = np.full(count, 3)  # it does not change while anything is under way
            if name.endswith("noise"):
                inputs["noise"] = rng.integers(0, 16, count)
                inputs["noise_enable"] = rng.integers(0, 2, count)
            return inputs
        case "rescaler":
            dut = FLOWS[name](0)
            limit = dut.spec.adc_limit
            low, high = (100, 156) if dut.spec.exp_only else (100 << 7, 156 << 7)
            return {
                "code": rng.integers(-limit, limit + 1, count),
                "weight_scale": rng.integers(low, high, count),
                "activation_scale": rng.integers(low, high, count),
                "gain": np.full(count, 2),
            }
        case "adder":
            return dict(zip("ab", float_pairs(rng, count), strict=True))


OUTPUTS = {
    "quantiser": ["code"],
    "converter": ["code", "saturated"],
    "rescaler": ["partial"],
    "adder": ["sum"],
}


@pytest.mark.parametrize("longest", [False, True])
@pytest.mark.parametrize("name", FLOWS)
def test_latency(name, longest):
    """With registers a unit gives what it gives without, so many moves later, pauses included."""
    rng = np.random.default_rng(3)
    inputs = legal_inputs(name, rng, 300)
    outputs = OUTPUTS[name.partition("_")[0]]
    comb = FLOWS[name](0)
    expected = list(zip(*apply_comb(comb, inputs, outputs).values(), strict=True))
    cuts = comb.EXP_CUTS if name.endswith("_exp") else comb.CUTS
    dut = FLOWS[name](sorted(cuts)[1 + longest])
    assert dut.latency > 0
    got = []

    async def testbench(ctx):
        moves, due = 0, []

        async def move():
            nonlocal moves
            while rng.random() < 0.3:
                await ctx.tick()
            ctx.set(dut.move, 1)
            await ctx.tick()
            ctx.set(dut.move, 0)
            ctx.set(dut.valid, 0)
            moves += 1
            assert ctx.get(dut.o_valid) == (moves in due)
            if moves in due:
                got.append(tuple(ctx.get(getattr(dut, name)) for name in outputs))

        for row in zip(*inputs.values(), strict=True):
            while rng.random() < 0.3:
                await move()
            for port, value in zip(inputs, row, strict=True):
                ctx.set(getattr(dut, port), int(value))
            ctx.set(dut.valid, 1)
            due.append(moves + dut.latency)
            await move()
        for _ in range(dut.latency):
            await move()

    run(dut, testbench)
    assert got == expected


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_noise_source(bits):
    dut = NoiseSource(bits)

    async def testbench(ctx):
        for seed in (None, 0, 0xDEADBEEF):
            if seed is not None:
                ctx.set(dut.seed, seed)
                ctx.set(dut.load, 1)
                await ctx.tick()
                ctx.set(dut.load, 0)
            for word in noise_words(seed or 0, bits, 60).tolist():
                await ctx.tick()  # a cycle without a step changes nothing
                assert ctx.get(dut.word) == word
                ctx.set(dut.external, 1)
                ctx.set(dut.given, word ^ 1)
                assert ctx.get(dut.word) == word ^ 1
                ctx.set(dut.external, 0)
                ctx.set(dut.step, 1)
                await ctx.tick()
                ctx.set(dut.step, 0)

    run(dut, testbench)


# -------------------------------------------------------------------------------------- whole tile


def from_raw(bits):
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


async def load(ctx, dut, product):
    """Set the registers and load weights, scales and biases."""
    lanes = dut.lanes
    codes, scales = product.codes, product.scales
    tiles = scales.shape[1]
    ctx.set(dut.gain, product.log2_gain)
    ctx.set(dut.relu, product.relu)
    ctx.set(dut.last_tile, tiles - 1)
    for row in range(dut.rows):
        ctx.set(dut.load_row, row)
        ctx.set(dut.load_bias, int(product.bias_bits[row]))
        ctx.set(dut.load_bias_en, 1)
        ctx.set(dut.load_scale_en, 1)
        for tile in range(tiles):
            ctx.set(dut.load_address, tile)
            ctx.set(dut.load_scale, int(scales[row, tile]))
            await ctx.tick()
            ctx.set(dut.load_bias_en, 0)
        ctx.set(dut.load_scale_en, 0)
        ctx.set(dut.load_codes_en, 1)
        for address, word in enumerate(codes[row].reshape(-1, lanes).tolist()):
            ctx.set(dut.load_address, address)
            ctx.set(dut.load_codes, word)
            await ctx.tick()
        ctx.set(dut.load_codes_en, 0)


def run_products(dut, products, *, gaps=(0.0, 0.0), also=()):
    """Results of products [m, n], saturations and flags, one product after the other."""
    random.seed(1)
    got = []
    step = {"product": None}

    async def put(ctx):
        for product in products:
            while step["product"] is not product:
                await ctx.tick()
            for word in product.elements.reshape(-1, dut.lanes).tolist():
                await stream_put(ctx, dut.i, word, gap=gaps[0])

    async def get(ctx):
        for product in products:
            await load(ctx, dut, product)
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            step["product"] = product
            results = []
            for _ in range(product.results.size):
                payload = await stream_get(ctx, dut.o, gap=gaps[1])
                assert payload.last == ((len(results) + 1) % dut.rows == 0)
                results.append(payload.result)
            got.append(
                (
                    np.reshape(results, product.results.shape),
                    ctx.get(dut.saturations),
                    ctx.get(dut.bad_input),
                )
            )
            assert not ctx.get(dut.o.valid)

    run(dut, put, get, *also, max_cycles=60_000)
    return got


def check_products(dut, products, **options):
    for product, got in zip(products, run_products(dut, products, **options), strict=True):
        results, saturations, bad_input = got
        np.testing.assert_array_equal(results, product.results)
        assert saturations == product.saturations
        assert bad_input == product.bad_input


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize(
    ("bits", "n", "rows", "lanes", "gaps"),
    [
        ((8, 8, 8), 8, 3, 2, (0.0, 0.0)),
        ((8, 8, 8), 8, 5, 8, (0.3, 0.5)),
        ((6, 6, 8), 16, 2, 1, (0.0, 0.4)),
        ((6, 8, 7), 8, 4, 4, (0.5, 0.0)),
        ((8, 8, 8), 4, 1, 4, (0.2, 0.2)),
    ],
)
def test_tile(bits, n, rows, lanes, gaps, pipelined, exp_only):
    """Products of several tiles and vectors, with other gains and lengths one after the other."""
    rng = np.random.default_rng(rows)
    spec = tile_spec(bits, tile=n, exp_only=exp_only)
    dut = AbfpTile(spec, rows=rows, lanes=lanes, max_tiles=3, pipelined=pipelined)
    products = [
        AbfpSystem(spec).random_product(
            rng, rows=rows, vectors=4, length=length, gain=gain, spread=spread, relu=gain == 2
        )
        for gain, length, spread in ((1, 3 * n, 0), (16, n, 1), (2, 2 * n + n // 2, 60))
    ]
    assert products[1].saturations
    check_products(dut, products, gaps=gaps)


def test_tile_wide():
    """The published tile: 128 elements, the gain at which most networks do best."""
    spec = tile_spec(tile=128)
    rng = np.random.default_rng(1)
    product = AbfpSystem(spec).random_product(rng, rows=4, vectors=3, length=300, gain=8)
    check_products(AbfpTile(spec, rows=4, lanes=16, max_tiles=3), [product])


@pytest.mark.parametrize("exp_only", [False, True])
@pytest.mark.parametrize("pipelined", [False, True])
def test_tile_noise(pipelined, exp_only):
    """Noise of the internal source in the order of the conversions, from the port, and none."""
    rng = np.random.default_rng(9)
    spec = tile_spec(tile=8, gain=2, noise_bits=8, exp_only=exp_only)
    dut = AbfpTile(spec, rows=3, lanes=4, max_tiles=2, pipelined=pipelined)
    weights, vectors = (from_raw(to_bits(rng.normal(size=(rows, 16)))) for rows in (3, 5))
    words = np.reshape(noise_words(77, 8, 30), (5, 2, 3)).swapaxes(0, 1)
    others = rng.integers(0, 256, (2, 5, 3))
    external = [int(word) for word in others.swapaxes(0, 1).ravel()]
    products = [AbfpProduct(spec, weights, vectors, noise=noise) for noise in (words, others, None)]
    assert len({product.results.tobytes() for product in products}) == 3

    async def feed(ctx):
        ctx.set(dut.seed, 77)
        ctx.set(dut.load_seed, 1)
        ctx.set(dut.noise_enable, 1)
        await ctx.tick()
        ctx.set(dut.load_seed, 0)
        for _ in range(30):
            await ctx.tick().until(dut.noise_step)
        ctx.set(dut.noise_external, 1)
        for word in external:
            ctx.set(dut.noise, word)
            await ctx.tick().until(dut.noise_step)
        ctx.set(dut.noise_enable, 0)

    results = run_products(dut, products, gaps=(0.2, 0.4), also=[feed])
    for product, (got, saturations, _) in zip(products, results, strict=True):
        np.testing.assert_array_equal(got, product.results)
        assert saturations == product.saturations


def test_vectors_matmul():
    """E1 to E7: worked examples, padding, zero vectors, the ends of the range, bad inputs."""
    data = load_vectors("abfp")
    seen = set()
    for case in data["matmul"]:
        name = case["inputs"]
        if case["noise"] is not None:
            continue
        seen.add(name)
        inputs = data["inputs"][name]
        weights = from_raw([[int(text, 16) for text in row] for row in inputs["w"]])
        vector = from_raw([[int(text, 16) for text in inputs["x"]]])
        for exp_only in (False, True):
            spec = tile_spec(case["bits"], tile=case["n"], gain=case["G"], exp_only=exp_only)
            product = AbfpProduct(spec, weights, vector)
            tiles = product.scales.shape[1]
            dut = AbfpTile(spec, rows=len(weights), lanes=8, max_tiles=tiles)
            ((got, _, bad_input),) = run_products(dut, [product])
            expected = case["exp"]["y"] if exp_only else case["y"]
            assert [f"{value:04X}" for value in got[0]] == expected
            assert bad_input == (name == "E7")
    assert seen == set(data["inputs"])


LINTED = {
    "wide": lambda: AbfpTile(tile_spec(tile=8), rows=3, lanes=2, max_tiles=3),
    "exp_only": lambda: AbfpTile(tile_spec(tile=8, exp_only=True), rows=2, lanes=8, max_tiles=2),
    "pipelined": lambda: tile(rows=3, lanes=2, max_tiles=3, pipelined=True),
    "pipelined_exp": lambda: AbfpTile(
        tile_spec(tile=8, exp_only=True), rows=9, lanes=4, max_tiles=2, pipelined=True
    ),
    "noise": lambda: AbfpTile(tile_spec(tile=8, noise_bits=8), rows=1, lanes=4, max_tiles=1),
}


@needs_verilator
@pytest.mark.parametrize("name", LINTED)
def test_lint(name, tmp_path):
    design = to_verilog(LINTED[name]())
    assert verilator_complaints(tmp_path, design.text, design.top) == ""


def tile(**parameters):
    return AbfpTile(tile_spec(tile=8), **({"rows": 1, "lanes": 1, "max_tiles": 1} | parameters))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AbfpQuantiser(9), ValueError, "bits must be between 2 and 8, not 9"),
        (lambda: AbfpQuantiser(8, 1), TypeError, "exp_only must be a bool, not 1"),
        (lambda: AbfpReciprocal(1), ValueError, "bits must be between 2 and 8, not 1"),
        (lambda: AbfpConverter(8), TypeError, "spec must be an AbfpTileSpec, not 8"),
        (lambda: AbfpRescaler(None), TypeError, "spec must be an AbfpTileSpec, not None"),
        (lambda: AbsMax(0), ValueError, "lanes must be between 1 and 1024, not 0"),
        (lambda: AbsMax(2, None), TypeError, "exp_only must be a bool, not None"),
        (lambda: AbsMax(2, pipelined=1), TypeError, "pipelined must be a bool, not 1"),
        (lambda: AbsMax(6), ValueError, "lanes must be a power of two, not 6"),
        (lambda: DotTile(tile_spec(tile=8), 9), ValueError, "lanes must be between 1 and 8, not 9"),
        (lambda: NoiseSource(17), ValueError, "bits must be between 1 and 16, not 17"),
        (lambda: RowStore(0, 2), ValueError, "width must be at least 1, not 0"),
        (lambda: RowStore(2, 1.0), TypeError, r"depth must be an int, not 1\.0"),
        (lambda: tile(rows=0), ValueError, "rows must be at least 1, not 0"),
        (lambda: tile(lanes=3), ValueError, "lanes must be a power of two, not 3"),
        (lambda: tile(lanes=16), ValueError, "lanes must be between 1 and 8, not 16"),
        (lambda: tile(pipelined=None), TypeError, "pipelined must be a bool, not None"),
        (lambda: AbfpQuantiser(8, False, 3), ValueError, "latency must be one of 0, 2, 5, not 3"),
        (lambda: AbfpQuantiser(8, True, 2), ValueError, "latency must be one of 0, 1, 3, not 2"),
        (
            lambda: AbfpConverter(tile_spec(tile=8), 1),
            ValueError,
            "latency must be one of 0, 3, 7, not 1",
        ),
        (
            lambda: AbfpRescaler(tile_spec(tile=8), -1),
            ValueError,
            "latency must be one of 0, 3, 10, not -1",
        ),
        (lambda: Float32Adder(1), ValueError, "latency must be one of 0, 3, 7, not 1"),
        (lambda: tile(max_tiles=0), ValueError, "max_tiles must be at least 1, not 0"),
    ],
)
def test_bad_parameters(make, error, message):
    with pytest.raises(error, match=message):
        make()
