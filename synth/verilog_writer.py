"""Readable Verilog-2005 of one module.

Names that a designer gave are kept, expressions are written as a person would write them, and
statements keep their ``if`` and ``case``.  Every operand of an expression has the width of its
result, and whatever depends on a sign says so; see :mod:`synth.verilog_logic`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from synth import rtlil
from synth.verilog_expressions import (
    Node,
    as_signed,
    as_unsigned,
    chain,
    concat,
    flat,
    layout,
    leaf,
    number,
    ternary,
    unary,
)
from synth.verilog_logic import (
    Alias,
    Assign,
    Choice,
    Instance,
    Logic,
    MemoryArray,
    Net,
    Number,
    Operator,
    Part,
    Pin,
    ReadPort,
    Register,
    Statement,
    Value,
    WritePort,
    build,
    is_combinational,
    join,
    nets_of,
    slice_of,
    values_in,
    values_of,
    width_of,
)
from synth.verilog_names import Namespace, plain_name
from synth.verilog_statements import (
    Case,
    If,
    Line,
    as_expression,
    as_lines,
    merge,
    values_in_lines,
)

__all__ = ["VerilogModule", "write_module"]

# An expression of more operators than this is cut at an operand, which gets a name.
_LONGEST_EXPRESSION = 8
# Operators of an expression in the port list of an instance, and of one inside a concatenation
# or below another operator if it is a conditional expression.
_LONGEST_CONNECTION = 1
_LONGEST_CONDITIONAL = 3
# Alternatives of a conditional expression; more become `if` and `case`.
_MOST_ALTERNATIVES = 4

# Operators whose width or sign Verilog takes from what is around them.
_ROOT_ONLY = frozenset(("mul", "sshr", "div", "mod"))
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
# Names of temporaries that have no better one.
_NOUNS = {
    "not": "inverted",
    "neg": "negated",
    "and": "masked",
    "or": "merged",
    "xor": "flipped",
    "add": "sum",
    "sub": "difference",
    "mul": "product",
    "div": "quotient",
    "mod": "remainder",
    "shl": "shifted",
    "shr": "shifted",
    "sshr": "shifted",
    "mux": "selected",
    "part": "selected",
    "any": "any",
    "all": "all",
    "parity": "parity",
    "copy": "wide",
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
    files : dict of str to str
        Text of each file that ``$readmemh`` loads, by file name.
    """

    name: str
    text: str
    files: dict[str, str] = field(default_factory=dict)


def write_module(
    module: rtlil.Module,
    *,
    ports: Sequence[str] = (),
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
        Order of the ports; clocks and resets come first and inputs before outputs all the same.
    header : sequence of str
        Lines of the comment above the module.
    states : mapping of str to mapping of int to str, optional
        Names of the values of a wire, by the name of the wire.
    hidden : collection of str
        Wires that only repeat ports of instances; they are named after instance and port.

    Raises
    ------
    ValueError
        If the module has a cell that has no plain Verilog, or a combinational loop.
    """
    return _Writer(build(module), ports, header, states or {}, frozenset(hidden)).module()


@dataclass(eq=False)
class _Block:
    """An ``always`` block; ``clock`` is empty if it is combinational."""

    nets: list[Net]
    body: list[Statement]
    clock: Value = ()
    rising: bool = True
    reset: Value = ()
    asynchronous: bool = False
    lines: list[Line] = field(default_factory=list)


@dataclass
class _Use:
    """One place where a net is used.

    ``context`` is root (all of what is assigned), branch (of a conditional expression), operand,
    part (of a concatenation), port (of an instance) or name (where no expression may stand).
    """

    context: str
    whole: bool
    hint: str


_Item = Net | _Block | Instance


class _Writer:
    def __init__(
        self,
        logic: Logic,
        ports: Sequence[str],
        header: Sequence[str],
        states: Mapping[str, Mapping[int, str]],
        hidden: frozenset[str],
    ) -> None:
        self._logic = logic
        self._header = header
        self._hidden = hidden
        self._states = states
        self._order = {name: position for position, name in enumerate(ports)}
        self._space = Namespace()
        self._names: dict[Net, str] = {}
        self._port_nets: dict[Net, str] = {}  # by the output port that they drive
        self._shapes: dict[Net, Alias] = {}  # the alias that a net is named after
        self._instances = {
            instance.name: self._space.take(instance.name) for instance in logic.instances
        }
        self._memories = {name: self._space.take(name) for name in logic.memories}
        self._inlined: set[Net] = set()
        self._used: set[Net] = set()
        self._labels: dict[Net, tuple[str, Mapping[int, str]]] = {}
        self._used_labels: dict[str, tuple[int, int]] = {}

    def module(self) -> VerilogModule:
        """Write everything."""
        logic = self._logic
        self._name_ports()
        self._name_nets()
        self._insert_aliases()
        self._find_labels()
        blocks = [*self._combinational_blocks(), *self._clocked_blocks()]
        self._choose_inlined(blocks)
        items = self._sorted_items(blocks)
        body = [text for item in items if (text := self._item(item))]
        body += [self._memory(memory) for memory in logic.memories.values()]
        body.append(self._output_assignments())
        sections = [self._local_parameters(), self._declarations(items), *_grouped(body)]

        lines = [f"// {line}".rstrip() for line in self._header]
        lines += self._port_list(blocks)
        for section in sections:
            if section:
                lines += ["", *(f"  {line}" for line in section)]
        lines += ["endmodule", ""]
        files = {self._image(memory): _memory_image(memory) for memory in logic.memories.values()}
        return VerilogModule(logic.name, "\n".join(lines), files)

    # ------------------------------------------------------------------------------- names

    def _name_ports(self) -> None:
        for net in self._logic.inputs:
            assert net.name is not None
            self._names[net] = self._space.reserve(plain_name(net.name))
        for name, port in self._logic.outputs.items():
            self._space.reserve(plain_name(name))
            match port.value:
                case (Part(net, low, width),) if (
                    net not in self._names
                    and net not in self._port_nets
                    and (low, width) == (net.low, net.width)
                ):
                    self._port_nets[net] = name
                    self._shapes[net] = port
                    self._names[net] = plain_name(name)

    def _name_nets(self) -> None:
        """Name every net that a designer named, and those between instances after these."""
        aliases = [
            alias
            for alias in self._logic.aliases
            if alias.name not in self._hidden and _base(alias.name) not in self._hidden
        ]
        for fields in (False, True):
            for alias in aliases:
                net = _whole(alias.value)
                if net is None or net in self._names or _is_field(alias.name) != fields:
                    continue
                if net.name is None or net.name in self._hidden:
                    self._names[net] = self._space.take(alias.name)
                    self._shapes[net] = alias
        for net in self._logic.nets:
            if net in self._names:
                continue
            if net.name is not None and net.name not in self._hidden:
                self._names[net] = self._space.take(net.name)
            elif isinstance(net.source, Pin):
                self._names[net] = self._space.take(f"{net.source.instance}_{net.source.port}")
        for alias in aliases:
            # A result of which only the low bits have a name.
            match alias.value:
                case (Part(net, 0, _),) if isinstance(net.source, Operator):
                    if net not in self._names and net.source.kind in ("shr", "sshr", "div", "mod"):
                        self._names[net] = self._space.take(f"{alias.name}_wide")
        for instance in self._logic.instances:
            for port, value in instance.inputs.items():
                net = _whole(value)
                if net is not None and net not in self._names and net.name is not None:
                    self._names[net] = self._space.take(f"{instance.name}_{port}")

    def _insert_aliases(self) -> None:
        """Use a designer's names for parts of nets, and for several nets side by side."""
        single: dict[Net, list[tuple[int, int, Net]]] = defaultdict(list)
        several: dict[Number | Part, list[tuple[Value, Net]]] = defaultdict(list)
        known: set[Value] = set()
        live = {*self._logic.inputs, *self._logic.nets}
        created: list[tuple[str, Net]] = []

        def shorten(value: Value) -> Value:
            result: list[Value] = []
            position = 0
            while position < len(value):
                part = value[position]
                for parts, net in several.get(part, ()):
                    if value[position : position + len(parts)] == parts:
                        result.append(net.value)
                        position += len(parts)
                        break
                else:
                    result.append((_named_part(part, single),))
                    position += 1
            return join(*result)

        for alias in self._logic.aliases:
            value = alias.value
            if alias.name in self._hidden or _is_field(alias.name) or value in known:
                continue
            if _whole(value) is not None or all(isinstance(part, Number) for part in value):
                continue
            if any(
                isinstance(part, Part)
                and (
                    part.net not in live
                    or part.low < part.net.low
                    or part.low + part.width > part.net.high + 1
                )
                for part in value
            ):
                continue  # some bits are used nowhere
            known.add(value)
            net = Net(
                alias.name,
                width_of(value),
                Operator("copy", [shorten(value) if len(value) > 1 else value]),
                signed=alias.signed,
                attributes=alias.attributes,
            )
            if len(value) == 1 and isinstance(value[0], Part):
                single[value[0].net].append((value[0].low, value[0].width, net))
            else:
                several[value[0]].append((value, net))
            created.append((alias.name, net))
        self._logic.rewrite(shorten)
        used = set(nets_of(self._logic.roots()))
        for net in self._logic.nets:
            used.update(nets_of(values_of(net.source)))
        for _, net in reversed(created):
            if net in used:
                used.update(nets_of(values_of(net.source)))
        for name, net in created:
            if net in used:
                self._logic.nets.append(net)
                self._names[net] = self._space.take(name)

    def _find_labels(self) -> None:
        """Names of the values of enumerations and state machines."""
        for net in (*self._logic.inputs, *self._logic.nets):
            attributes = net.attributes
            name = net.name or ""
            if net in self._shapes:
                attributes = attributes | self._shapes[net].attributes
                name = self._shapes[net].name
            if name in self._states:
                base = plain_name(name).removesuffix("_state")
                labels: Mapping[int, str] = self._states[name]
            else:
                base = str(attributes.get("enum_base_type", ""))
                labels = {
                    int(key.removeprefix("enum_value_"), 2): str(value)
                    for key, value in attributes.items()
                    if key.startswith("enum_value_")
                }
            if labels and net.low == 0:
                self._labels[net] = base, labels

    def _label(self, net: Net, value: int, width: int) -> str | None:
        """Name of ``value`` of ``net``, None if it has none."""
        if net not in self._labels or width != net.width:
            return None
        base, labels = self._labels[net]
        if value not in labels:
            return None
        name = plain_name(f"{base}_{labels[value]}").upper()
        if self._used_labels.setdefault(name, (value, width)) != (value, width):
            return None  # another enumeration of the same name
        return name

    # ------------------------------------------------------------------------ always blocks

    def _combinational_blocks(self) -> list[_Block]:
        """Write short choices as expressions; the others become blocks, joined where possible."""
        blocks: list[_Block] = []
        for net in self._logic.nets:
            if not isinstance(net.source, Choice):
                continue
            lines = as_lines(net.source.body)
            value = as_expression(net, lines, _MOST_ALTERNATIVES)
            if value is not None:
                net.source = Operator("copy", [value])
            else:
                blocks.append(_Block([net], net.source.body))
        for index, block in enumerate(blocks):
            for other in blocks[:index]:
                if other.body and _share_a_switch(other, block) and self._independent(other, block):
                    other.nets += block.nets
                    other.body = merge(other.body, block.body)
                    block.body = []
                    break
        blocks = [block for block in blocks if block.body]
        for block in blocks:
            block.lines = as_lines(block.body)
            for net in block.nets:
                self._names.setdefault(net, "")
        return blocks

    def _independent(self, first: _Block, second: _Block) -> bool:
        """Whether no block needs a result of the other, so that one block can do both."""
        return not (set(first.nets) & _cone(second.body) or set(second.nets) & _cone(first.body))

    def _clocked_blocks(self) -> list[_Block]:
        blocks: dict[tuple[Value, bool, Value, bool], _Block] = {}
        for net in self._logic.nets:
            source = net.source
            if not isinstance(source, Register):
                continue
            key = (source.clock, source.rising, source.reset, source.asynchronous)
            block = blocks.setdefault(key, _Block([], [], *key))
            block.nets.append(net)
            block.body = merge(block.body, source.body)
        for block in blocks.values():
            block.lines = as_lines(block.body)
        return list(blocks.values())

    # ------------------------------------------------------------------------------ inlining

    def _choose_inlined(self, blocks: Sequence[_Block]) -> None:
        """Find the operators that are written where they are used, and name the others."""
        uses = self._uses(blocks)
        self._used = set(uses)
        cost: dict[Net, int] = {}
        order = _drivers_first(net for net in uses if is_combinational(net))
        for net in order:
            inner = [used for used in _operands(net) if used in self._inlined]
            limit = _LONGEST_EXPRESSION * (2 if _kind(net) in ("mux", "copy") else 1)
            total = (_kind(net) != "copy") + sum(cost[used] for used in inner)
            # Too long: name the longest operands.
            for used in sorted(inner, key=lambda used: -cost[used]):
                if total <= limit or cost[used] < 2:
                    break
                self._inlined.discard(used)
                total -= cost[used]
            cost[net] = total
            if net not in self._names and self._may_inline(net, uses[net], total):
                self._inlined.add(net)
        for net in order:
            if net not in self._inlined and not self._names.get(net):
                self._names[net] = self._space.take(self._derived_name(net, uses[net]))

    def _uses(self, blocks: Sequence[_Block]) -> dict[Net, list["_Use"]]:
        """Where each net is used that something outside depends on."""
        uses: dict[Net, list[_Use]] = {}
        stack: list[Net] = []

        def use(value: Value, context: str, hint: str = "") -> None:
            for part in value:
                if isinstance(part, Part):
                    whole = part.width == part.net.width
                    place = context if whole and (len(value) == 1 or context == "name") else "part"
                    if part.net not in uses:
                        uses[part.net] = []
                        stack.append(part.net)
                    uses[part.net].append(_Use(place, whole, hint))

        for name, port in self._logic.outputs.items():
            if _whole(port.value) in self._port_nets:
                use(port.value, "name")
            else:
                use(port.value, "root", name)
        for instance in self._logic.instances:
            for port_name, value in instance.inputs.items():
                use(value, "port", f"{instance.name}_{port_name}")
        for memory in self._logic.memories.values():
            for write in memory.writes:
                use(write.clock, "name")
                use(write.address, "operand", f"{memory.name}_address")
                use(write.data, "name", f"{memory.name}_data")
                use(write.enable, "name", f"{memory.name}_enable")
            for net in memory.reads:
                if _is_clocked(net):
                    use(net.value, "name")
        for block in blocks:
            if block.clock:
                use(block.clock, "name")
                use(block.reset, "name" if block.asynchronous else "operand", "reset")
                for line in block.lines:
                    for value, target in values_in_lines([line]):
                        hint = f"{self._names[target]}_next" if target else ""
                        use(value, "root" if target else "operand", hint)
        members = {net: block for block in blocks for net in block.nets}
        done: set[_Block] = set()
        while stack:
            net = stack.pop()
            match net.source:
                case Operator(kind, operands):
                    for index, operand in enumerate(operands):
                        context = "operand"
                        if kind == "copy":
                            context = "root"
                        elif kind == "mux" and index:
                            context = "branch"
                        elif kind == "part" and index == 0:
                            context = "name"
                        use(operand, context)
                case Choice() if members[net] not in done:
                    block = members[net]
                    done.add(block)
                    for value, target in values_in_lines(block.lines):
                        use(value, "root" if target else "operand")
                case ReadPort():
                    for value in values_of(net.source):
                        use(value, "operand", f"{net.source.memory}_address")
        return uses

    def _may_inline(self, net: Net, uses: Sequence["_Use"], cost: int) -> bool:
        kind = _kind(net)
        if kind == "" or not all(use.whole for use in uses):
            return False
        if len(uses) > 1 and not self._trivial(net):
            return False
        for use in uses:
            if use.context == "name":
                return False
            if use.context == "port" and (cost > _LONGEST_CONNECTION or kind == "mux"):
                return False
            if use.context != "root" and kind in _ROOT_ONLY:
                return False
            if use.context in ("operand", "part") and kind == "mux" and cost > _LONGEST_CONDITIONAL:
                return False
        return True

    def _trivial(self, net: Net) -> bool:
        """Whether ``net`` may be written again at every use: a short test of named bits."""
        kind = _kind(net)
        if kind == "copy" or net.width > 1 or kind in ("mux", "part"):
            return False
        if any(used in self._inlined for used in _operands(net)):
            return False
        assert isinstance(net.source, Operator)
        variables = [
            operand for operand in net.source.operands if not isinstance(operand[0], Number)
        ]
        return len(variables) == 1 and len(variables[0]) == 1

    def _derived_name(self, net: Net, uses: Sequence["_Use"]) -> str:
        """Name of a temporary after its use, or after what it is made of."""
        hints = {use.hint for use in uses}
        if len(hints) == 1 and (hint := hints.pop()):
            return hint
        operands = [
            self._names.get(operand[0].net, "")
            for operand in values_of(net.source)
            if len(operand) == 1 and isinstance(operand[0], Part)
        ]
        match net.source:
            case ReadPort():
                return f"{net.source.memory}_read"
            case Operator("eq" | "ne" | "lt" | "le" | "gt" | "ge" as kind, [_, (Number(bits, _),)]):
                return f"{operands[0]}_{kind}_{bits}" if operands and operands[0] else "condition"
            case Operator("eq" | "ne" | "lt" | "le" | "gt" | "ge" as kind, _):
                return (
                    f"{operands[0]}_{kind}_{operands[1]}"
                    if len(operands) == 2 and all(operands)
                    else "condition"
                )
            case Operator("any" | "all" | "parity" | "not" as kind, _) if operands and operands[0]:
                return f"{kind}_{operands[0]}"
            case Operator(kind, _):
                word = _NOUNS[kind]
                return f"{operands[0]}_{word}" if len(operands) == 1 and operands[0] else word
        return "choice"

    # ----------------------------------------------------------------------------- expressions

    def _expression(self, value: Value) -> Node:
        return concat([self._part(part) for part in reversed(value)])

    def _part(self, part: Number | Part) -> Node:
        if isinstance(part, Number):
            return number(part.value, part.width)
        net = part.net
        if net in self._inlined:
            return self._operation(net)
        name = self._names[net]
        if part.width == net.width:
            return leaf(name, net.signed)
        return leaf(f"{name}{_range(part.low, part.width)}")

    def _operation(self, net: Net) -> Node:
        source = net.source
        if isinstance(source, ReadPort):
            return leaf(
                f"{self._memories[source.memory]}[{flat(self._expression(source.address))}]"
            )
        assert isinstance(source, Operator)
        kind, values = source.kind, source.operands
        if kind == "part":
            index = flat(self._expression(values[1]))
            return leaf(f"{flat(self._expression(values[0]))}[{index} +: {net.width}]")
        operands = [self._expression(value) for value in values]
        match kind:
            case "copy":
                return operands[0]
            case "mux":
                return ternary(*operands)
            case "not" | "neg" | "any" | "all" | "parity":
                return unary(_PREFIXES[kind], operands[0])
            case "eq" | "ne":
                match values:
                    case [(Part(labelled, _, width),), (Number(bits, _),)]:
                        label = self._label(labelled, bits, width)
                        operands[1] = leaf(label) if label else operands[1]
            case "lt" | "le" | "gt" | "ge" | "mul" | "div" | "mod":
                operands = [
                    self._with_sign(value, operand, source.signed)
                    for value, operand in zip(values, operands, strict=True)
                ]
                if not source.signed and all(operand.signed for operand in operands):
                    operands[1] = as_unsigned(operands[1])
            case "sshr":
                operands[0] = as_signed(operands[0])
        return chain(_SYMBOLS[kind], *operands)

    def _with_sign(self, value: Value, operand: Node, signed: bool) -> Node:
        if not signed:
            return operand
        match value:
            case (Number(bits, width),):
                return number(bits, width, signed=True)
        return as_signed(operand)

    # ------------------------------------------------------------------------------ statements

    def _statements(self, lines: Sequence[Line], arrow: str, indent: int) -> list[str]:
        """Text of ``lines``; ``indent`` is what will stand before it."""
        result: list[str] = []
        for line in lines:
            match line:
                case Assign():
                    result += self._assignment(line, arrow, indent)
                case If():
                    result += self._if(line, arrow, indent)
                case Case():
                    result += self._case(line, arrow, indent)
        return result

    def _assignment(self, line: Assign, arrow: str, indent: int) -> list[str]:
        net = line.net
        width = width_of(line.value)
        target = self._names[net]
        if width != net.width:
            target += _range(line.low, width)
        node = self._expression(line.value)
        match line.value:
            case (Number(bits, _),):
                label = self._label(net, bits, width)
                node = leaf(label) if label else node
        return layout(f"{target} {arrow} ", node, ";", indent)

    def _if(self, line: If, arrow: str, indent: int) -> list[str]:
        result: list[str] = []
        for condition, body in line.branches:
            start = "if (" if not result else f"{result.pop()} else if ("
            test = layout(start, self._expression(condition), ")", indent + 6)
            lines = self._statements(body, arrow, indent + 2)
            alone = len(line.branches) == 1 and not line.otherwise and len(test) == len(lines) == 1
            if (
                alone
                and isinstance(body[0], Assign)
                and indent + len(test[0]) + len(lines[0]) < 100
            ):
                return [f"{test[0]} {lines[0]}"]
            result += [*test[:-1], f"{test[-1]} begin", *_indented(lines), "end"]
        if line.otherwise:
            result[-1] += " else begin"
            otherwise = self._statements(line.otherwise, arrow, indent + 2)
            result += [*_indented(otherwise), "end"]
        return result

    def _case(self, line: Case, arrow: str, indent: int) -> list[str]:
        wildcards = any("-" in pattern for patterns, _ in line.branches for pattern in patterns)
        selector = line.selector
        result = [f"{'casez' if wildcards else 'case'} ({flat(self._expression(selector))})"]
        width = width_of(selector)
        for patterns, body in line.branches:
            labels = ", ".join(self._pattern(selector, pattern, width) for pattern in patterns)
            result += _indented(self._branch(labels, body, arrow, indent + 2))
        if line.otherwise or not line.complete:
            result += _indented(self._branch("default", line.otherwise, arrow, indent + 2))
        return [*result, "endcase"]

    def _branch(self, labels: str, body: list[Line], arrow: str, indent: int) -> list[str]:
        if not body:
            return [f"{labels}: ;"]
        lines = self._statements(body, arrow, indent + 2)
        if len(lines) == 1 and isinstance(body[0], Assign) and indent + len(labels + lines[0]) < 98:
            return [f"{labels}: {lines[0]}"]
        return [f"{labels}: begin", *_indented(lines), "end"]

    def _pattern(self, selector: Value, pattern: str, width: int) -> str:
        if "-" in pattern:
            return f"{width}'b{pattern.replace('-', '?')}"
        bits = int(pattern, 2)
        match selector:
            case (Part(net, _, _),):
                label = self._label(net, bits, width)
                if label:
                    return label
        return flat(number(bits, width)) if width < 5 or bits else f"{width}'d0"

    # -------------------------------------------------------------------------------- sections

    def _sorted_items(self, blocks: Sequence[_Block]) -> list[_Item]:
        """Order what the body consists of: drivers before what they drive, if possible."""
        home: dict[Net, _Item] = {}
        for block in blocks:
            if not block.clock:
                home.update(dict.fromkeys(block.nets, block))
        instances = {instance.name: instance for instance in self._logic.instances}
        done: set[_Item | int] = set()
        result: list[_Item] = []

        def needs(item: _Item) -> Iterator[Net]:
            if isinstance(item, Net):
                return _nets_below(values_of(item.source), self._inlined)
            if isinstance(item, _Block):
                return _nets_below(_values_of_block(item), self._inlined)
            return _nets_below(item.inputs.values(), self._inlined)

        def visit(start: _Item) -> None:
            stack: list[tuple[_Item, Iterator[Net]]] = []
            if id(start) not in done:
                done.add(id(start))
                stack.append((start, needs(start)))
            while stack:
                item, rest = stack[-1]
                for net in rest:
                    source = net.source
                    if isinstance(source, Pin):
                        other: _Item = instances[source.instance]
                    elif is_combinational(net):
                        other = home.get(net, net)
                    else:
                        continue
                    if id(other) not in done:
                        done.add(id(other))
                        stack.append((other, needs(other)))
                        break
                else:
                    result.append(item)
                    stack.pop()

        for instance in self._logic.instances:
            visit(instance)
        for block in blocks:
            if block.clock:
                visit(block)
        for memory in self._logic.memories.values():
            for net in _nets_below(_values_of_memory(memory), self._inlined):
                if is_combinational(net):
                    visit(home.get(net, net))
        for net in _nets_below(
            (port.value for port in self._logic.outputs.values()), self._inlined
        ):
            if is_combinational(net):
                visit(home.get(net, net))
        return result

    def _item(self, item: _Item) -> list[str]:
        """Lines of ``item``, one for a short continuous assignment."""
        if isinstance(item, Instance):
            return self._instance(item)
        if isinstance(item, _Block):
            return self._clocked(item) if item.clock else self._combinational(item)
        if item in self._inlined:
            return []
        node = self._operation(item)
        if item in self._port_nets:
            return layout(f"assign {self._names[item]} = ", node, ";", 2)
        return layout(f"wire {self._shape(item)}{self._names[item]} = ", node, ";", 2)

    def _combinational(self, block: _Block) -> list[str]:
        lines = self._statements(block.lines, "=", 4)
        return ["always @* begin", *_indented(lines), "end"]

    def _clocked(self, block: _Block) -> list[str]:
        events = [f"{'pos' if block.rising else 'neg'}edge {self._flat(block.clock)}"]
        if block.asynchronous:
            events.append(f"posedge {self._flat(block.reset)}")
        lines = self._statements(block.lines, "<=", 6 if block.reset else 4)
        if block.reset:
            resets: list[Line] = []
            for net in block.nets:
                assert isinstance(net.source, Register)
                resets.append(Assign(net, net.low, (Number(net.source.reset_value, net.width),)))
            first = [f"if ({self._flat(block.reset)}) begin"]
            first += _indented(_aligned(self._statements(resets, "<=", 6)))
            if lines:
                first += ["end else begin", *_indented(_aligned(lines))]
            lines = [*first, "end"]
        comment = [] if block.reset else ["// Without reset."]
        return [
            *comment,
            f"always @({' or '.join(events)}) begin",
            *_indented(_aligned(lines)),
            "end",
        ]

    def _flat(self, value: Value) -> str:
        return flat(self._expression(value))

    def _instance(self, instance: Instance) -> list[str]:
        connections: dict[str, Node] = {
            port: self._expression(value) for port, value in instance.inputs.items()
        }
        for port, net in instance.outputs.items():
            connections[port] = leaf(self._names[net] if net in self._used else "")
        width = max((len(plain_name(port)) for port in connections), default=0)
        name = self._instances[instance.name]
        lines = [f"{plain_name(instance.module)} {name} ("]
        if instance.parameters:
            parameters = [
                f".{plain_name(key)}({_parameter(value)})"
                for key, value in instance.parameters.items()
            ]
            lines = [f"{plain_name(instance.module)} #({', '.join(parameters)}) {name} ("]
        last = len(connections) - 1
        for position, (port, node) in enumerate(connections.items()):
            end = ")" if position == last else "),"
            text = layout(f".{plain_name(port):{width}} (", node, end, 4)
            lines += _indented(text)
        return [*lines, ");"]

    def _memory(self, memory: MemoryArray) -> list[str]:
        """Contents and clocked ports of a memory."""
        name = self._memories[memory.name]
        lines = [f'initial $readmemh("{self._image(memory)}", {name});']
        for write in memory.writes:
            edge = f"{'pos' if write.rising else 'neg'}edge {self._flat(write.clock)}"
            lines += ["", f"always @({edge}) begin", *_indented(self._write(memory, write)), "end"]
        for net in memory.reads:
            port = net.source
            if not isinstance(port, ReadPort) or not port.clock:
                continue
            edge = f"{'pos' if port.rising else 'neg'}edge {self._flat(port.clock)}"
            lines += [
                "",
                f"always @({edge}) begin",
                *_indented(self._read(memory, net, port)),
                "end",
            ]
        return lines

    def _write(self, memory: MemoryArray, write: WritePort) -> list[str]:
        word = f"{self._memories[memory.name]}[{self._flat(write.address)}]"
        lines = []
        for low, width, enable in _lanes(write):
            target = word if width == memory.width else f"{word}{_range(low, width)}"
            data = self._flat(slice_of(write.data, low, width))
            text = f"{target} <= {data};"
            lines.append(text if _is_one(enable) else f"if ({self._flat(enable)}) {text}")
        return lines

    def _read(self, memory: MemoryArray, net: Net, port: ReadPort) -> list[str]:
        """Write a clocked read; a transparent port reads what is written at the same time."""
        name = self._names[net]
        address = self._flat(port.address)
        lines = [f"{name} <= {self._memories[memory.name]}[{address}];"]
        for index, write in enumerate(memory.writes):
            if not port.transparent >> index & 1:
                continue
            same = f"{self._flat(write.address)} == {address}"
            for low, width, enable in _lanes(write):
                target = name if width == memory.width else f"{name}{_range(low, width)}"
                data = self._flat(slice_of(write.data, low, width))
                test = same if _is_one(enable) else f"{self._flat(enable)} && {same}"
                lines.append(f"if ({test}) {target} <= {data};")
        if _is_one(port.enable):
            return lines
        return [f"if ({self._flat(port.enable)}) begin", *_indented(lines), "end"]

    def _image(self, memory: MemoryArray) -> str:
        return f"{self._logic.name}_{self._memories[memory.name]}.hex"

    def _output_assignments(self) -> list[str]:
        """Write the outputs that are not the name of a net."""
        lines: list[str] = []
        for name, port in self._logic.outputs.items():
            net = _whole(port.value)
            if net is None or self._port_nets.get(net) != name:
                lines += layout(
                    f"assign {plain_name(name)} = ", self._expression(port.value), ";", 2
                )
        return lines

    def _declarations(self, items: Sequence[_Item]) -> list[str]:
        """Declare registers, and wires between instances."""
        rows: list[tuple[str, str, str]] = []
        for memory in self._logic.memories.values():
            name = self._memories[memory.name]
            rows.append((f"reg [{memory.width - 1}:0]", f"{name} [0:{memory.depth - 1}];", ""))
        for net in self._logic.nets:
            clocked = isinstance(net.source, ReadPort) and net.source.clock
            if net in self._port_nets or (net not in self._used and isinstance(net.source, Pin)):
                continue
            if isinstance(net.source, (Register, Choice)) or clocked:
                rows.append(
                    (f"reg {self._shape(net)}".rstrip(), f"{self._names[net]};", self._fields(net))
                )
            elif isinstance(net.source, Pin):
                rows.append(
                    (f"wire {self._shape(net)}".rstrip(), f"{self._names[net]};", self._fields(net))
                )
        return _table(rows)

    def _local_parameters(self) -> list[str]:
        rows = [
            (
                f"localparam [{width - 1}:0]" if width > 1 else "localparam",
                f"{name} = {width}'d{value};",
                "",
            )
            for name, (value, width) in self._used_labels.items()
        ]
        return _table(rows)

    def _port_list(self, blocks: Sequence[_Block]) -> list[str]:
        """Write the header of the module, one port a line."""
        registers = {net for block in blocks for net in block.nets}
        rows: list[tuple[tuple[int, int], str, str, str]] = []
        for position, net in enumerate(self._logic.inputs):
            name = net.name or ""
            rank = self._order.get(name, -1)
            text = f"input  wire {self._shape(net)}".rstrip()
            rows.append(
                (
                    (0, rank if rank >= 0 else position - 1000),
                    text,
                    self._names[net],
                    self._fields(net),
                )
            )
        nets = {name: net for net, name in self._port_nets.items()}
        for position, (name, port) in enumerate(self._logic.outputs.items()):
            driver = nets.get(name)
            registered = driver is not None and (driver in registers or _is_clocked(driver))
            kind = "reg " if registered else "wire"
            shape = _shape(port.signed, width_of(port.value) - 1, 0)
            text = f"output {kind} {shape}".rstrip()
            rank = self._order.get(name, 1000 + position)
            rows.append(
                ((1, rank), text, plain_name(name), self._field_map(name, width_of(port.value)))
            )
        rows.sort(key=lambda row: row[0])
        last = len(rows) - 1
        lines = _table(
            [
                (text, name if position == last else f"{name},", comment)
                for position, (_, text, name, comment) in enumerate(rows)
            ]
        )
        return [f"module {plain_name(self._logic.name)} (", *(f"  {line}" for line in lines), ");"]

    def _shape(self, net: Net) -> str:
        """Sign and range of a declaration, with a space after it if there is any."""
        shape = _shape(net.signed, net.high, net.low)
        return f"{shape} " if shape else ""

    def _fields(self, net: Net) -> str:
        name = self._shapes[net].name if net in self._shapes else net.name
        return self._field_map(name, net.high + 1) if name and name not in self._hidden else ""

    def _field_map(self, name: str, width: int) -> str:
        """Fields of a structure, most significant first; of an array, what one element is."""
        fields = self._logic.fields.get(name, [])
        if sum(size for _, size in fields) != width or not fields:
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


def _whole(value: Value) -> Net | None:
    """Find the net that ``value`` is all bits of."""
    match value:
        case (Part(net, low, width),) if (low, width) == (net.low, net.width):
            return net
    return None


def _base(name: str) -> str:
    """Name of the wire that ``name`` is a field of."""
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def _is_field(name: str) -> bool:
    return "." in name or "[" in name


def _named_part(
    part: Number | Part, names: Mapping[Net, Sequence[tuple[int, int, Net]]]
) -> Number | Part:
    """``part`` as bits of the smallest named part that it lies in."""
    if isinstance(part, Number):
        return part
    found = [
        (width, low, net)
        for low, width, net in names.get(part.net, ())
        if low <= part.low and part.low + part.width <= low + width
    ]
    if not found:
        return part
    _, low, net = min(found, key=lambda item: item[0])
    return Part(net, part.low - low, part.width)


def _share_a_switch(first: _Block, second: _Block) -> bool:
    selectors = {
        statement.selector for statement in first.body if not isinstance(statement, Assign)
    }
    return any(
        statement.selector in selectors
        for statement in second.body
        if not isinstance(statement, Assign)
    )


def _cone(body: list[Statement]) -> set[Net]:
    """Nets that ``body`` follows at once."""
    seen: set[Net] = set()
    stack = list(nets_of(values_in(body)))
    while stack:
        net = stack.pop()
        if net not in seen:
            seen.add(net)
            if is_combinational(net):
                stack.extend(nets_of(values_of(net.source)))
    return seen


def _kind(net: Net) -> str:
    """Kind of the operator, empty if ``net`` can only be a net."""
    match net.source:
        case Operator(kind, _):
            return kind
        case ReadPort() if not net.source.clock:
            return "read"
    return ""


def _operands(net: Net) -> Iterator[Net]:
    return nets_of(values_of(net.source))


def _drivers_first(nets: Iterable[Net]) -> list[Net]:
    order: list[Net] = []
    seen: set[Net] = set()
    for start in nets:
        stack = [] if start in seen else [(start, _operands(start))]
        seen.add(start)
        while stack:
            net, rest = stack[-1]
            for used in rest:
                if used not in seen and is_combinational(used):
                    seen.add(used)
                    stack.append((used, _operands(used)))
                    break
            else:
                order.append(net)
                stack.pop()
    return order


def _nets_below(values: Iterable[Value], inlined: Collection[Net]) -> Iterator[Net]:
    """Nets that the text of ``values`` names."""
    for net in nets_of(values):
        if net in inlined:
            yield from _nets_below(values_of(net.source), inlined)
        else:
            yield net


def _values_of_block(block: _Block) -> Iterator[Value]:
    yield from (block.clock, block.reset)
    for value, _ in values_in_lines(block.lines):
        yield value


def _values_of_memory(memory: MemoryArray) -> Iterator[Value]:
    for write in memory.writes:
        yield from (write.clock, write.address, write.data, write.enable)
    for net in memory.reads:
        yield from values_of(net.source)


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


def _is_clocked(net: Net) -> bool:
    return isinstance(net.source, ReadPort) and bool(net.source.clock)


def _range(low: int, width: int) -> str:
    return f"[{low}]" if width == 1 else f"[{low + width - 1}:{low}]"


def _shape(signed: bool, high: int, low: int) -> str:
    words = ["signed"] if signed and high > low else []
    return " ".join(words + ([f"[{high}:{low}]"] if high > low else []))


def _parameter(value: str | int | rtlil.Bits) -> str:
    match value:
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            return f'"{escaped}"'
        case int():
            return str(value)
    return f"{value.width}'h{value.value:x}"


def _memory_image(memory: MemoryArray) -> str:
    """Contents as ``$readmemh`` reads them, one word a line."""
    digits = (memory.width + 3) // 4
    return "".join(f"{word:0{digits}x}\n" for word in memory.contents)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _aligned(lines: list[str]) -> list[str]:
    """``lines`` with the arrows of neighbouring assignments below each other."""
    result: list[str] = []
    group: list[tuple[str, str]] = []

    def flush() -> None:
        width = max((len(target) for target, _ in group), default=0)
        result.extend(f"{target:{width}} <= {value}" for target, value in group)
        group.clear()

    for line in lines:
        target, arrow, value = line.partition(" <= ")
        if (
            arrow
            and value.endswith(";")
            and not re.search(r"[(:]", target.strip().partition("[")[0])
        ):
            if group and _margin(group[-1][0]) != _margin(target):
                flush()
            group.append((target.rstrip(), value))
        else:
            flush()
            result.append(line)
    flush()
    return result


def _margin(text: str) -> int:
    return len(text) - len(text.lstrip())


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Kind, name and comment of declarations, in columns; the ranges end below each other."""
    split = [(*_split_range(kind), name, comment) for kind, name, comment in rows]
    width = max((len(kind) for kind, _, _, _ in split), default=0)
    size = max((len(bits) for _, bits, _, _ in split), default=0)
    commented = [len(name) for _, _, name, comment in split if comment]
    lines = []
    for kind, bits, name, comment in split:
        line = f"{kind:{width}} {bits:>{size}} {name}" if size else f"{kind:{width}} {name}"
        if comment:
            line = f"{line:{width + size + max(commented) + 2}}  // {comment}"
        lines.append(line)
    return lines


def _split_range(kind: str) -> tuple[str, str]:
    words, bracket, bits = kind.partition("[")
    return words.rstrip(), bracket + bits


def _grouped(items: Sequence[list[str]]) -> list[list[str]]:
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
