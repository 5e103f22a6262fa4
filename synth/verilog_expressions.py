"""Verilog expressions as trees, and their layout in lines."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "COLUMNS",
    "Node",
    "as_signed",
    "as_unsigned",
    "chain",
    "concat",
    "flat",
    "group",
    "layout",
    "leaf",
    "number",
    "ternary",
    "unary",
]

#: Longest line.
COLUMNS = 100

# Operators that may follow each other without parentheses, left to right.
_ASSOCIATIVE = frozenset("+&|^")


@dataclass(frozen=True)
class Node:
    """An expression.

    Attributes
    ----------
    kind : str
        leaf, unary, chain, ternary, concat, repeat, call or group (in parentheses).
    text : str
        The leaf, the operator, or the number of repetitions.
    operands : tuple of Node
        What the operator works on.
    signed : bool
        Whether Verilog takes the result as two's complement.
    """

    kind: str
    text: str
    operands: tuple["Node", ...] = ()
    signed: bool = False


def leaf(text: str, signed: bool = False) -> Node:
    """Make a name, a slice or a number."""
    return Node("leaf", text, (), signed)


def number(value: int, width: int, signed: bool = False) -> Node:
    """Constant of ``width`` bits; as two's complement if ``signed``."""
    value &= (1 << width) - 1
    if signed:
        sign = value >> width - 1
        if sign and value != 1 << width - 1:
            return leaf(f"-{width}'sd{(1 << width) - value}", True)
        return leaf(f"{width}'sh{value:x}" if sign else f"{width}'sd{value}", True)
    if width > 32 and value == (1 << width) - 1:
        return leaf(f"{{{width}{{1'b1}}}}")
    if value < 1000:
        return leaf(f"{width}'{'b' if width == 1 else 'd'}{value}")
    return leaf(f"{width}'h{value:x}")


def as_signed(node: Node) -> Node:
    """``node`` as two's complement."""
    return node if node.signed else Node("call", "$signed", (node,), True)


def as_unsigned(node: Node) -> Node:
    """``node`` as an unsigned number."""
    return Node("call", "$unsigned", (node,)) if node.signed else node


def unary(operator: str, operand: Node) -> Node:
    """``operator`` before ``operand``; reductions are unsigned."""
    if operand.kind == "unary" and operator == "~" and operand.text in "|&^":
        return Node("unary", f"~{operand.text}", operand.operands)
    return Node("unary", operator, (operand,), operand.signed and operator in "~-")


def chain(operator: str, first: Node, second: Node) -> Node:
    """``first`` and ``second`` with ``operator`` between them."""
    signed = first.signed and (second.signed or operator in ("<<", ">>", ">>>"))
    if operator in ("==", "!=", "<", "<=", ">", ">="):
        signed = False
    operands: tuple[Node, ...] = ()
    for node in (first, second):
        same = node.kind == "chain" and node.text == operator and operator in _ASSOCIATIVE
        # A minus before the chain's own operator may only come first.
        operands += node.operands if same else (node,)
    return Node("chain", operator, operands, signed)


def ternary(condition: Node, if_true: Node, if_false: Node) -> Node:
    """``condition ? if_true : if_false``."""
    signed = if_true.signed and if_false.signed
    return Node("ternary", "?", (condition, if_true, if_false), signed)


def group(node: Node) -> Node:
    """``node`` in parentheses."""
    return Node("group", "(", (node,), node.signed)


def concat(parts: Sequence[Node]) -> Node:
    """Concatenation, most significant part first; repeated parts are written once."""
    groups: list[list[Node]] = []
    for part in parts:
        if groups and groups[-1][0] == part:
            groups[-1].append(part)
        else:
            groups.append([part])
    nodes = tuple(
        Node("repeat", str(len(group)), (group[0],)) if len(group) > 1 else group[0]
        for group in groups
    )
    return nodes[0] if len(nodes) == 1 else Node("concat", "", nodes)


def _needs_parentheses(parent: Node, child: Node, position: int) -> bool:
    match parent.kind, child.kind:
        case "unary", "leaf" | "call" | "concat" | "repeat":
            return False
        case "unary", _:
            return True
        case "chain", "unary":
            # Reductions beside binary operators of the same letter are hard to read.
            return child.text not in ("~", "-") or (child.text == "-" and position > 0)
        case "chain", "chain":
            product = child.text == "*" and parent.text in ("+", "-")
            sums = position == 0 and {parent.text, child.text} <= {"+", "-"}
            return not (product or sums)
        case "chain", "ternary":
            return True
        case "chain", "leaf":
            return position > 0 and child.text.startswith("-") and parent.text in "+-*"
        case "ternary", "chain":
            return position == 0
        case "ternary", "unary":
            return position == 0 and child.text not in "~-"
        case "ternary", "ternary":
            return position != 2
    return False


def flat(node: Node) -> str:
    """``node`` on one line."""
    match node.kind:
        case "leaf":
            return node.text
        case "concat":
            return f"{{{', '.join(flat(operand) for operand in node.operands)}}}"
        case "repeat":
            inner = flat(node.operands[0])
            inner = inner[1:-1] if node.operands[0].kind == "concat" else inner
            return f"{{{node.text}{{{inner}}}}}"
        case "call":
            return f"{node.text}({flat(node.operands[0])})"
        case "group":
            return f"({flat(node.operands[0])})"
    parts = [_operand(node, position) for position in range(len(node.operands))]
    match node.kind:
        case "unary":
            return f"{node.text}{parts[0]}"
        case "ternary":
            return f"{parts[0]} ? {parts[1]} : {parts[2]}"
    return f" {node.text} ".join(parts)


def _operand(node: Node, position: int) -> str:
    child = node.operands[position]
    text = flat(child)
    return f"({text})" if _needs_parentheses(node, child, position) else text


def layout(prefix: str, node: Node, suffix: str, indent: int) -> list[str]:
    """Lines ``prefix node suffix``; all but the first are indented by two spaces.

    ``indent`` is what the caller will put before every line.
    """
    line = f"{prefix}{flat(node)}{suffix}"
    several = node.kind == "ternary" and node.operands[2].kind == "ternary"
    if indent + len(line) <= COLUMNS and not several:
        return [line]
    head = prefix.rstrip()
    match node.kind:
        case "ternary":
            lines = [head]
            while node.kind == "ternary":
                condition = _operand(node, 0)
                first = group(node.operands[1])
                value = (
                    first if _needs_parentheses(node, node.operands[1], 1) else first.operands[0]
                )
                lines += [
                    f"  {line}" for line in layout(f"{condition} ? ", value, " :", indent + 2)
                ]
                node = node.operands[2]
            return lines + [f"  {line}" for line in layout("", node, suffix, indent + 2)]
        case "concat":
            return [f"{prefix}{{", *_filled(node, indent + 2), f"}}{suffix}"]
        case "chain":
            lines = [head]
            last = len(node.operands) - 1
            for position, operand in enumerate(node.operands):
                before = f"{node.text} " if position else ""
                after = suffix if position == last else ""
                if _needs_parentheses(node, operand, position):
                    operand = group(operand)
                lines += [f"  {line}" for line in layout(before, operand, after, indent + 2)]
            return lines
        case "group":
            return layout(f"{prefix}(", node.operands[0], f"){suffix}", indent)
        case "call" | "unary":
            open_, close = ("(", ")") if _needs_parentheses(node, node.operands[0], 0) else ("", "")
            if node.kind == "call":
                open_, close = "(", ")"
            return layout(f"{prefix}{node.text}{open_}", node.operands[0], close + suffix, indent)
    return [line]


def _filled(node: Node, indent: int) -> list[str]:
    """Parts of a concatenation, as many on a line as fit."""
    lines = [""]
    last = len(node.operands) - 1
    for position, operand in enumerate(node.operands):
        comma = "," if position < last else ""
        text = flat(operand) + comma
        if lines[-1] and indent + len(lines[-1]) + 1 + len(text) > COLUMNS:
            lines.append("")
        if indent + len(text) > COLUMNS:
            lines[-1:] = [*lines[-1:], *layout("", operand, comma, indent), ""]
        else:
            lines[-1] += f" {text}" if lines[-1] else text
    return [f"  {line}" for line in lines if line]
