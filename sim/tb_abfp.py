"""cocotb bench of :class:`hdl.abfp.AbfpTile`."""

import cocotb
import numpy as np

from sim.drivers import Device, check, read
from sim.layout import pack
from sim.parameters import load

PARAMETERS = load()
SYSTEM = PARAMETERS.system
SPEC = SYSTEM.mac
ROWS, LANES, MAX_TILES = (PARAMETERS.attributes[name] for name in ("rows", "lanes", "max_tiles"))

#: Products with settings of their own, and vectors in each.
PRODUCTS, VECTORS = (12, 6) if PARAMETERS.thorough else (4, 4)


class Tile(Device):
    """The tile, with what is loaded before a product."""

    async def load(self, product):
        """Set the registers, write weights, scales and biases, and clear the counter."""
        self.set("gain", product.log2_gain)
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
        assert read(self.dut.bad_input) == product.bad_input


async def start(dut):
    """Tile after reset."""
    device = Tile(dut, PARAMETERS)
    await device.start()
    return device


def draw(rng, **options):
    """Any product of at most ``MAX_TILES`` tiles, the last one of any length."""
    length = int(rng.integers(1, MAX_TILES * SPEC.tile + 1))
    return SYSTEM.random_product(rng, rows=ROWS, vectors=VECTORS, length=length, **options)


@cocotb.test()
@cocotb.parametrize(gaps=[(0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (0.4, 0.6)])
async def products(dut, gaps):
    """Run products one after the other, under any pauses at both ends."""
    device = await start(dut)
    rng = PARAMETERS.rng(f"products {gaps}")
    for index in range(PRODUCTS):
        product = draw(rng, spread=(0, 2, 70)[index % 3])
        await device.load(product)
        words = device.words(product)
        seen = await device.transfer(words, product.results.size, gaps=gaps, rng=rng)
        device.check(product, seen.results, f"of product {index}")
        await device.idle(8)


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
        product = type(product)(product.spec, weights, vectors)
        assert product.bad_input == (pattern & 0x7F80 == 0x7F80)
        await device.load(product)
        seen = await device.transfer(device.words(product), product.results.size)
        device.check(product, seen.results, f"with {pattern:04X}")


@cocotb.test()
async def throughput(dut):
    """Count cycles: without pauses, vectors enter at the rate that is stated."""
    device = await start(dut)
    rng = PARAMETERS.rng("throughput")
    beats = SPEC.tile // LANES
    product = SYSTEM.random_product(rng, rows=ROWS, vectors=9, length=SPEC.tile)
    await device.load(product)
    seen = await device.transfer(device.words(product), product.results.size)
    device.check(product, seen.results, "at full rate")
    ends = np.array(seen.taken)[ROWS - 1 :: ROWS]
    # The first vector has an empty tile to itself.
    expected = np.full(len(ends) - 2, max(beats, ROWS))
    check(expected, np.diff(ends)[1:], lambda index: f"cycles of vector {index + 2}")


@cocotb.test()
async def offers_before_ready(dut):
    """Take nothing for a while: a result is offered, waits unchanged, and nothing is lost."""
    device = await start(dut)
    rng = PARAMETERS.rng("offers_before_ready")
    product = SYSTEM.random_product(rng, rows=ROWS, vectors=12, length=SPEC.tile)
    await device.load(product)
    words = device.words(product)
    accepted = 0
    dut.i__valid.value = 1
    for _ in range(12 * max(SPEC.tile // LANES, ROWS) + 20):
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
    """Reset at any time: the next result is right, and nothing of an old one comes."""
    device = await start(dut)
    rng = PARAMETERS.rng("reset_in_the_middle")
    beats = SPEC.tile // LANES
    for cycles in range(1, 3 * (beats + ROWS) + 8, 1 if PARAMETERS.thorough else 3):
        product = SYSTEM.random_product(rng, rows=ROWS, vectors=2, length=SPEC.tile * MAX_TILES)
        await device.load(product)
        dut.i__valid.value = 1
        dut.o__ready.value = int(rng.integers(2))
        words = device.words(product)
        for cycle in range(cycles):
            dut.i__payload.value = words[cycle % len(words)]
            await device.tick()
        await device.reset()
        await device.idle(2 * (beats + ROWS) + 8)
        seen = await device.transfer(words, product.results.size)
        device.check(product, seen.results, f"after a reset in cycle {cycles}")
