"""cocotb bench of :class:`hdl.weight_pool.WeightPoolEngine`."""

import dataclasses

import cocotb
import numpy as np

from golden.fixed import FixedSpec
from golden.formats import parse
from golden.weight_pool import WeightPoolSpec
from sim.drivers import ONE, PATIENCE, Device, check, coins, read
from sim.layout import pack
from sim.parameters import load
from sim.weight_pool import PoolBins

PARAMETERS = load()
SYSTEM = PARAMETERS.system
SPEC = SYSTEM.mac
BINS = PoolBins(PARAMETERS.coverage, SPEC)

#: Layers with settings of their own: each precision with and without a sign, if there are 8.
LAYER_COUNT = 16

#: Phases of a pixel in which it is reset, if not all of them.
SOME_PHASES = 8

#: Layers of the network, if not all, and pixels of each of them.
SOME_LAYERS = 2
SOME_PIXELS = 5

#: Rows of the table that are tried with all shifts, if not all.
SOME_ROWS = 32

STREAMS = ("i", "indices")

WAITS = ("i waits", "i pauses", "indices wait", "indices pause", "o waits", "o is taken at once")
PARAMETERS.coverage.declare("streams", WAITS)


class _Input:
    """Words for one input stream, and what its ports were last set to."""

    def __init__(self, dut, stream, words):
        self.valid, self.payload, self.ready = (
            getattr(dut, f"{stream}__{port}") for port in ("valid", "payload", "ready")
        )
        self.words = words
        self.sent = 0
        self.offered = False
        self.is_valid = None

    @property
    def left(self):
        """Words that were not accepted yet."""
        return len(self.words) - self.sent

    def offer(self, coin):
        """Offer the next word, unless one waits already or ``coin`` says to pause."""
        if not self.offered and self.left and next(coin):
            self.offered = True
            self.payload.value = self.words[self.sent]
        # Writing a port takes longer than anything else here.
        if self.is_valid != self.offered:
            self.valid.value = self.is_valid = self.offered

    def accept(self):
        """Whether the word that is offered is taken in this cycle."""
        if self.ready.value == ONE:
            self.sent += 1
            self.offered = False
            return True
        return False


class Engine(Device):
    """The engine, with its second input stream."""

    async def start(self):
        """Start as others do, and put the streams to rest."""
        await super().start()
        self.rest()

    def rest(self):
        """Offer and take nothing."""
        for stream in STREAMS:
            getattr(self.dut, f"{stream}__valid").value = 0
        self.dut.o__ready.value = 0

    async def reset(self):
        """Reset for one cycle, whatever the streams are doing."""
        await super().reset()
        self.rest()

    async def _write(self, memory, data, row_port, words):
        for row, word in enumerate(words):
            getattr(self.dut, f"{memory}_en").value = 1
            getattr(self.dut, row_port).value = row
            getattr(self.dut, data).value = word
            await self.tick()
        getattr(self.dut, f"{memory}_en").value = 0

    async def load(self, pool):
        """Write the table."""
        rows = np.concatenate(SPEC.stored(pool))
        words = pack(self.layout("load_entries"), rows)
        await self._write("load", "load_entries", "load_row", words)

    async def set_layer(self, layer):
        """Set the ports of a layer, and write its biases."""
        for port, value in layer.settings.items():
            self.set(port, value)
        words = pack(self.layout("bias"), SPEC.lane_words(layer.bias_q))
        await self._write("bias", "bias", "bias_row", words)

    def words(self, rng, layer):
        """Words of both streams for all pixels; lanes without an output channel get any index."""
        pixels, blocks, _ = layer.groups.shape
        last = np.tile(np.arange(blocks) == blocks - 1, pixels)
        groups = layer.groups.reshape(-1, SPEC.group)
        rows = SPEC.lane_words(layer.indices)
        used = SPEC.lane_words(np.ones_like(layer.indices)).astype(bool)
        rows = np.where(used, rows, rng.integers(0, 1 << SPEC.index_bits, rows.shape))
        indices = pack(self.layout("indices__payload"), rows.reshape(-1, SPEC.lanes))
        return self.put_words(codes=groups, last=last.astype(int)), indices * pixels

    async def run(self, words, count, *, gaps=(0.0, 0.0, 0.0), rng=None, cycles=None):
        """Transfer words, by the rules of streams, until ``count`` results were taken.

        Returns the words of ``o``, and the cycles in which groups were accepted and results taken.
        With ``cycles``, stops after that many.
        """
        dut = self.dut
        inputs = [_Input(dut, stream, part) for stream, part in zip(STREAMS, words, strict=True)]
        *go, take = (coins(1 - gap, rng) for gap in gaps)
        o_valid, o_payload, o_ready = dut.o__valid, dut.o__payload, dut.o__ready
        results, accepted, taken = [], [], []
        held, is_ready, begin, last_move = None, None, self.cycle, self.cycle
        seen = dict.fromkeys(WAITS, 0)
        while len(taken) < count or any(each.left for each in inputs):
            if cycles is not None and self.cycle - begin >= cycles:
                break
            for each, coin in zip(inputs, go, strict=True):
                each.offer(coin)
            ready = len(taken) < count and next(take)
            if ready != is_ready:
                o_ready.value = is_ready = ready
            await self.settled

            moved = False
            for number, each in enumerate(inputs):
                waits, pauses = WAITS[2 * number : 2 * number + 2]
                if not each.offered:
                    seen[pauses] += each.left > 0
                elif each.accept():
                    moved = True
                    if number == 0:
                        accepted.append(self.cycle)
                else:
                    seen[waits] += 1
            word = read(o_payload) if o_valid.value == ONE else None
            if word is not None:
                seen["o is taken at once" if ready and held is None else "o waits"] += 1
            assert held is None or word == held, f"result {held:#x} waits, but becomes {word}"
            held = word
            if word is not None and ready:
                results.append(word)
                taken.append(self.cycle)
                held, moved = None, True
            last_move = self.cycle if moved else last_move
            assert self.cycle - last_move < PATIENCE, (
                f"nothing moved for {PATIENCE} cycles with {[each.left for each in inputs]} words "
                f"of {STREAMS} left and {len(taken)} of {count} results"
            )
            await self.tick()
        self.rest()
        for name, number in seen.items():
            PARAMETERS.coverage.hit("streams", name, number)
        return results, accepted, taken

    async def compare(self, rng, layer, context, *, gaps=(0.0, 0.0, 0.0)):
        """Run a layer and compare its codes."""
        await self.set_layer(layer)
        rows = SPEC.rows(layer.outputs)
        pixels = len(layer.groups)
        words = self.words(rng, layer)
        seen, accepted, taken = await self.run(words, rows * pixels, gaps=gaps, rng=rng)
        fields = self.results(seen)
        last = np.arange(rows * pixels) % rows == rows - 1
        check(last, fields["last"], lambda row: f"last with result {row} of {context}")
        codes = fields["codes"].reshape(pixels, -1)[:, : layer.outputs]
        check(
            layer.expected,
            codes,
            lambda pixel, output: (
                f"pixel {pixel}, output {output} of {context}: activations "
                f"{layer.groups[pixel].tolist()}, indices {layer.indices[:, output].tolist()}, "
                f"bias {layer.bias_q[output]}, {dict(layer.settings)}"
            ),
        )
        BINS.count(layer)
        return accepted, taken


async def start(dut, rng):
    """Engine after reset with a table; and its pool."""
    engine = Engine(dut, PARAMETERS)
    await engine.start()
    pool = SYSTEM.random_pool(rng)
    await engine.load(pool)
    return engine, pool


def draw_layer(rng, pool, **fields):
    """Layer of a random size and precision, but for ``fields``."""
    most = min(SPEC.max_outputs, 3 * SPEC.lanes + 2)
    sizes = {
        "outputs": int(rng.integers(1, most + 1)),
        "channels": int(rng.integers(1, 20)),
        "kernel": ((1, 1), (1, 2), (3, 3))[int(rng.integers(3))],
        "act_bits": int(rng.integers(1, SPEC.max_act_bits + 1)),
        "has_sign": bool(rng.integers(2)),
        "pixels": int(rng.integers(1, 4)),
    }
    return SYSTEM.random_layer(rng, pool, **(sizes | fields))


@cocotb.test()
@cocotb.parametrize(
    gaps=[(0.0, 0.0, 0.0), (0.4, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.5), (0.3, 0.3, 0.3)]
)
async def layers(dut, gaps):
    """Random layers, each with settings, biases and a size of its own."""
    rng = PARAMETERS.rng(f"layers {gaps}")
    engine, pool = await start(dut, rng)
    for number in range(LAYER_COUNT):
        # All precisions have their turn.
        act_bits = 1 + number // 2 % SPEC.max_act_bits
        layer = draw_layer(
            rng, pool, act_bits=act_bits, has_sign=bool(number % 2), large_bias=number % 5 == 4
        )
        await engine.compare(rng, layer, f"layer {number}", gaps=gaps)


@cocotb.test()
async def every_row_and_index(dut):
    """Every row of the table with every index: activations of one bit."""
    rng = PARAMETERS.rng("every_row_and_index")
    engine, pool = await start(dut, rng)
    most = min(SPEC.entries, SPEC.max_outputs)
    addresses = np.arange(1 << SPEC.group)
    codes = addresses[:, None] >> np.arange(SPEC.group) & 1
    activations = FixedSpec(bits=1, frac_bits=0, signed=False)
    result = FixedSpec(bits=SPEC.bits, frac_bits=0)
    # Whole entries and, where a code has too few bits, their upper ones.  Of some rows, the halves,
    # half of which are ties, and twice the entries, many of which are too large.
    excess = max(SPEC.entry_bits - SPEC.bits, 0)
    everywhere = slice(None)
    some = rng.permutation(len(addresses))[:SOME_ROWS]
    upper = everywhere if PARAMETERS.thorough else some
    for first in range(0, SPEC.entries, most):
        indices = np.arange(first, min(first + most, SPEC.entries))[None]
        table = pool.table[:, indices[0]].astype(np.int64)
        for rows, shift, relu in (
            (everywhere, 0, False),
            *([(upper, excess, False)] * (excess > 0)),
            *((some, shift, relu) for shift, relu in ((1, False), (-1, False), (-1, True))),
        ):
            entries = table[rows]
            sums = np.where(relu & (entries < 0), 0, entries)
            layer = SYSTEM.layer(
                pool,
                activations,
                result,
                codes=codes[rows],
                channels=SPEC.group,
                indices=indices,
                bias_q=np.zeros(indices.shape[1], np.int64),
                sums=entries,
                codes_out=result.rescale(sums, 2.0**-shift),
                relu=relu,
            )
            settings = dict(layer.settings) | {"mult": 1 << 15, "shift": 15 + shift}
            layer = dataclasses.replace(layer, settings=settings)
            await engine.compare(rng, layer, f"entries shifted by {shift}")


async def run_network_layer(engine, pool, rng, name, rows, gaps):
    """Run output pixels of a layer; results are what the golden network stores."""
    arrays = PARAMETERS.arrays
    activations, result = (
        parse(str(arrays[f"{name}/{key}_format"])).spec() for key in ("activations", "result")
    )
    layer = SYSTEM.layer(
        pool,
        activations,
        result,
        codes=arrays[f"{name}/activations"][rows],
        channels=int(arrays[f"{name}/channels"]),
        indices=arrays[f"{name}/indices"],
        bias_q=arrays[f"{name}/bias_q"],
        sums=arrays[f"{name}/accumulators"][rows],
        codes_out=arrays[f"{name}/results"][rows],
        relu=bool(arrays[f"{name}/relu"]),
    )
    await engine.compare(rng, layer, name, gaps=gaps)


async def start_network(dut, rng):
    """Engine with the table of the network; its pool, and the names of its layers."""
    engine = Engine(dut, PARAMETERS)
    await engine.start()
    arrays = PARAMETERS.arrays
    pool = WeightPoolSpec(
        pool=arrays["pool"],
        lut_bits=SPEC.lut_bits,
        layout=SPEC.layout,
        lut_range_exp=int(arrays["lut_range_exp"]),
        exact=bool(arrays["exact"]),
    )
    await engine.load(pool)
    return engine, pool, sorted({key.split("/")[0] for key in arrays if "/" in key})


@cocotb.test(skip=not PARAMETERS.arrays)
async def network_layers(dut):
    """Run some pixels of layers of a network retrained with a pool, with gaps in all streams."""
    rng = PARAMETERS.rng("network_layers")
    engine, pool, names = await start_network(dut, rng)
    for name in names if PARAMETERS.thorough else names[:SOME_LAYERS]:
        pixels = len(PARAMETERS.arrays[f"{name}/results"])
        rows = np.unique(np.linspace(0, pixels - 1, SOME_PIXELS).astype(int))
        await run_network_layer(engine, pool, rng, name, rows, (0.1, 0.1, 0.1))


@cocotb.test(skip=not PARAMETERS.arrays)
async def whole_layer(dut):
    """Run all pixels of a convolution of the network, as fast as it goes."""
    rng = PARAMETERS.rng("whole_layer")
    engine, pool, names = await start_network(dut, rng)
    # The one with the fewest pixels; of those, the one with the most outputs.
    arrays = PARAMETERS.arrays
    sizes = {name: arrays[f"{name}/results"].shape for name in names}
    name = min(names, key=lambda name: (sizes[name][0], -sizes[name][1]))
    await run_network_layer(engine, pool, rng, name, slice(None), (0.0, 0.0, 0.0))


@cocotb.test()
async def offers_before_ready(dut):
    """Codes are offered and wait unchanged, while both inputs come to rest."""
    rng = PARAMETERS.rng("offers_before_ready")
    engine, pool = await start(dut, rng)
    layer = draw_layer(rng, pool, pixels=1)
    await engine.set_layer(layer)
    groups, indices = engine.words(rng, layer)
    # More than the pipeline holds, so that both inputs must stop.
    longer = [groups * 12, indices * 12]
    limit = 12 * len(groups) * SPEC.cycles(SPEC.max_act_bits, layer.outputs)
    dut.o__ready.value = 0
    seen = await engine.run(longer, 0, cycles=limit)
    assert seen[0] == []
    await engine.settled
    assert dut.o__valid.value == 1, "a code must be offered before it is taken"
    assert dut.indices__ready.value == 0, "no index may be taken while codes wait"
    assert len(seen[1]) < len(longer[0]), "no group may be taken while codes wait"
    await engine.tick()


@cocotb.test()
async def reset_in_the_middle(dut):
    """Reset in any phase of a pixel: everything but the memories is cleared."""
    rng = PARAMETERS.rng("reset_in_the_middle")
    engine, pool = await start(dut, rng)
    act_bits = min(3, SPEC.max_act_bits)
    outputs = min(2 * SPEC.lanes, SPEC.max_outputs)
    phases = rng.permutation(2 * SPEC.cycles(act_bits, outputs) + SPEC.latency(act_bits) + 2)
    for phase in phases.tolist() if PARAMETERS.thorough else phases[:SOME_PHASES].tolist():
        layer = draw_layer(
            rng,
            pool,
            act_bits=act_bits,
            outputs=outputs,
            channels=2 * SPEC.group,
            kernel=(1, 1),
            pixels=2,
        )
        await engine.set_layer(layer)
        await engine.run(engine.words(rng, layer), 99, cycles=phase)
        await engine.reset()
        await engine.compare(rng, layer, f"a layer after a reset in cycle {phase}")


@cocotb.test()
async def cycle_count(dut):
    """Count cycles: groups and codes at the stated rate, the first code after the stated time."""
    rng = PARAMETERS.rng("cycle_count")
    engine, pool = await start(dut, rng)
    most = SPEC.rows(SPEC.max_outputs)
    # So many groups to a pixel that its codes never take longer; and one, where they do.
    sizes = {
        (bits, rows, SPEC.finish_steps)
        for bits in range(1, SPEC.max_act_bits + 1)
        for rows in (1, bits)
    }
    sizes |= {(SPEC.max_act_bits, 9, SPEC.finish_steps), (1, 5, SPEC.finish_steps), (1, 2, 1)}
    pixels = 4
    for act_bits, rows, blocks in sorted(sizes):
        outputs = min(min(rows, most) * SPEC.lanes, SPEC.max_outputs)
        layer = draw_layer(
            rng,
            pool,
            act_bits=act_bits,
            outputs=outputs,
            channels=blocks * SPEC.group,
            kernel=(1, 1),
            pixels=pixels,
        )
        context = f"{act_bits} bits, {outputs} outputs and {blocks} groups"
        accepted, taken = await engine.compare(rng, layer, context)
        period = SPEC.cycles(act_bits, outputs)
        assert period == max(act_bits, -(-outputs // SPEC.lanes))
        pixel = max(blocks * period, SPEC.finish_cycles(outputs))
        if pixel == blocks * period:
            # The first groups fill the pipeline.
            steady = np.diff(accepted[5:])
            check(np.full(len(steady), period), steady, lambda n, c=context: f"period {n} of {c}")
        latency = PARAMETERS.attributes["latency"][act_bits - 1]
        first = accepted[0] + (blocks - 1) * period + latency
        got = np.array(taken).reshape(pixels, -1)[:, 0]
        check(
            first + pixel * np.arange(pixels),
            got,
            lambda n, c=context: f"cycle of the first code of pixel {n}, {c}",
        )
