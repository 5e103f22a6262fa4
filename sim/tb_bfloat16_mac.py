"""cocotb bench of :class:`hdl.bfloat16_mac.Bfloat16Mac`."""

import cocotb
import numpy as np

from golden.bfloat16_mac import accumulate, dot
from sim.drivers import Device, check, read
from sim.parameters import load

PARAMETERS = load()
SYSTEM = PARAMETERS.system
SUMS, LATENCY = (PARAMETERS.attributes[name] for name in ("interleaved", "latency"))

#: Groups of dot products, and their largest length.
GROUPS, LENGTH = (12, 40) if PARAMETERS.thorough else (6, 12)

#: Cycles in which the unit is reset.
RESETS = 24 if PARAMETERS.thorough else 8

COVER = PARAMETERS.coverage
COVER.declare("sum", ("positive", "negative", "zero", "largest", "cancels", "tie"))
COVER.declare("operand", ("zero", "subnormal", "infinity", "NaN", "number"))


class Unit(Device):
    """The unit, with dot products [SUMS, k] as they enter."""

    def words(self, a, w):
        """Words of ``i``: a pair of each dot product in turn."""
        last = np.zeros(a.shape, int)
        last[:, -1] = 1
        return self.put_words(activation=a.T.ravel(), weight=w.T.ravel(), last=last.T.ravel())

    def check(self, groups, results, context):
        """Compare with the golden model, and count what it was."""
        got = np.reshape(results, (len(groups), SUMS))
        for number, (a, w) in enumerate(groups):
            expected = dot(a, w).astype(np.int64)
            check(
                expected,
                got[number],
                lambda turn, a=a, w=w: (
                    f"activations {a[turn].tolist()}, weights {w[turn].tolist()} {context}"
                ),
            )
            totals = accumulate(a, w)
            bits = totals.view(np.uint32)
            COVER.mark(
                "sum",
                {
                    "positive": totals > 0,
                    "negative": totals < 0,
                    "zero": totals == 0,
                    "largest": expected & 0x7FFF == 0x7F7F,
                    "cancels": (totals == 0) & (np.abs(accumulate(a[:, :1], w[:, :1])) > 0),
                    "tie": bits & 0xFFFF == 0x8000,
                },
            )
            for operand in (a, w):
                fields, fractions = operand >> 7 & 0xFF, operand & 0x7F
                COVER.mark(
                    "operand",
                    {
                        "zero": (fields == 0) & (fractions == 0),
                        "subnormal": (fields == 0) & (fractions > 0),
                        "infinity": (fields == 255) & (fractions == 0),
                        "NaN": (fields == 255) & (fractions > 0),
                        "number": (fields > 0) & (fields < 255),
                    },
                )


async def start(dut):
    """Reset the unit."""
    device = Unit(dut, PARAMETERS)
    await device.start()
    return device


async def run(device, groups, context, **options):
    """Transfer groups of dot products one after the other, and compare."""
    words = [word for group in groups for word in device.words(*group)]
    seen = await device.transfer(words, SUMS * len(groups), **options)
    device.check(groups, seen.results, context)
    return seen


@cocotb.test()
@cocotb.parametrize(gaps=[(0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (0.4, 0.6)])
async def dot_products(dut, gaps):
    """Run dot products of all lengths, under any pauses at both ends."""
    device = await start(dut)
    rng = PARAMETERS.rng(f"dot_products {gaps}")
    groups = []
    for _ in range(GROUPS):
        shape = (SUMS, int(rng.integers(1, LENGTH + 1)))
        groups.append((SYSTEM.near_one(rng, shape), SYSTEM.near_one(rng, shape)))
    await run(device, groups, f"with gaps {gaps}", gaps=gaps, rng=rng)
    await device.idle(LATENCY + 4)


@cocotb.test()
async def every_significand(dut):
    """Multiply all pairs of significands, the exponents of the products at both limits too."""
    device = await start(dut)
    a, w = np.meshgrid(np.arange(128), np.arange(128), indexing="ij")
    a, w = a.ravel(), w.ravel()
    if not PARAMETERS.thorough:
        a, w = a[::29], w[::29]
    for exponents in ((127, 127), (0x40, 0x3F), (0xC0, 0xBE)):
        pad = (0, -len(a) % SUMS)
        columns = [
            np.pad(x | field << 7, pad).reshape(-1, SUMS, 1)
            for x, field in zip((a, w), exponents, strict=True)
        ]
        await run(device, list(zip(*columns, strict=True)), f"at exponents {exponents}")
        if exponents == (127, 127):
            # Less its own rounded value, so that its lowest bits are all that is left.
            products = dot(*columns).astype(int)[..., None]
            minus_one = np.full_like(products, 0xBF80)
            rest = [
                np.concatenate(pair, axis=-1)
                for pair in zip(columns, (products, minus_one), strict=True)
            ]
            await run(device, list(zip(*rest, strict=True)), "less its rounded value")


@cocotb.test()
async def limits(dut):
    """Add products that vanish, saturate, cancel or are no numbers, and sums at a tie."""
    device = await start(dut)
    rng = PARAMETERS.rng("limits")
    groups = [SYSTEM.pairs(rng, (SUMS, 6), exponent) for exponent in (1, 254, 127)]
    special = np.array([0x0000, 0x8000, 0x0001, 0x807F, 0x7F80, 0xFF80, 0x7FC1, 0xFFFF])
    for pattern in special.tolist():
        a, w = SYSTEM.near_one(rng, (SUMS, 3)), SYSTEM.near_one(rng, (SUMS, 3))
        (a, w)[pattern & 1][:, 1] = pattern
        groups.append((a, w))
    # x - x, the largest twice, and 1 + 2**-8, half-way between two results.
    one = np.full((SUMS, 1), 0x3F80)
    x = SYSTEM.near_one(rng, (SUMS, 1))
    groups += [
        (np.hstack([x, x]), np.hstack([one, one | 0x8000])),
        (np.full((SUMS, 2), 0x7F7F), np.hstack([one, one])),
        (np.hstack([one, one]), np.hstack([one, np.full((SUMS, 1), 0x3B80)])),
    ]
    await run(device, groups, "at the limits")


@cocotb.test()
async def latency_and_throughput(dut):
    """Count cycles: a pair in each, and the stated ones from the last pair to its result."""
    device = await start(dut)
    rng = PARAMETERS.rng("latency_and_throughput")
    shape = (SUMS, 9)
    groups = [(SYSTEM.near_one(rng, shape), SYSTEM.near_one(rng, shape)) for _ in range(4)]
    seen = await run(device, groups, "at full rate")
    accepted = np.array(seen.accepted)
    # The first pair waits for its turn.
    check(np.ones(len(accepted) - 1, int), np.diff(accepted), lambda index: f"pair {index + 1}")
    ends = accepted.reshape(4, 9, SUMS)[:, -1].ravel()
    check(ends + LATENCY, np.array(seen.offered), lambda index: f"cycle of result {index}")


@cocotb.test()
async def offers_before_ready(dut):
    """Take nothing for a while: a result is offered, and waits unchanged."""
    device = await start(dut)
    rng = PARAMETERS.rng("offers_before_ready")
    shape = (SUMS, 1)
    group = (SYSTEM.near_one(rng, shape), SYSTEM.near_one(rng, shape))
    words = device.words(*group)
    accepted = 0
    dut.i__valid.value = 1
    for _ in range(2 * (SUMS + LATENCY)):
        dut.i__payload.value = words[min(accepted, SUMS - 1)]
        dut.i__valid.value = int(accepted < SUMS)
        await device.settled
        accepted += int(accepted < SUMS and read(dut.i__ready))
        await device.tick()
    assert read(dut.o__valid) == 1, "no result was offered while nobody took one"
    seen = await device.transfer(words[accepted:], SUMS)
    device.check([group], seen.results, "after a wait")


@cocotb.test()
async def reset_in_the_middle(dut):
    """Reset at any time: the next sums are right, and nothing of old ones comes."""
    device = await start(dut)
    rng = PARAMETERS.rng("reset_in_the_middle")
    shape = (SUMS, 3)
    group = (SYSTEM.near_one(rng, shape), SYSTEM.near_one(rng, shape))
    words = device.words(*group)
    for cycles in np.unique(np.linspace(1, 3 * SUMS + LATENCY + 4, RESETS).astype(int)).tolist():
        dut.i__valid.value = 1
        dut.o__ready.value = int(rng.integers(2))
        for cycle in range(cycles):
            dut.i__payload.value = words[cycle % len(words)]
            await device.tick()
        await device.reset()
        await device.idle(LATENCY + SUMS + 4)
        await run(device, [group], f"after a reset in cycle {cycles}")
