"""The fused multiplier of dybit in every mode, against exact dot products of the golden model."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest

from golden.dot import dot, encode_sums
from golden.dybit import DybitSpec
from golden.dybit_fused import MODES, DybitFusedMacSpec
from golden.fixed import FixedSpec
from golden.mac import ROLES
from hdl.dybit_fused import (
    DybitFusedDatapath,
    DybitFusedDecoder,
    DybitFusedEncoder,
    DybitFusedProduct,
)
from hdl.mac import Mac
from tests.simulate import apply_comb, run, stream_get, stream_put

#: Hardware with each of the modes that can be left out, and without any of them.
SPECS = {
    "8x8 4x4 2x2": DybitFusedMacSpec(length=64),
    "8x8 4x8 4x4": DybitFusedMacSpec(length=64, modes=("8x8", "4x8", "4x4")),
    "8x8 4x4": DybitFusedMacSpec(length=64, modes=("8x8", "4x4")),
    "all": DybitFusedMacSpec(length=64, modes=("8x8", "4x8", "4x4", "2x2")),
}
SPEC = SPECS["all"]
#: Bits of weights and activations in every combination of the specification, section 6.
PAIRS = list(itertools.product((8, 4, 2), repeat=2))

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def decoded(spec, words, role, mode, signed):
    """Decoded words."""
    inputs = {"code": words, "mode": [mode.index] * len(words)}
    if role == "activation":
        inputs["has_sign"] = [int(signed)] * len(words)
    return apply_comb(DybitFusedDecoder(spec, role), inputs, ["operand"])["operand"]


def multiply(spec, activation_words, weight_words, mode, signed):
    """Terms of pairs of words, through both decoders, each of which sees each word once."""
    operands = {}
    indices = {}
    for role, words in (("activation", activation_words), ("weight", weight_words)):
        distinct, indices[role] = np.unique(words, return_inverse=True)
        operands[role] = decoded(spec, distinct.tolist(), role, mode, signed)
    inputs = {role: [operands[role][i] for i in indices[role]] for role in operands}
    got = apply_comb(DybitFusedProduct(spec), inputs, ["term", "carry"])
    return np.add(got["term"], got["carry"])


def check_words(spec, mode, activations, weights, a, w):
    """Compare words of codes [n, mode.products] with dot products; other bits are random."""
    rng = np.random.default_rng(1)
    words = {}
    for role, codes, form in (("activation", a, activations), ("weight", w, weights)):
        used = mode.products * mode.place_bits(role)
        above = rng.integers(0, 1 << spec.code_bits(role) - used, len(codes), np.uint64)
        words[role] = spec.words(form, codes, mode, role)[:, 0] | above << np.uint64(used)
    got = multiply(spec, words["activation"], words["weight"], mode, activations.signed)
    shift = mode.bits - activations.width + mode.weight_bits - weights.bits
    np.testing.assert_array_equal(got, dot(weights, activations, w, a) << shift)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_wide_products(name, signed):
    """All activations with every third weight; the bench takes all pairs."""
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)[::3])).reshape(2, -1)
    if signed or name != "all":  # the sign is all that is new, and other lanes are silent
        pairs = pairs[:, np.random.default_rng(8).permutation(pairs.shape[1])[:2000]]
    activations, weights = DybitSpec(bits=8, signed=signed), DybitSpec(bits=8)
    check_words(SPECS[name], MODES["8x8"], activations, weights, *pairs[:, :, None])


LANES = [
    (name, mode, lane)
    for name in ("4x8", "4x4", "2x2")
    for mode in [MODES[name]]
    for lane in range(mode.products)
]


@pytest.mark.parametrize(("name", "mode", "lane"), LANES)
def test_every_narrow_product(name, mode, lane):
    """All pairs of codes in each place of a word, alone and beside random others."""
    for spec, signed in itertools.product(SPECS.values(), (False, True)):
        if name not in spec.modes or (signed and not mode.signed):
            continue
        activations = DybitSpec(bits=mode.bits, signed=signed)
        weights = DybitSpec(bits=mode.weight_bits)
        rng = np.random.default_rng(lane)
        grid = np.meshgrid(np.arange(1 << mode.bits), np.arange(1 << mode.weight_bits))
        pairs = np.stack(grid).reshape(2, -1)
        if signed or spec is not SPEC:
            pairs = pairs[:, rng.permutation(pairs.shape[1])[:256]]
        shape = (2, pairs.shape[1], mode.products)
        a, w = (rng.integers(0, 1 << bits, shape) for bits in (mode.bits, mode.weight_bits))
        for codes, column in ((a, pairs[0]), (w, pairs[1])):
            codes[0] = 0
            codes[:, :, lane] = column
        a, w = (codes.reshape(-1, mode.products) for codes in (a, w))
        check_words(spec, mode, activations, weights, a, w)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("weight_bits", "bits"), [*PAIRS, (3, 4), (5, 7), (3, 7)])
@every_spec
def test_mixed_widths(spec, weight_bits, bits, signed):
    """Random words in the fastest mode, and the largest sums of both signs."""
    activations, weights = DybitSpec(bits=bits, signed=signed), DybitSpec(bits=weight_bits)
    mode = spec.mode(weights, activations)
    rng = np.random.default_rng(bits)
    a = rng.integers(0, 1 << bits, (300, mode.products))
    w = rng.integers(0, 1 << weight_bits, (300, mode.products))
    a[:6] = (1 << bits) - 1 if not signed else (1 << bits - 1) - 1
    w[:2], w[2:4], w[4:6] = (1 << weight_bits) - 1, 1, (1 << weight_bits - 1) - 1
    check_words(spec, mode, activations, weights, a, w)
    assert spec.sum_shift(weights, activations) == (
        mode.bits - activations.width + mode.weight_bits - weights.bits
    )


def test_fastest_mode():
    """By hand: how many products a cycle makes for all widths and signs."""

    def products(spec, signed):
        table = {}
        for weight_bits, bits in PAIRS:
            activations = DybitSpec(bits=bits, signed=signed)
            mode = spec.mode(DybitSpec(bits=weight_bits), activations)
            table[weight_bits, bits] = mode.products
        return [table[pair] for pair in PAIRS]

    # 8x8, 8x4, 8x2, 4x8, 4x4, 4x2, 2x8, 2x4, 2x2
    assert products(SPECS["all"], False) == [1, 1, 1, 2, 4, 4, 2, 4, 16]
    assert products(SPECS["all"], True) == [1, 1, 1, 2, 4, 4, 2, 4, 4]
    assert products(SPECS["8x8 4x4 2x2"], False) == [1, 1, 1, 1, 4, 4, 1, 4, 16]
    assert products(SPECS["8x8 4x8 4x4"], False) == [1, 1, 1, 2, 4, 4, 2, 4, 4]
    assert products(SPECS["8x8 4x4"], False) == [1, 1, 1, 1, 4, 4, 1, 4, 4]


@every_spec
def test_zeros(spec):
    """A word of zeros is decoded to no bit in all modes, and nothing above its codes matters."""
    for name in spec.modes:
        mode = MODES[name]
        for role in ROLES:
            place = mode.place_bits(role)
            minus_zero = sum(1 << place * lane + place - 1 for lane in range(mode.products))
            words = [0] if role == "activation" else [0, minus_zero]
            for operand in decoded(spec, words, role, mode, True):
                assert operand.as_bits() == 0


def cuts(bits, signed):
    """Halves of the way between magnitudes, in last places."""
    spec = DybitSpec(bits=bits, signed=signed)
    magnitudes = np.unique(np.abs(spec.operand_table)).tolist()
    return [Fraction(low + high, 2) for low, high in itertools.pairwise(magnitudes)]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_encoder(bits, signed):
    """Ties, their neighbours and random sums; every code of the result."""
    rng = np.random.default_rng(bits)
    drop = 8 - bits + signed
    top = 1 << SPEC.sum_width - 1
    rows = []
    for shift, mult in itertools.product((12, 20, 28), (1 << 15, 40503, 65535)):
        # Sums are in units of the result, which is 2**drop last places of an unsigned 8-bit code.
        unit = Fraction(mult << 1, 1 << shift + drop)
        ties = [int(cut / unit) for cut in cuts(bits, signed)]
        totals = {tie + near for tie in ties for near in (-1, 0, 1)} | {0, 1, top - 1}
        totals |= {int(rng.integers(0, top) >> rng.integers(0, 30)) for _ in range(30)}
        totals = {sign * total for total in totals for sign in (1, -1)} | {-top}
        rows += [(total, mult, shift, unit) for total in totals if -top <= total < top]
    totals, mults, shifts, units = zip(*rows, strict=True)
    inputs = {"total": totals, "mult": mults, "shift": shifts}
    inputs |= {"drop": [drop] * len(rows), "has_sign": [int(signed)] * len(rows)}
    got = apply_comb(DybitFusedEncoder(SPEC), inputs, ["code"])["code"]
    edges = cuts(bits, signed)
    expected = []
    for total, unit in zip(totals, units, strict=True):
        code = sum(edge <= abs(total * unit) for edge in edges)
        if total < 0:
            code = (code and code | 1 << bits - 1) if signed else 0
        expected.append(code << 8 - bits)
    assert got == expected
    assert len(set(expected)) == (1 << bits) - signed


def draw_layer(rng):
    """Formats of any widths, and a result of about the size of the sums."""
    weight_bits, bits, result_bits = rng.integers(2, 9, 3).tolist()
    limit = int(rng.choice([8, 4, 2]))
    weight_bits, bits = min(weight_bits, limit), min(bits, max(limit, 8 * int(rng.integers(2))))
    signs = rng.integers(2, size=2).astype(bool).tolist()
    return (
        DybitSpec(bits=weight_bits, scale=float(rng.uniform(0.1, 1))),
        DybitSpec(bits=bits, signed=signs[0], scale=float(rng.uniform(0.1, 1))),
        DybitSpec(bits=result_bits, signed=signs[1], scale=float(rng.uniform(0.1, 30))),
    )


@pytest.mark.parametrize("pipelined", [False, True])
def test_modes_change_between_layers(pipelined):
    """Dot products through the streaming unit, with other formats for each, under pauses."""
    rng = np.random.default_rng(5)
    random.seed(5)
    dut = Mac(DybitFusedDatapath(SPEC), pipelined=pipelined)
    layers = [draw_layer(rng) for _ in range(60)]
    assert {SPEC.mode(weights, activations).index for weights, activations, _ in layers} == {
        *range(4)
    }

    async def testbench(ctx):
        for layer in layers:
            weights, activations, result = layer
            mode = SPEC.mode(weights, activations)
            length = int(rng.integers(1, 40))
            w = rng.integers(0, 1 << weights.bits, length)
            a = rng.integers(0, 1 << activations.bits, length)
            bias, relu = int(rng.integers(-500, 500)), bool(rng.integers(2))
            for port, value in SPEC.settings(*layer).items():
                ctx.set(getattr(dut, port), value)
            ctx.set(dut.bias, bias << SPEC.sum_shift(weights, activations))
            ctx.set(dut.relu, relu)
            rows = zip(
                SPEC.words(activations, a, mode, "activation").tolist(),
                SPEC.words(weights, w, mode, "weight").tolist(),
                strict=True,
            )
            rows = list(rows)
            assert len(rows) == -(-length // mode.products)
            for index, (activation, weight) in enumerate(rows):
                pair = {"activation": activation, "weight": weight, "last": index == len(rows) - 1}
                await stream_put(ctx, dut.i, pair, gap=0.3)
            got = await stream_get(ctx, dut.o, gap=0.3)
            sums = dot(weights, activations, w, a, bias)
            expected = encode_sums(weights, activations, result, sums, relu=relu)
            assert got == int(expected) << 8 - result.bits, layer

    run(dut, testbench)


@pytest.mark.parametrize("latency", [1, 2])
def test_registers_of_products(latency):
    """Each term comes as many moves later as stated, as without registers, in any mix of modes."""
    rng = np.random.default_rng(latency)
    operands = {"activation": [], "weight": []}
    for mode in MODES.values():
        for role, column in operands.items():
            bits = mode.products * mode.place_bits(role)
            words = rng.integers(0, 1 << bits, 25, np.uint64).tolist()
            column += decoded(SPEC, words, role, mode, mode.signed)
    order = rng.permutation(len(operands["weight"])).tolist()
    expected = apply_comb(
        DybitFusedProduct(SPEC),
        {role: [column[index] for index in order] for role, column in operands.items()},
        ["term", "carry"],
    )
    dut = DybitFusedProduct(SPEC, latency=latency)
    got = []

    async def testbench(ctx):
        assert (ctx.get(dut.term), ctx.get(dut.carry)) == (0, 0), "an accumulator takes it as it is"
        for step, index in enumerate(order):
            for role, column in operands.items():
                ctx.set(getattr(dut, role), column[index])
            while True:
                move = int(rng.integers(2))
                ctx.set(dut.move, move)
                if step >= latency:
                    seen = (ctx.get(dut.term), ctx.get(dut.carry))
                    assert seen == (
                        expected["term"][step - latency],
                        expected["carry"][step - latency],
                    )
                    got.append(seen)
                await ctx.tick()
                if move:
                    break

    run(dut, testbench)
    assert len(got) > len(order)


def test_widths():
    """Words of narrow products are no larger than a wide product."""
    assert SPEC.product_width == 28
    assert DybitFusedMacSpec(length=2048).accumulator_width == 39
    widths = {name: [spec.code_bits(role) for role in ROLES] for name, spec in SPECS.items()}
    assert widths == {
        "8x8 4x4 2x2": [32, 32],
        "8x8 4x8 4x4": [16, 16],
        "8x8 4x4": [16, 16],
        "all": [32, 32],
    }


def test_words():
    """By hand: codes in the upper bits of their places, the first in the lowest place."""
    codes = np.array([[1, 2, 3, 0, 1]])

    def words(name, bits, role):
        return SPEC.words(DybitSpec(bits=bits), codes, MODES[name], role).tolist()

    assert words("4x4", 2, "weight") == [[0x0C84, 0x0004]]
    assert words("8x8", 3, "activation") == [[32, 64, 96, 0, 32]]
    assert words("4x8", 4, "weight") == [[0x21, 0x03, 0x01]]
    assert words("4x8", 8, "activation") == [[0x0201, 0x0003, 0x0001]]
    assert words("2x2", 2, "weight") == [[0b01_00_11_10_01]]
    with pytest.raises(ValueError, match=r"spec\.bits must be between 2 and 4, not 5"):
        SPEC.words(DybitSpec(bits=5), codes, MODES["4x4"], "weight")


def test_settings():
    """By hand: mode, signs, and the result's scale in last places of its widest code."""
    one = {bits: 2.0 ** (bits - 1) for bits in range(1, 9)}  # last place 1
    weights = DybitSpec(bits=2, scale=one[1])
    activations = DybitSpec(bits=2, signed=False, scale=one[2])
    result = DybitSpec(bits=8, signed=False, scale=one[8])
    assert SPEC.settings(weights, activations, result) == {
        "activation_mode": 3,
        "weight_mode": 3,
        "activation_has_sign": 0,
        "result_mult": 1 << 15,
        "result_shift": 16,
        "result_drop": 0,
        "result_has_sign": 0,
    }


def test_settings_refused():
    good = DybitSpec(bits=8)
    with pytest.raises(TypeError, match="activations must be a DybitSpec, not FixedSpec"):
        SPEC.settings(good, FixedSpec(bits=8), good)
    with pytest.raises(ValueError, match=r"result\.bits must be between 2 and 8, not 9"):
        SPEC.settings(good, good, DybitSpec(bits=9))
    with pytest.raises(ValueError, match=r"weights\.signed must be True, not False"):
        SPEC.settings(DybitSpec(bits=4, signed=False), good, good)
    fine = DybitSpec(bits=2, scale=2.0**-25)
    with pytest.raises(ValueError, match="scale of the result must be above the sum's last place"):
        SPEC.settings(good, good, fine)
    with pytest.raises(ValueError, match=r"must be below 65535\.5 units of the result"):
        SPEC.settings(good, good, DybitSpec(bits=8, scale=2.0**-40))


def test_bad_parameters():
    with pytest.raises(ValueError, match="bits must be between 8 and 8, not 4"):
        DybitFusedMacSpec(bits=4)
    with pytest.raises(TypeError, match="modes must be a tuple, not '8x8'"):
        DybitFusedMacSpec(modes="8x8")
    for modes in (("8x8",), ("4x4", "2x2"), ("8x8", "4x4", "8x4"), ("8x8", "4x4", "4x4")):
        with pytest.raises(ValueError, match="modes must be 8x8 and 4x4, and more of 8x8, 4x8, "):
            DybitFusedMacSpec(modes=modes)
    for make in (DybitFusedProduct, DybitFusedEncoder):
        with pytest.raises(ValueError, match=r"latency must be between 0 and [25], not -1"):
            make(SPEC, latency=-1)
    for make in (
        DybitFusedProduct,
        DybitFusedEncoder,
        DybitFusedDatapath,
        lambda spec: DybitFusedDecoder(spec, "weight"),
    ):
        with pytest.raises(TypeError, match="spec must be a DybitFusedMacSpec, not 8"):
            make(8)
