"""Simplification of a module's logic before it is written as Verilog.

Nothing here changes what a module computes: wiring and constants replace operators that amount
to them, bits that nothing uses go, and what looks like a loop but is none is taken apart.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from synth.verilog_logic import (
    Alias,
    Assign,
    Branch,
    Choice,
    Logic,
    Net,
    Number,
    Operator,
    Part,
    Pin,
    Register,
    Select,
    Statement,
    Value,
    extend,
    is_combinational,
    join,
    nets_of,
    rewrite_source,
    slice_of,
    substitute,
    values_of,
    width_of,
)

__all__ = ["fold_operator", "simplify"]


def simplify(logic: Logic) -> None:
    """Simplify ``logic`` in place.

    Raises
    ------
    ValueError
        If it has a combinational loop.
    """
    _split_self_references(logic)
    _fold(logic)
    _drop_unused(logic)
    # Narrower operators may have become trivial, and what was read for their sake unused.
    _fold(logic)
    _drop_unused(logic)


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
            value = fold_operator(net.source, net.width)
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
            if net.source.reset == (Number(0, 1),):
                net.source.reset = ()


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


def fold_operator(operator: Operator, width: int) -> Value | None:
    """Wiring or constant that ``operator`` amounts to, None if it does not.

    Even so, ``operator`` itself may become a simpler one.
    """
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
    if kind == "sub" and constants[0] == 0:
        operator.kind, operator.operands = "neg", [b]
        return None
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
        if net not in used:
            continue  # only bits that went needed it
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
    logic.nets = [net for net in logic.nets if net in used or not is_combinational(net)]
