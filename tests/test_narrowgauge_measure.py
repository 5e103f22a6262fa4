"""``narrowgauge measure``: stimuli, figures of foreign designs, and the command."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from golden.formats import parse
from narrowgauge import catalogue, stimuli
from narrowgauge import measure as measuring
from narrowgauge.cli import main
from narrowgauge.forms import load_form, require_form
from narrowgauge.measure import Settings, bench, measure, simulate
from narrowgauge.stimuli import Distribution, Stimuli, Stream, load_stimuli, random_stimuli
from synth.activity import Simulator, pack
from synth.delays import library_delays, unit_delays
from synth.energy import EnergyModel
from synth.foreign import ForeignDesign, ForeignPort, read_foreign
from synth.glitches import GlitchSimulator
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.units import map_modules
from synth.verilog import to_verilog
from synth.yosys import map_netlist
from tests.tiny_liberty import BASICS, liberty

#: A clocked design whose every output bit is easily computed.
PIPE = """module pipe(input clk, input rst_n, input hold, input [3:0] a, b, output reg [3:0] y);
  always @(posedge clk or negedge rst_n)
    if (!rst_n) y <= 4'd0;
    else if (!hold) y <= a ^ b;
endmodule
"""
MULTIPLY = "module multiply(input [3:0] a, b, output [7:0] y); assign y = a * b; endmodule\n"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARROWGAUGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Make a file of a text and read it."""

    def read(text, **options):
        path = tmp_path_factory.mktemp("source") / "design.v"
        path.write_text(text)
        return read_foreign([path], re.search(r"module (\w+)", text)[1], **options)

    return read


@pytest.fixture(scope="module")
def pipe(source):
    return source(PIPE)


@pytest.fixture(scope="module")
def multiply(source):
    return source(MULTIPLY)


def mapped(design, library, clock_gating=None):
    found = map_netlist(
        design.verilog, design.top, library, clock_ns=2.0, clock_gating=clock_gating
    )
    return Netlist(found, library)


def rows(**ports):
    """Stimuli of one stream."""
    arrays = {name: np.array(values)[None, :, None] for name, (values, _) in ports.items()}
    return Stimuli(
        streams=1,
        cycles=next(iter(arrays.values())).shape[1],
        ports={name: Stream(arrays[name], bits) for name, (_, bits) in ports.items()},
    )


def port_toggles(activity, netlist, name):
    return int(activity.toggles[0, list(netlist.ports[name].nets)].sum())


def changes(values):
    """Bits that change from one value to the next, the first one from 0."""
    return sum((int(b) ^ int(a)).bit_count() for a, b in zip([0, *values], values, strict=False))


# Stimuli.


class TestDistribution:
    @pytest.mark.parametrize("text", ["uniform", "normal", "sparse:4", "counter:8"])
    def test_text(self, text):
        assert str(Distribution.parse(text)) == text

    def test_uniform(self):
        numbers = Distribution().draw("p", 5, 50, 400, 1).numbers
        assert numbers.shape == (50, 400, 1)
        counts = np.bincount(numbers.ravel().astype(int), minlength=32)
        assert len(counts) == 32
        assert (abs(counts - 625) < 5 * 25).all()

    def test_full_range(self):
        wide = Distribution().draw("p", 64, 1, 1000, 1).numbers
        assert int(wide.max()) > 0.99 * 2**64
        assert int(wide.min()) < 0.01 * 2**64

    def test_normal(self):
        numbers = Distribution.parse("normal").draw("p", 8, 100, 4000, 1).numbers
        assert abs(numbers.mean()) < 0.2
        assert numbers.std() == pytest.approx(127 / 4, rel=0.01)
        # Some dozen of so many are cut off.
        assert (numbers.min(), numbers.max()) == (-128, 127)
        one_bit = Distribution.parse("normal").draw("p", 1, 5, 40, 1).numbers
        assert set(one_bit.ravel().tolist()) == {-1, 0}

    def test_sparse(self):
        numbers = Distribution.parse("sparse:4").draw("p", 8, 50, 400, 1).numbers
        assert numbers.shape == (50, 400, 2)
        # Half of them, and of the others each sixteenth.
        assert (numbers == 0).mean() == pytest.approx(0.5 + 0.5 / 16, abs=0.01)
        assert numbers.max() == 15

    def test_counter(self):
        numbers = Distribution.parse("counter").draw("p", 3, 4, 20, 1).numbers[:, :, 0]
        assert (np.diff(numbers.astype(int), axis=1) % 8 == 1).all()
        assert len(set(numbers[:, 0].tolist())) > 1

    def test_seeds_and_ports(self):
        def draw(port, seed):
            return Distribution().draw(port, 8, 1, 50, seed).numbers.tolist()

        assert draw("a", 1) == draw("a", 1)
        assert draw("a", 1) != draw("a", 2)
        assert draw("a", 1) != draw("b", 1)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("even", "distribution must be one of uniform, normal, sparse, counter, not 'even'"),
            ("uniform:", "distribution must be NAME or NAME:BITS, not 'uniform:'"),
            ("uniform:0", "between 1 and 64 for distribution uniform, not 0"),
            ("normal:54", "between 1 and 53 for distribution normal, not 54"),
        ],
    )
    def test_bad_text(self, text, message):
        with pytest.raises(ValueError, match=message):
            Distribution.parse(text)

    @pytest.mark.parametrize(
        ("text", "width", "message"),
        [
            ("sparse:3", 8, "bits of a number must divide the 8 bits of port p, not be 3"),
            ("sparse", 65, "must state the bits of a number, as in sparse:8, for port p of 65"),
            ("normal", 54, "must state the bits of a number, as in normal:8, for port p of 54"),
        ],
    )
    def test_unsuited_port(self, text, width, message):
        with pytest.raises(ValueError, match=message):
            Distribution.parse(text).draw("p", width, 1, 1, 1)

    def test_wide_port(self):
        stream = Distribution().draw("p", 100, 2, 3, 1)
        assert (stream.numbers.shape, stream.bits) == ((2, 3, 100), 1)

    def test_too_many(self):
        with pytest.raises(
            ValueError, match=r"must be at most 67108864 for all ports, not 71000000"
        ):
            random_stimuli({"p": 70}, streams=1000, cycles=1000, seed=1, default=Distribution())


def test_constant():
    stream = Stream.constant("p", -2, 70).spread(2, 3)
    assert stream.numbers.shape == (2, 3, 70)
    assert stream.words(0, 3)[2, :, 0].tolist() == [0, *[3] * 69]
    for value in (16, -9):
        with pytest.raises(
            ValueError, match=rf"value of port p must fit in 4 bits, not be {value}"
        ):
            Stream.constant("p", value, 4)


class TestStimuliFile:
    WIDTHS = {"a": 8, "wide": 96}

    def load(self, path, widths=None, **arrays):
        streams = arrays.pop("streams", 1)
        np.savez(path / "s.npz", **arrays)
        return load_stimuli(path / "s.npz", widths or self.WIDTHS, streams=streams)

    def test_rows(self, tmp_path):
        wide = np.arange(12).reshape(4, 3) - 6
        found = self.load(tmp_path, a=np.array([1, -1, 255, 0]), wide=wide, streams=2)
        assert (found.streams, found.cycles) == (2, 2)
        words = found.ports["a"].words(0, 2)
        assert words[:, :, 0].tolist() == [[3, *[2] * 7], [1, *[1] * 7]]
        # Numbers of 32 bits, the first one lowest.
        words = found.ports["wide"].words(0, 1)[0, :, 0]
        for stream, row in ((0, wide[0]), (1, wide[2])):
            expected = sum((int(n) & 0xFFFFFFFF) << 32 * i for i, n in enumerate(row))
            bits = (int(word) >> stream & 1 for word in words)
            assert sum(bit << i for i, bit in enumerate(bits)) == expected

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"a": [1]}, "must have an array for each input, but lack wide"),
            (
                {"a": [1], "b": [1]},
                "must have arrays named a, wide only, not 'b'",
            ),
            (
                {"a": [1, 2], "wide": [[1, 2]]},
                "same number of rows, .*, not 2 for a and 1 for wide",
            ),
            ({"a": [], "wide": [[1, 2]]}, "at least 1, for all ports, not 0 for a and 0 for a"),
            ({"a": 5, "wide": [[1, 2]]}, "not 0 for a and 0 for a"),
            ({"a": [1.5], "wide": [[1, 2]]}, "stimuli of a must be integers, not float64"),
            ({"a": [256], "wide": [[1, 2]]}, "stimuli of a must fit in 8 bits, not be 256 to 256"),
            ({"a": [-129], "wide": [[1, 2]]}, "a must fit in 8 bits, not be -129 to -129"),
            ({"a": [1], "wide": [1]}, "wide, a port of 96 bits, must have equal numbers of at"),
            ({"a": [[1, 2, 3]], "wide": [[1, 2]]}, "a, a port of 8 bits, .* each row, not 3"),
            ({"a": np.zeros((1, 0), int), "wide": [[1, 2]]}, "in each row, not 0"),
            ({"a": [[[1]]], "wide": [[1, 2]]}, r"\[cycles, numbers\], not \[1, 1, 1\]"),
            (
                {"a": [1, 2, 3], "wide": [[1, 2]] * 3, "streams": 2},
                "streams must divide the 3 rows of the stimuli, not be 2",
            ),
        ],
    )
    def test_bad_arrays(self, tmp_path, arrays, message):
        with pytest.raises(ValueError, match=message):
            self.load(tmp_path, **arrays)

    def test_no_port_left(self, tmp_path):
        np.savez(tmp_path / "s.npz")
        with pytest.raises(ValueError, match="must have an array for an input, but all inputs"):
            load_stimuli(tmp_path / "s.npz", {})

    def test_pickled(self, tmp_path):
        with pytest.raises(ValueError, match=r"without pickled objects, not .* \(Object arrays"):
            self.load(tmp_path, a=np.array([None]), wide=np.array([[1, 2]]))

    def test_damaged(self, tmp_path):
        path = tmp_path / "s.npz"
        for data in (b"", b"PK\3\4 nothing", b"\x93NUMPY"):
            path.write_bytes(data)
            with pytest.raises(ValueError, match=r"must be a whole \.npz file"):
                load_stimuli(path, self.WIDTHS)
        with pytest.raises(ValueError, match=r"readable file, not .*gone.* \(No such file"):
            load_stimuli(tmp_path / "gone.npz", self.WIDTHS)

    def test_large(self, tmp_path, monkeypatch):
        monkeypatch.setattr(stimuli, "MAX_NUMBERS", 100)
        with pytest.raises(ValueError, match=r"\(larger than 0 MB\)"):
            self.load(tmp_path, a=np.zeros(200, int), wide=np.zeros((200, 2), int))


# Roles of inputs.


DESIGN = ForeignDesign(
    top="top",
    verilog="",
    ports=tuple(
        ForeignPort(name=name, direction=direction, width=width)
        for name, direction, width in [
            ("clk", "input", 1),
            ("rst_n", "input", 1),
            ("clear", "input", 1),
            ("x", "input", 4),
            ("y", "output", 4),
        ]
    ),
    clock="clk",
    falling_edge=False,
    resets={"rst_n": 0},
)


def test_roles():
    found = bench(DESIGN)
    assert (found.clock, found.resets, found.constants) == ("clk", {"rst_n": 0}, {})
    assert found.widths == {"clear": 1, "x": 4}
    found = bench(DESIGN, clock="clk", resets={"clear": None}, constants={"x": -1})
    assert found.resets == {"rst_n": 0, "clear": 1}
    assert list(found.constants) == ["x"]
    assert found.widths == {}
    assert bench(DESIGN, resets={"rst_n": None}).resets == {"rst_n": 0}
    assert bench(DESIGN, resets={"rst_n": 1}).resets == {"rst_n": 1}
    # What has values of its own is no reset.
    assert bench(DESIGN, driven=["rst_n"]).widths == {"rst_n": 1, "clear": 1, "x": 4}
    assert bench(DESIGN, constants={"rst_n": 1}).resets == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clock": "x"}, "clock must be the port that clocks the flip-flops, clk, not 'x'"),
        ({"clock": "q"}, r"clock must be of an input of top \(clk, rst_n, clear, x\), not 'q'"),
        ({"resets": {"y": 1}}, "reset must be of an input of top .*, not 'y'"),
        ({"constants": {"q": 1}}, "value must be of an input of top .*, not 'q'"),
        ({"driven": ["q"]}, "stimuli must be of an input of top .*, not 'q'"),
        ({"resets": {"clk": 1}}, "reset must not be of clk, which is the clock"),
        ({"resets": {"x": 1}}, "reset x must be a port of one bit, not of 4"),
        (
            {"resets": {"clear": 1}, "constants": {"clear": 1}},
            "clear must be a reset or have values of its own, not both",
        ),
        ({"constants": {"x": 1}, "driven": ["x"]}, "x must have one value or stimuli, not both"),
        ({"constants": {"x": 16}}, "value of port x must fit in 4 bits, not be 16"),
    ],
)
def test_bad_roles(options, message):
    with pytest.raises(ValueError, match=message):
        bench(DESIGN, **options)


def test_clock_of_a_combinational_design(multiply):
    with pytest.raises(ValueError, match="must be left out for a design without flip-flops, not"):
        bench(multiply, clock="a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clock_ns": 0}, "clock_ns must be positive, not 0"),
        ({"operations": -1}, "operations must be positive, not -1"),
        ({"macs": 0}, "macs must be positive, not 0"),
        ({"hierarchy": 0}, "hierarchy must be at least 1, not 0"),
        ({"timeout_s": 0}, "timeout_s must be positive, not 0"),
        ({"reset_cycles": 0}, "reset_cycles must be at least 1, not 0"),
        ({"delays": "some"}, "delays must be one of none, unit, library, not 'some'"),
        (
            {"hierarchy": 2, "clock_gating": 4},
            "clock_gating must be left out with a hierarchy, not 4",
        ),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)


# Activity and energy.


@pytest.mark.parametrize("clock_gating", [None, 4])
def test_clocked_design(pipe, library, clock_gating):
    """Toggles of the ports by hand; the reset and its cycles do not count, its end does."""
    netlist = mapped(pipe, library, clock_gating)
    assert len(netlist.clock_gates) == (clock_gating is not None)
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 16, (2, 700))
    hold = rng.integers(0, 2, 700)
    activity = simulate(netlist, bench(pipe), rows(a=(a, 4), b=(b, 4), hold=(hold, 1)), 4)
    state, states = 0, []
    for held, value in zip(hold.tolist(), (a ^ b).tolist(), strict=True):
        states.append(state)
        state = state if held else value
    assert port_toggles(activity, netlist, "y") == changes(states)
    assert port_toggles(activity, netlist, "a") == changes(a)
    assert port_toggles(activity, netlist, "rst_n") == 1
    assert port_toggles(activity, netlist, "clk") == 2 * 700
    assert activity.lane_cycles.tolist() == [700]
    assert activity.annotated.all()


def test_clock_gates(source, library):
    """A word that is loaded every other cycle: its clock costs half, and its gate."""
    text = """module word(input clk, load, input [15:0] d, output reg [15:0] q);
      always @(posedge clk) if (load) q <= d;
    endmodule"""
    design = source(text)
    values = np.random.default_rng(3).integers(0, 1 << 16, 400)
    stimuli = rows(load=(np.arange(400) % 2, 1), d=(values, 16))
    results = {
        fewest: measure(design, bench(design), stimuli, library, Settings(clock_gating=fewest))[0]
        for fewest in (None, 16, 17)
    }
    assert [results[fewest]["clock_gates"] for fewest in results] == [0, 1, 0]
    assert [results[fewest]["clock_gating"] for fewest in results] == [None, 16, 17]
    plain, gated = results[None], results[16]
    gate = library.clock_gates[0]
    assert gated["area_breakdown_um2"]["clock"] == pytest.approx(gate.area_um2)
    # Without its multiplexers, nothing but the register and its gate is left.
    assert gated["area_breakdown_um2"]["logic"] == 0
    assert gated["area_um2"] < plain["area_um2"]
    clocks = [result["energy_breakdown_pj"]["clock"] for result in (plain, gated)]
    assert 0.5 < clocks[1] / clocks[0] < 0.7


def test_states(multiply, library):
    """Leakage by hand where nothing moves: that of the one state that each cell is in."""
    found = bench(multiply)
    stimuli = rows(a=([5] * 200, 4), b=([9] * 200, 4))
    by_state, means = (
        measure(multiply, found, stimuli, library, Settings(states=states))[0]
        for states in (True, False)
    )
    assert (by_state["states"], means["states"]) == (True, False)
    netlist = mapped(multiply, library)
    values = {0: 0, 1: 1}
    for name, number in (("a", 5), ("b", 9)):
        values |= {net: number >> k & 1 for k, net in enumerate(netlist.ports[name].nets)}
    leakage_nw = 0.0
    for index in netlist.order:
        instance = netlist.instances[index]
        pins = {pin: values[net] for pin, net in instance.inputs.items()}
        for pin, function in instance.cell.functions.items():
            pins[pin] = int(function.evaluate({k: np.uint64(v) for k, v in pins.items()})) & 1
            values[instance.outputs[pin]] = pins[pin]
        words = {pin: np.uint64(value) for pin, value in pins.items()}
        states = [power for when, power in instance.cell.leakage_states if when.evaluate(words) & 1]
        leakage_nw += states[0] if states else instance.cell.leakage_nw
    # 2 ns of so many nW, in pJ; the change to the first row is in the other energies.
    assert by_state["energy_breakdown_pj"]["leakage"] == pytest.approx(leakage_nw * 2e-6, rel=5e-3)
    assert means["energy_breakdown_pj"]["leakage"] != pytest.approx(leakage_nw * 2e-6, rel=2e-2)


def test_streams_start_from_reset(pipe, library):
    netlist = mapped(pipe, library)
    b = np.zeros((3, 5, 1), int)
    a = np.array([[1, 2, 3, 4, 5], [15, 0, 15, 0, 15], [0, 0, 0, 0, 9]])[:, :, None]
    found = simulate(
        netlist,
        bench(pipe, constants={"hold": 0}),
        Stimuli(streams=3, cycles=5, ports={"a": Stream(a, 4), "b": Stream(b, 4)}),
        1,
    )
    # The last value of a stream is in no output any more.
    expected = sum(changes([0, *stream[:-1, 0]]) for stream in a)
    assert port_toggles(found, netlist, "y") == expected
    assert port_toggles(found, netlist, "rst_n") == 3
    assert found.lane_cycles.tolist() == [15]


def test_constant_during_reset(pipe, library):
    netlist = mapped(pipe, library)
    stimuli = rows(a=([1, 2], 4), b=([0, 0], 4))
    found = simulate(netlist, bench(pipe, constants={"hold": 1}), stimuli, 1)
    assert [port_toggles(found, netlist, name) for name in ("hold", "a", "y")] == [0, 3, 0]


@pytest.mark.parametrize("lanes", [1, 7, 4096])
@pytest.mark.parametrize(("streams", "cycles"), [(1, 300), (3, 10), (1, 1)])
def test_combinational_design(multiply, library, monkeypatch, lanes, streams, cycles):
    """However the rows are laid over lanes and chunks, each follows the one before."""
    monkeypatch.setattr(measuring, "LANES", lanes)
    monkeypatch.setattr(measuring, "CHUNK", 64)
    netlist = mapped(multiply, library)
    a, b = np.random.default_rng(4).integers(0, 16, (2, streams, cycles))
    ports = {"a": Stream(a[:, :, None], 4), "b": Stream(b[:, :, None], 4)}
    found = simulate(
        netlist, bench(multiply), Stimuli(streams=streams, cycles=cycles, ports=ports), 4
    )
    for name, values in (("a", a), ("y", a * b)):
        assert port_toggles(found, netlist, name) == sum(map(changes, values))
    assert found.lane_cycles.tolist() == [streams * cycles]


@pytest.mark.parametrize("kind", ["unit", "library"])
def test_glitches(multiply, library, monkeypatch, kind):
    """As of one lane from row to row, however the rows are laid over lanes."""
    unit = map_netlist(multiply.verilog, "multiply", library, clock_ns=2.0)
    netlist, timing = Netlist(unit, library), analyse(unit.module, library)
    a, b = np.random.default_rng(8).integers(0, 16, (2, 100))
    delays = {"unit": unit_delays(netlist), "library": library_delays(netlist, timing=timing)}
    one = GlitchSimulator(netlist, 1, delays[kind])
    for left, right in zip(a, b, strict=True):
        one.step({"a": pack([left], 4), "b": pack([right], 4)})
    monkeypatch.setattr(measuring, "LANES", 9)
    stimuli = rows(a=(a, 4), b=(b, 4))
    chosen = Settings(delays=kind).delays_of(netlist, timing)
    found = simulate(netlist, bench(multiply), stimuli, 4, delays=chosen)
    assert (found.toggles == one.activity().toggles).all()
    assert port_toggles(found, netlist, "y") > 1.05 * changes(a * b)


def test_glitches_of_a_clocked_design(pipe, library):
    """They cost energy, at the data inputs of registers too, but do not change their states."""
    stimuli = rows(a=([1, 6, 3, 5], 4), b=([2, 5, 1, 6], 4), hold=([0, 0, 1, 0], 1))
    plain, _ = measure(pipe, bench(pipe), stimuli, library, Settings())
    delayed, _ = measure(pipe, bench(pipe), stimuli, library, Settings(delays="unit"))
    assert (plain["delays"], delayed["delays"]) == ("none", "unit")
    before, after = (result["energy_breakdown_pj"] for result in (plain, delayed))
    assert after["logic"] > before["logic"]
    assert after["registers"] > before["registers"]
    assert after["clock"] == pytest.approx(before["clock"])


def test_constant_of_a_combinational_design(multiply, library):
    """It has its value from the start, so that it never toggles."""
    netlist = mapped(multiply, library)
    b = np.array([1, 0, 3])
    found = simulate(netlist, bench(multiply, constants={"a": 5}), rows(b=(b, 4)), 4)
    assert port_toggles(found, netlist, "a") == 0
    assert port_toggles(found, netlist, "y") == changes(5 * b)


def test_energy_by_hand(source, tmp_path):
    """An inverter of the hand-made library, whose units are 10 ps, 0.5 pF and 5 fJ; 11 V."""
    path = tmp_path / "tiny.lib"
    path.write_text(liberty(*BASICS))
    design = source("module invert(input a, output y); assign y = ~a; endmodule")
    stimuli = rows(a=([1, 1, 0, 1, 0, 0, 0, 1], 1))
    result, netlist = measure(
        design, bench(design), stimuli, load(path), Settings(clock_ns=3.0, operations=4)
    )
    slew = (5 - 1.92 / 2 + 7) / 2  # of a fan-out of four, see the tests of the library command
    pin_fj = 0.02 * 500 * 11**2 / 2
    inside_fj = 5 * ((slew + 1) + 1) / 2
    logic_pj = 5 / 8 * (pin_fj + inside_fj) / 1000
    leakage_pj = 4e-6 * 3.0
    assert result["energy_breakdown_pj"] == pytest.approx(
        {"logic": logic_pj, "clock": 0, "leakage": leakage_pj}
    )
    assert result["energy_per_cycle_pj"] == pytest.approx(logic_pj + leakage_pj)
    assert result["energy_per_operation_pj"] == pytest.approx((logic_pj + leakage_pj) / 4)
    assert result["power_uw"] == pytest.approx(1000 * (logic_pj + leakage_pj) / 3)
    assert result["leakage_uw"] == pytest.approx(0.004)
    assert result["area_um2"] == 2.5
    assert result["area_breakdown_um2"] == {"logic": 2.5, "registers": 0, "clock": 0}
    assert (result["cells"], result["flip_flops"], result["cycles"]) == (1, 0, 8)
    assert result["nets_annotated"] == 1
    assert netlist.cells_by_type == {"INV": 1}


def test_own_design_through_the_gauge(tmp_path, library):
    """Area and energy are those of our own path, to the last digit."""
    unit = catalogue.find("fixed-mac")
    own = to_verilog(unit.build(parse("fixed3"), catalogue.Options(length=4)))
    path = tmp_path / "own.v"
    path.write_text(own.text)
    design = read_foreign([path], own.top, reader="yosys")
    assert (design.clock, design.resets) == ("clk", {"rst": 1})
    roles = bench(design)
    drawn = random_stimuli(
        roles.widths, streams=70, cycles=30, seed=5, default=Distribution(name="normal")
    )
    result, _ = measure(design, roles, drawn, library, Settings(clock_ns=1.5))

    unit = map_modules(own, [own.top], library, clock_ns=1.5)[own.top]
    netlist = unit.netlist
    simulator = Simulator(netlist, 70)
    zeros, ones = (pack(np.full(70, level), 1) for level in (0, 1))
    for _ in range(4):
        simulator.step({"rst": ones})
    before = simulator.activity()
    for cycle in range(30):
        inputs = {
            name: pack(stream.numbers[:, cycle, 0], roles.widths[name])
            for name, stream in drawn.ports.items()
        }
        simulator.step(inputs | {"rst": zeros})
    classes = ["any"] * len(netlist.instances)
    model = EnergyModel(netlist, classes, clock_ns=1.5, timing=unit.timing)
    [energy] = model.measure(simulator.activity().since(before))
    assert result["area_um2"] == unit.mapped.area_um2
    assert result["cells_by_type"] == unit.mapped.cells_by_type
    assert result["critical_path_ns"] == unit.timing.critical_path_ns
    assert result["slack_ns"] == 1.5 - unit.timing.critical_path_ns
    assert result["energy_per_cycle_pj"] == pytest.approx(energy.total_pj / (70 * 30))
    for kind in ("clock", "leakage"):
        assert result["energy_breakdown_pj"][kind] == pytest.approx(energy.per(70 * 30)[kind])


TREE = """module half(input clk, input [3:0] a, output reg [3:0] q);
  always @(posedge clk) q <= ~a;
endmodule
module pair(input clk, input [3:0] a, b, output [3:0] y);
  wire [3:0] left, right;
  half u_left(.clk(clk), .a(a), .q(left));
  half u_right(.clk(clk), .a(b), .q(right));
  assign y = left ^ right;
endmodule
"""


def test_instances(tmp_path, library):
    """What they cost adds up, and the figures of the flat netlist are as they would be."""
    path = tmp_path / "tree.v"
    path.write_text(TREE)
    design = read_foreign([path], "pair", hierarchy=True)
    roles = bench(design)
    drawn = random_stimuli(roles.widths, streams=4, cycles=40, seed=2, default=Distribution())
    result, _ = measure(design, roles, drawn, library, Settings(hierarchy=1))
    flat, _ = measure(design, roles, drawn, library, Settings())
    tree = result.pop("hierarchy")
    assert flat.pop("hierarchy") is None
    assert result == flat
    entries = {entry["path"]: entry for entry in tree["instances"]}
    assert [(path, entry["module"]) for path, entry in sorted(entries.items())] == [
        ("", "pair"), ("u_left", "half"), ("u_right", "half"),
    ]  # fmt: skip
    assert [entries[path]["cells"] for path in ("", "u_left", "u_right")] == [4, 8, 8]
    assert [entries[path]["flip_flops"] for path in ("", "u_left", "u_right")] == [0, 4, 4]
    for name in ("area_um2", "cells", "leakage_uw", "energy_per_cycle_pj"):
        assert sum(entry[name] for entry in entries.values()) == pytest.approx(tree[name])
    for entry in entries.values():
        split = entry["energy_breakdown_pj"]
        assert sum(split.values()) == pytest.approx(entry["energy_per_cycle_pj"])
        assert split["leakage"] == pytest.approx(2 * entry["leakage_uw"] / 1000)
    # An exclusive or of each bit, and nothing that is clocked.
    assert entries[""]["energy_breakdown_pj"]["clock"] == 0
    assert entries[""]["area_um2"] == pytest.approx(4 * library.cells["XOR2_X1"].area_um2)
    left, right = (entries[path]["energy_breakdown_pj"] for path in ("u_left", "u_right"))
    assert left["clock"] > 10 * abs(left["clock"] - right["clock"])
    assert tree["same_outputs"] is True
    delayed, _ = measure(design, roles, drawn, library, Settings(hierarchy=1, delays="unit"))
    assert delayed["hierarchy"]["same_outputs"] is None

    path.write_text(TREE.replace("left ^ right", "left & right"))
    wrong = replace(design, modules=read_foreign([path], "pair", hierarchy=True).modules)
    result, _ = measure(wrong, roles, drawn, library, Settings(hierarchy=1))
    assert result["hierarchy"]["same_outputs"] is False
    assert result["notes"][-1].startswith("module by module, outputs toggle otherwise")


def test_nothing_left(source, library):
    design = source("module wire_only(input a, output y); assign y = a; endmodule")
    with pytest.raises(ValueError, match="wire_only must hold at least one cell, but maps to"):
        measure(design, bench(design), rows(a=([1], 1)), library, Settings())


@pytest.mark.parametrize("body", ["assign y = clk & a;", "assign y = clk;"])
def test_clock_that_is_data(source, library, body):
    design = source(
        "module both(input clk, a, output reg q, output y);"
        f"always @(posedge clk) q <= a; {body} endmodule"
    )
    with pytest.raises(ValueError, match="clock of both must clock flip-flops only, not be an"):
        measure(design, bench(design), rows(a=([1], 1)), library, Settings())


def test_reset_that_is_not_found(source, library):
    """It is a part of a condition; what nothing uses, and what is wider, is no matter."""
    design = source(
        "module some(input clk, rst, c, rst_unused, a, input [1:0] resets, output reg q);"
        "wire r = rst & c;"
        "always @(posedge clk or posedge r) if (r) q <= 0; else q <= a ^ resets[1]; endmodule"
    )
    roles = bench(design)
    stimuli = rows(**{name: ([1, 0], width) for name, width in roles.widths.items()})
    result, _ = measure(design, roles, stimuli, library, Settings())
    assert result["notes"] == [
        "no reset is known; registers start at 0",
        "rst has stimuli like data; --reset rst=LEVEL if it is a reset",
    ]


def test_flip_flops_that_vanish(source, library):
    """Only mapping finds out that this one does not matter."""
    design = source(
        "module still(input clk, a, output y); reg q; wire p = q ^ a;"
        "always @(posedge clk) q <= a; assign y = ~(p ^ q); endmodule"
    )
    assert design.clock == "clk"
    roles = bench(design)
    result, _ = measure(design, roles, rows(a=([1, 0], 1)), library, Settings())
    assert result["flip_flops"] == 0
    assert result["energy_breakdown_pj"]["clock"] == 0
    assert result["notes"] == ["no flip-flop is left after mapping"]


# The command.


def run(capsys, *arguments):
    assert main(["measure", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    assert main(["measure", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    return line.removeprefix("narrowgauge: error: ")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("pipe.v").write_text(PIPE)
    return tmp_path


def test_help(capsys):
    text = run(capsys, "--help")
    for option in ("--top", "--define", "--include", "--parameter", "--stimuli", "--distribution"):
        assert option in text
    assert "narrowgauge measure adder.v --top adder" in text
    assert max(map(len, text.splitlines())) <= 80


def test_table(capsys, folder):
    text = run(
        capsys, "pipe.v", "--top", "pipe", "--random", 50, "--streams", 3, "--set", "hold=0",
        "--operations", 4, "--macs", 2, "--distribution", "normal", "--distribution", "b=sparse:2",
        "--delays", "library",
    )  # fmt: skip
    assert max(map(len, text.splitlines())) <= 80
    for pattern in (
        r"^design +pipe of pipe\.v$",
        r"^library +nangate45 at 1\.1 V and 25 C; Yosys ",
        r"^clock +clk, rising edge; reset rst_n=0$",
        r"^stimuli +random \(normal, sparse:2\), seed 1: 150 cycles, 3 streams; library delays$",
        r"^area +\d+\.\d+ um2: logic \d+\.\d+, registers \d+\.\d+$",
        r"^cells +\d+, of which 4 flip-flops$",
        r"^critical path +0\.\d{3} ns, ",
        r"^slack +1\.\d{3} ns at 2 ns: met; \d+ MHz at most$",
        r"^energy per cycle +0\.\d+ pJ: logic 0\.\d+, registers 0\.\d+, clock 0\.\d+, leakage 0\.0",
        r"^per operation +0\.\d+ pJ, 4 in a cycle$",
        r"^per MAC +0\.\d+ pJ, 2 multiply-accumulates in a cycle$",
        r"^nets annotated +100 %$",
    ):
        # Long lines are wrapped.
        assert re.search(pattern, re.sub(r"\n +", " ", text), re.M), pattern
    assert "note" not in text


def test_table_of_instances(capsys, folder):
    Path("tree.v").write_text(TREE)
    text = run(capsys, "tree.v", "--top", "pair", "--random", 20, "--hierarchy", 3, "-o", "out")
    result = json.loads(Path("out/measure.json").read_text())
    require_form(result, load_form("measure.json"))
    tree = result["hierarchy"]
    assert re.search(
        rf"^by instance +mapped module by module: {tree['area_um2']:.3f} um2 \([+-]\d+\.\d %\), ",
        text,
        re.M,
    )
    lines = text.splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("instance "))
    assert [line.split()[:3] for line in lines[place + 2 : place + 5]] == [
        ["pair", "pair", "4"], ["u_left", "half", "8"], ["u_right", "half", "8"],
    ]  # fmt: skip
    assert lines[place + 3].startswith("  u_left")
    shares = [float(line.split()[4]) for line in lines[place + 2 : place + 5]]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_files(capsys, folder):
    """Stimuli of a file; the result as a table, as JSON and in a folder are the same."""
    rng = np.random.default_rng(6)
    np.savez("s.npz", a=rng.integers(-8, 8, 40), b=rng.integers(0, 16, 40), hold=np.zeros(40, int))
    words = ["pipe.v", "--top", "pipe", "--stimuli", "s.npz", "--streams", 2, "-D", "X=1==1"]
    printed = json.loads(run(capsys, *words, "--json"))
    run(capsys, *words, "-o", "out")
    result = json.loads(Path("out/measure.json").read_text())
    command = result["settings"].pop("command")
    assert command == (
        "narrowgauge measure pipe.v --top pipe --stimuli s.npz --streams 2 -D X=1==1 -o out"
    )
    assert result["design"]["defines"] == {"X": "1==1"}
    del printed["settings"]["command"]
    assert result == printed
    assert sorted(os.listdir("out")) == [".narrowgauge", "measure.json", "pipe.v"]
    assert Path("out/pipe.v").read_text().count("DFFR_X1") == 4
    assert result["cycles"] == 40
    assert result["design"]["inputs"] == {"clk": 1, "rst_n": 1, "hold": 1, "a": 4, "b": 4}
    assert result["design"]["files"] == ["pipe.v"]
    assert result["settings"]["stimuli"] == {
        "file": "s.npz", "distributions": {}, "streams": 2, "cycles": 20, "seed": None,
    }  # fmt: skip
    assert sum(result["area_breakdown_um2"].values()) == pytest.approx(result["area_um2"])
    assert sum(result["energy_breakdown_pj"].values()) == pytest.approx(
        result["energy_per_cycle_pj"]
    )
    assert result["setup_ns"] + result["critical_path"][-1]["arrival_ns"] == pytest.approx(
        result["critical_path_ns"]
    )
    assert result["critical_path_end"].endswith("/D")
    assert f"{len(result['library']['digest'])}" == "64"


def test_clock_that_cannot_be_met(capsys, folder):
    words = ["pipe.v", "--top", "pipe", "--clock-ns", 0.05, "--random", 5]
    text = run(capsys, *words)
    assert re.search(r"^slack +-0\.\d{3} ns at 0\.05 ns: MISSED; ", text, re.M)
    assert re.search(
        r"^note +misses the clock of 0\.05 ns, for which energy is stated, by", text, re.M
    )
    assert main(["measure", *map(str, words), "--check"]) == 1
    capsys.readouterr()
    assert main(["measure", *map(str, words[:3]), "--random", "5", "--check"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.v"], "No such file or directory: "),
        (["pipe.v", "--stimuli", "s.npz", "--random", "5"], "--stimuli excludes --random and"),
        (["pipe.v", "--stimuli", "s.npz"], "stimuli must be a readable file, not 's.npz'"),
        (["pipe.v", "-D", "=1"], "must be NAME=VALUE, not '=1'"),
        (["pipe.v", "-P", "N"], "must be NAME=VALUE, not 'N'"),
        (["pipe.v", "--set", "a=1", "--set", "a=2"], "must be given once for 'a'"),
        (["pipe.v", "--set", "a=x"], "must be a number in range for 'a', not 'x'"),
        (["pipe.v", "--reset", "hold=2"], "must be a number in range for 'hold', not '2'"),
        (["pipe.v", "--macs", "nan"], "must be a positive number, not nan"),
        (["pipe.v", "--time-limit", "0"], "must be a positive number, not 0"),
        (["pipe.v", "--time-limit", "0.01"], "Yosys took longer than 0.01 s to read pipe"),
        (["pipe.v", "--distribution", "q=normal"], "stimuli must be of an input of pipe"),
        (["pipe.v", "--library", "none"], "none"),
        (["pipe.v", "-o", "pipe.v"], "output must be a folder, not the file 'pipe.v'"),
    ],
)
def test_bad_input(capsys, folder, words, message):
    assert message in refused(capsys, *words, "--top", "pipe")
    assert os.listdir(folder) == ["pipe.v"]


def test_names_that_no_terminal_should_get(capsys, folder):
    name = "a\n\x1b[31m;b.v"
    Path(name).write_text("module top; endmodule")
    assert r"a\n\x1b[31m;b.v" in refused(capsys, name + "x", "--top", "top")
