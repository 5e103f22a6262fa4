"""Static timing: hand-computed paths, what is refused, and OpenSTA on mapped netlists."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import opensta_reference
from synth.cells import Cell, CellLibrary, FlipFlop, Pin, SetupArc, Table, TimingArc
from synth.liberty import Function
from synth.library import load
from synth.timing import analyse

SHARED = Path(__file__).parents[1] / ".." / "shared" / "liberty"
NANGATE = SHARED / "nangate45_typ.lib.gz"


def plane(base, per_load=0.0, per_slew=0.0):
    """Table with base + per_load * load + per_slew * slew."""
    grid = (0.0, 1.0)
    return Table(
        grid, grid, tuple(tuple(base + per_load * c + per_slew * r for c in grid) for r in grid)
    )


def pins(inputs, function, cap=1.0, fall_cap=None):
    fall_cap = cap if fall_cap is None else fall_cap
    found = {
        name: Pin(name=name, direction="input", cap_ff=cap, rise_cap_ff=cap, fall_cap_ff=fall_cap)
        for name in inputs
    }
    return found | {"Y": Pin(name="Y", direction="output", function=Function(function))}


def arc(related, sense, rise, fall, slew_rise=None, slew_fall=None):
    slow = plane(0.5)
    return TimingArc(
        pin="Y",
        related=related,
        sense=sense,
        delay_rise=rise,
        delay_fall=fall,
        slew_rise=slew_rise or slow,
        slew_fall=slew_fall or slow,
    )


INVERTER = Cell(
    name="INV",
    area_um2=1,
    leakage_nw=1,
    pins=pins("A", "!A"),
    arcs=(arc("A", "negative", plane(10), plane(1)),),
)
BUFFER = Cell(
    name="BUF",
    area_um2=1,
    leakage_nw=1,
    pins=pins("A", "A"),
    arcs=(arc("A", "positive", plane(10), plane(1)),),
)
#: Delay from the load, slew from the load too; its pins weigh 2 rising and 3 falling.
LOADED = Cell(
    name="LOADED",
    area_um2=1,
    leakage_nw=1,
    pins=pins("A", "A", cap=2.0, fall_cap=3.0),
    arcs=(arc("A", "positive", plane(0, 1), plane(0, 1), plane(0, 2), plane(0, 2)),),
)
#: A is fast but leaves a slow edge, B is slow and leaves a fast one.
PAIR = Cell(
    name="PAIR",
    area_um2=1,
    leakage_nw=1,
    pins=pins("AB", "A & B"),
    arcs=(
        arc("A", "positive", plane(1), plane(1), plane(9), plane(9)),
        arc("B", "positive", plane(5), plane(5), plane(2), plane(2)),
    ),
)
#: Delay is the slew of the input.
SLEW = Cell(
    name="SLEW",
    area_um2=1,
    leakage_nw=1,
    pins=pins("A", "A"),
    arcs=(arc("A", "positive", plane(0, 0, 1), plane(0, 0, 1)),),
)
XOR = Cell(
    name="XOR",
    area_um2=1,
    leakage_nw=1,
    pins=pins("AB", "A ^ B"),
    arcs=(
        arc("A", "positive", plane(1), plane(2)),
        arc("A", "negative", plane(4), plane(3)),
        arc("B", "either", plane(1), plane(1)),
    ),
)
TIE = Cell(name="TIE", area_um2=1, leakage_nw=1, pins=pins("", "1"))


def flip_flop(edge="rising"):
    """Clock to output 3 plus the slew of the clock; setup 4 plus both slews, 40 when falling."""
    found = pins(["D", "CK"], "IQ")
    found["CK"] = Pin(name="CK", direction="input", cap_ff=1, is_clock=True)
    return Cell(
        name="DFF",
        area_um2=1,
        leakage_nw=1,
        pins=found,
        ff=FlipFlop(
            clock="CK",
            clock_edge=edge,
            next_state=Function("D"),
            state="IQ",
            inverted_state="IQN",
        ),
        arcs=(arc("CK", "rising", plane(3, 0, 1), plane(2)),),
        setups=(SetupArc(pin="D", related="CK", rise=plane(4, 1, 1), fall=plane(40, 0, 0)),),
    )


def library(*extra):
    cells = [INVERTER, BUFFER, LOADED, PAIR, SLEW, XOR, TIE, flip_flop(), *extra]
    return CellLibrary(
        name="hand",
        version="",
        source="",
        licence="",
        voltage_v=1,
        temperature_c=25,
        cells={cell.name: cell for cell in cells},
    )


def netlist(inputs, outputs, **cells):
    """Write a netlist as Yosys would.

    ``inputs`` and ``outputs`` map ports to nets; cells are ``name=("TYPE", {pin: net})``.
    """
    ports = {
        name: {"direction": way, "bits": bits if isinstance(bits, list) else [bits]}
        for way, group in (("input", inputs), ("output", outputs))
        for name, bits in group.items()
    }
    return {
        "ports": ports,
        "cells": {
            name: {"type": kind, "connections": {pin: [net] for pin, net in nets.items()}}
            for name, (kind, nets) in cells.items()
        },
    }


def run(module, **options):
    options = {"input_slew_ns": 0.0, "clock_slew_ns": 0.0} | options
    return analyse(module, library(), **options)


def chain(kind, count, first=2):
    """Make cells of one kind, one after the other, from net ``first``."""
    return {f"u{n}": (kind, {"A": first + n, "Y": first + n + 1}) for n in range(count)}


class TestByHand:
    def test_inverters_alternate(self):
        """Rising 10 and falling 1 take turns: 10 + 1 + 10 for three."""
        for count, expected in [(1, 10), (2, 11), (3, 21), (4, 22)]:
            timing = run(netlist({"a": 2}, {"y": 2 + count}, **chain("INV", count)))
            assert timing.critical_path_ns == expected
            assert list(timing.paths) == ["input to output"]

    def test_buffers_do_not(self):
        timing = run(netlist({"a": 2}, {"y": 5}, **chain("BUF", 3)))
        assert timing.critical_path_ns == 30

    def test_either_edge(self):
        """A rising at 10 makes a falling output at 10 + 3, or a rising one at 10 + 1."""
        cells = {"u": ("BUF", {"A": 2, "Y": 3}), "x": ("XOR", {"A": 3, "B": 4, "Y": 5})}
        assert run(netlist({"a": 2, "b": 4}, {"y": 5}, **cells)).critical_path_ns == 13
        # By B: both edges from both, latest 10 + 1.
        cells["x"] = ("XOR", {"A": 4, "B": 3, "Y": 5})
        assert run(netlist({"a": 2, "b": 4}, {"y": 5}, **cells)).critical_path_ns == 11

    def test_load(self):
        """A net of two pins: 2 + 2 rising, 3 + 3 falling, and wires and ports where given."""
        cells = {
            "u": ("LOADED", {"A": 2, "Y": 3}),
            "v": ("LOADED", {"A": 3, "Y": 4}),
            "w": ("LOADED", {"A": 3, "Y": 5}),
        }
        module = netlist({"a": 2}, {"y": 4, "z": 5}, **cells)
        timing = run(module)
        path = timing.paths["input to output"]
        assert [step.load_ff for step in path.steps] == [3, 6, 0]
        assert [step.delay_ns for step in path.steps] == [0, 6, 0]
        assert [step.slew_ns for step in path.steps] == [0, 12, 0]
        assert timing.load_ff == {2: 2.5, 3: 5, 4: 0, 5: 0}
        assert timing.slew_ns[3] == 10
        # Half a fF per pin and port, 7 fF per port: 6 + 1, then 7 + 0.5.
        wired = run(module, wire_cap_ff=0.5, output_load_ff=7)
        assert [step.delay_ns for step in wired.critical_path.steps] == [0, 7, 7.5]
        assert [step.fanout for step in wired.critical_path.steps] == [1, 2, 1]

    def test_slowest_slew_goes_on(self):
        """The latest arrival is by B (5), the slow edge of 9 by A: together 14."""
        cells = {"p": ("PAIR", {"A": 2, "B": 3, "Y": 4}), "s": ("SLEW", {"A": 4, "Y": 5})}
        path = run(netlist({"a": 2, "b": 3}, {"y": 5}, **cells)).critical_path
        assert path.delay_ns == 14
        assert [(step.from_pin, step.slew_ns) for step in path.steps[1:]] == [("B", 9), ("A", 0.5)]

    def test_input_slew(self):
        module = netlist({"a": 2}, {"y": 4}, **chain("SLEW", 2))
        assert run(module, input_slew_ns=0.25).critical_path_ns == 0.75

    def test_cells_of_one_kind(self):
        """Loads of 1 and 2 make slews of 2 and 4, and those are the delays of the cells behind."""
        module = netlist(
            {"a": 2},
            {"x": 5, "y": 6, "z": 7},
            u=("LOADED", {"A": 2, "Y": 3}),
            v=("LOADED", {"A": 2, "Y": 4}),
            s=("SLEW", {"A": 3, "Y": 5}),
            t=("SLEW", {"A": 4, "Y": 6}),
            p=("PAIR", {"A": 4, "Y": 7}),
        )
        timing = run(module)
        assert [timing.slew_ns[net] for net in (3, 4)] == [2, 4]
        assert timing.critical_path_ns == 2 + 4

    def test_arcs_that_share_tables(self):
        delay = plane(1)
        arcs = tuple(
            arc(pin, "positive", delay, delay, plane(slew), plane(slew))
            for pin, slew in (("A", 3), ("B", 7))
        )
        cell = Cell(name="SHARE", area_um2=1, leakage_nw=1, pins=pins("AB", "A & B"), arcs=arcs)
        cells = {"u": ("SHARE", {"A": 2, "Y": 3}), "v": ("SHARE", {"B": 2, "Y": 4})}
        timing = analyse(netlist({"a": 2}, {"y": 3, "z": 4}, **cells), library(cell))
        assert [timing.slew_ns[net] for net in (3, 4)] == [3, 7]

    def test_registers(self):
        """All four kinds of paths, with the setup time of the edge that arrives."""
        module = netlist(
            {"clk": 2, "a": 3},
            {"y": 9, "z": 8},
            i=("BUF", {"A": 3, "Y": 4}),
            f=("DFF", {"CK": 2, "D": 4, "Y": 5}),
            m=("INV", {"A": 5, "Y": 6}),
            g=("DFF", {"CK": 2, "D": 6, "Y": 7}),
            o=("INV", {"A": 7, "Y": 8}),
            t=("INV", {"A": 3, "Y": 9}),
        )
        timing = run(module, clock_slew_ns=0.5)
        delays = {kind: path.delay_ns for kind, path in timing.paths.items()}
        assert delays == {
            "input to output": 10,
            # The rising edge comes at 10 and wants 5; the falling one at 1 and wants 40.
            "input to register": 41,
            # From clock to output 3.5 or 2: falling after 3.5 + 1, and 40.
            "register to register": 44.5,
            "register to output": 12,  # clock to falling output 2, then rising 10
        }
        path = timing.critical_path
        assert (path.kind, path.endpoint, path.setup_ns) == ("register to register", "g/D", 40)
        assert [(s.instance, s.from_pin, s.pin, s.edge) for s in path.steps] == [
            ("f", "CK", "Y", "rise"),
            ("m", "A", "Y", "fall"),
        ]
        assert timing.max_frequency_mhz == pytest.approx(1000 / 44.5)
        assert timing.slack_ns(50) == 5.5
        assert timing.slack_ns(40) == -4.5

    def test_setup_depends_on_both_slews(self):
        """Setup of a rising input: 4 + slew of the data + slew of the clock."""
        module = netlist(
            {"clk": 2, "a": 3}, {}, s=("BUF", {"A": 3, "Y": 4}), f=("DFF", {"CK": 2, "D": 4})
        )
        cells = library().cells
        rising = Cell(
            name="DFF",
            area_um2=1,
            leakage_nw=1,
            pins=cells["DFF"].pins,
            ff=cells["DFF"].ff,
            setups=(SetupArc(pin="D", related="CK", rise=plane(4, 1, 100), fall=None),),
        )
        timing = analyse(module, library(rising), input_slew_ns=0.1, clock_slew_ns=0.25)
        # The buffer leaves a slew of 0.5.
        assert timing.critical_path.setup_ns == pytest.approx(4 + 0.5 + 25)

    def test_paths_of_both_starts_to_one_end(self):
        """The shorter path from the register is found behind the longer one from the input."""
        module = netlist(
            {"clk": 2, "a": 3},
            {"y": 8},
            f=("DFF", {"CK": 2, "D": 8, "Y": 4}),
            i=("BUF", {"A": 3, "Y": 5}),
            x=("XOR", {"A": 5, "B": 4, "Y": 8}),
        )
        delays = {kind: path.delay_ns for kind, path in run(module).paths.items()}
        assert delays["input to output"] == 13
        assert delays["register to output"] == 4

    def test_constants_and_ties_never_arrive(self):
        cells = {
            "t": ("TIE", {"Y": 3}),
            "x": ("XOR", {"A": 3, "B": "1", "Y": 4}),
            "z": ("XOR", {"A": 2, "B": 3, "Y": 5}),
        }
        timing = run(netlist({"a": 2}, {"y": 4, "z": 5, "k": "0"}, **cells))
        assert timing.critical_path.endpoint == "z"
        assert timing.critical_path_ns == 4
        assert set(timing.slew_ns) == {2, 5}

    def test_nothing_to_time(self):
        timing = run(netlist({}, {"y": 3}, t=("TIE", {"Y": 3})))
        assert (timing.paths, timing.critical_path) == ({}, None)
        assert timing.critical_path_ns == 0
        assert timing.max_frequency_mhz == float("inf")

    def test_wire_only(self):
        timing = run(netlist({"a": [2, 3]}, {"y": [3, 2]}))
        assert timing.critical_path_ns == 0
        assert timing.critical_path.endpoint in ("y[0]", "y[1]")

    def test_order_of_the_cells_is_free(self):
        cells = dict(reversed(chain("INV", 5).items()))
        assert run(netlist({"a": 2}, {"y": 7}, **cells)).critical_path_ns == 32

    def test_table(self):
        module = netlist(
            {"clk": 2, "a": 3},
            {},
            i=("BUF", {"A": 3, "Y": 4}),
            f=("DFF", {"CK": 2, "D": 4}),
        )
        lines = run(module).critical_path.table().splitlines()
        assert lines[0].split() == ["delay", "arrival", "slew", "load"]
        assert lines[1].split() == ["0.0000", "0.0000", "0.0000", "1.000", "v", "a", "(in)"]
        assert lines[2].split() == ["1.0000", "1.0000", "0.5000", "1.000", "v", "i/Y", "(BUF)"]
        assert lines[3].split() == ["40.0000", "41.0000", "setup"]
        assert lines[4].split() == ["41.0000", "f/D"]

    def test_names_of_the_design(self):
        """The shortest of several names; none that a tool made, and none of constants."""
        module = netlist(
            {"a": 3, "clk": 2},
            {"y": 5},
            i=("BUF", {"A": 3, "Y": 4}),
            f=("DFF", {"CK": 2, "D": 4, "Y": 5}),
        )
        module["netnames"] = {
            "port.sum": {"hide_name": 0, "bits": ["0", 4]},
            "sum": {"bits": [4, "x"]},
            "$1": {"hide_name": 1, "bits": [4]},
            "state": {"hide_name": 0, "bits": [7, 5]},
        }
        path = run(module).critical_path
        assert [step.net for step in path.steps] == ["", "sum[0]"]
        assert path.endpoint_net == "state[1]"
        lines = path.table().splitlines()
        assert lines[2].split()[-3:] == ["i/Y", "(BUF)", "sum[0]"]
        assert lines[4].split() == ["41.0000", "f/D", "state[1]"]


class TestRefused:
    @pytest.mark.parametrize(
        "name", ["input_slew_ns", "clock_slew_ns", "output_load_ff", "wire_cap_ff"]
    )
    @pytest.mark.parametrize("value", [-0.1, float("nan")])
    def test_negative(self, name, value):
        module = netlist({"a": 2}, {"y": 3}, **chain("INV", 1))
        with pytest.raises(ValueError, match=f"{name} must not be negative, not {value}"):
            run(module, **{name: value})

    def test_unknown_cell(self):
        module = netlist({"a": 2}, {"y": 3}, pe=("my_pe", {"A": 2, "Y": 3}))
        with pytest.raises(ValueError, match="cell pe must be of library hand, not 'my_pe'"):
            run(module)

    def test_unknown_pin(self):
        module = netlist({"a": 2}, {"y": 3}, u=("INV", {"A": 2, "ZN": 3}))
        with pytest.raises(ValueError, match="cell u must have pins of INV only, not 'ZN'"):
            run(module)

    def test_two_drivers(self):
        cells = {"u": ("INV", {"A": 2, "Y": 3}), "v": ("INV", {"A": 2, "Y": 3})}
        with pytest.raises(ValueError, match="net of v/Y must have one driver, not also u/Y"):
            run(netlist({"a": 2}, {"y": 3}, **cells))
        cells = {"u": ("INV", {"A": 3, "Y": 2})}
        with pytest.raises(ValueError, match="net of u/Y must have one driver, not also a"):
            run(netlist({"a": 2, "b": 3}, {}, **cells))

    def test_loop(self):
        cells = {"u": ("PAIR", {"A": 2, "B": 4, "Y": 3}), "v": ("INV", {"A": 3, "Y": 4})}
        with pytest.raises(ValueError, match="no loop of gates, not one that reaches u"):
            run(netlist({"a": 2}, {"y": 4}, **cells))

    def test_inout(self):
        module = netlist({"a": 2}, {})
        module["ports"]["a"]["direction"] = "inout"
        with pytest.raises(ValueError, match="port a must be an input or an output, not an inout"):
            run(module)

    def test_falling_clock(self):
        module = netlist({"clk": 2, "a": 3}, {"y": 4}, f=("DFF", {"CK": 2, "D": 3, "Y": 4}))
        with pytest.raises(ValueError, match="flip-flop f must be clocked by the rising edge"):
            analyse(module, library(flip_flop("falling")), input_slew_ns=0, clock_slew_ns=0)

    def test_gated_clock(self):
        module = netlist(
            {"clk": 2, "a": 3},
            {"y": 4},
            u=("BUF", {"A": 2, "Y": 5}),
            f=("DFF", {"CK": 5, "D": 3, "Y": 4}),
        )
        with pytest.raises(ValueError, match="clock of flip-flop f must be an input of the module"):
            run(module)

    def test_two_clocks(self):
        module = netlist(
            {"c": 2, "d": 6, "a": 3},
            {"y": 5},
            f=("DFF", {"CK": 2, "D": 3, "Y": 4}),
            g=("DFF", {"CK": 6, "D": 4, "Y": 5}),
        )
        with pytest.raises(ValueError, match="netlist must have one clock, not c, d"):
            run(module)


#: Designs of the comparison; without signed ports, which the tool in Debian does not read.
DESIGNS = {
    "adder": "module adder(input [11:0] a, b, output [12:0] y); assign y = a + b; endmodule",
    "multiplier": """module multiplier(input [7:0] a, b, output [15:0] y);
        assign y = $signed(a) * $signed(b); endmodule""",
    "mac": """module mac(input clk, rst, clear, input [7:0] a, b, output reg [23:0] y);
        reg [15:0] p; reg c;
        always @(posedge clk) begin
          p <= $signed(a) * $signed(b); c <= clear;
          if (rst) y <= 0; else y <= (c ? 24'd0 : y) + {{8{p[15]}}, p};
        end endmodule""",
    "shifter": """module shifter(input clk, input [15:0] a, input [3:0] s, output reg [15:0] y);
        reg [15:0] b; always @(posedge clk) begin b <= a; y <= b >> s; end endmodule""",
}

YOSYS = """
from pyosys import libyosys
design = libyosys.Design()
for line in open("script"):
    libyosys.run_pass(line.strip(), design)
"""


@pytest.fixture(scope="module")
def libraries():
    """The full library and the compact one."""
    if opensta_reference.find() is None:
        pytest.skip("OpenSTA (sta) is not installed")
    if not NANGATE.exists():
        pytest.skip("no NanGate Liberty file here")
    return {"full": load(NANGATE), "compact": load("nangate45")}


@pytest.fixture(scope="module")
def mapped(libraries, tmp_path_factory):
    """Folder with the designs, mapped to the compact library, and both libraries."""
    folder = tmp_path_factory.mktemp("sta")
    for name, library in libraries.items():
        # Without the wire loads of the file itself, which are not modelled here.
        (folder / f"{name}.lib").write_text(library.liberty_text())
    script = []
    for name, text in DESIGNS.items():
        (folder / f"{name}.v").write_text(text)
        script += [
            "design -reset",
            f"read_verilog {name}.v",
            f"synth -flatten -top {name}",
            "dfflibmap -liberty compact.lib",
            "abc -liberty compact.lib -D 1000",
            "opt_clean -purge",
            f"write_json {name}.json",
        ]
    (folder / "script").write_text("\n".join(script))
    (folder / "run.py").write_text(YOSYS)
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return folder


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("table", ["full", "compact"])
def test_against_opensta(libraries, mapped, design, table):
    """Same netlist and tables, two tools: the smallest period agrees to 0.1 %."""
    module = json.loads((mapped / f"{design}.json").read_text())["modules"][design]
    limits = {"input_slew_ns": 0.02, "clock_slew_ns": 0.03, "output_load_ff": 4.0}
    timing = analyse(module, libraries[table], **limits)
    expected = opensta_reference.period_ns(mapped, module, [f"{table}.lib"], **limits)
    assert timing.critical_path_ns == pytest.approx(expected, rel=1e-3)


def test_opensta_that_fails(mapped):
    """It exits with 0 whatever happens."""
    with pytest.raises(RuntimeError, match=r"OpenSTA: .*netlist\.nowhere"):
        opensta_reference.run(mapped, ["read_verilog netlist.nowhere"])
    with pytest.raises(RuntimeError, match="OpenSTA said nothing like 'slack': 1"):
        opensta_reference.number("slack", opensta_reference.run(mapped, ["puts 1"]))


def test_energy_against_opensta(libraries, mapped):
    """Internal power of an inverter: energy per transition times transitions per second.

    The OpenSTA of 2019 in Debian adds the energies of the two edges where it should take their
    mean (later ones do), so that half of what it says is expected.
    """
    (mapped / "netlist.v").write_text(
        "module top (a, y); input a; output y; INV_X1 u (.A(a), .ZN(y)); endmodule"
    )
    words = opensta_reference.run(
        mapped,
        [
            "read_liberty full.lib",
            "read_verilog netlist.v",
            "link_design top",
            "create_clock -name clk -period 2",
            "set_input_delay 0 -clock clk a",
            "set_output_delay 0 -clock clk y",
            "set_input_transition 0.02 a",
            "set_load 5 y",
            "set_power_activity -input -activity 0.4 -duty 0.5",
            "report_power -digits 6 -instances u",
        ],
    )
    power = opensta_reference.number(r"([\d.e+-]+)(?:\s+[\d.e+-]+){3} u\b", words)
    edges = 2.0 if "2.0." in opensta_reference.run(mapped, ["puts [sta::version]"]) else 1.0
    energy_pj = libraries["full"].cells["INV_X1"].transition_energy("ZN", "A", 0.02, 5.0)
    transitions_per_s = 0.4 / 2e-9
    assert power == pytest.approx(edges * energy_pj * 1e-12 * transitions_per_s, rel=0.01)
