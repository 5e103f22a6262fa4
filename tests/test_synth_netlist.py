"""Netlists by hand: names, drivers, levels, loads, and the classes of cells."""

import pytest

from synth.cells import Cell, CellLibrary, FlipFlop, Pin
from synth.liberty import Function
from synth.netlist import CONSTANT_0, CONSTANT_1, CellClass, Netlist, cell_models, classify
from tests.hand_netlists import hand_mapped


def cell(name, inputs, caps, area=1.0, **outputs):
    """Build a cell from one letter per input, one capacitance each, and functions by output."""
    pins = {
        pin: Pin(name=pin, direction="input", cap_ff=cap)
        for pin, cap in zip(inputs, caps, strict=True)
    }
    pins |= {
        pin: Pin(name=pin, direction="output", function=Function(text))
        for pin, text in outputs.items()
    }
    return Cell(name=name, area_um2=area, leakage_nw=1.0, pins=pins)


def flip_flop(name, edge="rising", **controls):
    pins = {
        "D": Pin(name="D", direction="input", cap_ff=3.0),
        "C": Pin(name="C", direction="input", cap_ff=4.0, is_clock=True),
        "Q": Pin(name="Q", direction="output", function=Function("IQ")),
        "N": Pin(name="N", direction="output", function=Function("IQN")),
    }
    pins |= {
        function.text: Pin(name=function.text, direction="input", cap_ff=5.0)
        for function in controls.values()
    }
    ff = FlipFlop(
        clock="C",
        clock_edge=edge,
        next_state=Function("D"),
        state="IQ",
        inverted_state="IQN",
        **controls,
    )
    return Cell(name=name, area_um2=9.0, leakage_nw=1.0, pins=pins, ff=ff)


LIBRARY = CellLibrary(
    name="hand",
    version="",
    source="",
    licence="",
    voltage_v=1.0,
    temperature_c=25.0,
    cells={
        each.name: each
        for each in (
            cell("INV", "A", [1.0], Y="!A"),
            cell("AND", "AB", [1.5, 2.0], area=2.0, Y="A & B"),
            cell("ADD", "ABC", [7.0, 8.0, 9.0], area=4.0, S="A ^ B ^ C", K="A & B | C & (A | B)"),
            flip_flop("DFF"),
            flip_flop("FALL", edge="falling"),
            flip_flop("CLEARED", clear=Function("R")),
        )
    },
)


def mapped(ports, cells, names=None):
    """A mapped netlist from ``name: (direction, bits)`` and ``name: (type, pin=bits)``."""
    kinds = {"Y": "output", "S": "output", "K": "output", "Q": "output", "N": "output"}
    module = {
        "ports": {
            name: {"direction": direction, "bits": bits}
            for name, (direction, bits) in ports.items()
        },
        "cells": {
            name: {
                "type": kind,
                "port_directions": {pin: kinds.get(pin, "input") for pin in pins},
                "connections": {
                    pin: bits if isinstance(bits, list) else [bits] for pin, bits in pins.items()
                },
            }
            for name, (kind, pins) in cells.items()
        },
        "netnames": {
            name: {"hide_name": name.startswith("$"), "bits": bits}
            for name, bits in (names or {}).items()
        },
    }
    return hand_mapped(module)


# y = !(a[0] & !a[1]) after three levels, and a register of a[0] & 1.
SMALL = mapped(
    {"clk": ("input", [2]), "a": ("input", [10, 11]), "y": ("output", [14]), "z": ("output", [16])},
    {
        "last": ("INV", {"A": 13, "Y": 14}),
        "gate": ("AND", {"A": 10, "B": 12, "Y": 13}),
        "first": ("INV", {"A": 11, "Y": 12}),
        "mask": ("AND", {"A": 10, "B": "1", "Y": 15}),
        "bit": ("DFF", {"D": 15, "C": 2, "Q": 16}),
    },
    {"$auto$3": [12], "long_name": [13], "ab": [13, 16], "y": [14], "q": [16], "gone": [99]},
)


def number(netlist, bit):
    return netlist.yosys_bits.index(bit)


def test_structure():
    netlist = Netlist(SMALL, LIBRARY)
    assert netlist.top == "hand"
    assert netlist.net_count == 2 + 8
    assert [instance.name for instance in netlist.instances] == [
        "last",
        "gate",
        "first",
        "mask",
        "bit",
    ]
    assert netlist.ports["a"].nets == (number(netlist, 10), number(netlist, 11))
    assert netlist.ports["y"].direction == "output"
    assert netlist.registers == [4]
    assert netlist.blackboxes == []
    assert netlist.clock == number(netlist, 2)
    assert netlist.area_um2 == 1 + 2 + 1 + 2 + 9
    assert netlist.cells_by_type == {"AND": 2, "DFF": 1, "INV": 2}

    assert netlist.drivers[number(netlist, 13)] == (1, "Y")
    assert netlist.drivers[number(netlist, 10)] is None
    assert netlist.drivers[CONSTANT_1] is None
    assert netlist.sinks[number(netlist, 10)] == [(1, "A"), (3, "A")]
    assert netlist.sinks[CONSTANT_1] == [(3, "B")]
    assert netlist.instances[4].inputs == {"D": number(netlist, 15), "C": number(netlist, 2)}
    assert netlist.instances[4].ff is LIBRARY.cells["DFF"].ff
    assert netlist.instances[0].ff is None


def test_levels_and_order():
    netlist = Netlist(SMALL, LIBRARY)
    assert netlist.levels.tolist() == [3, 2, 1, 1, 0]
    assert sorted(netlist.order) == [0, 1, 2, 3]
    place = {index: position for position, index in enumerate(netlist.order)}
    assert place[2] < place[1] < place[0]


def test_names():
    """The shortest name that the source gave; one that Yosys made if there is no other."""
    netlist = Netlist(SMALL, LIBRARY)
    names = {bit: netlist.net_names[number(netlist, bit)] for bit in (12, 13, 14, 16)}
    assert names == {12: "$auto$3", 13: "ab[0]", 14: "y", 16: "q"}
    assert netlist.bits("a") == netlist.ports["a"].nets
    assert netlist.bits("ab") == (number(netlist, 13), number(netlist, 16))
    for name in ("gone", "nothing"):
        with pytest.raises(
            ValueError,
            match=f"name must be a port or signal of hand that mapping has kept, not '{name}'",
        ):
            netlist.bits(name)


def test_loads():
    """Pins of sinks, wires to pins and ports, loads of ports; by hand."""
    netlist = Netlist(SMALL, LIBRARY)

    def by_bit(loads):
        return {bit: loads[number(netlist, bit)] for bit in (2, 10, 11, 12, 13, 14, 15, 16)}

    assert by_bit(netlist.loads_ff()) == {
        2: 4.0,
        10: 1.5 + 1.5,
        11: 1.0,
        12: 2.0,
        13: 1.0,
        14: 0.0,
        15: 3.0,
        16: 0.0,
    }
    loads = netlist.loads_ff(wire_cap_ff=0.25, output_load_ff=10.0)
    assert by_bit(loads) == {
        2: 4.25,
        10: 3.5,
        11: 1.25,
        12: 2.25,
        13: 1.25,
        14: 10.25,
        15: 3.25,
        16: 10.25,
    }
    assert loads[[CONSTANT_0, CONSTANT_1]].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"wire_cap_ff must not be negative, not -1\.0"):
        netlist.loads_ff(wire_cap_ff=-1.0)
    with pytest.raises(ValueError, match="output_load_ff must not be negative, not nan"):
        netlist.loads_ff(output_load_ff=float("nan"))


def test_undefined_constants_are_zero():
    source = mapped(
        {"a": ("input", [5]), "y": ("output", [6, "x", "1", "z", "0"])},
        {"gate": ("AND", {"A": "x", "B": 5, "Y": 6})},
    )
    netlist = Netlist(source, LIBRARY)
    assert netlist.instances[0].inputs["A"] == CONSTANT_0
    assert netlist.ports["y"].nets[1:] == (CONSTANT_0, CONSTANT_1, CONSTANT_0, CONSTANT_0)


def test_cell_with_two_outputs():
    source = mapped(
        {"a": ("input", [5, 6, 7]), "y": ("output", [8, 10])},
        {
            "low": ("ADD", {"A": 5, "B": 6, "C": 7, "S": 8, "K": 9}),
            "high": ("INV", {"A": 9, "Y": 10}),
        },
    )
    netlist = Netlist(source, LIBRARY)
    assert netlist.levels.tolist() == [1, 2]
    assert [netlist.drivers[net] for net in netlist.ports["y"].nets] == [(0, "S"), (1, "Y")]


def test_black_box():
    source = mapped(
        {"a": ("input", [5, 6]), "y": ("output", [9])},
        {
            "gate": ("INV", {"A": 8, "Y": 9}),
            "box": ("UNKNOWN", {"i": [5, 6], "Y": [7, 8]}),
        },
    )
    netlist = Netlist(source, LIBRARY)
    assert netlist.blackboxes == [1]
    box = netlist.instances[1]
    assert (box.cell, box.ff, box.type) == (None, None, "UNKNOWN")
    assert box.inputs == dict(zip(("i[0]", "i[1]"), netlist.ports["a"].nets, strict=True))
    assert netlist.drivers[number(netlist, 8)] == (1, "Y[1]")
    assert netlist.levels.tolist() == [1, 0]
    assert netlist.order == [0]
    assert netlist.area_um2 == 1.0
    assert netlist.loads_ff()[number(netlist, 5)] == 0.0
    assert netlist.clock is None


def test_asynchronous_clear_orders_the_flip_flop():
    """The output of a flip-flop follows its clear at once, but not its data."""
    source = mapped(
        {"clk": ("input", [2]), "r": ("input", [3]), "y": ("output", [7])},
        {
            "bit": ("CLEARED", {"D": 7, "C": 2, "R": 4, "Q": 5}),
            "clear": ("INV", {"A": 3, "Y": 4}),
            "back": ("INV", {"A": 5, "Y": 7}),
        },
    )
    netlist = Netlist(source, LIBRARY)
    assert netlist.order == [1, 0, 2]
    assert netlist.levels.tolist() == [2, 1, 3]
    assert netlist.registers == [0]


def test_flip_flop_waits_for_its_clear_not_for_its_data():
    source = mapped(
        {"clk": ("input", [2]), "a": ("input", [3]), "y": ("output", [8])},
        {
            "bit": ("CLEARED", {"D": 4, "C": 2, "R": 6, "Q": 7}),
            "data": ("INV", {"A": 3, "Y": 4}),
            "clear_1": ("INV", {"A": 3, "Y": 5}),
            "clear_2": ("INV", {"A": 5, "Y": 6}),
            "after": ("INV", {"A": 7, "Y": 8}),
        },
    )
    netlist = Netlist(source, LIBRARY)
    assert netlist.levels.tolist() == [3, 1, 1, 2, 4]
    assert netlist.order[-2:] == [0, 4]


REFUSED = {
    "two drivers": (
        {"a": ("input", [5]), "y": ("output", [6])},
        {"one": ("INV", {"A": 5, "Y": 6}), "two": ("INV", {"A": 5, "Y": 6})},
        r"net y must have one driver, not also two\.Y",
    ),
    "driven port": (
        {"a": ("input", [5]), "y": ("output", [5])},
        {"one": ("INV", {"A": 5, "Y": 5})},
        r"net y must have one driver, not also one\.Y",
    ),
    "driven constant": (
        {"a": ("input", [5])},
        {"one": ("INV", {"A": 5, "Y": "1"})},
        r"net 1'b1 must have one driver, not also one\.Y",
    ),
    "no driver": (
        {"y": ("output", [6])},
        {"one": ("AND", {"A": 5, "B": "1", "Y": 6})},
        "net  must have a driver, not none",
    ),
    "no driver of a port": (
        {"y": ("output", [6])},
        {},
        "net y must have a driver, not none",
    ),
    "inout": (
        {"y": ("inout", [6])},
        {},
        "port y must be an input or an output, not an inout",
    ),
    "unknown pin": (
        {"a": ("input", [5])},
        {"one": ("INV", {"B": 5, "Y": 6})},
        "instance one must have pins of INV only, not 'B'",
    ),
    "loop": (
        {"a": ("input", [5]), "y": ("output", [8])},
        {
            "one": ("AND", {"A": 5, "B": 7, "Y": 6}),
            "two": ("INV", {"A": 6, "Y": 7}),
            "after": ("INV", {"A": 7, "Y": 8}),
        },
        "netlist hand must have no combinational loop, not one through after, one, two$",
    ),
    "loop through a clear": (
        {"clk": ("input", [2]), "y": ("output", [5])},
        {
            "bit": ("CLEARED", {"D": "1", "C": 2, "R": 6, "Q": 5}),
            "back": ("INV", {"A": 5, "Y": 6}),
        },
        "netlist hand must have no combinational loop, not one through back, bit",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    ports, cells, message = REFUSED[name]
    names = {"y": ports["y"][1]} if "y" in ports else {}
    with pytest.raises(ValueError, match=message):
        Netlist(mapped(ports, cells, names), LIBRARY)


def test_long_loop_is_cut_short():
    cells = {f"i{index}": ("INV", {"A": 10 + index, "Y": 11 + index}) for index in range(8)}
    cells["i8"] = ("INV", {"A": 18, "Y": 10})
    with pytest.raises(ValueError, match=r"not one through i0, i1, i2, i3 and more$"):
        Netlist(mapped({}, cells), LIBRARY)


def test_loop_through_a_register_is_none():
    cells = {
        "bit": ("DFF", {"D": 6, "C": 2, "Q": 5}),
        "back": ("INV", {"A": 5, "Y": 6}),
    }
    assert Netlist(mapped({"clk": ("input", [2])}, cells), LIBRARY).order == [1]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("DFF", {"D": 4, "C": 3, "Q": 6}), "must share one clock and edge, not differ as one and"),
        (("FALL", {"D": 4, "C": 2, "Q": 6}), "registers of hand must share one clock and edge"),
    ],
)
def test_one_clock(second, message):
    ports = {"clk": ("input", [2, 3]), "a": ("input", [4]), "y": ("output", [5, 6])}
    cells = {"one": ("DFF", {"D": 4, "C": 2, "Q": 5}), "two": second}
    netlist = Netlist(mapped(ports, cells), LIBRARY)
    with pytest.raises(ValueError, match=message):
        _ = netlist.clock


def test_clock_from_a_gate():
    ports = {"clk": ("input", [2]), "a": ("input", [4]), "y": ("output", [5])}
    cells = {"gate": ("INV", {"A": 2, "Y": 3}), "one": ("DFF", {"D": 4, "C": 3, "Q": 5})}
    netlist = Netlist(mapped(ports, cells, {"gated": [3]}), LIBRARY)
    with pytest.raises(ValueError, match="clock of hand must be an input port, not gated"):
        _ = netlist.clock


# A multiply-accumulate unit of one-bit operands, one gate of each kind.  Bits: 2 clk, 3 en, 4 a,
# 5 b; registers 6 x, 7 w, 8 product, 9 acc.
UNIT_PORTS = {
    "clk": ("input", [2]),
    "en": ("input", [3]),
    "a": ("input", [4]),
    "b": ("input", [5]),
    "y": ("output", [20]),
    "parity": ("output", [27]),
    "tapped": ("output", [28]),
}
UNIT_CELLS = {
    # Operands are held at their registers by the enable.
    "load_x": ("AND", {"A": 4, "B": 3, "Y": 10}),
    "reg_x": ("DFF", {"D": 10, "C": 2, "Q": 6}),
    "reg_w": ("DFF", {"D": 5, "C": 2, "Q": 7}),
    # Decoding looks at one operand alone.
    "decode_x": ("INV", {"A": 6, "Y": 11}),
    "multiply": ("AND", {"A": 11, "B": 7, "Y": 12}),
    "reg_p": ("DFF", {"D": 12, "C": 2, "Q": 8}),
    # Logic on the product, behind its register.
    "product_2": ("INV", {"A": 8, "Y": 13}),
    "enable_1": ("INV", {"A": 3, "Y": 14}),
    "enable_2": ("INV", {"A": 14, "Y": 15}),
    "add": ("ADD", {"A": 13, "B": 9, "C": 15, "S": 16, "K": 21}),
    "next": ("AND", {"A": 16, "B": 21, "Y": 17}),
    "reg_acc": ("DFF", {"D": 17, "C": 2, "Q": 9}),
    "out": ("INV", {"A": 9, "Y": 20}),
    # The sum leaves through registers of its own.
    "reg_d": ("DFF", {"D": 9, "C": 2, "Q": 30}),
    "shift": ("AND", {"A": 30, "B": 3, "Y": 31}),
    "reg_e": ("DFF", {"D": 31, "C": 2, "Q": 32}),
    # Loads a register, but does something else as well.
    "tap": ("AND", {"A": 5, "B": 3, "Y": 28}),
    "reg_t": ("DFF", {"D": 28, "C": 2, "Q": 33}),
    # Steers nothing, comes from nothing.
    "parity_1": ("INV", {"A": 3, "Y": 27}),
}
UNIT_NAMES = {"x": [6], "w": [7], "product": [8], "acc": [9]}


def classes(decoders):
    netlist = Netlist(mapped(UNIT_PORTS, UNIT_CELLS, UNIT_NAMES), LIBRARY)
    found = classify(
        netlist,
        operands={"activation": ["a", "x"], "weight": ["b", "w"]},
        accumulators=["acc"],
        decoders=decoders,
    )
    return {cell.name: kind for cell, kind in zip(netlist.instances, found, strict=True)}


COMMON = {
    "reg_x": CellClass.REGISTERS,
    "reg_w": CellClass.REGISTERS,
    "reg_p": CellClass.REGISTERS,
    "reg_acc": CellClass.REGISTERS,
    "reg_d": CellClass.REGISTERS,
    "reg_e": CellClass.REGISTERS,
    "reg_t": CellClass.REGISTERS,
    "shift": CellClass.REGISTERS,
    "multiply": CellClass.MULTIPLY,
    "product_2": CellClass.MULTIPLY,
    "enable_1": CellClass.ACCUMULATE,
    "enable_2": CellClass.ACCUMULATE,
    "add": CellClass.ACCUMULATE,
    "next": CellClass.ACCUMULATE,
    "out": CellClass.ACCUMULATE,
    "parity_1": CellClass.MULTIPLY,
}


def test_classes():
    assert classes(decoders=False) == COMMON | {
        "load_x": CellClass.REGISTERS,
        "decode_x": CellClass.MULTIPLY,
        "tap": CellClass.MULTIPLY,
    }


def test_classes_with_decoders():
    assert classes(decoders=True) == COMMON | {
        "load_x": CellClass.DECODE,
        "decode_x": CellClass.DECODE,
        "tap": CellClass.DECODE,
    }


def test_classes_do_not_depend_on_order():
    turned = dict(reversed(UNIT_CELLS.items()))
    netlist = Netlist(mapped(UNIT_PORTS, turned, UNIT_NAMES), LIBRARY)
    found = classify(
        netlist,
        operands={"weight": ["w", "b"], "activation": ["x", "a"]},
        accumulators=["acc"],
        decoders=True,
    )
    by_name = {cell.name: kind for cell, kind in zip(netlist.instances, found, strict=True)}
    assert by_name == classes(decoders=True)


def test_classes_name_unknown_signals():
    netlist = Netlist(mapped(UNIT_PORTS, UNIT_CELLS, UNIT_NAMES), LIBRARY)
    with pytest.raises(ValueError, match="not 'sum'"):
        classify(netlist, operands={}, accumulators=["sum"])
    with pytest.raises(ValueError, match="not 'c'"):
        classify(netlist, operands={"weight": ["c"]}, accumulators=["acc"])


def test_names_of_classes():
    names = ["decode", "multiply", "accumulate", "registers", "clock"]
    assert [str(kind) for kind in CellClass] == names


def test_models_of_cells():
    text = cell_models(LIBRARY, ["ADD", "CLEARED"])
    assert (
        text
        == """\
module ADD(A, B, C, S, K);
  input A;
  input B;
  input C;
  output S;
  output K;
  assign S = A^B^C;
  assign K = (A&B)|(C&(A|B));
endmodule

module CLEARED(D, C, R, Q, N);
  input D;
  input C;
  input R;
  output Q;
  output N;
  reg IQ;
  initial IQ = 0;
  wire IQN = ~IQ;
  wire clear_ = R;
  always @(posedge C or posedge clear_) if (clear_) IQ <= 0; else IQ <= D;
  assign Q = IQ;
  assign N = IQN;
endmodule
"""
    )
    assert "always @(negedge C) IQ <= D;" in cell_models(LIBRARY, ["FALL"])
    assert "initial IQ = $random;" in cell_models(LIBRARY, ["FALL"], any_state=True)
    with pytest.raises(ValueError, match="names must be cells of hand, not 'NAND'"):
        cell_models(LIBRARY, ["INV", "NAND"])
