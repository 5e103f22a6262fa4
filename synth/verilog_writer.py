"""Readable Verilog-2005 of one module.

Names that a designer gave are kept, expressions are written as a person would write them, and
statements keep their ``if`` and ``case``.  Every operand of an expression has the width of its
result, and whatever depends on a sign says so; see :mod:`synth.verilog_logic`.
"""

import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from synth import rtlil
from synth.verilog_builder import build
from synth.verilog_expressions import (
    COLUMNS,
    Node,
    as_signed,
    as_unsigned,
    chain,
    concat,
    flat,
    group,
    layout,
    leaf,
    number,
    ternary,
    unary,
)
from synth.verilog_logic import (
    Assign,
    Choice,
    Instance,
    MemoryArray,
    Net,
    Number,
    Operator,
    Part,
    Pin,
    ReadPort,
    Register,
    Value,
    WritePort,
    slice_of,
    width_of,
)
from synth.verilog_names import plain_name
from synth.verilog_plan import Block, Item, Plan, is_clocked, whole_net
from synth.verilog_simplify import simplify
from synth.verilog_statements import Case, If, Line

__all__ = ["VerilogModule", "write_module"]

_SYMBOLS = {
    "and": "&",
    "or": "|",
    "xor": "^",
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "mod": "%",
    "shl": "<<",
    "shr": ">>",
    "sshr": ">>>",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
_PREFIXES = {"not": "~", "neg": "-", "any": "|", "all": "&", "parity": "^"}


@dataclass
class VerilogModule:
    """Text of a module, and the memory images that it reads.

    Attributes
    ----------
    name : str
        Name of the module.
    text : str
        Verilog-2005.
    inputs : list of str
        Inputs by the names that they have in the RTLIL, in order.
    files : dict of str to str
        Text of each file that ``$readmemh`` loads, by file name.
    """

    name: str
    text: str
    inputs: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


def write_module(
    module: rtlil.Module,
    *,
    ports: Sequence[str] = (),
    optional: Collection[str] = (),
    header: Sequence[str] = (),
    states: Mapping[str, Mapping[int, str]] | None = None,
    hidden: Collection[str] = (),
) -> VerilogModule:
    """Write ``module`` as Verilog.

    Parameters
    ----------
    module : rtlil.Module
        What to write.
    ports : sequence of str
        Order of the ports; inputs come before outputs all the same.
    optional : collection of str
        Inputs that are left out if nothing uses them.
    header : sequence of str
        Paragraphs of the comment above the module.
    states : mapping of str to mapping of int to str, optional
        Names of the values of a wire, by the name of the wire.
    hidden : collection of str
        Wires that only repeat ports of instances; they are named after instance and port.

    Raises
    ------
    ValueError
        If the module has a cell that has no plain Verilog, or a combinational loop.
    """
    logic = build(module)
    simplify(logic)
    plan = Plan(logic, states or {}, frozenset(hidden))
    logic.inputs = [net for net in logic.inputs if net in plan.used or net.name not in optional]
    return _Writer(plan, ports, header).module()


class _Writer:
    """Text of a module that has been planned."""

    def __init__(self, plan: Plan, ports: Sequence[str], header: Sequence[str]) -> None:
        self._plan = plan
        self._logic = plan.logic
        self._header = header
        self._order = {name: position for position, name in enumerate(ports)}
        # Enumeration, value and width by name.
        self._labels: dict[str, tuple[str, int, int]] = {}

    def module(self) -> VerilogModule:
        """Write everything."""
        # Names of states are collected while the body is written.
        body = [self._item(item) for item in self._plan.items]
        for memory in self._logic.memories.values():
            body += self._memory(memory)
        body.append(self._output_assignments())
        sections = [
            self._local_parameters(),
            self._declarations(),
            self._contents(),
            *_sections(body),
        ]

        lines = [
            f"// {line}"
            for text in self._header
            for line in textwrap.wrap(text.encode("ascii", "replace").decode(), COLUMNS - 3)
        ]
        lines += self._port_list()
        for section in sections:
            if section:
                lines += ["", *_indented(section)]
        lines += ["endmodule", ""]
        images = {
            self._image(memory): _memory_image(memory)
            for memory in self._logic.memories.values()
            if not memory.starts_as_zeros
        }
        inputs = [net.name or "" for net in self._logic.inputs]
        return VerilogModule(self._logic.name, "\n".join(lines), inputs, images)

    # ----------------------------------------------------------------------------- expressions

    def _expression(self, value: Value, target: Net | None = None) -> Node:
        """Write ``value``; constants as suits ``target`` if that is to take them."""
        match value:
            case (Number(),) if target is not None:
                return self._constant(value, target)
            case (Part(net, _, _),) if net in self._plan.inlined:
                return self._operation(net, target)
        return concat([self._part(part) for part in reversed(value)])

    def _part(self, part: Number | Part) -> Node:
        if isinstance(part, Number):
            return number(part.value, part.width)
        net = part.net
        if net in self._plan.inlined:
            return self._operation(net)
        name = self._plan.names[net]
        if part.width == net.width:
            # A single bit is declared without a sign.
            return leaf(name, net.signed and net.width > 1)
        return leaf(f"{name}{_range(part.low, part.width)}")

    def _constant(self, value: Value, target: Net) -> Node:
        """Write a constant that ``target`` takes or is compared with: by name or with its sign."""
        number_ = value[0]
        assert isinstance(number_, Number)
        bits, width = number_
        if width == target.width and (label := self._plan.label(target, bits)):
            base, name = label
            # Another enumeration may have given this name to another value.
            if self._labels.setdefault(name, (base, bits, width))[1:] == (bits, width):
                return leaf(name)
        negative = target.signed and width == target.width and bits >> width - 1
        return number(bits, width, signed=bool(negative))

    def _operation(self, net: Net, target: Net | None = None) -> Node:
        """Write the operator that drives ``net``."""
        source = net.source
        if isinstance(source, ReadPort):
            memory = self._plan.memories[source.memory]
            return leaf(f"{memory}[{self._flat(source.address)}]")
        assert isinstance(source, Operator)
        kind, values = source.kind, source.operands
        match kind:
            case "copy":
                return self._expression(values[0], target)
            case "mux":
                condition, *alternatives = values
                return ternary(
                    self._condition(condition),
                    *(self._expression(value, target) for value in alternatives),
                )
            case "part":
                return leaf(f"{self._flat(values[0])}[{self._flat(values[1])} +: {net.width}]")
        operands = [self._expression(value) for value in values]
        match kind:
            case "not" | "neg" | "any" | "all" | "parity":
                return unary(_PREFIXES[kind], operands[0])
            case "eq" | "ne":
                match values:
                    case [(Part(compared, _, width),), (Number(),)] if width == compared.width:
                        operands[1] = self._constant(values[1], compared)
            case "lt" | "le" | "gt" | "ge" | "mul" | "div" | "mod":
                if source.signed:
                    operands = [self._signed(value) for value in values]
                elif all(operand.signed for operand in operands):
                    operands[1] = as_unsigned(operands[1])
            case "sshr":
                operands[0] = as_signed(operands[0])
        return chain(_SYMBOLS[kind], *operands)

    def _condition(self, value: Value) -> Node:
        """Write a single bit; one that is a state is compared with the name of the state."""
        net = whole_net(value)
        if net is None or self._plan.label(net, 1) is None or net in self._plan.inlined:
            return self._expression(value)
        return chain("==", self._expression(value), self._constant((Number(1, 1),), net))

    def _signed(self, value: Value) -> Node:
        match value:
            case (Number(bits, width),):
                return number(bits, width, signed=True)
        return as_signed(self._expression(value))

    def _flat(self, value: Value) -> str:
        return flat(self._expression(value))

    # ------------------------------------------------------------------------------ statements

    def _statements(self, lines: Sequence[Line], arrow: str, indent: int) -> list[str]:
        """Text of ``lines``; ``indent`` is what will stand before it."""
        result: list[str] = []
        for line in lines:
            match line:
                case Assign(net, low, value):
                    node = self._expression(value, net)
                    target = self._target(net, low, width_of(value))
                    result += layout(f"{target} {arrow} ", _compared(node), ";", indent)
                case If():
                    result += self._if(line, arrow, indent)
                case Case():
                    result += self._case(line, arrow, indent)
        return result

    def _target(self, net: Net, low: int, width: int) -> str:
        name = self._plan.names[net]
        return name if width == net.width else f"{name}{_range(low, width)}"

    def _if(self, line: If, arrow: str, indent: int) -> list[str]:
        alternative = self._alternative(line, arrow, indent)
        if alternative:
            return [alternative]
        result: list[str] = []
        for condition, body in line.branches:
            start = f"{result.pop()} else if (" if result else "if ("
            test = layout(start, self._condition(condition), ")", indent + 6)
            lines = self._statements(body, arrow, indent + 2)
            alone = len(line.branches) == 1 and not line.otherwise and len(test) == len(lines) == 1
            if alone and isinstance(body[0], Assign):
                text = f"{test[0]} {lines[0]}"
                if indent + len(text) <= COLUMNS:
                    return [text]
            result += [*test[:-1], f"{test[-1]} begin", *_indented(lines), "end"]
        if line.otherwise:
            result[-1] += " else begin"
            otherwise = self._statements(line.otherwise, arrow, indent + 2)
            result += [*_indented(otherwise), "end"]
        return result

    def _alternative(self, line: If, arrow: str, indent: int) -> str:
        """One assignment instead of one in either branch, empty if there is more or no room."""
        match line:
            case If([(condition, [Assign(net, low, first)])], [Assign(same, other, second)]) if (
                net,
                low,
                width_of(first),
            ) == (same, other, width_of(second)):
                target = self._target(net, low, width_of(first))
                nodes = [self._expression(value, net) for value in (first, second)]
                if nodes[0] == nodes[1]:
                    text = f"{target} {arrow} {flat(nodes[0])};"
                else:
                    node = ternary(self._condition(condition), *nodes)
                    text = f"{target} {arrow} {flat(node)};"
                nested = any(node.kind == "ternary" for node in nodes)
                return text if indent + len(text) <= COLUMNS and not nested else ""
        return ""

    def _case(self, line: Case, arrow: str, indent: int) -> list[str]:
        selector = line.selector
        wildcards = any("-" in pattern for patterns, _ in line.branches for pattern in patterns)
        result = [f"{'casez' if wildcards else 'case'} ({self._flat(selector)})"]
        for patterns, body in line.branches:
            labels = ", ".join(self._pattern(selector, pattern) for pattern in patterns)
            result += _indented(self._branch(labels, body, arrow, indent + 2))
        if line.otherwise or not line.complete:
            result += _indented(self._branch("default", line.otherwise, arrow, indent + 2))
        return [*result, "endcase"]

    def _pattern(self, selector: Value, pattern: str) -> str:
        if "-" in pattern:
            return f"{len(pattern)}'b{pattern.replace('-', '?')}"
        constant: Value = (Number(int(pattern, 2), len(pattern)),)
        net = whole_net(selector)
        return flat(self._expression(constant, None if net is None or net.signed else net))

    def _branch(self, labels: str, body: Sequence[Line], arrow: str, indent: int) -> list[str]:
        if not body:
            return [f"{labels}: ;"]
        lines = self._statements(body, arrow, indent + 2)
        text = f"{labels}: {lines[0]}"
        if len(lines) == 1 and isinstance(body[0], Assign) and indent + len(text) <= COLUMNS:
            return [text]
        return [f"{labels}: begin", *_indented(lines), "end"]

    # -------------------------------------------------------------------------------- the body

    def _item(self, item: Item) -> list[str]:
        """Lines of ``item``, one for a short continuous assignment."""
        if isinstance(item, Instance):
            return self._instance(item)
        if isinstance(item, Block):
            return self._clocked(item) if item.clock else self._combinational(item)
        if item in self._plan.inlined:
            return []
        name = self._plan.names[item]
        node = _compared(self._operation(item, item))
        if item in self._plan.port_nets:
            return layout(f"assign {name} = ", node, ";", 2)
        shape = _shape(item.signed, item.high, item.low)
        return layout(f"wire {shape} {name} = " if shape else f"wire {name} = ", node, ";", 2)

    def _combinational(self, block: Block) -> list[str]:
        return ["always @* begin", *_indented(self._statements(block.lines, "=", 4)), "end"]

    def _clocked(self, block: Block) -> list[str]:
        events = [f"{'pos' if block.rising else 'neg'}edge {self._flat(block.clock)}"]
        if block.asynchronous:
            events.append(f"posedge {self._flat(block.reset)}")
        event = f"always @({' or '.join(events)}) begin"
        if not block.reset:
            lines = _aligned(self._statements(block.lines, "<=", 4))
            return ["// Without a reset of its own.", event, *_indented(lines), "end"]
        resets: list[Line] = []
        for net in block.nets:
            assert isinstance(net.source, Register)
            resets.append(Assign(net, net.low, (Number(net.source.reset_value, net.width),)))
        lines = [f"if ({self._flat(block.reset)}) begin"]
        lines += _indented(_aligned(self._statements(resets, "<=", 6)))
        if block.lines:
            lines.append("end else begin")
            lines += _indented(_aligned(self._statements(block.lines, "<=", 6)))
        return [event, *_indented([*lines, "end"]), "end"]

    def _instance(self, instance: Instance) -> list[str]:
        connections = {port: self._expression(value) for port, value in instance.inputs.items()}
        for port, net in instance.outputs.items():
            connections[port] = leaf(self._plan.names[net] if net in self._plan.used else "")
        head = plain_name(instance.module)
        if instance.parameters:
            settings = [f".{key}({_setting(value)})" for key, value in instance.parameters.items()]
            head += f" #({', '.join(settings)})"
        lines = [f"{head} {self._plan.instances[instance.name]} ("]
        width = max((len(plain_name(port)) for port in connections), default=0)
        last = len(connections) - 1
        for position, (port, node) in enumerate(connections.items()):
            end = ")" if position == last else "),"
            lines += _indented(layout(f".{plain_name(port):{width}} (", node, end, 4))
        return [*lines, ");"]

    def _contents(self) -> list[str]:
        """Load the memories, or clear those that start as zeros."""
        lines = []
        row = self._plan.row
        for memory in self._logic.memories.values():
            name = self._plan.memories[memory.name]
            if memory.starts_as_zeros:
                lines.append(f"initial for ({row} = 0; {row} < {memory.depth}; {row} = {row} + 1)")
                lines.append(f"  {name}[{row}] = {memory.width}'d0;")
            else:
                lines.append(f'initial $readmemh("{self._image(memory)}", {name});')
        return lines

    def _memory(self, memory: MemoryArray) -> Iterator[list[str]]:
        """Write the clocked ports of a memory."""
        for write in memory.writes:
            yield self._at_edge(write, self._write(memory, write))
        for net in memory.reads:
            if isinstance(net.source, ReadPort) and net.source.clock:
                yield self._at_edge(net.source, self._read(memory, net, net.source))

    def _at_edge(self, port: ReadPort | WritePort, lines: list[str]) -> list[str]:
        edge = f"{'pos' if port.rising else 'neg'}edge {self._flat(port.clock)}"
        return [f"always @({edge}) begin", *_indented(lines), "end"]

    def _write(self, memory: MemoryArray, write: WritePort) -> list[str]:
        word = f"{self._plan.memories[memory.name]}[{self._flat(write.address)}]"
        lines = []
        for low, width, enable in _lanes(write):
            target = word if width == memory.width else f"{word}{_range(low, width)}"
            text = f"{target} <= {self._flat(slice_of(write.data, low, width))};"
            lines.append(text if _is_one(enable) else f"if ({self._flat(enable)}) {text}")
        return lines

    def _read(self, memory: MemoryArray, net: Net, port: ReadPort) -> list[str]:
        """Write a clocked read; a transparent port reads what is written at the same time."""
        name = self._plan.names[net]
        address = self._flat(port.address)
        lines = [f"{name} <= {self._plan.memories[memory.name]}[{address}];"]
        for index, write in enumerate(memory.writes):
            if not port.transparent >> index & 1:
                continue
            same = f"{self._flat(write.address)} == {address}"
            for low, width, enable in _lanes(write):
                target = name if width == memory.width else f"{name}{_range(low, width)}"
                data = self._flat(slice_of(write.data, low, width))
                test = same if _is_one(enable) else f"{self._flat(enable)} && ({same})"
                lines.append(f"if ({test}) {target} <= {data};")
        if _is_one(port.enable):
            return lines
        return [f"if ({self._flat(port.enable)}) begin", *_indented(lines), "end"]

    def _image(self, memory: MemoryArray) -> str:
        return f"{self._logic.name}_{self._plan.memories[memory.name]}.hex"

    def _output_assignments(self) -> list[str]:
        """Write the outputs that are not the name of a net."""
        lines: list[str] = []
        for name, port in self._logic.outputs.items():
            net = whole_net(port.value)
            if net is None or self._plan.port_nets.get(net) != name:
                node = _compared(self._expression(port.value))
                lines += layout(f"assign {plain_name(name)} = ", node, ";", 2)
        return lines

    # ---------------------------------------------------------------------------- declarations

    def _declarations(self) -> list[str]:
        """Declare memories, registers, and wires between instances."""
        rows: list[tuple[str, str, str, str]] = []
        for memory in self._logic.memories.values():
            name = self._plan.memories[memory.name]
            word = f"[{memory.width - 1}:0]"
            rows.append(("reg", word, f"{name} [0:{memory.depth - 1}];", ""))
        if self._plan.row:
            rows.append(("integer", "", f"{self._plan.row};", ""))
        for net in self._logic.nets:
            if net in self._plan.port_nets or net not in self._plan.used:
                continue
            if isinstance(net.source, (Register, Choice)) or is_clocked(net):
                kind = "reg"
            elif isinstance(net.source, Pin):
                kind = "wire"
            else:
                continue
            shape = _shape(net.signed, net.high, net.low)
            rows.append((kind, shape, f"{self._plan.names[net]};", self._fields(net)))
        return _table(rows)

    def _local_parameters(self) -> list[str]:
        bases = list(dict.fromkeys(base for base, _, _ in self._labels.values()))
        width = max(map(len, self._labels), default=0)
        rows = [
            ("localparam", _shape(False, bits - 1, 0), f"{name:{width}} = {bits}'d{value};", "")
            for name, (base, value, bits) in sorted(
                self._labels.items(), key=lambda item: (bases.index(item[1][0]), item[1][1])
            )
        ]
        return _table(rows)

    def _port_list(self) -> list[str]:
        """Write the header of the module, one port a line."""
        inputs = {net.name: net for net in self._logic.inputs}
        drivers = {name: net for net, name in self._plan.port_nets.items()}
        names = [
            *sorted(inputs, key=lambda name: self._order.get(name or "", -1)),
            *sorted(self._logic.outputs, key=lambda name: self._order.get(name, -1)),
        ]
        rows: list[tuple[str, str, str, str]] = []
        for name in names:
            assert name is not None
            if name in inputs:
                net = inputs[name]
                kind, shape, width = "input  wire", _shape(net.signed, net.high, 0), net.width
            else:
                port = self._logic.outputs[name]
                width = width_of(port.value)
                driver = drivers.get(name)
                registered = driver is not None and (
                    isinstance(driver.source, (Register, Choice)) or is_clocked(driver)
                )
                kind = "output reg" if registered else "output wire"
                shape = _shape(port.signed, width - 1, 0)
            comma = "" if name == names[-1] else ","
            rows.append((kind, shape, f"{plain_name(name)}{comma}", self._field_map(name, width)))
        return [f"module {plain_name(self._logic.name)} (", *_indented(_table(rows)), ");"]

    def _fields(self, net: Net) -> str:
        name = self._plan.declared_as.get(net, net.name or "")
        return self._field_map(name, net.high + 1) if self._plan.is_public(name) else ""

    def _field_map(self, name: str, width: int) -> str:
        """Fields of a structure, most significant first; of an array, what one element is."""
        fields = self._logic.fields.get(name, [])
        if not fields or sum(size for _, size in fields) != width:
            return ""
        if fields[0][0].startswith("["):
            size = fields[0][1]
            inner = self._field_map(f"{name}[0]", size)
            return f"{len(fields)} x {size} bits" + (f": {inner}" if inner else "")
        texts = []
        low = 0
        for key, size in fields:
            inner = self._field_map(f"{name}.{key}", size)
            texts.append(f"{key}{_range(low, size)}" + (f" ({inner})" if inner else ""))
            low += size
        return " ".join(reversed(texts))


def _compared(node: Node) -> Node:
    """``node`` in parentheses if it is a comparison, which ``=`` or ``<=`` would hide."""
    comparison = node.kind == "chain" and node.text in ("==", "!=", "<", "<=", ">", ">=")
    return group(node) if comparison else node


def _lanes(write: WritePort) -> Iterator[tuple[int, int, Value]]:
    """Low bit, width and condition of each part of a word that is written on its own."""
    low = 0
    total = width_of(write.enable)
    while low < total:
        enable = slice_of(write.enable, low, 1)
        width = 1
        while low + width < total and slice_of(write.enable, low + width, 1) == enable:
            width += 1
        if enable != (Number(0, 1),):
            yield low, width, enable
        low += width


def _is_one(value: Value) -> bool:
    return value == (Number(1, 1),)


def _range(low: int, width: int) -> str:
    return f"[{low}]" if width == 1 else f"[{low + width - 1}:{low}]"


def _shape(signed: bool, high: int, low: int) -> str:
    """Sign and range of a declaration; a single bit needs neither."""
    if high == low:
        return ""
    return f"{'signed ' if signed else ''}[{high}:{low}]"


def _setting(value: rtlil.Parameter) -> str:
    """Value of a parameter of an instance."""
    match value:
        case str():
            return '"' + re.sub(r'([\\"])', r"\\\1", value).replace("\n", "\\n") + '"'
        case float():
            return repr(value)
        case int() if -(1 << 31) <= value < 1 << 31:
            return str(value)
        case int():
            return flat(number(value, value.bit_length() + 1, signed=True))
    return f"{value.width}'h{value.value:x}"


def _memory_image(memory: MemoryArray) -> str:
    """Contents as ``$readmemh`` reads them, one word a line."""
    digits = (memory.width + 3) // 4
    return "".join(f"{word:0{digits}x}\n" for word in memory.contents)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]


def _aligned(lines: list[str]) -> list[str]:
    """``lines`` with the arrows of neighbouring short assignments below each other."""
    result: list[str] = []
    rows: list[tuple[str, str]] = []

    def flush() -> None:
        width = max((len(target) for target, _ in rows), default=0)
        result.extend(f"{target:{width}} <= {value}" for target, value in rows)
        rows.clear()

    for line in lines:
        match = re.fullmatch(r"(\s*\w+(?:\[[\d:]+\])?) <= (.*;)", line)
        if match is None or (rows and _margin(rows[-1][0]) != _margin(line)):
            flush()
        if match is None:
            result.append(line)
        else:
            rows.append((match[1], match[2]))
    flush()
    return result


def _margin(text: str) -> int:
    return len(text) - len(text.lstrip())


def _table(rows: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Lay declarations out in columns: kind, shape, name and comment."""
    kinds = max((len(kind) for kind, *_ in rows), default=0)
    split = [shape.rpartition("[") for _, shape, _, _ in rows]
    signs = max((len(sign) for sign, _, _ in split), default=0)
    ranges = max((len(bracket + bits) for _, bracket, bits in split), default=0)
    lines = [
        f"{kind:{kinds}} {sign:{signs}}{bracket + bits:>{ranges}}{' ' if ranges else ''}{name}"
        for (kind, _, name, _), (sign, bracket, bits) in zip(rows, split, strict=True)
    ]
    width = max((len(line) for line, row in zip(lines, rows, strict=True) if row[3]), default=0)
    result = []
    for line, (*_, comment) in zip(lines, rows, strict=True):
        text = f"{line:{width}}  // {comment}" if comment else line
        # The module indents by two.
        result += [text] if len(text) <= COLUMNS - 2 else [f"// {comment}", line]
    return result


def _sections(items: Sequence[list[str]]) -> list[list[str]]:
    """Single lines that follow each other as one section, everything else on its own."""
    sections: list[list[str]] = []
    short = False
    for lines in items:
        if not lines:
            continue
        if len(lines) == 1 and short:
            sections[-1].extend(lines)
        else:
            sections.append(list(lines))
        short = len(lines) == 1
    return sections
