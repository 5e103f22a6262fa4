"""``if`` and ``case`` of generated Verilog, made from the switches of a netlist."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from synth.verilog_logic import (
    Assign,
    Branch,
    Net,
    Number,
    Operator,
    Select,
    Statement,
    Value,
    slice_of,
    width_of,
)
from synth.verilog_simplify import fold_operator

__all__ = [
    "Case",
    "If",
    "Line",
    "alike",
    "as_expression",
    "as_lines",
    "conditional",
    "merge",
    "values_in_lines",
]


@dataclass
class If:
    """Conditions in order with their bodies; ``otherwise`` if none holds."""

    branches: "list[tuple[Value, list[Line]]]"
    otherwise: "list[Line]"


@dataclass
class Case:
    """Bodies by the patterns of ``selector``; no two patterns have a value in common."""

    selector: Value
    branches: "list[tuple[tuple[str, ...], list[Line]]]"
    otherwise: "list[Line]"

    @property
    def complete(self) -> bool:
        """Whether every value of the selector has a branch."""
        patterns = [pattern for patterns, _ in self.branches for pattern in patterns]
        covered = sum(1 << pattern.count("-") for pattern in patterns)
        return covered == 1 << width_of(self.selector)


Line = Assign | If | Case


def merge(first: list[Statement], second: Sequence[Statement]) -> list[Statement]:
    """Statements of both lists, which assign different nets; equal switches become one."""
    result = list(first)
    position = 0
    waiting: list[Statement] = []  # what has no partner goes before the next one that has
    for statement in second:
        if isinstance(statement, Assign) and not waiting:
            while position < len(result) and isinstance(result[position], Assign):
                position += 1
            result.insert(position, statement)
            position += 1
            continue
        for index in range(position, len(result)):
            other = result[index]
            if alike(other, statement):
                assert isinstance(other, Select)
                assert isinstance(statement, Select)
                branches = [
                    Branch(one.patterns, merge(one.body, two.body))
                    for one, two in zip(other.branches, statement.branches, strict=True)
                ]
                result[index : index + 1] = [*waiting, Select(other.selector, branches)]
                position = index + len(waiting) + 1
                waiting = []
                break
        else:
            waiting.append(statement)
    return result + waiting


def alike(first: Statement, second: Statement) -> bool:
    """Whether both are switches with the same selector and patterns."""
    if isinstance(first, Assign) or isinstance(second, Assign):
        return False
    return first.selector == second.selector and (
        [branch.patterns for branch in first.branches]
        == [branch.patterns for branch in second.branches]
    )


def as_lines(body: Sequence[Statement]) -> list[Line]:
    """``body`` with each switch as ``if`` or ``case``."""
    lines: list[Line] = []
    for statement in body:
        if isinstance(statement, Assign):
            lines.append(statement)
        else:
            lines.extend(_lines_of(statement))
    return lines


def _lines_of(select: Select) -> list[Line]:
    """Write ``select``, of which the first branch that matches is taken."""
    selector = select.selector
    width = width_of(selector)
    branches: list[tuple[tuple[str, ...], list[Line]]] = []
    otherwise: list[Line] = []
    seen: set[str] = set()
    for branch in select.branches:
        if not branch.patterns or any(set(pattern) <= {"-"} for pattern in branch.patterns):
            otherwise = as_lines(branch.body)
            break
        patterns = tuple(
            pattern for pattern in dict.fromkeys(branch.patterns) if pattern not in seen
        )
        seen.update(patterns)
        if patterns:
            branches.append((patterns, as_lines(branch.body)))
    if not otherwise:
        while branches and not branches[-1][1]:
            branches.pop()
    if not branches:
        return otherwise

    if len(branches) == 2 and width == 1:
        # Both values of a single bit: no condition for the second one.
        otherwise = branches.pop()[1]
    overlapping = _overlap([pattern for patterns, _ in branches for pattern in patterns])
    simple = all(len(patterns) == 1 and _fixed(patterns[0]) == 1 for patterns, _ in branches)
    if simple or overlapping or (len(branches) == 1 and len(branches[0][0]) == 1):
        if width == 1 and branches[0][0] == ("0",) and otherwise and branches[0][1]:
            return [If([(selector, otherwise)], branches[0][1])]
        conditions = [(_condition(selector, patterns), body) for patterns, body in branches]
        return [_without_empty(If(conditions, otherwise))]
    case = Case(selector, branches, otherwise)
    if not otherwise:
        case.branches = [(patterns, body) for patterns, body in branches if body]
        if len(case.branches) == 1 and len(case.branches[0][0]) == 1:
            patterns, body = case.branches[0]
            return [If([(_condition(selector, patterns), body)], [])]
    return [case]


def _without_empty(line: If) -> If:
    """``line`` with a negated condition instead of an empty first branch."""
    match line.branches:
        case [(condition, [])]:
            return If([(_operator("not", condition), line.otherwise)], [])
    return line


def _fixed(pattern: str) -> int:
    return len(pattern) - pattern.count("-")


def _overlap(patterns: list[str]) -> bool:
    """Whether two of ``patterns`` have a value in common."""
    if not any("-" in pattern for pattern in patterns):
        return len(set(patterns)) < len(patterns)
    return any(
        all(a == b or "-" in (a, b) for a, b in zip(one, two, strict=True))
        for index, one in enumerate(patterns)
        for two in patterns[:index]
    )


def _condition(selector: Value, patterns: tuple[str, ...]) -> Value:
    """One bit that says whether ``selector`` matches a pattern."""
    terms = []
    for pattern in patterns:
        factors = []
        for low, bits in _runs(pattern):
            part = slice_of(selector, low, len(bits))
            if bits == "1":
                factors.append(part)
            elif bits == "0":
                factors.append(_operator("not", part))
            else:
                factors.append(_operator("eq", part, (Number(int(bits, 2), len(bits)),)))
        terms.append(_all("and", factors))
    return _all("or", terms)


def _runs(pattern: str) -> Iterator[tuple[int, str]]:
    """Lowest position and bits of each run of fixed bits, highest run first."""
    position = len(pattern)
    for run in pattern.replace("-", " - ").split():
        if run != "-":
            yield position - len(run), run
        position -= len(run)


def _all(kind: str, values: list[Value]) -> Value:
    result = values[0]
    for value in values[1:]:
        result = _operator(kind, result, value)
    return result


def _operator(kind: str, *operands: Value) -> Value:
    return Net(None, 1, Operator(kind, list(operands))).value


def as_expression(net: Net, lines: Sequence[Line], limit: int) -> Value | None:
    """Express what ``lines`` assign to ``net`` by nested conditional expressions.

    None if parts of the net are assigned, or if there are more than ``limit`` alternatives.
    """
    result = _expression(net, lines, ())
    return result if result and _alternatives(result) <= limit else None


def _expression(net: Net, lines: Sequence[Line], value: Value) -> Value | None:
    for line in lines:
        match line:
            case Assign(_, low, new):
                if low != net.low or width_of(new) != net.width:
                    return None
                value = new
            case If(branches, otherwise):
                values = [_expression(net, body, value) for _, body in branches]
                result = _expression(net, otherwise, value)
                if result is None or None in values:
                    return None
                for (condition, _), new_value in zip(
                    reversed(branches), reversed(values), strict=True
                ):
                    assert new_value is not None
                    result = conditional(condition, new_value, result)
                value = result
            case _:
                return None
    return value


def conditional(condition: Value, if_true: Value, if_false: Value) -> Value:
    """``condition ? if_true : if_false``."""
    operator = Operator("mux", [condition, if_true, if_false])
    width = width_of(if_true)
    value = fold_operator(operator, width)
    return Net(None, width, operator).value if value is None else value


def _alternatives(value: Value) -> int:
    match value:
        case (part,) if not isinstance(part, Number) and part.net.name is None:
            source = part.net.source
            if isinstance(source, Operator) and source.kind == "mux":
                return sum(_alternatives(operand) for operand in source.operands[1:])
    return 1


def values_in_lines(lines: Sequence[Line]) -> Iterator[tuple[Value, Net | None]]:
    """Values that ``lines`` use, each with the net that it is assigned to if it is."""
    for line in lines:
        match line:
            case Assign(net, _, value):
                yield value, net
            case If(branches, otherwise):
                for condition, body in branches:
                    yield condition, None
                    yield from values_in_lines(body)
                yield from values_in_lines(otherwise)
            case Case(selector, cases, otherwise):
                yield selector, None
                for _, body in cases:
                    yield from values_in_lines(body)
                yield from values_in_lines(otherwise)
