"""Generated Verilog computes what Amaranth computes, reads well, and no tool complains."""

import itertools
import random
import re

import pytest
from amaranth.back import rtlil as amaranth_rtlil
from amaranth.back import verilog as amaranth_verilog
from amaranth.hdl import Shape, Value
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from golden.fixed_mac import FixedMacSpec
from golden.mac import ArraySpec
from golden.tapered_mac import TaperedMacSpec
from hdl.array import Control, Drain, ProcessingElement, Skew, SystolicArray
from hdl.fixed import FixedDatapath
from hdl.mac import Mac
from hdl.tapered import TaperedDatapath
from synth.verilog import to_verilog
from tests import verilog_samples as samples
from tests.verilog_tools import (
    differences,
    icarus_complaints,
    needs_icarus,
    needs_verilator,
    needs_yosys,
    run_icarus,
    verilator_complaints,
    yosys_complaints,
)

SEED = 20240611

SPECS = [
    FixedMacSpec(bits=8),
    FixedMacSpec(bits=3, length=1),
    TaperedMacSpec(bits=8),
    TaperedMacSpec(bits=8, form="integer"),
    TaperedMacSpec(bits=8, min_run=4, max_run=6),
    TaperedMacSpec(bits=4, max_run=4, length=9),
]
ARRAY_SIZES = [(1, 1), (1, 3), (3, 2)]


def datapath(spec):
    return (FixedDatapath if isinstance(spec, FixedMacSpec) else TaperedDatapath)(spec)


def units(spec):
    """Every unit of a number system, with every option."""
    path = datapath(spec)
    yield from (unit for unit in (path.decoder(), path.product(), path.encoder()) if unit)
    yield Drain(path)
    yield Mac(path)
    for decoders, gating in itertools.product(("edge", "pe"), (False, True)):
        yield ProcessingElement(path, ArraySpec(mac=spec, decoders=decoders, zero_gating=gating))


def arrays(spec):
    path = datapath(spec)
    for (rows, cols), decoders in zip(ARRAY_SIZES, ("pe", "edge", "edge"), strict=True):
        yield SystolicArray(
            path,
            ArraySpec(mac=spec, rows=rows, cols=cols, decoders=decoders, zero_gating=rows == 3),
        )


def everything():
    """One of every component, by name."""
    components = [
        *itertools.chain.from_iterable(units(spec) for spec in SPECS),
        *itertools.chain.from_iterable(arrays(spec) for spec in (SPECS[0], SPECS[2])),
        Skew(5, 3),
        Control(2, 4),
        *(make() for make in SAMPLES.values()),
    ]
    return {component.module_name: component for component in components}


OPERATIONS = {
    "arithmetic": samples.ARITHMETIC,
    "comparisons": samples.COMPARISONS,
    "shifts": samples.SHIFTS,
    "signed_parts": samples.SIGNED_PARTS,
    "divisions": samples.DIVISIONS,
}
SAMPLES = {
    "statements": samples.Statements,
    "registers": samples.Registers,
    "domains": samples.Domains,
    "tables": samples.Tables,
    "nested": samples.Nested,
}


# ------------------------------------------------------------------------------- equivalence


def gold_rtlil(component):
    """The component as Amaranth hands it to its own Verilog writer, names as we write them."""
    text = amaranth_rtlil.convert(component, name=component.module_name, emit_src=False)
    return re.sub(r"\\(integer|logic|priority|wildcard)\b(?![.\[$])", r"\\\1_", text)


@needs_yosys
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_units_equal_what_amaranth_emits(tmp_path, spec):
    for unit in units(spec):
        design = to_verilog(unit)
        gold = gold_rtlil(unit)
        assert differences(tmp_path, design.top, gold, design.text, kind="rtlil") == ""


@needs_yosys
@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2]], ids=str)
def test_arrays_equal_what_amaranth_emits(tmp_path, spec):
    for array in arrays(spec):
        design = to_verilog(array)
        gold = gold_rtlil(array)
        assert differences(tmp_path, design.top, gold, design.text, kind="rtlil") == ""


@needs_yosys
@pytest.mark.parametrize("name", ["arithmetic", "comparisons", "shifts", *SAMPLES])
def test_samples_equal_what_amaranth_emits(tmp_path, name):
    component = samples.Operators(OPERATIONS[name]) if name in OPERATIONS else SAMPLES[name]()
    design = to_verilog(component)
    gold = gold_rtlil(component)
    report = differences(tmp_path, design.top, gold, design.text, kind="rtlil", files=design.files)
    assert report == ""


@needs_yosys
@pytest.mark.parametrize(
    "make",
    [lambda: Mac(datapath(SPECS[2])), lambda: Drain(datapath(SPECS[0])), samples.Registers],
    ids=["mac", "drain", "registers"],
)
def test_text_equals_amaranths_own_verilog(tmp_path, make):
    component = make()
    design = to_verilog(component)
    gold = amaranth_verilog.convert(component, name=design.top, emit_src=False)
    assert differences(tmp_path, design.top, gold, design.text, kind="verilog") == ""


@needs_yosys
def test_the_proof_notices_a_difference(tmp_path):
    component = samples.Registers()
    design = to_verilog(component)
    wrong = design.text.replace("count == 4'd5", "count == 4'd4")
    assert wrong != design.text
    report = differences(tmp_path, design.top, gold_rtlil(component), wrong, kind="rtlil")
    assert "Unproven" in report


# -------------------------------------------------------------------------------- simulation


def ports_of(component):
    """Name, signal and direction of every port that has bits."""
    return [
        ("__".join(map(str, path)), Value.cast(value), member.flow)
        for path, member, value in component.signature.flatten(component)
        if Value.cast(value).shape().width
    ]


def corners(shape: Shape):
    """Values at which carries and signs change."""
    low, high = (-1 << shape.width - 1, (1 << shape.width - 1) - 1) if shape.signed else (0, -1)
    mask = (1 << shape.width) - 1
    return sorted({value & mask for value in (low, low + 1, -1, 0, 1, high - 1, high, 2)})


def stimuli(component, length):
    """Rows of input values: corners, then random ones."""
    # The seed is fixed: a failure can be repeated.
    rng = random.Random(SEED)
    inputs = [(name, signal) for name, signal, flow in ports_of(component) if flow == In]
    rows = []
    for index in range(length):
        row = []
        for _, signal in inputs:
            if index < length // 2:
                row.append(rng.choice(corners(signal.shape())))
            else:
                row.append(rng.getrandbits(len(signal)))
        rows.append(row)
    return inputs, rows


def simulate_amaranth(component, inputs, rows, *, clock):
    """Output bits for each row, as one number: before the clock edge if there is a clock."""
    outputs = [signal for _, signal, flow in ports_of(component) if flow == Out]
    results = []

    async def testbench(ctx):
        for row in rows:
            for (_, signal), value in zip(inputs, row, strict=True):
                ctx.set(signal, value)
            bits = 0
            for signal in outputs:
                bits = bits << len(signal) | ctx.get(signal) & (1 << len(signal)) - 1
            results.append(bits)
            if clock:
                await ctx.tick()

    simulator = Simulator(component)
    simulator.add_testbench(testbench)
    if clock:
        simulator.add_clock(1e-6)
    simulator.run()
    return results


def simulate_icarus(folder, component, inputs, rows, *, clock, sources=""):
    """The same from our Verilog; the reset is active before the first row."""
    design = to_verilog(component)
    names = {
        name: re.sub(r"^(integer|logic|priority|wildcard)$", r"\1_", name)
        for name, *_ in ports_of(component)
    }
    outputs = [(name, len(signal)) for name, signal, flow in ports_of(component) if flow == Out]
    width = sum(len(signal) for _, signal in inputs)
    connections = []
    low = width
    for name, signal in inputs:
        low -= len(signal)
        connections.append(f".{names[name]}(row[{low + len(signal) - 1}:{low}])")
    total = sum(size for _, size in outputs)
    low = total
    for name, size in outputs:
        low -= size
        connections.append(f".{names[name]}(out[{low + size - 1}:{low}])")
    for name in ("clk", "rst"):
        if re.search(rf"^  input  wire .*\b{name},", design.modules[design.top], re.M):
            connections.append(f".{name}({name})")
    resets = ".rst(rst)" in connections
    image = []
    for row in rows:
        bits = 0
        for (_, signal), value in zip(inputs, row, strict=True):
            bits = bits << len(signal) | value
        image.append(f"{bits:x}")
    files = {
        "design.v": design.text + sources,
        "rows.hex": "\n".join(image) + "\n",
        "testbench.v": f"""
module testbench;
  reg [{width - 1}:0] rows [0:{len(rows) - 1}];
  reg [{width - 1}:0] row;
  wire [{total - 1}:0] out;
  reg clk, rst;
  integer n;
  {design.top} dut ({", ".join(connections)});
  initial begin
    $readmemh("rows.hex", rows);
    clk = 0; rst = 1; row = 0;
    {"#1 clk = 1; #1 clk = 0;" if resets else ""}
    #1 rst = 0;
    for (n = 0; n < {len(rows)}; n = n + 1) begin
      row = rows[n]; #1 $display("%h", out); {"clk = 1; #1 clk = 0;" if clock else ""} #1;
    end
  end
endmodule
""",
    }
    return run_icarus(folder, files | design.files)


def assert_alike(expected, got, *, unknown_rows=0):
    """``got`` may have unknown digits in its first rows only, where memories were not read."""
    assert len(got) == len(expected)
    for index, (number, text) in enumerate(zip(expected, got, strict=True)):
        want = f"{number:0{len(text)}x}"
        if index < unknown_rows:
            want = "".join("x" if c in "xX" else w for w, c in zip(want, text, strict=True))
            text = text.replace("X", "x")
        assert text == want, f"row {index}"


@needs_icarus
@pytest.mark.parametrize("name", OPERATIONS)
def test_operators_simulate_alike(tmp_path, name):
    component = samples.Operators(OPERATIONS[name])
    inputs, rows = stimuli(component, 300)
    expected = simulate_amaranth(component, inputs, rows, clock=False)
    got = simulate_icarus(tmp_path, component, inputs, rows, clock=False)
    assert_alike(expected, got)


@needs_icarus
def test_statements_simulate_alike(tmp_path):
    component = samples.Statements()
    inputs, rows = stimuli(component, 3000)
    expected = simulate_amaranth(component, inputs, rows, clock=False)
    got = simulate_icarus(tmp_path, component, inputs, rows, clock=False)
    assert_alike(expected, got)


@needs_icarus
@pytest.mark.parametrize(
    ("name", "unknown_rows"),
    # A register without reset, and the outputs of memories, hold what they took first.
    [("registers", 1), ("nested", 0), ("tables", 12)],
)
def test_clocked_samples_simulate_alike(tmp_path, name, unknown_rows):
    component = SAMPLES[name]()
    inputs, rows = stimuli(component, 2000)
    expected = simulate_amaranth(component, inputs, rows, clock=True)
    got = simulate_icarus(tmp_path, component, inputs, rows, clock=True)
    assert_alike(expected, got, unknown_rows=unknown_rows)


@needs_icarus
def test_instances_from_elsewhere_get_their_parameters(tmp_path):
    component = samples.Boxed()
    inputs, rows = stimuli(component, 40)
    got = simulate_icarus(tmp_path, component, inputs, rows, clock=False, sources=samples.BOX)
    assert [int(text, 16) for text in got] == [((a + 1) & 15) ^ 5 ^ 1 for (a,) in rows]


# ---------------------------------------------------------------------------------- lint


@needs_icarus
def test_icarus_has_no_complaint(tmp_path):
    for component in [*everything().values(), *map(samples.Operators, OPERATIONS.values())]:
        assert icarus_complaints(tmp_path, to_verilog(component).text) == ""


@needs_verilator
@pytest.mark.parametrize("part", range(4))
def test_verilator_has_no_complaint_beyond_the_waivers(tmp_path, part):
    components = [*everything().values(), *map(samples.Operators, OPERATIONS.values())]
    for component in components[part::4]:
        design = to_verilog(component)
        assert verilator_complaints(tmp_path, design.text, design.top) == ""


@needs_yosys
@pytest.mark.parametrize("part", range(4))
def test_yosys_has_no_complaint(tmp_path, part):
    components = [c for name, c in everything().items() if name != "tables"]
    for component in components[part::4]:
        design = to_verilog(component)
        assert yosys_complaints(tmp_path, design.text, design.top) == ""
