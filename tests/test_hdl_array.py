"""Multiply-accumulate unit and systolic array against the golden model."""

import random

import numpy as np
import pytest

from golden.dot import dot, encode_sums, matmul
from golden.dybit import DybitSpec
from golden.dybit_mac import DybitMacSpec
from golden.elp_bsd import DigitSet, ElpBsdSpec
from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed import FixedSpec
from golden.fixed_mac import FixedMacSpec
from golden.mac import ArraySpec
from golden.tapered import TaperedSpec
from golden.tapered_mac import TaperedMacSpec
from hdl.array import SystolicArray
from hdl.dybit import DybitDatapath
from hdl.elp_bsd import ElpBsdDatapath
from hdl.fixed import FixedDatapath
from hdl.hierarchy import mark_used
from hdl.mac import Mac
from hdl.tapered import TaperedDatapath
from tests.simulate import run, stream_get, stream_put

#: Hardware, formats of weights, activations and result.
CASES = {
    "fixed8": (
        FixedDatapath(FixedMacSpec(bits=8, length=64)),
        [FixedSpec(bits=8, frac_bits=n) for n in (8, 6, 5)],
    ),
    "fixed4": (
        FixedDatapath(FixedMacSpec(bits=4, length=64)),
        [FixedSpec(bits=4, frac_bits=n) for n in (4, 3, 1)],
    ),
    "tapered8": (
        TaperedDatapath(TaperedMacSpec(bits=8, length=64)),
        [
            TaperedSpec(bits=8, max_run=1, scale_exp=-2),
            TaperedSpec(bits=8, max_run=8),
            TaperedSpec(bits=8, max_run=3),
        ],
    ),
    "tapered8 runs 4 to 7": (
        TaperedDatapath(TaperedMacSpec(bits=8, min_run=4, max_run=7, length=64)),
        [
            TaperedSpec(bits=8, max_run=4, scale_exp=-3),
            TaperedSpec(bits=8, max_run=7),
            TaperedSpec(bits=8, max_run=6),
        ],
    ),
    "tapered5 integer": (
        TaperedDatapath(TaperedMacSpec(bits=5, max_run=5, form="integer", length=64)),
        [
            TaperedSpec(bits=5, max_run=5, scale_exp=-1),
            TaperedSpec(bits=5, max_run=4),
            TaperedSpec(bits=5, max_run=1),
        ],
    ),
}
#: Those of which only arrays and units with more registers are tested here.
PIPELINED_CASES = {
    **CASES,
    "fixed16": (
        FixedDatapath(FixedMacSpec(bits=16, length=64)),
        [FixedSpec(bits=16, frac_bits=n) for n in (12, 14, 8)],
    ),
    "tapered8 integer": (
        TaperedDatapath(TaperedMacSpec(bits=8, max_run=8, form="integer", length=64)),
        [TaperedSpec(bits=8, max_run=run) for run in (5, 8, 2)],
    ),
    "dybit8": (
        DybitDatapath(DybitMacSpec(bits=8, length=64)),
        [
            DybitSpec(bits=8, scale=0.37),
            DybitSpec(bits=8, signed=False, scale=1.9),
            DybitSpec(bits=8, scale=200.0),
        ],
    ),
    "dybit4 with weights of 2 bits": (
        DybitDatapath(DybitMacSpec(bits=4, weight_bits=2, length=64)),
        [DybitSpec(bits=2), DybitSpec(bits=4, scale=0.7), DybitSpec(bits=4, signed=False)],
    ),
    "elp_bsd of two sets": (
        ElpBsdDatapath(ElpBsdMacSpec(length=64, sets=("E4-1", "E4-2"))),
        [
            ElpBsdSpec(set=DigitSet.parse("E4-1"), scale=0.3),
            FixedSpec(bits=8, frac_bits=4, signed=False),
            FixedSpec(bits=8, frac_bits=-4),
        ],
    ),
    "elp_bsd shifted": (
        ElpBsdDatapath(ElpBsdMacSpec(length=64, multiplier=False)),
        [
            ElpBsdSpec(set=DigitSet.parse("E4-2"), scale=0.25),
            FixedSpec(bits=8, frac_bits=4),
            FixedSpec(bits=8, frac_bits=-4),
        ],
    ),
}
each_pipelined_case = pytest.mark.parametrize("case", PIPELINED_CASES.values(), ids=PIPELINED_CASES)
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def hardware_bias(mac, weights, activations, bias_q):
    """Golden bias in the units of the hardware's sum; exact."""
    return bias_q << mac.sum_shift(weights, activations)


def draw(case, rows, cols, length, seed):
    """Random codes, biases and the golden result codes with and without ReLU."""
    datapath, (weights, activations, result) = case
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 1 << datapath.spec.code_bits("activation"), (rows, length))
    w = rng.integers(0, 1 << datapath.spec.code_bits("weight"), (length, cols))
    bias_q = rng.integers(-1000, 1000, cols)
    # matmul takes the weights as its left operand
    sums = matmul(weights, activations, w.T, a.T, bias_q[:, None]).T
    codes = {
        relu: encode_sums(weights, activations, result, sums, relu=relu) for relu in (False, True)
    }
    bias = hardware_bias(datapath.spec, weights, activations, bias_q)
    return a, w, bias, codes


def configure(ctx, dut, case, relu):
    datapath, (weights, activations, result) = case
    for port, value in datapath.spec.settings(weights, activations, result).items():
        ctx.set(getattr(dut, port), value)
    ctx.set(dut.relu, relu)


GAPS = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.4, 0.6)]


@each_case
@pytest.mark.parametrize("gaps", GAPS, ids=str)
def test_mac(case, gaps):
    """Dot products of lengths from 1 on, one after the other, under any back-pressure."""
    check_mac(case, gaps, pipelined=False)


@each_pipelined_case
@pytest.mark.parametrize("gaps", GAPS[::3], ids=str)
def test_pipelined_mac(case, gaps):
    check_mac(case, gaps, pipelined=True)


def check_mac(case, gaps, *, pipelined):
    """Compare dot products of one Mac with the golden model."""
    random.seed(3)
    datapath, _ = case
    dut = Mac(datapath, pipelined=pipelined)
    lengths = [1, 1, 2, 7, 1, 30, 64]
    problems = [draw(case, 1, 1, length, seed=length) for length in lengths]
    bias = problems[0][2]

    async def put(ctx):
        configure(ctx, dut, case, relu=False)
        ctx.set(dut.bias, int(bias[0]))
        for a, w, _, _ in problems:
            for k, (x, y) in enumerate(zip(a[0], w[:, 0], strict=True)):
                pair = {"activation": int(x), "weight": int(y), "last": k == len(w) - 1}
                await stream_put(ctx, dut.i, pair, gap=gaps[0])

    async def get(ctx):
        for (a, w, _, _), length in zip(problems, lengths, strict=True):
            _, (weights, activations, result) = case
            golden_bias = int(bias[0]) >> datapath.spec.sum_shift(weights, activations)
            quire = dot(weights, activations, w[:, 0], a[0], golden_bias)
            got = await stream_get(ctx, dut.o, gap=gaps[1])
            expected = encode_sums(weights, activations, result, quire)
            assert got == expected, f"length {length}"

    run(dut, put, get)


@each_pipelined_case
@pytest.mark.parametrize("pipelined", [False, True])
def test_mac_latency_and_throughput(case, pipelined):
    """Results of one-product sums come every cycle, ``latency`` cycles after their pair."""
    datapath, (weights, activations, result) = case
    dut = Mac(datapath, pipelined=pipelined)
    count = dut.latency + 20
    a, w, _, _ = draw(case, 1, 1, count, seed=4)
    products = [dot(weights, activations, w[k], a[0, k : k + 1], 0) for k in range(count)]
    expected = encode_sums(weights, activations, result, products, relu=True).tolist()
    seen = []

    async def testbench(ctx):
        configure(ctx, dut, case, relu=True)
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for k in range(count):
            pair = {"activation": int(a[0, k]), "weight": int(w[k, 0]), "last": 1}
            ctx.set(dut.i.payload, pair)
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            seen.append(payload if valid else None)

    run(dut, testbench)
    assert seen == [None] * dut.latency + expected[:20]


def test_latencies():
    """Stages by what they are for; the registers of products and encoders are counted there."""
    fixed8, fixed16 = CASES["fixed8"][0], PIPELINED_CASES["fixed16"][0]
    dybit8 = PIPELINED_CASES["dybit8"][0]
    assert Mac(fixed8).latency == 4  # pair, accumulator, sum, code
    assert Mac(fixed8, pipelined=True).latency == 4 + 3 + 1
    assert Mac(fixed16, pipelined=True).latency == 4 + 3 + 1 + 1
    assert Mac(dybit8).latency == 4 + 1  # a multiplier in the encoder
    assert Mac(dybit8, pipelined=True).latency == 4 + 3 + 1 + 5


def build(case, rows, cols, **options):
    spec = ArraySpec(mac=case[0].spec, rows=rows, cols=cols, **options)
    return SystolicArray(case[0], spec)


async def put_tile(ctx, dut, a, w, gap=0.0):
    for k in range(a.shape[1]):
        vectors = {
            "activations": a[:, k].tolist(),
            "weights": w[k].tolist(),
            "last": k == a.shape[1] - 1,
        }
        await stream_put(ctx, dut.i, vectors, gap=gap)


async def get_tile(ctx, dut, gap=0.0):
    rows, cols = dut.spec.rows, dut.spec.cols
    result = np.empty((rows, cols), int)
    for row in reversed(range(rows)):
        payload = await stream_get(ctx, dut.o, gap=gap)
        assert payload.last == (row == 0)
        result[row] = [payload.codes[col] for col in range(cols)]
    return result


@each_case
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((1, 1), {}),
        ((1, 4), {}),
        ((4, 1), {"decoders": "pe"}),
        ((3, 2), {"zero_gating": True}),
        ((2, 3), {"zero_gating": True, "decoders": "pe"}),
    ],
    ids=str,
)
def test_array(case, size, options):
    check_array(case, size, options)


def check_array(case, size, options):
    """Run tiles of several lengths with pauses at both ends; settings change between tiles."""
    random.seed(5)
    dut = build(case, *size, **options)
    tiles = [draw(case, *size, length, seed=length) for length in (1, 2, 13, 64)]

    async def testbench(ctx):
        for index, (a, w, bias, codes) in enumerate(tiles):
            relu = bool(index % 2)
            configure(ctx, dut, case, relu)
            ctx.set(dut.bias, bias.tolist())
            await put_tile(ctx, dut, a, w, gap=0.3 * (index > 1))
            got = await get_tile(ctx, dut, gap=0.3 * (index > 1))
            np.testing.assert_array_equal(got, codes[relu], err_msg=f"tile {index}")

    run(dut, testbench)


PIPELINED_OPTIONS = [
    {"pipelined": True},
    {"pipelined": True, "zero_gating": True},
    {"pipelined": True, "decoders": "pe"},
    {"carry_save": True},
    {"carry_save": True, "pipelined": True, "zero_gating": True, "decoders": "pe"},
]


@each_pipelined_case
@pytest.mark.parametrize("options", PIPELINED_OPTIONS, ids=str)
def test_pipelined_array(case, options):
    check_array(case, (3, 2), options)


@pytest.mark.parametrize("name", ["fixed8", "tapered8", "dybit8", "elp_bsd of two sets"])
def test_rows_wait_in_drains(name):
    """More rows than the drains hold, with pauses when they are taken."""
    check_array(PIPELINED_CASES[name], (11, 1), {"pipelined": True})


@pytest.mark.parametrize("options", PIPELINED_OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["fixed16", "dybit8", "elp_bsd of two sets"])
def test_pipelined_array_cycles(name, options):
    """Without pauses, a tile takes as many cycles as the array states, and no result is wrong."""
    check_cycles(build(PIPELINED_CASES[name], 2, 3, **options), PIPELINED_CASES[name])


def test_carry_save_holds_the_largest_sums():
    """Sums next to both limits of the accumulator: two words wrap where their sum does not."""
    mac = FixedMacSpec(bits=4, length=64)
    case = (FixedDatapath(mac), [FixedSpec(bits=4, frac_bits=n) for n in (0, 0, -9)])
    dut = build(case, 1, 2, carry_save=True)
    codes = np.full((1, 64), 8), np.stack([np.full(64, 8), np.full(64, 7)], axis=1)
    sums = np.array([64 * 64, -64 * 56])
    results = []

    async def testbench(ctx):
        configure(ctx, dut, case, relu=False)
        for bias in (-1, 0):
            ctx.set(dut.bias, [bias, bias])
            await put_tile(ctx, dut, *codes)
            results.append((await get_tile(ctx, dut)).tolist())

    run(dut, testbench)
    # In units of 2**9: 4095 and 4096 are 8, which saturates; -3585 is -7.002, -3584 is -7 exactly.
    assert sums.tolist() == [4096, -3584]
    assert results == [[[7, 16 - 7]], [[7, 16 - 7]]]


def test_array_stages():
    """Cycles that options add to a tile: in the elements before, in the drains after."""
    for name, options, elements, drains in [
        ("fixed8", {}, 0, 0),
        ("fixed8", {"zero_gating": True}, 1, 0),
        ("fixed8", {"pipelined": True}, 1, 2),
        ("fixed8", {"pipelined": True, "zero_gating": True}, 2, 2),
        ("fixed8", {"pipelined": True, "decoders": "pe"}, 1, 2),  # there is no decoder
        ("fixed8", {"carry_save": True}, 0, 0),
        ("fixed16", {"pipelined": True}, 2, 2),
        ("tapered8", {"pipelined": True}, 2, 3),
        ("tapered8", {"pipelined": True, "decoders": "pe"}, 3, 3),
        ("dybit8", {}, 0, 1),
        ("dybit8", {"pipelined": True}, 2, 6),
        ("elp_bsd shifted", {"pipelined": True, "decoders": "pe"}, 1, 2),
    ]:
        dut = build(PIPELINED_CASES[name], 3, 4, **options)
        mark_used(dut)
        assert dut.flush == 1 + 2 + 3 + 1 + 1 + elements, (name, options)
        assert dut.drain_latency == 2 + drains, (name, options)
        assert dut.cycles(10) == 10 + dut.flush - 1 + 3 + dut.drain_latency


@pytest.mark.parametrize("options", [{}, {"zero_gating": True}], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 3)], ids=str)
def test_array_cycles(size, options):
    """``cycles`` counts from the first operands of a tile to the first of the next one."""
    case = CASES["fixed4"]
    check_cycles(build(case, *size, **options), case)


def check_cycles(dut, case):
    """Run two tiles without pauses."""
    length = 6
    a, w, bias, codes = draw(case, dut.spec.rows, dut.spec.cols, length, seed=1)
    accepted = []

    async def put(ctx):
        configure(ctx, dut, case, relu=False)
        ctx.set(dut.bias, bias.tolist())
        for _ in range(2):
            await put_tile(ctx, dut, a, w)

    async def get(ctx):
        for _ in range(2):
            np.testing.assert_array_equal(await get_tile(ctx, dut), codes[False])

    async def watch(ctx):
        for cycle in range(2 * dut.cycles(length)):
            _, _, valid, ready = await ctx.tick().sample(dut.i.valid, dut.i.ready)
            if valid and ready:
                accepted.append(cycle)

    run(dut, put, get, watch)
    # A transfer occupies the cycle before the tick that samples it; put_tile offers back to back.
    assert accepted[length] - accepted[0] == dut.cycles(length)


@pytest.mark.parametrize("pipelined", [False, True])
def test_array_offers_before_ready(pipelined):
    """A row of results is offered while ``ready`` is low, and waits unchanged."""
    case = CASES["fixed8"]
    dut = build(case, 2, 2, pipelined=pipelined)
    a, w, bias, codes = draw(case, 2, 2, 3, seed=2)

    async def testbench(ctx):
        configure(ctx, dut, case, relu=False)
        ctx.set(dut.bias, bias.tolist())
        await put_tile(ctx, dut, a, w)
        await ctx.tick().repeat(40)
        assert ctx.get(dut.o.valid)
        np.testing.assert_array_equal(await get_tile(ctx, dut), codes[False])

    run(dut, testbench)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("rows", 0, ValueError, "rows must be between 1 and 256, not 0"),
        ("cols", 257, ValueError, "cols must be between 1 and 256, not 257"),
        ("decoders", "x", ValueError, "decoders must be 'edge' or 'pe', not 'x'"),
        ("zero_gating", 1, TypeError, "zero_gating must be a bool, not 1"),
        ("pipelined", 1, TypeError, "pipelined must be a bool, not 1"),
        ("carry_save", None, TypeError, "carry_save must be a bool, not None"),
        ("mac", 8, TypeError, "mac must be a MacSpec, not 8"),
    ],
)
def test_bad_spec(field, value, error, message):
    good = {"mac": FixedMacSpec()}
    with pytest.raises(error, match=message):
        ArraySpec(**{**good, field: value})


def test_bad_component():
    datapath = FixedDatapath(FixedMacSpec())
    with pytest.raises(TypeError, match="spec must be an ArraySpec, not 8"):
        SystolicArray(datapath, 8)
    with pytest.raises(ValueError, match="datapath must be for FixedMacSpec"):
        SystolicArray(datapath, ArraySpec(mac=FixedMacSpec(bits=7)))
    with pytest.raises(TypeError, match="pipelined must be a bool, not 1"):
        Mac(datapath, pipelined=1)
    with pytest.raises(TypeError, match="spec must be a FixedMacSpec, not 8"):
        FixedDatapath(8)
    with pytest.raises(TypeError, match="spec must be a TaperedMacSpec, not 8"):
        TaperedDatapath(8)
