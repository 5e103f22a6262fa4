"""bfloat16 multiply-accumulate against the golden model."""

import random

import numpy as np
import pytest

from golden.bfloat16_mac import accumulate, dot
from hdl.bfloat16_mac import Bfloat16Mac, Bfloat16Product
from synth.verilog import to_verilog
from tests.simulate import apply_comb, run, stream_get, stream_put
from tests.verilog_tools import needs_verilator, verilator_complaints


def operands(rng, count):
    """Pairs of numbers whose products are in range, at its ends, and beyond."""
    a = rng.integers(0, 1 << 15, count)
    wanted = np.array([127, 0, 254])[np.arange(count) % 3] + rng.integers(-3, 4, count)
    fields = np.clip(wanted + 127 - (a >> 7), 0, 255)
    b = fields << 7 | rng.integers(0, 128, count)
    a[::50] &= 0x7F
    b[1::50] |= 0x7F80
    signs = rng.integers(0, 2, (2, count)) << 15
    return a | signs[0], b | signs[1]


def test_product():
    a, b = operands(np.random.default_rng(1), 5000)
    got = apply_comb(Bfloat16Product(), {"a": a, "b": b}, ["product"])["product"]
    expected = accumulate(a[:, None], b[:, None]).view(np.uint32)
    np.testing.assert_array_equal(got, expected)
    assert np.count_nonzero(expected & 0x7FFFFFFF == 0x7F7FFFFF) > 100


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.5, 0.5)])
def test_mac(gaps, pipelined):
    """Groups of dot products in turns, of several lengths, one after the other."""
    rng = np.random.default_rng(2)
    random.seed(1)
    dut = Bfloat16Mac(pipelined)
    sums = dut.interleaved
    groups = [
        tuple(part.reshape(length, sums) for part in operands(rng, length * sums))
        for length in (1, 5, 2, 1, 9)
    ]
    # Sums that neither vanish nor saturate.
    groups += [
        tuple(rng.integers(0x3F00, 0x4100, (7, sums)) | rng.integers(0, 2, (7, sums)) << 15
              for _ in range(2))
    ]  # fmt: skip
    got = []

    async def put(ctx):
        for a, b in groups:
            for index, (row_a, row_b) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
                for x, w in zip(row_a, row_b, strict=True):
                    pair = {"activation": x, "weight": w, "last": index == len(a) - 1}
                    await stream_put(ctx, dut.i, pair, gap=gaps[0])

    async def get(ctx):
        for _ in groups:
            got.append([await stream_get(ctx, dut.o, gap=gaps[1]) for _ in range(sums)])
        assert not ctx.get(dut.o.valid)

    run(dut, put, get)
    expected = [dot(a.T, b.T).tolist() for a, b in groups]
    assert got == expected


@pytest.mark.parametrize("pipelined", [False, True])
def test_rate(pipelined):
    """A pair in every cycle, and the stated cycles to the first result."""
    dut = Bfloat16Mac(pipelined)
    seen = []

    async def put(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        for pair in range(4 * dut.interleaved):
            last = pair >= 3 * dut.interleaved
            ctx.set(dut.i.payload, {"activation": 0x3F80, "weight": 0x4000, "last": last})
            assert ctx.get(dut.i.ready)
            await ctx.tick()
            seen.append(ctx.get(dut.o.valid))
        ctx.set(dut.i.valid, 0)
        for _ in range(20):
            await ctx.tick()
            seen.append(ctx.get(dut.o.valid))

    run(dut, put)
    # The first last pair was accepted in the cycle of this index.
    begin = 3 * dut.interleaved
    assert seen.index(1) == begin + dut.latency - 1
    assert sum(seen) == dut.interleaved


def test_bad_parameters():
    with pytest.raises(ValueError, match="latency must be one of 0, 1, 3, not 2"):
        Bfloat16Product(2)
    with pytest.raises(TypeError, match="pipelined must be a bool, not 1"):
        Bfloat16Mac(1)


@needs_verilator
@pytest.mark.parametrize("pipelined", [False, True])
def test_lint(pipelined, tmp_path):
    design = to_verilog(Bfloat16Mac(pipelined))
    assert verilator_complaints(tmp_path, design.text, design.top) == ""
