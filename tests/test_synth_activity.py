"""Toggles of every net against Icarus Verilog, and results against Python's integers."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from synth import activity
from synth.activity import LANES_PER_WORD, Simulator, pack, unpack
from synth.cache import Cache
from synth.cells import Cell, FlipFlop, Pin
from synth.liberty import Function
from synth.library import load
from synth.netlist import CONSTANT_0, CONSTANT_1, Netlist, cell_models
from synth.yosys import map_netlist
from tests.hand_netlists import hand_mapped, hand_module

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not here")


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


@pytest.fixture(scope="module")
def netlist_of(library, tmp_path_factory):
    """Map a module and return its netlist."""
    cache = Cache(tmp_path_factory.mktemp("cache"))

    def build(source, **options):
        mapped = map_netlist(source, "top", library, clock_ns=2.0, cache=cache, **options)
        return Netlist(mapped, library)

    return build


MULTIPLIER = """\
module top(input signed [5:0] a, input signed [6:0] b, output signed [12:0] y);
  assign y = a * b;
endmodule
"""
MAC = """\
module top(input clk, input clear, input signed [7:0] a, input signed [7:0] b,
           output reg signed [7:0] x, output reg signed [7:0] y, output reg signed [23:0] acc);
  always @(posedge clk) begin x <= a; y <= b; acc <= (clear ? 24'sd0 : acc) + x * y; end
endmodule
"""
# Constants at ports and at gates, an input that goes straight through, and one that goes nowhere.
CONSTANTS = """\
module top(input clk, input [3:0] a, input unused, output [3:0] y, output one, output through);
  reg [3:0] r;
  always @(posedge clk) r <= {a[3] ^ r[0], 1'b1, ~a[1:0]};
  assign y = {r[3], 1'b0, r[1:0] & {2{r[2]}}};
  assign one = 1'b1;
  assign through = a[2];
endmodule
"""
# Asynchronous clear and preset, which work between the edges of the clock.
CONTROLLED = """\
module top(input clk, input clear, input [3:0] a, output reg [3:0] low, output reg [3:0] high,
           output [3:0] y);
  wire now = clear & a[0];
  always @(posedge clk or posedge now) if (now) low <= 4'd0; else low <= a;
  always @(posedge clk or posedge clear) if (clear) high <= 4'hf; else high <= low + a;
  assign y = low ^ high;
endmodule
"""


# --- packing -------------------------------------------------------------------------------------


def bit(words, lane):
    return int(words[lane // 64]) >> lane % 64 & 1


@pytest.mark.parametrize("lanes", [1, 63, 64, 65, 200])
@pytest.mark.parametrize(
    ("width", "dtype"), [(1, np.uint8), (5, np.int8), (8, np.uint8), (11, np.int16), (40, np.int64)]
)
def test_pack_bit_by_bit(lanes, width, dtype):
    generator = np.random.default_rng(lanes * width)
    limit = min(1 << width, np.iinfo(dtype).max + 1)
    low = -(1 << width - 1) if np.iinfo(dtype).min < 0 else 0
    values = generator.integers(low, limit, lanes).astype(dtype)
    words = pack(values, width)
    assert words.dtype == np.uint64
    assert words.shape == (width, -(-lanes // LANES_PER_WORD))
    for lane, value in enumerate(values.tolist()):
        assert [bit(row, lane) for row in words] == [value >> k & 1 for k in range(width)]
    for lane in range(lanes, words.shape[1] * LANES_PER_WORD):
        assert not any(bit(row, lane) for row in words)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 31, 62])
def test_unpack_is_the_inverse(width):
    generator = np.random.default_rng(width)
    unsigned = generator.integers(0, 1 << width, (3, 2, 130))
    np.testing.assert_array_equal(unpack(pack(unsigned, width), 130), unsigned)
    signed = unsigned - (1 << width - 1)
    np.testing.assert_array_equal(unpack(pack(signed, width), 130, signed=True), signed)
    wrapped = unpack(pack(signed, width), 130)
    np.testing.assert_array_equal(wrapped, signed % (1 << width))


def test_pack_all_of_64_bits():
    limits = np.iinfo(np.int64)
    values = np.array([limits.min, limits.max, -1, 0])
    np.testing.assert_array_equal(unpack(pack(values, 64), 4, signed=True), values)
    words = pack(np.array([2**64 - 1, 2**63], np.uint64), 64)
    assert [bit(row, 0) for row in words] == [1] * 64
    assert [bit(row, 1) for row in words] == [0] * 63 + [1]


def test_pack_booleans_and_nothing():
    assert pack([True, False, True], 1).tolist() == [[5]]
    assert pack(np.zeros((4, 0), np.int64), 3).shape == (4, 3, 0)


@pytest.mark.parametrize(
    ("values", "width", "error", "message"),
    [
        ([1.0], 8, TypeError, "values must be integers, not float64"),
        ([1], 0, ValueError, "width must be between 1 and 64, not 0"),
        ([1], 65, ValueError, "width must be between 1 and 64, not 65"),
        ([3, 256], 8, ValueError, "values must fit in 8 bits, not 3 to 256"),
        ([-129, 0], 8, ValueError, "values must fit in 8 bits, not -129 to 0"),
        ([2], 1, ValueError, "values must fit in 1 bits, not 2 to 2"),
    ],
)
def test_pack_refuses(values, width, error, message):
    with pytest.raises(error, match=message):
        pack(values, width)


def test_unpack_refuses():
    with pytest.raises(ValueError, match="words must have 1 to 63 rows, not 64"):
        unpack(np.zeros((64, 1), np.uint64), 3)
    with pytest.raises(ValueError, match="words must have 1 to 64 rows, not 65"):
        unpack(np.zeros((65, 1), np.uint64), 3, signed=True)
    with pytest.raises(ValueError, match="lanes must be between 0 and 128, not 129"):
        unpack(np.zeros((3, 2), np.uint64), 129)


# --- against Icarus ------------------------------------------------------------------------------


def icarus_values(netlist, inputs, tmp_path):
    """Settled value of every net of one lane, cycle by cycle, the reset state first.

    The event-driven simulator passes through glitches of zero width, as order would have it; only
    what every net has settled to when the clock is about to rise is printed.
    """
    lines = [cell_models(netlist.library, netlist.cells_by_type), "module bench;"]
    for number in range(2, netlist.net_count):
        driven = netlist.drivers[number] is not None
        lines.append(f"{'wire' if driven else 'reg'} n{number}{'' if driven else ' = 0'};")
    lines += ["wire n0 = 1'b0, n1 = 1'b1;"]
    for index, instance in enumerate(netlist.instances):
        pins = instance.inputs | instance.outputs
        connections = ", ".join(f".{pin}(n{number})" for pin, number in pins.items())
        lines.append(f"{instance.type} u{index} ({connections});")
    everything = ", ".join(f"n{number}" for number in range(netlist.net_count))
    lines += ["initial begin", f'#1 $display("%b", {{{everything}}});']
    clock = netlist.clock
    for cycle in range(len(next(iter(inputs.values())))):
        for name, values in inputs.items():
            nets = netlist.ports[name].nets
            value = int(values[cycle]) % (1 << len(nets))
            bits = ", ".join(f"n{number}" for number in reversed(nets))
            lines.append(f"{{{bits}}} = {len(nets)}'d{value};")
        lines.append(f'#1 $display("%b", {{{everything}}});')
        if clock is not None:
            lines.append(f"n{clock} = 1; #1 n{clock} = 0;")
    lines += ["end", "endmodule"]
    source, program = tmp_path / "bench.v", tmp_path / "bench.vvp"
    source.write_text("\n".join(lines))
    subprocess.run(["iverilog", "-g2005", "-o", program, source], check=True, timeout=120)
    printed = subprocess.run(
        ["vvp", "-N", program], check=True, timeout=120, capture_output=True, text=True
    ).stdout
    rows = re.findall(r"^[01xz]+$", printed, re.M)
    assert not set("".join(rows)) - {"0", "1"}
    return np.array([[int(value) for value in row] for row in rows])


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


@needs_icarus
@pytest.mark.parametrize("recipe", ["default", "plain"])
@pytest.mark.parametrize(
    "source",
    [MULTIPLIER, MAC, CONSTANTS, CONTROLLED],
    ids=["multiplier", "mac", "constants", "controlled"],
)
def test_toggles_of_every_net(source, recipe, netlist_of, tmp_path, monkeypatch):
    """Lanes that do not fill a word, each simulated by itself in Icarus.

    Operations are done one by one, and those that do not wait for one another together.
    """
    netlist = netlist_of(source, recipe=recipe)
    lanes, cycles = 3, 60
    inputs = random_inputs(netlist, np.random.default_rng(7), cycles, lanes)
    activities, settled = [], []
    for least in (10**6, 0):
        monkeypatch.setattr(activity, "MANY_OPERATIONS", least)
        simulator = Simulator(netlist, lanes)
        for cycle in range(cycles):
            simulator.step(
                {
                    name: pack(values[cycle], len(netlist.ports[name].nets))
                    for name, values in inputs.items()
                }
            )
            settled.append((cycle, {name: simulator.settled(name) for name in netlist.ports}))
        activities.append(simulator.activity())

    expected = np.zeros(netlist.net_count, np.int64)
    for lane in range(lanes):
        values = icarus_values(
            netlist, {name: each[:, lane] for name, each in inputs.items()}, tmp_path
        )
        assert len(values) == cycles + 1
        expected += (values[1:] != values[:-1]).sum(axis=0)
        for cycle, words in settled:
            for name, port in netlist.ports.items():
                mine = unpack(words[name], lanes)[lane]
                assert mine == sum(values[cycle + 1][net] << k for k, net in enumerate(port.nets))
    if netlist.clock is not None:
        expected[netlist.clock] = 2 * lanes * cycles
    for found in activities:
        np.testing.assert_array_equal(found.toggles, expected[None])
        assert found.lane_cycles.tolist() == [lanes * cycles]
        assert found.annotated.all()
    # The comparison means little if nothing moves.
    moving = [net for net in range(2, netlist.net_count) if netlist.sinks[net]]
    assert (expected[moving] > 0).mean() > 0.9


# --- against integers ----------------------------------------------------------------------------


def test_multiply_accumulate(netlist_of):
    """More words than one block, and a last word that is not full."""
    lanes = 64 * 600 + 17
    netlist = netlist_of(MAC)
    simulator = Simulator(netlist, lanes)
    generator = np.random.default_rng(3)
    a, b = generator.integers(-128, 128, (2, 9, lanes))
    clear = (generator.random((9, lanes)) < 0.3).astype(np.int64)
    expected = np.zeros(lanes, np.int64)
    x = y = np.zeros(lanes, np.int64)
    for cycle in range(9):
        simulator.step(
            {"a": pack(a[cycle], 8), "b": pack(b[cycle], 8), "clear": pack(clear[cycle], 1)}
        )
        expected = np.where(clear[cycle], 0, expected) + x * y
        x, y = a[cycle], b[cycle]
        sums = unpack(simulator.state("acc"), lanes, signed=True)
        np.testing.assert_array_equal(sums, expected)
    np.testing.assert_array_equal(unpack(simulator.settled("a"), lanes, signed=True), a[-1])
    # Registers toggle when their values change, counted here lane by lane.
    activity = simulator.activity()
    stored = np.concatenate([np.zeros((1, lanes), np.int64), a[:-1]])
    changed = (stored[1:] ^ stored[:-1]) & 255
    for k, net in enumerate(netlist.ports["x"].nets):
        assert activity.toggles[0, net] == (changed >> k & 1).sum()


def test_lanes_feed_one_another(netlist_of):
    """A systolic row: each unit passes its operand to the next one."""
    netlist = netlist_of(MAC)
    lanes, cycles = 70, 90
    simulator = Simulator(netlist, lanes)
    entering = np.random.default_rng(5).integers(-128, 128, cycles)

    for value in entering:

        def inputs(own, value=value):
            passed = unpack(own.state("x"), lanes, signed=True)
            return {
                "a": pack(np.concatenate([[value], passed[:-1]]), 8),
                "b": pack(np.full(lanes, 1), 8),
            }

        simulator.step(inputs)
    # The operand of cycle t is in unit n from cycle t + n + 1 on, and in its sum one later.
    sums = unpack(simulator.state("acc"), lanes, signed=True)
    expected = [entering[: max(cycles - 1 - lane, 0)].sum() for lane in range(lanes)]
    np.testing.assert_array_equal(sums, expected)


def test_inputs_left_out_keep_their_values(netlist_of):
    netlist = netlist_of(MAC)
    simulator = Simulator(netlist, 1)
    for inputs in ({"a": pack([3], 8)}, {"b": pack([5], 8)}, {}, {"a": pack([-1], 8)}, {}):
        simulator.step(inputs)
    # Sums of the products that stood in the registers: 0, 3 * 0, 3 * 5, 3 * 5, -1 * 5.
    assert unpack(simulator.state("acc"), 1, signed=True).tolist() == [0 + 0 + 15 + 15 - 5]
    simulator.step({})
    assert unpack(simulator.state("acc"), 1, signed=True).tolist() == [25 - 5]


def test_reset(netlist_of):
    netlist = netlist_of(MAC)
    simulator = Simulator(netlist, 64)
    results = []
    for _ in range(2):
        for value in (7, -7, 100):
            simulator.step({"a": pack(np.full(64, value), 8), "b": pack(np.full(64, value), 8)})
        results.append((simulator.activity(), simulator.state("acc")))
        simulator.reset()
        assert not simulator.activity().toggles.any()
        assert not simulator.activity().lane_cycles.any()
    np.testing.assert_array_equal(results[0][0].toggles, results[1][0].toggles)
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert results[0][0].toggles.any()


def test_toggles_add_up_over_groups_words_and_lanes(netlist_of):
    """One simulation of groups counts what simulations of their lanes count."""
    netlist = netlist_of(MAC)
    lanes, cycles = 5 * 64 - 9, 17
    generator = np.random.default_rng(11)
    a, b = generator.integers(-128, 128, (2, cycles, lanes))
    groups = np.array([0, 0, 1, 3, 3])

    def run(lane_slice, **options):
        simulator = Simulator(netlist, len(range(lanes)[lane_slice]), **options)
        for x, y in zip(a, b, strict=True):
            simulator.step({"a": pack(x[lane_slice], 8), "b": pack(y[lane_slice], 8)})
        return simulator.activity()

    together = run(slice(None), word_groups=groups)
    assert together.toggles.shape == (4, netlist.net_count)
    assert together.lane_cycles.tolist() == [128 * cycles, 64 * cycles, 0, (128 - 9) * cycles]
    for group, lane_slice in ((0, slice(0, 128)), (1, slice(128, 192)), (3, slice(192, None))):
        np.testing.assert_array_equal(together.toggles[group], run(lane_slice).toggles[0])
    assert not together.toggles[2].any()
    np.testing.assert_array_equal(together.toggles.sum(axis=0), run(slice(None)).toggles[0])
    np.testing.assert_allclose(together.rates[1], together.toggles[1] / (64 * cycles), rtol=1e-15)
    assert not together.rates[2].any()


def test_only_counted_lanes_count(netlist_of):
    netlist = netlist_of(MAC)
    generator = np.random.default_rng(12)
    a, b = generator.integers(-128, 128, (2, 10, 100))
    chosen = generator.random(100) < 0.4
    some = Simulator(netlist, 100, counted=pack(chosen, 1)[0])
    few = Simulator(netlist, int(chosen.sum()))
    for x, y in zip(a, b, strict=True):
        some.step({"a": pack(x, 8), "b": pack(y, 8)})
        few.step({"a": pack(x[chosen], 8), "b": pack(y[chosen], 8)})
    np.testing.assert_array_equal(some.activity().toggles, few.activity().toggles)
    assert some.activity().lane_cycles.tolist() == [10 * chosen.sum()]


def test_combinational_netlist_has_no_clock(netlist_of):
    netlist = netlist_of(MULTIPLIER)
    assert netlist.clock is None
    simulator = Simulator(netlist, 1 << 13)
    values = np.arange(1 << 13)
    a, b = (values & 63) - 32, (values >> 6) - 64
    simulator.step({"a": pack(a, 6), "b": pack(b, 7)})
    np.testing.assert_array_equal(unpack(simulator.settled("y"), 1 << 13, signed=True), a * b)


def test_constants_have_no_activity(netlist_of):
    netlist = netlist_of(CONSTANTS)
    simulator = Simulator(netlist, 64)
    for seed in range(20):
        simulator.step({"a": pack(np.random.default_rng(seed).integers(0, 16, 64), 4)})
    toggles = simulator.activity().toggles[0]
    assert toggles[[CONSTANT_0, CONSTANT_1]].tolist() == [0, 0]
    (one,) = netlist.ports["one"].nets
    assert toggles[one] == 0
    assert unpack(simulator.settled("one"), 64).tolist() == [1] * 64


def test_every_lane_toggles_every_cycle(netlist_of):
    """The most that the counters of one word ever have to hold."""
    netlist = netlist_of(MAC)
    simulator = Simulator(netlist, 64)
    for cycle in range(25):
        simulator.step({"a": pack(np.full(64, -1 if cycle % 2 == 0 else 0), 8)})
    toggles = simulator.activity().toggles[0]
    assert toggles[list(netlist.ports["a"].nets)].tolist() == [64 * 25] * 8
    assert toggles[list(netlist.ports["x"].nets)].tolist() == [64 * 24] * 8


# --- cells that mapping does not produce ---------------------------------------------------------


def flip_flop(name, next_state):
    """A cell of clock C, output Q, and inputs from the letters of its next state."""
    function = Function(next_state)
    names = ["C", *(pin for pin in function.inputs if pin != "IQ")]
    pins = {pin: Pin(name=pin, direction="input", is_clock=pin == "C") for pin in names}
    ff = FlipFlop(
        clock="C",
        clock_edge="rising",
        next_state=function,
        state="IQ",
        inverted_state="IQN",
    )
    pins["Q"] = Pin(name="Q", direction="output", function=Function("IQ"))
    return Cell(name=name, area_um2=1.0, leakage_nw=0.0, pins=pins, ff=ff)


def hand_netlist(library, cells, inputs, outputs):
    """A netlist of ``name: (type, pin=bit)``; bit 2 is the clock."""
    module = hand_module(cells, {"clk": [2], "a": inputs}, {"y": outputs})
    return Netlist(hand_mapped(module), library)


def test_flip_flops_that_compute_their_next_state(library):
    """Enables, and next states that are parts of one another."""
    cells = [
        flip_flop("HOLD", "(E & D) | (!E & IQ)"),
        flip_flop("BOTH", "D & E"),
        flip_flop("NEITHER", "!(D & E)"),
        flip_flop("ALL", "D & E & F"),
    ]
    own = replace(library, cells=library.cells | {cell.name: cell for cell in cells})
    pins = {"D": 3, "E": 4, "F": 5, "C": 2}
    netlist = hand_netlist(
        own,
        {
            cell.name: (
                cell.name,
                {pin: bit for pin, bit in pins.items() if pin in cell.pins} | {"Q": 10 + index},
            )
            for index, cell in enumerate(cells)
        },
        [3, 4, 5],
        [10, 11, 12, 13],
    )
    simulator = Simulator(netlist, 100)
    hold = np.zeros(100, np.int64)
    for values in np.random.default_rng(9).integers(0, 8, (20, 100)):
        simulator.step({"a": pack(values, 3)})
        d, e, f = values & 1, values >> 1 & 1, values >> 2
        hold = np.where(e, d, hold)
        expected = hold | (d & e) << 1 | (1 - (d & e)) << 2 | (d & e & f) << 3
        np.testing.assert_array_equal(unpack(simulator.state("y"), 100), expected)


def test_gate_of_a_net_and_itself(library):
    """Inputs that are equal, or complements."""
    netlist = hand_netlist(
        library,
        {
            "bar": ("INV_X1", {"A": 3, "ZN": 4}),
            "equal": ("XOR2_X1", {"A": 3, "B": 3, "Z": 10}),
            "other": ("XOR2_X1", {"A": 3, "B": 4, "Z": 11}),
            "never": ("AND2_X1", {"A1": 3, "A2": 4, "ZN": 12}),
            "always": ("OR2_X1", {"A1": 3, "A2": 4, "ZN": 13}),
            "same": ("NAND2_X1", {"A1": 3, "A2": 3, "ZN": 14}),
            "tied": ("AND2_X1", {"A1": 3, "A2": "1", "ZN": 15}),
            "low": ("NOR2_X1", {"A1": 3, "A2": "1", "ZN": 16}),
        },
        [3],
        [10, 11, 12, 13, 14, 15, 16],
    )
    simulator = Simulator(netlist, 2)
    simulator.step({"a": pack([0, 1], 1)})
    assert unpack(simulator.settled("y"), 2).tolist() == [0b0011010, 0b0101010]


# --- what is refused -----------------------------------------------------------------------------


def test_bad_inputs(netlist_of):
    netlist = netlist_of(MAC)
    simulator = Simulator(netlist, 100)
    with pytest.raises(ValueError, match="input must be one of clear, a, b, not 'c'"):
        simulator.step({"c": pack([1], 8)})
    with pytest.raises(ValueError, match="input must be one of clear, a, b, not 'clk'"):
        simulator.step({"clk": pack([1], 1)})
    for width, lanes in ((8, 64), (7, 100)):
        with pytest.raises(ValueError, match=r"input a must have shape \(8, 2\), not"):
            simulator.step({"a": pack(np.zeros(lanes, np.int64), width)})


def test_state_is_of_registers_only(netlist_of):
    simulator = Simulator(netlist_of(CONSTANTS), 1)
    simulator.step({})
    with pytest.raises(ValueError, match="state must be asked of register outputs, not of 'y'"):
        simulator.state("y")
    with pytest.raises(ValueError, match="not of 'a', whose bit a"):
        simulator.state("a")
    with pytest.raises(ValueError, match="not 'nothing'"):
        simulator.settled("nothing")


@pytest.mark.parametrize(
    ("lanes", "options", "message"),
    [
        (0, {}, "lanes must be at least 1, not 0"),
        (65, {"word_groups": [0]}, r"one entry for each of 2 words, not shape \(1,\)"),
        (65, {"word_groups": [1, 0]}, "word_groups must be 0 or more and not decreasing"),
        (65, {"word_groups": [-1, 0]}, "word_groups must be 0 or more and not decreasing"),
        (
            65,
            {"counted": np.zeros(1, np.uint64)},
            r"counted must be 2 words of uint64, not uint64 of shape \(1,\)",
        ),
        (65, {"counted": np.zeros(2, bool)}, "counted must be 2 words of uint64, not bool"),
    ],
)
def test_bad_simulator(lanes, options, message, netlist_of):
    with pytest.raises(ValueError, match=message):
        Simulator(netlist_of(MULTIPLIER), lanes, **options)


def test_black_box_cannot_be_simulated(netlist_of):
    netlist = netlist_of(
        "module top(input a, output y); part p(.a(a), .y(y)); endmodule",
        blackboxes={"part": "module part(input a, output y); endmodule"},
    )
    with pytest.raises(ValueError, match="top must hold library cells only, not p of type part"):
        Simulator(netlist, 1)


def test_state_of_flip_flops_with_inverted_outputs(tmp_path):
    """As ASAP7's smaller ones have alone; the register itself is behind an inverter."""
    library = load("asap7")
    cell = library.cells["DFFHQx4_ASAP7_75t_R"]
    inverted = replace(cell.pins["Q"], function=Function(cell.ff.inverted_state))
    cells = library.cells | {cell.name: replace(cell, pins=cell.pins | {"Q": inverted})}
    del cells["DFFASRHQNx1_ASAP7_75t_R"]
    library = replace(library, cells=cells)
    source = (
        "module t(input clk, input [3:0] a, output reg [3:0] y);"
        "always @(posedge clk) y <= a; endmodule"
    )
    mapped = map_netlist(source, "t", library, cache=Cache(tmp_path))
    assert mapped.cells_by_type[cell.name] == 4
    simulator = Simulator(Netlist(mapped, library), 16)
    simulator.step({"a": pack(np.arange(16), 4)})
    np.testing.assert_array_equal(unpack(simulator.state("y"), 16), np.arange(16))
