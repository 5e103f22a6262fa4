"""Memories cost what their sources say, grow with their size, and come from readable files."""

import math

import numpy as np
import pytest

from synth import memory
from synth.cells import Cell, CellLibrary, EnergyArc, FlipFlop, Pin, Table, TimingArc
from synth.liberty import Function
from synth.library import load
from synth.memory import choose_model, memory_cost, off_chip, register_cost

TECHNOLOGIES = ("nangate45", "sky130", "asap7")

#: Figures read in the sources by hand: Liberty files, LEF sizes and the two tables.
READ_BY_HAND = {
    "nangate45": {
        # fakeram45_256x32.lib: clock energy 1874.390 fJ, leakage 289841 nW, 0.235 ns.
        (256, 32): {"write_pj": 1.874390, "leakage_uw": 289.841, "access_ns": 0.235},
        (2048, 39): {"write_pj": 6.855190, "leakage_uw": 1876.6, "area_um2": 45478.818},
        (64, 7): {"write_pj": 0.261529, "leakage_uw": 26.746, "area_um2": 387.296},
    },
    "sky130": {
        # sky130_sram_1kbyte_1rw1r_32x256_8: 2.391613 and 2.208443 mW over 6.875 ns, 493.38 x 403.62
        (256, 32): {"read_pj": 15.8127, "leakage_uw": 0.9117994, "area_um2": 199_138.04},
        (512, 32): {"write_pj": (2.553973 + 2.79347) / 2 * 5.156, "area_um2": 683.1 * 416.54},
        (256, 128): {"area_um2": 722_109.357},
    },
    "asap7": {
        (1024, 64): {"read_pj": 1.44236 + 0.373495, "area_um2": 2359.86048},
        (256, 32): {"area_um2": 415.2384},
    },
}


def entry(model, rows, width, quantity):
    """Figure of a source for one size, the first of points and checks."""
    return next(
        point[quantity]
        for point in (*model.points, *model.checks)
        if (point["rows"], point["width"]) == (rows, width) and quantity in point
    )


@pytest.mark.parametrize("name", TECHNOLOGIES)
def test_points_are_those_of_the_sources(name):
    model = choose_model(name, load("nangate45"))
    for (rows, width), figures in READ_BY_HAND[name].items():
        for quantity, value in figures.items():
            # CACTI's own output has more digits than what was printed of it.
            assert entry(model, rows, width, quantity) == pytest.approx(value, rel=3e-3)


def test_run_of_cacti_is_that_of_the_published_macros():
    """Both name sizes that both have, so the read energies are of the very same macros."""
    model = choose_model("nangate45", load("nangate45"))
    run = {(point["rows"], point["width"]): point for point in model.points}
    shared = [point for point in model.checks if (point["rows"], point["width"]) in run]
    assert len(shared) >= 8
    for point in shared:
        own = run[point["rows"], point["width"]]
        assert own["write_pj"] == pytest.approx(point["write_pj"], rel=1e-5)
        assert own["leakage_uw"] == pytest.approx(point["leakage_uw"], rel=1e-5)
        assert own["access_ns"] == pytest.approx(point["access_ns"], abs=6e-4)


@pytest.mark.parametrize(
    ("name", "quantity", "mean", "worst"),
    [
        ("nangate45", "read_pj", 0.21, 0.50),
        ("nangate45", "write_pj", 0.15, 0.42),
        ("nangate45", "leakage_uw", 0.13, 0.24),
        ("nangate45", "area_um2", 0.11, 0.30),
        ("nangate45", "access_ns", 0.05, 0.09),
        ("sky130", "read_pj", 0.11, 0.19),
        ("sky130", "write_pj", 0.10, 0.17),
        ("sky130", "leakage_uw", 0.01, 0.02),
        ("sky130", "area_um2", 0.11, 0.22),
        ("sky130", "access_ns", 0.09, 0.15),
        ("asap7", "area_um2", 0.02, 0.04),
        ("asap7", "access_ns", 0.08, 0.17),
    ],
)
def test_forms_are_the_best_through_their_points(name, quantity, mean, worst):
    """Residuals are those that the documents state, and no other coefficients have less."""
    model = choose_model(name, load("nangate45"))
    points = [point for point in model.points if quantity in point]
    errors = np.array(
        [model.form(quantity, p["rows"], p["width"]) / p[quantity] - 1 for p in points]
    )
    assert np.abs(errors).mean() < mean
    assert np.abs(errors).max() < worst
    terms = model.forms[quantity]
    matrix = np.array(
        [
            [memory.TERMS[term](p["rows"], p["width"]) / p[quantity] for term in terms]
            for p in points
        ]
    )
    best, *_ = np.linalg.lstsq(matrix, np.ones(len(points)), rcond=None)
    assert list(terms.values()) == pytest.approx(best.tolist(), rel=2e-3)


def test_asap7_energy_is_scaled_to_the_published_read():
    model, shape = (choose_model(name, load("nangate45")) for name in ("asap7", "nangate45"))
    assert model.form("read_pj", 1024, 64) == pytest.approx(1.815855, rel=1e-3)
    for quantity in ("read_pj", "write_pj"):
        ratios = {
            term: factor / shape.forms[quantity][term]
            for term, factor in model.forms[quantity].items()
        }
        assert list(ratios.values()) == pytest.approx([0.2017] * len(ratios), rel=1e-3)
    # Two inverters of 10.3022 pW a bit.
    assert model.cost(1024, 64).leakage_uw == pytest.approx(65536 * 2 * 10.3022e-6)


@pytest.mark.parametrize("name", memory.model_names())
def test_larger_memories_cost_more(name):
    """Within macros of one number, every figure grows with rows and with bits."""
    model = choose_model(name, load("nangate45"))
    rows = [8, 32, 100, 256, 512, 1024]
    widths = [8, 16, 20, 32]
    for quantity in ("read_pj", "write_pj", "leakage_uw", "area_um2", "access_ns"):
        grid = [[getattr(model.cost(row, width), quantity) for width in widths] for row in rows]
        if grid[0][0] is None:
            assert name in ("horowitz2014", "jouppi2021")
            continue
        values = np.array(grid)
        assert (values > 0).all()
        assert (np.diff(values, axis=0) >= 0).all()
        assert (np.diff(values, axis=1) >= 0).all()


def test_memory_of_several_macros():
    """An access takes those side by side, all leak and take room, and the slowest is one."""
    model = choose_model("nangate45", load("nangate45"))
    one, four = model.cost(2048, 64), model.cost(4096, 128)
    assert (one.across, one.down, four.across, four.down) == (1, 1, 2, 2)
    assert four.read_pj == pytest.approx(2 * one.read_pj)
    assert four.write_pj == pytest.approx(2 * one.write_pj)
    assert four.leakage_uw == pytest.approx(4 * one.leakage_uw)
    assert four.area_um2 == pytest.approx(4 * one.area_um2)
    assert four.access_ns == one.access_ns
    # 65 bits are two macros of 33.
    assert model.cost(256, 65).read_pj == pytest.approx(2 * model.cost(256, 33).read_pj)


def test_range_of_the_points():
    model = choose_model("sky130", load("sky130"))
    assert model.cost(256, 32).in_range
    assert not model.cost(255, 32).in_range
    assert not model.cost(256, 7).in_range
    assert model.cost(100_000, 1000).in_range
    table = choose_model("horowitz2014", load("sky130"))
    assert [table.cost(rows, 64).in_range for rows in (1023, 1024, 131_072, 131_073)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_tables_of_publications():
    """At their sizes, the tables; between two, the geometric mean of both halfway in decades."""
    model = choose_model("horowitz2014", load("nangate45"))
    for kilobytes, energy in ((8, 10.0), (32, 20.0), (1024, 100.0)):
        assert model.cost(kilobytes * 128, 64).read_pj == pytest.approx(energy)
        assert model.cost(kilobytes * 128, 64).write_pj == pytest.approx(energy)
    assert model.cost(16 * 128, 64).read_pj == pytest.approx(math.sqrt(200))
    # Half of the bits of an access, half of the energy, of a memory of 8 KB.
    assert model.cost(2048, 32).read_pj == pytest.approx(5)
    newer = choose_model("jouppi2021", load("nangate45"))
    assert [newer.cost(size * 128, 64).read_pj for size in (8, 32, 1024)] == pytest.approx(
        [7.5, 8.5, 14.0]
    )
    assert newer.cost(1024, 64).leakage_uw is None


def constant(value):
    return Table((0.0,), (0.0,), ((value,),))


def arc(related, delay, output="Y"):
    """Arc with one delay and a slew of 0.5 ns, whatever the slew and the load."""
    return TimingArc(
        pin=output,
        related=related,
        sense="positive",
        delay_rise=constant(delay),
        delay_fall=constant(delay),
        slew_rise=constant(0.5),
        slew_fall=constant(0.5),
    )


def gate(name, function, area, cap, energy, delay, leakage):
    return Cell(
        name=name,
        area_um2=area,
        leakage_nw=leakage,
        pins={
            **{
                pin: Pin(name=pin, direction="input", cap_ff=cap)
                for pin in Function(function).inputs
            },
            "Y": Pin(name="Y", direction="output", function=Function(function)),
        },
        arcs=tuple(arc(pin, delay) for pin in Function(function).inputs),
        energies=(EnergyArc(pin="Y", related=None, rise=constant(energy), fall=constant(energy)),),
    )


INVERTER = gate("INV", "!A", 1.0, 1.0, 0.1, 0.1, 1.0)
NAND = gate("NAND", "!(A&B)", 1.0, 1.0, 0.1, 0.2, 1.0)
MUX = gate("MUX", "S&B|!S&A", 2.0, 3.0, 0.4, 0.3, 3.0)
FLIP_FLOP = Cell(
    name="DFF",
    area_um2=4.0,
    leakage_nw=5.0,
    pins={
        "D": Pin(name="D", direction="input", cap_ff=1.0),
        "CK": Pin(name="CK", direction="input", cap_ff=2.0, is_clock=True),
        "Q": Pin(name="Q", direction="output", function=Function("IQ")),
    },
    ff=FlipFlop(
        clock="CK",
        clock_edge="rising",
        next_state=Function("D"),
        state="IQ",
        inverted_state="IQN",
    ),
    arcs=(arc("CK", 0.7, "Q"),),
    energies=(EnergyArc(pin="Q", related="CK", rise=constant(0.2), fall=constant(0.2)),),
    passive={"D": constant(0.05)},
    clock_idle=constant(0.1),
    clock_active=constant(0.3),
)
CELLS = CellLibrary(
    name="by_hand",
    version="",
    source="",
    licence="",
    voltage_v=2.0,
    temperature_c=25.0,
    cells={cell.name: cell for cell in (INVERTER, NAND, MUX, FLIP_FLOP)},
)


def test_registers_by_hand():
    """Three words of one bit of cells with round figures; 1 fF at 2 V is 0.002 pJ an edge."""
    cost = register_cost(CELLS, 3, 1)
    assert (cost.kind, cost.source) == ("registers", "DFF and MUX of by_hand")
    assert cost.area_um2 == pytest.approx(3 * 4 + 2 * 2)
    assert cost.leakage_uw == pytest.approx((3 * 5 + 2 * 3) / 1000)
    # Flip-flop and two multiplexers.
    assert cost.access_ns == pytest.approx(0.7 + 2 * 0.3)
    # Clock half active and two edges of 2 fF, half a change of state with a load of 3 fF, and half
    # of the data inputs of three rows with 1 fF each.
    write = 0.2 + 2 * 0.002 * 2 + (0.2 + 0.002 * 3) / 2 + 3 * (0.05 + 0.002) / 2
    assert cost.write_pj == pytest.approx(write)
    # One multiplexer of the first level and one of the second: their outputs change in one and in
    # one and a half of four reads, their select inputs in every second one.
    change = 0.4 + 0.002 * 3
    assert cost.read_pj == pytest.approx(change / 4 + change * 3 / 8 + 2 * 0.002 * 3 / 2)
    # Bits are alike.
    wide = register_cost(CELLS, 3, 5)
    assert wide.read_pj == pytest.approx(5 * cost.read_pj)
    assert wide.write_pj == pytest.approx(5 * cost.write_pj)
    assert register_cost(CELLS, 1, 1).read_pj == 0


def test_registers_without_multiplexers():
    """Three NAND gates for each, two of them in a row."""
    library = CELLS.select(["INV", "NAND", "DFF"])
    cost = register_cost(library, 2, 1)
    assert cost.area_um2 == pytest.approx(2 * 4 + 3 * 1)
    assert cost.leakage_uw == pytest.approx((2 * 5 + 3 * 1) / 1000)
    assert cost.access_ns == pytest.approx(0.7 + 2 * 0.2)
    assert cost.read_pj == pytest.approx((3 * 0.1 + 0.002) / 4 + 0.002 / 2)
    for kept in (["INV", "NAND"], ["INV", "DFF"]):
        with pytest.raises(ValueError, match=r"library must have a plain flip-flop.* not by_hand$"):
            register_cost(CELLS.select(kept), 2, 1)


def test_border_between_registers_and_macros():
    """Fewer than 1024 bits, or fewer than 8 rows."""
    model = choose_model("nangate45", CELLS)
    kinds = {
        size: memory_cost(model, CELLS, *size).kind
        for size in ((32, 31), (32, 32), (7, 1000), (8, 128), (8, 127))
    }
    assert kinds == {
        (32, 31): "registers",
        (32, 32): "sram",
        (7, 1000): "registers",
        (8, 128): "sram",
        (8, 127): "registers",
    }
    with pytest.raises(ValueError, match=r"^rows must be at least 1, not 0$"):
        memory_cost(model, CELLS, 0, 32)
    with pytest.raises(ValueError, match=r"^width must be at least 1, not -1$"):
        memory_cost(model, CELLS, 32, -1)


# Models and their files.


@pytest.mark.parametrize("name", TECHNOLOGIES)
def test_a_technology_has_its_model(name):
    assert choose_model(None, load(name)).name == name


def test_a_library_of_the_user_has_none():
    assert choose_model(None, CELLS) is None
    assert choose_model("none", load("nangate45")) is None
    assert choose_model("sky130", CELLS).name == "sky130"


@pytest.mark.parametrize("name", memory.model_names())
def test_every_figure_names_its_source(name):
    model = choose_model(name, CELLS)
    assert model.title
    assert model.digest
    for point in (*model.points, *model.checks):
        assert point["source"] in model.sources
    for source in model.sources.values():
        assert source["text"]
        assert ("repository" in source) == ("path" in source) == ("licence" in source)
    for quantity in model.forms:
        origin = model.origins[quantity].split(", ")
        assert all(part in model.sources or part.startswith("shape of") for part in origin)


def test_off_chip():
    assert off_chip("none") is None
    # 1.3 nJ, and 250 pJ, for 64 bits.
    assert off_chip("ddr").pj_per_bit == 1300 / 64
    assert off_chip("hbm2").pj_per_bit == 250 / 64
    own = off_chip("7.5")
    assert (own.name, own.pj_per_bit) == ("own", 7.5)
    for name in memory.off_chip_names():
        assert off_chip(name).source
    for text in ("flash", "-1", "nan", "inf", ""):
        with pytest.raises(
            ValueError, match=rf"^off_chip must be one of ddr, .*none, or pJ per bit, not '{text}'$"
        ):
            off_chip(text)


OWN = """
title = "my compiler"
[sources.datasheet]
text = "data sheet"
[macro]
min_rows = 16
max_rows = 512
min_width = 8
max_width = 32
[read_pj]
source = "datasheet"
constant = 0.5
bits = 0.001
[write_pj]
width = 0.1
"""
TABLE = """
title = "table"
sources.paper.text = "paper"
access_bits = 32
capacities = [{bits = 1024, pj = 1}, {bits = 4096, pj = 4.0}]
"""


def own(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text)
    return choose_model(str(path), CELLS)


def test_own_file(tmp_path):
    model = own(tmp_path, OWN)
    cost = model.cost(1024, 16)
    assert (cost.down, cost.across) == (2, 1)
    assert cost.read_pj == pytest.approx(0.5 + 0.001 * 512 * 16)
    assert cost.write_pj == pytest.approx(1.6)
    assert (cost.leakage_uw, cost.area_um2, cost.access_ns) == (None, None, None)
    table = own(tmp_path, TABLE)
    assert table.cost(64, 32).read_pj == pytest.approx(2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 1", "must be a TOML file"),
        (OWN + "[more]", "must not have 'more'"),
        (OWN.replace("title =", "note ="), "title and note .* must be text, not None"),
        (OWN.replace('text = "data sheet"', ""), "sources .* must be tables with text"),
        (OWN.replace("[sources.datasheet]", "[x]"), "must not have 'x'"),
        (OWN.replace("min_rows = 16", ""), "macro .* must have min_rows, max_rows"),
        (OWN.replace("= 512", "= 512.5"), "max_rows .* must be a whole number above 0, not 512.5"),
        (OWN.replace("= 16", "= 0"), "min_rows .* must be a whole number above 0, not 0"),
        (OWN.replace("= 16", "= 1000"), "min_rows .* must be at most max_rows, not 1000"),
        (OWN.replace("[write_pj]", "[area_um2]"), "must have write_pj or capacities"),
        (OWN.replace("bits = 0.001", "cube = 1"), "must have terms of constant, .* not 'cube'"),
        (OWN.replace("0.001", "-0.001"), r"bits of read_pj .* from 0 to 1e.09, not -0.001"),
        (OWN.replace("0.001", "nan"), r"bits of read_pj .* from 0 to 1e.09, not nan"),
        (OWN.replace("0.001", "1e308"), "bits of read_pj .* from 0 to 1e.09, not 1e.308"),
        ("x = " + "[" * 20_000, "must not be nested that deeply"),
        (OWN.replace("0.001", '"a"'), r"bits of read_pj .* from 0 to 1e.09, not 'a'"),
        (OWN.replace("width = 0.1", ""), "write_pj .* must have a term above 0"),
        ("write_pj = 1" + OWN.replace("[write_pj]", "").replace("width = 0.1", ""),
         "write_pj .* must be a table of terms, not 1"),
        (TABLE.replace("access_bits = 32", ""), "access_bits .* must be a whole number"),
        (TABLE.replace("bits = 4096", "bits = 512"), "capacities .* each larger than"),
        (TABLE.replace("4.0", "0.5"), "capacities .* each larger than"),
        (TABLE.replace("4.0", "inf"), "capacities .* must have bits and pj"),
        (TABLE.replace("pj = 1}", "pj = 1, x = 2}"), "capacities .* must have bits and pj"),
        (TABLE + "points = [1]", "points .* must be tables with rows, width and source"),
        (TABLE + "checks = 1", "checks .* must be tables with rows, width and source"),
    ],
)  # fmt: skip
def test_bad_file(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        own(tmp_path, text)


def test_bad_name(tmp_path):
    with pytest.raises(ValueError, match=r"^memory must be one of asap7, .*none, or a .toml file"):
        choose_model("cacti", CELLS)
    with pytest.raises(ValueError, match=r"^memory must be a file that can be read, not .*No such"):
        choose_model(str(tmp_path / "none.toml"), CELLS)
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"^memory must be a regular file, not .*folder.toml'$"):
        choose_model(str(folder), CELLS)
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (memory.MAX_FILE + 1))
    with pytest.raises(ValueError, match=r"^memory must be a file of at most 1048576 bytes"):
        choose_model(str(large), CELLS)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"^memory must be a TOML file"):
        choose_model(str(binary), CELLS)
