"""Logic of a module as nets and operators, in a form that suits expressions of Verilog.

Every operand has exactly the bits that its operator needs: extensions are explicit, so that
nothing depends on Verilog's rules for the width and sign of an expression.  Shifts by constants,
slices and concatenations are wiring, not operators.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from synth import rtlil

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
    "extend",
    "is_combinational",
    "join",
    "nets_of",
    "rewrite_body",
    "rewrite_source",
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
        attributes: dict[str, rtlil.Parameter] | None = None,
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

    @property
    def starts_as_zeros(self) -> bool:
        """Whether there is nothing to load before the first cycle."""
        return not any(self.contents)


@dataclass
class Instance:
    """A module placed in this one."""

    module: str
    name: str
    parameters: dict[str, rtlil.Parameter]
    inputs: dict[str, Value]
    outputs: dict[str, Net]


@dataclass
class Alias:
    """A name for bits that something else drives."""

    name: str
    signed: bool
    value: Value
    attributes: dict[str, rtlil.Parameter]


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
