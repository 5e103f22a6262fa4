"""The look-up engine and its units against the golden model, in Amaranth's own simulator."""

import random
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module, Signal

from golden.fixed import FixedSpec
from golden.inference import quantise
from golden.weight_pool import WeightPoolFormat, WeightPoolSpec
from golden.weight_pool_engine import EngineSpec
from golden.weight_pool_system import PoolOperands
from hdl.weight_pool import WeightPoolEngine
from hdl.weight_pool_units import (
    EngineControl,
    Finisher,
    Lane,
    LookUpTable,
    PoolResult,
    RowMemory,
    Transposer,
)
from narrowgauge.networks import digits, retrained_digits
from narrowgauge.onnx_reader import read
from sim.weight_pool import PoolSystem
from synth.verilog import to_verilog
from tests.simulate import run, stream_get, stream_put
from tests.verilog_tools import needs_verilator, verilator_complaints
from tests.weight_pool_oracle import oracle_requantise, oracle_result


def network_layers(name, rows, **options):
    """Operands of the retrained network's pooled layers, some rows of each, and the codes."""
    form = WeightPoolFormat(entries=int(name), **options)
    network, system = retrained_digits(read(digits().model_path), form)
    quantised = quantise(network, system, digits().data.calibration)
    for stream in quantised.streams(digits().data.images[:1]):
        operands = stream.operands
        if isinstance(operands, PoolOperands):
            kept = np.linspace(0, len(operands.activation_codes) - 1, rows).astype(int)
            yield operands, stream, kept


async def set_table(ctx, dut, pool):
    """Load the table, row by row."""
    ctx.set(dut.load_en, 1)
    rows = np.concatenate(dut.spec.stored(pool))
    for row, entries in enumerate(rows.tolist()):
        ctx.set(dut.load_row, row)
        ctx.set(dut.load_entries, entries)
        await ctx.tick()
    ctx.set(dut.load_en, 0)


async def set_layer(ctx, dut, layer):
    for port, value in layer.settings.items():
        ctx.set(getattr(dut, port), value)
    lanes = dut.spec.lanes
    ctx.set(dut.bias_en, 1)
    for row in range(-(-len(layer.bias_q) // lanes)):
        words = layer.bias_q[row * lanes : (row + 1) * lanes].tolist()
        ctx.set(dut.bias_row, row)
        ctx.set(dut.bias, words + [0] * (lanes - len(words)))
        await ctx.tick()
    ctx.set(dut.bias_en, 0)


def index_rows(spec, layer, rng):
    """Words of indices for one pixel; lanes without an output channel get any."""
    for block in layer.indices:
        for start in range(0, layer.outputs, spec.lanes):
            part = block[start : start + spec.lanes].tolist()
            yield part + rng.integers(0, 1 << spec.index_bits, spec.lanes - len(part)).tolist()


def run_layers(dut, layers, *, pool=None, gaps=(0.0, 0.0, 0.0), seed=1, max_cycles=20000):
    """Codes [m, n] of each layer; the next one is set when the last code of one has left."""
    spec, rng = dut.spec, np.random.default_rng(seed)
    random.seed(seed)
    results = [[] for _ in layers]
    started = [-1]

    async def setting(ctx):
        if pool is not None:
            await set_table(ctx, dut, pool)
        for number, layer in enumerate(layers):
            await set_layer(ctx, dut, layer)
            started[0] = number
            for _ in range(len(layer.groups)):
                pixel = []
                for row in range(0, layer.expected.shape[1], spec.lanes):
                    word = await stream_get(ctx, dut.o, gap=gaps[2])
                    assert word.last == (row + spec.lanes >= layer.expected.shape[1])
                    pixel += list(word.codes)
                results[number].append(pixel[: layer.expected.shape[1]])

    async def wait_for(ctx, number):
        while started[0] < number:
            await ctx.tick()

    async def activations(ctx):
        for number, layer in enumerate(layers):
            await wait_for(ctx, number)
            for pixel in layer.groups.tolist():
                for block, codes in enumerate(pixel):
                    word = {"codes": codes, "last": block == len(pixel) - 1}
                    await stream_put(ctx, dut.i, word, gap=gaps[0])

    async def indices(ctx):
        for number, layer in enumerate(layers):
            await wait_for(ctx, number)
            for _ in range(len(layer.groups)):
                for word in index_rows(spec, layer, rng):
                    await stream_put(ctx, dut.indices, word, gap=gaps[1])

    run(dut, setting, activations, indices, max_cycles=max_cycles)
    return results


def assert_layers(dut, layers, **options):
    for layer, codes in zip(layers, run_layers(dut, layers, **options), strict=True):
        np.testing.assert_array_equal(codes, layer.expected)


SMALL = EngineSpec(entries=6, lanes=3, max_outputs=12, length=64)
SYSTEM = PoolSystem(SMALL)

GAPS = [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.6), (0.3, 0.3, 0.3)]


@pytest.mark.parametrize("gaps", GAPS)
def test_layers_of_all_precisions(gaps):
    """Activation bits, signs, outputs and sizes change from layer to layer."""
    rng = np.random.default_rng(5)
    pool = SYSTEM.random_pool(rng)
    layers = [
        SYSTEM.random_layer(
            rng,
            pool,
            outputs=int(outputs),
            channels=int(rng.integers(1, 20)),
            kernel=[(1, 1), (1, 2), (3, 3)][int(rng.integers(3))],
            act_bits=act_bits,
            has_sign=has_sign,
        )
        for act_bits, outputs in zip(
            (8, 1, 5, 2, 3, 7, 4, 6), (7, 12, 1, 3, 4, 9, 2, 11), strict=True
        )
        for has_sign in (False, True)
    ]
    assert_layers(WeightPoolEngine(SMALL), layers, pool=pool, gaps=gaps)


def test_large_sums():
    """Sums that use the whole accumulator need the largest shifts."""
    rng = np.random.default_rng(43)
    pool = SYSTEM.random_pool(rng)
    layers = [
        SYSTEM.random_layer(
            rng, pool, outputs=7, channels=9, act_bits=act_bits, has_sign=True, large_bias=True
        )
        for act_bits in (3, 8)
    ]
    assert all(np.abs(layer.sums).max() > 1 << 29 for layer in layers)
    assert all(layer.settings["shift"] > 31 for layer in layers)
    assert_layers(WeightPoolEngine(SMALL), layers, pool=pool)


@pytest.mark.parametrize(
    "fields",
    [
        {"layout": "nibble"},
        {"layout": "nibble", "group": 4, "lut_bits": 5},
        {"group": 4},
        {"lut_bits": 4, "lut_range_exp": 0},
        {"lut_bits": 11, "exact": True},
        {"entries": 1},
        {"entries": 2, "lanes": 1, "max_outputs": 1},
        {"entries": 256, "lanes": 2, "max_outputs": 4},
        {"entries": 37, "lanes": 16, "max_outputs": 16},
        {"lanes": 5, "max_outputs": 4},
        {"lanes": 6, "requantisers": 2},
        {"lanes": 4, "requantisers": 4},
        {"lanes": 4, "requantisers": 2, "pipelined": True},
        {"lanes": 1, "pipelined": True},
        {"max_act_bits": 1, "length": 9},
        {"max_act_bits": 3, "bits": 3, "accumulator_bits": 18},
        {"lut_bits": 16, "accumulator_bits": 48},
    ],
)
def test_forms(fields):
    """Corners of the parameters."""
    rng = np.random.default_rng(7)
    options = {name: fields[name] for name in ("exact", "lut_range_exp") if name in fields}
    spec = replace(SMALL, **{name: size for name, size in fields.items() if name not in options})
    system = PoolSystem(spec)
    pool = system.random_pool(rng, **options)
    layers = [
        system.random_layer(
            rng, pool, outputs=outputs, channels=19, act_bits=act_bits, has_sign=has_sign
        )
        for act_bits in sorted({1, spec.max_act_bits})
        for has_sign in (False, True)
        for outputs in sorted({1, min(4, spec.max_outputs), spec.max_outputs})
    ]
    assert_layers(WeightPoolEngine(spec), layers, pool=pool, gaps=(0.1, 0.1, 0.1))


@pytest.mark.parametrize("layout", ["full", "nibble"])
def test_table_from_the_start(layout):
    """Contents need not be loaded, and are in the images of the Verilog."""
    rng = np.random.default_rng(3)
    spec = replace(SMALL, layout=layout)
    system = PoolSystem(spec)
    pool = system.random_pool(rng)
    layer = system.random_layer(rng, pool, outputs=5, channels=16, act_bits=8, has_sign=True)
    assert_layers(WeightPoolEngine(spec, pool), [layer])

    files = to_verilog(WeightPoolEngine(spec, pool)).files
    rows = []
    for name in sorted(files, reverse=True):  # low before high
        if "table" in name:
            rows += [int(word, 16) for word in files[name].split() if word[0] not in "/@"]
    entries = [[(row >> 8 * n & 255 ^ 128) - 128 for n in range(spec.entries)] for row in rows]
    if layout == "full":
        np.testing.assert_array_equal(entries, pool.table)
    else:
        low, high = np.split(np.array(entries), 2)
        np.testing.assert_array_equal(
            (high[:, None] + low[None]).reshape(-1, spec.entries), pool.table
        )


@pytest.mark.parametrize(
    ("entries", "options"), [("64", {}), ("32", {"layout": "nibble"}), ("32", {"act_bits": 4})]
)
def test_retrained_network(entries, options):
    """Tensors of the network that was retrained with the pool, and the codes it stores."""
    spec = EngineSpec(
        entries=int(entries), layout=options.get("layout", "full"), max_outputs=64, lanes=7
    )
    layers = []
    for operands, stream, kept in network_layers(entries, 1, **options):
        assert operands.accumulators[kept].any()
        layers.append(
            PoolSystem(spec).layer(
                operands.spec,
                operands.activation_spec,
                stream.output_codec.spec,
                codes=operands.activation_codes[kept],
                channels=operands.channels,
                indices=operands.indices,
                bias_q=operands.bias_q,
                sums=operands.accumulators[kept],
                codes_out=stream.output_codes[kept],
                relu=stream.relu,
            )
        )
    assert len(layers) == 4
    assert_layers(WeightPoolEngine(spec), layers, pool=operands.spec)


def test_zero_point():
    """Unsigned codes about a zero point: padded taps hold it, and the bias makes up for it."""
    rng = np.random.default_rng(11)
    pool = SYSTEM.random_pool(rng)
    codes, indices = rng.integers(0, 256, (2, 3, 3, 8)), rng.integers(0, 6, (3, 3, 1, 5))
    sums = pool.convolve(codes, indices, 8, zero_point=77, pads=(1, 1, 1, 1))
    padded = np.pad(codes, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=77)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    activations, result = (
        FixedSpec(bits=8, frac_bits=4, signed=False),
        FixedSpec(bits=8, frac_bits=1),
    )
    layer = SYSTEM.layer(
        pool,
        activations,
        result,
        codes=windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 72),
        channels=8,
        indices=indices.reshape(9, 5),
        bias_q=-77 * pool.table[-1].astype(int)[indices.reshape(9, 5)].sum(axis=0),
        sums=sums.reshape(-1, 5),
        codes_out=result.rescale(sums, pool.accumulator_unit(activations)).reshape(-1, 5),
        relu=False,
    )
    assert len(np.unique(layer.expected)) > 20
    assert_layers(WeightPoolEngine(SMALL), [layer], pool=pool)


def test_reset_in_the_middle():
    """A reset in any phase: streams start over, tables and biases stay."""
    rng = np.random.default_rng(13)
    pool = SYSTEM.random_pool(rng)
    layer = SYSTEM.random_layer(
        rng, pool, outputs=7, channels=16, pixels=2, act_bits=3, has_sign=True
    )
    dut = WeightPoolEngine(SMALL)
    outcomes = []

    async def testbench(ctx):
        await set_table(ctx, dut, pool)
        await set_layer(ctx, dut, layer)
        words = list(index_rows(SMALL, layer, rng))
        for cycles in range(1, 35):
            for keep_reset in (False, True):
                pixel = layer.groups[cycles % 2]
                groups = [(codes.tolist(), block == 1) for block, codes in enumerate(pixel)]
                rows, got = list(words), []
                ctx.set(dut.o.ready, 1)
                limit = cycles if not keep_reset else 200
                for _ in range(limit):
                    offered = bool(groups), bool(rows)
                    ctx.set(dut.i.valid, offered[0])
                    ctx.set(dut.indices.valid, offered[1])
                    if offered[0]:
                        ctx.set(dut.i.p, {"codes": groups[0][0], "last": groups[0][1]})
                    if offered[1]:
                        ctx.set(dut.indices.p, rows[0])
                    _, _, i_ready, index_ready, valid, word = await ctx.tick().sample(
                        dut.i.ready, dut.indices.ready, dut.o.valid, dut.o.p
                    )
                    if offered[0] and i_ready:
                        groups.pop(0)
                    if offered[1] and index_ready:
                        rows.pop(0)
                    if valid:
                        got += list(word.codes)
                    if keep_reset and len(got) >= 9:
                        break
                if keep_reset:
                    outcomes.append((cycles, np.array(got[:7])))
                ctx.set(dut.i.valid, 0)
                ctx.set(dut.indices.valid, 0)
                ctx.set(reset, not keep_reset)
                await ctx.tick()
                ctx.set(reset, 0)

    reset = Signal()
    top = Module()
    top.domains.sync = domain = ClockDomain()
    top.submodules.dut = dut
    top.d.comb += domain.rst.eq(reset)
    run(top, testbench)
    assert len(outcomes) == 34
    for cycles, codes in outcomes:
        np.testing.assert_array_equal(
            codes, layer.expected[cycles % 2], err_msg=f"reset in cycle {cycles}"
        )


@pytest.mark.parametrize("fields", [{"requantisers": 3}, {}, {"pipelined": True}], ids=str)
@pytest.mark.parametrize(
    ("act_bits", "outputs"), [(8, 3), (8, 12), (4, 12), (3, 12), (1, 3), (1, 12), (2, 9), (5, 1)]
)
def test_cycles_and_latency(fields, act_bits, outputs):
    """Groups are taken at the rate, and codes offered after the time, that the unit states."""
    rng = np.random.default_rng(17)
    spec = replace(SMALL, **fields)
    system = PoolSystem(spec)
    pool = system.random_pool(rng)
    blocks, pixels = 3, 6
    layer = system.random_layer(
        rng, pool, outputs=outputs, channels=24, pixels=pixels, act_bits=act_bits, has_sign=False
    )
    dut = WeightPoolEngine(spec, pool)
    groups = layer.groups.reshape(-1, spec.group).tolist()
    words = [word for _ in range(pixels) for word in index_rows(spec, layer, rng)]
    rows = -(-outputs // 3)
    accepted, offered, lasts = [], [], []

    async def testbench(ctx):
        await set_layer(ctx, dut, layer)
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.indices.valid, 1)
        sent = row = cycle = 0
        while len(offered) < pixels * rows:
            ctx.set(
                dut.i.p,
                {"codes": groups[min(sent, len(groups) - 1)], "last": sent % blocks == blocks - 1},
            )
            ctx.set(dut.i.valid, sent < len(groups))
            ctx.set(dut.indices.p, words[min(row, len(words) - 1)])
            i_ready, index_ready, valid, last = (
                await ctx.tick().sample(dut.i.ready, dut.indices.ready, dut.o.valid, dut.o.p.last)
            )[2:]
            if i_ready and sent < len(groups):
                accepted.append(cycle)
                sent += 1
            row += index_ready
            if valid:
                offered.append(cycle)
                lasts.append(last)
            cycle += 1

    run(dut, testbench)
    period = max(act_bits, rows)
    assert spec.cycles(act_bits, outputs) == period
    # A pixel takes the time of its groups, or that of its codes if that is longer.
    steps = 3 // spec.requantisers
    pixel = max(blocks * period, rows * steps)
    assert spec.finish_cycles(outputs) == rows * steps
    assert set(np.diff(offered[::rows])) == {pixel}
    assert offered[0] == accepted[0] + (blocks - 1) * period + spec.latency(act_bits)
    if pixel == blocks * period:
        # The first groups fill the pipeline.
        assert set(np.diff(accepted[5:])) == {period}
    assert lasts == ([False] * (rows - 1) + [True]) * pixels


def test_offers_before_ready():
    """Codes are offered and wait unchanged, while the streams before them come to rest."""
    rng = np.random.default_rng(19)
    pool = SYSTEM.random_pool(rng)
    layer = SYSTEM.random_layer(rng, pool, outputs=5, channels=8, act_bits=2, has_sign=False)
    dut = WeightPoolEngine(SMALL, pool)
    seen = []

    async def testbench(ctx):
        await set_layer(ctx, dut, layer)
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.p, {"codes": layer.groups[0, 0].tolist(), "last": 1})
        ctx.set(dut.indices.valid, 1)
        for _ in range(60):
            _, _, *row = await ctx.tick().sample(
                dut.o.valid, dut.o.p, dut.i.ready, dut.indices.ready
            )
            seen.append(row)

    run(dut, testbench)
    assert seen[-1][0] == 1
    first = next(n for n, row in enumerate(seen) if row[0])
    assert all(row[:2] == seen[first][:2] for row in seen[first:])
    assert seen[-1][2:] == [0, 0]


def result_codes(layout, has_sign, act_bits, codes):
    """Results of PoolResult for every plane of every group of ``codes``, by the oracle's table."""
    rng = np.random.default_rng(23)
    spec = EngineSpec(entries=1, group=4, layout=layout)
    pool = PoolSystem(spec).random_pool(rng)
    dut = PoolResult(spec)
    stored = [bank[:, 0].tolist() for bank in spec.stored(pool)]
    got = []

    async def testbench(ctx):
        for group in codes:
            for plane in reversed(range(act_bits)):
                address = sum((code >> plane & 1) << i for i, code in enumerate(group))
                parts = [address] if layout == "full" else [address & 3, address >> 2]
                for bank, part in enumerate(parts):
                    ctx.set(dut.entries[bank], stored[bank][part])
                ctx.set(dut.first, plane == act_bits - 1)
                ctx.set(dut.negative, has_sign and plane == act_bits - 1)
                ctx.set(dut.step, plane > 0)
                ctx.set(dut.latch, plane == 0)
                await ctx.tick()
            got.append(ctx.get(dut.result))
        ctx.set(dut.latch, 0)
        await ctx.tick()
        assert ctx.get(dut.result) == got[-1]

    run(dut, testbench, max_cycles=100_000)
    return pool, got


@pytest.mark.parametrize("layout", ["full", "nibble"])
@pytest.mark.parametrize("has_sign", [False, True])
@pytest.mark.parametrize("act_bits", [1, 2, 3, 8])
def test_results(layout, has_sign, act_bits):
    """Every group of activations of up to 2 bits, others drawn with the limits among them."""
    rng = np.random.default_rng(29)
    if act_bits <= 2:
        codes = np.stack(np.meshgrid(*[np.arange(1 << act_bits)] * 4), axis=-1).reshape(-1, 4)
    else:
        codes = rng.integers(0, 1 << act_bits, (300, 4))
        codes[:40] = rng.choice([0, 1 << act_bits - 1, (1 << act_bits) - 1], (40, 4))
    pool, got = result_codes(layout, has_sign, act_bits, codes.tolist())
    table = pool.table.tolist()
    assert got == [oracle_result(table, 0, group, act_bits, has_sign) for group in codes.tolist()]


def test_extreme_results():
    """The largest and the smallest entries fit at all precisions."""
    pool = WeightPoolSpec(pool=np.full((1, 4), -32.0), lut_bits=8, lut_range_exp=7, exact=True)
    assert pool.table.min() == -128
    dut = PoolResult(EngineSpec(entries=1, group=4))
    got = []

    async def testbench(ctx):
        for entry in (-128, 127):
            for has_sign in (False, True):
                # A code of ones: -1 if it has a sign, 255 otherwise; and the sign bit alone.
                for planes in ([1] * 8, [1] + [0] * 7, [0] + [1] * 7):
                    for plane, bit in enumerate(planes):
                        ctx.set(dut.entries[0], entry * bit)
                        ctx.set(dut.first, plane == 0)
                        ctx.set(dut.negative, has_sign and plane == 0)
                        ctx.set(dut.step, plane < 7)
                        ctx.set(dut.latch, plane == 7)
                        await ctx.tick()
                    code = int("".join(map(str, planes)), 2)
                    factor = code - 256 * (has_sign and planes[0])
                    got.append((ctx.get(dut.result), entry * factor))

    run(dut, testbench)
    assert [result for result, _ in got] == [expected for _, expected in got]


@pytest.mark.parametrize("entries", [1, 5, 64])
def test_every_index(entries):
    """A lane gathers the result of each index and adds it; other indices gather zero."""
    rng = np.random.default_rng(31)
    spec = EngineSpec(entries=entries)
    dut = Lane(spec)
    results = rng.integers(-(1 << 15), 1 << 15, entries).tolist()
    got, expected = [], []

    async def testbench(ctx):
        ctx.set(dut.results, results)
        for index in range(1 << spec.index_bits):
            for start in (0, 1):
                bias, accumulator = rng.integers(-(1 << 30), 1 << 30, 2).tolist()
                ctx.set(dut.index, index)
                ctx.set(dut.gather, 1)
                await ctx.tick()
                ctx.set(dut.gather, 0)
                ctx.set(dut.index, 0)
                ctx.set(dut.start, start)
                ctx.set(dut.bias, bias)
                ctx.set(dut.accumulator, accumulator)
                await ctx.tick()
                got.append(ctx.get(dut.sum))
                result = results[index] if index < entries else 0
                expected.append((bias if start else accumulator) + result)

    run(dut, testbench)
    assert got == expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"requantisers": 4},
        {"requantisers": 2, "pipelined": True},
        {"lanes": 1, "pipelined": True},
    ],
    ids=str,
)
def test_finisher(fields):
    """Rows of sums become codes in order: rectified or not, with or without a sign, all widths."""
    rng = np.random.default_rng(37)
    spec = EngineSpec(**({"lanes": 4, "bits": 4, "max_outputs": 16} | fields))
    dut = Finisher(spec)
    rows = 4
    got, expected = [], []
    memory = np.zeros((rows, spec.lanes), np.int64)

    async def testbench(ctx):
        for relu, has_sign, bits in np.ndindex(2, 2, 4):
            largest = (1 << bits + 1 - has_sign) - 1
            ctx.set(dut.relu, relu)
            ctx.set(dut.has_sign, has_sign)
            ctx.set(dut.largest, largest)
            ctx.set(dut.mult, 40000)
            ctx.set(dut.shift, 43)
            ctx.set(dut.last_row, rows - 1)
            low = -largest - 1 if has_sign else 0
            totals = rng.integers(-(1 << 31), 1 << 31, (2 * rows, spec.lanes))
            for row in totals.tolist():
                expected.append(
                    [
                        oracle_requantise(
                            max(total, 0) if relu else total, Fraction(40000, 1 << 43), low, largest
                        )
                        % 16
                        for total in row
                    ]
                )
            written = fetched = taken = 0
            while taken < 2 * rows:
                assert ctx.get(dut.room) == (written - fetched < rows)
                put = written < 2 * rows and ctx.get(dut.room) and rng.random() < 0.7
                ctx.set(dut.put, put)
                ctx.set(dut.o_ready, rng.random() < 0.6)
                read, row, valid, ready, codes, last = (
                    await ctx.tick().sample(
                        dut.read_en, dut.read_row, dut.o_valid, dut.o_ready, dut.o_codes, dut.o_last
                    )
                )[2:]
                if put:
                    memory[written % rows] = totals[written]
                    written += 1
                if read:
                    ctx.set(dut.sums, memory[row].tolist())
                    fetched += 1
                if valid and ready:
                    got.append(list(codes))
                    assert last == (taken % rows == rows - 1)
                    taken += 1
            ctx.set(dut.put, 0)

    run(dut, testbench)
    assert got == expected


@needs_verilator
@pytest.mark.parametrize(
    "spec",
    [
        EngineSpec(),
        EngineSpec(entries=32, lanes=16),
        EngineSpec(layout="nibble"),
        EngineSpec(entries=1, lanes=1, max_outputs=1, max_act_bits=1, bits=1, group=4),
        EngineSpec(entries=37, lut_bits=11, max_act_bits=5, lanes=3, length=1),
    ],
    ids=str,
)
def test_verilog_is_clean(tmp_path, spec):
    design = to_verilog(WeightPoolEngine(spec))
    for name, text in design.files.items():
        (tmp_path / name).write_text(text)
    assert verilator_complaints(tmp_path, design.text, design.top) == ""


def test_memories_are_modules():
    """A flow can replace the table and the accumulators by macros."""
    design = to_verilog(WeightPoolEngine(EngineSpec(layout="nibble")))
    memories = {
        name
        for name, text in design.modules.items()
        if re.search(r"^  reg +\[\d+:0\] \w+ \[0:\d+\];$", text, re.M)
    }
    # What starts as zeros needs no file.
    assert design.files == {}
    assert memories == {
        "weight_pool_table_a4_s64_l8",
        "weight_pool_accumulators_r32_p8_a32",
        "weight_pool_biases_r32_p8_a32",
        "weight_pool_sums_r32_p8_a32",
    }
    assert design.counts()["weight_pool_table_a4_s64_l8"] == 2
    assert design.counts()["weight_pool_result_l8_m8_banks2"] == 64
    assert design.counts()["weight_pool_lane_s64_r17_a32"] == 8
    assert design.counts()["requantiser_s32_b8_l2"] == 1


@pytest.mark.parametrize(
    "make",
    [
        WeightPoolEngine,
        Transposer,
        PoolResult,
        Lane,
        Finisher,
        EngineControl,
        lambda spec: LookUpTable(spec, "table"),
        lambda spec: RowMemory(spec, "biases"),
    ],
)
def test_bad_spec(make):
    with pytest.raises(TypeError, match="spec must be an EngineSpec, not 8"):
        make(8)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"entries": 0}, ValueError, "entries must be between 1 and 256, not 0"),
        ({"entries": 257}, ValueError, "entries must be between 1 and 256, not 257"),
        ({"entries": 8.0}, TypeError, r"entries must be an int, not 8\.0"),
        ({"group": 6}, ValueError, "group must be 4 or 8, not 6"),
        ({"group": 16}, ValueError, "group must be between 4 and 8, not 16"),
        ({"lut_bits": 1}, ValueError, "lut_bits must be between 2 and 16, not 1"),
        ({"layout": "half"}, ValueError, "layout must be full or nibble for hardware, not 'half'"),
        ({"max_act_bits": 9}, ValueError, "max_act_bits must be between 1 and 8, not 9"),
        ({"bits": 0}, ValueError, "bits must be between 1 and 16, not 0"),
        ({"lanes": 0}, ValueError, "lanes must be between 1 and 256, not 0"),
        ({"max_outputs": 0}, ValueError, "max_outputs must be between 1 and 4096, not 0"),
        ({"requantisers": 0}, ValueError, "requantisers must be between 1 and 8, not 0"),
        ({"requantisers": 3}, ValueError, "requantisers must divide the 8 lanes, not 3"),
        ({"pipelined": 1}, TypeError, "pipelined must be a bool, not 1"),
        ({"length": 0}, ValueError, "length must be between 1 and 1048576, not 0"),
        (
            {"accumulator_bits": 24},
            ValueError,
            "accumulator_bits must be between 25 and 48, not 24",
        ),
        (
            {"accumulator_bits": 25, "layout": "nibble"},
            ValueError,
            "accumulator_bits must be between 26 and 48, not 25",
        ),
        (
            {"accumulator_bits": 49},
            ValueError,
            "accumulator_bits must be between 25 and 48, not 49",
        ),
    ],
)
def test_bad_parameters(fields, error, message):
    with pytest.raises(error, match=message):
        EngineSpec(**fields)


def test_settings_that_do_not_fit():
    rng = np.random.default_rng(1)
    pool = SYSTEM.random_pool(rng)
    more = PoolSystem(replace(SMALL, entries=7)).random_pool(rng)
    half = WeightPoolFormat(entries=6, layout="half").with_pool(pool.pool)
    spec = replace(SMALL, max_act_bits=5, bits=6)
    five, six = FixedSpec(bits=5, frac_bits=2), FixedSpec(bits=6, frac_bits=2)
    assert spec.settings(pool, five, six, 12)["last_row"] == 3
    for arguments, error, message in [
        ((8, five, six, 12), TypeError, "pool must be a WeightPoolSpec, not 8"),
        ((more, five, six, 12), ValueError, r"pool\.entries must be 6, not 7"),
        (
            (half, five, six, 12),
            ValueError,
            r"pool\.layout must be full, not half",
        ),
        ((pool, 8, six, 12), TypeError, "activations must be a FixedSpec, not 8"),
        ((pool, six, six, 12), ValueError, r"activations\.bits must be between 1 and 5, not 6"),
        ((pool, five, 8, 12), TypeError, "result must be a FixedSpec, not 8"),
        (
            (pool, five, FixedSpec(bits=7, frac_bits=0), 12),
            ValueError,
            r"result\.bits must be between 1 and 6, not 7",
        ),
        ((pool, five, six, 13), ValueError, "outputs must be between 1 and 12, not 13"),
    ]:
        with pytest.raises(error, match=message):
            spec.settings(*arguments)
    with pytest.raises(ValueError, match=r"pool\.lut_bits must be 8, not 6"):
        WeightPoolEngine(SMALL, PoolSystem(replace(SMALL, lut_bits=6)).random_pool(rng))


def test_formulas():
    """The worked figures of the specification."""
    spec = EngineSpec()
    assert spec.cycles(8, 64) == 8
    assert replace(spec, lanes=16).cycles(4, 64) == 4
    assert replace(spec, lanes=1).cycles(4, 64) == 64
    # 8 rows of 512 bits for 512 products.
    assert spec.table_bits_per_mac(8, 64) == 8
    assert replace(spec, layout="nibble").table_bits_per_mac(4, 64) == 8
    assert spec.accumulator_bits_per_mac(64) == 4
    assert replace(spec, lanes=3).accumulator_bits_per_mac(64) == 22 * 3 * 32 / 512
    assert spec.result_bits == 16
    form = WeightPoolFormat(entries=32, exact=True, act_bits=5)
    sized = EngineSpec.for_format(form, 2305, lanes=4)
    assert (sized.entries, sized.lut_bits, sized.max_act_bits) == (32, 11, 5)
    assert (sized.length, sized.lanes) == (289, 4)
