"""The fused multiplier of dybit in every mode, against exact dot products of the golden model."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest

from golden.dot import dot, encode_sums
from golden.dybit import DybitSpec
from golden.dybit_mac import DybitFusedMacSpec
from golden.fixed import FixedSpec
from hdl.dybit_fused import (
    DybitFusedDatapath,
    DybitFusedDecoder,
    DybitFusedEncoder,
    DybitFusedProduct,
)
from hdl.mac import Mac
from tests.simulate import apply_comb, run, stream_get, stream_put

SPEC = DybitFusedMacSpec(length=64)
#: Bits of weights and activations in every combination of the specification, section 6.
PAIRS = list(itertools.product((8, 4, 2), repeat=2))


def decoded(words, role, narrow, signed):
    """Decoded words."""
    inputs = {"code": words, "narrow": [int(narrow)] * len(words)}
    if role == "activation":
        inputs["has_sign"] = [int(signed)] * len(words)
    return apply_comb(DybitFusedDecoder(SPEC, role), inputs, ["operand"])["operand"]


def multiply(activation_words, weight_words, narrow, signed):
    """Terms of pairs of words, through both decoders, each of which sees each word once."""
    operands = {}
    indices = {}
    for role, words in (("activation", activation_words), ("weight", weight_words)):
        distinct, indices[role] = np.unique(words, return_inverse=True)
        operands[role] = decoded(distinct, role, narrow, signed)
    inputs = {role: [operands[role][i] for i in indices[role]] for role in operands}
    got = apply_comb(DybitFusedProduct(SPEC), inputs, ["term", "carry"])
    return np.add(got["term"], got["carry"])


@pytest.mark.parametrize("signed", [False, True])
def test_every_wide_product(signed):
    """All pairs of codes of 8 bits; those of signed activations count twice."""
    activations, weights = DybitSpec(bits=8, signed=signed), DybitSpec(bits=8)
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256))).reshape(2, -1)
    if signed:  # the sign is all that is new, and the same for all weights
        pairs = np.concatenate([pairs[:, ::7], pairs[:, pairs[1] >> 5 == 5]], axis=1)
    got = multiply(pairs[0], pairs[1], False, signed)
    expected = activations.operands(pairs[0]).astype(int) * weights.operands(pairs[1])
    np.testing.assert_array_equal(got, expected << signed)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("lane", range(4))
def test_every_narrow_product(lane, signed):
    """All pairs of codes of 4 bits in each place, alone and beside random others."""
    activations, weights = DybitSpec(bits=4, signed=signed), DybitSpec(bits=4)
    rng = np.random.default_rng(lane)
    pairs = np.stack(np.meshgrid(np.arange(16), np.arange(16))).reshape(2, -1)
    codes = rng.integers(0, 16, (2, 2, 256, 4))
    codes[:, 0] = 0
    codes[:, :, :, lane] = pairs[:, None]
    a, w = codes.reshape(2, -1, 4)
    got = multiply(
        SPEC.words(activations, a, narrow=True)[:, 0],
        SPEC.words(weights, w, narrow=True)[:, 0],
        True,
        signed,
    )
    np.testing.assert_array_equal(got, dot(weights, activations, w, a) << signed)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("weight_bits", "bits"), [*PAIRS, (3, 4), (5, 7)])
def test_mixed_widths(weight_bits, bits, signed):
    """All 4-bit, 2-bit and mixed pairs; random words where there are four pairs in one."""
    activations, weights = DybitSpec(bits=bits, signed=signed), DybitSpec(bits=weight_bits)
    narrow = SPEC.is_narrow(weights, activations)
    assert narrow == (weight_bits <= 4 and bits <= 4)
    rng = np.random.default_rng(bits)
    length = 4 if narrow else 1
    a = rng.integers(0, 1 << bits, (600, length))
    w = rng.integers(0, 1 << weight_bits, (600, length))
    # The largest sums of both signs, and others of the largest activations.
    a[:6] = (1 << bits) - 1 if not signed else (1 << bits - 1) - 1
    w[:2], w[2:4], w[4:6] = (1 << weight_bits) - 1, 1, (1 << weight_bits - 1) - 1
    got = multiply(
        SPEC.words(activations, a, narrow=narrow)[:, 0],
        SPEC.words(weights, w, narrow=narrow)[:, 0],
        narrow,
        signed,
    )
    shift = SPEC.sum_shift(weights, activations)
    np.testing.assert_array_equal(got, dot(weights, activations, w, a) << shift)


def test_modes_do_not_depend_on_what_is_not_used():
    """The upper byte of a wide word does not matter; zero is all bits zero in both modes."""
    words = np.array([0x0012, 0xFF12, 0xA012])
    first, *others = decoded(words, "activation", False, True)
    assert all(other == first for other in others)
    for narrow, zeros in ((False, [0, 0x80]), (True, [0, 0x8888, 0x0800])):
        for operand in decoded(np.array(zeros), "weight", narrow, True):
            assert operand.as_bits() == 0
    (zero,) = decoded(np.array([0]), "activation", True, False)
    assert zero.as_bits() == 0


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
    if rng.random() < 0.5:  # half of them narrow
        weight_bits, bits = min(weight_bits, 4), min(bits, 4)
    signs = rng.integers(2, size=2).astype(bool).tolist()
    return (
        DybitSpec(bits=weight_bits, scale=float(rng.uniform(0.1, 1))),
        DybitSpec(bits=bits, signed=signs[0], scale=float(rng.uniform(0.1, 1))),
        DybitSpec(bits=result_bits, signed=signs[1], scale=float(rng.uniform(0.1, 30))),
    )


def test_modes_change_between_layers():
    """Dot products through the streaming unit, with other formats for each, under pauses."""
    rng = np.random.default_rng(5)
    random.seed(5)
    dut = Mac(DybitFusedDatapath(SPEC))
    layers = [draw_layer(rng) for _ in range(60)]
    assert {SPEC.is_narrow(weights, activations) for weights, activations, _ in layers} == {0, 1}

    async def testbench(ctx):
        for layer in layers:
            weights, activations, result = layer
            narrow = SPEC.is_narrow(weights, activations)
            length = int(rng.integers(1, 20))
            w = rng.integers(0, 1 << weights.bits, length)
            a = rng.integers(0, 1 << activations.bits, length)
            bias, relu = int(rng.integers(-500, 500)), bool(rng.integers(2))
            for port, value in SPEC.settings(*layer).items():
                ctx.set(getattr(dut, port), value)
            ctx.set(dut.bias, bias << SPEC.sum_shift(weights, activations))
            ctx.set(dut.relu, relu)
            rows = zip(
                SPEC.words(activations, a, narrow=narrow).tolist(),
                SPEC.words(weights, w, narrow=narrow).tolist(),
                strict=True,
            )
            rows = list(rows)
            assert len(rows) == (-(-length // 4) if narrow else length)
            for index, (activation, weight) in enumerate(rows):
                pair = {"activation": activation, "weight": weight, "last": index == len(rows) - 1}
                await stream_put(ctx, dut.i, pair, gap=0.3)
            got = await stream_get(ctx, dut.o, gap=0.3)
            sums = dot(weights, activations, w, a, bias)
            expected = encode_sums(weights, activations, result, sums, relu=relu)
            assert got == int(expected) << 8 - result.bits, layer

    run(dut, testbench)


def test_widths():
    """Words of four narrow products are no larger than a wide product."""
    assert SPEC.product_width == 28
    assert DybitFusedMacSpec(length=2048).accumulator_width == 39
    assert [SPEC.code_bits(role) for role in ("activation", "weight")] == [16, 16]


def test_words():
    """By hand: codes in the upper bits of their places, the first in the lowest place."""
    codes = np.array([[1, 2, 3, 0, 1]])
    assert SPEC.words(DybitSpec(bits=2), codes, narrow=True).tolist() == [[0x0C84, 0x0004]]
    assert SPEC.words(DybitSpec(bits=3), codes, narrow=False).tolist() == [[32, 64, 96, 0, 32]]
    with pytest.raises(ValueError, match=r"spec\.bits must be between 2 and 4, not 5"):
        SPEC.words(DybitSpec(bits=5), codes, narrow=True)


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
    for make in (
        DybitFusedProduct,
        DybitFusedEncoder,
        DybitFusedDatapath,
        lambda spec: DybitFusedDecoder(spec, "weight"),
    ):
        with pytest.raises(TypeError, match="spec must be a DybitFusedMacSpec, not 8"):
            make(8)
