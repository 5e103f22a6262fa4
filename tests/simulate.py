"""Helpers to run a component in Amaranth's own simulator."""

import random

from amaranth.hdl import Shape
from amaranth.lib import data
from amaranth.sim import Simulator

#: Clock period in seconds; simulated time has no other use here.
PERIOD = 1e-6

__all__ = ["apply_comb", "run", "stream_get", "stream_put"]


def run(dut, *testbenches, clock=True, max_cycles=10_000):
    """Simulate ``dut`` until every testbench has returned.

    Raises
    ------
    TimeoutError
        If that takes more than ``max_cycles``, as when two sides of a stream wait for each other.
    """
    sim = Simulator(dut)
    for testbench in testbenches:
        sim.add_testbench(testbench)

    async def watchdog(ctx):
        await ctx.delay(max_cycles * PERIOD)
        raise TimeoutError(f"testbenches still running after {max_cycles} cycles")

    if clock:
        sim.add_clock(PERIOD)
        sim.add_testbench(watchdog, background=True)
    sim.run()


def apply_comb(dut, inputs, outputs):
    """Drive a combinational ``dut`` with columns of inputs; return columns of outputs.

    ``inputs`` maps member names to equally long sequences of integers or of constants of the
    member's layout, ``outputs`` names members.  An integer that does not fit its port is an
    error, where the simulator would drop its high bits.
    """
    results = {name: [] for name in outputs}

    async def testbench(ctx):
        for row in zip(*inputs.values(), strict=True):
            for name, value in zip(inputs, row, strict=True):
                port = getattr(dut, name)
                if isinstance(value, data.Const):  # an output of another component
                    ctx.set(port, value)
                else:
                    ctx.set(port, _fitting(name, int(value), port.shape()))
            for name, column in results.items():
                column.append(ctx.get(getattr(dut, name)))

    run(dut, testbench, clock=False)
    return results


def _fitting(name, value, shape):
    shape = Shape.cast(shape)
    low = -(1 << shape.width - 1) if shape.signed else 0
    if not low <= value < low + (1 << shape.width):
        raise ValueError(f"{value} does not fit {name}, which is {shape!r}")
    return value


async def stream_put(ctx, stream, payload, *, gap=0.0):
    """Transfer one payload, first waiting a cycle with probability ``gap`` each time."""
    while random.random() < gap:
        await ctx.tick()
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    await ctx.tick().until(stream.ready)
    ctx.set(stream.valid, 0)


async def stream_get(ctx, stream, *, gap=0.0):
    """Accept one payload, first waiting a cycle with probability ``gap`` each time."""
    while random.random() < gap:
        await ctx.tick()
    ctx.set(stream.ready, 1)
    (payload,) = await ctx.tick().sample(stream.payload).until(stream.valid)
    ctx.set(stream.ready, 0)
    return payload
