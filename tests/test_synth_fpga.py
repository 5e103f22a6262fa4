"""Cells of FPGAs: counts known by construction, memories that stay memories, and the harness."""

import copy
import dataclasses
import importlib.util
import itertools
import json
import tempfile

import pytest

import synth.fpga
import synth.pnr
from synth.cache import Cache
from synth.fpga import FAMILIES, Resources, find_device, map_fpga
from synth.pnr import (
    HARNESS,
    PLACERS,
    PlacementError,
    harness,
    nextpnr_version,
    place_and_route,
    require_nextpnr,
)
from synth.yosys import YosysError

REGISTER = """\
module register(input clk, input [3:0] d, output reg [3:0] q, output x);
  always @(posedge clk) q <= d;
  assign x = ^d;
endmodule
"""
# Two leaves in each of three pairs.
TREE = """\
module leaf(input clk, input [3:0] d, output reg [3:0] q);
  always @(posedge clk) q <= ~d;
endmodule
module pair(input clk, input [3:0] d, output [3:0] q);
  wire [3:0] m;
  leaf a(.clk(clk), .d(d), .q(m));
  leaf b(.clk(clk), .d(m), .q(q));
endmodule
module tree(input clk, input [11:0] d, output [11:0] q);
  pair x(.clk(clk), .d(d[3:0]), .q(q[3:0]));
  pair y(.clk(clk), .d(d[7:4]), .q(q[7:4]));
  pair z(.clk(clk), .d(d[11:8]), .q(q[11:8]));
endmodule
"""
MULTIPLIER = """\
module multiplier(input signed [7:0] a, b, output signed [15:0] y);
  assign y = a * b;
endmodule
"""
RAM = """\
module ram(input clk, write, input [8:0] to, from, input [7:0] d, output reg [7:0] q);
  reg [7:0] rows [0:511];
  always @(posedge clk) begin
    if (write) rows[to] <= d;
    q <= rows[from];
  end
endmodule
"""
TWO_RAMS = f"""\
{RAM}
module two(input clk, write, input [8:0] to, from, input [15:0] d, output [15:0] q);
  ram low(.clk(clk), .write(write), .to(to), .from(from), .d(d[7:0]), .q(q[7:0]));
  ram high(.clk(clk), .write(write), .to(to), .from(from), .d(d[15:8]), .q(q[15:8]));
endmodule
"""
SMALL_RAM = """\
module small(input clk, write, input [3:0] to, from, input [3:0] d, output [3:0] q);
  reg [3:0] rows [0:15];
  always @(posedge clk) if (write) rows[to] <= d;
  assign q = rows[from];
endmodule
"""
LARGE_RAM = """\
module large(input clk, write, input [9:0] to, from, input [35:0] d, output reg [35:0] q);
  reg [35:0] rows [0:1023];
  always @(posedge clk) begin
    if (write) rows[to] <= d;
    q <= rows[from];
  end
endmodule
"""
ROM = """\
module rom(input clk, input [8:0] from, output reg [7:0] q);
  reg [7:0] rows [0:511];
  initial $readmemh("rows.hex", rows);
  always @(posedge clk) q <= rows[from];
endmodule
"""
IMAGE = "".join(f"{row * row * 37 % 251:02x}\n" for row in range(512))

ZOO = f"""\
{TWO_RAMS}
{REGISTER}
{MULTIPLIER}
{SMALL_RAM}
{LARGE_RAM}
module zoo(
  input clk, write, input [9:0] to, from, input [15:0] a, b, output [15:0] y,
  output [15:0] q, output [3:0] p, r, output x, output [35:0] z
);
  large kilobytes(.clk(clk), .write(write), .to(to), .from(from), .d({{a, b, 4'd7}}), .q(z));
  two rams(.clk(clk), .write(write), .to(to[8:0]), .from(from[8:0]), .d(a), .q(q));
  small lutram(.clk(clk), .write(write), .to(to[3:0]), .from(from[3:0]), .d(a[3:0]), .q(p));
  multiplier product(.a(a[7:0]), .b(b[7:0]), .y(y));
  register delay(.clk(clk), .d(b[3:0]), .q(r), .x(x));
endmodule
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def private_folders(tmp_path, monkeypatch):
    """Make private folders where the tests can see what is left of them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("flat", [False, True])
def test_units_count_as_often_as_they_are_there(flat, cache):
    mapped = map_fpga(TREE, "tree", "ice40", flat=flat, cache=cache)
    assert (mapped.resources.flip_flops, mapped.flat) == (24, flat)
    instances = {module.name: module.instances for module in mapped.modules}
    if flat:
        assert instances == {"tree": 1}
        return
    assert list(instances.items()) == [("tree", 1), ("pair", 3), ("leaf", 6)]
    own = {module.name: module.cells_by_type for module in mapped.modules}
    assert own["tree"] == own["pair"] == {}
    assert own["leaf"] == {"SB_DFF": 4, "SB_LUT4": 4}
    assert mapped.resources == Resources(luts=24, flip_flops=24)


@pytest.fixture(scope="module", params=FAMILIES)
def zoo(request, cache):
    """One of each in one design: Xilinx' cells alone take seconds to read."""
    return map_fpga(ZOO, "zoo", request.param, cache=cache)


def own(mapped, name):
    """What a module of a design takes by itself."""
    (module,) = [module for module in mapped.modules if module.name == name]
    return mapped.take(module.cells_by_type)


def test_four_flip_flops_and_a_table(zoo):
    assert own(zoo, "register") == Resources(luts=1, flip_flops=4)
    assert zoo.others == {}
    assert zoo.device == next(iter(FAMILIES[zoo.family].devices))
    assert zoo.tool == "Yosys 0.70 (pyosys)"


def test_products_in_dsps(zoo):
    product = own(zoo, "multiplier")
    if zoo.family == "ice40":  # HX devices have none
        assert product.luts > 64  # as many partial products
    else:
        assert product == Resources(dsps=1)


def test_products_in_dsps_of_the_device(cache):
    assert map_fpga(MULTIPLIER, "multiplier", "ice40", cache=cache).resources.dsps == 0
    mapped = map_fpga(MULTIPLIER, "multiplier", "ice40", device="up5k", cache=cache)
    assert mapped.resources == Resources(dsps=1)


def test_rams_are_block_rams(zoo):
    assert own(zoo, "ram").block_rams == 1
    # What is read while it is written is the old word, which not all cells do by themselves.
    assert own(zoo, "ram").flip_flops <= 40
    # 36 Kbit: nine of 4 Kbit, two of 18.
    assert own(zoo, "large").block_rams == (9 if zoo.family == "ice40" else 2)
    assert zoo.resources.block_rams == 2 + own(zoo, "large").block_rams
    memory = next(memory for memory in zoo.memories if memory.name == "ram.rows")
    assert (memory.bits, memory.kind, memory.instances) == (4096, "block RAM", 2)


def test_small_rams_are_lut_rams(zoo):
    memory = next(memory for memory in zoo.memories if memory.name == "small.rows")
    kind, resources = {
        "ice40": ("flip-flops", None),  # has none, and block RAMs read with a clock
        "ecp5": ("LUT RAM", Resources(luts=6, lut_rams=1)),
        "xilinx": ("LUT RAM", Resources(luts=4, lut_rams=1)),
    }[zoo.family]
    assert (memory.bits, memory.kind, memory.instances) == (64, kind, 1)
    if resources is None:
        assert own(zoo, "small").flip_flops == 64
    else:
        assert own(zoo, "small") == resources


def test_memories_of_a_flat_design(cache):
    mapped = map_fpga(TWO_RAMS, "two", "ice40", flat=True, cache=cache)
    assert [(each.name, each.bits, each.kind, each.instances) for each in mapped.memories] == [
        ("two.high.rows", 4096, "block RAM", 1),
        ("two.low.rows", 4096, "block RAM", 1),
    ]
    assert mapped.resources.block_rams == 2


def test_memory_image(cache):
    images = {"rows.hex": IMAGE}
    mapped = map_fpga(ROM, "rom", "ice40", images=images, cache=cache)
    assert [memory.kind for memory in mapped.memories] == ["block RAM"]
    (cell,) = [
        cell
        for cell in mapped.netlist["rom"]["cells"].values()
        if cell["type"].startswith("SB_RAM40_4K")
    ]
    text = "".join(cell["parameters"][f"INIT_{row:X}"] for row in range(15, -1, -1))
    ones = sum(bin(int(line, 16)).count("1") for line in IMAGE.split())
    assert text.count("1") == ones
    # Another image is another result.
    other = map_fpga(ROM, "rom", "ice40", images={"rows.hex": "00\n" * 512}, cache=cache)
    assert other.resources.block_rams == 0


def test_tables_of_constants(cache):
    source = """\
module top(input [1:0] from, output [1:0] y);
  reg [1:0] rows [0:3];
  integer i;
  initial for (i = 0; i < 4; i = i + 1) rows[i] = 2'd3 - i;
  assign y = rows[from];
endmodule
"""
    mapped = map_fpga(source, "top", "ice40", cache=cache)
    assert [(memory.name, memory.bits, memory.kind) for memory in mapped.memories] == [
        ("top.rows", 8, "constants")
    ]
    assert mapped.resources.flip_flops == 0


def test_tables_of_cases_are_no_memories(cache):
    cases = "".join(f"6'd{row}: y = 8'd{row * row * 37 % 251};\n" for row in range(64))
    source = f"""\
module top(input [5:0] a, output reg [7:0] y);
  always @* case (a)
    {cases}
  endcase
endmodule
"""
    mapped = map_fpga(source, "top", "ice40", cache=cache)
    assert mapped.memories == ()
    assert mapped.resources.luts > 0


def test_cached_by_content(cache, monkeypatch):
    first = map_fpga(REGISTER, "register", "ecp5", cache=cache)
    monkeypatch.setattr(synth.fpga, "run_yosys", lambda *_, **__: pytest.fail("ran again"))
    assert map_fpga(REGISTER, "register", "ecp5", cache=cache) == first
    # Devices that are mapped to alike share a netlist, and differ in what they have.
    larger = map_fpga(REGISTER, "register", "ecp5", device="85k", cache=cache)
    assert larger.netlist == first.netlist
    assert larger.capacity.luts > first.capacity.luts


def test_cells_that_are_not_counted(cache):
    source = """\
(* blackbox *) module secret(input a, output y); endmodule
module top(input a, output y); secret s(.a(a), .y(y)); endmodule
"""
    mapped = map_fpga(source, "top", "ice40", cache=cache)
    assert mapped.others == {"secret": 1}
    assert mapped.resources == Resources()


def test_resources_add_up():
    one = Resources(luts=1, flip_flops=2, carries=3, lut_rams=4, block_rams=5, dsps=6)
    assert one + one == one * 2
    assert dataclasses.astuple(one * 3) == (3, 6, 9, 12, 15, 18)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": "a b"}, r"top must be a plain Verilog identifier, not 'a b'"),
        ({"family": "max10"}, r"family must be one of ice40, ecp5, xilinx, not 'max10'"),
        ({"device": "45k"}, r"device must be one of hx8k, up5k for ice40, not '45k'"),
        ({"timeout_s": 0}, r"timeout_s must be positive, not 0"),
        ({"timeout_s": float("nan")}, r"timeout_s must be positive, not nan"),
        ({"images": {"../x.hex": ""}}, r"images must be plain file names .*, not '\.\./x\.hex'"),
    ],
)
def test_refused(changes, message, cache):
    with pytest.raises(ValueError, match=message):
        map_fpga(
            **{"verilog": REGISTER, "top": "register", "family": "ice40", "cache": cache} | changes
        )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("module top(input a; endmodule", "Yosys could not map top: my file:1: syntax error"),
        ("module top(input a); x y(); endmodule", "x.* is not part of the design"),
        ("module top(input a, b, output reg y); always @* if (a) y = b; endmodule", "[Ll]atch"),
        ("module top(input a, output y, z); assign y = ~(z & a), z = ~y; endmodule", "logic loop"),
        ("module top(input a, b, output y); assign y = a; assign y = b; endmodule", "drivers"),
        ("module other(input a); endmodule", "top"),
    ],
)
def test_designs_refused_in_one_line(source, message, cache):
    with pytest.raises(YosysError, match=message) as caught:
        map_fpga({"my file": source}, "top", "xilinx", cache=cache)
    assert "\n" not in str(caught.value)


def test_mapping_ends_in_time(cache):
    with pytest.raises(YosysError, match=r"Yosys took longer than 0\.01 s to map tree"):
        map_fpga(f"{TREE}\n", "tree", "ice40", timeout_s=0.01, cache=cache)


# The harness and nextpnr.


def drivers(module):
    """Cell and pin that drive each net of a module, and the ports that do."""
    found = {}
    for name, cell in module["cells"].items():
        for pin, direction in cell["port_directions"].items():
            for net in cell["connections"][pin]:
                if direction == "output":
                    assert net not in found
                    found[net] = name, pin
    for name, port in module["ports"].items():
        if port["direction"] == "input":
            assert port["bits"][0] not in found
            found[port["bits"][0]] = name, None
    return found


@pytest.mark.parametrize("family", list(PLACERS))
def test_harness_is_two_shift_registers(family, cache):
    mapped = map_fpga(REGISTER, "register", family, cache=cache)
    module = harness(mapped, "clk")["modules"][HARNESS]
    placer = PLACERS[family]
    cells = module["cells"]
    clock, data, output = *placer.flip_flop.inputs, placer.flip_flop.output
    design = cells.pop("design")
    assert design["type"] == "register"
    assert design["connections"]["clk"] == module["ports"]["clk"]["bits"]
    registers = {
        name: cell for name, cell in cells.items() if cell["type"] == placer.flip_flop.kind
    }
    # 4 inputs; 5 outputs, captured and shifted.
    assert len(registers) == 4 + 2 * 5
    assert {cell["connections"][clock][0] for cell in registers.values()} == {
        module["ports"]["clk"]["bits"][0]
    }
    cells["design"] = design
    driver = drivers(module)
    del cells["design"]

    # Every output goes straight into a flip-flop of its own.
    outputs = design["connections"]["q"] + design["connections"]["x"]
    assert len({*outputs}) == 5
    captured = {}
    for net in outputs:
        (name,) = [name for name, cell in registers.items() if cell["connections"][data] == [net]]
        captured[cells[name]["connections"][output][0]] = net
    # Back from the pin: 5 choices between a captured bit and the register before.
    net = module["ports"]["y"]["bits"][0]
    first, second, load = placer.choice.inputs
    chosen = []
    for _ in outputs:
        name, pin = driver[net]
        assert (cells[name]["type"], pin) == (placer.flip_flop.kind, output)
        name, pin = driver[cells[name]["connections"][data][0]]
        assert (cells[name]["type"], pin) == (placer.choice.kind, placer.choice.output)
        pins = cells[name]["connections"]
        assert pins[load] == module["ports"]["load"]["bits"]
        chosen.append(captured[pins[second][0]])
        net = pins[first][0]
    assert chosen == outputs[::-1]
    # Then the 4 inputs, each from a flip-flop, to the other pin.
    for expected in design["connections"]["d"][::-1]:
        assert net == expected
        name, pin = driver[net]
        assert (cells[name]["type"], pin) == (placer.flip_flop.kind, output)
        net = cells[name]["connections"][data][0]
    assert [net] == module["ports"]["shift"]["bits"]


@pytest.mark.parametrize("family", list(PLACERS))
def test_choice_is_a_multiplexer(family):
    (table,) = PLACERS[family].choice.parameters.values()
    for d, load, captured, shifted in itertools.product((0, 1), repeat=4):
        index = 8 * d + 4 * load + 2 * captured + shifted
        assert table[-1 - index] == str(captured if load else shifted)


def test_clock_must_be_a_port(cache):
    mapped = map_fpga(REGISTER, "register", "ice40", cache=cache)
    for clock in ("ck", "d", "x"):
        with pytest.raises(ValueError, match=f"clock must be an input of one bit, not '{clock}'"):
            harness(mapped, clock)


@pytest.fixture
def fake(monkeypatch):
    """Let a program of the test run instead of nextpnr, installed or not."""

    def replace(program):
        monkeypatch.setattr(synth.pnr, "CHILD", program.replace("{", "{{").replace("}", "}}"))
        monkeypatch.setattr(synth.pnr, "require_nextpnr", lambda family: None)
        monkeypatch.setattr(synth.pnr, "nextpnr_version", lambda family: "nextpnr 0")

    return replace


REPORT = {
    "fmax": {"clk$glb_clk": {"achieved": 80.0, "constraint": 100.0}},
    "critical_paths": [
        {"from": "async", "to": "posedge clk$glb_clk", "path": []},
        {
            "from": "posedge clk$glb_clk",
            "to": "posedge clk$glb_clk",
            "path": [
                {
                    "type": "clk-to-q",
                    "delay": 0.5,
                    "from": {"cell": f"{HARNESS}_in_4_LC"},
                    "to": {"cell": f"{HARNESS}_in_4_LC"},
                },
                {"type": "routing", "delay": 8.0, "from": {"cell": ""}, "to": {"cell": ""}},
                {"type": "logic", "delay": 3.0, "from": {"cell": ""}, "to": {"cell": ""}},
                {
                    "type": "setup",
                    "delay": 1.0,
                    "from": {"cell": "design.q"},
                    "to": {"cell": "design.q"},
                },
            ],
        },
    ],
    "utilization": {
        "ICESTORM_LC": {"used": 20, "available": 7680},
        "ICESTORM_RAM": {"used": 0, "available": 32},
    },
}


def test_report_is_read(fake, cache, tmp_path):
    given = tmp_path / "arguments.json"
    fake(
        "import json, shutil\n"
        f"shutil.copy('arguments.json', {str(given)!r})\n"
        f"open('report.json', 'w').write(json.dumps({REPORT!r}))\n"
    )
    mapped = map_fpga(REGISTER, "register", "ice40", cache=cache)
    placed = place_and_route(mapped, clock="clk", target_mhz=50.0, seed=7, cache=cache)
    assert dataclasses.asdict(placed) == {
        "mhz": 80.0,
        "kind": "input to register",
        "logic_ns": 4.5,
        "routing_ns": 8.0,
        "cells": 1,
        "used": {"ICESTORM_LC": [20, 7680]},
        "seed": 7,
        "tool": "nextpnr 0",
    }
    words = json.loads(given.read_text())
    assert words[:3] == ["--hx8k", "--package", "ct256"]
    assert words[words.index("--seed") + 1] == "7"
    assert words[words.index("--freq") + 1] == "50"
    # From the cache the second time.
    fake("raise SystemExit(9)")
    again = place_and_route(mapped, clock="clk", target_mhz=50.0, seed=7, cache=cache)
    assert again == placed


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        (f"{HARNESS}_in_4_LC", f"{HARNESS}_out_9_LC", "input to output"),
        ("design.x.b.FF", f"{HARNESS}_out_9_LC", "register to output"),
        ("design.x.b.FF", f"{HARNESS}_in_4_LC", "register to register"),
        (f"{HARNESS}_shift_3", f"{HARNESS}_shift_4", "register to register"),
        # A flip-flop of the harness is packed with what drives it, and called so.
        ("design.x.a.FF", "design.x.b.FF_LC", "register to output"),
        ("design.x.a.FF", "design.x.a.FF_LC", "register to register"),
        ("design.x.a.FF", "design.x.b.TABLE_LC", "register to register"),
    ],
)
def test_ends_of_paths(first, last, kind, fake, cache, tmp_path):
    mapped = map_fpga(TREE, "tree", "ice40", cache=cache)
    cells = mapped.netlist["leaf"]["cells"]
    for word, of_type in (("FF", "SB_DFF"), ("TABLE", "SB_LUT4")):
        name = next(name for name, cell in cells.items() if cell["type"] == of_type)
        first, last = first.replace(word, name), last.replace(word, name)
    report = copy.deepcopy(REPORT)
    path = report["critical_paths"][1]["path"]
    path[0]["from"]["cell"], path[-1]["to"]["cell"] = first, last
    fake(f"import json; open('report.json', 'w').write(json.dumps({report!r}))")
    placed = place_and_route(mapped, clock="clk", cache=Cache(tmp_path / "cache"))
    assert placed.kind == kind


def test_only_some_bits_are_outputs(fake, cache, tmp_path):
    source = f"""\
{TREE}
module top(input clk, input [3:0] d, output [1:0] y);
  wire [3:0] q;
  leaf l(.clk(clk), .d(d), .q(q));
  assign y = q[1:0];
endmodule
"""
    mapped = map_fpga(source, "top", "ice40", cache=cache)
    leaf = mapped.netlist["leaf"]
    kinds = []
    for bit in leaf["ports"]["q"]["bits"]:
        (name,) = [
            name for name, cell in leaf["cells"].items() if cell["connections"].get("Q") == [bit]
        ]
        report = copy.deepcopy(REPORT)
        report["critical_paths"][1]["path"][-1]["to"]["cell"] = f"design.l.{name}_LC"
        fake(f"import json; open('report.json', 'w').write(json.dumps({report!r}))")
        placed = place_and_route(mapped, clock="clk", cache=Cache(tmp_path / name))
        kinds.append(placed.kind)
    assert kinds == ["input to output"] * 2 + ["input to register"] * 2


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", r"nextpnr took longer than 1 s to place and route regist"),
        ("import os; os.kill(os.getpid(), 9)", "nextpnr was ended by SIGKILL while it placed"),
        ("raise SystemExit(1)", "nextpnr could not place register: it printed nothing"),
        (
            "print('Info: a'); print('ERROR: no way'); raise SystemExit(255)",
            "nextpnr could not place register: no way",
        ),
        (
            "print('Info: \\t  ICESTORM_LC:  9001/  7680   117%'); raise SystemExit(255)",
            "design must fit the iCE40HX8K, which has 7680 ICESTORM_LC sites, not need 9001, those",
        ),
    ],
)
def test_failures_of_nextpnr(program, message, fake, cache, tmp_path):
    fake(program)
    mapped = map_fpga(REGISTER, "register", "ice40", cache=cache)
    with pytest.raises(PlacementError, match=message):
        place_and_route(mapped, clock="clk", timeout_s=1, cache=Cache(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("SB_LUT4", "which has 7680 look-up tables, not need 99999"),
        ("SB_DFF", "which has 7680 flip-flops, not need 99999"),
        ("SB_RAM40_4K", "which has 32 block RAMs, not need 99999"),
        ("SB_MAC16", "which has 0 DSPs, not need 99999"),
    ],
)
def test_design_too_large(cell, message, fake, cache):
    fake("raise SystemExit(9)")
    mapped = map_fpga(REGISTER, "register", "ice40", cache=cache)
    (module,) = mapped.modules
    large = dataclasses.replace(module, cells_by_type={cell: 99999})
    with pytest.raises(PlacementError, match=f"design must fit the iCE40HX8K, {message}"):
        place_and_route(dataclasses.replace(mapped, modules=(large,)), clock="clk", cache=cache)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_mhz": 0}, "target_mhz must be positive, not 0"),
        ({"timeout_s": -1}, "timeout_s must be positive, not -1"),
        ({"seed": -1}, "seed must be between 0 and 2147483647, not -1"),
        ({"seed": 1 << 31}, "seed must be between 0 and 2147483647, not 2147483648"),
    ],
)
def test_placement_refused(changes, message, fake, cache):
    fake("raise SystemExit(9)")
    mapped = map_fpga(REGISTER, "register", "ice40", cache=cache)
    with pytest.raises(ValueError, match=message):
        place_and_route(mapped, **{"clock": "clk", "cache": cache} | changes)


def test_nextpnr_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"nextpnr for ecp5 must be installed, with the extra fpga: pip install 'narrowgauge\["
    with pytest.raises(PlacementError, match=message):
        require_nextpnr("ecp5")
    with pytest.raises(
        ValueError, match=r"family must be one of ice40, ecp5 to be placed .*'xilinx"
    ):
        require_nextpnr("xilinx")


def test_devices():
    assert find_device("ecp5")[0] == "25k"
    assert find_device("ecp5", "85k")[1].title == "LFE5U-85F"
    assert PLACERS.keys() < FAMILIES.keys()


def needs_nextpnr(family):
    if importlib.util.find_spec(PLACERS[family].package) is None:
        pytest.skip(f"nextpnr for {family} is not installed (extra fpga)")


@pytest.mark.parametrize("family", list(PLACERS))
def test_places_and_routes(family, cache, tmp_path):
    needs_nextpnr(family)
    mapped = map_fpga(REGISTER, "register", family, cache=cache)
    placed = place_and_route(mapped, clock="clk", cache=cache)
    # Flip-flops with a table or none between them, in chips of 40 nm.
    assert 100 < placed.mhz < 2000
    assert placed.mhz == pytest.approx(1000 / (placed.logic_ns + placed.routing_ns), rel=0.01)
    # 4 flip-flops and a table, and the harness.
    sites = {"ice40": "ICESTORM_LC", "ecp5": "TRELLIS_FF"}
    assert 4 + 14 <= placed.used[sites[family]][0] <= 4 + 14 + 4
    assert placed.tool == nextpnr_version(family)
    # Without registers of its own there is a frequency, too.
    source = "module top(input [3:0] a, b, output [7:0] y); assign y = a * b; endmodule\n"
    product = map_fpga(source, "top", family, cache=cache)
    assert place_and_route(product, clock=None, cache=cache).kind == "input to output"
    # The same seed gives the same place, also without the cache.
    assert place_and_route(mapped, clock="clk", cache=Cache(tmp_path / "cache")) == placed
