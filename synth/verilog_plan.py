"""What the Verilog of a module will consist of: names, blocks, and what is written where."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from synth.verilog_logic import (
    Alias,
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
    is_combinational,
    join,
    nets_of,
    values_in,
    values_of,
    width_of,
)
from synth.verilog_names import Namespace, plain_name
from synth.verilog_statements import (
    Line,
    alike,
    as_expression,
    as_lines,
    merge,
    values_in_lines,
)

__all__ = ["Block", "Item", "Plan", "is_clocked", "whole_net"]

# An expression of more operators than this is cut at an operand, which gets a name; one with
# conditions may be twice as long.
LONGEST_EXPRESSION = 8
# Operators of an expression in the port list of an instance.
LONGEST_CONNECTION = 1
# Operators of a conditional expression inside another expression.
LONGEST_CONDITIONAL = 3
# Alternatives of a conditional expression; more become `if` and `case`.
MOST_ALTERNATIVES = 4

# Operators whose width or sign Verilog takes from what is around them: only on their own.
_ROOT_ONLY = frozenset(("mul", "sshr", "div", "mod"))
# Operators of which no operand can be cut when only some bits of the result are used.
_UNCUT = frozenset(("shr", "sshr", "div", "mod"))

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
    "copy": "padded",
}


@dataclass(eq=False)
class Block:
    """An ``always`` block.

    Attributes
    ----------
    nets : list of Net
        What it assigns.
    body : list of Statement
        All statements, those of a reset left out.
    clock : Value
        Clock; empty if the block is combinational.
    rising : bool
        Active edge.
    reset : Value
        One bit, or empty.
    asynchronous : bool
        Whether the reset works without a clock edge.
    lines : list of Line
        The statements as ``if`` and ``case``.
    """

    nets: list[Net]
    body: list[Statement]
    clock: Value = ()
    rising: bool = True
    reset: Value = ()
    asynchronous: bool = False
    lines: list[Line] = field(default_factory=list)


Item = Net | Block | Instance


@dataclass
class _Use:
    """One place where a net is used.

    ``context`` is root (all of what is assigned), branch (of a conditional expression), operand,
    part (of a concatenation), port (of an instance) or name (where no expression may stand).
    """

    context: str
    low: int
    width: int
    hint: str


class Plan:
    """Everything that is decided before text is written.

    Parameters
    ----------
    logic : Logic
        The module, simplified; it is changed.
    states : mapping of str to mapping of int to str
        Names of the values of a wire, by the name of the wire.
    hidden : collection of str
        Wires that only repeat ports of instances; they are named after instance and port.

    Attributes
    ----------
    names : dict of Net to str
        Every net that is not inlined.
    instances, memories : dict of str to str
        Names in Verilog by name in the RTLIL.
    row : str
        Name of the number of a row where memories are cleared; empty if none is.
    port_nets : dict of Net to str
        Nets that are an output port.
    declared_as : dict of Net to str
        Name of the wire in the RTLIL that a net is named after.
    inlined : set of Net
        Operators that are written where they are used.
    used : set of Net
        What is needed at all.
    blocks : list of Block
        ``always`` blocks, combinational ones first.
    items : list of Net, Block and Instance
        What the body consists of, in order.
    """

    def __init__(
        self,
        logic: Logic,
        states: Mapping[str, Mapping[int, str]],
        hidden: Collection[str],
    ) -> None:
        self.logic = logic
        self._states = states
        self._hidden = hidden
        self._space = Namespace()
        self.names: dict[Net, str] = {}
        self.port_nets: dict[Net, str] = {}
        self.declared_as: dict[Net, str] = {}
        self.instances: dict[str, str] = {}
        self.memories: dict[str, str] = {}
        self.row = ""
        self._labels: dict[Net, tuple[str, Mapping[int, str]]] = {}
        self._piece_names: dict[Net, str] = {}

        self._name_ports()
        self._name_nets()
        self._insert_aliases()
        self._find_labels()
        self._name_part_bases()
        self.blocks = [*self._combinational_blocks(), *self._clocked_blocks()]
        self.inlined: set[Net] = set()
        uses = self._uses()
        self.used = set(uses)
        self._choose_inlined(uses)
        self.items = self._sorted_items()

    # ------------------------------------------------------------------------------- names

    def _name_ports(self) -> None:
        for net in self.logic.inputs:
            assert net.name is not None
            self.names[net] = self._space.reserve(plain_name(net.name))
        for name, port in self.logic.outputs.items():
            plain = self._space.reserve(plain_name(name))
            driver = whole_net(port.value)
            if driver is not None and driver not in self.names:
                self.port_nets[driver] = name
                self._name(driver, plain, port)
        for instance in self.logic.instances:
            self.instances[instance.name] = self._space.take(instance.name)
        for memory in self.logic.memories:
            self.memories[memory] = self._space.take(memory)
        if any(memory.starts_as_zeros for memory in self.logic.memories.values()):
            self.row = self._space.take("row")

    def _name(self, net: Net, name: str, alias: Alias | None = None) -> None:
        self.names[net] = name
        if alias is not None:
            self.declared_as[net] = alias.name
            net.signed = alias.signed
            net.attributes = alias.attributes

    def _name_nets(self) -> None:
        """Name every net that a designer named, and those between instances after these."""
        aliases = [alias for alias in self.logic.aliases if _base(alias.name) not in self._hidden]
        for fields in (False, True):
            for alias in aliases:
                net = whole_net(alias.value)
                if net is None or net in self.names or _is_field(alias.name) != fields:
                    continue
                if net.name is None or net.name in self._hidden:
                    self._name(net, self._space.take(alias.name), alias)
        # Names of the module itself come before those made of a submodule's name and another.
        for net in sorted(self.logic.nets, key=lambda net: "/" in (net.name or "")):
            if net in self.names:
                continue
            if net.name is not None and net.name not in self._hidden:
                self.names[net] = self._space.take(net.name)
            elif isinstance(net.source, Pin):
                self.names[net] = self._space.take(f"{net.source.instance}_{net.source.port}")
        for alias in aliases:
            # A result of which only the low bits have a name.
            match alias.value:
                case (Part(net, 0, _),) if net not in self.names and _kind(net) in _UNCUT:
                    self.names[net] = self._space.take(f"{alias.name}_wide")
        for alias in (*self.logic.outputs.values(), *aliases):
            # A part of a signal that is driven unlike the rest of it.
            low = 0
            for part in alias.value:
                net = whole_net((part,))
                if net is not None and net not in self.names:
                    high = low + part.width - 1
                    bits = f"{low}" if low == high else f"{high}_{low}"
                    self._piece_names.setdefault(net, f"{alias.name}_{bits}")
                low += part.width
        for net, name in self._piece_names.items():
            if not isinstance(net.source, Operator):
                self.names[net] = self._space.take(name)
        for instance in self.logic.instances:
            for port, value in instance.inputs.items():
                net = whole_net(value)
                if net is not None and net not in self.names and net.name is not None:
                    self.names[net] = self._space.take(f"{instance.name}_{port}")

    def _insert_aliases(self) -> None:
        """Use a designer's names for parts of nets, and for several nets side by side."""
        single: dict[Net, list[tuple[int, int, Net]]] = defaultdict(list)
        several: dict[Number | Part, list[tuple[Value, Net]]] = defaultdict(list)
        live = {*self.logic.inputs, *self.logic.nets}
        created: dict[Value, Net] = {}

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

        for alias in self.logic.aliases:
            value = alias.value
            if _base(alias.name) in self._hidden or _is_field(alias.name) or value in created:
                continue
            if whole_net(value) is not None or not _all_live(value, live):
                continue
            definition = shorten(value) if len(value) > 1 else value
            net = Net(
                alias.name,
                width_of(value),
                Operator("copy", [definition]),
                signed=alias.signed,
                attributes=alias.attributes,
            )
            if len(value) == 1 and isinstance(value[0], Part):
                single[value[0].net].append((value[0].low, value[0].width, net))
            else:
                several[value[0]].append((value, net))
            created[value] = net

        self.logic.rewrite(shorten)
        used = set(nets_of(self.logic.roots()))
        for net in self.logic.nets:
            used.update(nets_of(values_of(net.source)))
        for net in reversed(created.values()):
            if net in used:
                used.update(nets_of(values_of(net.source)))
        for net in created.values():
            if net in used and net.name is not None:
                self.logic.nets.append(net)
                self.names[net] = self._space.take(net.name)

    def _find_labels(self) -> None:
        """Find the names of the values of enumerations and state machines."""
        for net in (*self.logic.inputs, *self.logic.nets):
            name = self.declared_as.get(net, net.name or "")
            base = str(net.attributes.get("enum_base_type", ""))
            labels: Mapping[int, str] = {
                int(key.removeprefix("enum_value_"), 2): str(value)
                for key, value in net.attributes.items()
                if key.startswith("enum_value_")
            }
            if name in self._states:
                base, labels = name.removesuffix("_state"), self._states[name]
            if labels and net.low == 0:
                self._labels[net] = base, labels

    def label(self, net: Net, value: int) -> tuple[str, str] | None:
        """Name of ``value`` of ``net``, after that of its enumeration; None if it has none."""
        if net not in self._labels:
            return None
        base, labels = self._labels[net]
        if value not in labels:
            return None
        name = plain_name(f"{base}_{labels[value]}").upper()
        return None if name in self._space else (base, name)

    def _name_part_bases(self) -> None:
        """Give a name to everything that bits are selected from at run time."""
        for net in list(self.logic.nets):
            match net.source:
                case Operator("part", [base, _]) if whole_net(base) is None:
                    padded = Net(None, width_of(base), Operator("copy", [base]))
                    net.source.operands[0] = padded.value
                    self.logic.nets.append(padded)

    def is_public(self, name: str) -> bool:
        """Whether the wire ``name`` is more than a port of an instance."""
        return name not in self._hidden

    # ------------------------------------------------------------------------ always blocks

    def _combinational_blocks(self) -> list[Block]:
        """Write short choices as expressions; the others become blocks, joined where possible."""
        blocks: list[Block] = []
        for net in self.logic.nets:
            if not isinstance(net.source, Choice):
                continue
            value = as_expression(net, as_lines(net.source.body), MOST_ALTERNATIVES)
            if value is not None:
                net.source = Operator("copy", [value])
                continue
            block = Block([net], net.source.body)
            for other in blocks:
                if _share_a_switch(other, block) and _independent(other, block, blocks):
                    other.nets.append(net)
                    other.body = merge(other.body, block.body)
                    break
            else:
                blocks.append(block)
        for block in blocks:
            block.lines = as_lines(block.body)
        return blocks

    def _clocked_blocks(self) -> list[Block]:
        """One block for all registers that have a clock and a reset in common."""
        blocks: dict[tuple[Value, bool, Value, bool], Block] = {}
        for net in self.logic.nets:
            source = net.source
            if isinstance(source, Register):
                key = _clocking(net)
                block = blocks.setdefault(key, Block([], [], *key))
                block.nets.append(net)
                block.body = merge(block.body, source.body)
        for block in blocks.values():
            block.lines = as_lines(block.body)
        return list(blocks.values())

    # ------------------------------------------------------------------------------ inlining

    def _uses(self) -> dict[Net, list[_Use]]:
        """Find where each net is used that something outside depends on."""
        uses: dict[Net, list[_Use]] = {}
        stack: list[Net] = []

        def use(value: Value, context: str, hint: str = "") -> None:
            for part in value:
                if isinstance(part, Part):
                    if part.net not in uses:
                        uses[part.net] = []
                        stack.append(part.net)
                    place = context if len(value) == 1 or context == "name" else "part"
                    uses[part.net].append(_Use(place, part.low, part.width, hint))

        for name, port in self.logic.outputs.items():
            use(port.value, "name" if whole_net(port.value) in self.port_nets else "root", name)
        for instance in self.logic.instances:
            for port_name, value in instance.inputs.items():
                use(value, "port", f"{instance.name}_{port_name}")
        for memory in self.logic.memories.values():
            for write in memory.writes:
                use(write.clock, "name")
                use(write.address, "name", f"{memory.name}_write_address")
                use(write.data, "name", f"{memory.name}_write_data")
                use(write.enable, "name", f"{memory.name}_write_enable")
            for net in memory.reads:
                if is_clocked(net):
                    use(net.value, "name")
        written: set[Block] = set()
        for block in self.blocks:
            if block.clock:
                use(block.clock, "name")
                use(block.reset, "name" if block.asynchronous else "operand", "reset")
                for value, target in values_in_lines(block.lines):
                    hint = f"{target.name}_next" if target and target.name else ""
                    use(value, "root" if target else "operand", hint)

        members = {net: block for block in self.blocks for net in block.nets}
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
                        elif kind == "mul" and width_of(operand) != net.width:
                            # Verilog would compute an operand as wide as the product.
                            context = "name"
                        use(operand, context)
                case Choice() if members[net] not in written:
                    written.add(members[net])
                    for value, target in values_in_lines(members[net].lines):
                        use(value, "root" if target else "operand")
                case ReadPort():
                    context = "name" if is_clocked(net) else "operand"
                    use(net.source.clock, "name")
                    use(net.source.address, context, f"{net.source.memory}_read_address")
                    use(net.source.enable, context, f"{net.source.memory}_read_enable")
        return uses

    def _choose_inlined(self, uses: Mapping[Net, Sequence[_Use]]) -> None:
        """Find the operators that are written where they are used, and name the others."""
        cost: dict[Net, int] = {}
        order = _drivers_first(net for net in uses if is_combinational(net))
        for net in order:
            # Every expression of a block stands on its own.
            operands = () if isinstance(net.source, Choice) else _operands(net)
            inner = [used for used in operands if used in self.inlined]
            limit = LONGEST_EXPRESSION * (2 if _kind(net) in ("mux", "copy") else 1)
            total = (_kind(net) != "copy") + sum(cost[used] for used in inner)
            # Too long: name the longest operands.
            for used in sorted(inner, key=lambda used: -cost[used]):
                if total <= limit or cost[used] < 2:
                    break
                if used in self.inlined:
                    self.inlined.discard(used)
                    total -= cost[used]
            cost[net] = total
            if net not in self.names and self._may_inline(net, uses[net], total):
                self.inlined.add(net)
        for net in uses:
            if net not in self.inlined and net not in self.names:
                name = self._derived_name(net, uses[net])
                bits = 0
                for use in uses[net]:
                    bits |= (1 << use.width) - 1 << use.low - net.low
                if bits != (1 << net.width) - 1:
                    name += "_wide"
                self.names[net] = self._space.take(name)

    def _may_inline(self, net: Net, uses: Sequence[_Use], cost: int) -> bool:
        kind = _kind(net)
        if not kind or any(use.width != net.width for use in uses):
            return False
        if len(uses) > 1 and not self._trivial(net):
            return False
        for use in uses:
            if use.context == "name":
                return False
            if use.context == "port" and (cost > LONGEST_CONNECTION or kind == "mux"):
                return False
            if use.context != "root" and kind in _ROOT_ONLY:
                return False
            if use.context in ("operand", "part") and kind == "mux" and cost > LONGEST_CONDITIONAL:
                return False
        return True

    def _trivial(self, net: Net) -> bool:
        """Whether ``net`` may be written again at every use: a short test of named bits."""
        if net.width > 1 or not isinstance(net.source, Operator):
            return False
        if net.source.kind in ("mux", "part") or any(
            used in self.inlined for used in _operands(net)
        ):
            return False
        variables = [
            operand for operand in net.source.operands if not isinstance(operand[0], Number)
        ]
        return len(variables) == 1 and len(variables[0]) == 1

    def _derived_name(self, net: Net, uses: Sequence[_Use]) -> str:
        """Name a temporary after its use, or after what it is made of."""
        noun = "word" if isinstance(net.source, ReadPort) else _NOUNS.get(_kind(net), "choice")
        if net in self._piece_names:
            return self._piece_names[net]
        hints = {use.hint for use in uses}
        if len(hints) == 1 and (hint := hints.pop()):
            return f"{hint}_{noun}" if hint in self.logic.outputs else hint
        operands = [
            self.names.get(part.net, "")
            for operand in values_of(net.source)
            for part in operand[:1]
            if isinstance(part, Part)
        ]
        first = operands[0] if operands and operands[0] else ""
        match net.source:
            case ReadPort():
                return f"{net.source.memory}_{noun}"
            case Operator("copy", _):
                return f"{first}_{noun}" if first else "constant"
            case Operator("eq" | "ne" | "lt" | "le" | "gt" | "ge" as kind, [left, right]):
                other = str(right[0].value) if isinstance(right[0], Number) else operands[-1]
                simple = len(left) == len(right) == 1 and first and other
                return f"{first}_{kind}_{other}" if simple else "condition"
            case Operator("any" | "all" | "parity" | "not" as kind, _) if first:
                return f"{kind}_{first}"
        return f"{first}_{noun}" if len(operands) == 1 and first else noun

    # --------------------------------------------------------------------------------- order

    def _sorted_items(self) -> list[Item]:
        """Order the parts of the body: drivers before what they drive.

        Outputs of instances are declared ahead of all, so an instance may come late where it is
        part of a feedback; everything else is declared where it is driven.
        """
        home: dict[Net, Item] = {}
        for block in self.blocks:
            if not block.clock:
                home.update(dict.fromkeys(block.nets, block))
        instances = {instance.name: instance for instance in self.logic.instances}
        done: set[int] = set()
        result: list[Item] = []

        def visit(start: Item) -> None:
            stack: list[tuple[Item, Iterator[Net]]] = []
            if id(start) not in done:
                done.add(id(start))
                stack.append((start, self._nets_below(_values_of_item(start))))
            while stack:
                item, rest = stack[-1]
                for net in rest:
                    if isinstance(net.source, Pin):
                        other: Item = instances[net.source.instance]
                    elif is_combinational(net):
                        other = home.get(net, net)
                    else:
                        continue
                    if id(other) not in done:
                        done.add(id(other))
                        stack.append((other, self._nets_below(_values_of_item(other))))
                        break
                    if not isinstance(other, Instance) and other is not item:
                        above = next(
                            (n for n, (one, _) in enumerate(stack, 1) if one is other), len(stack)
                        )
                        if any(isinstance(one, Instance) for one, _ in stack[above:]):
                            # An instance needs what waits for it: it comes later.
                            done.difference_update(id(one) for one, _ in stack[above:])
                            del stack[above:]
                            break
                else:
                    result.append(item)
                    stack.pop()

        for instance in self.logic.instances:
            visit(instance)
        for block in self.blocks:
            if block.clock:
                visit(block)
        sinks = [port.value for port in self.logic.outputs.values()]
        for memory in self.logic.memories.values():
            sinks += _values_of_memory(memory)
        for net in self._nets_below(sinks):
            if is_combinational(net):
                visit(home.get(net, net))
        return result

    def _nets_below(self, values: Iterable[Value]) -> Iterator[Net]:
        """Nets that the text of ``values`` names."""
        for net in nets_of(values):
            if net in self.inlined:
                yield from self._nets_below(values_of(net.source))
            else:
                yield net


def whole_net(value: Value) -> Net | None:
    """Find the net that ``value`` is all bits of."""
    match value:
        case (Part(net, low, width),) if (low, width) == (net.low, net.width):
            return net
    return None


def is_clocked(net: Net) -> bool:
    """Whether ``net`` is read from a memory at a clock edge."""
    return isinstance(net.source, ReadPort) and bool(net.source.clock)


def _clocking(net: Net) -> tuple[Value, bool, Value, bool]:
    """Clock, active edge, reset, and whether it is asynchronous, of a register."""
    source = net.source
    assert isinstance(source, Register)
    return source.clock, source.rising, source.reset, source.asynchronous


def _base(name: str) -> str:
    """Name of the wire that ``name`` is a field of, or ``name`` itself."""
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def _is_field(name: str) -> bool:
    return _base(name) != name


def _all_live(value: Value, live: Collection[Net]) -> bool:
    """Whether ``value`` has bits that are not constant, and all of them are used somewhere."""
    parts = [part for part in value if isinstance(part, Part)]
    return bool(parts) and all(
        part.net in live and part.net.low <= part.low and part.low + part.width <= part.net.high + 1
        for part in parts
    )


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


def _share_a_switch(first: Block, second: Block) -> bool:
    return any(alike(one, two) for one in first.body for two in second.body)


def _independent(first: Block, second: Block, blocks: Sequence[Block]) -> bool:
    """Whether neither block needs a result of the other, so that one block can do both."""
    home = {net: block for block in blocks for net in block.nets}
    return not (
        set(first.nets) & _cone(second.body, home) or set(second.nets) & _cone(first.body, home)
    )


def _cone(body: list[Statement], home: Mapping[Net, Block]) -> set[Net]:
    """Nets that ``body`` follows at once; of a block in ``home``, all or none."""
    seen: set[Net] = set()
    stack = list(nets_of(values_in(body)))
    while stack:
        net = stack.pop()
        if net in seen:
            continue
        seen.add(net)
        if net in home:
            stack.extend(nets_of(values_in(home[net].body)))
        elif is_combinational(net):
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


def _values_of_item(item: Item) -> Iterator[Value]:
    if isinstance(item, Net):
        yield from values_of(item.source)
    elif isinstance(item, Instance):
        yield from item.inputs.values()
    else:
        yield from (item.clock, item.reset)
        for value, _ in values_in_lines(item.lines):
            yield value


def _values_of_memory(memory: MemoryArray) -> Iterator[Value]:
    for write in memory.writes:
        yield from (write.clock, write.address, write.data, write.enable)
    for net in memory.reads:
        yield from values_of(net.source)
