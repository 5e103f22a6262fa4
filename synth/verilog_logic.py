"""Logic of one RTLIL module as nets and operators, simplified for writing it as Verilog.

Every operand has exactly the bits that its operator needs: extensions are explicit, so that
nothing depends on Verilog's rules for the width and sign of an expression.  Shifts by constants,
slices and concatenations are wiring, not operators.  Bits that nothing uses are dropped.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from synth import rtlil
from synth.rtlil import RtlilError

__all__ = [
    "Alias",
    "Assign",
    "Branch",
    "Choice",
    "Input",
    "Instance",
    "Logic",
    "MemoryArray",
    "Net",
    "Number",
    "Operator",
    "Part",
    "Pin",
    "ReadPort",
    "Register",
    "Select",
    "Statement",
    "Value",
    "WritePort",
    "build",
    "extend",
    "is_combinational",
    "join",
    "nets_of",
    "simplify",
    "slice_of",
    "substitute",
    "values_in",
    "values_of",
    "width_of",
]


class Net:
    """Bits ``low`` to ``high`` of something that is driven as a whole.

    Attributes
    ----------
    name : str or None
        Name in the RTLIL, None for a temporary.
    signed : bool
        Whether it was declared as two's complement.
    source : object
        What drives it.
    attributes : dict
        Attributes of the wire.
    """

    __slots__ = ("attributes", "high", "low", "name", "signed", "source")

    def __init__(
        self,
        name: str | None,
        width: int,
        source: "Source",
        *,
        signed: bool = False,
        attributes: dict[str, str | int | rtlil.Bits] | None = None,
    ) -> None:
        self.name = name
        self.low = 0
        self.high = width - 1
        self.signed = signed
        self.source = source
        self.attributes = attributes or {}

    @property
    def width(self) -> int:
        """Number of bits."""
        return self.high - self.low + 1

    @property
    def value(self) -> "Value":
        """All bits."""
        return (Part(self, self.low, self.width),)


class Number(NamedTuple):
    """Constant bits."""

    value: int
    width: int


class Part(NamedTuple):
    """Bits ``low`` to ``low + width - 1`` of a net."""

    net: Net
    low: int
    width: int


#: Bits, least significant part first; neighbours are never parts of the same run of bits.
Value = tuple[Number | Part, ...]


def width_of(value: Value) -> int:
    """Count the bits of ``value``."""
    return sum(part.width for part in value)


def join(*values: Value) -> Value:
    """Concatenation, least significant value first."""
    result: list[Number | Part] = []
    for value in values:
        for part in value:
            if part.width == 0:
                continue
            last = result[-1] if result else None
            match last, part:
                case Number(low, width), Number(high, more):
                    result[-1] = Number(low | high << width, width + more)
                case Part(net, low, width), Part(other, begin, more) if (
                    net is other and low + width == begin
                ):
                    result[-1] = Part(net, low, width + more)
                case _:
                    result.append(part)
    return tuple(result)


def slice_of(value: Value, low: int, width: int) -> Value:
    """Bits ``low`` to ``low + width - 1`` of ``value``."""
    result: list[Number | Part] = []
    high = low + width
    position = 0
    for part in value:
        begin, end = max(low - position, 0), min(high - position, part.width)
        if begin < end:
            if isinstance(part, Number):
                bits = part.value >> begin & (1 << end - begin) - 1
                result.append(Number(bits, end - begin))
            else:
                result.append(Part(part.net, part.low + begin, end - begin))
        position += part.width
    return tuple(result)


def extend(value: Value, width: int, signed: bool) -> Value:
    """``value`` with exactly ``width`` bits: cut, or extended by zeros or by its sign."""
    have = width_of(value)
    if width <= have:
        return slice_of(value, 0, width)
    if signed and have:
        return join(value, *[slice_of(value, have - 1, 1)] * (width - have))
    return join(value, (Number(0, width - have),))


def substitute(value: Value, replacements: dict[Net, Value]) -> Value:
    """``value`` with each replaced net's bits taken from its replacement."""
    if not any(isinstance(part, Part) and part.net in replacements for part in value):
        return value
    parts: list[Value] = []
    for part in value:
        if isinstance(part, Part) and part.net in replacements:
            bits = replacements[part.net]
            parts.append(slice_of(bits, part.low - part.net.low, part.width))
        else:
            parts.append((part,))
    return join(*parts)


@dataclass
class Input:
    """Port of the module."""


@dataclass
class Pin:
    """Output of an instance."""

    instance: str
    port: str


@dataclass
class Operator:
    """Result of an operation.

    ``kind`` is one of

    ================================  ==========================================================
    not, and, or, xor, add, sub, neg  operands as wide as the result
    mux                               condition of one bit; if true, if false
    shl, shr, sshr                    first operand as wide as the result, second the distance
    mul                               operands of any width, extended as ``signed`` says
    div, mod                          operands as wide as the result; rounded towards zero
    eq, ne, lt, le, gt, ge            operands of one width; result of one bit
    any, all, parity                  one operand; result of one bit
    part                              bits of the first operand from the second one on
    copy                              the operand: a name for some bits
    ================================  ==========================================================
    """

    kind: str
    operands: list[Value]
    signed: bool = False


class Assign(NamedTuple):
    """Bits of ``net`` from ``low`` on take ``value``."""

    net: Net
    low: int
    value: Value


class Branch(NamedTuple):
    """``body`` is taken if the selector matches a pattern (of 0, 1, -); none: always."""

    patterns: tuple[str, ...]
    body: "list[Statement]"


class Select(NamedTuple):
    """The first branch that matches ``selector`` is taken."""

    selector: Value
    branches: list[Branch]


Statement = Assign | Select


@dataclass
class Choice:
    """Result of statements in order; the first one assigns all bits."""

    body: list[Statement]


@dataclass
class Register:
    """Flip-flops.

    Attributes
    ----------
    clock : Value
        Clock.
    rising : bool
        Active edge.
    body : list of Statement
        Next state; bits that are not assigned keep theirs.
    reset : Value
        One bit; empty if there is none.
    reset_value : int
        State after reset.
    asynchronous : bool
        Whether the reset works without a clock edge.
    """

    clock: Value
    rising: bool
    body: list[Statement]
    reset: Value = ()
    reset_value: int = 0
    asynchronous: bool = False


@dataclass
class ReadPort:
    """Output of a memory; ``clock`` is empty if it follows the address at once."""

    memory: str
    clock: Value
    rising: bool
    address: Value
    enable: Value
    transparent: int


Source = Input | Pin | Operator | Choice | Register | ReadPort


@dataclass
class WritePort:
    """Input of a memory; ``enable`` has a bit for every bit of ``data``."""

    clock: Value
    rising: bool
    address: Value
    data: Value
    enable: Value


@dataclass
class MemoryArray:
    """A memory and what goes in and out."""

    name: str
    width: int
    depth: int
    contents: list[int] = field(default_factory=list)
    writes: list[WritePort] = field(default_factory=list)
    reads: list[Net] = field(default_factory=list)


@dataclass
class Instance:
    """A module placed in this one."""

    module: str
    name: str
    parameters: dict[str, str | int | rtlil.Bits]
    inputs: dict[str, Value]
    outputs: dict[str, Net]


@dataclass
class Alias:
    """A name for bits that something else drives."""

    name: str
    signed: bool
    value: Value
    attributes: dict[str, str | int | rtlil.Bits]


@dataclass
class Logic:
    """One module.

    Attributes
    ----------
    name : str
        Its name.
    inputs : list of Net
        Input ports.
    outputs : dict of str to Alias
        Value of each output port.
    nets : list of Net
        Everything else that is driven, in the order of the RTLIL.
    instances : list of Instance
        Modules placed in this one.
    memories : dict of str to MemoryArray
        Memories by name.
    aliases : list of Alias
        Other names for some of the bits.
    fields : dict of str to list of (str, int)
        Name and width of each field of a wire, lowest first; ``[n]`` for elements of an array.
    """

    name: str
    inputs: list[Net]
    outputs: dict[str, Alias]
    nets: list[Net]
    instances: list[Instance]
    memories: dict[str, MemoryArray]
    aliases: list[Alias]
    fields: dict[str, list[tuple[str, int]]]

    def roots(self) -> Iterator[Value]:
        """Values that are used by something that is not a net."""
        for port in self.outputs.values():
            yield port.value
        for instance in self.instances:
            yield from instance.inputs.values()
        for memory in self.memories.values():
            for write in memory.writes:
                yield from (write.clock, write.address, write.data, write.enable)

    def rewrite(self, change: Callable[[Value], Value]) -> None:
        """Apply ``change`` to every value."""
        for net in self.nets:
            rewrite_source(net.source, change)
        for alias in (*self.aliases, *self.outputs.values()):
            alias.value = change(alias.value)
        for instance in self.instances:
            instance.inputs = {key: change(value) for key, value in instance.inputs.items()}
        for memory in self.memories.values():
            for write in memory.writes:
                write.clock, write.address = change(write.clock), change(write.address)
                write.data, write.enable = change(write.data), change(write.enable)

    def sorted_nets(self) -> list[Net]:
        """List the combinational nets, each after those that it uses.

        Raises
        ------
        ValueError
            If there is a loop.
        """
        order: list[Net] = []
        state: dict[Net, bool] = {}  # False while its sources are being visited
        for start in self.nets:
            stack: list[tuple[Net, Iterator[Net] | None]] = [(start, None)]
            while stack:
                net, rest = stack.pop()
                if rest is None:
                    if net in state or not is_combinational(net):
                        continue
                    state[net] = False
                    rest = nets_of(values_of(net.source))
                for used in rest:
                    if state.get(used, True) is False:
                        raise ValueError(
                            f"module {self.name} must have no combinational loop, but "
                            f"{used.name or 'an expression'} depends on itself"
                        )
                    if used not in state and is_combinational(used):
                        stack.append((net, rest))
                        stack.append((used, None))
                        break
                else:
                    state[net] = True
                    order.append(net)
        return order


def is_combinational(net: Net) -> bool:
    """Whether ``net`` follows its inputs at once, inside this module."""
    source = net.source
    return isinstance(source, (Operator, Choice)) or (
        isinstance(source, ReadPort) and not source.clock
    )


def nets_of(values: Iterable[Value]) -> Iterator[Net]:
    """Nets that ``values`` have bits of."""
    for value in values:
        for part in value:
            if isinstance(part, Part):
                yield part.net


def values_of(source: Source) -> Iterator[Value]:
    """Values that ``source`` uses."""
    match source:
        case Operator():
            yield from source.operands
        case Choice():
            yield from values_in(source.body)
        case Register():
            yield from (source.clock, source.reset)
            yield from values_in(source.body)
        case ReadPort():
            yield from (source.clock, source.address, source.enable)


def values_in(body: list[Statement]) -> Iterator[Value]:
    """Values that statements use."""
    for statement in body:
        if isinstance(statement, Assign):
            yield statement.value
        else:
            yield statement.selector
            for branch in statement.branches:
                yield from values_in(branch.body)


def rewrite_source(source: Source, change: Callable[[Value], Value]) -> None:
    """Apply ``change`` to the values that ``source`` uses."""
    match source:
        case Operator():
            source.operands = [change(operand) for operand in source.operands]
        case Choice():
            source.body = rewrite_body(source.body, change)
        case Register():
            source.clock, source.reset = change(source.clock), change(source.reset)
            source.body = rewrite_body(source.body, change)
        case ReadPort():
            source.clock, source.address = change(source.clock), change(source.address)
            source.enable = change(source.enable)


def rewrite_body(body: list[Statement], change: Callable[[Value], Value]) -> list[Statement]:
    """Apply ``change`` to the values that statements use."""
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, Assign):
            result.append(statement._replace(value=change(statement.value)))
        else:
            branches = [
                Branch(branch.patterns, rewrite_body(branch.body, change))
                for branch in statement.branches
            ]
            result.append(Select(change(statement.selector), branches))
    return result


def build(module: rtlil.Module) -> Logic:
    """Logic of ``module``, simplified.

    Raises
    ------
    RtlilError
        If it has a cell that cannot be written as plain Verilog.
    ValueError
        If it has a combinational loop.
    """
    logic = _Builder(module).logic()
    _split_self_references(logic)
    _fold(logic)
    _drop_unused(logic)
    # Narrower operators may have become trivial.
    _fold(logic)
    return logic


_UNARY = {
    "$not": "not",
    "$neg": "neg",
    "$reduce_and": "all",
    "$reduce_or": "any",
    "$reduce_bool": "any",
    "$reduce_xor": "parity",
}
_BINARY = {"$and": "and", "$or": "or", "$xor": "xor", "$add": "add", "$sub": "sub"}
_COMPARISONS = {"$eq": "eq", "$ne": "ne", "$lt": "lt", "$le": "le", "$gt": "gt", "$ge": "ge"}
_SHIFTS = {"$shl": "shl", "$shr": "shr", "$sshr": "sshr"}


class _Builder:
    """Nets and operators of a module as it stands."""

    def __init__(self, module: rtlil.Module) -> None:
        self._module = module
        self._nets: dict[str, Net] = {}  # driven by something other than wiring
        self._wiring: dict[str, rtlil.SigSpec] = {}
        self._resolved: dict[rtlil.Chunk, Value] = {}
        self._extra: list[Net] = []

    def logic(self) -> Logic:
        """Convert everything."""
        module = self._module
        for wire in module.wires.values():
            if wire.port == "input":
                self._add(wire.name, Input())
        for target, value in module.connections:
            self._wiring[self._whole(target)] = value
        states = {
            self._whole(cell.connections["D"])
            for cell in module.cells
            if cell.kind in ("$dff", "$adff") and self._is_whole(cell.connections["D"])
        }
        processes: dict[str, list[rtlil.Assignment | rtlil.Switch]] = {}
        choices = []
        for process in module.processes:
            body = _flatten(process.body)
            name = _target_of(body)
            if all(isinstance(statement, rtlil.Assignment) for statement in body):
                self._wiring[name] = self._wires_of(name, body)
            elif name in states:
                processes[name] = body
            else:
                choices.append((self._add(name, Choice([])), body))

        memories = {
            memory.name: MemoryArray(memory.name, memory.width, memory.size)
            for memory in module.memories.values()
        }
        cells = [cell for cell in module.cells if cell.kind.startswith("$")]
        outputs = [(cell, self._output(cell)) for cell in cells]
        instances = [self._instance(cell) for cell in module.cells if not cell.kind.startswith("$")]

        # Everything that is driven is known now, so values can be found.
        for choice, body in choices:
            choice.source = Choice(self._body(choice, body))
        for cell, net in outputs:
            self._convert(cell, net, processes, memories)
        for instance, inputs in instances:
            instance.inputs = {port: self._value(value) for port, value in inputs.items()}

        ports = [wire for wire in module.wires.values() if wire.port]
        return Logic(
            name=module.name,
            inputs=[self._nets[wire.name] for wire in ports if wire.name in self._input_names()],
            outputs={
                wire.name: self._alias(wire)
                for wire in ports
                if wire.port == "output" and wire.width
            },
            nets=[net for net in self._nets.values() if not isinstance(net.source, Input)]
            + self._extra,
            instances=[instance for instance, _ in instances],
            memories=memories,
            aliases=[
                self._alias(wire)
                for wire in module.wires.values()
                if not wire.port
                and wire.name in self._wiring
                and wire.width
                and wire.name[0] != "$"
            ],
            fields=_fields(module),
        )

    def _input_names(self) -> set[str]:
        return {name for name, net in self._nets.items() if isinstance(net.source, Input)}

    def _alias(self, wire: rtlil.Wire) -> Alias:
        value = self._value((rtlil.Chunk(wire.name, 0, wire.width),))
        return Alias(wire.name, wire.signed, value, wire.attributes)

    def _add(self, name: str, source: Source) -> Net:
        wire = self._module.wires[name]
        net = Net(
            None if name.startswith("$") else name,
            wire.width,
            source,
            signed=wire.signed,
            attributes=wire.attributes,
        )
        if wire.width:
            self._nets[name] = net
        return net

    def _is_whole(self, value: rtlil.SigSpec) -> bool:
        if len(value) != 1 or not isinstance(value[0], rtlil.Chunk):
            return False
        return value[0].width == self._module.wires[value[0].wire].width

    def _whole(self, value: rtlil.SigSpec) -> str:
        """Name of the wire that ``value`` is; only whole wires are driven."""
        if not self._is_whole(value):
            if not value:
                return ""
            raise RtlilError(f"module {self._module.name} must drive whole wires, not {value!r}")
        chunk = value[0]
        assert isinstance(chunk, rtlil.Chunk)
        return chunk.wire

    def _wires_of(self, name: str, body: list[rtlil.Assignment | rtlil.Switch]) -> rtlil.SigSpec:
        """Find what is connected to the wire ``name`` if ``body`` has only assignments."""
        bits: list[tuple[int, rtlil.SigSpec]] = []
        for statement in body:
            assert isinstance(statement, rtlil.Assignment)
            chunk = statement.target[0]
            assert isinstance(chunk, rtlil.Chunk)
            low, high = chunk.low, chunk.low + chunk.width
            kept = []
            for position, value in bits:
                end = position + _width(value)
                if position < low:
                    kept.append((position, _cut(value, 0, min(end, low) - position)))
                if end > high:
                    begin = max(position, high)
                    kept.append((begin, _cut(value, begin - position, end - begin)))
            bits = [*kept, (low, statement.value)]
        return tuple(part for _, value in sorted(bits, key=lambda item: item[0]) for part in value)

    def _value(self, spec: rtlil.SigSpec) -> Value:
        return join(*(self._bits(part) for part in spec))

    def _bits(self, part: rtlil.Bits | rtlil.Chunk) -> Value:
        if isinstance(part, rtlil.Bits):
            return (Number(*part),) if part.width else ()
        net = self._nets.get(part.wire)
        if net is not None:
            return (Part(net, part.low, part.width),) if part.width else ()
        if part not in self._resolved:
            if part.wire not in self._wiring:
                raise RtlilError(f"module {self._module.name} must drive {part.wire}")
            wiring = _cut(self._wiring[part.wire], part.low, part.width)
            try:
                self._resolved[part] = self._value(wiring)
            except RecursionError:
                raise ValueError(
                    f"module {self._module.name} must have no combinational loop, but "
                    f"{part.wire} depends on itself"
                ) from None
        return self._resolved[part]

    def _body(self, net: Net, body: list[rtlil.Assignment | rtlil.Switch]) -> list[Statement]:
        result: list[Statement] = []
        for statement in body:
            if isinstance(statement, rtlil.Assignment):
                chunk = statement.target[0]
                assert isinstance(chunk, rtlil.Chunk)
                result.append(Assign(net, chunk.low, self._value(statement.value)))
            else:
                branches = [
                    Branch(case.patterns, self._body(net, case.body)) for case in statement.cases
                ]
                result.append(Select(self._value(statement.selector), branches))
        return result

    def _output(self, cell: rtlil.Cell) -> Net | None:
        """Net that ``cell`` drives."""
        port = {"$dff": "Q", "$adff": "Q", "$memrd_v2": "DATA"}.get(cell.kind, "Y")
        if port not in cell.connections:
            return None
        name = self._whole(cell.connections[port])
        return self._add(name, Input()) if name else Net(None, 0, Input())

    def _instance(self, cell: rtlil.Cell) -> tuple[Instance, dict[str, rtlil.SigSpec]]:
        """Make the instance, and find what is connected to its inputs."""
        inputs: dict[str, rtlil.SigSpec] = {}
        outputs: dict[str, Net] = {}
        for port, value in cell.connections.items():
            if not value:
                continue  # no bits
            if port in cell.outputs:
                outputs[port] = self._add(self._whole(value), Pin(cell.name, port))
            else:
                inputs[port] = value
        return Instance(cell.kind, cell.name, cell.parameters, {}, outputs), inputs

    def _convert(
        self,
        cell: rtlil.Cell,
        net: Net | None,
        processes: dict[str, list[rtlil.Assignment | rtlil.Switch]],
        memories: dict[str, MemoryArray],
    ) -> None:
        """Find the source of ``net``."""
        values = {
            port: self._value(value)
            for port, value in cell.connections.items()
            if port not in ("Q", "Y") and not (port == "D" and self._is_state(value, processes))
        }
        match cell.kind:
            case "$dff" | "$adff":
                assert net is not None
                net.source = self._register(cell, net, values, processes)
            case "$meminit_v2":
                memory = memories[self._memory_of(cell)]
                words, width = _integer(cell, "WORDS"), memory.width
                bits = _number(values["DATA"])
                memory.contents = [bits >> width * n & (1 << width) - 1 for n in range(words)]
            case "$memwr_v2":
                memories[self._memory_of(cell)].writes.append(
                    WritePort(
                        values["CLK"],
                        bool(_integer(cell, "CLK_POLARITY")),
                        values["ADDR"],
                        values["DATA"],
                        values["EN"],
                    )
                )
            case "$memrd_v2":
                assert net is not None
                memory = memories[self._memory_of(cell)]
                clocked = _integer(cell, "CLK_ENABLE")
                net.source = ReadPort(
                    memory.name,
                    values["CLK"] if clocked else (),
                    bool(_integer(cell, "CLK_POLARITY")),
                    values["ADDR"],
                    values["EN"],
                    _integer(cell, "TRANSPARENCY_MASK"),
                )
                memory.reads.append(net)
            case _:
                if net is None:
                    raise RtlilError(f"cell {cell.kind} has no plain Verilog")
                net.source = self._operator(cell, net, values)

    def _is_state(
        self, value: rtlil.SigSpec, processes: dict[str, list[rtlil.Assignment | rtlil.Switch]]
    ) -> bool:
        return self._is_whole(value) and self._whole(value) in processes

    def _memory_of(self, cell: rtlil.Cell) -> str:
        return str(cell.parameters["MEMID"]).removeprefix("\\")

    def _register(
        self,
        cell: rtlil.Cell,
        net: Net,
        values: dict[str, Value],
        processes: dict[str, list[rtlil.Assignment | rtlil.Switch]],
    ) -> Register:
        if "D" in values:
            body: list[Statement] = [Assign(net, 0, values["D"])]
        else:
            body = self._body(net, processes[self._whole(cell.connections["D"])])
        first = body[0]
        if isinstance(first, Assign) and first.value == net.value:
            del body[0]  # the register keeps its state anyway
        register = Register(values["CLK"], bool(_integer(cell, "CLK_POLARITY")), body)
        if cell.kind == "$adff":
            register.asynchronous = True
            register.reset = values["ARST"]
            register.reset_value = _integer(cell, "ARST_VALUE")
        elif body and (reset := _reset_of(body[-1], net)) is not None:
            register.reset, register.reset_value = reset
            del body[-1]
        return register

    def _operator(self, cell: rtlil.Cell, net: Net, values: dict[str, Value]) -> Operator:
        kind = cell.kind
        width = net.width
        a, b = values.get("A", ()), values.get("B", ())
        signed = bool(cell.parameters.get("A_SIGNED", 0))
        if kind in _UNARY:
            name = _UNARY[kind]
            return Operator(name, [extend(a, width, signed) if name in ("not", "neg") else a])
        if kind in _BINARY:
            return Operator(_BINARY[kind], [extend(a, width, signed), extend(b, width, signed)])
        if kind in _COMPARISONS:
            common = max(width_of(a), width_of(b))
            operands = [extend(a, common, signed), extend(b, common, signed)]
            return Operator(_COMPARISONS[kind], operands, signed)
        if kind in _SHIFTS:
            return Operator(_SHIFTS[kind], [extend(a, width, signed), b])
        match kind:
            case "$mul":
                return Operator("mul", [a, b], signed)
            case "$mux":
                return Operator("mux", [values["S"], b, a])
            case "$shift":
                # Enough bits for the largest distance; bits from beyond the end are the sign.
                return Operator("part", [extend(a, (1 << width_of(b)) - 1 + width, signed), b])
            case "$divfloor" | "$modfloor":
                return self._division(kind, width, a, b, signed)
        raise RtlilError(f"cell {kind} has no plain Verilog")

    def _temporary(self, kind: str, width: int, *operands: Value, signed: bool = False) -> Value:
        net = Net(None, width, Operator(kind, list(operands), signed))
        self._extra.append(net)
        return net.value

    def _division(self, kind: str, width: int, a: Value, b: Value, signed: bool) -> Operator:
        """Division that rounds down, as Python's does."""
        common = max(width_of(a), width_of(b), width)
        a, b = extend(a, common, signed), extend(b, common, signed)
        name = "div" if kind == "$divfloor" else "mod"
        result = self._temporary(name, common, a, b, signed=signed)
        if not signed:
            return Operator("copy", [slice_of(result, 0, width)])
        # Verilog rounds towards zero; one too many if there is a remainder of the other sign.
        rest = self._temporary("mod", common, a, b, signed=True) if name == "div" else result
        top = common - 1
        other = self._temporary("xor", 1, slice_of(rest, top, 1), slice_of(b, top, 1))
        inexact = self._temporary("any", 1, rest)
        down = self._temporary("and", 1, inexact, other)
        if name == "div":
            exact = self._temporary("sub", common, result, extend(down, common, False))
        else:
            step = self._temporary("mux", common, down, b, (Number(0, common),))
            exact = self._temporary("add", common, result, step)
        return Operator("copy", [slice_of(exact, 0, width)])


def _fields(module: rtlil.Module) -> dict[str, list[tuple[str, int]]]:
    """Fields of structures and arrays, which Amaranth adds as wires ``a.b`` and ``a[1]``."""
    fields: dict[str, list[tuple[str, int]]] = {}
    for wire in module.wires.values():
        base, dot, key = wire.name.rpartition(".")
        if wire.name.endswith("]"):
            base, _, key = wire.name.rpartition("[")
            key = f"[{key}"
        elif not dot:
            continue
        fields.setdefault(base, []).append((key, wire.width))
    return fields


def _flatten(
    body: list[rtlil.Assignment | rtlil.Switch],
) -> list[rtlil.Assignment | rtlil.Switch]:
    """``body`` without switches over nothing, which only keep statements in order."""
    result: list[rtlil.Assignment | rtlil.Switch] = []
    for statement in body:
        if isinstance(statement, rtlil.Assignment):
            if statement.target:
                result.append(statement)
        elif statement.selector:
            cases = [rtlil.Case(case.patterns, _flatten(case.body)) for case in statement.cases]
            result.append(rtlil.Switch(statement.selector, cases))
        elif statement.cases:
            result.extend(_flatten(statement.cases[0].body))
    return result


def _target_of(body: list[rtlil.Assignment | rtlil.Switch]) -> str:
    """Name of the wire that the first statement assigns."""
    first = body[0] if body else None
    if isinstance(first, rtlil.Assignment) and isinstance(first.target[0], rtlil.Chunk):
        return first.target[0].wire
    return ""


def _width(spec: rtlil.SigSpec) -> int:
    return sum(part.width for part in spec)


def _cut(spec: rtlil.SigSpec, low: int, width: int) -> rtlil.SigSpec:
    """Bits ``low`` to ``low + width - 1`` of ``spec``."""
    result: list[rtlil.Bits | rtlil.Chunk] = []
    position = 0
    for part in spec:
        begin, end = max(low - position, 0), min(low + width - position, part.width)
        if begin < end:
            if isinstance(part, rtlil.Bits):
                value = part.value >> begin & (1 << end - begin) - 1
                result.append(rtlil.Bits(value, end - begin))
            else:
                result.append(rtlil.Chunk(part.wire, part.low + begin, end - begin))
        position += part.width
    return tuple(result)


def _integer(cell: rtlil.Cell, parameter: str) -> int:
    value = cell.parameters[parameter]
    if isinstance(value, rtlil.Bits):
        return value.value
    if not isinstance(value, int):
        raise RtlilError(f"parameter {parameter} of {cell.kind} must be a number, not {value!r}")
    return value


def _number(value: Value) -> int:
    """``value``, which must be constant."""
    match value:
        case ():
            return 0
        case (Number(bits, _),):
            return bits
    raise RtlilError(f"memory contents must be constant, not {value!r}")


def _reset_of(statement: Statement, net: Net) -> tuple[Value, int] | None:
    """Condition and value if ``statement`` is "when the condition holds, load a constant"."""
    match statement:
        case Select(selector, [Branch(("1",), [Assign(_, 0, (Number(bits, width),))])]) if (
            width == net.width
        ):
            return selector, bits
    return None


def _split_self_references(logic: Logic) -> None:
    """Make separate nets of the bits of a choice if some of them depend on others.

    ``carry[n + 1]`` may depend on ``carry[n]``: no loop, but one net must not depend on itself.
    """
    replacements: dict[Net, Value] = {}
    for net in list(logic.nets):
        if not isinstance(net.source, Choice) or not _depends_on_itself(net):
            continue
        bounds = sorted({0, net.width} | set(_bounds(net.source.body)))
        pieces = []
        for low, high in pairwise(bounds):
            piece = Net(None, high - low, Choice([]), signed=False)
            piece.source = Choice(_restrict(net.source.body, net, low, high, piece))
            pieces.append(piece)
        logic.nets[logic.nets.index(net) : logic.nets.index(net) + 1] = pieces
        replacements[net] = join(*(piece.value for piece in pieces))
        for piece in pieces:
            piece.name = None
        if net.name is not None and net.name not in logic.outputs:
            logic.aliases.append(Alias(net.name, net.signed, replacements[net], net.attributes))
    if replacements:
        logic.rewrite(lambda value: substitute(value, replacements))


def _depends_on_itself(net: Net) -> bool:
    seen: set[Net] = set()
    stack = list(nets_of(values_of(net.source)))
    while stack:
        used = stack.pop()
        if used is net:
            return True
        if used not in seen and is_combinational(used):
            seen.add(used)
            stack.extend(nets_of(values_of(used.source)))
    return False


def _bounds(body: list[Statement]) -> Iterator[int]:
    """First and last bits that statements assign at once."""
    for statement in body:
        if isinstance(statement, Assign):
            yield from (statement.low, statement.low + width_of(statement.value))
        else:
            for branch in statement.branches:
                yield from _bounds(branch.body)


def _restrict(body: list[Statement], net: Net, low: int, high: int, target: Net) -> list[Statement]:
    """Statements that assign bits ``low`` to ``high - 1`` of ``net``, now for ``target``.

    Bit ``low`` becomes bit ``target.low``.
    """
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, Assign):
            begin = max(low, statement.low)
            end = min(high, statement.low + width_of(statement.value))
            if begin < end:
                value = slice_of(statement.value, begin - statement.low, end - begin)
                result.append(Assign(target, begin - low + target.low, value))
        else:
            branches = [
                Branch(branch.patterns, _restrict(branch.body, net, low, high, target))
                for branch in statement.branches
            ]
            if any(branch.body for branch in branches):
                result.append(Select(statement.selector, branches))
    return result


def _fold(logic: Logic) -> None:
    """Replace what is only wiring or constant."""
    replacements: dict[Net, Value] = {}
    for net in logic.sorted_nets():
        rewrite_source(net.source, lambda value: substitute(value, replacements))
        value = None
        if isinstance(net.source, Operator):
            value = simplify(net.source, net.width)
        elif isinstance(net.source, Choice):
            net.source.body = _simplify_body(net.source.body)
            value = _wiring_of(net)
        if value is not None:
            replacements[net] = value
            if net.name is not None and net.name not in logic.outputs:
                logic.aliases.append(Alias(net.name, net.signed, net.value, net.attributes))
    logic.nets = [net for net in logic.nets if net not in replacements]
    logic.rewrite(lambda value: substitute(value, replacements))
    for net in logic.nets:
        if isinstance(net.source, Register):
            net.source.body = _simplify_body(net.source.body)


def _wiring_of(net: Net) -> Value | None:
    """Value of ``net`` if its statements are all assignments."""
    assert isinstance(net.source, Choice)
    value = net.value
    for statement in net.source.body:
        if not isinstance(statement, Assign):
            return None
        low = statement.low - net.low
        high = low + width_of(statement.value)
        value = join(
            slice_of(value, 0, low), statement.value, slice_of(value, high, net.width - high)
        )
    return value


def _simplify_body(body: list[Statement]) -> list[Statement]:
    """``body`` without branches that are never taken."""
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, Assign):
            result.append(statement)
            continue
        branches = [
            Branch(branch.patterns, _simplify_body(branch.body)) for branch in statement.branches
        ]
        match statement.selector:
            case (Number(bits, width),):
                text = f"{bits:0{width}b}"
                for branch in branches:
                    if not branch.patterns or any(_matches(text, p) for p in branch.patterns):
                        result.extend(branch.body)
                        break
            case _:
                if any(branch.body for branch in branches):
                    result.append(Select(statement.selector, branches))
    return result


def _matches(bits: str, pattern: str) -> bool:
    return all(p in ("-", bit) for bit, p in zip(bits, pattern, strict=True))


def simplify(operator: Operator, width: int) -> Value | None:
    """Wiring or constant that ``operator`` amounts to, None if it does not."""
    kind, operands = operator.kind, operator.operands
    a = operands[0]
    constants = [
        operand[0].value if len(operand) == 1 and isinstance(operand[0], Number) else None
        for operand in operands
    ]
    ones = (1 << width) - 1
    match kind:
        case "copy":
            return a
        case "not" if constants[0] is not None:
            return (Number(~constants[0] & ones, width),)
        case "neg" if constants[0] is not None:
            return (Number(-constants[0] & ones, width),)
        case "any" | "all" | "parity":
            return _simplify_reduction(kind, operator)
        case "and" | "or" | "xor" | "add" | "sub" | "mul":
            return _simplify_binary(operator, width, constants)
        case "mux":
            return _simplify_mux(operator, constants)
        case "shl" | "shr" | "sshr" if not operands[1] or constants[1] is not None:
            return _shifted(kind, a, width, constants[1] or 0)
        case "part" if not operands[1] or constants[1] is not None:
            return slice_of(a, constants[1] or 0, width)
        case "eq" | "ne" | "lt" | "le" | "gt" | "ge":
            return _simplify_comparison(operator, constants)
    return None


def _shifted(kind: str, value: Value, width: int, distance: int) -> Value:
    distance = min(distance, width)
    if kind == "shl":
        return join((Number(0, distance),), slice_of(value, 0, width - distance))
    rest = slice_of(value, distance, width - distance)
    if kind == "shr":
        return extend(rest, width, False)
    return extend(slice_of(value, min(distance, width - 1), width), width, True)


def _simplify_reduction(kind: str, operator: Operator) -> Value | None:
    """Constant bits have no part in a reduction, or decide it."""
    neutral = kind == "all"
    parts: list[Number | Part] = []
    odd = 0
    for part in operator.operands[0]:
        if isinstance(part, Part):
            parts.append(part)
        elif kind == "parity":
            odd ^= part.value.bit_count() & 1
        elif part.value != (((1 << part.width) - 1) if neutral else 0):
            return (Number(0 if neutral else 1, 1),)
    rest = join(tuple(parts))
    if not rest:
        return (Number(odd if kind == "parity" else int(neutral), 1),)
    if odd:
        return None
    if width_of(rest) == 1:
        return rest
    operator.operands = [rest]
    return None


def _simplify_binary(operator: Operator, width: int, constants: list[int | None]) -> Value | None:
    kind = operator.kind
    a, b = operator.operands
    ones = (1 << width) - 1
    if kind == "mul":
        if (not a) or (not b) or 0 in constants:
            return (Number(0, width),)
        for value, other, factor in ((a, b, constants[1]), (b, a, constants[0])):
            top_set = factor is not None and factor >> width_of(other) - 1
            if factor is not None and factor.bit_count() == 1 and not (operator.signed and top_set):
                wide = extend(value, width, operator.signed)
                return _shifted("shl", wide, width, factor.bit_length() - 1)
        return None
    if 0 in constants and not (kind == "sub" and constants[0] == 0):
        other = b if constants[0] == 0 else a
        return (Number(0, width),) if kind == "and" else other
    if ones in constants and kind in ("and", "or", "xor"):
        other = b if constants[0] == ones else a
        if kind == "xor":
            operator.kind, operator.operands = "not", [other]
            return None
        return other if kind == "and" else (Number(ones, width),)
    return None


def _simplify_mux(operator: Operator, constants: list[int | None]) -> Value | None:
    condition, if_true, if_false = operator.operands
    if constants[0] is not None:
        return if_true if constants[0] else if_false
    if if_true == if_false:
        return if_true
    if width_of(if_true) == 1 and constants[1] == 1 and constants[2] == 0:
        return condition
    if width_of(if_true) == 1 and constants[1] == 0 and constants[2] == 1:
        operator.kind, operator.operands = "not", [condition]
    return None


def _simplify_comparison(operator: Operator, constants: list[int | None]) -> Value | None:
    """Comparisons that are always true or false, and of single bits."""
    kind = operator.kind
    a, b = operator.operands
    width = width_of(a)
    if not width or a == b:
        return (Number(int(kind in ("eq", "le", "ge")), 1),)
    if constants[0] is not None and constants[1] is None:
        swapped = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}.get(kind, kind)
        operator.kind, operator.operands = swapped, [b, a]
        return _simplify_comparison(operator, constants[::-1])
    if constants[1] is None:
        return None
    bits = constants[1]
    lowest, highest = 0, (1 << width) - 1
    if operator.signed:
        lowest, highest = -(1 << width - 1), (1 << width - 1) - 1
        bits -= (bits >> width - 1) << width
    if constants[0] is not None:
        left = constants[0] - ((constants[0] >> width - 1) << width if operator.signed else 0)
        results = {
            "eq": left == bits,
            "ne": left != bits,
            "lt": left < bits,
            "le": left <= bits,
            "gt": left > bits,
            "ge": left >= bits,
        }
        return (Number(int(results[kind]), 1),)
    if (kind, bits) in (("lt", lowest), ("gt", highest)):
        return (Number(0, 1),)
    if (kind, bits) in (("ge", lowest), ("le", highest)):
        return (Number(1, 1),)
    if width == 1 and kind in ("eq", "ne"):
        if (kind == "eq") == (constants[1] == 1):
            return a
        operator.kind, operator.operands = "not", [a]
    return None


_BITWISE = ("not", "and", "or", "xor", "mux")
_MODULAR = ("add", "sub", "neg", "mul", "shl")


def _drop_unused(logic: Logic) -> None:
    """Remove nets that nothing uses, and bits that nothing uses of the others."""
    live: set[Net] = set()
    stack = list(nets_of(logic.roots()))
    while stack:
        net = stack.pop()
        if net not in live:
            live.add(net)
            stack.extend(nets_of(values_of(net.source)))
    order = [net for net in logic.sorted_nets() if net in live]
    logic.nets = [net for net in logic.nets if net in live or isinstance(net.source, Pin)]
    for memory in logic.memories.values():
        memory.reads = [net for net in memory.reads if net in live]

    used: dict[Net, tuple[int, int]] = {}

    def use(values: Iterable[Value]) -> None:
        for value in values:
            for part in value:
                if isinstance(part, Part):
                    low, high = used.get(part.net, (part.low, part.low))
                    high = max(high, part.low + part.width - 1)
                    used[part.net] = min(low, part.low), high

    use(logic.roots())
    for net in logic.nets:
        if not is_combinational(net):
            use(values_of(net.source))
    for net in reversed(order):
        low, high = used[net]
        match net.source:
            case Operator(kind, operands) if kind in _BITWISE:
                net.source.operands = [
                    operand
                    if kind == "mux" and index == 0
                    else slice_of(operand, low - net.low, high - low + 1)
                    for index, operand in enumerate(operands)
                ]
                net.low, net.high = low, high
            case Operator(kind, operands) if kind in _MODULAR:
                net.high = high
                distance = 1 if kind == "shl" else len(operands)
                net.source.operands = [
                    slice_of(operand, 0, net.width) if index < distance else operand
                    for index, operand in enumerate(operands)
                ]
            case Choice(body):
                net.low, net.high = low, high
                net.source.body = _restrict(body, net, low, high + 1, net)
        use(values_of(net.source))
