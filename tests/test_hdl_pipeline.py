"""Products and encoders with registers: the results without, as many moves later.

What the results must be is tested without registers, in the tests of each number system.
"""

import numpy as np
import pytest
from amaranth.hdl import Shape

from golden.dybit_mac import DybitMacSpec
from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed_mac import FixedMacSpec
from golden.mac import ArraySpec
from golden.tapered_mac import TaperedMacSpec
from hdl.array import SystolicArray
from hdl.dybit import DybitDatapath
from hdl.elp_bsd import ElpBsdDatapath
from hdl.fixed import FixedDatapath
from hdl.mac import Mac
from hdl.tapered import TaperedDatapath
from synth.verilog import to_verilog
from tests.simulate import run
from tests.simulators import needs_icarus, needs_verilator
from tests.verilog_tools import icarus_complaints, verilator_complaints

DATAPATHS = {
    "fixed8": FixedDatapath(FixedMacSpec(bits=8, length=64)),
    "fixed16x13": FixedDatapath(FixedMacSpec(bits=16, weight_bits=13, length=64)),
    "tapered8": TaperedDatapath(TaperedMacSpec(bits=8, length=64)),
    "tapered8 integer": TaperedDatapath(TaperedMacSpec(bits=8, form="integer", length=64)),
    "tapered6": TaperedDatapath(TaperedMacSpec(bits=6, max_run=6, length=64)),
    "dybit8": DybitDatapath(DybitMacSpec(bits=8, length=64)),
    "dybit4x2": DybitDatapath(DybitMacSpec(bits=4, weight_bits=2, length=64)),
    "elp_bsd4": ElpBsdDatapath(ElpBsdMacSpec(length=64, sets=("E4-1", "E4-2"))),
    "elp_bsd6": ElpBsdDatapath(ElpBsdMacSpec(length=64, sets=("E6-2",), multiplier=False)),
}
#: Largest latency of an encoder and of a product.
LATENCIES = {
    "fixed8": (1, 1),
    "fixed16x13": (1, 1),
    "tapered8": (2, 1),
    "tapered8 integer": (2, 1),
    "tapered6": (2, 1),
    "dybit8": (5, 1),
    "dybit4x2": (5, 1),
    "elp_bsd4": (3, 1),
    "elp_bsd6": (1, 1),
}
UNITS = [
    (name, kind, latency)
    for name, largest in LATENCIES.items()
    for kind, most in zip(("encoder", "product"), largest, strict=True)
    for latency in range(1, most + 1)
]

#: What changes with each result; the other inputs are settings.
OPERANDS = {"encoder": ("total",), "product": ("activation", "weight")}
RESULTS = {"encoder": ("code",), "product": ("term", "carry")}


def draw(rng, port):
    """Random bits, of which often the upper ones are all alike."""
    shape = Shape.cast(port.shape())
    value = int(rng.integers(-(1 << shape.width - 1), 1 << shape.width - 1))
    value >>= int(rng.integers(shape.width))
    return value if shape.signed else value % (1 << shape.width)


def set_bits(ctx, port, value):
    ctx.set(port.as_value() if hasattr(port, "as_value") else port, value)


@pytest.mark.parametrize(("name", "kind", "latency"), UNITS)
def test_as_without_registers(name, kind, latency):
    rng = np.random.default_rng(latency)
    slow = getattr(DATAPATHS[name], kind)(latency=0)
    fast = getattr(DATAPATHS[name], kind)(latency=latency)
    assert (slow.latency, fast.latency) == (0, latency)
    outputs = [port for port in RESULTS[kind] if hasattr(slow, port)]
    inputs = [
        path[0] for path, _, _ in slow.signature.flatten(slow) if path[0] not in RESULTS[kind]
    ]
    runs = []
    for _ in range(24):
        settings = {port: draw(rng, getattr(slow, port)) for port in inputs}
        if "shift" in settings:  # most of 63 shift everything out
            settings["shift"] = int(rng.integers(min(1 << len(slow.shift), 20)))
        operands = [
            {port: draw(rng, getattr(slow, port)) for port in OPERANDS[kind]} for _ in range(8)
        ]
        runs.append((settings, operands))
    expected, got = [], []

    async def drive_slow(ctx):
        for settings, operands in runs:
            for row in operands:
                for port, value in (settings | row).items():
                    set_bits(ctx, getattr(slow, port), value)
                expected.append([ctx.get(getattr(slow, port)) for port in outputs])

    async def drive_fast(ctx):
        for settings, operands in runs:
            for port, value in settings.items():
                set_bits(ctx, getattr(fast, port), value)
            results = []
            for row in operands + operands[: latency - 1]:
                for move in [0] * rng.integers(2) + [1]:
                    for port, value in row.items():
                        # What is there while nothing moves must not matter.
                        set_bits(ctx, getattr(fast, port), value if move else 0)
                    ctx.set(fast.move, move)
                    await ctx.tick()
                for port in row:  # nor what is there when the result is looked at
                    set_bits(ctx, getattr(fast, port), draw(rng, getattr(fast, port)))
                results.append([ctx.get(getattr(fast, port)) for port in outputs])
            got.extend(results[latency - 1 :])

    run(slow, drive_slow, clock=False)
    run(fast, drive_fast)
    assert got == expected
    assert len({tuple(row) for row in expected}) > 3


@pytest.mark.parametrize("name", LATENCIES)
def test_registers_of_shells(name):
    """A pipelined shell asks for no more registers than there are; one that is not, for few."""
    datapath, (encoder, product) = DATAPATHS[name], LATENCIES[name]
    assert datapath.encoder_latency(pipelined=True) == encoder
    multiplies = "mult" in datapath.encoder_config
    assert datapath.encoder_latency(pipelined=False) == int(multiplies)
    assert 0 <= datapath.product_latency <= product


@pytest.mark.parametrize("name", LATENCIES)
def test_bad_latency(name):
    for make, most in zip(
        (DATAPATHS[name].encoder, DATAPATHS[name].product), LATENCIES[name], strict=True
    ):
        with pytest.raises(ValueError, match=f"latency must be between 0 and {most}, not 9"):
            make(latency=9)
        with pytest.raises(TypeError, match="latency must be an int, not True"):
            make(latency=True)


@needs_icarus
@needs_verilator
@pytest.mark.parametrize("name", LATENCIES)
def test_lint(tmp_path, name):
    datapath = DATAPATHS[name]
    options = {"rows": 2, "cols": 2, "pipelined": True, "carry_save": True}
    for component in (
        Mac(datapath, pipelined=True),
        SystolicArray(datapath, ArraySpec(mac=datapath.spec, zero_gating=True, **options)),
        SystolicArray(datapath, ArraySpec(mac=datapath.spec, decoders="pe", **options)),
    ):
        design = to_verilog(component)
        assert verilator_complaints(tmp_path, design.text, design.top) == ""
        assert icarus_complaints(tmp_path, design.text) == ""
