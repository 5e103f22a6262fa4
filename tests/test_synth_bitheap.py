"""Sums of products of full adders, mapped and simulated, against Python's integers."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from synth.activity import Simulator, pack, unpack
from synth.bitheap import find_adder, has_sums, replace_sums
from synth.cache import Cache
from synth.liberty import Function
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.yosys import Attempt, Recipe, map_netlist

ATTEMPTS = {
    "chain": Attempt(sums="chain", carry="ripple", mapper="area"),
    "rows": Attempt(sums="rows", carry="ripple", mapper="area"),
    "fast-rows": Attempt(sums="fast-rows", carry="brent-kung", mapper="speed"),
    "prefix": Attempt(sums="fast-rows", carry="kogge-stone", mapper="prefix"),
}
EACH = {name: Recipe(description=name, attempts=(each,)) for name, each in ATTEMPTS.items()}
CHAIN, ROWS = EACH["chain"], EACH["rows"]


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


def full_adder(library):
    return find_adder(library.of_kind("multi-output"), 3, library.fo4_slew_ns)


def half_adder(library):
    return find_adder(library.of_kind("multi-output"), 2, library.fo4_slew_ns)


def run(module, library, recipe, tmp_path, inputs, lanes):
    """Map a module with a recipe; simulate it on integers by port."""
    mapped = map_netlist(module, "t", library, clock_ns=9.0, recipe=recipe, cache=Cache(tmp_path))
    netlist = Netlist(mapped, library)
    simulator = Simulator(netlist, lanes)
    simulator.step(
        {name: pack(values, len(netlist.ports[name].nets)) for name, values in inputs.items()}
    )
    return mapped, unpack(simulator.settled("y"), lanes)


def signed(width):
    return -(1 << width - 1), 1 << width - 1


def unsigned(width):
    return 0, 1 << width


# Ports with ranges, declarations, width of y, its expression in Verilog and in Python.
SUMS = {
    "signed product": (
        {"a": signed(5), "b": signed(7)},
        "input signed [4:0] a, input signed [6:0] b",
        12,
        "a * b",
        lambda a, b: a * b,
    ),
    "unsigned product": (
        {"a": unsigned(6), "b": unsigned(4)},
        "input [5:0] a, input [3:0] b",
        10,
        "a * b",
        lambda a, b: a * b,
    ),
    "cut product": (
        {"a": signed(6), "b": signed(6)},
        "input signed [5:0] a, input signed [5:0] b",
        7,
        "a * b",
        lambda a, b: a * b,
    ),
    "wide product": (
        {"a": signed(4), "b": signed(4)},
        "input signed [3:0] a, input signed [3:0] b",
        13,
        "a * b",
        lambda a, b: a * b,
    ),
    "square": (
        {"a": signed(6)},
        "input signed [5:0] a",
        12,
        "a * a",
        lambda a: a * a,
    ),
    "constant factor": (
        {"a": signed(7)},
        "input signed [6:0] a",
        13,
        "a * 6'sd23",
        lambda a: a * 23,
    ),
    "multiply and add": (
        {"a": signed(5), "b": signed(5), "c": signed(14)},
        "input signed [4:0] a, input signed [4:0] b, input signed [13:0] c",
        14,
        "c + a * b",
        lambda a, b, c: c + a * b,
    ),
    "multiply and subtract": (
        {"a": signed(5), "b": signed(5), "c": signed(12)},
        "input signed [4:0] a, input signed [4:0] b, input signed [11:0] c",
        13,
        "c - a * b",
        lambda a, b, c: c - a * b,
    ),
    "two products": (
        {"a": signed(4), "b": signed(4), "c": signed(5), "d": signed(3)},
        "input signed [3:0] a, input signed [3:0] b, input signed [4:0] c, input signed [2:0] d",
        10,
        "a * b - c * d + 10'sd77",
        lambda a, b, c, d: a * b - c * d + 77,
    ),
    "many addends": (
        {name: signed(5) for name in "abcdef"},
        ", ".join(f"input signed [4:0] {name}" for name in "abcdef"),
        9,
        "a + b - c + d - e + f",
        lambda a, b, c, d, e, f: a + b - c + d - e + f,
    ),
    "bits plus one below a tall column": (
        {"a": unsigned(3), "b": unsigned(3), "c": unsigned(3), "d": unsigned(4)},
        "input [2:0] a, input [2:0] b, input [2:0] c, input [3:0] d",
        9,
        "{2'd0, a, 4'd0} + {2'd0, b, 4'd0} + {2'd0, c, 4'd0} + {5'd0, d} + 9'd15",
        lambda a, b, c, d: 16 * (a + b + c) + d + 15,
    ),
    "mixed widths": (
        {"a": unsigned(3), "b": unsigned(7), "c": unsigned(5)},
        "input [2:0] a, input [6:0] b, input [4:0] c",
        9,
        "a + b + c + 9'd301",
        lambda a, b, c: a + b + c + 301,
    ),
    "sign extended by hand": (
        {"a": signed(4), "b": signed(4), "c": unsigned(13)},
        "input signed [3:0] a, input signed [3:0] b, input [12:0] c",
        13,
        "c + {{5{p[7]}}, p}",
        lambda a, b, c: c + a * b,
    ),
    "sign extended by hand, subtracted": (
        {"a": signed(4), "b": signed(4), "c": unsigned(13)},
        "input signed [3:0] a, input signed [3:0] b, input [12:0] c",
        13,
        "c - {{5{p[7]}}, p}",
        lambda a, b, c: c - a * b,
    ),
    "carry in": (
        {"a": signed(9), "b": signed(5), "c": unsigned(1)},
        "input signed [8:0] a, input signed [4:0] b, input c",
        9,
        "a + {{4{b[4]}}, b} + {8'd0, c}",
        lambda a, b, c: a + b + c,
    ),
    # The product does not fit in 6 bits: extending what is left of it must not see the rest.
    "cut, then extended": (
        {"a": signed(4), "b": signed(4), "c": unsigned(11)},
        "input signed [3:0] a, input signed [3:0] b, input [10:0] c",
        11,
        "c + {{5{p[5]}}, p[5:0]}",
        lambda a, b, c: c + ((a * b + 32) % 64 - 32),
    ),
    "cut to its width, then extended": (
        {"a": signed(4), "b": signed(4), "c": unsigned(11)},
        "input signed [3:0] a, input signed [3:0] b, input [10:0] c",
        11,
        "c + {{5{q[5]}}, q}",
        lambda a, b, c: c + ((a * b + 32) % 64 - 32),
    ),
    "negative, extended by zeros": (
        {"a": signed(4), "b": signed(4), "c": unsigned(11)},
        "input signed [3:0] a, input signed [3:0] b, input [10:0] c",
        11,
        "c + {3'd0, p}",
        lambda a, b, c: c + (a * b) % 256,
    ),
    "unsigned, extended by a copy": (
        {"a": unsigned(4), "b": unsigned(4), "c": unsigned(11)},
        "input [3:0] a, input [3:0] b, input [10:0] c",
        11,
        "c + {{3{u[7]}}, u}",
        lambda a, b, c: c + ((a * b + 128) % 256 - 128),
    ),
    "used twice": (
        {"a": signed(4), "b": signed(4), "c": unsigned(11)},
        "input signed [3:0] a, input signed [3:0] b, input [10:0] c",
        11,
        "(c + {{3{p[7]}}, p}) ^ {3'd0, p}",
        lambda a, b, c: ((c + a * b) % 2048) ^ (a * b % 256),
    ),
}


@pytest.mark.parametrize("recipe", EACH.values(), ids=EACH)
@pytest.mark.parametrize("name", SUMS)
def test_sum(name, recipe, library, tmp_path):
    """All corners of the operands' ranges, and random values between."""
    ranges, ports, width, expression, function = SUMS[name]
    products = {
        "p": "wire signed [7:0] p = a * b;",
        "q": "wire signed [5:0] q = a * b;",
        "u": "wire [7:0] u = a * b;",
    }
    wires = "".join(text for key, text in products.items() if re.search(rf"\b{key}\b", expression))
    source = f"module t({ports}, output [{width - 1}:0] y); {wires} assign y = {expression};"
    generator = np.random.default_rng(len(name))
    corners = np.stack(
        np.meshgrid(*([low, -1 if low else 1, 0, high - 1] for low, high in ranges.values()))
    ).reshape(len(ranges), -1)
    values = np.concatenate(
        [
            corners[:, generator.permutation(corners.shape[1])[:1024]],
            np.stack([generator.integers(low, high, 3000) for low, high in ranges.values()]),
        ],
        axis=1,
    )
    inputs = dict(zip(ranges, values, strict=True))
    _, results = run(source + " endmodule", library, recipe, tmp_path, inputs, values.shape[1])
    np.testing.assert_array_equal(results, function(*values) % (1 << width))


@pytest.mark.parametrize("recipe", EACH.values(), ids=EACH)
def test_library_without_full_adder(recipe, library, tmp_path):
    plain = library.select(name for name in library.cells if not name.startswith(("FA", "HA")))
    assert full_adder(plain) is None
    values = np.arange(1 << 12)
    inputs = {"a": values & 63, "b": values >> 6}
    source = "module t(input [5:0] a, input [5:0] b, output [11:0] y); assign y = a * b; endmodule"
    mapped, results = run(source, plain, recipe, tmp_path, inputs, 1 << 12)
    np.testing.assert_array_equal(results, inputs["a"] * inputs["b"])
    assert "FA_X1" not in mapped.cells_by_type


def test_late_carry_does_not_ripple(library, tmp_path):
    """Two long rows and a short one: a carry of the short one's columns meets two early bits."""
    source = (
        "module t(input [39:0] a, input [39:0] b, input [7:0] c, output [39:0] y);"
        " assign y = a + b + c; endmodule"
    )
    recipes = {
        sums: Recipe(
            description=sums,
            attempts=(Attempt(sums=sums, carry="kogge-stone", mapper="prefix"),),
        )
        for sums in ("rows", "fast-rows")
    }
    rng = np.random.default_rng(1)
    inputs = {
        name: rng.integers(0, 1 << width, 640) for name, width in (("a", 40), ("b", 40), ("c", 8))
    }
    delays = {}
    for sums, recipe in recipes.items():
        mapped, results = run(source, library, recipe, tmp_path, inputs, 640)
        np.testing.assert_array_equal(results, sum(inputs.values()) % (1 << 40))
        delays[sums] = analyse(mapped.module, library).critical_path_ns
    # Some thirty full adders against a prefix adder.
    assert delays["fast-rows"] < 0.6 * delays["rows"]


def test_full_adder_found_by_function(library):
    adder = full_adder(library)
    assert (adder.cell, adder.sum, adder.carry) == ("FA_X1", "S", "CO")
    assert sorted(adder.inputs) == ["A", "B", "CI"]
    assert 0 < adder.carry_delay <= 1
    assert 0 < adder.sum_delay <= 1


@pytest.mark.parametrize("recipe", [CHAIN, ROWS], ids=["chain", "rows"])
@pytest.mark.parametrize("name", ["asap7", "sky130"])
def test_other_libraries(name, recipe, tmp_path):
    """ASAP7's adders invert both outputs; every second level needs no inverter."""
    other = load(name)
    adder, half = full_adder(other), half_adder(other)
    for each in (adder, half):
        assert (each.inverts_sum, each.inverts_carry) == ((name == "asap7",) * 2)
    source = (
        "module t(input signed [7:0] a, input signed [7:0] b, input signed [15:0] c,"
        "output signed [19:0] y); assign y = c - a * b + b; endmodule"
    )
    generator = np.random.default_rng(5)
    limits = {"a": signed(8), "b": signed(8), "c": signed(16)}
    inputs = {port: generator.integers(*limit, 4096) for port, limit in limits.items()}
    for port, limit in limits.items():
        inputs[port][:2] = limit[0], limit[1] - 1
    mapped, results = run(source, other, recipe, tmp_path, inputs, 4096)
    expected = inputs["c"] - inputs["a"] * inputs["b"] + inputs["b"]
    np.testing.assert_array_equal(results, expected % (1 << 20))
    counts = mapped.cells_by_type
    assert counts[adder.cell] >= 40
    assert (counts.get(half.cell, 0) > 0) == (recipe is CHAIN)
    if name == "asap7":
        inverters = {cell.name for cell in other.of_kind("inverter")}
        assert sum(counts.get(each, 0) for each in inverters) < counts[adder.cell]


@pytest.mark.parametrize("name", ["asap7", "sky130"])
def test_half_adder_of_complements(name, tmp_path):
    """Two bits to subtract and a constant one: the complements of a half adder."""
    other = load(name)
    values = np.arange(1 << 6)
    inputs = {"a": values & 7, "b": values >> 3}
    source = (
        "module t(input [2:0] a, input [2:0] b, output [5:0] y); assign y = 6'd43 - a - b;"
        " endmodule"
    )
    mapped, results = run(source, other, CHAIN, tmp_path, inputs, 1 << 6)
    np.testing.assert_array_equal(results, 43 - sum(inputs.values()))
    assert half_adder(other).cell in mapped.cells_by_type


def test_gates_for_a_short_clock(tmp_path):
    """Adders of one size are too slow for a clock of 44 fan-outs of four; they are smaller."""
    asap7 = load("asap7")
    source = "module t(input [9:0] a, input [9:0] b, output [19:0] y); assign y = a * b; endmodule"
    gates = Attempt(sums="gates", carry="kogge-stone", mapper="speed")
    recipe = replace(CHAIN, attempts=(*CHAIN.attempts, gates))
    cache = Cache(tmp_path)
    adders = {full_adder(asap7).cell, half_adder(asap7).cell}
    for fan_outs in (44.0, 180.0):
        clock_ns = fan_outs * asap7.fo4_delay_ns
        mapped = map_netlist(source, "t", asap7, clock_ns=clock_ns, recipe=recipe, cache=cache)
        assert analyse(mapped.module, asap7).critical_path_ns <= clock_ns
        assert adders.isdisjoint(mapped.cells_by_type) == (fan_outs < 45)


@pytest.mark.parametrize("inverted", ["sum", "carry"])
def test_full_adder_with_one_inverted_output(inverted, tmp_path):
    """As sky130's fahcon; here ASAP7's, of which one output is made true."""
    other = load("asap7")
    cell = other.cells["FAx1_ASAP7_75t_R"]
    pin = "CON" if inverted == "sum" else "SN"
    true = replace(cell.pins[pin], function=Function(f"!({cell.pins[pin].function})"))
    changed = replace(cell, pins=cell.pins | {pin: true})
    other = replace(other, cells=other.cells | {cell.name: changed})
    adder = full_adder(other)
    assert (adder.inverts_sum, adder.inverts_carry) == (inverted == "sum", inverted == "carry")
    values = np.arange(1 << 12)
    inputs = {"a": values & 63, "b": values >> 6}
    source = "module t(input [5:0] a, input [5:0] b, output [11:0] y); assign y = a * b; endmodule"
    _, results = run(source, other, CHAIN, tmp_path, inputs, 1 << 12)
    np.testing.assert_array_equal(results, inputs["a"] * inputs["b"])


def test_product_needs_few_full_adders(library, tmp_path):
    """An 8 x 8 product has 64 bits, 2 constants and 16 results: 64 + 2 - 16 = 50 at most."""
    source = (
        "module t(input signed [7:0] a, input signed [7:0] b, output signed [15:0] y);"
        "assign y = a * b; endmodule"
    )
    inputs = {"a": np.array([-128]), "b": np.array([-128])}
    mapped, results = run(source, library, CHAIN, tmp_path, inputs, 1)
    assert results == [1 << 14]
    assert 40 <= mapped.cells_by_type["FA_X1"] <= 50
    # Its area is that of its two gates.
    assert half_adder(library).cell == "HA_X1"
    assert "HA_X1" not in mapped.cells_by_type


@pytest.mark.parametrize(
    ("width", "sum_width", "extended"),
    [(16, 28, "{{12{p[15]}}, p}"), (16, 16, "p"), (16, 10, "p[9:0]")],
)
def test_sum_in_two_modules_becomes_one(width, sum_width, extended, library, tmp_path):
    """A multiply-accumulate unit of two modules is as small as one in a single expression."""
    ports = f"input signed [7:0] a, input signed [7:0] b, input signed [{sum_width - 1}:0] c"
    apart = (
        f"module t({ports}, output [{sum_width - 1}:0] y); wire signed [{width - 1}:0] p;"
        f"product m(a, b, p); assign y = c + {extended}; endmodule\n"
        f"module product(input signed [7:0] a, input signed [7:0] b, output [{width - 1}:0] p);"
        "assign p = a * b; endmodule"
    )
    together = f"module t({ports}, output [{sum_width - 1}:0] y); assign y = c + a * b; endmodule"
    inputs = {"a": np.array([-128]), "b": np.array([127]), "c": np.array([5])}
    areas = []
    for source in (apart, together):
        mapped, results = run(source, library, CHAIN, tmp_path, inputs, 1)
        assert results == [(5 - 128 * 127) % (1 << sum_width)]
        areas.append(mapped.area_um2)
    assert areas[0] == pytest.approx(areas[1], rel=0.02)


def macc(**changes):
    """A module with one sum as Yosys' JSON has it: y = c + a, of 2 bits."""
    cell = {
        "hide_name": 0,
        "type": "$macc_v2",
        "parameters": {
            "NPRODUCTS": "0",
            "NADDENDS": "10",
            "A_WIDTHS": "x",
            "B_WIDTHS": "x",
            "C_WIDTHS": f"{2:016b}{2:016b}",
            "A_SIGNED": "x",
            "B_SIGNED": "x",
            "C_SIGNED": "00",
            "PRODUCT_NEGATED": "x",
            "ADDEND_NEGATED": "00",
            "Y_WIDTH": "10",
        },
        "port_directions": {"A": "input", "B": "input", "C": "input", "Y": "output"},
        "connections": {"A": [], "B": [], "C": [2, 3, 4, 5], "Y": [6, 7]},
    }
    ports = {
        "x": {"direction": "input", "bits": [2, 3, 4, 5]},
        "y": {"direction": "output", "bits": [6, 7]},
    }
    return {"ports": ports, "cells": {"sum": cell | changes}}


def test_replaced_cell_keeps_its_nets(library):
    module = macc()
    assert has_sums(module)
    text = replace_sums(module, full_adder(library), None, chain=False, prefix="part_")
    cell = module["cells"]["sum"]
    assert cell["type"] == "part_0"
    assert sorted(cell["connections"]["X"]) == [2, 3, 4, 5]
    assert cell["connections"]["Y"] == [6, 7]
    assert "module part_0(X, Y);" in text
    assert not has_sums(module)
    assert replace_sums(module, None, None, chain=True, prefix="part_") == ""


def test_looking_for_sums_changes_nothing():
    module = macc()
    before = json.dumps(module)
    assert has_sums(module)
    assert json.dumps(module) == before


def adder(uses=(), **connections):
    """A module with one ``$alu`` whose second operand is extended by its sign."""
    connections = {
        "A": [2, 3, 4],
        "B": [5, 5, 5],
        "CI": ["0"],
        "BI": ["0"],
        "X": [11, 12, 13],
        "Y": [14, 15, 16],
        "CO": [17, 18, 19],
    } | connections
    cell = {
        "hide_name": 0,
        "type": "$alu",
        "parameters": {"A_SIGNED": "0", "B_SIGNED": "0"},
        "port_directions": {
            port: "output" if port in ("X", "Y", "CO") else "input" for port in connections
        },
        "connections": connections,
    }
    ports = {"y": {"direction": "output", "bits": [14, 15, 16, *uses]}}
    return {"ports": ports, "cells": {"adder": cell}}


def test_adders_that_are_replaced():
    assert has_sums(adder())
    assert has_sums(adder(CI=[6]))
    assert has_sums(adder(BI=["1"], CI=["1"]))
    assert not has_sums(adder(B=[5, 6, 7]))
    assert not has_sums(adder(BI=[6]))
    assert not has_sums(adder(BI=["1"]))
    assert not has_sums(adder(BI=["1"], CI=[6]))
    assert not has_sums(adder(uses=[12]))
    assert not has_sums(adder(uses=[19]))


def test_result_of_the_same_width_is_taken_in():
    module = macc()
    module["cells"]["adder"] = adder(A=[6, 7], B=[5, 5], Y=[14, 15])["cells"]["adder"]
    module["ports"]["y"]["bits"] = [14, 15]
    text = replace_sums(module, None, None, chain=False, prefix="part_")
    assert list(module["cells"]) == ["adder"]
    assert text.count("module part_") == 1
    assert sorted(module["cells"]["adder"]["connections"]["X"]) == [2, 3, 4, 5]
