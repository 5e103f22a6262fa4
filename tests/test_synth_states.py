"""States of cells: counted lane by lane, and what they cost by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from synth import states
from synth.activity import Simulator, pack
from synth.cells import (
    Cell,
    CellLibrary,
    ClockGate,
    EnergyArc,
    FlipFlop,
    Pin,
    PowerArc,
    Table,
    TimingArc,
)
from synth.compact import compact_text, parse_compact
from synth.energy import EnergyModel
from synth.liberty import Function, parse_liberty
from synth.liberty_cells import from_liberty
from synth.netlist import Netlist
from synth.state_energy import StateTerms
from synth.states import ENABLE, cell_power, variables
from tests.hand_netlists import hand_mapped, hand_module

VOLTAGE = 2.0


def constant(value):
    return Table((0.0,), (0.0,), ((value,),))


def inputs(**caps):
    return {name: Pin(name=name, direction="input", cap_ff=cap) for name, cap in caps.items()}


def output(text, name="Y"):
    return {name: Pin(name=name, direction="output", function=Function(text))}


def power(pin, related, when, rise, fall):
    return PowerArc(
        pin=pin,
        related=related,
        when=None if when is None else Function(when),
        rise=constant(rise),
        fall=constant(fall),
    )


def leakage(**powers):
    """Leakage by state; names are conditions in which ``n`` stands for a complement."""
    return tuple(
        (Function(" & ".join(word.replace("n", "!") for word in text.split("_"))), value)
        for text, value in powers.items()
    )


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
            slew_rise=constant(0.5),
            slew_fall=constant(0.5),
        ),
    ),
)
AND = Cell(
    name="AND",
    area_um2=2.0,
    leakage_nw=100.0,
    pins=inputs(A=2.0, B=3.0) | output("A & B"),
    # Means that no test with states may see.
    energies=(EnergyArc(pin="Y", related=None, rise=constant(1e6), fall=constant(1e6)),),
    passive={"A": constant(1e6)},
    leakage_states=leakage(nA_nB=1.0, nA_B=2.0, A_nB=4.0, A_B=8.0),
    powers=(
        power("Y", "A", None, 1.0, 3.0),
        power("Y", "B", None, 5.0, 7.0),
        power("A", None, "!B & !Y", 0.25, 0.5),
        power("B", None, "!A & !Y", 2.0, 4.0),
    ),
)
XOR = Cell(
    name="XOR",
    area_um2=2.0,
    leakage_nw=3.0,
    pins=inputs(A=2.0, B=3.0) | output("A ^ B"),
    powers=(
        power("Y", "A", "B", 1.0, 2.0),
        power("Y", "A", "!B", 4.0, 8.0),
        power("Y", "B", "A", 16.0, 32.0),
        power("Y", "B", None, 64.0, 128.0),
    ),
    leakage_states=leakage(A_B=7.0),
)
FLIP_FLOP = Cell(
    name="DFF",
    area_um2=9.0,
    leakage_nw=50.0,
    pins=inputs(D=4.0)
    | {"CK": Pin(name="CK", direction="input", cap_ff=5.0, is_clock=True)}
    | output("IQ", "Q"),
    ff=FlipFlop(
        clock="CK",
        clock_edge="rising",
        next_state=Function("D"),
        state="IQ",
        inverted_state="IQN",
    ),
    energies=(EnergyArc(pin="Q", related="CK", rise=constant(1e6), fall=constant(1e6)),),
    passive={"D": constant(1e6)},
    clock_idle=constant(1e6),
    clock_active=constant(1e6),
    leakage_states=leakage(CK_D=10.0, CK_nD=20.0, nCK_Q=40.0, nCK_nQ=80.0),
    powers=(
        power("CK", None, "D ^ Q", 10.0, 20.0),
        power("CK", None, None, 30.0, 40.0),
        power("D", None, "CK", 100.0, 200.0),
        power("D", None, "!CK", 1000.0, 2000.0),
        power("Q", "CK", None, 300.0, 400.0),
    ),
)
GATE = Cell(
    name="GATE",
    area_um2=1.0,
    leakage_nw=1000.0,
    pins=inputs(E=1.0)
    | {
        "C": Pin(name="C", direction="input", cap_ff=6.0, is_clock=True),
        "G": Pin(name="G", direction="output"),
    },
    clock_gate=ClockGate(clock="C", enable="E", output="G"),
)
LIBRARY = CellLibrary(
    name="hand",
    version="",
    source="",
    licence="",
    voltage_v=VOLTAGE,
    temperature_c=25.0,
    cells={cell.name: cell for cell in (INVERTER, AND, XOR, FLIP_FLOP, GATE)},
)


def netlist_of(cells, inputs, outputs, library=LIBRARY):
    """Netlist of cells (type and bit of each pin) and ports of one bit."""
    module = hand_module(
        cells,
        {name: [bit] for name, bit in inputs.items()},
        {name: [bit] for name, bit in outputs.items()},
    )
    return Netlist(hand_mapped(module), library)


def pair_of(cell, before, after, **options):
    return before + (after << len(variables(cell, **options)))


def cost(cell, before, after, **options):
    """Energy of a pair of states, by the tables of constants."""
    found = cell_power(cell, **options)
    uses = found.uses[pair_of(cell, before, after, **options)]
    tables = [(arc.rise if rising else arc.fall).value(0) for arc, rising in found.arcs]
    return float(uses @ tables)


# --- what states cost ----------------------------------------------------------------------------

# Bit 0 is A, bit 1 is B.
PAIRS = {
    (0b00, 0b00): 0.0,
    # One input: in the state of the other that does not pass it on, and in the one that does.
    (0b00, 0b01): 0.25,
    (0b01, 0b00): 0.5,
    (0b00, 0b10): 2.0,
    (0b10, 0b11): 1.0,
    (0b11, 0b10): 3.0,
    (0b01, 0b11): 5.0,
    (0b11, 0b01): 7.0,
    # Both: A first, or B first.
    (0b00, 0b11): ((0.25 + 5.0) + (2.0 + 1.0)) / 2,
    (0b11, 0b00): ((3.0 + 4.0) + (7.0 + 0.5)) / 2,
    # The output does not change in the end, and does not count if it does in between.
    (0b10, 0b01): (0.0 + (4.0 + 0.25)) / 2,
}


@pytest.mark.parametrize(("pair", "expected"), PAIRS.items())
def test_pairs_of_an_and(pair, expected):
    assert cost(AND, *pair) == pytest.approx(expected, rel=1e-12)


def test_states_of_an_exclusive_or():
    """By the other input as it is when the output changes; no condition stands for the rest."""
    assert cost(XOR, 0b00, 0b01) == 4.0
    assert cost(XOR, 0b01, 0b00) == 8.0
    assert cost(XOR, 0b10, 0b11) == 2.0
    assert cost(XOR, 0b11, 0b10) == 1.0
    assert cost(XOR, 0b01, 0b11) == 32.0
    assert cost(XOR, 0b00, 0b10) == 64.0
    assert cost(XOR, 0b10, 0b00) == 128.0
    assert cost(XOR, 0b00, 0b11) == cost(XOR, 0b01, 0b10) == 0.0


def test_three_inputs_in_any_order():
    """An or of three rises with the first to rise, and falls with the last to fall."""
    gate = Cell(
        name="OR3",
        area_um2=1.0,
        leakage_nw=0.0,
        pins=inputs(A=1.0, B=1.0, C=1.0) | output("A | B | C"),
        powers=(
            power("Y", "A", "!B & !C", 3.0, 30.0),
            power("Y", "B", "!A & !C", 6.0, 60.0),
            power("Y", "C", "!A & !B", 12.0, 120.0),
        ),
    )
    assert cost(gate, 0b000, 0b111) == pytest.approx(7.0)
    assert cost(gate, 0b111, 0b000) == pytest.approx(70.0)
    assert cost(gate, 0b001, 0b110) == 0.0
    assert cost(gate, 0b110, 0b000) == pytest.approx(90.0)


def test_cause_and_states_by_order():
    """From 000 to 111, A makes A | B & C rise unless both others come before it."""
    gate = Cell(
        name="AO21",
        area_um2=1.0,
        leakage_nw=0.0,
        pins=inputs(A=1.0, B=1.0, C=1.0) | output("A | B & C"),
        powers=(
            power("Y", "A", "!B & !C", 6.0, 0.0),
            power("Y", "A", "B & !C", 12.0, 0.0),
            power("Y", "A", "!B & C", 24.0, 0.0),
            power("Y", "B", "!A & C", 60.0, 0.0),
            power("Y", "C", "!A & B", 600.0, 0.0),
        ),
    )
    assert cost(gate, 0b000, 0b111) == pytest.approx(6 / 3 + (12 + 24 + 60 + 600) / 6)


def test_conditions_that_do_not_hold():
    """An output costs the mean of what is listed for its cause, else of what is; an input none."""
    gate = replace(
        AND,
        powers=(
            power("Y", "A", "!B", 1.0, 0.0),
            power("Y", "A", "!B & A", 2.0, 0.0),
            power("A", None, "Y", 64.0, 0.0),
        ),
    )
    assert cost(gate, 0b10, 0b11) == 1.5 + 64.0
    assert cost(gate, 0b01, 0b11) == 1.5
    assert cost(gate, 0b00, 0b01) == 0.0


# Bit 0 is D, bit 1 the state.
CYCLES = {
    (0b00, 0b00): 30 + 40,
    (0b11, 0b11): 30 + 40,
    # D follows the edge, and the other edge finds it.
    (0b00, 0b01): 30 + 100 + 20,
    (0b11, 0b10): 30 + 200 + 20,
    (0b01, 0b11): 10 + 300 + 40,
    (0b01, 0b10): 10 + 300 + 200 + 20,
    (0b10, 0b00): 10 + 400 + 40,
    (0b10, 0b01): 10 + 400 + 100 + 20,
}


@pytest.mark.parametrize(("pair", "expected"), CYCLES.items())
def test_cycles_of_a_flip_flop(pair, expected):
    assert cost(FLIP_FLOP, *pair) == expected


def test_output_by_the_state_that_it_changes_to():
    """With the inputs as the edge finds them."""
    powers = (
        power("Q", "CK", "Q & D", 1.0, 0.0),
        power("Q", "CK", "!Q & D", 2.0, 4.0),
        power("Q", "CK", "Q & !D", 8.0, 0.0),
        power("Q", "CK", "!Q & !D", 16.0, 32.0),
    )
    cell = replace(FLIP_FLOP, powers=powers)
    assert cost(cell, 0b01, 0b10) == 1.0
    assert cost(cell, 0b10, 0b01) == 32.0


@pytest.mark.parametrize(("pair", "expected"), CYCLES.items())
def test_falling_edge(pair, expected):
    """The same in a mirror: what was the rising edge is the falling one."""
    mirrored = replace(
        FLIP_FLOP,
        ff=replace(FLIP_FLOP.ff, clock_edge="falling"),
        powers=(
            power("CK", None, "D ^ Q", 20.0, 10.0),
            power("CK", None, None, 40.0, 30.0),
            power("D", None, "!CK", 100.0, 200.0),
            power("D", None, "CK", 1000.0, 2000.0),
            power("Q", "CK", None, 300.0, 400.0),
        ),
    )
    assert cost(mirrored, *pair) == expected


@pytest.mark.parametrize("enabled_next", [0, 1])
def test_gated_clock(enabled_next):
    """Bit 2 is the enable: what it was before tells whether the clock comes; else it stays low."""
    assert variables(FLIP_FLOP, gated=True) == ("D", "IQ", ENABLE)
    after = enabled_next << 2
    for (first, second), expected in CYCLES.items():
        assert cost(FLIP_FLOP, first | 0b100, second | after, gated=True) == expected
    assert cost(FLIP_FLOP, 0b10, 0b11 | after, gated=True) == 1000.0
    assert cost(FLIP_FLOP, 0b11, 0b10 | after, gated=True) == 2000.0
    assert cost(FLIP_FLOP, 0b10, 0b10 | after, gated=True) == 0.0


def test_leakage_of_states():
    def leaks(cell, before, after, **options):
        found = cell_power(cell, **options).leakage_nw
        return float(found[pair_of(cell, before, after, **options)])

    for before in range(4):
        assert [leaks(AND, before, after) for after in range(4)] == [1.0, 4.0, 2.0, 8.0]
        # The mean of the cell, where a state is not listed.
        assert [leaks(XOR, before, after) for after in range(4)] == [3.0, 3.0, 3.0, 7.0]
        both = [(20 + 80) / 2, (10 + 80) / 2, (20 + 40) / 2, (10 + 40) / 2]
        assert [leaks(FLIP_FLOP, before, after) for after in range(4)] == both
        # The enable of the cycle before counts.
        for after in range(4):
            for enable_next in (0, 4):
                pair = before, after | enable_next
                assert leaks(FLIP_FLOP, *pair, gated=True) == [80.0, 80.0, 40.0, 40.0][after]
                pair = before | 4, after | enable_next
                assert leaks(FLIP_FLOP, *pair, gated=True) == both[after]


def test_cells_without_states():
    """What has no energy by state is counted with its means; a few cells are not counted."""
    plain = replace(FLIP_FLOP, powers=(), clock_idle=constant(5.0), clock_active=constant(9.0))
    plain = replace(plain, passive={"D": constant(100.0)}, energies=())
    assert cost(plain, 0b00, 0b00) == 5.0
    assert cost(plain, 0b01, 0b11) == 9.0
    assert cost(plain, 0b10, 0b01) == 9.0 + 100.0
    tie = Cell(name="TIE", area_um2=1.0, leakage_nw=1.0, pins=output("1"))
    names = [f"A{n}" for n in range(7)]
    wide = replace(AND, pins=inputs(**dict.fromkeys(names, 1.0)) | output(" & ".join(names)))
    gate = replace(AND, clock_gate=ClockGate(clock="A", enable="B", output="Y"))
    for cell in (tie, wide, gate):
        assert variables(cell) is None
        assert cell_power(cell) is None
    netlist = netlist_of({"g": ("AND", {"A": 2, "B": 3, "Y": 4})}, {"a": 2, "b": 3}, {"y": 4})
    with pytest.raises(ValueError, match="cell must have states that can be counted, not be TIE"):
        StateTerms(tie, netlist, [0], slews_ns=[], loads_ff=[], clock_ns=1.0)


# --- energy by hand ------------------------------------------------------------------------------

SMALL = netlist_of(
    {
        "gate": ("AND", {"A": 3, "B": 4, "Y": 5}),
        "register": ("DFF", {"D": 5, "CK": 2, "Q": 6}),
    },
    {"clk": 2, "a": 3, "b": 4},
    {"q": 6},
)
#: Values of a and b in four cycles; all nets are 0 before.
STIMULI = [(1, 1), (1, 0), (0, 1), (1, 1)]


def small_run(words=1, lanes=1, **options):
    simulator = Simulator(SMALL, lanes, state_words=words, **options)
    for values in STIMULI:
        rows = {name: pack(np.full(lanes, bit), 1) for name, bit in zip("ab", values, strict=True)}
        simulator.step(rows)
    return simulator.activity()


@pytest.mark.parametrize("lanes", [1, 3, 200])
def test_energy_by_hand(lanes):
    """Every term of two cells with states, to the last digit."""
    model = EnergyModel(SMALL, ["multiply", "registers"], clock_ns=3.0)
    (energy,) = model.measure(small_run(words=4, lanes=lanes))

    def half_cv2(cap_ff):
        return 0.5 * cap_ff * 1e-15 * VOLTAGE**2 * 1e12

    # 00 -> 11 -> A alone -> B alone -> 11; the output is 1, 0, 0, 1.
    gate = PAIRS[0b00, 0b11] + 7.0 + (0.5 + 2.0) / 2 + 1.0
    loads = 3 * half_cv2(2.0) + 3 * half_cv2(3.0) + 3 * half_cv2(4.0)
    # D: 1, 0, 0, 1; Q: 0, 1, 0, 0.
    register = (100 + 200 + 100) + (300 + 400)
    clock = (30 + 20) + (10 + 20) + (10 + 40) + (30 + 20) + 8 * half_cv2(5.0)
    leaks = (8.0 + 4.0 + 2.0 + 8.0) + (45.0 + 30.0 + 50.0 + 45.0)
    expected = {
        "multiply": gate + loads,
        "registers": register,
        "clock": clock,
        "leakage": leaks * 1e-9 * 3e-9 * 1e12,
    }
    assert energy.per(lanes) == pytest.approx(expected, rel=1e-9)
    assert energy.total_pj == sum(energy.split_pj.values())


def test_energy_of_a_gated_register_by_hand():
    """The clock comes in a cycle before which the enable was high: in the second of four."""
    netlist = netlist_of(
        {
            "gate": ("GATE", {"C": 2, "E": 3, "G": 5}),
            "register": ("DFF", {"CK": 5, "D": 4, "Q": 6}),
        },
        {"clk": 2, "e": 3, "d": 4},
        {"q": 6},
    )
    simulator = Simulator(netlist, 1, state_words=1)
    for enable, data in [(1, 1), (0, 0), (0, 1), (1, 1)]:
        simulator.step({"e": pack([enable], 1), "d": pack([data], 1)})
    model = EnergyModel(netlist, ["clock", "registers"], clock_ns=3.0)
    (energy,) = model.measure(simulator.activity())
    loads = {net: 0.5e-3 * cap * VOLTAGE**2 for net, cap in (("c", 6.0), ("g", 5.0), ("e", 1.0))}
    expected = {
        # D rises while the clock is low, falls behind the edge, rises while it is low.
        "registers": 1000 + (300 + 200) + 1000 + 3 * 0.5e-3 * 4.0 * VOLTAGE**2,
        "clock": 10 + 20 + 8 * loads["c"] + 2 * loads["g"] + 3 * loads["e"],
        "leakage": (4 * 1000 + 80 + (20 + 40) / 2 + 40 + 40) * 3.0 * 1e-6,
    }
    assert energy.split_pj == pytest.approx(expected, rel=1e-9)


def test_without_states_means_count():
    model = EnergyModel(SMALL, ["multiply", "registers"], clock_ns=3.0)
    (energy,) = model.measure(small_run(words=0))
    assert energy.split_pj["multiply"] > 1e6
    assert energy.split_pj["leakage"] == pytest.approx(4 * 3.0 * 150.0 * 1e-6)


def test_toggles_that_were_not_counted_cost_their_mean():
    """States were counted before the inputs moved."""
    simulator = Simulator(SMALL, 1, state_words=1)
    simulator.step({})
    before = simulator.activity()
    after = small_run()
    still = replace(after, states=before.states)
    model = EnergyModel(SMALL, ["multiply", "registers"], clock_ns=0.0)
    (energy,) = model.measure(still)
    (means,) = model.measure(replace(after, states=None))
    for kind in ("multiply", "registers"):
        assert energy.split_pj[kind] == pytest.approx(means.split_pj[kind], rel=1e-12)
    # All cycles are taken to be like the one that was counted.
    assert energy.split_pj["clock"] == pytest.approx(4 * 70.0 + 8 * 0.01)


def test_glitches_cost_what_settled_toggles_do():
    activity = small_run()
    twice = activity.toggles.copy()
    twice[0, SMALL.yosys_bits.index(5)] *= 2
    model = EnergyModel(SMALL, ["multiply", "registers"], clock_ns=0.0)
    (once,), (more,) = (
        model.measure(replace(activity, toggles=t)) for t in (activity.toggles, twice)
    )
    assert more.split_pj["registers"] - once.split_pj["registers"] == pytest.approx(400.0)
    # Of the output of the gate alone: (5 + 1) / 2, 7 and 1; and three times its load of 4 fF.
    gate = more.split_pj["multiply"] - once.split_pj["multiply"]
    assert gate == pytest.approx(3.0 + 7.0 + 1.0 + 3 * 0.5 * 4e-3 * VOLTAGE**2)


# --- tables --------------------------------------------------------------------------------------


def test_compact_table_keeps_states():
    """Conditions, edges and leakage; a cell without conditions keeps its means alone."""
    again = parse_compact(compact_text(LIBRARY), "hand.toml")
    for name in ("AND", "XOR", "DFF"):
        first, second = cell_power(LIBRARY.cells[name]), cell_power(again.cells[name])
        np.testing.assert_allclose(second.leakage_nw, first.leakage_nw)
        for before, after in itertools.product(range(4), repeat=2):
            expected = cost(LIBRARY.cells[name], before, after)
            found = cost(again.cells[name], before, after)
            assert found == pytest.approx(expected, rel=1e-3)
    plain = replace(LIBRARY, cells={"INV": INVERTER, "AND": replace(AND, powers=AND.powers[:2])})
    text = compact_text(plain)
    assert "powers" not in text.split("\n\n", 1)[1]
    assert parse_compact(text, "hand.toml").cells["AND"].powers == ()


def bent(scale):
    """Energy that is proportional to the load at first, and then hardly grows."""
    loads = (0.0, 2.0, 8.0, 64.0)
    values = (0.0, 8.0 * scale, 10.0 * scale, 12.0 * scale)
    return Table((0.0, 1.0), loads, (values, tuple(value + scale for value in values)))


def test_compact_table_of_energies_that_are_not_linear():
    """They keep their values at some loads; all fits are within a few per cent at small loads."""
    pins = AND.pins | {"Y": replace(AND.pins["Y"], max_cap_ff=64.0)}
    arc = PowerArc(pin="Y", related="A", when=Function("B"), rise=bent(2e-3), fall=bent(1e-3))
    mean = EnergyArc(pin="Y", related="A", rise=bent(2e-3), fall=bent(1e-3))
    cell = replace(AND, pins=pins, energies=(mean,), passive={}, powers=(arc,), leakage_states=())
    text = compact_text(replace(LIBRARY, cells={"INV": INVERTER, "AND": cell}))
    found = parse_compact(text, "x").cells["AND"]
    # At some of the loads that are kept.
    for load, slew in itertools.product((0.0, 0.5, 2.0, 4.0, 16.0), (0.3, 1.5)):
        for table, exact in (
            (found.powers[0].rise, bent(2e-3)),
            (found.powers[0].fall, bent(1e-3)),
        ):
            expected = exact.value(slew, load)
            assert table.value(slew, load) == pytest.approx(expected, abs=4e-5)
        expected = bent(1.5e-3).value(slew, load)
        assert found.energies[0].mean(slew, load) == pytest.approx(expected, abs=4e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("leaks = [1, 4, 2, 8]", "leaks = [1, 4, 2]", "leaks must hold 4 states, not 3"),
        (
            '["Y", "A", "", [',
            '["Y", "A", "", [0, [1, 2], [1, 3]], [0, 0, 0]], ["A", "", "", [',
            r"loads must be two or more and increase, not \(1\.0, 1\.0\)",
        ),
        ('"!B&!Y"', '"!B&"', "function must be a Boolean expression"),
    ],
)
def test_compact_table_that_does_not_fit(old, new, message):
    text = compact_text(LIBRARY)
    assert old in text
    with pytest.raises(ValueError, match=f"'x.toml' must be well formed: .*{message}"):
        parse_compact(text.replace(old, new), "x.toml")


def test_liberty_text_keeps_states():
    again = from_liberty(parse_liberty(LIBRARY.liberty_text()), "hand.lib")
    for name in ("AND", "XOR", "DFF"):
        first, second = cell_power(LIBRARY.cells[name]), cell_power(again.cells[name])
        np.testing.assert_allclose(second.leakage_nw, first.leakage_nw)
        for before, after in itertools.product(range(4), repeat=2):
            expected = cost(LIBRARY.cells[name], before, after)
            assert cost(again.cells[name], before, after) == pytest.approx(expected, rel=1e-5)


def test_supplies_with_conditions_of_their_own():
    """Those that hold together are added; what one leaves out is the rest of its states."""
    groups = "".join(
        f"internal_power () {{ related_pg_pin : {supply}; {when} power (scalar) "
        f'{{ values ("{value}"); }} }}'
        for supply, when, value in (
            ("VDD", 'when : "!B";', 1),
            ("VDD", "", 2),
            ("VSS", 'when : "!C";', 4),
            ("VSS", 'when : "!C";', 12),
            ("VSS", 'when : "C";', 16),
        )
    )
    text = f"""library (hand) {{
      time_unit : "1ns"; voltage_unit : "1V"; leakage_power_unit : "1nW"; nom_voltage : 1;
      nom_temperature : 25; capacitive_load_unit (1, pf);
      cell (G) {{ area : 1;
        pin (B, C) {{ direction : input; capacitance : 1; }}
        pin (A) {{ direction : input; capacitance : 1; {groups} }}
        pin (Y) {{ direction : output; function : "A & B & C"; }}
      }} }}"""
    cell = from_liberty(parse_liberty(text), "hand.lib").cells["G"]
    assert cell.inputs == ("B", "C", "A")
    # Bit 0 is B, bit 1 is C, bit 2 is A, which rises; 4 and 12 are of the same states.
    for state, expected in ((0b00, 1 + 8), (0b01, 2 + 8), (0b10, 1 + 16), (0b11, 2 + 16)):
        assert cost(cell, state, state | 0b100) == pytest.approx(expected)


# --- counting ------------------------------------------------------------------------------------

CHAIN = netlist_of(
    {
        "not": ("INV", {"A": 3, "Y": 5}),
        "and": ("AND", {"A": 5, "B": 4, "Y": 6}),
        "again": ("AND", {"A": 5, "B": 4, "Y": 10}),
        "xor": ("XOR", {"A": 6, "B": "1", "Y": 7}),
        "reg": ("DFF", {"D": 7, "CK": 2, "Q": 8}),
    },
    {"clk": 2, "a": 3, "b": 4},
    {"q": 8, "x": 10},
)


def expected_pairs(a, b, counted):
    """Pairs of each cell, one lane and cycle after the other; inputs [cycles, lanes]."""
    found = {index: np.zeros(4 ** (1 if index == 0 else 2), int) for index in range(5)}
    cycles, lanes = a.shape
    for lane in range(lanes):
        # All inputs and registers begin with 0.
        old = [0, 0b01, 0b01, 0b10, 0b01]
        state = 0
        for cycle in range(cycles):
            if cycle:
                state = old[4] & 1
            x, y = int(a[cycle, lane]), int(b[cycle, lane])
            both = (1 - x) & y
            pair = 1 - x | y << 1
            now = [x, pair, pair, both | 0b10, 1 - both | state << 1]
            if counted[lane]:
                for index, (before, after) in enumerate(zip(old, now, strict=True)):
                    found[index][before | after << (1 if index == 0 else 2)] += 1
            old = now
    return found


def chain_run(lanes=150, cycles=9, words=4, seed=3, **options):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 2, (2, cycles, lanes))
    simulator = Simulator(CHAIN, lanes, state_words=words, **options)
    for row in range(cycles):
        simulator.step({"a": pack(a[row], 1), "b": pack(b[row], 1)})
    return a, b, simulator.activity().states


@pytest.mark.parametrize("bitwise", [0, 3])
def test_pairs_lane_by_lane(bitwise, monkeypatch):
    """By bits and by sorting; a net and its complement, a constant, a state; lanes left out."""
    monkeypatch.setattr(states, "MAX_BITWISE", bitwise)
    monkeypatch.setattr(states, "CHUNK_WORDS", 3)
    generator = np.random.default_rng(8)
    lanes = 150
    counted = generator.integers(0, 2, lanes)
    a, b, found = chain_run(lanes, counted=pack(counted, 1)[0], word_groups=[0, 2, 2])
    assert found.lane_cycles.tolist() == [9 * counted[:64].sum(), 0, 9 * counted[64:].sum()]
    for group, part in ((0, slice(64)), (2, slice(64, None))):
        expected = expected_pairs(a[:, part], b[:, part], counted[part])
        for index, pairs in expected.items():
            assert found.of(group, [index])[0].tolist() == pairs.tolist()
    assert not found.of(1, [1, 3]).any()
    # Two cells with the same inputs are counted once.
    assert found.places[1] == found.places[2]


def test_some_words_at_a_time():
    """In some cycles, and in them some of the lanes, each as often as the others."""
    lanes, cycles = 64 * 6, 480
    _, _, found = chain_run(lanes, cycles, words=2)
    # Two of six words in one of four cycles.
    assert found.lane_cycles[0] == pytest.approx(cycles * 128 / states.PAUSE, rel=0.02)
    for index in range(5):
        assert found.of(0, [index]).sum() == found.lane_cycles[0]
    share = found.of(0, [1])[0] / found.lane_cycles[0]
    assert share == pytest.approx([1 / 16] * 16, abs=0.01)


def test_all_words_have_their_turn():
    """Inputs are 1 in the last third of the words alone."""
    lanes = 64 * 6
    simulator = Simulator(CHAIN, lanes, state_words=2)
    for _ in range(480):
        high = pack(np.arange(lanes) >= 64 * 4, 1)
        simulator.step({"a": high, "b": high})
    found = simulator.activity().states
    # Of the inverter, from 1 to 1.
    assert found.of(0, [0])[0, 0b11] / found.lane_cycles[0] == pytest.approx(1 / 3, abs=0.02)


def test_counts_since():
    simulator = Simulator(SMALL, 1, state_words=1)
    simulator.step({"a": pack([1], 1), "b": pack([1], 1)})
    first = simulator.activity()
    simulator.step({"b": pack([0], 1)})
    later = simulator.activity().since(first).states
    assert later.lane_cycles.tolist() == [1]
    assert later.of(0, [0])[0].nonzero()[0].tolist() == [0b11 | 0b01 << 2]
    simulator.reset()
    assert simulator.activity().states.lane_cycles.tolist() == [0]
    none = Simulator(SMALL, 1, state_words=0)
    assert none.activity().states is None
    assert simulator.activity().since(none.activity()).states is None


def test_refuses_negative_words():
    with pytest.raises(ValueError, match="state_words must not be negative, not -1"):
        Simulator(SMALL, 1, state_words=-1)


def test_many_values_of_a_table():
    table = Table((1.0, 2.0, 4.0), (0.0, 10.0), ((1.0, 2.0), (3.0, 5.0), (4.0, 9.0)))
    line = Table((1.0, 2.0), (0.0,), ((1.0,), (3.0,)))
    rows, columns = np.array(
        list(itertools.product((0.5, 1.5, 2.0, 7.0), (-2.0, 0.0, 4.0, 30.0)))
    ).T
    for each in (table, line, constant(3.0)):
        expected = [each.value(row, column) for row, column in zip(rows, columns, strict=True)]
        assert each.at(rows, columns) == pytest.approx(expected, rel=1e-12)
