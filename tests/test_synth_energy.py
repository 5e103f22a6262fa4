"""Energy by hand on five gates, and against the full library and OpenSTA on a real unit."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synth.activity import Activity, Simulator, pack
from synth.cache import Cache
from synth.cells import Cell, CellLibrary, EnergyArc, FlipFlop, Pin, Table, TimingArc
from synth.energy import EnergyModel, unit_energy
from synth.liberty import Function
from synth.library import load
from synth.netlist import Netlist, classify
from synth.timing import Timing, analyse
from synth.yosys import map_netlist
from tests.hand_netlists import hand_mapped, hand_module

NANGATE = Path(__file__).parents[1] / ".." / "shared" / "liberty" / "nangate45_typ.lib.gz"
VOLTAGE = 2.0
#: Slew of a chain of inverters of the hand-made library: every edge of them has it.
SLEW = 0.5


def plane(base, per_slew=0.0, per_load=0.0):
    """Table with base + per_slew * slew + per_load * load."""
    grid = (0.0, 1.0)
    return Table(
        grid, grid, tuple(tuple(base + per_slew * r + per_load * c for c in grid) for r in grid)
    )


def constant(value):
    return Table((0.0,), (0.0,), ((value,),))


def inputs(**caps):
    return {name: Pin(name=name, direction="input", cap_ff=cap) for name, cap in caps.items()}


def output(text, name="Y"):
    return {name: Pin(name=name, direction="output", function=Function(text))}


# Energies in pJ over slew in ns and load in fF; mean of rise and fall is what counts.
INVERTER = Cell(
    name="INV",
    area_um2=1.0,
    leakage_nw=10.0,
    pins=inputs(A=1.0) | output("!A"),
    arcs=(
        TimingArc(
            pin="Y",
            related="A",
            sense="negative",
            delay_rise=constant(1.0),
            delay_fall=constant(1.0),
            slew_rise=constant(SLEW),
            slew_fall=constant(SLEW),
        ),
    ),
    energies=(
        EnergyArc(pin="Y", related="A", rise=plane(0.1, 0.2, 0.01), fall=plane(0.3, 0.4, 0.03)),
    ),
)
AND = Cell(
    name="AND",
    area_um2=2.0,
    leakage_nw=20.0,
    pins=inputs(A=2.0, B=3.0) | output("A & B"),
    energies=(
        EnergyArc(pin="Y", related="A", rise=constant(1.0), fall=constant(3.0)),
        EnergyArc(pin="Y", related="B", rise=constant(5.0), fall=constant(7.0)),
    ),
    passive={"B": plane(0.05, 0.1)},
)
FLIP_FLOP = Cell(
    name="DFF",
    area_um2=9.0,
    leakage_nw=50.0,
    pins=inputs(D=4.0)
    | {"C": Pin(name="C", direction="input", cap_ff=5.0, is_clock=True)}
    | output("IQ", "Q"),
    ff=FlipFlop(
        clock="C",
        clock_edge="rising",
        next_state=Function("D"),
        state="IQ",
        inverted_state="IQN",
    ),
    energies=(EnergyArc(pin="Q", related="C", rise=plane(2.0, 1.0), fall=plane(2.0, 3.0)),),
    passive={"D": constant(0.25)},
    clock_idle=plane(0.5, 0.2),
    clock_active=plane(0.8, 0.2),
)
LIBRARY = CellLibrary(
    name="hand",
    version="",
    source="",
    licence="",
    voltage_v=VOLTAGE,
    temperature_c=25.0,
    cells={cell.name: cell for cell in (INVERTER, AND, FLIP_FLOP)},
)

# a -> inv_1 -> and_1(b) -> inv_2 -> reg -> and_2 (with the output of and_1) -> y
CELLS = {
    "inv_1": ("INV", {"A": 3, "Y": 5}),
    "and_1": ("AND", {"A": 5, "B": 4, "Y": 6}),
    "inv_2": ("INV", {"A": 6, "Y": 7}),
    "reg": ("DFF", {"D": 7, "C": 2, "Q": 8}),
    "and_2": ("AND", {"A": 8, "B": 6, "Y": 9}),
}
CLASSES = ["multiply", "multiply", "registers", "registers", "accumulate"]
# Toggles in 100 cycles by bit: clk, a, b, then what the cells drive.
TOGGLES = {2: 200, 3: 40, 4: 10, 5: 40, 6: 24, 7: 24, 8: 20, 9: 12}
CYCLES = 100


def hand_netlist():
    module = hand_module(CELLS, {"clk": [2], "a": [3], "b": [4]}, {"y": [9]})
    return Netlist(hand_mapped(module), LIBRARY)


def hand_activity(netlist, factor=1, **changes):
    counts = TOGGLES | {int(bit[1:]): value for bit, value in changes.items()}
    toggles = [counts.get(bit, 0) * factor for bit in netlist.yosys_bits]
    return Activity(
        toggles=np.array([toggles]),
        lane_cycles=np.array([CYCLES * factor]),
        annotated=np.ones(netlist.net_count, bool),
    )


def half_cv2(cap_ff):
    """Energy in pJ of one transition of a load."""
    return 0.5 * cap_ff * 1e-15 * VOLTAGE**2 * 1e12


def expected_split(slew_a=SLEW, slew_5=SLEW, slew_6=SLEW, clock_slew=SLEW, clock_ns=3.0):
    """Every term by hand; slews of the nets that tables are looked up with."""
    multiply = (
        # Input ports: the pins of multiplying cells behind them.
        40 * half_cv2(1.0)
        + 10 * half_cv2(3.0)
        # inv_1: mean of rise and fall, into and_1's pin A.
        + 40 * (half_cv2(2.0) + 0.2 + 0.3 * slew_a + 0.02 * 2.0)
        # and_1: pin A toggles 40 times, B 10 times, with means of 2 and 6; into inv_2 and and_2.
        + 24 * (half_cv2(1.0 + 3.0) + (40 * 2.0 + 10 * 6.0) / 50)
        + 10 * (0.05 + 0.1 * SLEW)
    )
    registers = (
        24 * (half_cv2(4.0) + 0.2 + 0.3 * slew_6 + 0.02 * 4.0)
        + 24 * 0.25
        + 20 * (half_cv2(2.0) + 2.0 + 2.0 * clock_slew)
    )
    # and_2 drives a port without load; its pin A toggles 20 times, B 24 times.
    accumulate = 12 * (20 * 2.0 + 24 * 6.0) / 44 + 24 * (0.05 + 0.1 * slew_6)
    clock = 200 * half_cv2(5.0) + CYCLES * (0.5 + 0.2 * clock_slew) + 20 * 0.3
    leakage = (2 * 10.0 + 2 * 20.0 + 50.0) * 1e-9 * CYCLES * clock_ns * 1e-9 * 1e12
    return {
        "accumulate": accumulate,
        "multiply": multiply,
        "registers": registers,
        "clock": clock,
        "leakage": leakage,
    }


def test_five_gates_by_hand():
    netlist = hand_netlist()
    (energy,) = EnergyModel(netlist, CLASSES, clock_ns=3.0).measure(hand_activity(netlist))
    assert energy.split_pj == pytest.approx(expected_split(), rel=1e-12)
    assert list(energy.split_pj) == ["accumulate", "multiply", "registers", "clock", "leakage"]
    assert energy.cycles == CYCLES
    assert energy.nets_annotated == 1.0
    assert energy.total_pj == sum(energy.split_pj.values())
    # The same, once with plain numbers: 40 x 0.002 + 10 x 0.006 + 40 x 0.394 + 24 x 2.808 + ...
    assert energy.split_pj["multiply"] == pytest.approx(0.08 + 0.06 + 15.76 + 67.392 + 1.0)


def test_slews_of_timing():
    netlist = hand_netlist()
    timing = Timing(paths={}, load_ff={}, slew_ns={3: 0.1, 5: 0.2, 6: 0.9, 8: 3.0})
    model = EnergyModel(netlist, CLASSES, clock_ns=3.0, timing=timing, clock_slew_ns=0.25)
    (energy,) = model.measure(hand_activity(netlist))
    expected = expected_split(slew_a=0.1, slew_6=0.9, clock_slew=0.25)
    assert energy.split_pj == pytest.approx(expected, rel=1e-12)


def test_wires_and_output_loads():
    netlist = hand_netlist()
    model = EnergyModel(netlist, CLASSES, clock_ns=3.0, wire_cap_ff=0.5, output_load_ff=7.0)
    (energy,) = model.measure(hand_activity(netlist))
    expected = expected_split()
    # Wires to pins: a, b, inv_1, and twice and_1; energy inside inv_1 grows by 0.02 pJ per fF.
    expected["multiply"] += half_cv2(0.5) * (40 + 10 + 40 + 2 * 24) + 40 * 0.02 * 0.5
    expected["registers"] += half_cv2(0.5) * (24 + 20) + 24 * 0.02 * 0.5
    expected["accumulate"] += half_cv2(0.5 + 7.0) * 12
    expected["clock"] += half_cv2(0.5) * 200
    assert energy.split_pj == pytest.approx(expected, rel=1e-12)


def test_leakage_grows_with_the_clock_period():
    netlist = hand_netlist()
    splits = [
        EnergyModel(netlist, CLASSES, clock_ns=clock_ns).measure(hand_activity(netlist))[0].split_pj
        for clock_ns in (1.0, 10.0)
    ]
    assert splits[1].pop("leakage") == pytest.approx(10 * splits[0].pop("leakage"))
    assert splits[0] == splits[1]
    # 110 nW for 100 ns are 11e-15 J.
    assert expected_split(clock_ns=1.0)["leakage"] == pytest.approx(110e-9 * 100e-9 * 1e12)


def test_output_without_toggling_inputs():
    """Nothing says which input caused it; no energy inside the cell is made up."""
    netlist = hand_netlist()
    still = hand_activity(netlist, b5=0, b4=0)
    (energy,) = EnergyModel(netlist, CLASSES, clock_ns=0.0).measure(still)
    expected = 40 * half_cv2(1.0) + 24 * half_cv2(4.0)
    assert energy.split_pj["multiply"] == pytest.approx(expected)


def test_groups_and_operations():
    netlist = hand_netlist()
    one, three = hand_activity(netlist), hand_activity(netlist, factor=3)
    both = Activity(
        toggles=np.concatenate([one.toggles, three.toggles]),
        lane_cycles=np.concatenate([one.lane_cycles, three.lane_cycles]),
        annotated=one.annotated,
    )
    first, second = EnergyModel(netlist, CLASSES, clock_ns=3.0).measure(both)
    assert second.total_pj == pytest.approx(3 * first.total_pj)
    assert (first.cycles, second.cycles) == (CYCLES, 3 * CYCLES)
    assert second.per(3 * CYCLES) == pytest.approx(first.per(CYCLES))
    assert first.per(50)["clock"] == pytest.approx(first.split_pj["clock"] / 50)
    for operations in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"operations must be positive, not {operations}"):
            first.per(operations)


def test_share_of_annotated_nets():
    netlist = hand_netlist()
    activity = hand_activity(netlist)
    activity.annotated[netlist.yosys_bits.index(7)] = False
    (energy,) = EnergyModel(netlist, CLASSES, clock_ns=3.0).measure(activity)
    assert energy.nets_annotated == 7 / 8


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (CLASSES[:-1], {}, "classes must have one entry for each of 5 instances, not 4"),
        (CLASSES, {"clock_ns": -1.0}, r"clock_ns must not be negative, not -1\.0"),
        (CLASSES, {"clock_slew_ns": -0.1}, r"clock_slew_ns must not be negative, not -0\.1"),
        (CLASSES, {"wire_cap_ff": -2.0}, r"wire_cap_ff must not be negative, not -2\.0"),
        (CLASSES, {"output_load_ff": -2.0}, r"output_load_ff must not be negative, not -2\.0"),
    ],
)
def test_bad_model(classes, options, message):
    with pytest.raises(ValueError, match=message):
        EnergyModel(hand_netlist(), classes, **({"clock_ns": 1.0} | options))


def test_black_box_has_no_energy():
    module = hand_module({"box": ("PART", {"A": 3})}, {"a": [3]}, {})
    module["cells"]["box"]["port_directions"] = {"A": "input"}
    netlist = Netlist(hand_mapped(module), LIBRARY)
    with pytest.raises(ValueError, match="hand must hold library cells only, not box of type PART"):
        EnergyModel(netlist, ["multiply"], clock_ns=1.0)


def test_activity_of_another_netlist():
    netlist = hand_netlist()
    activity = Activity(
        toggles=np.zeros((1, 4), np.int64),
        lane_cycles=np.array([1]),
        annotated=np.ones(4, bool),
    )
    with pytest.raises(ValueError, match="activity must have 10 nets, not 4"):
        EnergyModel(netlist, CLASSES, clock_ns=1.0).measure(activity)


class Fake:
    """Any object with attributes."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def test_energy_of_an_array():
    """Two kinds of units, of one of which only every second instance was simulated."""
    netlist = hand_netlist()
    timing = Timing(paths={}, load_ff={}, slew_ns={})
    units = {
        role: Fake(netlist=netlist, classes=CLASSES, timing=timing, count=count)
        for role, count in (("pe", 6), ("control", 1))
    }
    array = Fake(units=units, clock_ns=3.0, wire_cap_ff=0.0)
    partly = hand_activity(netlist, factor=3)
    partly.annotated[netlist.yosys_bits.index(9)] = False
    run = Fake(
        simulated={"pe": 3, "control": 1},
        activity={"pe": partly, "control": hand_activity(netlist)},
    )
    split, annotated = unit_energy(array, run, 1000.0)
    expected = {kind: 7 * value / 1000 for kind, value in expected_split().items()}
    assert split == pytest.approx(expected, rel=1e-12)
    assert annotated == 7 / 8
    again, _ = unit_energy(array, run, 500.0)
    assert again == pytest.approx({kind: 2 * value for kind, value in expected.items()})


# --- a real unit ---------------------------------------------------------------------------------

MAC = """\
module mac(input clk, input signed [7:0] a, input signed [7:0] b, output reg signed [23:0] acc);
  reg signed [7:0] x, y;
  always @(posedge clk) begin x <= a; y <= b; acc <= acc + x * y; end
endmodule
"""
CLOCK_NS = 2.0


def measured(library, cache):
    """Map and simulate the unit; return netlist, timing and energy per cycle."""
    mapped = map_netlist(MAC, "mac", library, clock_ns=CLOCK_NS, cache=cache)
    netlist = Netlist(mapped, library)
    generator = np.random.default_rng(2)
    simulator = Simulator(netlist, 640)
    for _ in range(40):
        a = np.clip(np.round(generator.laplace(0, 15, 640)), 0, 127).astype(np.int8)
        b = np.clip(np.round(generator.normal(0, 25, 640)), -128, 127).astype(np.int8)
        simulator.step({"a": pack(a, 8), "b": pack(b, 8)})
    classes = classify(
        netlist,
        operands={"a": ["a", "x"], "b": ["b", "y"]},
        accumulators=["acc"],
    )
    timing = analyse(mapped.module, library)
    model = EnergyModel(netlist, classes, clock_ns=CLOCK_NS, timing=timing)
    (energy,) = model.measure(simulator.activity())
    return energy


@pytest.mark.skipif(not NANGATE.exists(), reason="the full Liberty file is not here")
def test_compact_library_against_the_full_one(tmp_path):
    compact, full = (
        measured(load(source), Cache(tmp_path)) for source in ("nangate45", str(NANGATE))
    )
    assert compact.nets_annotated == full.nets_annotated == 1.0
    assert compact.total_pj / compact.cycles == pytest.approx(full.total_pj / full.cycles, rel=0.1)
    for kind, value in full.split_pj.items():
        assert compact.split_pj[kind] == pytest.approx(value, rel=0.15)


def test_energy_of_a_real_unit_is_plausible(tmp_path):
    """A fraction of a picojoule per cycle at 45 nm; every part is there, none is all of it."""
    energy = measured(load("nangate45"), Cache(tmp_path))
    per_cycle = energy.per(energy.cycles)
    assert 0.3 < sum(per_cycle.values()) < 2.0
    for kind in ("multiply", "accumulate", "registers", "clock", "leakage"):
        assert 0.01 < per_cycle[kind] / sum(per_cycle.values()) < 0.7


def sta_netlist(netlist):
    """The netlist as Verilog of single-bit ports and nets by number."""
    ports = {number: port for port in netlist.ports.values() for number in port.nets}
    lines = [f"module top({', '.join(f'n{number}' for number in ports)});"]
    for number in range(2, netlist.net_count):
        kind = ports[number].direction if number in ports else "wire"
        lines.append(f"{kind} n{number};")
    for index, instance in enumerate(netlist.instances):
        pins = instance.inputs | instance.outputs
        nets = {pin: f"n{net}" if net > 1 else f"1'b{net}" for pin, net in pins.items()}
        connections = ", ".join(f".{pin}({net})" for pin, net in nets.items())
        lines.append(f"{instance.type} u{index} ({connections});")
    return "\n".join([*lines, "endmodule"])


@pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not here")
def test_loads_and_leakage_against_opensta(tmp_path):
    """The same activity on every net.

    Debian's version 2.0.17 takes the energy of a rise and of a fall for every transition, and for
    every input of an exclusive or, so power inside cells is not compared; versions from 2020 on
    take means as this project does.
    """
    library = load("nangate45")
    mapped = map_netlist(MAC, "mac", library, clock_ns=CLOCK_NS, cache=Cache(tmp_path))
    netlist = Netlist(mapped, library)
    (tmp_path / "cells.lib").write_text(library.liberty_text())
    (tmp_path / "top.v").write_text(sta_netlist(netlist))
    (tmp_path / "power.tcl").write_text(
        "read_liberty cells.lib\nread_verilog top.v\nlink_design top\n"
        f"create_clock -name clk -period {CLOCK_NS} [get_ports n{netlist.clock}]\n"
        "set_power_activity -global -activity 0.2 -duty 0.5\nreport_power -digits 6\nexit\n"
    )
    printed = subprocess.run(
        ["sta", "-no_splash", "-exit", "power.tcl"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    total = re.search(r"^Total +(\S+) +(\S+) +(\S+)", printed, re.M)
    assert total is not None, printed
    switching_w, leakage_w = float(total[2]), float(total[3])

    # Driven nets only: OpenSTA leaves the loads of input ports, and so of the clock, out.
    toggles = np.zeros((1, netlist.net_count), np.int64)
    driven = [number for number, driver in enumerate(netlist.drivers) if driver is not None]
    toggles[0, driven] = 200
    inert = library_without_internal_energy(library)
    silent = Netlist(mapped, inert)
    model = EnergyModel(silent, ["all"] * len(silent.instances), clock_ns=CLOCK_NS)
    (energy,) = model.measure(
        Activity(
            toggles=toggles,
            lane_cycles=np.array([1000]),
            annotated=np.ones(netlist.net_count, bool),
        )
    )
    seconds = 1000 * CLOCK_NS * 1e-9
    assert energy.split_pj["all"] * 1e-12 / seconds == pytest.approx(switching_w, rel=1e-3)
    assert energy.split_pj["leakage"] * 1e-12 / seconds == pytest.approx(leakage_w, rel=1e-3)


def library_without_internal_energy(library):
    """Make a library whose cells cost nothing but their loads and leakage."""
    return replace(
        library,
        cells={
            name: replace(cell, energies=(), passive={}, clock_idle=None, clock_active=None)
            for name, cell in library.cells.items()
        },
    )
