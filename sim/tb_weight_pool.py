"""cocotb bench of :class:`hdl.weight_pool.WeightPoolEngine`."""

import dataclasses

import cocotb
import numpy as np

from golden.fixed import FixedSpec
from golden.formats import parse
from golden.weight_pool import WeightPoolSpec
from sim.drivers import PATIENCE, Device, check, read
from sim.layout import pack
from sim.parameters import load

PARAMETERS = load()
SYSTEM = PARAMETERS.system
SPEC = SYSTEM.mac

#: Layers with settings of their own.
LAYER_COUNT = 32 if PARAMETERS.thorough else 16

#: Phases of a pixel in which it is reset, if not all of them.
SOME_PHASES = 8

#: Layers of the network, and pixels of each, if not all that are given.
SOME_LAYERS = 2

STREAMS = ("i", "indices")


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
        offering, sent = [False, False], [0, 0]
        results, accepted, taken = [], [], []
        held, begin, last_move = None, self.cycle, self.cycle
        while len(taken) < count or sent != [len(part) for part in words]:
            if cycles is not None and self.cycle - begin >= cycles:
                break
            for number, stream in enumerate(STREAMS):
                left = sent[number] < len(words[number])
                if left and not offering[number]:
                    offering[number] = not gaps[number] or rng.random() >= gaps[number]
                getattr(dut, f"{stream}__valid").value = int(offering[number])
                if offering[number]:
                    getattr(dut, f"{stream}__payload").value = words[number][sent[number]]
            ready = len(taken) < count and (not gaps[2] or rng.random() >= gaps[2])
            dut.o__ready.value = int(ready)
            await self.settled

            moved = False
            for number, stream in enumerate(STREAMS):
                if offering[number] and getattr(dut, f"{stream}__ready").value == 1:
                    offering[number] = False
                    sent[number] += 1
                    moved = True
                    if number == 0:
                        accepted.append(self.cycle)
            word = read(dut.o__payload) if dut.o__valid.value == 1 else None
            assert held is None or word == held, f"result {held:#x} waits, but becomes {word}"
            held = word
            if word is not None and ready:
                results.append(word)
                taken.append(self.cycle)
                held, moved = None, True
            last_move = self.cycle if moved else last_move
            assert self.cycle - last_move < PATIENCE, (
                f"nothing moved for {PATIENCE} cycles after {sent} words of {STREAMS} "
                f"and {len(taken)} of {count} results"
            )
            await self.tick()
        self.rest()
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
        layer = draw_layer(rng, pool, act_bits=act_bits, has_sign=bool(number % 2))
        await engine.compare(rng, layer, f"layer {number}", gaps=gaps)


@cocotb.test()
async def every_row_and_index(dut):
    """Every row of the table with every index: activations of one bit."""
    rng = PARAMETERS.rng("every_row_and_index")
    engine, pool = await start(dut, rng)
    most = min(SPEC.entries, SPEC.max_outputs)
    addresses = np.arange(1 << SPEC.group)
    codes = addresses[:, None] >> np.arange(SPEC.group) & 1
    # Twice: with the sign of the entries, and, where a code has too few bits, with the lowest.
    for first in range(0, SPEC.entries, most):
        indices = np.arange(first, min(first + most, SPEC.entries))[None]
        for shift in sorted({0, max(SPEC.entry_bits - SPEC.bits, 0)}):
            entries = pool.table[:, indices[0]].astype(np.int64)
            activations = FixedSpec(bits=1, frac_bits=0, signed=False)
            result = FixedSpec(bits=SPEC.bits, frac_bits=0)
            layer = SYSTEM.layer(
                pool,
                activations,
                result,
                codes=codes,
                channels=SPEC.group,
                indices=indices,
                bias_q=np.zeros(indices.shape[1], np.int64),
                codes_out=result.rescale(entries, 2.0**-shift) if shift else _clamped(entries),
                relu=False,
            )
            settings = dict(layer.settings) | {"mult": 1 << 15, "shift": 15 + shift}
            layer = dataclasses.replace(layer, settings=settings)
            await engine.compare(rng, layer, f"entries shifted by {shift}")


def _clamped(entries):
    half = 1 << SPEC.bits - 1
    return np.clip(entries, -half, half - 1)


@cocotb.test(skip=not PARAMETERS.arrays)
async def network_layers(dut):
    """Layers of a network retrained with a pool; results are what the golden network stores."""
    rng = PARAMETERS.rng("network_layers")
    engine, _ = await start(dut, rng)
    arrays = PARAMETERS.arrays
    pool = WeightPoolSpec(
        pool=arrays["pool"],
        lut_bits=SPEC.lut_bits,
        layout=SPEC.layout,
        lut_range_exp=int(arrays["lut_range_exp"]),
        exact=bool(arrays["exact"]),
    )
    await engine.load(pool)
    names = sorted({key.split("/")[0] for key in arrays if "/" in key})
    for name in names if PARAMETERS.thorough else names[:SOME_LAYERS]:
        activations, result = (
            parse(str(arrays[f"{name}/{key}_format"])).spec() for key in ("activations", "result")
        )
        layer = SYSTEM.layer(
            pool,
            activations,
            result,
            codes=arrays[f"{name}/activations"],
            channels=int(arrays[f"{name}/channels"]),
            indices=arrays[f"{name}/indices"],
            bias_q=arrays[f"{name}/bias_q"],
            codes_out=arrays[f"{name}/results"],
            relu=bool(arrays[f"{name}/relu"]),
        )
        await engine.compare(rng, layer, name, gaps=(0.1, 0.1, 0.1))


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
    sizes = {(bits, rows) for bits in range(1, SPEC.max_act_bits + 1) for rows in (1, 2, bits)}
    sizes |= {(SPEC.max_act_bits, 9), (1, 5)}
    for act_bits, rows in sorted(sizes):
        outputs = min(min(rows, most) * SPEC.lanes, SPEC.max_outputs)
        layer = draw_layer(
            rng,
            pool,
            act_bits=act_bits,
            outputs=outputs,
            channels=2 * SPEC.group,
            kernel=(1, 1),
            pixels=6,
        )
        context = f"{act_bits} bits and {outputs} outputs"
        accepted, taken = await engine.compare(rng, layer, context)
        period = SPEC.cycles(act_bits, outputs)
        # The first groups fill the pipeline.
        steady = np.diff(accepted[5:])
        check(np.full(len(steady), period), steady, lambda n, c=context: f"period {n} of {c}")
        first = accepted[0] + period + PARAMETERS.attributes["latency"][act_bits - 1]
        starts = first + 2 * period * np.arange(6)
        got = np.array(taken).reshape(6, -1)
        check(starts, got[:, 0], lambda n, c=context: f"cycle of the first code of pixel {n}, {c}")
