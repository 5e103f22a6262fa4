"""Glitches by hand, against a slow simulation of single events, and against Icarus Verilog."""

import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bench import event_reference
from synth import glitches
from synth.activity import Simulator, pack, unpack
from synth.cache import Cache
from synth.cells import Cell, FlipFlop, Pin, Table, TimingArc
from synth.delays import Delays, OutputDelay, library_delays, unit_delays
from synth.energy import EnergyModel
from synth.glitches import GlitchSimulator
from synth.liberty import Function
from synth.library import load
from synth.netlist import Netlist
from synth.timing import Timing, analyse
from synth.yosys import map_netlist
from tests.hand_netlists import hand_mapped, hand_module

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not here")

MAC = """\
module top(input clk, input clear, input signed [2:0] a, input signed [3:0] b,
           output reg signed [2:0] x, output reg signed [8:0] acc);
  reg signed [3:0] y;
  always @(posedge clk) begin x <= a; y <= b; acc <= (clear ? 9'sd0 : acc) + x * y; end
endmodule
"""
CONTROLLED = """\
module top(input clk, input clear, input [3:0] a, output reg [3:0] low, output reg [3:0] high,
           output [3:0] y, output one, output through);
  wire now = clear & a[0];
  always @(posedge clk or posedge now) if (now) low <= 4'd0; else low <= a;
  always @(posedge clk or posedge clear) if (clear) high <= 4'hf; else high <= low + a;
  assign y = low ^ high;
  assign one = 1'b1;
  assign through = a[2];
endmodule
"""


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


@pytest.fixture(scope="module")
def mapped_of(library, tmp_path_factory):
    """Map a module; each of them once."""
    cache = Cache(tmp_path_factory.mktemp("cache"))

    def build(source):
        return map_netlist(source, "top", library, clock_ns=2.0, recipe="plain", cache=cache)

    return build


def random_inputs(netlist, generator, cycles, lanes):
    """Random values by port, shape (cycles, lanes); few ones at what clears."""
    found = {}
    for port in netlist.ports.values():
        if port.direction == "input" and port.nets != (netlist.clock,):
            values = generator.integers(0, 1 << len(port.nets), (cycles, lanes))
            if port.name == "clear":
                values = (generator.random((cycles, lanes)) < 0.2).astype(np.int64)
            found[port.name] = values
    return found


def run(simulator, inputs):
    """Step through all cycles, and return the activity."""
    netlist = simulator.netlist
    for cycle in range(len(next(iter(inputs.values())))):
        simulator.step(
            {name: pack(v[cycle], len(netlist.ports[name].nets)) for name, v in inputs.items()}
        )
    return simulator.activity()


# --- by hand -------------------------------------------------------------------------------------


def gate(name, function, *inputs):
    pins = {pin: Pin(name=pin, direction="input", cap_ff=1.0) for pin in inputs}
    pins["Y"] = Pin(name="Y", direction="output", function=Function(function))
    return Cell(name=name, area_um2=1.0, leakage_nw=0.0, pins=pins)


GATES = (gate("INV", "!A", "A"), gate("AND", "A & B", "A", "B"), gate("XOR", "A ^ B", "A", "B"))


def netlist_of_cells(library, cells, inputs, outputs):
    """A netlist of ``name: (type, pin=bit)``; bit 2 is the clock."""
    module = hand_module(cells, {"clk": [2], "a": inputs}, {"y": outputs})
    return Netlist(hand_mapped(module), library)


@pytest.fixture
def hazard(library):
    """An input and its complement at an AND: a pulse while the inverter is late."""
    own = replace(library, cells={cell.name: cell for cell in GATES})
    return netlist_of_cells(
        own,
        {"inv": ("INV", {"A": 3, "Y": 4}), "and": ("AND", {"A": 3, "B": 4, "Y": 5})},
        [3],
        [5],
    )


def toggles_of_hazard(netlist, inverter, both, values):
    delays = Delays(outputs={(0, "Y"): inverter, (1, "Y"): both}, inputs=2)
    simulator = GlitchSimulator(netlist, 1, delays)
    for value in values:
        simulator.step({"a": [[np.uint64(value)]] * np.ones((1, 1), np.uint64)})
    toggles = simulator.activity().toggles[0]
    return [int(toggles[netlist.yosys_bits.index(bit)]) for bit in (3, 4, 5)]


@pytest.mark.parametrize(
    ("inverter", "both", "pulses"),
    [
        # a rises in step 2, its complement falls in step 5: the AND is 1 in steps 2, 3 and 4.
        (OutputDelay(rise=1, fall=3), OutputDelay(rise=3, fall=1), 1),
        (OutputDelay(rise=1, fall=3), OutputDelay(rise=4, fall=1), 0),
        (OutputDelay(rise=1, fall=3), OutputDelay(rise=3, fall=9), 1),
        # Only a rise has a pulse, so the rise of the inverter does not matter.
        (OutputDelay(rise=9, fall=3), OutputDelay(rise=4, fall=4), 0),
        # The input reaches the AND late: no pulse if as late as the inverter, or later.
        (OutputDelay(rise=9, fall=3), OutputDelay(rise=1, fall=1, pins={"A": 2}), 1),
        (OutputDelay(rise=9, fall=3), OutputDelay(rise=1, fall=1, pins={"A": 3}), 0),
        # Later than the inverter: the pulse is in the fall, when the complement rises first.
        (OutputDelay(rise=1, fall=3), OutputDelay(rise=3, fall=1, pins={"A": 4}), 1),
        (OutputDelay(rise=1, fall=3), OutputDelay(rise=4, fall=1, pins={"A": 4}), 0),
        # The complement falls as late as its own pin makes it.
        (OutputDelay(rise=1, fall=3), OutputDelay(rise=5, fall=1, pins={"B": 2}), 1),
        (OutputDelay(rise=1, fall=3), OutputDelay(rise=6, fall=1, pins={"B": 2}), 0),
    ],
)
def test_pulse_as_long_as_the_delay_passes(hazard, inverter, both, pulses):
    """Rise, stay, fall: one edge each way at the input, and a pulse at one of them or none."""
    assert toggles_of_hazard(hazard, inverter, both, [1, 1, 0]) == [2, 2, 2 * pulses]


def test_last_step(hazard):
    delays = Delays(
        outputs={
            (0, "Y"): OutputDelay(rise=4, fall=3),
            (1, "Y"): OutputDelay(rise=5, fall=7, pins={"B": 2}),
        },
        inputs=10,
    )
    assert GlitchSimulator(hazard, 1, delays).steps == 10 + 4 + 2 + 7


# --- against single events -----------------------------------------------------------------------


def edge_by_edge(values, rise, fall):
    """Course of an output from that of its function, by scheduling and cancelling single events.

    The first value is that of all time before.
    """
    course, current, pending = [], values[0], None
    seen = values[0]
    # Until everything has happened.
    for step in range(len(values) + max(rise, fall)):
        now = values[min(step, len(values) - 1)]
        if pending is not None and pending[0] == step:
            current, pending = pending[1], None
        if now != seen:
            pending = (step + (rise if now else fall), now) if now != current else None
            seen = now
        course.append(current)
    return course


def single_lane(netlist, delays, inputs, horizon):
    """Toggles of every net of one lane; values are Python integers, one step after another."""
    state = dict.fromkeys(netlist.registers, 0)
    nets = {0: [0], 1: [1]}
    toggles = np.zeros(netlist.net_count, np.int64)

    def at(course, step):
        return course[min(max(step, 0), len(course) - 1)]

    tables = {}

    def value(function, names):
        order = function.inputs
        if function not in tables:
            tables[function] = function.truth_table()
        return tables[function] >> sum(names[name] << k for k, name in enumerate(order)) & 1

    def forced(ff, held, names):
        if ff.clear is not None and value(ff.clear, names):
            held = 0
        return 1 if ff.preset is not None and value(ff.preset, names) else held

    def evaluate(old_state, old_inputs, new_inputs):
        """Courses of all nets; step 0 of a course is the one before the clock edge."""
        for name, port in netlist.ports.items():
            if port.direction == "input" and port.nets != (netlist.clock,):
                for k, net in enumerate(port.nets):
                    before, after = old_inputs[name] >> k & 1, new_inputs[name] >> k & 1
                    nets[net] = [before] * (1 + delays.inputs) + [after] * horizon
        free = [index for index in netlist.registers if index not in netlist.order]
        for index in (*free, *netlist.order):
            instance = netlist.instances[index]
            for pin, net in instance.outputs.items():
                delay = delays.outputs[index, pin]
                courses = {
                    name: nets[number] for name, number in instance.inputs.items() if number in nets
                }
                values = []
                for step in range(horizon):
                    names = {
                        name: at(course, step - delay.pins.get(name, 0))
                        for name, course in courses.items()
                    }
                    ff = instance.ff
                    if ff is not None:
                        held = old_state[index] if step == 0 else state[index]
                        held = forced(ff, held, names)
                        names = {ff.state: held, ff.inverted_state: 1 - held}
                    values.append(value(instance.cell.functions[pin], names))
                nets[net] = edge_by_edge(values, delay.rise, delay.fall)

    zero = dict.fromkeys(inputs, 0)
    evaluate(state, zero, zero)
    before, old_state = zero, dict(state)
    for cycle in range(len(next(iter(inputs.values())))):
        now = {name: int(values[cycle]) for name, values in inputs.items()}
        evaluate(old_state, before, now)
        for net, course in nets.items():
            toggles[net] += sum(a != b for a, b in pairwise(course))
        before, old_state = now, dict(state)
        for index in netlist.registers:
            instance = netlist.instances[index]
            names = {name: nets[net][-1] for name, net in instance.inputs.items() if net in nets}
            ff = instance.ff
            both = {ff.state: state[index], ff.inverted_state: 1 - state[index]}
            state[index] = forced(ff, value(ff.next_state, names | both), names)
    return toggles


def random_delays(netlist, generator, longest):
    """Delays of every kind, each of them unlike the others."""
    return Delays(
        outputs={
            (index, pin): OutputDelay(
                rise=int(generator.integers(1, longest + 1)),
                fall=int(generator.integers(1, longest + 1)),
                pins={
                    name: int(steps)
                    for name in instance.inputs
                    if (steps := generator.integers(0, longest)) > 0
                },
            )
            for index, instance in enumerate(netlist.instances)
            for pin in instance.outputs
        },
        inputs=int(generator.integers(0, 5)),
    )


@pytest.mark.parametrize("source", [MAC, CONTROLLED], ids=["mac", "controlled"])
@pytest.mark.parametrize("longest", [1, 2, 6])
def test_against_single_events(source, longest, mapped_of, library):
    netlist = Netlist(mapped_of(source), library)
    generator = np.random.default_rng(longest)
    delays = random_delays(netlist, generator, longest)
    inputs = random_inputs(netlist, generator, 5, 2)
    simulator = GlitchSimulator(netlist, 2, delays)
    activity = run(simulator, inputs)
    expected = sum(
        single_lane(
            netlist,
            delays,
            {name: values[:, lane] for name, values in inputs.items()},
            simulator.steps + 2,
        )
        for lane in range(2)
    )
    if netlist.clock is not None:
        expected[netlist.clock] = 2 * 2 * 5
    np.testing.assert_array_equal(activity.toggles[0], expected)
    assert activity.annotated.all()
    # The comparison means little where there is no glitch.
    zero = run(Simulator(netlist, 2), inputs)
    assert activity.toggles.sum() > 1.1 * zero.toggles.sum()


# --- against Icarus ------------------------------------------------------------------------------


@needs_icarus
@pytest.mark.parametrize("kind", ["unit", "library", "none"])
def test_toggles_and_energy_against_icarus(kind, mapped_of, library, tmp_path):
    """Every net toggles as often, and every event by itself costs what the model says at large."""
    mapped = mapped_of(MAC)
    netlist, timing = Netlist(mapped, library), analyse(mapped.module, library)
    cycles = 60
    inputs = random_inputs(netlist, np.random.default_rng(4), cycles, 1)
    for values in inputs.values():
        values[0] = 0
    cells = [library.cells[name] for name in netlist.cells_by_type]
    if kind == "none":
        simulator, delays, steps = Simulator(netlist, 1, state_words=1), None, 0
        models = event_reference.plain_models(cells)
    else:
        delays = unit_delays(netlist) if kind == "unit" else library_delays(netlist, timing=timing)
        simulator = GlitchSimulator(netlist, 1, delays, state_words=1)
        steps, models = simulator.steps, event_reference.delayed_models(cells)
    activity = run(simulator, inputs)
    events = event_reference.icarus(
        tmp_path,
        mapped.module,
        models,
        clock="clk",
        stimuli={name: values[:, 0].tolist() for name, values in inputs.items()},
        delays=delays,
        steps=steps,
    )
    expected = [events.toggles.get(bit, 0) for bit in netlist.yosys_bits]
    expected[netlist.clock] = 2 * cycles
    assert activity.toggles[0].tolist() == expected

    model = EnergyModel(netlist, ["all"] * len(netlist.instances), clock_ns=2.0, timing=timing)
    (energy,) = model.measure(activity)
    reference = event_reference.energies_pj(
        mapped.module,
        library.liberty_text(),
        events,
        clock="clk",
        cycles=cycles,
        clock_ns=2.0,
        slews_ns=timing.slew_ns,
        slew_ns=library.fo4_slew_ns,
    )
    assert energy.total_pj == pytest.approx(sum(reference.values()), rel=0.01)
    # What clock pins and leakage cost is known state by state.
    assert energy.split_pj["leakage"] == pytest.approx(reference["leakage"], rel=1e-4)
    clock_load = netlist.loads_ff()[netlist.clock] * 1e-3 * library.voltage_v**2 * cycles
    clock = energy.split_pj["clock"] - clock_load
    assert clock == pytest.approx(reference["clock"], rel=1e-4)


# --- as a simulator ------------------------------------------------------------------------------


def test_settles_to_what_it_would_without_delays(mapped_of, library):
    """More words than a block, a last word that is not full, groups, lanes that do not count."""
    netlist = Netlist(mapped_of(MAC), library)
    lanes = 64 * (glitches.BLOCK_WORDS + 3) - 5
    generator = np.random.default_rng(6)
    inputs = random_inputs(netlist, generator, 3, lanes)
    counted = pack(generator.random(lanes) < 0.7, 1)[0]
    groups = np.arange(glitches.BLOCK_WORDS + 3) * 5 // (glitches.BLOCK_WORDS + 3)
    delays = library_delays(netlist)
    simulator = GlitchSimulator(netlist, lanes, delays, word_groups=groups, counted=counted)
    zero = Simulator(netlist, lanes, word_groups=groups, counted=counted)
    activity, plain = run(simulator, inputs), run(zero, inputs)
    for name in ("acc", "x"):
        np.testing.assert_array_equal(simulator.state(name), zero.state(name))
        np.testing.assert_array_equal(simulator.settled(name), zero.settled(name))
    np.testing.assert_array_equal(activity.lane_cycles, plain.lane_cycles)
    # A net changes at least once if its settled value does, and an even number of times more.
    more = activity.toggles - plain.toggles
    assert (more >= 0).all()
    assert not (more % 2).any()
    assert (more.sum(axis=1) > 0).all()

    # The same lanes by themselves: a word of the first group, and the last word.
    for group in (0, 4):
        word = int(np.flatnonzero(groups == group)[-1])
        chosen = np.flatnonzero(unpack(counted[None, word : word + 1], 64)) + 64 * word
        alone = GlitchSimulator(netlist, len(chosen), delays)
        part = run(alone, {name: values[:, chosen] for name, values in inputs.items()})
        only = np.zeros_like(counted)
        only[word] = counted[word]
        within = GlitchSimulator(netlist, lanes, delays, word_groups=groups, counted=only)
        np.testing.assert_array_equal(run(within, inputs).toggles[group], part.toggles[0])


def test_reset_and_many_cycles(mapped_of, library, monkeypatch):
    """Counters are emptied in time, and a reset forgets them."""
    netlist = Netlist(mapped_of(MAC), library)
    inputs = random_inputs(netlist, np.random.default_rng(8), 7, 64)
    simulator = GlitchSimulator(netlist, 64, unit_delays(netlist))
    first = run(simulator, inputs)
    simulator.reset()
    assert not simulator.activity().toggles.any()
    monkeypatch.setattr(glitches, "CYCLES_PER_FLUSH", 2)
    second = run(simulator, inputs)
    np.testing.assert_array_equal(first.toggles, second.toggles)
    assert (second.since(first).toggles == 0).all()


def test_many_toggles_in_one_cycle(library):
    """A chain in which each net toggles twice as often as the one before: more than 16 bits hold.

    Each gate compares a net with what it was so many steps ago, a power of two, so that no two
    edges come together.
    """
    own = replace(library, cells={cell.name: cell for cell in GATES})
    count = 12
    netlist = netlist_of_cells(
        own,
        {f"x{k}": ("XOR", {"A": 3 + k, "B": 3 + k, "Y": 4 + k}) for k in range(count)},
        [3],
        [3 + count],
    )
    delays = Delays(
        outputs={(k, "Y"): OutputDelay(rise=1, fall=1, pins={"A": 1 << k}) for k in range(count)},
        inputs=0,
    )
    simulator = GlitchSimulator(netlist, 64, delays)
    assert simulator.steps == count + (1 << count) - 1
    for value in (1, 0, 0, 1):
        simulator.step({"a": pack(np.full(64, value), 1)})
    toggles = simulator.activity().toggles[0]
    for k in range(count + 1):
        assert toggles[netlist.yosys_bits.index(3 + k)] == 3 * 64 << k


def test_missing_delay(hazard):
    delays = Delays(outputs={(0, "Y"): OutputDelay(rise=1, fall=1)}, inputs=0)
    with pytest.raises(ValueError, match="delays must have output Y of and"):
        GlitchSimulator(hazard, 1, delays)


# --- delays --------------------------------------------------------------------------------------


def plane(base, per_slew=0.0, per_load=0.0):
    """Table with base + per_slew * slew + per_load * load."""
    grid = (0.0, 1.0)
    return Table(
        grid, grid, tuple(tuple(base + per_slew * r + per_load * c for c in grid) for r in grid)
    )


def arc(related, rise, fall, pin="Y", sense="either"):
    return TimingArc(
        pin=pin,
        related=related,
        sense=sense,
        delay_rise=rise,
        delay_fall=fall,
        slew_rise=plane(0.5),
        slew_fall=plane(0.5),
    )


@pytest.fixture
def timed(library):
    """A register, an AND of its output and an input, and an inverter without delays."""
    inverter, both, _ = GATES
    pins = {
        "D": Pin(name="D", direction="input", cap_ff=1.0),
        "C": Pin(name="C", direction="input", cap_ff=1.0, is_clock=True),
        "Q": Pin(name="Q", direction="output", function=Function("IQ")),
    }
    register = Cell(
        name="DFF",
        area_um2=1.0,
        leakage_nw=0.0,
        pins=pins,
        ff=FlipFlop(
            clock="C",
            clock_edge="rising",
            next_state=Function("D"),
            state="IQ",
            inverted_state="IQN",
        ),
        arcs=(arc("C", plane(2.0, 1.0, 0.1), plane(3.0, 1.0, 0.1), "Q", "rising"),),
    )
    both = replace(
        both,
        arcs=(
            arc("A", plane(1.0, 2.0, 0.0), plane(2.0, 0.0, 0.5)),
            # Two states of the other input: their mean counts.
            arc("B", plane(2.0), plane(4.0)),
            arc("B", plane(4.0), None),
        ),
    )
    slow = replace(inverter, name="NOT", area_um2=0.5, arcs=(arc("A", plane(0.5), plane(0.5)),))
    own = replace(library, cells={c.name: c for c in (inverter, slow, both, register)})
    return netlist_of_cells(
        own,
        {
            "reg": ("DFF", {"D": 3, "C": 2, "Q": 4}),
            "and": ("AND", {"A": 4, "B": 3, "Y": 5}),
            "inv": ("INV", {"A": 5, "Y": 6}),
        },
        [3],
        [6],
    )


def test_delays_from_tables(timed):
    """Slews are 0.5 where nothing says otherwise; the AND drives 1 fF and so does the register."""
    delays = library_delays(timed, step_ns=0.1)
    # Register: 2 + 0.5 + 0.1 and one more.
    assert delays.outputs[0, "Q"] == OutputDelay(rise=26, fall=36)
    # A: 1 + 2 * 0.5 up, 2 + 0.5 down; B: 3 up, 4 down.  B is (1 + 1.5) / 2 later: 12.5 steps.
    found = delays.outputs[1, "Y"]
    assert (found.rise, found.fall) == (20, 25)
    assert found.pins == {"B": 12}
    assert delays.outputs[2, "Y"] == OutputDelay(rise=1, fall=1)
    # As late as a register with four of the smallest inverters, of 1 fF each: 2.5 + 0.4 + 0.5.
    assert delays.inputs == 34
    assert delays.step_ns == 0.1


def test_delays_with_slews_and_wires(timed):
    timing = Timing(paths={}, load_ff={}, slew_ns={4: 0.1})
    delays = library_delays(timed, timing=timing, step_ns=0.1, wire_cap_ff=2.0)
    # A: 1 + 2 * 0.1 up, 2 + 0.5 * 3 down; B: 3 up, 4 down; 1.8 and 0.5 later.
    found = delays.outputs[1, "Y"]
    assert (found.rise, found.fall, found.pins) == (12, 35, {"B": 12})
    assert delays.outputs[0, "Q"] == OutputDelay(rise=28, fall=38)
    loaded = library_delays(timed, timing=timing, step_ns=0.1, output_load_ff=5.0)
    assert loaded.outputs[1, "Y"] == OutputDelay(rise=12, fall=25, pins={"B": 16})


def test_default_step_is_a_quarter_of_an_inverter(timed):
    assert library_delays(timed).step_ns == pytest.approx(0.5 / 4)


def test_unit_delays(timed):
    delays = unit_delays(timed)
    one = OutputDelay(rise=1, fall=1)
    assert delays.outputs == {(0, "Q"): one, (1, "Y"): one, (2, "Y"): one}
    assert (delays.inputs, delays.step_ns) == (1, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rise": 0, "fall": 1}, "rise must be at least 1, not 0"),
        ({"rise": 1, "fall": -2}, "fall must be at least 1, not -2"),
        ({"rise": 1, "fall": 1, "pins": {"A": -1}}, "delay of pin A must be at least 0, not -1"),
    ],
)
def test_bad_delay(options, message):
    with pytest.raises(ValueError, match=message):
        OutputDelay(**options)


def test_bad_delays(timed):
    with pytest.raises(ValueError, match="inputs must not be negative, not -1"):
        Delays(outputs={}, inputs=-1)
    for step_ns in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"step_ns must be positive, not {step_ns}"):
            library_delays(timed, step_ns=step_ns)
    with pytest.raises(ValueError, match=r"wire_cap_ff must not be negative, not -1\.0"):
        library_delays(timed, wire_cap_ff=-1.0)
    with pytest.raises(ValueError, match=r"output_load_ff must not be negative, not -1\.0"):
        library_delays(timed, output_load_ff=-1.0)
