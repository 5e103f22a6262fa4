"""Functions of cells as bitwise operations on words.

Expressions of a Liberty file become nodes of a graph of AND, OR, exclusive or and NOT.  The same
operation on the same nodes is one node, and an inversion costs nothing until both kinds meet in
one gate.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.cells import Cell, FlipFlop

__all__ = ["ONE", "OPERATIONS", "ZERO", "Expressions", "Node", "Value", "Words", "inverse"]

Words = npt.NDArray[np.uint64]

# An operation ("and", "or", "xor", "not"; "" for a source) and the nodes that it works on.
Node = tuple[str, int, int]
# A node and whether it is inverted.
Value = tuple[int, bool]
ZERO: Value = (0, False)
ONE: Value = (0, True)
# Expression of a Liberty function, see `synth.liberty.Function.tree`.
Tree = tuple[Any, ...]

OPERATIONS = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "copy": np.positive,
}


class Expressions:
    """Nodes of operations, each after those that it works on.

    Attributes
    ----------
    nodes : list of Node
        Operation and operands of each node; sources have none.  Node 0 is the constant 0.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = [("", 0, 0)]
        self._known: dict[Node, int] = {}

    def source(self) -> int:
        """Make a node whose words come from elsewhere."""
        self.nodes.append(("", 0, 0))
        return len(self.nodes) - 1

    def forget(self) -> None:
        """Compute operations anew from here on, even where there is a node of the same."""
        self._known = {}

    def output(
        self, cell: Cell, pin: str, names: Mapping[str, Value], state: Value | None
    ) -> Value:
        """Compute an output of a cell.

        Parameters
        ----------
        cell : Cell
            The cell.
        pin : str
            Output.
        names : mapping of str to Value
            Inputs by pin; those that the output does not depend on may be left out.
        state : Value or None
            State of a flip-flop, as the clock has left it.
        """
        if cell.ff is not None and state is not None:
            names = {**names, **both(cell.ff, self.forced(cell.ff, state, names))}
        return self._evaluate(_tree(cell, pin), names)

    def next_state(
        self, ff: FlipFlop, state: Value, names: Mapping[str, Value], enable: Value = ONE
    ) -> Value:
        """Compute the state of a flip-flop after the next clock edge, if ``enable`` holds."""
        following = self._evaluate(ff.next_state.tree, {**names, **both(ff, state)})
        if enable != ONE:
            kept = self._all([state, inverse(enable)])
            following = self._any([kept, self._all([following, enable])])
        return self.forced(ff, following, names)

    def flipped(self, state: Value, enable: Value) -> Value:
        """Compute a state that changes whenever ``enable`` holds."""
        return self._parity([state, enable])

    def forced(self, ff: FlipFlop, state: Value, names: Mapping[str, Value]) -> Value:
        """State under an asynchronous clear and preset; both at once preset (chosen)."""
        if ff.clear is not None:
            state = self._all([state, inverse(self._evaluate(ff.clear.tree, names))])
        if ff.preset is not None:
            state = self._any([state, self._evaluate(ff.preset.tree, names)])
        return state

    def _node(self, operation: str, a: int, b: int) -> int:
        """Return the node of an operation on two nodes, the same one for the same operation."""
        node = (operation, min(a, b), max(a, b))
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def _evaluate(self, tree: Tree, names: Mapping[str, Value]) -> Value:
        kind = tree[0]
        if kind == "name":
            return names[tree[1]]
        if kind == "constant":
            return ONE if tree[1] else ZERO
        operands = [self._evaluate(child, names) for child in tree[1:]]
        if kind == "not":
            return inverse(operands[0])
        if kind == "xor":
            return self._parity(operands)
        return self._all(operands) if kind == "and" else self._any(operands)

    def _any(self, operands: Iterable[Value]) -> Value:
        return inverse(self._all([inverse(operand) for operand in operands]))

    def _all(self, operands: Iterable[Value]) -> Value:
        """And: those that are inverted meet in an Or, by De Morgan's rule."""
        distinct = set(operands) - {ONE}
        plain = {node for node, inverted in distinct if not inverted}
        inverted = {node for node, inverted in distinct if inverted}
        if ZERO in distinct or plain & inverted:
            return ZERO
        if not distinct:
            return ONE
        if not inverted:
            return self._chain("and", plain), False
        if not plain:
            return self._chain("or", inverted), True
        high, low = self._chain("and", plain), self._chain("or", inverted)
        if ("not", high, high) in self._known:
            return self._node("or", self._node("not", high, high), low), True
        return self._node("and", high, self._node("not", low, low)), False

    def _parity(self, operands: Iterable[Value]) -> Value:
        nodes: set[int] = set()
        odd = False
        for node, inverted in operands:
            odd ^= inverted
            nodes ^= {node}
        nodes -= {0}
        return (self._chain("xor", nodes) if nodes else 0), odd

    def _chain(self, operation: str, nodes: Iterable[int]) -> int:
        first, *others = sorted(nodes)
        for other in others:
            first = self._node(operation, first, other)
        return first


def inverse(value: Value) -> Value:
    """Complement a value."""
    return value[0], not value[1]


def both(ff: FlipFlop, state: Value) -> dict[str, Value]:
    """Name the state of a flip-flop and its complement."""
    return {ff.state: state, ff.inverted_state: inverse(state)}


def _tree(cell: Cell, pin: str) -> Tree:
    """Expression of an output; libraries write exclusive or in several ways, here it is one."""
    if cell.kind in ("xor", "xnor"):
        parity = ("xor", *(("name", name) for name in cell.inputs))
        return parity if cell.kind == "xor" else ("not", parity)
    return cell.functions[pin].tree
