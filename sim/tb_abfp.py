"""cocotb bench of :class:`hdl.abfp.AbfpTile`."""

import math
from dataclasses import replace

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from golden.abfp import AbfpCodes
from golden.abfp_tile import GAINS
from sim.abfp import AbfpProduct, noise_words
from sim.drivers import Device, check, read
from sim.layout import pack
from sim.parameters import load

PARAMETERS = load()
SYSTEM = PARAMETERS.system
SPEC = SYSTEM.mac
ROWS, LANES, MAX_TILES, INTERVAL = (
    PARAMETERS.attributes[name] for name in ("rows", "lanes", "max_tiles", "interval")
)
BEATS = SPEC.tile // LANES

#: Products with settings of their own, and vectors in each.
PRODUCTS, VECTORS = (10, 4) if PARAMETERS.thorough else (5, 3)

#: Cycles in which the tile is reset, and vectors that are more than it has room for.
RESETS = 24 if PARAMETERS.thorough else 6
MANY_VECTORS = 8 + 48 // ROWS

#: Layers of the network if not all, and the vectors of each.
SOME_LAYERS = 2
LAYER_VECTORS = 4

COVER = PARAMETERS.coverage
COVER.declare("gain", GAINS)
COVER.declare("conversion", ("zero", "positive", "negative", "saturates high", "saturates low"))
COVER.declare("partial", ("zero by a scale of zero", "too small", "largest"))
COVER.declare("scale", ("zero", "power of two", "other"))
COVER.declare("element", ("zero", "minus zero", "subnormal", "infinity", "NaN", "negative"))
COVER.declare("tiles", ("first alone", *(("several", "last short") if MAX_TILES > 1 else ())))
COVER.declare("ReLU", ("off", "clears", "keeps"))


def cover(product):
    """Count what a product was, once it has proved right."""
    spec, trace = product.spec, product.trace
    COVER.count("gain", [spec.gain])
    codes = trace.conversions
    unclamped = np.abs(trace.sums) >= spec.first_saturated
    COVER.mark(
        "conversion",
        {
            "zero": codes == 0,
            "positive": codes > 0,
            "negative": codes < 0,
            "saturates high": unclamped & (trace.sums > 0),
            "saturates low": unclamped & (trace.sums < 0),
        },
    )
    partials = trace.partials & 0x7FFF
    COVER.mark(
        "partial",
        {
            "zero by a scale of zero": (product.scales == 0).T[:, None] & (partials == 0),
            "too small": (codes != 0) & (partials == 0),
            "largest": partials == 0x7F7F,
        },
    )
    fraction = 0 if spec.exp_only else product.scales & 0x7F
    COVER.mark(
        "scale",
        {
            "zero": product.scales == 0,
            "power of two": (product.scales > 0) & (fraction == 0),
            # Without fractions, the elements have them.
            "other": (product.elements & 0x7F) > 0 if spec.exp_only else fraction > 0,
        },
    )
    fields, fractions = product.elements >> 7 & 0xFF, product.elements & 0x7F
    COVER.mark(
        "element",
        {
            "zero": product.elements == 0,
            "minus zero": product.elements == 0x8000,
            "subnormal": (fields == 0) & (fractions > 0),
            "infinity": (fields == 255) & (fractions == 0),
            "NaN": (fields == 255) & (fractions > 0),
            "negative": (product.elements > 0x8000) & (fields > 0),
        },
    )
    tiles = product.scales.shape[1]
    COVER.hit("tiles", "several" if tiles > 1 else "first alone", 1)
    if tiles > 1 and product.length % spec.tile:
        COVER.hit("tiles", "last short", 1)
    COVER.mark(
        "ReLU",
        {
            "off": [not product.relu],
            "clears": product.relu & (product.results == 0),
            "keeps": product.relu & (product.results > 0),
        },
    )


class Tile(Device):
    """The tile, with what is loaded before a product."""

    async def load(self, product):
        """Set the registers, write weights, scales and biases, and clear the counter."""
        self.set("gain", product.log2_gain)
        self.set("relu", int(product.relu))
        self.set("last_tile", product.scales.shape[1] - 1)
        dut = self.dut
        for row in range(ROWS):
            dut.load_row.value = row
            await self._write("bias", [int(product.bias_bits[row])])
            await self._write("scale", product.scales[row].tolist())
            words = pack(self.layout("load_codes"), product.codes[row].reshape(-1, LANES))
            await self._write("codes", words)
        dut.clear.value = 1
        await self.tick()
        dut.clear.value = 0

    async def _write(self, what, words):
        getattr(self.dut, f"load_{what}_en").value = 1
        for address, word in enumerate(words):
            self.dut.load_address.value = address
            getattr(self.dut, f"load_{what}").value = word
            await self.tick()
        getattr(self.dut, f"load_{what}_en").value = 0

    def words(self, product):
        """Words of ``i``."""
        return pack(self.layout("i__payload"), product.elements.reshape(-1, LANES))

    def check(self, product, words, context):
        """Compare words of ``o`` with the golden model."""
        fields = self.results(words)
        shape = product.results.shape
        check(
            product.results.astype(np.int64),
            fields["result"].reshape(shape),
            lambda vector, row: (
                f"vector {vector}, row {row} {context}, {product.spec}, "
                f"scales {product.scales[row].tolist()}"
            ),
        )
        last = np.tile(np.arange(ROWS) == ROWS - 1, shape[0])
        check(last.astype(np.int64), fields["last"], lambda index: f"last of result {index}")
        saturations = read(self.dut.saturations)
        assert saturations == product.saturations, (
            f"{saturations} saturations {context}, not {product.saturations}"
        )
        assert read(self.dut.bad_input) == product.bad_input, f"expected flag {product.bad_input}"
        cover(product)


async def start(dut):
    """Tile after reset."""
    device = Tile(dut, PARAMETERS)
    await device.start()
    return device


def draw(rng, **options):
    """Any product of at most ``MAX_TILES`` tiles, the last one of any length."""
    length = int(rng.integers(1, MAX_TILES * SPEC.tile + 1))
    return SYSTEM.random_product(rng, rows=ROWS, vectors=VECTORS, length=length, **options)


async def run(device, product, context, **options):
    """Load a product, transfer it, and compare."""
    await device.load(product)
    seen = await device.transfer(device.words(product), product.results.size, **options)
    device.check(product, seen.results, context)
    return seen


@cocotb.test()
@cocotb.parametrize(gaps=[(0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (0.4, 0.6)])
async def products(dut, gaps):
    """Run products one after the other, under any pauses at both ends."""
    device = await start(dut)
    rng = PARAMETERS.rng(f"products {gaps}")
    for index in range(PRODUCTS):
        spread, gain = (0, 2, 70)[index % 3], GAINS[index % len(GAINS)]
        product = draw(rng, spread=spread, gain=gain, relu=index % 4 == 1)
        await run(device, product, f"of product {index}", gaps=gaps, rng=rng)
        await device.idle(8)


@cocotb.test()
async def limits(dut):
    """Make sums saturate and cancel, and results reach both ends of the range, in every tile."""
    device = await start(dut)
    # Each row of weights meets each vector: equal numbers, opposite ones, zeros.
    length = MAX_TILES * SPEC.tile - SPEC.tile // 2 * (MAX_TILES > 1)
    signs = np.where(np.arange(length) % 2, -1.0, 1.0)
    kinds = np.stack([np.ones(length), -np.ones(length), signs, np.zeros(length)])
    kinds[2, 0] = 1.5
    for gain, scales in ((16, (1.0, 1.0)), (2, (2.0**120, 2.0**20)), (1, (2.0**-120, 2.0**-20))):
        spec = replace(SPEC, gain=gain)
        for shift in range(0, 4, min(ROWS, 4)):
            rows = np.roll(kinds, -shift, axis=0)[np.arange(ROWS) % 4]
            weights, vectors = (
                (kind * scale).astype(np.float32)
                for kind, scale in zip((rows, kinds), scales, strict=True)
            )
            for relu in (False, True):
                product = AbfpProduct(spec, weights, vectors, relu=relu)
                await run(device, product, f"at gain {gain}")


@cocotb.test()
async def bad_inputs(dut):
    """Infinities and NaN count as zero and raise the flag, until it is cleared."""
    device = await start(dut)
    rng = PARAMETERS.rng("bad_inputs")
    for pattern in (0x7F80, 0xFF80, 0x7FC0, 0x0001, 0x8000):
        product = draw(rng)
        vectors = (product.elements << 16).astype(np.uint32).view(np.float32)
        vectors[:, 0] = np.array(pattern << 16, np.uint32).view(np.float32)
        weights = rng.integers(-8, 9, (ROWS, vectors.shape[1])).astype(np.float32)
        product = AbfpProduct(product.spec, weights, vectors)
        assert product.bad_input == (pattern & 0x7F80 == 0x7F80)
        await run(device, product, f"with {pattern:04X}")


@cocotb.test()
async def noise(dut):
    """Noise from the seeded register, from the port, and none; a tile without has no such port."""
    device = await start(dut)
    rng = PARAMETERS.rng("noise")
    if not SPEC.noise_bits:
        names = [name for name in PARAMETERS.ports if "noise" in name or "seed" in name]
        assert not names, f"expected no ports of noise, got {names}"
        return
    seed, tiles = int(rng.integers(1 << 32)), MAX_TILES
    shape = (VECTORS, tiles, ROWS)
    internal = noise_words(seed, SPEC.noise_bits, math.prod(shape)).reshape(shape)
    external = rng.integers(0, 1 << SPEC.noise_bits, shape)
    dut.noise_enable.value = 1
    for words, given in ((internal, False), (external, True)):
        product = SYSTEM.random_product(
            rng,
            rows=ROWS,
            vectors=VECTORS,
            length=tiles * SPEC.tile,
            noise=words.swapaxes(0, 1),
        )
        dut.noise_external.value = int(given)
        device.set("seed", seed)
        dut.load_seed.value = 1
        await device.tick()
        dut.load_seed.value = 0
        task = cocotb.start_soon(feed(dut, words.ravel().tolist()))
        await run(device, product, f"with noise, external {given}", gaps=(0.2, 0.3), rng=rng)
        await task
    dut.noise_enable.value = 0
    await run(device, draw(rng), "without noise")


async def feed(dut, words):
    """Put a word on the port of noise for each conversion."""
    for word in words:
        dut.noise.value = word
        while True:
            await ReadOnly()
            stepped = read(dut.noise_step)
            await FallingEdge(dut.clk)
            if stepped:
                break


@cocotb.test()
async def network_layers(dut):
    """Run vectors and channels of the embedded network's layers, biases and ReLU included."""
    device = await start(dut)
    arrays = PARAMETERS.arrays
    names = list(dict.fromkeys(name.partition("/")[0] for name in arrays))
    assert names, "expected layers of the network, got none"
    for name in names if PARAMETERS.thorough else names[:SOME_LAYERS]:
        layer = {key: arrays[f"{name}/{key}"] for key in ("codes", "scales", "bias", "inputs")}
        columns = slice(0, MAX_TILES * SPEC.tile)
        # A layer of fewer channels than the tile has rows gives some of them twice.
        channels = np.arange(ROWS) % len(layer["bias"])
        product = AbfpProduct(
            replace(SPEC, gain=int(arrays[f"{name}/gain"])),
            AbfpCodes(
                codes=layer["codes"][channels, columns],
                scales=layer["scales"][channels, :MAX_TILES],
            ),
            layer["inputs"][:LAYER_VECTORS, columns],
            layer["bias"][channels],
            relu=bool(arrays[f"{name}/relu"]),
        )
        if layer["codes"].shape[1] <= MAX_TILES * SPEC.tile:
            # What the network itself computed and stored.
            stored = arrays[f"{name}/results"][:LAYER_VECTORS, channels]
            check(stored, product.results, lambda vector, row: f"model, vector {vector}, row {row}")
        await run(device, product, f"of layer {name}")


@cocotb.test()
async def throughput(dut):
    """Count cycles: without pauses, vectors enter at the rate that is stated."""
    device = await start(dut)
    rng = PARAMETERS.rng("throughput")
    product = SYSTEM.random_product(rng, rows=ROWS, vectors=9, length=SPEC.tile)
    seen = await run(device, product, "at full rate")
    ends = np.array(seen.taken)[ROWS - 1 :: ROWS]
    # The first vectors have an empty tile to themselves.
    expected = np.full(len(ends) - 3, INTERVAL)
    check(expected, np.diff(ends)[2:], lambda index: f"cycles of vector {index + 3}")


@cocotb.test()
async def offers_before_ready(dut):
    """Take nothing for a while: a result is offered, waits unchanged, and nothing is lost."""
    device = await start(dut)
    rng = PARAMETERS.rng("offers_before_ready")
    product = SYSTEM.random_product(rng, rows=ROWS, vectors=MANY_VECTORS, length=SPEC.tile)
    await device.load(product)
    words = device.words(product)
    accepted = 0
    dut.i__valid.value = 1
    for _ in range(MANY_VECTORS * INTERVAL + 40):
        if accepted == len(words):
            dut.i__valid.value = 0
            break
        dut.i__payload.value = words[accepted]
        await device.settled
        accepted += int(dut.i__ready.value)
        await device.tick()
    assert read(dut.o__valid) == 1, "no result was offered while nobody took one"
    assert accepted < len(words), "more vectors were accepted than there is room for"
    seen = await device.transfer(words[accepted:], product.results.size)
    device.check(product, seen.results, "after a wait")


@cocotb.test()
async def reset_in_the_middle(dut):
    """Reset at any time: the next result is right, and nothing of an old one comes.

    What was loaded stays.
    """
    device = await start(dut)
    rng = PARAMETERS.rng("reset_in_the_middle")
    product = SYSTEM.random_product(rng, rows=ROWS, vectors=2, length=SPEC.tile * min(MAX_TILES, 2))
    await device.load(product)
    words = device.words(product)
    last = 3 * INTERVAL + 40
    for cycles in np.unique(np.linspace(1, last, RESETS).astype(int)).tolist():
        dut.i__valid.value = 1
        dut.o__ready.value = int(rng.integers(2))
        for cycle in range(cycles):
            dut.i__payload.value = words[cycle % len(words)]
            await device.tick()
        await device.reset()
        await device.idle(2 * INTERVAL + 40)
        seen = await device.transfer(words, product.results.size)
        device.check(product, seen.results, f"after a reset in cycle {cycles}")
