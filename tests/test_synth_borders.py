"""Timing across the borders of units: by hand, against the flat netlist, and against OpenSTA."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench import event_reference, opensta_reference
from golden.mac import ArraySpec
from synth.activity import Simulator
from synth.array import MappedArray
from synth.borders import longest_paths
from synth.flat import flat_module, unit_wiring
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.units import map_modules, meet_clock
from synth.verilog import VerilogDesign
from synth.yosys import map_netlist
from tests.hand_netlists import hand_mapped
from tests.simulators import needs_icarus, needs_verilator
from tests.test_synth_array import FIXED, TAPERED
from tests.test_synth_timing import library, netlist

#: A flip-flop; two loaded buffers, one behind the other; a flip-flop behind one: delays are loads,
#: of 2 per pin rising and 3 falling.
SOURCE = netlist({"clk": 2, "d": 3}, {"q": 4}, f=("DFF", {"CK": 2, "D": 3, "Y": 4}))
GATES = netlist({"a": 2}, {"y": 4}, u=("LOADED", {"A": 2, "Y": 3}), v=("LOADED", {"A": 3, "Y": 4}))
SINK = netlist(
    {"clk": 2, "a": 3},
    {"q": 5},
    u=("LOADED", {"A": 3, "Y": 4}),
    f=("DFF", {"CK": 2, "D": 4, "Y": 5}),
)
UNITS = {"source": SOURCE, "gates": GATES, "sink": SINK}


def wired(ports, **cells):
    """Wiring of units, each with the nets of its ports; ports are of the whole."""
    return {
        "ports": {
            name: {"direction": direction, "bits": [bit]}
            for name, (direction, bit) in ports.items()
        },
        "cells": {
            name: {"type": kind, "connections": {port: [bit] for port, bit in nets.items()}}
            for name, (kind, nets) in cells.items()
        },
        "netnames": {},
    }


def chain(sinks):
    """Wire a register to gates to so many sinks."""
    return wired(
        {"clk": ("input", 2), "d": ("input", 3)},
        s=("source", {"clk": 2, "d": 3, "q": 4}),
        g=("gates", {"a": 4, "y": 5}),
        **{f"t{n}": ("sink", {"clk": 2, "a": 5, "q": 6 + n}) for n in range(sinks)},
    )


def paths(wiring, units=UNITS, **options):
    found = longest_paths(
        wiring, units, library(), input_slew_ns=0.25, clock_slew_ns=0.5, **options
    )
    return {path.units[-1]: path for path in found}


def test_path_through_three_units():
    """Clock to output 3.5 rising; 3 and 2 * 2 in the gates; 1 in the sink, and its setup time."""
    path = paths(chain(2))["sink"]
    assert path.units == ("source", "gates", "sink")
    # Falling is earlier out of the register, and later in all that is loaded: pins weigh 3, not 2.
    assert [part.steps[0].edge for part in path.parts] == ["fall", "fall", "fall"]
    assert [part.delay_ns for part in path.parts] == [2, 3 + 2 * 3, 1 + 40]
    assert [part.kind for part in path.parts] == [
        "register to output",
        "input to output",
        "input to register",
    ]
    assert [part.endpoint for part in path.parts] == ["q", "y", "f/D"]
    assert path.parts[1].steps[-1].fanout == 2
    assert path.delay_ns == 2 + 9 + 41


def test_slew_goes_across():
    """Gates that drive three pins of 1 leave a slew of 6, which is the delay of what is behind."""
    slow = netlist(
        {"clk": 2, "a": 3},
        {"q": 5},
        u=("SLEW", {"A": 3, "Y": 4}),
        f=("DFF", {"CK": 2, "D": 4, "Y": 5}),
    )
    path = paths(chain(3), units=UNITS | {"sink": slow})["sink"]
    assert [part.delay_ns for part in path.parts] == [2, 3 + 3, 6 + 40]


def test_latest_of_all_instances():
    """A unit stands behind gates once, and behind a register once: what counts is the gates."""
    wiring = wired(
        {"clk": ("input", 2), "d": ("input", 3)},
        s=("source", {"clk": 2, "d": 3, "q": 4}),
        g=("gates", {"a": 4, "y": 5}),
        t=("sink", {"clk": 2, "a": 4, "q": 6}),
        u=("sink", {"clk": 2, "a": 5, "q": 7}),
    )
    # The register drives four pins now, but its delay does not depend on that.
    assert paths(wiring)["sink"].delay_ns == 2 + (3 + 3) + 41
    assert paths(wiring)["sink"].units == ("source", "gates", "sink")


def test_ports_of_the_whole():
    """Outputs are awaited, and weigh what they are said to; inputs come at once."""
    wiring = wired({"a": ("input", 2), "y": ("output", 3)}, g=("gates", {"a": 2, "y": 3}))
    (path,) = longest_paths(wiring, UNITS, library(), input_slew_ns=0, output_load_ff=7)
    assert [part.kind for part in path.parts] == ["input to output"]
    assert path.delay_ns == 3 + 7
    (wire,) = longest_paths(wiring, UNITS, library(), input_slew_ns=0, wire_cap_ff=0.5)
    assert wire.delay_ns == 3.5 + 0.5
    assert longest_paths(wired({}, g=("gates", {"a": "0", "y": 3})), UNITS, library()) == []


def test_gate_between_units():
    wiring = chain(1)
    wiring["cells"]["t0"]["connections"]["a"] = [20]
    wiring["cells"]["i"] = {
        "type": "BUF",
        "port_directions": {"A": "input", "Y": "output"},
        "connections": {"A": [5], "Y": [20]},
    }
    path = paths(wiring)["sink"]
    assert path.units == ("source", "gates", "i", "sink")
    # Rising takes the buffer 10, falling 1: 3.5 + 2 + 1 + 10 + 1 + 6.5, and 2 + 3 + 1 + 1 + 1 + 40.
    assert [part.delay_ns for part in path.parts] == [2, 4, 1, 41]


@pytest.mark.parametrize(("sinks", "pairs"), [(16, 0), (17, 1), (64, 1), (65, 2), (1024, 2)])
def test_buffers(sinks, pairs):
    """Beyond 16 pins, four are driven, and pairs of inverters stand before the others."""
    tree_ns = 2 * pairs * library().fo4_delay_ns
    load = 3 * (4 if pairs else sinks)
    for wiring, counts in ((chain(sinks), {}), (chain(2), {"sink": sinks})):
        parts = paths(wiring, counts=counts)["sink"].parts
        assert parts[1].delay_ns == 3 + load
        assert parts[2].delay_ns == pytest.approx(tree_ns + 41)
        assert parts[2].steps[0].delay_ns == pytest.approx(tree_ns)
        assert parts[2].steps[0].slew_ns == (library().fo4_slew_ns if pairs else 2 * load)
    bare = paths(chain(sinks), max_sinks=math.inf)["sink"]
    assert bare.delay_ns == 2 + 3 + 3 * sinks + 41


def test_latest_of_both_starts():
    """An output follows a register and an input, which is later: 6 and 5 in a pair."""
    mixed = netlist(
        {"clk": 2, "a": 3},
        {"y": 5},
        f=("DFF", {"CK": 2, "D": 3, "Y": 4}),
        p=("PAIR", {"A": 4, "B": 3, "Y": 5}),
    )
    wiring = chain(1)
    wiring["cells"]["t0"]["connections"]["a"] = [20]
    wiring["cells"]["m"] = {"type": "mixed", "connections": {"clk": [2], "a": [5], "y": [20]}}
    # Straight behind the gates, it is later than behind the register of the pair alone.
    wiring["cells"]["t1"] = {"type": "sink", "connections": {"clk": [2], "a": [5], "q": [21]}}
    path = paths(wiring, units=UNITS | {"mixed": mixed})["sink"]
    assert path.units == ("source", "gates", "mixed", "sink")
    assert sum(part.delay_ns for part in path.parts[:2]) == 2 + 3 + (2 + 3)
    assert [part.delay_ns for part in path.parts[2:]] == [5, 41]


def test_buffers_make_a_net_the_latest():
    """Straight from a register to 20 units is later than through gates to one."""
    wiring = chain(1)
    for n in range(20):
        connections = {"clk": [2], "a": [50], "q": [60 + n]}
        wiring["cells"][f"w{n}"] = {"type": "sink", "connections": connections}
    wiring["cells"]["r"] = {"type": "source", "connections": {"clk": [2], "d": [3], "q": [50]}}
    path = paths(wiring)["sink"]
    assert 2 * library().fo4_delay_ns > 9
    assert path.units == ("source", "sink")


def test_counts_are_of_nets_to_all():
    """A net to one of two instances goes to one of a hundred."""
    wiring = chain(2)
    wiring["cells"]["t1"]["connections"]["a"] = [4]
    assert paths(wiring, counts={"sink": 100})["sink"].parts[1].delay_ns == 3 + 3


def test_loop():
    units = {"pair": netlist({"a": 2, "b": 3}, {"y": 4}, p=("PAIR", {"A": 2, "B": 3, "Y": 4}))}
    wiring = wired({"a": ("input", 2)}, p=("pair", {"a": 2, "b": 3, "y": 3}))
    with pytest.raises(ValueError, match="units must not be in a loop, not one that reaches pair"):
        longest_paths(wiring, units, library(), input_slew_ns=0)


@pytest.fixture(scope="module")
def arrays():
    """Small arrays as units and as a flat netlist, for each of the two ways to decode."""
    made = []
    for datapath, decoders in ((FIXED[0], "edge"), (TAPERED[0], "edge"), (TAPERED[0], "pe")):
        spec = ArraySpec(mac=datapath.spec, rows=2, cols=2, decoders=decoders)
        hardware = MappedArray(datapath, spec, load("nangate45"), clock_ns=2.0)
        modules = {unit.name: unit.mapped.module for unit in hardware.units.values()}
        flat = flat_module(hardware.verilog, modules, load("nangate45"))
        made.append((hardware, modules, flat))
    return made


def test_units_are_as_the_flat_netlist(arrays):
    """The longest path is the same, through whichever units it goes."""
    nangate = load("nangate45")
    crossing = 0
    for hardware, modules, flat in arrays:
        wiring = unit_wiring(hardware.verilog, modules, nangate)
        path, *_ = longest_paths(wiring, modules, nangate, max_sinks=math.inf)
        # Loads are those of the worst instance, which is not the latest one in all of them.
        assert path.delay_ns == pytest.approx(analyse(flat, nangate).critical_path_ns, rel=1e-5)
        assert hardware.critical_path_ns == pytest.approx(path.delay_ns, rel=1e-9)
        names, parts = hardware.critical_paths()[0]
        assert names.split(" to ") == list(path.units)
        assert sum(part.delay_ns for part in parts) == hardware.critical_path_ns
        crossing += len(parts) > 1
    assert crossing


@pytest.mark.skipif(opensta_reference.find() is None, reason="OpenSTA (sta) is not installed")
def test_flat_netlist_against_opensta(arrays, tmp_path):
    nangate = load("nangate45")
    (tmp_path / "cells.lib").write_text(nangate.liberty_text())
    limits = {"input_slew_ns": 0.02, "clock_slew_ns": 0.03, "output_load_ff": 4.0}
    for hardware, modules, flat in arrays:
        wiring = unit_wiring(hardware.verilog, modules, nangate)
        path, *_ = longest_paths(wiring, modules, nangate, max_sinks=math.inf, **limits)
        expected = opensta_reference.period_ns(tmp_path, flat, ["cells.lib"], **limits)
        assert path.delay_ns == pytest.approx(expected, rel=1e-3)


def flat_case(flat, cycles):
    """Levelised netlist of a flat one, and random inputs whose first cycle is all zeros."""
    mapped = hand_mapped(flat, "top")
    rng = np.random.default_rng(7)
    stimuli = {
        name: [0, *rng.integers(0, 1 << len(entry["bits"]), cycles - 1).tolist()]
        for name, entry in flat["ports"].items()
        if entry["direction"] == "input" and name != "clk"
    }
    stimuli["rst"] = [0] * 5 + [1] + [0] * (cycles - 6)
    return Netlist(mapped, load("nangate45")), stimuli


def toggles(netlist, stimuli):
    """Our own toggles by net, behind a cycle of zeros, as in other simulators."""
    simulator = Simulator(netlist, 1)
    rows = [dict.fromkeys(stimuli, 0)]
    rows += [dict(zip(stimuli, row, strict=True)) for row in zip(*stimuli.values(), strict=True)]
    for count, row in enumerate(rows):
        if count == 1:
            before = simulator.activity()
        simulator.step(
            {
                name: np.array(
                    [[value >> bit & 1] for bit in range(len(netlist.ports[name].nets))], np.uint64
                )
                for name, value in row.items()
            }
        )
    found = simulator.activity().since(before).toggles[0].tolist()
    return {
        bit: count
        for number, (bit, count) in enumerate(zip(netlist.yosys_bits, found, strict=True))
        if isinstance(bit, int) and number != netlist.clock
    }


@pytest.mark.parametrize(
    "simulator",
    [
        pytest.param("icarus", marks=needs_icarus),
        pytest.param("verilator", marks=needs_verilator),
    ],
)
def test_toggles_of_the_flat_netlist(arrays, simulator, tmp_path):
    """Every net of a whole array, paths between units included, toggles as elsewhere."""
    _, _, flat = arrays[0]
    netlist, stimuli = flat_case(flat, 40)
    cells = [load("nangate45").cells[name] for name in sorted(netlist.cells_by_type)]
    models = event_reference.plain_models(cells)
    if simulator == "icarus":
        found = event_reference.icarus(tmp_path, flat, models, clock="clk", stimuli=stimuli).toggles
    else:
        found = event_reference.verilator(tmp_path, {"array": (flat, "clk", stimuli)}, models)[
            "array"
        ]
    expected = toggles(netlist, stimuli)
    assert sum(expected.values()) > 5000
    assert {bit: found[bit] for bit in expected} == expected


def test_saif():
    """Changes of the nets n2, n3 ...; those of other names, and of constants, are left out."""
    text = """(SAIFILE (SAIFVERSION "2.0") (DURATION 60)
      (INSTANCE TOP (NET (clk (T0 1) (T1 59) (TC 1)))
        (INSTANCE unit0 (NET (n1 (TC 9)) (n12 (T0 1) (T1 2) (TZ 0) (TC 34)) (now\\[3\\] (TC 7))))
        (INSTANCE unit1 (NET (n2 (T0 1) (TC 0))) (INSTANCE inner (NET (n5 (TC 6)))))))"""
    assert event_reference.read_saif(text) == {
        "unit0": {12: 34},
        "unit1": {2: 0},
        "inner": {5: 6},
    }


FLAT = {
    "inner": (
        "module inner(input a, b, output x, y);\nassign x = a;\nassign y = a & b;\nendmodule\n"
    ),
    "store": "module store(\n  input clk,\n  input w,\n  output [1:0] r\n);\nendmodule\n",
    "middle": (
        "module middle(\n  input a,\n  output x,\n  output y\n);\n"
        "inner i(.a(a), .b(1'b1), .x(x), .y(y));\nendmodule\n"
    ),
    "top": (
        "module top(\n  input clk,\n  input a,\n  output x,\n  output y,\n  output r\n);\n"
        "wire [1:0] read;\nassign r = read[1];\n"
        "store s(.clk(clk), .w(x), .r(read));\nmiddle m(.a(a), .x(x), .y(y));\nendmodule\n"
    ),
}


def test_flat_netlist():
    """Levels go, what is wired through is one net, memories are cut, and constants are cells."""
    nangate = load("nangate45")
    design = VerilogDesign(
        top="top",
        modules=FLAT,
        children={
            "top": {"store": 1, "middle": 1},
            "middle": {"inner": 1},
            "inner": {},
            "store": {},
        },
    )
    inner = map_netlist(FLAT["inner"], "inner", nangate).module
    flat = flat_module(design, {"inner": inner}, nangate, is_memory=lambda name: name == "store")
    ports = {name: (entry["direction"], entry["bits"]) for name, entry in flat["ports"].items()}
    assert {name: way for name, (way, _) in ports.items()} == {
        **dict.fromkeys(("clk", "a", "s.r"), "input"),
        **dict.fromkeys(("x", "y", "r", "s.w"), "output"),
    }
    assert ports["a"][1] == ports["x"][1] == ports["s.w"][1]
    assert ports["r"][1] == ports["s.r"][1][1:]
    gates = {name: cell for name, cell in flat["cells"].items() if cell["type"] != "LOGIC1_X1"}
    (tie,) = (cell for cell in flat["cells"].values() if cell["type"] == "LOGIC1_X1")
    ((name, gate),) = gates.items()
    assert name.startswith("m.i.")
    assert gate["type"] == "AND2_X1"
    assert sorted(map(str, [gate["connections"]["A1"], gate["connections"]["A2"]])) == sorted(
        map(str, [ports["a"][1], tie["connections"]["Z"]])
    )
    assert gate["connections"]["ZN"] == ports["y"][1]
    assert flat["netnames"]["m.i.a"]["bits"] == ports["a"][1]

    constant = {**inner, "ports": {**inner["ports"], "y": {"direction": "output", "bits": ["0"]}}}
    flat = flat_module(design, {"inner": constant}, nangate, is_memory=lambda name: name == "store")
    assert flat["ports"]["y"]["bits"] == ["0"]

    wide = {**inner, "ports": {**inner["ports"], "a": {"direction": "input", "bits": [2, 9]}}}
    with pytest.raises(
        ValueError, match=r"port a of m\.i\. must be connected to 2 bits or none, not 1"
    ):
        flat_module(design, {"inner": wide}, nangate, is_memory=lambda name: name == "store")


def test_late_units_are_mapped_again():
    """Two units that miss a clock together: the second one is mapped for what is left of it."""
    nangate = load("nangate45")
    modules = {
        "first": "module first(input clk, input [3:0] d, output [7:0] y);\nreg [3:0] r;\n"
        "always @(posedge clk) r <= d;\nassign y = {2{r ^ {r[0], r[3:1]}}};\nendmodule\n",
        "second": "module second(input clk, input [7:0] a, output reg [7:0] s);\n"
        "always @(posedge clk) s <= s + a;\nendmodule\n",
    }
    design = VerilogDesign(top="", modules=modules, children={"first": {}, "second": {}})
    mapped = {name: map_modules(design, [name], nangate, clock_ns=1.2)[name] for name in modules}
    wiring = {
        "ports": {
            "clk": {"direction": "input", "bits": [2]},
            "d": {"direction": "input", "bits": [*range(3, 7)]},
        },
        "cells": {
            "f": {
                "type": "first",
                "connections": {"clk": [2], "d": [*range(3, 7)], "y": [*range(20, 28)]},
            },
            "s": {
                "type": "second",
                "connections": {"clk": [2], "a": [*range(20, 28)], "s": [*range(40, 48)]},
            },
        },
        "netnames": {},
    }

    def again(role, clock_ns):
        return map_modules(design, [role], nangate, clock_ns=clock_ns)[role]

    def meet(clock_ns, again=again):
        return meet_clock(mapped, again, wiring, nangate, counts={}, clock_ns=clock_ns)

    same, slow = meet(3.0)
    assert same == mapped
    assert slow[0].units == ("first", "second")
    clock_ns = 0.9 * slow[0].delay_ns
    again, fast = meet(clock_ns)
    assert again["first"] is mapped["first"]
    assert again["second"].mapped.clock_ns == pytest.approx(clock_ns - slow[0].parts[0].delay_ns)
    assert fast[0].delay_ns <= clock_ns
    # What is no faster does not take its place.
    kept, _ = meet(clock_ns, lambda role, _: replace(mapped[role]))
    assert kept["second"] is mapped["second"]
    # Nothing is left for it where the first one takes all.
    assert meet(slow[0].parts[0].delay_ns / 2)[0] == mapped
