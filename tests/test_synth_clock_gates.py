"""Clock gates: read from Liberty, mapped, timed, simulated and paid for."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from bench import opensta_reference
from synth.activity import Simulator, pack, unpack
from synth.cache import Cache
from synth.cells import ClockGate
from synth.compact import compact_text, parse_compact
from synth.delays import library_delays
from synth.energy import EnergyModel
from synth.glitches import GlitchSimulator
from synth.liberty import parse_liberty
from synth.liberty_cells import from_liberty
from synth.library import built_in, choose_cells, load
from synth.netlist import CellClass, Netlist, cell_models, classify
from synth.timing import analyse
from synth.yosys import map_netlist
from tests.hand_netlists import hand_mapped, hand_module

#: Registers with an enable, reset before it; registers with an enable alone; free ones.
COUNTER = """
module counter(input clk, rst, move, load, input [7:0] d, output reg [7:0] count, held, free);
  always @(posedge clk) begin
    if (rst) count <= 8'd5; else if (move) count <= count + d;
    if (load & ~d[0]) held <= count ^ d;
    free <= free ^ held;
  end
endmodule
"""

#: A clock gate of which every energy is another number, in fJ: load of 1 fF times (1 V)^2.
GATE = """
  clock_gating_integrated_cell : {kind};
  area : 3; cell_leakage_power : 8;
  statetable ("CK E", "IQ") {{ table : "L L : - : L, L H : - : H, H - : - : N"; }}
  pin (IQ) {{ direction : internal; internal_node : "IQ"; }}
  pin (CK) {{
    direction : input; clock_gate_clock_pin : true; capacitance : 2;
    internal_power () {{ when : "!E & !G"; {power_1_2} }}
    internal_power () {{ when : "E & !G"; {power_4_8} }}
  }}
  pin (E) {{
    direction : input; clock_gate_enable_pin : {enable}; capacitance : 1;
    internal_power () {{ {power_16_32} }}
    timing () {{
      related_pin : "CK"; timing_type : setup_rising;
      rise_constraint (scalar) {{ values ("0.25"); }}
      fall_constraint (scalar) {{ values ("0.125"); }}
    }}
  }}
  pin (G) {{
    direction : output; clock_gate_out_pin : true; state_function : "CK & IQ"; max_capacitance : 50;
    internal_power () {{ related_pin : "CK"; when : "E"; {power_64_128} }}
    internal_power () {{ related_pin : "CK"; when : "!E"; {power_0_256} }}
  }}
"""


def liberty(kind="latch_posedge", enable="true", body=GATE):
    powers = {
        f"power_{rise}_{fall}": f'rise_power (scalar) {{ values ("{rise}"); }} '
        f'fall_power (scalar) {{ values ("{fall}"); }}'
        for rise, fall in ((1, 2), (4, 8), (16, 32), (64, 128), (0, 256))
    }
    cell = body.format(kind=kind, enable=enable, **powers)
    return f"""library (hand) {{
      time_unit : "1ns"; voltage_unit : "1V"; leakage_power_unit : "1nW"; nom_voltage : 1;
      nom_temperature : 25; capacitive_load_unit (1, ff); cell (GATE) {{ {cell} }} }}"""


def read(text):
    return from_liberty(parse_liberty(text, "hand.lib"), "hand.lib")


def test_gate_of_a_liberty_file():
    cell = read(liberty()).cells["GATE"]
    assert cell.clock_gate == ClockGate(clock="CK", enable="E", output="G")
    assert (cell.kind, cell.inputs, cell.outputs) == ("clock gate", ("CK", "E"), ("G",))
    assert (cell.area_um2, cell.leakage_nw, cell.functions) == (3, 8, {})
    assert cell.pins["CK"].is_clock
    assert not cell.pins["E"].is_clock
    # Closed: the clock rises and falls in vain.  Open: all is at the output, where E stays up.
    assert cell.clock_energy(0.0, 0.0) == pytest.approx(3e-3, rel=1e-12)
    assert cell.clock_energy(0.0, 1.0) == 0.0
    assert cell.transition_energy("G", "CK", 0.0, 0.0) == pytest.approx(96e-3, rel=1e-12)
    assert cell.passive_energy("E", 0.0) == pytest.approx(24e-3, rel=1e-12)
    [setup] = cell.setups
    assert (setup.rise.value(0.0), setup.fall.value(0.0)) == (0.25, 0.125)


def test_energy_of_the_clock_pin_whatever_the_state():
    """Some libraries have no conditions there; then edges that pass cost it, too."""
    body = re.sub(r'internal_power \(\) \{\{ when : "!E.*\n', "", GATE)
    body = body.replace('when : "E & !G"; ', "")
    cell = read(liberty(body=body)).cells["GATE"]
    assert cell.clock_energy(0.0, 0.0) == pytest.approx(12e-3, rel=1e-12)
    assert cell.clock_energy(0.0, 1.0) == pytest.approx(12e-3, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "latch_negedge"}, "clock gate of kind latch_negedge"),
        ({"kind": "none_posedge"}, "clock gate of kind none_posedge"),
        ({"enable": "false"}, "clock gate without a clock, an enable and an output"),
    ],
)
def test_other_gates_are_left_out(changes, reason):
    library = read(liberty(**changes))
    assert "GATE" not in library.cells
    assert library.notes == (f"GATE left out: {reason}",)


@pytest.fixture(scope="module")
def nangate():
    return load("nangate45")


@pytest.mark.parametrize("name", built_in())
def test_built_in_libraries_have_one(name):
    library = load(name)
    [cell] = library.clock_gates
    assert choose_cells(library)[-1] == cell.name
    gate = cell.clock_gate
    assert set(cell.inputs) == {gate.clock, gate.enable, *gate.tests}
    # Closed it costs less than the clock pin of one flip-flop and a half, open more than closed.
    slew = library.fo4_slew_ns
    one = library.plain_flip_flops[0].clock_energy(slew)
    closed, opened = cell.clock_energy(slew, 0.0), cell.clock_energy(slew, 1.0)
    moving = 2 * cell.transition_energy(gate.output, gate.clock, slew, library.fo4_load_ff)
    assert 0 < closed < 1.5 * one
    assert closed < opened + moving < 4 * one


def test_compact_and_liberty_texts_keep_it(nangate):
    again = parse_compact(compact_text(nangate), "again.toml")
    assert compact_text(again) == compact_text(nangate)
    [cell], [same] = nangate.clock_gates, again.clock_gates
    assert same.clock_gate == cell.clock_gate
    [written] = read(nangate.liberty_text()).clock_gates
    assert written.clock_gate == cell.clock_gate
    for toggling in (0.0, 1.0):
        assert written.clock_energy(0.1, toggling) == pytest.approx(
            cell.clock_energy(0.1, toggling)
        )


def test_test_inputs_are_written(nangate):
    gate = ClockGate(clock="CK", enable="E", output="GCK", tests=("SE", "ST"))
    cell = nangate.clock_gates[0]
    pins = cell.pins | {name: replace(cell.pins["E"], name=name) for name in gate.tests}
    changed = replace(
        nangate, cells=nangate.cells | {cell.name: replace(cell, pins=pins, clock_gate=gate)}
    )
    [written] = read(changed.liberty_text()).clock_gates
    assert written.clock_gate == gate
    [compact] = parse_compact(compact_text(changed), "").clock_gates
    assert compact.clock_gate == gate


def test_compact_table_that_does_not_fit(nangate):
    text = compact_text(nangate).replace('clock_gate = ["CK", "E"', 'clock_gate = ["CK", "F"')
    with pytest.raises(ValueError, match="clock_gate of CLKGATE_X1 must name each of its pins"):
        parse_compact(text, "bad.toml")


# --- mapping -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mapped(nangate, tmp_path_factory):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    return {
        fewest: map_netlist(
            COUNTER, "counter", nangate, clock_ns=2.0, clock_gating=fewest, cache=cache
        )
        for fewest in (None, 8, 9)
    }


def test_registers_with_an_enable_are_gated(mapped, nangate):
    gates = {fewest: result.cells_by_type.get("CLKGATE_X1", 0) for fewest, result in mapped.items()}
    assert gates == {None: 0, 8: 2, 9: 0}
    # A gate takes the place of eight multiplexers.
    assert mapped[8].area_um2 < mapped[None].area_um2 - 2 * 8


def test_bad_arguments(nangate):
    with pytest.raises(ValueError, match="clock_gating must be at least 1, not 0"):
        map_netlist(COUNTER, "counter", nangate, clock_gating=0)
    bare = nangate.select(name for name in nangate.cells if name != "CLKGATE_X1")
    with pytest.raises(ValueError, match="library nangate45 must hold a clock gate"):
        map_netlist(COUNTER, "counter", bare, clock_gating=4)


def operands(lanes, cycles):
    """Every input by cycle; few resets, and enables that are as often up as not."""
    generator = np.random.default_rng(3)
    found = {name: generator.integers(0, 2, (cycles, lanes)) for name in ("move", "load")}
    found["rst"] = (generator.random((cycles, lanes)) < 0.1).astype(np.int64)
    found["rst"][0] = 1
    return found | {"d": generator.integers(0, 256, (cycles, lanes))}


def simulate(simulator, inputs):
    widths = {name: 8 if name == "d" else 1 for name in inputs}
    lanes = simulator.lanes
    seen = []
    for cycle in range(len(inputs["d"])):
        simulator.step({name: pack(inputs[name][cycle], widths[name]) for name in inputs})
        seen.append([unpack(simulator.settled(name), lanes) for name in ("count", "held", "free")])
    return np.array(seen), simulator.activity()


def expected_counter(inputs):
    """The counter in Python, from all registers at 0."""
    count = held = free = np.zeros(len(inputs["d"][0]), np.int64)
    seen = []
    for rst, move, load_, d in zip(*(inputs[k] for k in ("rst", "move", "load", "d")), strict=True):
        seen.append([count, held, free])
        count, held, free = (
            np.where(rst == 1, 5, np.where(move == 1, (count + d) % 256, count)),
            np.where((load_ == 1) & (d % 2 == 0), count ^ d, held),
            free ^ held,
        )
    return np.array(seen)


@pytest.mark.parametrize("with_delays", [False, True])
def test_gated_registers_do_what_they_did(with_delays, mapped, nangate):
    lanes, cycles = 70, 40
    inputs = operands(lanes, cycles)
    netlist = Netlist(mapped[8], nangate)
    simulator = (
        GlitchSimulator(netlist, lanes, library_delays(netlist))
        if with_delays
        else Simulator(netlist, lanes)
    )
    seen, activity = simulate(simulator, inputs)
    np.testing.assert_array_equal(seen, expected_counter(inputs))
    assert activity.annotated.all()
    # What enables an edge settles before it, so the last cycle's has not come yet.
    passes = inputs["rst"] | inputs["move"], inputs["load"] & (inputs["d"] % 2 == 0)
    pulses = sorted(int(each[:-1].sum()) for each in passes)
    assert sorted(activity.toggles[0, list(netlist.enables)].tolist()) == [2 * n for n in pulses]
    assert activity.toggles[0, netlist.clock] == 2 * lanes * cycles


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not here")
def test_model_of_the_gate_in_icarus(mapped, nangate, tmp_path):
    """The netlist with latches, and the Verilog that it was mapped from, side by side."""
    inputs = {name: values[:, 0] for name, values in operands(1, 60).items()}
    steps = "".join(
        f"rst = {inputs['rst'][k]}; move = {inputs['move'][k]}; load = {inputs['load'][k]}; "
        f"d = {inputs['d'][k]}; #1 clk = 1; #1 clk = 0; #1;\n"
        'if ({a, b, c} !== {e, f, g}) $display("differs");\n'
        for k in range(60)
    )
    bench = f"""module bench; reg clk = 0, rst, move, load; reg [7:0] d;
      wire [7:0] a, b, c, e, f, g;
      counter one(clk, rst, move, load, d, a, b, c);
      source two(clk, rst, move, load, d, e, f, g);
      initial begin
        two.count = 0; two.held = 0; two.free = 0;
        {steps} $display("%0d %0d %0d", a, b, c);
      end
    endmodule"""
    texts = [
        cell_models(nangate, mapped[8].cells_by_type),
        mapped[8].verilog,
        COUNTER.replace("module counter", "module source"),
        bench,
    ]
    source, program = tmp_path / "bench.v", tmp_path / "bench.vvp"
    source.write_text("\n".join(texts))
    subprocess.run(["iverilog", "-g2005", "-o", program, source], check=True, timeout=60)
    done = subprocess.run(
        ["vvp", "-N", program], check=True, timeout=60, capture_output=True, text=True
    )
    [line] = done.stdout.splitlines()
    assert len(set(line.split())) > 1


def test_classes(mapped, nangate):
    netlist = Netlist(mapped[8], nangate)
    classes = classify(netlist, operands={"d": ["d"]}, accumulators=["count"])
    assert [kind for kind in classes if kind is CellClass.CLOCK] == [CellClass.CLOCK] * 2
    assert [classes[index] for index in netlist.clock_gates] == [CellClass.CLOCK] * 2


# --- by hand -------------------------------------------------------------------------------------


def hand_netlist(cells, outputs=(9,)):
    """Bit 2 is the clock, 3 and 4 are inputs."""
    return hand_mapped(hand_module(cells, {"clk": [2], "a": [3], "b": [4]}, {"y": outputs}))


GATED = {
    "gate": ("CLKGATE_X1", {"CK": 2, "E": 3, "GCK": 5}),
    "one": ("DFF_X1", {"CK": 5, "D": 4, "Q": 9}),
    "two": ("DFF_X1", {"CK": 5, "D": 9, "Q": 10}),
}


def test_energy_by_hand(nangate):
    """All at the clock, means, term by term: b never changes, so no flip-flop ever does."""
    netlist = Netlist(hand_netlist(GATED, [9, 10]), nangate)
    simulator = Simulator(netlist, 1, state_words=0)
    enables = [1, 1, 0, 1, 0, 0, 1, 0]
    for enable in enables:
        simulator.step({"a": pack(np.array([enable]), 1), "b": pack(np.array([0]), 1)})
    activity = simulator.activity()
    model = EnergyModel(netlist, ["logic"] * 3, clock_ns=0.0, clock_slew_ns=0.0125)
    [energy] = model.measure(activity)

    cycles, opened, moves = 8, 4, 6
    gate, register = nangate.cells["CLKGATE_X1"], nangate.cells["DFF_X1"]
    charge = 1e-3 * nangate.voltage_v**2 / 2  # pJ per fF
    pins = {
        name: nangate.cells[kind].pins[pin].cap_ff
        for name, kind, pin in (
            ("gate", "CLKGATE_X1", "CK"),
            ("enable", "CLKGATE_X1", "E"),
            ("register", "DFF_X1", "CK"),
        )
    }
    load = 2 * pins["register"]
    expected = (
        cycles * 2 * charge * pins["gate"]
        + opened * 2 * (charge * load + gate.transition_energy("GCK", "CK", 0.0125, load))
        + (cycles - opened) * gate.clock_energy(0.0125, 0.0)
        + opened * gate.clock_energy(0.0125, 1.0)
        + opened * 2 * register.clock_energy(0.0125, 0.0)
        + moves * (charge * pins["enable"] + gate.passive_energy("E", nangate.fo4_slew_ns))
    )
    assert activity.toggles[0, netlist.bits("a")[0]] == moves
    assert energy.split_pj["clock"] == pytest.approx(expected, rel=1e-12)
    assert energy.split_pj["logic"] == 0.0


def test_enable_is_timed_to_the_gate(nangate):
    cells = GATED | {
        "gate": ("CLKGATE_X1", {"CK": 2, "E": 6, "GCK": 5}),
        "three": ("DFF_X1", {"CK": 2, "D": 4, "Q": 7}),
        "late": ("INV_X1", {"A": 7, "ZN": 6}),
    }
    timing = analyse(hand_netlist(cells).module, nangate)
    path = timing.paths["register to register"]
    assert path.endpoint == "gate/E"
    slews = nangate.fo4_slew_ns, path.steps[-1].slew_ns
    [setup] = nangate.cells["CLKGATE_X1"].setups
    table = setup.rise if path.steps[-1].edge == "rise" else setup.fall
    assert path.setup_ns == pytest.approx(table.value(*slews), rel=1e-12)
    # The clock is ideal: behind the gate, flip-flops come no later than before it.
    plain = GATED | {"one": ("DFF_X1", {"CK": 2, "D": 4, "Q": 9})}
    ahead, behind = (
        analyse(hand_netlist(each).module, nangate).paths["register to output"]
        for each in (plain, GATED)
    )
    assert behind.delay_ns == ahead.delay_ns


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": ("INV_X1", {"A": 5, "ZN": 11})}, "gated clock .* must drive the clock pins"),
        ({"two": ("DFF_X1", {"CK": 5, "D": 5, "Q": 10})}, "gated clock .* must drive the clock"),
        (
            {"gate": ("TESTED", {"CK": 2, "E": 3, "SE": 4, "GCK": 5})},
            r"test input gate\.SE must be held at 0",
        ),
        (
            {
                "gate": ("CLKGATE_X1", {"CK": 4, "E": 3, "GCK": 5}),
                "two": ("DFF_X1", {"CK": 2, "D": 9, "Q": 10}),
            },
            "must share one clock and edge",
        ),
    ],
)
def test_bad_netlists(changes, message, nangate):
    cell = nangate.clock_gates[0]
    tested = replace(
        cell,
        name="TESTED",
        pins=cell.pins | {"SE": replace(cell.pins["E"], name="SE")},
        clock_gate=replace(cell.clock_gate, tests=("SE",)),
    )
    library = replace(nangate, cells=nangate.cells | {"TESTED": tested})
    netlist = Netlist(hand_netlist(GATED | changes), library)
    with pytest.raises(ValueError, match=message):
        _ = netlist.clock


def test_test_input_at_a_tie_cell(nangate):
    cell = nangate.clock_gates[0]
    tested = replace(
        cell,
        name="TESTED",
        pins=cell.pins | {"SE": replace(cell.pins["E"], name="SE")},
        clock_gate=replace(cell.clock_gate, tests=("SE",)),
    )
    library = replace(nangate, cells=nangate.cells | {"TESTED": tested})
    cells = GATED | {
        "gate": ("TESTED", {"CK": 2, "E": 3, "SE": 11, "GCK": 5}),
        "low": ("LOGIC0_X1", {"Z": 11}),
    }
    netlist = Netlist(hand_netlist(cells), library)
    assert netlist.net_names[netlist.clock] == netlist.net_names[netlist.ports["clk"].nets[0]]


def test_against_opensta(mapped, nangate, tmp_path):
    if opensta_reference.find() is None:
        pytest.skip("OpenSTA (sta) is not installed")
    (tmp_path / "cells.lib").write_text(nangate.liberty_text())
    slews = {"input_slew_ns": 0.02, "clock_slew_ns": 0.03, "output_load_ff": 2.0}
    module = mapped[8].module
    expected = opensta_reference.period_ns(tmp_path, module, ["cells.lib"], **slews)
    assert analyse(module, nangate, **slews).critical_path_ns == pytest.approx(expected, rel=1e-4)
