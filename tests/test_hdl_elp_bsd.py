"""Decoders, product and datapath of signed digits against the tables of their specification."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.dot import accumulator_unit, encode_sums
from golden.dybit import DybitSpec
from golden.elp_bsd import DigitSet, ElpBsdFormat, ElpBsdSpec
from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed import FixedSpec
from golden.formats import parse
from golden.mac import ArraySpec
from hdl.array import ProcessingElement, SystolicArray
from hdl.elp_bsd import (
    ElpBsdActivationDecoder,
    ElpBsdDatapath,
    ElpBsdProduct,
    ElpBsdShifter,
    ElpBsdWeightDecoder,
)
from hdl.mac import Mac, place_decoder
from narrowgauge.catalogue import SYSTEMS
from synth.verilog import to_verilog
from tests.simulate import apply_comb, run, stream_get, stream_put
from tests.verilog_tools import (
    icarus_complaints,
    needs_icarus,
    needs_verilator,
    verilator_complaints,
)

#: Positions of digit 0 and digit 1, and whether there is a zero code: the specification's table.
SETS = {
    "E3-1": ([0, 1, 2, 3], [], True),
    "E3-1nz": ([0, 1, 2, 3], [], False),
    "E4-1": ([0, 1, 2, 3, 4, 5, 6, 7], [], True),
    "E4-2": ([0, 2], [1, 3], False),
    "E5-2": ([0, 2], [1, 2, 3, 4], False),
    "E6-2": ([0, 1, 2, 3], [2, 3, 4, 5], False),
    "E7-2": ([0, 1, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5], False),
    # Not standard: order and steps of all kinds, no position 0, a constant digit.
    "4/82": ([4], [8, 2], False),
    "3120/13": ([3, 1, 2, 0], [1, 3], False),
    "0124": ([0, 1, 2, 4], [], False),
    "02/13/58": ([0, 2], [1, 3], False),
}


def levels(name):
    """Integer of every code, from its bits as text: sign and position of each digit, high first."""
    first, second, zero = SETS[name]
    lists = [first, *([second] if second else [])]
    if name == "02/13/58":
        lists.append([5, 8])
    widths = [1 + len(positions).bit_length() - 1 for positions in lists]
    values = []
    for code in range(1 << sum(widths)):
        text = f"{code:0{sum(widths)}b}"
        value = 0
        for positions, width in zip(reversed(lists), reversed(widths), strict=True):
            digit, text = text[:width], text[width:]
            value += (-1) ** int(digit[0]) * 2 ** positions[int("0" + digit[1:], 2)]
        values.append(value)
    if zero:
        values[len(values) // 2] = 0
    return values


def test_levels():
    """Section 2: what the codes of two sets stand for."""
    assert levels("E3-1") == [1, 2, 4, 8, 0, -2, -4, -8]
    assert levels("E4-2") == [3, 6, 1, -2, 9, 12, 7, 4, -1, 2, -3, -6, -7, -4, -9, -12]


class Multiplier(wiring.Component):
    """Both decoders and the product, as a processing element places them."""

    def __init__(self, spec):
        self.datapath = ElpBsdDatapath(spec)
        self.settings = {
            f"{role}_{name}": shape
            for role in ("activation", "weight")
            for name, shape in self.datapath.decoder_config(role).items()
        }
        super().__init__(
            {
                "activation_code": In(spec.bits),
                "weight_code": In(spec.code_bits("weight")),
                "term": Out(self.datapath.product().term.shape()),
                "carry": Out(1),
            }
            | {name: In(shape) for name, shape in self.settings.items()}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.product = product = self.datapath.product()
        for role in ("activation", "weight"):
            code = getattr(self, f"{role}_code")
            operand = place_decoder(m, platform, self, self.datapath, role, f"{role}_decoder", code)
            m.d.comb += getattr(product, role).eq(operand)
        m.d.comb += [self.term.eq(product.term), self.carry.eq(getattr(product, "carry", 0))]
        return m


def integers(bits, signed):
    """Integer of every activation code."""
    half = 1 << bits - 1
    return [*range(half), *range(-half, 0)] if signed else [*range(2 * half)]


def check_products(spec, name, *, signed, index=None):
    """All activations times all codes of a set."""
    activations, weights = integers(spec.bits, signed), levels(name)
    pairs = list(itertools.product(range(len(activations)), range(len(weights))))
    inputs = {
        "activation_code": [a for a, _ in pairs],
        "weight_code": [w for _, w in pairs],
        "activation_has_sign": [int(signed)] * len(pairs),
    }
    if index is not None:
        inputs["weight_set"] = [index] * len(pairs)
    got = apply_comb(Multiplier(spec), inputs, ["term", "carry"])
    expected = np.outer(activations, weights).ravel()
    np.testing.assert_array_equal(np.add(got["term"], got["carry"]), expected)
    # A zero activation does not turn the bits of the sum.
    zero = [a == 0 for a, _ in pairs]
    assert not np.any(np.array(got["term"])[zero])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", ["E3-1", "E3-1nz", "E4-1", "E4-2", "E5-2", "E6-2", "E7-2"])
def test_every_product(name, signed):
    """All 256 activations times all codes of the standard sets."""
    check_products(ElpBsdMacSpec(bits=8, sets=(name,)), name, signed=signed)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", ["4/82", "3120/13", "0124", "02/13/58"])
def test_every_product_of_other_sets(name, signed):
    for bits in (2, 5):
        check_products(ElpBsdMacSpec(bits=bits, sets=(name,)), name, signed=signed)


@pytest.mark.parametrize(
    "sets", [("E4-1", "E4-2"), ("E4-2", "E4-1"), ("E3-1", "E3-1nz"), ("E5-2", "3120/13")]
)
def test_sets_at_run_time(sets):
    spec = ElpBsdMacSpec(bits=8, sets=sets)
    for index, name in enumerate(sets):
        for signed in (False, True):
            check_products(spec, name, signed=signed, index=index)


def test_shifter():
    """Without a multiplier: ties to even, saturation and signs, against fractions."""
    spec = ElpBsdMacSpec(bits=4, length=3, multiplier=False)
    top = 1 << spec.sum_width - 1
    for signed, shift in itertools.product([False, True], [0, 1, 2, 5, spec.sum_width, 63]):
        totals = [*range(-70, 71), -top, 1 - top, top - 1]
        low, high = (-8, 7) if signed else (0, 15)
        # Python rounds half to even.
        expected = [min(max(round(Fraction(t, 1 << shift)), low), high) & 15 for t in totals]
        inputs = {
            "total": totals,
            "shift": [shift] * len(totals),
            "has_sign": [int(signed)] * len(totals),
        }
        assert apply_comb(ElpBsdDatapath(spec).encoder(), inputs, ["code"])["code"] == expected


def test_shift_settings_make_the_golden_codes():
    spec = ElpBsdMacSpec(bits=8, length=64, multiplier=False)
    code = FixedSpec(bits=8, frac_bits=3)
    sums = np.arange(-(1 << 17), 1 << 17, 97)
    for exp in (0, -7, -12):
        weights = ElpBsdSpec(set=DigitSet.parse("E4-2"), scale=2.0**exp)
        settings = spec.settings(weights, code, code)
        assert settings == {"activation_has_sign": 1, "result_has_sign": 1, "result_shift": -exp}
        inputs = {"total": sums, "shift": [-exp] * len(sums), "has_sign": [1] * len(sums)}
        got = apply_comb(ElpBsdDatapath(spec).encoder(), inputs, ["code"])["code"]
        np.testing.assert_array_equal(got, encode_sums(weights, code, code, sums))
    for scale, text in [(3.0, "3.0"), (2.0, "2.0"), (2.0**-64, "5.42")]:
        weights = ElpBsdSpec(set=DigitSet.parse("E4-2"), scale=scale)
        with pytest.raises(ValueError, match=rf"must make 2\*\*-63 to 1 units .* not {text}"):
            spec.settings(weights, code, code)


@pytest.mark.parametrize("name", ["E3-1", "E4-1"])
def test_zero_code_leaves_the_sum_alone(name):
    """Section 5, pitfalls: the zero code gates x and the carry, so that no bit turns."""
    spec = ElpBsdMacSpec(bits=8, sets=(name,))
    code = 1 << spec.code_bits("weight") - 1
    inputs = {
        "activation_code": range(256),
        "weight_code": [code] * 256,
        "activation_has_sign": [0] * 256,
    }
    assert apply_comb(Multiplier(spec), inputs, ["term", "carry"]) == {
        "term": [0] * 256,
        "carry": [0] * 256,
    }


def test_activation_decoder():
    spec = ElpBsdMacSpec(bits=8)
    for signed in (False, True):
        inputs = {"code": range(256), "has_sign": [int(signed)] * 256}
        got = apply_comb(ElpBsdActivationDecoder(spec), inputs, ["operand"])["operand"]
        assert got == integers(8, signed)


def element(spec, zero_gating, pairs):
    """Accumulator of a processing element after each cycle, for pairs of codes."""
    dut = ProcessingElement(
        ElpBsdDatapath(spec), ArraySpec(mac=spec, rows=1, cols=1, zero_gating=zero_gating)
    )
    sums = []

    async def testbench(ctx):
        for activation, weight in [*pairs, *[(0, 0)] * dut.latency]:
            ctx.set(dut.activation, activation)
            ctx.set(dut.weight, weight)
            await ctx.tick()
            sums.append(ctx.get(dut.accumulator))

    run(dut, testbench)
    return sums[dut.latency :]


@pytest.mark.parametrize("zero_gating", [False, True])
def test_chain(zero_gating):
    """Section 5: E4-2, unsigned, from 0."""
    pairs = [(181, 0b0100), (255, 0b1111), (7, 0b0110), (128, 0b1001)]
    got = element(ElpBsdMacSpec(bits=8, length=8), zero_gating, pairs)
    assert got == [1629, -1431, -1382, -1126]


@pytest.mark.parametrize("zero_gating", [False, True])
@pytest.mark.parametrize("name", ["E3-1", "E4-1", "E4-2", "E6-2"])
def test_idle_taps(name, zero_gating):
    """A zero activation beside any weight adds nothing; weight code 0 beside others does."""
    spec = ElpBsdMacSpec(bits=8, length=4096, sets=(name,))
    codes = range(1 << spec.code_bits("weight"))
    rng = random.Random(4)
    pairs = [(0, code) for code in codes] + [(activation, 0) for activation in (1, 255)]
    pairs += [(rng.choice([0, rng.randrange(256)]), rng.choice(codes)) for _ in range(100)]
    expected = np.cumsum([a * levels(name)[w] for a, w in pairs]).tolist()
    assert element(spec, zero_gating, pairs) == expected


@pytest.mark.parametrize("decoders", ["edge", "pe"])
@pytest.mark.parametrize("zero_gating", [False, True])
@pytest.mark.parametrize("sets", [("E4-2",), ("E4-1", "E4-2")])
def test_array(sets, zero_gating, decoders):
    """Tiles of an array of either kind, with pauses, sets and signs of their own."""
    rows, cols, length = 2, 3, 5
    mac = ElpBsdMacSpec(bits=8, length=16, sets=sets)
    spec = ArraySpec(mac=mac, rows=rows, cols=cols, decoders=decoders, zero_gating=zero_gating)
    dut = SystolicArray(ElpBsdDatapath(mac), spec)
    rng = np.random.default_rng(3)
    tiles = []
    for number in range(8):
        name = sets[number % len(sets)]
        layer = (
            ElpBsdSpec(set=DigitSet.parse(name), scale=0.3),
            FixedSpec(bits=8, frac_bits=4, signed=bool(number & 2)),
            FixedSpec(bits=8, frac_bits=-4, signed=bool(number & 4)),
        )
        activations = rng.integers(0, 256, (rows, length))
        weights = rng.integers(0, 16, (length, cols))
        bias = rng.integers(-3000, 3000, cols)
        values = np.array(integers(8, layer[1].signed))[activations]
        sums = values @ np.array(levels(name))[weights] + bias
        tiles.append((layer, activations, weights, bias, encode_sums(*layer, sums)))

    async def put(ctx):
        for layer, activations, weights, bias, _ in tiles:
            for port, value in mac.settings(*layer).items():
                ctx.set(getattr(dut, port), value)
            for col in range(cols):
                ctx.set(dut.bias[col], int(bias[col]))
            for k in range(length):
                payload = {
                    "activations": activations[:, k].tolist(),
                    "weights": weights[k].tolist(),
                    "last": k == length - 1,
                }
                await stream_put(ctx, dut.i, payload, gap=0.3)
            await ctx.tick().until(dut.i.ready)

    async def get(ctx):
        for *_, expected in tiles:
            for row in reversed(range(rows)):
                result = await stream_get(ctx, dut.o, gap=0.3)
                assert [result.codes[col] for col in range(cols)] == expected[row].tolist()

    run(dut, put, get)


def test_mac_sums_products_of_both_sets():
    mac = ElpBsdMacSpec(bits=8, length=16, sets=("E4-1", "E4-2"))
    dut = Mac(ElpBsdDatapath(mac))
    layer = (ElpBsdSpec(set=DigitSet.parse("E4-1")), FixedSpec(bits=8, frac_bits=0, signed=False))
    result = FixedSpec(bits=8, frac_bits=-5)
    got = []

    async def testbench(ctx):
        for port, value in mac.settings(*layer, result).items():
            ctx.set(getattr(dut, port), value)
        ctx.set(dut.o.ready, 1)
        for activation, weight, last in [(255, 0b1011, 0), (100, 0b1000, 0), (3, 0b0111, 1)]:
            payload = {"activation": activation, "weight": weight, "last": last}
            await stream_put(ctx, dut.i, payload)
        got.append(await stream_get(ctx, dut.o))

    run(dut, testbench)
    # (255 * -8 + 100 * 0 + 3 * 128) / 32 = -51.75
    assert got == [256 - 52]


def test_settings_make_the_golden_codes():
    spec = ElpBsdMacSpec(bits=8, length=64)
    weights = ElpBsdSpec(set=DigitSet.parse("E4-2"), scale=0.37)
    limit = 1 << spec.sum_width - 1
    rng = np.random.default_rng(2)
    sums = rng.integers(-limit, limit, 300) >> rng.integers(0, spec.sum_width, 300)
    for signed, result_signed in itertools.product([False, True], repeat=2):
        activations = FixedSpec(bits=8, frac_bits=6, signed=signed)
        result = FixedSpec(bits=8, frac_bits=-1, signed=result_signed)
        settings = spec.settings(weights, activations, result)
        assert settings.pop("activation_has_sign") == signed
        inputs = {"total": sums} | {
            name.removeprefix("result_"): [value] * len(sums) for name, value in settings.items()
        }
        got = apply_comb(ElpBsdDatapath(spec).encoder(), inputs, ["code"])["code"]
        np.testing.assert_array_equal(got, encode_sums(weights, activations, result, sums))
        real = accumulator_unit(weights, activations) / result.operand_unit
        assert settings["result_mult"] / 2 ** settings["result_shift"] == pytest.approx(
            real, rel=2**-16
        )


def test_settings_name_the_set():
    spec = ElpBsdMacSpec(sets=("E4-1", "E4-2"))
    code = FixedSpec(bits=8)
    for index, name in enumerate(spec.sets):
        weights = ElpBsdSpec(set=DigitSet.parse(name))
        assert spec.settings(weights, code, code)["weight_set"] == index
    assert "weight_set" not in ElpBsdMacSpec().settings(weights, code, code)


def test_settings_refused():
    spec = ElpBsdMacSpec(bits=8)
    good, code = ElpBsdSpec(set=DigitSet.parse("E4-2")), FixedSpec(bits=8)
    with pytest.raises(ValueError, match=r"weights\.set must be E4-2, not E4-1"):
        spec.settings(ElpBsdSpec(set=DigitSet.parse("E4-1")), code, code)
    with pytest.raises(ValueError, match=r"weights\.bits must be 4, not 3"):
        spec.settings(ElpBsdSpec(set=DigitSet.parse("E3-1")), code, code)
    with pytest.raises(TypeError, match="weights must be a ElpBsdSpec, not FixedSpec"):
        spec.settings(code, code, code)
    with pytest.raises(TypeError, match="activations must be a FixedSpec, not DybitSpec"):
        spec.settings(good, DybitSpec(bits=8), code)
    with pytest.raises(ValueError, match=r"result\.bits must be 8, not 4"):
        spec.settings(good, code, FixedSpec(bits=4))
    large = ElpBsdSpec(set=DigitSet.parse("E4-2"), scale=2.0**30)
    with pytest.raises(
        ValueError, match=r"must be below 65535\.5 units of the result, not 8388608"
    ):
        spec.settings(large, code, FixedSpec(bits=8, frac_bits=0))


def test_for_format():
    pinned = ElpBsdFormat(bits=4, set=DigitSet.parse("E4-2"), act_bits=6)
    assert ElpBsdMacSpec.for_format(pinned, 9) == ElpBsdMacSpec(bits=6, length=9, sets=("E4-2",))
    free = ElpBsdMacSpec.for_format(ElpBsdFormat(bits=4), 9)
    assert (free.bits, free.sets) == (8, ("E4-1", "E4-2"))
    other = ElpBsdFormat(bits=4, set=DigitSet.parse("20/13"))
    assert ElpBsdMacSpec.for_format(other, 9).label == "b8_20_13"
    shifting = ElpBsdMacSpec.for_format(ElpBsdFormat(bits=3, scale_pow2=True), 9)
    assert (shifting.multiplier, shifting.label) == (False, "b8_e3_1_e3_1nz_shift")


def test_widths():
    """Section 5, table: sum bits for activations of 8 bits, and the accumulator."""
    for name, sum_bits in [
        ("E3-1", 12), ("E4-1", 16), ("E4-2", 13), ("E5-2", 14), ("E6-2", 15), ("E7-2", 17),
    ]:  # fmt: skip
        spec = ElpBsdMacSpec(bits=8, length=2048, sets=(name,))
        assert spec.product_width <= sum_bits
        largest = 255 * max(map(abs, levels(name)))
        assert 1 << spec.product_width - 1 > largest
        assert 1 << spec.accumulator_width - 1 > 2048 * largest
    assert ElpBsdMacSpec(bits=8, length=2048).accumulator_width == 24  # section 5


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("bits", 1, ValueError, "bits must be between 2 and 16, not 1"),
        ("bits", 17, ValueError, "bits must be between 2 and 16, not 17"),
        ("length", 0, ValueError, "length must be between 1 and 1048576, not 0"),
        ("sets", "E4-2", TypeError, "sets must be a tuple of str, not 'E4-2'"),
        ("sets", (4,), TypeError, r"sets must be a tuple of str, not \(4,\)"),
        ("sets", (), ValueError, "sets must name at least one digit set, not none"),
        ("sets", ("E4-2", "E3-1"), ValueError, "sets must have the same bits, not E4-2, E3-1"),
        ("sets", ("E4-2", "02/13"), ValueError, "sets must be different, not E4-2, 02/13"),
        ("multiplier", 1, TypeError, "multiplier must be a bool, not 1"),
        ("sets", ("E4-3",), ValueError, "set must be one of"),
    ],
)
def test_bad_spec(field, value, error, message):
    with pytest.raises(error, match=message):
        ElpBsdMacSpec(**{field: value})


@needs_icarus
@needs_verilator
@pytest.mark.parametrize("zero_gating", [False, True])
@pytest.mark.parametrize("name", SYSTEMS["elp_bsd"].presets)
def test_lint(tmp_path, name, zero_gating):
    mac = ElpBsdMacSpec.for_format(parse(name), 64)
    spec = ArraySpec(mac=mac, rows=2, cols=3, zero_gating=zero_gating)
    design = to_verilog(SystolicArray(ElpBsdDatapath(mac), spec))
    assert verilator_complaints(tmp_path, design.text, design.top) == ""
    assert icarus_complaints(tmp_path, design.text) == ""


def test_bad_component_spec():
    for make in (
        ElpBsdProduct, ElpBsdDatapath, ElpBsdActivationDecoder, ElpBsdWeightDecoder, ElpBsdShifter,
    ):  # fmt: skip
        with pytest.raises(TypeError, match="spec must be an ElpBsdMacSpec, not 8"):
            make(8)
