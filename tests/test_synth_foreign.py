"""Foreign Verilog: what is read, what is refused, and that no name of a user is ever a command."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

import synth.foreign
from synth.activity import Simulator, pack, unpack
from synth.cache import Cache
from synth.foreign import ForeignError, ForeignPort, read_foreign
from synth.library import load
from synth.netlist import Netlist
from synth.yosys import map_netlist

#: Words that shells, Yosys, Tcl, slang or Verilog would take for something else.  Each would leave
#: the file ``canary`` behind if a shell ran it.
HOSTILE = (
    "a b",
    " ",
    "a'b",
    'a"b',
    "'; touch canary; '",
    '"; !touch canary; "',
    "; !touch canary",
    "!touch canary",
    "\n!touch canary\n",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "$(touch canary)",
    "`touch canary`",
    "${HOME}",
    "$HOME",
    "%PATH%",
    "~",
    "~root",
    "a;b",
    "a&b",
    "a&&touch canary",
    "a|b",
    "|touch canary",
    "a>canary",
    ">canary",
    "<a",
    "<<EOT",
    "a*b",
    "?",
    "[a]",
    "{a,b}",
    "...",
    "a...b",
    "-D",
    "-f",
    "--top",
    "+incdir+a",
    "@a",
    "#a",
    "# a",
    "a\\",
    "\\",
    "\\a \\b",
    "a\\nb",
    "a=b",
    "a,b",
    "é",
    "\x01",
    "\x1b[31m",
    "(*a*)",
)


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def private_folders(tmp_path, monkeypatch):
    """Private folders are made here, and none may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a text from a file in the folder of work."""
    monkeypatch.chdir(tmp_path)

    def run(text, **options):
        Path("d.sv").write_text(text)
        return read_foreign(["d.sv"], "top", **options)

    return run


def netlist(design, library, cache):
    mapped = map_netlist(design.verilog, design.top, library, clock_ns=2.0, cache=cache)
    return Netlist(mapped, library)


def outputs(design, library, cache, name, rows, *, signed=False, reset=()):
    """Values of an output in each cycle, one lane, after cycles with the inputs of ``reset``."""
    simulator = Simulator(netlist(design, library, cache), 1)
    widths = {port.name: port.width for port in design.ports}
    found = []
    for row in (*reset, *rows):
        simulator.step({port: pack([value], widths[port]) for port, value in row.items()})
        found.append(int(unpack(simulator.settled(name), 1, signed=signed)[0]))
    return found[len(reset) :]


# What is read.


PACKAGE = """
package dot_pkg;
  typedef struct packed { logic signed [3:0] weight; logic signed [3:0] x; } pair_t;
  localparam int Extra = 2;
endpackage
"""
DOT = """
`include "width.svh"
module lane import dot_pkg::*; #(parameter int W = 8) (
  input pair_t pair, output logic signed [W-1:0] product
);
  assign product = W'(pair.weight) * W'(pair.x);
endmodule

module top import dot_pkg::*; #(parameter int N = 4, localparam int W = `WIDTH + Extra) (
  input logic clk_i, rst_ni, input pair_t [N-1:0] pairs_i, input logic valid_i,
  output logic signed [W-1:0] sum_o
);
  logic signed [W-1:0] products [N];
  logic signed [W-1:0] sum;
  for (genvar i = 0; i < N; i++) begin : gen_lanes
    lane #(.W(W)) i_lane (.pair(pairs_i[i]), .product(products[i]));
  end
  always_comb begin
    sum = '0;
    foreach (products[i]) sum += products[i];
  end
  always_ff @(posedge clk_i or negedge rst_ni)
    if (!rst_ni) sum_o <= '0;
    else if (valid_i) sum_o <= #1 sum;
endmodule
"""


def test_system_verilog(tmp_path, monkeypatch, library, cache):
    """Packages, structures, generate loops, parameters, macros and included files."""
    monkeypatch.chdir(tmp_path)
    Path("pkg.sv").write_text(PACKAGE)
    Path("dot.sv").write_text(DOT)
    Path("headers").mkdir()
    Path("headers/width.svh").write_text("`ifdef WIDE\n`define WIDTH `WIDE\n`endif\n")
    design = read_foreign(
        ["pkg.sv", "dot.sv"],
        "top",
        defines={"WIDE": "8"},
        includes=["headers"],
        parameters={"N": "1 + 2"},
    )
    assert sorted(design.ports, key=lambda port: port.name) == [
        ForeignPort(name="clk_i", direction="input", width=1),
        ForeignPort(name="pairs_i", direction="input", width=24),
        ForeignPort(name="rst_ni", direction="input", width=1),
        ForeignPort(name="sum_o", direction="output", width=10),
        ForeignPort(name="valid_i", direction="input", width=1),
    ]
    assert (design.clock, design.falling_edge, design.resets) == ("clk_i", False, {"rst_ni": 0})
    assert design.notes == ()

    rng = np.random.default_rng(1)
    pairs = rng.integers(-8, 8, (40, 3, 2))
    valid = rng.integers(0, 2, 40)
    # The first structure is in the least significant bits, its last field too.
    codes = [
        sum((int(w) & 15) << 8 * i + 4 | (int(x) & 15) << 8 * i for i, (w, x) in enumerate(row))
        for row in pairs
    ]
    rows = [
        {"pairs_i": code, "valid_i": int(v), "rst_ni": 1}
        for code, v in zip(codes, valid, strict=True)
    ]
    found = outputs(design, library, cache, "sum_o", rows, signed=True, reset=[{"rst_ni": 0}])
    state, expected = 0, []
    for row, is_valid in zip(pairs, valid, strict=True):
        expected.append(state)
        state = int((row[:, 0] * row[:, 1]).sum()) if is_valid else state
    assert found == expected
    assert len(set(expected)) > 10


MEMORIES = """
module top(input clk, input we, input [1:0] a, input [3:0] d, mask, output reg [3:0] q, r);
  reg [3:0] ram [0:3], rom [0:3];
  integer i;
  initial begin
    $readmemh("rom.hex", rom);
    ram[0] = 7;
  end
  always @(posedge clk) begin
    if (we) for (i = 0; i < 4; i = i + 1) if (mask[i]) ram[a][i] <= d[i];
    q <= ram[a];
  end
  always @* r = rom[a];
  initial $display("at the start");
  always @(posedge clk) if (we) $display("written");
endmodule
"""


def test_memories(read, library, cache):
    """Written ones are flip-flops and start at 0, read-only ones keep their contents."""
    Path("rom.hex").write_text("9 3 a 6")
    design = read(MEMORIES)
    assert design.memory_bits == 16
    assert design.notes == ("memories of 16 bits are flip-flops here, not macros",)
    rng = np.random.default_rng(2)
    ram, q, expected, rows = [0] * 4, 0, [], []
    for we, a, d, mask in rng.integers(0, (2, 4, 16, 16), (60, 4)).tolist():
        rows.append({"we": we, "a": a, "d": d, "mask": mask})
        expected.append(q)
        q = ram[a]
        if we:
            ram[a] = ram[a] & ~mask | d & mask
    assert outputs(design, library, cache, "q", rows) == expected
    contents = outputs(design, library, cache, "r", [{"a": a} for a in range(4)])
    assert contents == [9, 3, 10, 6]


def test_memory_with_a_reset(read, library, cache):
    """It is no memory of Yosys, but registers whose words are chosen by a mask."""
    design = read(
        "module top(input clk, rst_n, input [1:0] a, d, output [1:0] q); reg [1:0] m [0:3];"
        "integer i; assign q = m[a]; always @(posedge clk or negedge rst_n)"
        "if (!rst_n) for (i = 0; i < 4; i = i + 1) m[i] <= 3; else m[a] <= d; endmodule"
    )
    m, expected, rows = [3] * 4, [], []
    for a, d in np.random.default_rng(7).integers(0, 4, (40, 2)).tolist():
        rows.append({"rst_n": 1, "a": a, "d": d})
        expected.append(m[a])
        m[a] = d
    assert outputs(design, library, cache, "q", rows, reset=[{"rst_n": 0}]) == expected


def test_falling_edge_and_inverted_reset(read, library, cache):
    text = """module top(input clk_n, arst, d, output reg q);
      wire n = ~arst, m = !n;
      sub s(.c(clk_n), .*); always @(*) ; endmodule
    module sub(input c, m, d, output reg q);
      always @(negedge c or posedge m) if (m) q <= 0; else q <= d;
    endmodule"""
    design = read(text.replace("sub s(.c(clk_n), .*);", "sub s(clk_n, m, d, q);"))
    assert (design.clock, design.falling_edge, design.resets) == ("clk_n", True, {"arst": 1})
    assert design.notes == ("clk_n clocks with its falling edge; measured as the rising one",)
    rows = [{"d": d, "arst": 0} for d in (1, 0, 1, 1)]
    assert outputs(design, library, cache, "q", rows) == [0, 1, 0, 1]


def test_inverters_on_the_way(read):
    """Of clocks and resets, also in other modules."""
    text = """module top(input c, a, b, d, e, input x, output reg [3:0] q);
      wire nc = ~c, na = !a, nb = ~b, nnd = ~(~d); wire ce;
      pass p(c, ce);
      always @(negedge nc or posedge na) if (na) q[0] <= 0; else q[0] <= x;
      always @(posedge c or negedge nb) if (!nb) q[1] <= 1; else q[1] <= x;
      always @(posedge ce or negedge nnd) if (~nnd) q[2] <= 0; else q[2] <= x;
      always @(posedge c or posedge e) if (e) q[3] <= 0; else q[3] <= x;
    endmodule
    module pass(input i, output o); assign o = i; endmodule"""
    design = read(text)
    assert (design.clock, design.falling_edge) == ("c", False)
    assert design.resets == {"a": 0, "b": 1, "d": 0, "e": 1}
    with pytest.raises(ForeignError, match="must use one edge of c, not both"):
        read(text.replace("negedge nc", "posedge nc"))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [("!my_rst_n", {"my_rst_n": 0}), ("clear", {}), ("my_rst_n | clear", {})],
)
def test_synchronous_resets_are_known_by_their_names(read, condition, expected):
    """One that is only part of a condition is none."""
    design = read(
        "module top(input clk, my_rst_n, clear, input [3:0] d, output reg [3:0] q);"
        f"always @(posedge clk) if ({condition}) q <= 0; else q <= q + d; endmodule"
    )
    assert design.resets == expected


def test_reset_at_both_levels_is_none(read):
    design = read(
        "module top(input clk, rst, d, output reg q, r);"
        "always @(posedge clk or posedge rst) if (rst) q <= 0; else q <= d;"
        "always @(posedge clk or negedge rst) if (!rst) r <= 0; else r <= d; endmodule"
    )
    assert design.resets == {}


def test_notes(read, library, cache):
    """A register is not constant because of the value with which it should start."""
    design = read(
        "module top(input clk, a, output reg [1:0] q, output reg s, output y); wire open;"
        "initial begin q = 2; s = 1; end always @(posedge clk) q <= q + a;"
        "always @(posedge clk) s <= s | a; assign y = open | a; endmodule"
    )
    assert design.notes == (
        "1 undriven nets are taken as 0: open",
        "initial values of registers are not taken: q, s",
    )
    assert "reg [1:0] q;" in design.verilog
    assert outputs(design, library, cache, "s", [{"a": 0}, {"a": 1}, {"a": 0}]) == [0, 0, 1]
    rows = [{"a": 1}] * 3
    assert outputs(design, library, cache, "q", rows) == [0, 1, 2]
    assert outputs(design, library, cache, "y", [{"a": 0}, {"a": 1}]) == [0, 1]


def test_words_of_newer_languages_as_names(read):
    text = "module top(input logic, output bit); assign bit = ~logic; endmodule"
    with pytest.raises(ForeignError, match=r"^source must be correct, not as here: d\.sv:1: "):
        read(text)
    assert [port.name for port in read(text, standard="1364-2005").ports] == ["logic", "bit"]


class TestReader:
    """Yosys' own reader of Verilog."""

    TEXT = "module top #(parameter P = 1) (input a, output y); assign y = a ^ P `X; endmodule\n"

    def test_text_as_it_is(self, read):
        assert read(self.TEXT.replace("`X", ""), reader="yosys").verilog == self.TEXT.replace(
            "`X", ""
        )

    def test_text_that_has_to_change(self, read):
        text = "module top(input c, a, output reg q); always @(negedge c) q <= a; endmodule"
        design = read(text, reader="yosys")
        assert design.falling_edge
        assert "posedge c" in design.verilog
        assert "negedge" not in design.verilog

    def test_comments_in_another_encoding(self, tmp_path):
        path = tmp_path / "latin.v"
        path.write_bytes(b"// \xe9\nmodule top(input a, output y); assign y = ~a; endmodule")
        for reader in ("slang", "yosys"):
            assert "a" in read_foreign([path], "top", reader=reader).verilog

    def test_changed_text(self, read, library, cache):
        design = read(self.TEXT, reader="yosys", defines={"X": "^ 1"}, parameters={"P": "0"})
        assert outputs(design, library, cache, "y", [{"a": 0}, {"a": 1}]) == [1, 0]

    def test_included_file(self, read):
        Path("inc").mkdir()
        Path("inc/h.v").write_text("assign y = a;")
        text = 'module top(input a, output y); `include "h.v"\nendmodule'
        with pytest.raises(ForeignError, match=r"include file `h\.v'"):
            read(text, reader="yosys")
        assert read(text, reader="yosys", includes=["inc"]).clock is None
        Path("h.v").write_text("assign y = ~a;")
        assert read(text, reader="yosys").clock is None

    def test_names_of_many_folders(self, read):
        folders = [f"inc{index}" for index in range(11)]
        for folder in folders:
            Path(folder).mkdir()
        Path("inc10/h.v").write_text("assign y = ;")
        text = 'module top(input a, output y); `include "h.v"\nendmodule'
        with pytest.raises(ForeignError, match=r"not as here: inc10/h\.v:1: syntax error"):
            read(text, reader="yosys", includes=folders)

    def test_names_of_files(self, read):
        with pytest.raises(ForeignError, match=r"not as here: d\.sv:2: syntax error"):
            read("module top(input a, output y);\nassign y = ; endmodule", reader="yosys")
        with pytest.raises(ForeignError, match=r"no latch, not y \(d\.sv:2\)$"):
            read(
                "module top(input a, b, output reg y);\nalways @* if (a) y = b; endmodule",
                reader="yosys",
            )

    def test_full_case(self, read):
        """The reader that knows this attribute sees no latch."""
        text = """module top(input [1:0] s, a, output reg y);
          always @* (* full_case *) case (s) 0: y = a; 1: y = 0; 2: y = 1; endcase endmodule"""
        with pytest.raises(ForeignError, match=r"no latch, not y \(d\.sv:2\)$"):
            read(text)
        assert read(text, reader="yosys").clock is None


# What is refused.


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("assign y = a + ;", r"source must be correct, not as here: d\.sv:2: expected expression$"),
        (
            "missing m(a, y); gone g();",
            r"not as here: d\.sv:2: unknown module 'missing' \(and 1 more\)$",
        ),
        ("always_latch if (a) y = b;", r"must have no latch, not y \(d\.sv:2\)$"),
        ("always @* if (a) y = b;", r"must have no latch, not y \(d\.sv:2\)$"),
        ("always_comb if (a) y = b;", r"loop, or latch in always_comb, .* y \(d\.sv:1\)$"),
        ("assign y = a ? b : 1'bz;", r"no driver of three states, not that of y \(d\.sv:2\)$"),
        (
            "wire p, q; assign p = q ^ a, q = p & b, y = p;",
            r"no combinational loop, .* not one through .*\bp \(d\.sv:2\)",
        ),
        ("assign y = a; sub s(b, y); ", r"one driver for each net, not multiple .* top\.y$"),
        (
            "always_comb begin y = 0; while (1) y = ~y; end",
            r"d\.sv:2: unroll limit of 65536 exhausted$",
        ),
        (
            "buf #1 q(y, a); p u(y, a);",
            r"not as here: d\.sv:\d: user-defined primitives unsupported$",
        ),
        ("bb x(a, y);", r"no black box, not x of type bb \(d\.sv:2\)$"),
        (
            "reg q; always @(posedge a) q <= y; always @(posedge b) y <= q;",
            r"design must have one clock, not 2: a, b$",
        ),
        (
            "reg q; always @(posedge a) q <= b; always @(negedge a) y <= q;",
            r"flip-flops must use one edge of a, not both$",
        ),
        (
            "wire g = a & b; always @(posedge g) y <= b;",
            r"clock must be an input port of one bit, not g \(d\.sv:2\)$",
        ),
        (
            "always @(posedge v[1]) y <= b;",
            r"clock must be an input port of one bit, not v\[1\] \(d\.sv:2\)$",
        ),
        ("wire g; always @(posedge g) y <= b;", r"not g, which nothing drives \(d\.sv:2\)$"),
        ("wire g = 0; always @(posedge g) y <= b;", r"not 1'b0, which nothing drives"),
        (
            "reg [63:0] m [0:1024]; always @(posedge a) begin m[v] <= b; y <= m[{v, b}]; end",
            r"memories must hold at most 65536 bits .*, not 65600 \(m\)$",
        ),
        (
            "reg [1:0] m [0:3]; always @* if (a) m[v] = b; assign y = m[v];",
            r"must have no latch, not m",
        ),
        ("always @* y = gone;", r"d\.sv:2: use of undeclared identifier 'gone'$"),
    ],
)
def test_refused(read, body, message):
    ports = "module top(input a, b, input [1:0] v, output logic y);\n"
    rest = "\nendmodule\nmodule sub(input i, output o); assign o = i; endmodule\n"
    table = "primitive p(output o, input i); table 0 : 1; 1 : 0; endtable endprimitive\n"
    black = "(* blackbox *) module bb(input i, output o); endmodule\n"
    with pytest.raises(ForeignError, match=message) as caught:
        read(ports + body + rest + table + black)
    assert "\n" not in str(caught.value)


def test_ports(read):
    with pytest.raises(ForeignError, match=r"^port p must be an input or an output, not an inout$"):
        read("module top(input a, inout p, output y); assign y = a; endmodule")
    with pytest.raises(ForeignError, match=r"^design must have an output, not none$"):
        read("module top(input a); endmodule")
    with pytest.raises(ForeignError, match=r"^port must have a name, not the escaped one '.* '$"):
        read("module top(input a, output \\\\ ); assign \\\\ = a; endmodule")


@pytest.mark.parametrize("head", ["other", "top #(parameter int P)"])
def test_top(read, head):
    """One that is not there, and one with a parameter without a value."""
    text = f"module {head}(input a, output y); assign y = a; endmodule"
    message = "^top must be a module of the files whose parameters have values, not 'top'$"
    with pytest.raises(ForeignError, match=message):
        read(text)


def test_long_loops(read):
    design = read(
        "module top(input a, output reg y); integer i, n; always @* begin n = 0;"
        "for (i = 0; i < 5001; i = i + 1) n = n + 1; y = a ^ n[0]; end endmodule"
    )
    assert "y = ~ a;" in design.verilog or "a ^ 1" in design.verilog


def test_bound_of_memories(read):
    text = MEMORIES.replace('$readmemh("rom.hex", rom);', "")
    with pytest.raises(ForeignError, match="memories must hold at most 15 bits"):
        read(text, max_memory_bits=15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": "a b"}, "top must be a plain Verilog identifier, not 'a b'"),
        ({"defines": {"A;": "1"}}, "define must be a plain Verilog identifier, not 'A;'"),
        ({"defines": {"A": "1\n2"}}, r"define A must be one line of text, not '1\\n2'"),
        ({"parameters": {"": "1"}}, "parameter must be a plain Verilog identifier, not ''"),
        ({"parameters": {"P": "1\0"}}, r"parameter P must be one line of text, not '1\\x00'"),
        ({"parameters": {"Q": "1"}}, "parameter must be one of the design, not 'Q'"),
        ({"standard": "1995"}, "standard must be one of 1364-2005, .*, not '1995'"),
        ({"standard": "1364-2005", "reader": "yosys"}, "standard must be left out for reader"),
        ({"reader": "vcs"}, "reader must be one of slang, yosys, not 'vcs'"),
        ({"max_memory_bits": -1}, "max_memory_bits must not be negative, not -1"),
        ({"timeout_s": 0}, "timeout_s must be positive, not 0"),
        ({"files": []}, "files must be at least one, not none"),
        ({"files": ["."]}, "files must be regular files, not '.'$"),
        ({"includes": ["d.sv"]}, "include must be a folder, not 'd.sv'$"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("d.sv").write_text("module top(input a, output y); assign y = a; endmodule")
    arguments = {"files": ["d.sv"], "top": "top"} | options
    with pytest.raises(ValueError, match=f"^{message}"):
        read_foreign(arguments.pop("files"), arguments.pop("top"), **arguments)


def test_missing_and_large_files(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        read_foreign([tmp_path / "none.v"], "top")
    large = tmp_path / "large.v"
    with large.open("wb") as file:
        file.truncate(synth.foreign.MAX_SOURCE_BYTES + (1 << 20))
    with pytest.raises(ValueError, match=r"files must hold at most 64 MB, not 65\.0 MB"):
        read_foreign([large], "top")


@pytest.mark.parametrize(
    ("child", "message"),
    [
        ("import time; time.sleep(60)", r"Yosys took longer than 0\.3 s to read top"),
        ("import os; os.abort()", "Yosys was ended by SIGABRT while it read top"),
        ("print('some words'); exit(1)", "Yosys could not read top: some words"),
        ("exit(1)", "Yosys could not read top: no reason"),
        ("print('ERROR: Assert `x'); exit(1)", "Yosys could not read top: ERROR: Assert `x"),
    ],
)
def test_yosys_that_fails(read, monkeypatch, child, message):
    monkeypatch.setattr(synth.foreign, "CHILD", child)
    with pytest.raises(ForeignError, match=f"^{message}$"):
        read("module top; endmodule", timeout_s=0.3 if "sleep" in child else 30)


# Names.


def test_fifty_names_of_files(tmp_path, monkeypatch):
    """All of them in one run, in folders of such names, with included files of such names."""
    assert len(set(HOSTILE)) >= 50
    folder = tmp_path / "'; touch canary; \"$(touch canary)\n"
    folder.mkdir()
    monkeypatch.chdir(folder)
    includes = folder / HOSTILE[5]
    includes.mkdir()
    (includes / "in c;l.vh").write_text("`define NOT ~")
    names = [f"{name}.sv" for name in HOSTILE]
    for index, name in enumerate(names):
        (folder / name).write_text(
            f'`include "in c;l.vh"\n'
            f"module m{index}(input a, output y); assign y = `NOT a; endmodule"
        )
    instances = " ".join(f"m{i} i{i}(a[{i}], y[{i}]);" for i in range(len(names)))
    bits = f"[{len(names) - 1}:0]"
    (folder / "top.sv").write_text(
        f"module top(input {bits} a, output {bits} y); {instances} endmodule"
    )
    before = sorted(os.listdir(folder))
    design = read_foreign([*names, "top.sv"], "top", includes=[includes])
    assert design.verilog.count("~") == len(names)
    assert sorted(os.listdir(folder)) == before

    (folder / names[6]).write_text("module m6(input a, output y); assign y = ; endmodule")
    with pytest.raises(ForeignError, match=r"expected expression$") as caught:
        read_foreign([*names, "top.sv"], "top", includes=[includes])
    assert "here: ; !touch canary.sv:1: " in str(caught.value)
    assert not list(tmp_path.rglob("canary"))


def test_fifty_names_in_the_source(tmp_path, monkeypatch, library, cache):
    """Ports, nets, instances and modules; escaped names of Verilog have no white space."""
    monkeypatch.chdir(tmp_path)
    words = ["".join(filter(lambda c: "!" <= c <= "~", word)) for word in HOSTILE]
    words = list(dict.fromkeys(filter(None, words)))
    ports = ", ".join(f"input \\i{word} , output \\o{word} " for word in words)
    parts = "\n".join(
        f"wire \\{word} ; \\m{word} \\u{word} (.\\a{word} (\\i{word} ), .\\y{word} (\\{word} ));"
        f"assign \\o{word} = \\{word} ;"
        for word in words
    )
    modules = "\n".join(
        f"module \\m{word} (input \\a{word} , output \\y{word} );"
        f"assign \\y{word} = ~\\a{word} ; endmodule"
        for word in words
    )
    Path("d.v").write_text(f"module top({ports});\n{parts}\nendmodule\n{modules}\n")
    design = read_foreign(["d.v"], "top")
    assert {port.name for port in design.ports} == {f"{d}{word}" for word in words for d in "io"}
    simulator = Simulator(netlist(design, library, cache), 2)
    simulator.step({f"i{word}": pack([0, 1], 1) for word in words})
    for word in words:
        assert unpack(simulator.settled(f"o{word}"), 2).tolist() == [1, 0]
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("reader", ["slang", "yosys"])
def test_texts_of_macros_and_parameters(read, tmp_path, reader):
    """A text is a text of Verilog, whatever it looks like elsewhere."""
    text = "module top #(parameter P = 1) (input a, output y); assign y = a ^ `X; endmodule"
    for word in ('1; !touch canary; "', "$(touch canary)", "; shell touch canary"):
        with pytest.raises(ForeignError):
            read(text, defines={"X": word}, reader=reader)
        with pytest.raises(ForeignError):
            read(text, defines={"X": "1"}, parameters={"P": word}, reader=reader)
    assert not list(tmp_path.rglob("canary"))
