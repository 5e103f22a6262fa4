"""Designs that are mapped module by module: who owns which cell, and that nothing else changes."""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from synth.activity import Simulator, pack, unpack
from synth.energy import EnergyModel
from synth.foreign import ForeignError, read_foreign
from synth.hierarchy import map_hierarchy
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.yosys import RECIPES, YosysError
from tests.tiny_liberty import BASICS, liberty

#: Two levels, a module twice, one with other names in it, wires through modules, and constants.
SOURCE = """
module keep #(parameter W = 2)(input clk, input [W-1:0] d, output reg [W-1:0] q);
  always @(posedge clk) q <= d;
endmodule
module wires(input [3:0] i, output [3:0] o, output [1:0] ones, output same);
  assign o = {i[0], i[1], i[2], i[3]};
  assign ones = 2'b11;
  assign same = i[0];
endmodule
module one(input clk, input [1:0] d, output [1:0] q);
  keep #(2) first(.clk(clk), .d(~d), .q(q));
endmodule
module other(input clk, input [1:0] d, output [1:0] q);
  keep #(2) second(.clk(clk), .d(~d), .q(q));
endmodule
module top(input clk, input [3:0] x, output [3:0] y, output z);
  wire [3:0] turned;
  wire [1:0] ones, low, high;
  wires turn(.i(x), .o(turned), .ones(ones), .same(z));
  one a(.clk(clk), .d(turned[1:0]), .q(low));
  other b(.clk(clk), .d(turned[3:2] ^ ones), .q(high));
  keep #(4) last(.clk(clk), .d({high, low}), .q(y));
endmodule
"""


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NARROWGAUGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    def modules(text, reader="slang", top="top"):
        path = tmp_path_factory.mktemp("source") / "design.v"
        path.write_text(text)
        return read_foreign([path], top, reader=reader, hierarchy=True).modules

    return modules


@pytest.fixture(scope="module", params=["slang", "yosys"])
def tree(request, read, library):
    return map_hierarchy(read(SOURCE, request.param), "top", library, clock_ns=2.0)


def test_owners(tree, library):
    """Flip-flops and inverters by hand."""
    assert tree.modules == {
        "": "top", "turn": "wires", "a": "one", "a.first": "keep", "b": "other",
        "b.second": "keep", "last": "keep",
    }  # fmt: skip
    netlist = Netlist(tree.mapped, library)
    owned = zip(tree.owners, netlist.instances, strict=True)
    kinds = Counter((owner, cell.type.split("_")[0]) for owner, cell in owned)
    ties = ("LOGIC0", "LOGIC1")
    assert {pair: count for pair, count in kinds.items() if pair[1] not in ties} == {
        ("a", "INV"): 2, ("a.first", "DFF"): 2, ("b", "INV"): 2, ("b.second", "DFF"): 2,
        ("last", "DFF"): 4, ("", "XOR2"): 2,
    }  # fmt: skip


def test_levels(tree):
    shown = tree.shown(1)
    assert shown["b.second"] == "b"
    assert shown["a.first"] == "a"
    assert shown[""] == ""
    assert set(shown.values()) == {"", "turn", "a", "b", "last"}
    assert tree.shown(2) == {path: path for path in tree.modules}
    assert tree.shown(None) == tree.shown(2)


def test_function(tree, library):
    """Two registers behind the bits of x in the other order: the lower half inverted once."""
    netlist = Netlist(tree.mapped, library)
    simulator = Simulator(netlist, 64)
    x = np.random.default_rng(2).integers(0, 16, (10, 64))
    outputs = []
    for row in x:
        simulator.step({"x": pack(row, 4)})
        outputs.append(unpack(simulator.settled("y"), 64))
        assert (unpack(simulator.settled("z"), 64) == (row & 1)).all()
    for cycle in range(2, 10):
        was = x[cycle - 2]
        turned = sum((was >> bit & 1) << 3 - bit for bit in range(4))
        # The upper half is inverted by the constant ones as well, and so not at all.
        assert (outputs[cycle] == turned ^ 0b0011).all()


def test_energy_by_owner(tree, library):
    """Adds up to that of the whole; flip-flops that hold still cost the same each."""
    netlist = Netlist(tree.mapped, library)
    timing = analyse(tree.mapped.module, library)
    classes = ["register" if cell.ff else "logic" for cell in netlist.instances]
    simulator = Simulator(netlist, 64)
    for row in np.random.default_rng(3).integers(0, 16, (20, 64)):
        simulator.step({"x": pack(row, 4)})
    models = [
        EnergyModel(netlist, classes, clock_ns=2.0, timing=timing, owners=owners)
        for owners in (None, tree.owners)
    ]
    [whole], [split] = (model.measure(simulator.activity()) for model in models)
    summed = Counter()
    for name, value in split.split_pj.items():
        summed[name.rpartition("/")[2]] += value
    assert summed == pytest.approx(whole.split_pj, rel=1e-12)
    idle = Simulator(netlist, 64)
    for _ in range(4):
        idle.step({"x": pack(np.zeros(64, int), 4)})
    before = idle.activity()
    for _ in range(5):
        idle.step({})
    [still] = models[1].measure(idle.activity().since(before))
    clocks = {owner: still.split_pj[f"{owner}/clock"] for owner in ("a.first", "b.second", "last")}
    assert clocks["a.first"] == pytest.approx(clocks["b.second"])
    assert clocks["last"] == pytest.approx(2 * clocks["a.first"])
    assert still.split_pj["a/clock"] == 0
    assert sum(clocks.values()) == pytest.approx(
        sum(value for name, value in still.split_pj.items() if name.endswith("/clock"))
    )


def test_owners_must_be_as_many(tree, library):
    netlist = Netlist(tree.mapped, library)
    classes = ["any"] * len(netlist.instances)
    with pytest.raises(ValueError, match=r"owners must have one entry for each of .*, not 1"):
        EnergyModel(netlist, classes, clock_ns=1.0, owners=["a"])


def test_fastest_attempt(read, library, monkeypatch):
    """A clock that nothing meets: the fastest of all attempts is taken, not the last."""
    modules = read(
        "module add(input [5:0] a, b, output [5:0] y); assign y = a + b; endmodule\n"
        "module top(input clk, input [5:0] a, b, output reg [5:0] y); wire [5:0] s;"
        "add u(.a(a), .b(b), .y(s)); always @(posedge clk) y <= s; endmodule"
    )
    recipe = RECIPES["default"]
    small, fast = recipe.attempts[0], recipe.attempts[4]

    def path_ns(*attempts):
        monkeypatch.setitem(RECIPES, "default", replace(recipe, attempts=attempts))
        found = map_hierarchy(modules, "top", library, clock_ns=0.01)
        assert set(found.owners) == {"", "u"}
        return analyse(found.mapped.module, library).critical_path_ns

    assert path_ns(fast, small) < 0.9 * path_ns(small)


def test_bad_modules(read, library):
    modules = read(SOURCE)
    other = copy.deepcopy(modules)
    name = next(name for name in other if name.startswith("wires"))
    other[name]["ports"]["i"]["direction"] = "inout"
    with pytest.raises(ValueError, match=r"port i of wires.* must be an input or an output"):
        map_hierarchy(other, "top", library, clock_ns=2.0)
    with pytest.raises(YosysError, match=r"took longer than 0\.001 s to map top"):
        map_hierarchy(modules, "top", library, clock_ns=2.0, timeout_s=0.001)


def test_two_instances_of_one_path(read, library):
    modules = read(
        "module inner(input a, output y); assign y = ~a; endmodule\n"
        "module outer(input a, output y); inner b(.a(a), .y(y)); endmodule\n"
        "module top(input a, output y, z); outer a_(.a(a), .y(y));"
        "inner \\a_.b (.a(a), .y(z)); endmodule",
        reader="yosys",
    )
    with pytest.raises(ValueError, match=r"paths of their own, not both a_\.b"):
        map_hierarchy(modules, "top", library, clock_ns=2.0)


def test_names_that_slang_has_no_modules_for(read):
    with pytest.raises(ForeignError, match="hierarchy must be left out for top, whose modules"):
        read(
            "module inner(input a, output y); assign y = ~a; endmodule\n"
            "module top(input a, output y); inner \\a.b (.a(a), .y(y)); endmodule"
        )


def test_constants_without_cells_for_them(read, tmp_path):
    """They go in and out of modules as they are where the library has no cells that make them."""
    path = tmp_path / "tiny.lib"
    path.write_text(liberty(*BASICS))
    tiny = load(path)
    assert not tiny.of_kind("tie0")
    modules = read(
        "module inner(input a, b, output y, low, high);"
        "assign y = ~(a & b); assign low = 1'b0; assign high = 1'b1; endmodule\n"
        "module top(input x, output y, n, low, high); wire unused, same;"
        "inner u(.a(x), .b(1'b1), .y(y), .low(low), .high(high));"
        "inner v(.a(x), .b(1'b0), .y(n), .low(unused), .high(same)); endmodule"
    )
    found = map_hierarchy(modules, "top", tiny, clock_ns=1000.0)
    simulator = Simulator(Netlist(found.mapped, tiny), 2)
    simulator.step({"x": pack([0, 1], 1)})
    values = {
        name: unpack(simulator.settled(name), 2).tolist() for name in ("y", "n", "low", "high")
    }
    assert values == {"y": [1, 0], "n": [1, 1], "low": [0, 0], "high": [1, 1]}
