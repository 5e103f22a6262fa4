"""cocotb bench of :class:`hdl.array.SystolicArray`, for any number system."""

import itertools

import cocotb
import numpy as np

from golden.formats import parse
from sim.bins import ElementBins
from sim.drivers import Device, check
from sim.parameters import load
from sim.system import Layer, draw_biases, draw_codes, exact_sums, rounded, steered_biases

PARAMETERS = load()
SYSTEM = PARAMETERS.system
MAC = SYSTEM.mac
ROWS, COLS = PARAMETERS.attributes["rows"], PARAMETERS.attributes["cols"]
#: Numbers of products, and the cycles that the component states for tiles of them.
TILES = PARAMETERS.attributes["tiles"]

#: Rows of activations, products in a sum, columns of weights: nothing is a multiple of anything.
SIZES = [(7, 13, 5), (1, 29, 3), (5, 7, 1), (3, 1, 7), (1, 1, 1)]
if PARAMETERS.thorough:
    SIZES += [(13, 5, 11), (11, 61, 2), (2, 37, 17), (1, 3, 13), (17, 2, 1), (1, 101, 1)]

#: Tiles with settings of their own.
TILE_COUNT = 25 if PARAMETERS.thorough else 15

#: More of them, if that many hit all bins no sooner.
MOST_TILES = 5 * TILE_COUNT

#: How a tile fills the array; one with a single row or column is always full of them.
TILES_OF = ["full", *["fewer rows"] * (ROWS > 1), *["fewer columns"] * (COLS > 1)]

#: Layers of the network, and phases of a tile in which it is reset, if not all of them.
SOME_LAYERS = 2
SOME_PHASES = 12


COVER = PARAMETERS.coverage
BINS = ElementBins(COVER, SYSTEM)
BINS.declare_layers()
COVER.declare("tile", TILES_OF)


async def start(dut):
    """Device after reset."""
    device = Device(dut, PARAMETERS)
    await device.start()
    return device


def padded(rng, codes, shape, bits=MAC.bits):
    """Codes in the corner of a larger array of random codes, whose results nobody looks at."""
    larger = draw_codes(rng, bits, shape)
    larger[tuple(slice(size) for size in codes.shape)] = codes
    return larger


def tile_words(device, layer, activations, weights):
    """Words of ``i`` for activation codes [rows, k] and weight codes [k, cols]."""
    activations = SYSTEM.words(layer, "activation", activations)
    weights = SYSTEM.words(layer, "weight", weights.T).T
    last = np.zeros(len(weights), int)
    last[-1] = 1
    return device.put_words(activations=activations.T, weights=weights, last=last)


def tile_results(device, seen, layer):
    """Codes [rows, cols] that left, after a look at ``last``; the bottom row leaves first."""
    fields = device.results(seen.results)
    last = np.arange(ROWS) == ROWS - 1
    check(last, fields["last"], lambda row: f"last with result {row} of {layer}")
    return SYSTEM.codes(layer, fields["codes"][::-1])


async def run_tile(device, rng, layer, activations, weights, bias_q, *, relu, gaps=(0.0, 0.0)):
    """Set everything for a tile and run it; fewer rows or columns than the array has will do."""
    device.configure(layer, padded(rng, bias_q, (COLS,)), relu=relu)
    shape = (ROWS, activations.shape[1])
    words = tile_words(
        device,
        layer,
        padded(rng, activations, shape, SYSTEM.code_bits(layer, "activation")),
        padded(rng, weights, (len(weights), COLS), SYSTEM.code_bits(layer, "weight")),
    )
    seen = await device.transfer(words, ROWS, gaps=gaps, rng=rng)
    codes = tile_results(device, seen, layer)
    return codes[: len(activations), : weights.shape[1]]


async def compare_product(
    device, rng, layer, activations, weights, bias_q, *, relu, gaps=(0.0, 0.0), expected=None
):
    """Multiply matrices tile by tile and compare with the golden model, or with ``expected``."""
    sums = exact_sums(layer, activations, weights, bias_q)
    if expected is None:
        expected = rounded(layer, sums, relu=relu)
    got = np.empty(expected.shape, np.int64)
    fills = []
    for top, left in itertools.product(
        range(0, len(activations), ROWS), range(0, weights.shape[1], COLS)
    ):
        rows, cols = slice(top, top + ROWS), slice(left, left + COLS)
        used = expected[rows, cols].shape
        partial = {"fewer rows": used[0] < ROWS, "fewer columns": used[1] < COLS}
        fills += [name for name, is_so in partial.items() if is_so] or ["full"]
        got[rows, cols] = await run_tile(
            device,
            rng,
            layer,
            activations[rows],
            weights[:, cols],
            bias_q[cols],
            relu=relu,
            gaps=gaps,
        )

    def describe(row, col):
        return (
            f"row {row}, column {col} of {len(activations)} x {len(weights)} x {weights.shape[1]}: "
            f"activations {activations[row].tolist()} times weights {weights[:, col].tolist()} "
            f"plus {bias_q[col]}, relu={relu}, {layer}"
        )

    check(expected.astype(np.int64), got, describe)
    BINS.count_layer(
        layer,
        activations[:, :, None],
        weights,
        sums=sums,
        bias_q=bias_q,
        relu=relu,
        expected=expected,
    )
    COVER.count("tile", fills)


def draw_product(rng, layer: Layer, size):
    """Random codes and biases of a matrix product."""
    rows, length, cols = size
    activations = draw_codes(rng, SYSTEM.code_bits(layer, "activation"), (rows, length))
    weights = draw_codes(rng, SYSTEM.code_bits(layer, "weight"), (length, cols))
    return activations, weights, draw_biases(rng, MAC, layer, length, cols)


def draw_tile(rng, layer: Layer, words):
    """Random codes and biases of a tile of so many words."""
    return draw_product(rng, layer, (ROWS, words * SYSTEM.products(layer), COLS))


@cocotb.test()
@cocotb.parametrize(gaps=[(0.0, 0.0), (0.3, 0.0), (0.0, 0.5), (0.3, 0.5)])
async def matrix_products(dut, gaps):
    """Random matrices of awkward sizes, tile by tile, each with settings of its own."""
    device = await start(dut)
    rng = PARAMETERS.rng(f"matrix_products {gaps}")
    for size in SIZES:
        layer = SYSTEM.random_layer(rng)
        matrices = draw_product(rng, layer, size)
        relu = bool(rng.integers(2))
        await compare_product(device, rng, layer, *matrices, relu=relu, gaps=gaps)


@cocotb.test()
async def tiles_with_other_settings(dut):
    """Change settings and biases with every tile, in the cycle in which the next one may come."""
    device = await start(dut)
    rng = PARAMETERS.rng("tiles_with_other_settings")
    for tile in range(MOST_TILES):
        if tile >= TILE_COUNT and COVER.is_full:
            break
        layer = SYSTEM.random_layer(rng)
        length = int(rng.integers(1, 6))
        activations, weights, bias_q = draw_product(rng, layer, (ROWS, length, COLS))
        if tile % 2:
            row = int(rng.integers(ROWS))
            sums = exact_sums(layer, activations[[row]], weights, np.zeros(COLS, np.int64))
            bias_q = steered_biases(rng, MAC, layer, length, sums[0])
        relu = bool(rng.integers(2)) and not tile % 2
        await compare_product(device, rng, layer, activations, weights, bias_q, relu=relu)


@cocotb.test(skip=not PARAMETERS.arrays)
async def network_layers(dut):
    """Layers of a trained network; the results are the codes that the golden network stores."""
    device = await start(dut)
    rng = PARAMETERS.rng("network_layers")
    arrays = PARAMETERS.arrays
    layers = sorted({key.split("/")[0] for key in arrays})
    for name in layers if PARAMETERS.thorough else layers[:SOME_LAYERS]:
        tensors = {key: arrays[f"{name}/{key}"] for key in ("activations", "weights", "bias_q")}
        formats = [str(arrays[f"{name}/{key}_format"]) for key in Layer._fields]
        await compare_product(
            device,
            rng,
            Layer(*(parse(text).spec() for text in formats)),
            **tensors,
            relu=bool(arrays[f"{name}/relu"]),
            gaps=(0.05, 0.2),
            expected=arrays[f"{name}/results"],
        )


@cocotb.test()
async def offers_before_ready(dut):
    """Rows of results are offered and wait unchanged while they are not taken."""
    device = await start(dut)
    rng = PARAMETERS.rng("offers_before_ready")
    layer = SYSTEM.random_layer(rng)
    activations, weights, bias_q = draw_tile(rng, layer, 3)
    device.configure(layer, bias_q, relu=False)
    await device.transfer(tile_words(device, layer, activations, weights), 0)
    # The first row leaves ``ROWS`` cycles before the next tile may come.
    wait = dict(TILES)[3] - 3 - ROWS
    await device.idle(wait)
    for row in range(ROWS):
        await device.settled
        assert dut.o__valid.value == 1, f"row {row} must be offered before it is taken"
        assert dut.i__ready.value == 0, "no tile may come while results wait"
        await device.tick(3)
        seen = await device.transfer([], 1)
        fields = device.results(seen.results)
        expected = rounded(layer, exact_sums(layer, activations, weights, bias_q), relu=False)
        check(
            expected[ROWS - 1 - row].astype(np.int64),
            SYSTEM.codes(layer, fields["codes"][0]),
            lambda col, row=row: f"column {col} of result {row}, {layer}",
        )


@cocotb.test()
async def reset_in_the_middle(dut):
    """Reset in any phase of a tile: everything is cleared, and the next tile is right."""
    device = await start(dut)
    rng = PARAMETERS.rng("reset_in_the_middle")
    length = 3
    phases = rng.permutation(dict(TILES)[length] + 1)
    if not PARAMETERS.thorough:
        phases = phases[:SOME_PHASES]
    for cycles in phases.tolist():
        layer = SYSTEM.random_layer(rng)
        activations, weights, bias_q = draw_tile(rng, layer, length)
        device.configure(layer, bias_q, relu=False)
        dut.o__ready.value = int(rng.integers(2))
        words = tile_words(device, layer, activations, weights)
        for cycle in range(cycles):
            dut.i__valid.value = int(cycle < length)
            dut.i__payload.value = words[min(cycle, length - 1)]
            await device.tick()
        await device.reset()
        matrices = draw_tile(rng, layer, length)
        try:
            await compare_product(device, rng, layer, *matrices, relu=False)
        except AssertionError as error:
            raise AssertionError(f"after a reset in cycle {cycles}: {error}") from None


async def run_tiles(device, rng, gaps):
    """Offer tiles of the stated lengths one after the other; compare them, and return the cycles.

    The next tile is offered while results of the last one are on their way.
    """
    layer = SYSTEM.random_layer(rng)
    longest = max(length for length, _ in TILES) * SYSTEM.products(layer)
    bias_q = draw_biases(rng, MAC, layer, longest, COLS)
    device.configure(layer, bias_q, relu=False)
    tiles = [draw_tile(rng, layer, length)[:2] for length, _ in TILES]
    words = [word for tile in tiles for word in tile_words(device, layer, *tile)]
    seen = await device.transfer(words, ROWS * len(tiles), gaps=gaps, rng=rng)

    fields = device.results(seen.results)
    last = np.arange(ROWS * len(tiles)) % ROWS == ROWS - 1
    check(last, fields["last"], lambda row: f"last with result {row}")
    sums = [exact_sums(layer, a, w, bias_q)[::-1] for a, w in tiles]
    check(
        rounded(layer, np.concatenate(sums), relu=False).astype(np.int64),
        SYSTEM.codes(layer, fields["codes"]),
        lambda row, col: f"result {row % ROWS} of tile {row // ROWS}, column {col}, {layer}",
    )
    return seen


@cocotb.test()
async def tiles_back_to_back(dut):
    """Offer tiles without a wait, under pauses at both ends: none mixes with the next one."""
    device = await start(dut)
    rng = PARAMETERS.rng("tiles_back_to_back")
    for _ in range(TILE_COUNT // len(TILES)):
        await run_tiles(device, rng, (0.3, 0.5))


@cocotb.test()
async def cycle_count(dut):
    """Count cycles: tiles at the stated rate, a vector and a row of results in each cycle."""
    device = await start(dut)
    seen = await run_tiles(device, PARAMETERS.rng("cycle_count"), (0.0, 0.0))
    cycles = np.array([cycles for _, cycles in TILES])
    starts = seen.accepted[0] + np.cumsum(cycles) - cycles
    vectors = [start + np.arange(n) for start, (n, _) in zip(starts, TILES, strict=True)]
    check(
        np.concatenate(vectors), np.array(seen.accepted), lambda index: f"cycle of vector {index}"
    )
    rows = (starts + cycles - ROWS)[:, None] + np.arange(ROWS)
    check(rows.ravel(), np.array(seen.taken), lambda index: f"cycle of result {index}")
