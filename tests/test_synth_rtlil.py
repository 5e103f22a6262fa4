"""RTLIL is read completely, or refused by name."""

import re

import pytest
from amaranth.back import rtlil as amaranth_rtlil

from synth.rtlil import (
    Assignment,
    Bits,
    Case,
    Chunk,
    Memory,
    RtlilError,
    Switch,
    flatten,
    parse,
)
from tests import verilog_samples as samples

MODULE = r"""
attribute \generator "Amaranth"
attribute \top 1
module \unit

  attribute \init 4'1010
  attribute \note "a \"quoted\" \\ word\n"
  wire width 4 \state

  wire width 9 input 0  signed \a[1].b

  wire width 1 output 12  \y

  wire width 0 \nothing

  wire $1

  memory width 8 size 16 \table

  attribute \keep 1
  cell $dff $2
    parameter \WIDTH 4
    parameter \CLK_POLARITY 1
    parameter \INIT_VALUE 4'xxxx
    parameter \NAME "\\table"
    parameter signed \LESS 8'11111101
    parameter real \RATIO "2.5"
    connect \D { \a[1].b [8] 2'01 \state [0] }
    connect \CLK \y [0]
    connect \NONE {  }
    connect \Q \state
  end

  process $3
    assign $1 1'0
    switch { \state [2] \state [3:2] }
      case 3'1--, 3'-11
        assign $1 \y [0]
        switch {}
          case
            assign $1 1'1
        end
      case 3'000
      case
        assign $1 \a[1].b [0]
    end
  end

connect \y $1
connect \nothing {  }
connect { } { }

end

module \other

end
"""


@pytest.fixture(scope="module")
def unit():
    return parse(MODULE)["unit"]


def test_modules_keep_their_order():
    assert list(parse(MODULE)) == ["unit", "other"]
    assert parse("") == {}


def test_wires(unit):
    assert list(unit.wires) == ["state", "a[1].b", "y", "nothing", "$1"]
    state, a, y = (unit.wires[name] for name in ("state", "a[1].b", "y"))
    assert (state.width, state.signed, state.port) == (4, False, None)
    assert (a.width, a.signed, a.port) == (9, True, "input")
    assert (y.width, y.signed, y.port) == (1, False, "output")
    assert unit.wires["$1"].width == 1
    assert unit.wires["nothing"].width == 0


def test_attributes_belong_to_what_follows_them(unit):
    assert unit.wires["state"].attributes == {
        "init": Bits(0b1010, 4),
        "note": 'a "quoted" \\ word\n',
    }
    assert unit.wires["y"].attributes == {}
    assert unit.cells[0].attributes == {"keep": 1}


def test_a_name_that_looks_like_a_temporary_is_none():
    module = parse("module \\m\nwire \\$1\nwire $1\nend")["m"]
    assert list(module.wires) == ["\\$1", "$1"]


def test_memories(unit):
    assert unit.memories == {"table": Memory("table", 8, 16)}


def test_cells(unit):
    (cell,) = unit.cells
    assert (cell.kind, cell.name) == ("$dff", "$2")
    assert cell.parameters == {
        "WIDTH": 4,
        "CLK_POLARITY": 1,
        "INIT_VALUE": "4'xxxx",
        "NAME": "\\table",
        "LESS": -3,
        "RATIO": 2.5,
    }
    # The most significant part is written first, and comes last.
    assert cell.connections == {
        "D": (Chunk("state", 0, 1), Bits(1, 2), Chunk("a[1].b", 8, 1)),
        "CLK": (Chunk("y", 0, 1),),
        "NONE": (),
        "Q": (Chunk("state", 0, 4),),
    }
    assert cell.outputs == {"Q"}


def test_processes(unit):
    target = (Chunk("$1", 0, 1),)
    (process,) = unit.processes
    assert process.name == "$3"
    first, switch = process.body
    assert first == Assignment(target, (Bits(0, 1),))
    assert switch == Switch(
        (Chunk("state", 2, 2), Chunk("state", 2, 1)),
        [
            Case(
                ("1--", "-11"),
                [
                    Assignment(target, (Chunk("y", 0, 1),)),
                    Switch((), [Case((), [Assignment(target, (Bits(1, 1),))])]),
                ],
            ),
            Case(("000",), []),
            Case((), [Assignment(target, (Chunk("a[1].b", 0, 1),))]),
        ],
    )


def test_connections(unit):
    assert unit.connections == [
        Assignment((Chunk("y", 0, 1),), (Chunk("$1", 0, 1),)),
        Assignment((), ()),
        Assignment((), ()),
    ]


REFUSED = {
    "hello": ["hello"],
    "wire": ["module \\m", "wire \\a", "end", "wire \\b"],
    "the end of the text": ["module \\m", "wire \\a"],
    "autoidx 3": ["module \\m", "autoidx 3"],
    "the wire option 'upto'": ["module \\m", "wire upto \\a"],
    "the wire option 'inout'": ["module \\m", "wire width 2 inout 0 \\a"],
    "the memory 'width 8 offset 1 size 4": ["module \\m", "memory width 8 offset 1 size 4 \\a"],
    "'set' in a cell": ["module \\m", "cell $add $1", "set \\A 1"],
    "'sync' in a process": ["module \\m", "process $1", "sync always"],
    "'case' in a process": ["module \\m", "process $1", "case 1'1"],
    "'assign' in a switch": [
        *("module \\m", "wire \\a", "process $1", "switch \\a", "assign \\a 1'1"),
    ],
    '"1\'1" after an assignment': ["module \\m", "wire \\a", "connect \\a 1'0 1'1"],
    "a missing signal": ["module \\m", "wire \\a", "connect \\a"],
    "'[0]' after a signal": [
        *("module \\m", "wire \\a", "cell $not $1", "connect \\A \\a [0] [0]"),
    ],
    r"the unknown wire '\\b'": ["module \\m", "wire \\a", "connect \\a \\b"],
    'the constant "1\'x"': ["module \\m", "wire \\a", "connect \\a 1'x"],
    "the constant '-3'": ["module \\m", "cell $add $1", "parameter \\A -3"],
}


@pytest.mark.parametrize("what", REFUSED)
def test_anything_else_is_refused_by_name(what):
    with pytest.raises(
        RtlilError, match=rf"RTLIL line \d+ must be what Amaranth writes, not .*{re.escape(what)}"
    ):
        parse("\n".join(REFUSED[what]))


def test_the_line_is_named():
    with pytest.raises(RtlilError, match="RTLIL line 4 must be"):
        parse("module \\m\n\n  wire \\a\n  wire upto \\b\nend\n")


@pytest.mark.parametrize(
    "make",
    [samples.Statements, samples.Registers, samples.Domains, samples.Tables, samples.Nested],
)
def test_what_amaranth_writes_is_read_without_loss(make):
    text = amaranth_rtlil.convert(make(), name="sample", emit_src=False)
    modules = parse(text).values()
    counts = {
        "wire": sum(len(module.wires) for module in modules),
        "cell": sum(len(module.cells) for module in modules),
        "process": sum(len(module.processes) for module in modules),
        "memory": sum(len(module.memories) for module in modules),
    }
    words = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert counts == {word: words.count(word) for word in counts}
    bodies = [process.body for module in modules for process in module.processes]
    assert sum(map(_assignments, bodies)) == words.count("assign")
    # Connections of cells are indented like the modules' own.
    connected = sum(len(cell.connections) for module in modules for cell in module.cells)
    assert connected + sum(len(module.connections) for module in modules) == words.count("connect")


def _assignments(body):
    return sum(
        1
        if isinstance(statement, Assignment)
        else sum(_assignments(case.body) for case in statement.cases)
        for statement in body
    )


NESTED = r"""
module \top
  wire width 4 input 0 \a
  wire width 4 output 1 \y
  cell \leaf \inner
    connect \x \a [3:0]
    connect \z \y
  end
  cell \foreign \box
    connect \i \a [0]
  end
end
module \leaf
  wire width 4 input 0 \x
  wire width 4 output 1 \z
  wire width 4 $1
  memory width 4 size 2 \store
  cell $memrd_v2 $2
    parameter \MEMID "\\store"
    connect \ADDR \x [0]
    connect \DATA $1
  end
  process $3
    assign \z [3:0] 4'0000
    switch \x [1]
      case 1'1
        assign \z [3:0] $1 [3:0]
    end
  end
end
"""


def test_instances_of_known_modules_are_flattened():
    top = flatten(parse(NESTED), "top")
    assert [cell.kind for cell in top.cells] == ["$memrd_v2", "foreign"]
    assert top.cells[0].parameters == {"MEMID": "inner/store"}
    assert top.cells[0].connections["ADDR"] == (Chunk("inner/x", 0, 1),)
    assert top.cells[0].outputs == {"DATA"}
    assert list(top.memories) == ["inner/store"]
    assert top.wires["inner/x"].port is None
    assert Assignment((Chunk("inner/x", 0, 4),), (Chunk("a", 0, 4),)) in top.connections
    assert Assignment((Chunk("y", 0, 4),), (Chunk("inner/z", 0, 4),)) in top.connections
    (process,) = top.processes
    assert process.body[0] == Assignment((Chunk("inner/z", 0, 4),), (Bits(0, 4),))
    assert process.body[1].selector == (Chunk("inner/x", 1, 1),)
    temporary = process.body[1].cases[0].body[0].value[0].wire
    assert temporary.startswith("$")
    assert temporary in top.wires
