"""Logic of a module from its RTLIL, as Amaranth writes it."""

import bisect
import itertools
from collections import Counter

from synth import rtlil
from synth.rtlil import RtlilError
from synth.verilog_logic import (
    Alias,
    Assign,
    Branch,
    Choice,
    Input,
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
    Select,
    Source,
    Statement,
    Value,
    WritePort,
    extend,
    join,
    slice_of,
    width_of,
)

__all__ = ["build"]


def build(module: rtlil.Module) -> Logic:
    """Find the logic of ``module`` as it stands.

    Raises
    ------
    RtlilError
        If it has a cell that cannot be written as plain Verilog.
    ValueError
        If wires are connected in a loop.
    """
    return _Builder(module).logic()


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
        self._resolved: dict[rtlil.Bits | rtlil.Chunk, Value] = {}
        self._starts: dict[str, list[int]] = {}  # positions of the pieces of wiring
        self._extra: list[Net] = []

    def logic(self) -> Logic:
        """Convert everything."""
        module = self._module
        for wire in module.wires.values():
            if wire.port == "input":
                self._add(wire.name, Input())
        for target, value in module.connections:
            self._wiring[self._whole(target)] = value
        # A process belongs to the register that alone takes its result.
        reads = self._reads()
        states = {
            name
            for cell in module.cells
            if cell.kind in ("$dff", "$adff") and self._is_whole(cell.connections["D"])
            if reads[name := self._whole(cell.connections["D"])] == 1
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
            inputs=[self._nets[wire.name] for wire in ports if wire.port == "input" and wire.width],
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
                and not _is_nameless(wire.name)
            ],
            fields=_fields(module),
        )

    def _reads(self) -> Counter[str]:
        """How often something takes bits of each wire."""
        values = [value for _, value in self._module.connections]
        for cell in self._module.cells:
            values += [
                value for port, value in cell.connections.items() if port not in cell.outputs
            ]
        bodies = [process.body for process in self._module.processes]
        while bodies:
            for statement in bodies.pop():
                if isinstance(statement, rtlil.Assignment):
                    values.append(statement.value)
                else:
                    values.append(statement.selector)
                    bodies += [case.body for case in statement.cases]
        return Counter(
            part.wire for value in values for part in value if isinstance(part, rtlil.Chunk)
        )

    def _alias(self, wire: rtlil.Wire) -> Alias:
        value = self._value((rtlil.Chunk(wire.name, 0, wire.width),))
        return Alias(wire.name, wire.signed, value, wire.attributes)

    def _add(self, name: str, source: Source) -> Net:
        wire = self._module.wires[name]
        net = Net(
            None if _is_nameless(name) else name,
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
        chunks: list[tuple[rtlil.Chunk, rtlil.SigSpec]] = []
        for statement in body:
            assert isinstance(statement, rtlil.Assignment)
            target = statement.target[0]
            assert isinstance(target, rtlil.Chunk)
            chunks.append((target, statement.value))
        bounds = sorted(
            {low for chunk, _ in chunks for low in (chunk.low, chunk.low + chunk.width)}
        )
        pieces: list[rtlil.SigSpec] = [()] * (len(bounds) - 1)
        for chunk, value in chunks:  # a later assignment wins
            first = bisect.bisect_left(bounds, chunk.low)
            last = bisect.bisect_left(bounds, chunk.low + chunk.width)
            for index in range(first, last):
                low, high = bounds[index : index + 2]
                pieces[index] = _cut(value, low - chunk.low, high - low)
        return tuple(part for piece in pieces for part in piece)

    def _value(self, spec: rtlil.SigSpec) -> Value:
        return join(*(self._bits(part) for part in spec))

    def _bits(self, part: rtlil.Bits | rtlil.Chunk) -> Value:
        """Find what drives ``part``, through all wiring."""
        if (value := self._known(part)) is not None:
            return value
        # Not by recursion: a chain of wires may be long.
        parts = {part: self._connected(part)}
        stack = {part: iter(parts[part])}
        while stack:
            last, rest = next(reversed(stack.items()))
            for other in rest:
                if self._known(other) is None:
                    if other in stack:
                        raise ValueError(
                            f"module {self._module.name} must have no combinational loop, but "
                            f"{self._wire_of(other)} depends on itself"
                        )
                    parts[other] = self._connected(other)
                    stack[other] = iter(parts[other])
                    break
            else:
                values = [self._known(other) for other in parts[last]]
                self._resolved[last] = join(*(value for value in values if value is not None))
                del stack[last]
        return self._resolved[part]

    def _known(self, part: rtlil.Bits | rtlil.Chunk) -> Value | None:
        """Value of ``part`` unless it has to be found through wiring first."""
        if isinstance(part, rtlil.Bits):
            return (Number(*part),) if part.width else ()
        net = self._nets.get(part.wire)
        if net is not None:
            return (Part(net, part.low, part.width),) if part.width else ()
        return self._resolved.get(part)

    def _connected(self, part: rtlil.Bits | rtlil.Chunk) -> rtlil.SigSpec:
        """Find what ``part`` is connected to."""
        assert isinstance(part, rtlil.Chunk)
        if part.wire not in self._wiring:
            raise RtlilError(f"module {self._module.name} must drive {part.wire}")
        spec = self._wiring[part.wire]
        if part.wire not in self._starts:
            self._starts[part.wire] = list(
                itertools.accumulate((piece.width for piece in spec), initial=0)
            )
        # Only the pieces that `part` lies in, of what may be thousands.
        starts = self._starts[part.wire]
        first = bisect.bisect_right(starts, part.low) - 1
        last = bisect.bisect_left(starts, part.low + part.width)
        return _cut(spec[first:last], part.low - starts[first], part.width)

    def _wire_of(self, part: rtlil.Bits | rtlil.Chunk) -> str:
        assert isinstance(part, rtlil.Chunk)
        return part.wire

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
        return rtlil.identifier(str(cell.parameters["MEMID"]))

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
                # Bits from beyond the end are the sign, or zero.
                reach = (1 << width_of(b)) - 1 + width
                if reach <= 2 * width_of(a) + width:
                    index = extend(b, (reach - 1).bit_length(), False)
                    return Operator("part", [extend(a, reach, signed), index])
                common = max(width, width_of(a))
                shift = "sshr" if signed else "shr"
                shifted = self._temporary(shift, common, extend(a, common, signed), b)
                return Operator("copy", [slice_of(shifted, 0, width)])
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


def _is_nameless(name: str) -> bool:
    """Whether a tool made ``name``: Amaranth calls a signal that it finds no name for $signal."""
    return name.startswith(("$", "\\$"))


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
