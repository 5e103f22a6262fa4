"""cocotb bench of :class:`hdl.mac.Mac`, for any number system."""

import cocotb
import numpy as np

from golden.dot import accumulator_unit
from golden.mac import ROLES
from sim.bins import ElementBins
from sim.drivers import Device, check
from sim.parameters import load
from sim.system import (
    Layer,
    consecutive,
    draw_biases,
    draw_codes,
    exact_sums,
    largest_bias,
    products,
    rounded,
    steered_biases,
)

PARAMETERS = load()
SYSTEM = PARAMETERS.system
MAC = SYSTEM.mac
LATENCY = PARAMETERS.attributes["latency"]

#: Up to this many bits of a code, all pairs are tried, if there is the time; else some of them.
PAIR_BITS = 8
SOME_PAIRS = 2000

#: Batches of dot products with one setting, and dot products in each.
BATCHES, BATCH = (14, 15) if PARAMETERS.thorough else (10, 6)

#: More of them, if that many hit all bins no sooner.
MOST_BATCHES = 5 * BATCHES

#: Most products in a random dot product.
LENGTH = min(40, MAC.length)

LENGTHS = ("one product", "several", "as many as there is room for")[: min(MAC.length, 3)]

COVER = PARAMETERS.coverage
BINS = ElementBins(COVER, SYSTEM)
BINS.declare_layers()
COVER.declare("length", LENGTHS)


async def start(dut):
    """Device after reset."""
    device = Device(dut, PARAMETERS)
    await device.start()
    return device


def draw_operands(rng, layer, length):
    """Random codes of activations and weights."""
    return tuple(draw_codes(rng, SYSTEM.code_bits(layer, role), (length,)) for role in ROLES)


def draw_batch(rng, layer: Layer):
    """Dot products with one bias: pairs of activations and weights, and the bias."""
    lengths = rng.integers(1, LENGTH + 1, BATCH)
    lengths[0] = 1
    pairs = [draw_operands(rng, layer, length) for length in lengths]
    longest = int(lengths.max())
    (bias_q,) = draw_biases(rng, MAC, layer, longest, 1)
    if rng.integers(2):
        # The rounding of the first result is a narrow case.
        activations, weights = pairs[0]
        sums = exact_sums(layer, activations[None], weights[:, None], [0])[0]
        (bias_q,) = steered_biases(rng, MAC, layer, longest, sums)
    return pairs, int(bias_q)


def batch_ends(layer, pairs):
    """Index of the last word of each of some dot products one after the other."""
    products = SYSTEM.products(layer)
    return np.cumsum([-(-len(w) // products) for _, w in pairs]) - 1


def batch_words(device, layer, pairs):
    """Words of ``i`` for dot products one after the other."""
    activations, weights = (
        np.concatenate([SYSTEM.words(layer, role, codes) for codes in column])
        for role, column in zip(ROLES, zip(*pairs, strict=True), strict=True)
    )
    last = np.zeros(len(weights), int)
    last[batch_ends(layer, pairs)] = 1
    return device.put_words(activation=activations, weight=weights, last=last)


def check_batch(layer, pairs, bias_q, results, context, *, relu=False):
    """Compare the results of dot products with the golden model."""
    sums = np.array([exact_sums(layer, a[None], w[:, None], [bias_q])[0, 0] for a, w in pairs])
    expected = rounded(layer, sums, relu=relu).astype(np.int64)

    def describe(index):
        a, w = (codes.tolist() for codes in pairs[index])
        return (
            f"dot product {index} {context}: activations {a} times weights {w} "
            f"plus {bias_q}, relu={relu}, {layer}"
        )

    check(expected, SYSTEM.codes(layer, np.array(results)), describe)
    activations, weights = (np.concatenate(column) for column in zip(*pairs, strict=True))
    BINS.count_layer(
        layer, activations, weights, sums=sums, bias_q=bias_q, relu=relu, expected=expected
    )
    COVER.count("length", [LENGTHS[len(w) > 1] for _, w in pairs])


def draw_pairs(rng, layer):
    """Columns of activations and weights: all pairs, or some where there are too many."""
    widths = [SYSTEM.code_bits(layer, role) for role in ROLES]
    if sum(widths) > 2 * PAIR_BITS or not PARAMETERS.exhaustive:
        return np.stack(draw_operands(rng, layer, SOME_PAIRS // SYSTEM.products(layer)))
    return np.stack(np.meshgrid(*(np.arange(1 << bits) for bits in widths))).reshape(2, -1)


async def run_pairs(device, layer, pairs, place, sums, middle):
    """Multiply pairs, each at one place of a word of its own, with the bias ``-middle``."""
    device.configure(layer, -middle, relu=False)
    activations, weights = pairs
    filled = np.pad(pairs[:, :, None], ((0, 0), (0, 0), (place, 0)))
    columns = {
        role: SYSTEM.words(layer, role, codes)[:, 0]
        for role, codes in zip(ROLES, filled, strict=True)
    }
    words = device.put_words(**columns, last=np.ones_like(weights))
    got = SYSTEM.codes(layer, np.array(await device.flow(words, len(words), LATENCY)))

    def describe(index):
        a, w = pairs[:, index]
        return f"activation {a:#x} times weight {w:#x} at {place} less {middle}, {layer}"

    expected = rounded(layer, sums - middle, relu=False).astype(np.int64)
    check(expected, got, describe)
    BINS.count_layer(
        layer,
        activations,
        weights,
        sums=sums - middle,
        bias_q=-middle,
        relu=False,
        expected=expected,
    )


@cocotb.test()
async def every_pair(dut):
    """Multiply each pair of codes in a dot product of its own, at one a cycle.

    A result has fewer bits than a product.  So the pairs are sorted by their product, and a bias
    brings each stretch of products into the range of the result: every bit of every product shows.
    """
    device = await start(dut)
    rng = PARAMETERS.rng("every_pair")
    layers = list(SYSTEM.pair_layers().values())
    for layer, place in [
        (each, place)
        for each in (layers if PARAMETERS.thorough else layers[:1])
        for place in range(SYSTEM.products(each))
    ]:
        pairs = draw_pairs(rng, layer)
        sums = products(layer, *pairs)

        # A result counts units from `low` to `high`.  One at each end stays free, to tell a product
        # that is off the range from one at its limit.
        low, high = consecutive(layer.result)
        unit = int(layer.result.operand_unit / accumulator_unit(layer.weights, layer.activations))
        window = (high - low - 1) * unit
        stretches = sums // window
        order = np.argsort(stretches, kind="stable")
        ends = np.flatnonzero(np.diff(stretches[order])) + 1
        for part in np.split(order, ends):
            middle = int(stretches[part[0]]) * window - (low + 1) * unit
            await run_pairs(device, layer, pairs[:, part], place, sums[part], middle)


@cocotb.test()
@cocotb.parametrize(gaps=[(0.0, 0.0), (0.4, 0.0), (0.0, 0.6), (0.4, 0.6)])
async def dot_products(dut, gaps):
    """Run dot products with random biases, formats and ReLU, under any pauses at both ends."""
    device = await start(dut)
    rng = PARAMETERS.rng(f"dot_products {gaps}")
    for batch in range(MOST_BATCHES):
        if batch >= BATCHES and COVER.is_full:
            break
        layer = SYSTEM.random_layer(rng)
        pairs, bias_q = draw_batch(rng, layer)
        relu = bool(rng.integers(2))
        device.configure(layer, bias_q, relu=relu)
        seen = await device.transfer(
            batch_words(device, layer, pairs), len(pairs), gaps=gaps, rng=rng
        )
        check_batch(layer, pairs, bias_q, seen.results, f"of batch {batch}", relu=relu)
        await device.idle(2 * LATENCY)


@cocotb.test()
async def longest_sums(dut):
    """Sum as many products as the accumulator is made for, all of the largest magnitude.

    A bias brings the sum back into the range of the result, and counts as one of the products.
    """
    device = await start(dut)
    length = MAC.length - 1
    if not length:
        return
    layer = next(iter(SYSTEM.pair_layers().values()))
    operands = layer.weights.operand_table
    activation = int(np.argmax(np.abs(layer.activations.operand_table)))
    for weight in (int(np.argmin(operands)), int(np.argmax(operands))):
        pairs = [(np.full(length, activation), np.full(length, weight))]
        total = int(exact_sums(layer, pairs[0][0][None], pairs[0][1][:, None], [0])[0, 0])
        limit = largest_bias(MAC, layer, length)
        for bias_q in (0, min(max(-total, -limit), limit)):
            device.configure(layer, bias_q, relu=False)
            results = await device.flow(batch_words(device, layer, pairs), 1, LATENCY)
            expected = rounded(layer, np.array([total + bias_q]), relu=False).astype(np.int64)
            what = f"{length} times {activation:#x} * {weight:#x} plus {bias_q}, {layer}"
            check(expected, SYSTEM.codes(layer, np.array(results)), lambda _, what=what: what)
            COVER.hit("length", LENGTHS[-1])


@cocotb.test()
async def offers_before_ready(dut):
    """Take nothing for a while: a result is offered, waits unchanged, and nothing is lost."""
    device = await start(dut)
    rng = PARAMETERS.rng("offers_before_ready")
    layer = SYSTEM.random_layer(rng)
    device.configure(layer, 0, relu=False)
    pairs = [draw_operands(rng, layer, 1) for _ in range(LATENCY + 4)]
    words = batch_words(device, layer, pairs)

    # Without anyone to take results, as many pairs go in as there are stages.
    accepted = 0
    dut.i__valid.value = 1
    for cycle in range(3 * LATENCY):
        dut.i__payload.value = words[accepted]
        await device.settled
        assert dut.o__valid.value == (cycle >= LATENCY), f"offered in cycle {cycle}, not {LATENCY}"
        accepted += int(dut.i__ready.value)
        await device.tick()
    assert accepted == LATENCY, f"{accepted} pairs were accepted for {LATENCY} stages"

    seen = await device.transfer(words[accepted:], len(pairs))
    check_batch(layer, pairs, 0, seen.results, "after a wait")


@cocotb.test()
async def reset_in_the_middle(dut):
    """Reset at any time: the next result is right, and nothing of an old one comes."""
    device = await start(dut)
    rng = PARAMETERS.rng("reset_in_the_middle")
    for cycles in range(2 * LATENCY + 4):
        layer = SYSTEM.random_layer(rng)
        device.configure(layer, 0, relu=False)
        before, _ = draw_batch(rng, layer)
        dut.i__valid.value = 1
        dut.o__ready.value = int(rng.integers(2))
        for word in batch_words(device, layer, before)[:cycles]:
            dut.i__payload.value = word
            await device.tick()
        await device.reset()
        await device.idle(2 * LATENCY)

        pairs, _ = draw_batch(rng, layer)
        seen = await device.transfer(batch_words(device, layer, pairs), len(pairs))
        check_batch(layer, pairs, 0, seen.results, f"after a reset in cycle {cycles}")


@cocotb.test()
async def latency_and_throughput(dut):
    """Count cycles: a pair in each, and each result as late as the component states."""
    device = await start(dut)
    rng = PARAMETERS.rng("latency_and_throughput")
    layer = SYSTEM.random_layer(rng)
    device.configure(layer, 0, relu=False)
    pairs, _ = draw_batch(rng, layer)
    words = batch_words(device, layer, pairs)
    seen = await device.transfer(words, len(pairs))
    accepted = np.array(seen.accepted)
    check(accepted[0] + np.arange(len(words)), accepted, lambda pair: f"cycle of pair {pair}")
    ends = accepted[batch_ends(layer, pairs)]
    check(ends + LATENCY, np.array(seen.offered), lambda index: f"cycle of result {index}")
