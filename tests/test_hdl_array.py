"""Multiply-accumulate unit and systolic array against the golden model."""

import random

import numpy as np
import pytest

from golden.dot import accumulator_exp, dot, matmul
from golden.fixed import FixedSpec
from golden.fixed_mac import FixedMacSpec
from golden.mac import ArraySpec
from golden.tapered import TaperedSpec
from golden.tapered_mac import TaperedMacSpec
from hdl.array import SystolicArray
from hdl.fixed import FixedDatapath
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
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def hardware_bias(mac, weights, activations, bias_q):
    """Golden bias in the units of the hardware's sum; exact."""
    return bias_q << mac.sum_shift(weights, activations)


def draw(case, rows, cols, length, seed):
    """Random codes, biases and the golden result codes with and without ReLU."""
    datapath, (weights, activations, result) = case
    rng = np.random.default_rng(seed)
    bits = datapath.spec.bits
    a = rng.integers(0, 1 << bits, (rows, length))
    w = rng.integers(0, 1 << bits, (length, cols))
    bias_q = rng.integers(-1000, 1000, cols)
    # matmul takes the weights as its left operand
    quire = matmul(weights, activations, w.T, a.T, bias_q[:, None]).T
    exponent = accumulator_exp(weights, activations)
    codes = {relu: result.requantise(quire, exponent, relu=relu) for relu in (False, True)}
    bias = hardware_bias(datapath.spec, weights, activations, bias_q)
    return a, w, bias, codes


def configure(ctx, dut, case, relu):
    datapath, (weights, activations, result) = case
    for port, value in datapath.spec.settings(weights, activations, result).items():
        ctx.set(getattr(dut, port), value)
    ctx.set(dut.relu, relu)


@each_case
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.4, 0.6)], ids=str)
def test_mac(case, gaps):
    """Dot products of lengths from 1 on, one after the other, under any back-pressure."""
    random.seed(3)
    datapath, _ = case
    dut = Mac(datapath)
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
            exponent = accumulator_exp(weights, activations)
            golden_bias = int(bias[0]) >> datapath.spec.sum_shift(weights, activations)
            quire = dot(weights, activations, w[:, 0], a[0], golden_bias)
            got = await stream_get(ctx, dut.o, gap=gaps[1])
            assert got == result.requantise(quire, exponent), f"length {length}"

    run(dut, put, get)


def test_mac_latency_and_throughput():
    """Results of one-product sums come every cycle, ``latency`` cycles after their pair."""
    case = CASES["fixed8"]
    dut = Mac(case[0])
    seen = []

    async def testbench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for value in range(10):
            ctx.set(dut.i.payload, {"activation": value, "weight": 1, "last": 1})
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            seen.append(payload if valid else None)

    run(dut, testbench)
    assert seen == [None] * dut.latency + list(range(10 - dut.latency))


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
    """Tiles of several lengths with pauses at both ends; settings change between tiles."""
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


@pytest.mark.parametrize("options", [{}, {"zero_gating": True}], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 3)], ids=str)
def test_array_cycles(size, options):
    """``cycles`` counts from the first operands of a tile to the first of the next one."""
    case = CASES["fixed4"]
    dut = build(case, *size, **options)
    length = 6
    a, w, bias, codes = draw(case, *size, length, seed=1)
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


def test_array_offers_before_ready():
    """A row of results is offered while ``ready`` is low, and waits unchanged."""
    case = CASES["fixed8"]
    dut = build(case, 2, 2)
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
    with pytest.raises(TypeError, match="spec must be a FixedMacSpec, not 8"):
        FixedDatapath(8)
    with pytest.raises(TypeError, match="spec must be a TaperedMacSpec, not 8"):
        TaperedDatapath(8)
