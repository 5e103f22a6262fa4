"""Switching activity of a mapped netlist with the delays of its cells, glitches counted.

A cycle is simulated cell by cell, not step by step: from when its inputs can change at the
earliest, and until when at the latest, which the structure alone tells, every cell gets the whole
course of its output over time, one row of words a step.  One operation of NumPy works on all steps
and all lanes, 64 a word.  What a net does outside of that time is known: it has the value settled
in the cycle before, or the one to come.

What delays mean is said in `synth.delays`.  A net toggles whenever its value after a step is not
that after the step before; pulses of no width do not count.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.activity import LANES_PER_WORD, Simulator
from synth.bitwise import ONE, OPERATIONS, ZERO, Expressions, Value, Words
from synth.delays import Delays, OutputDelay
from synth.netlist import CONSTANT_0, CONSTANT_1, Instance, Netlist

__all__ = ["GlitchSimulator"]

# Rows of this many words make calling NumPy cheap, and those of one cell stay in the second-level
# cache.
BLOCK_WORDS = 512
# Cycles whose toggles fit in 32 bits, with 2**14 steps in each.
CYCLES_PER_FLUSH = 1 << 12


class GlitchSimulator(Simulator):
    """Many lanes of one netlist with delays, stepped together.

    It is used as `synth.activity.Simulator` is.  In each cycle, registers change at the clock edge
    and inputs so many steps later as the delays say; all nets settle before the next edge, however
    long that takes.  What they settle to, and so all states and results, is the same as without
    delays.  A flip-flop with an asynchronous clear or preset keeps the state that the settled
    values make: a glitch on such an input shows at the output, and is over.

    Parameters
    ----------
    netlist : Netlist
        Netlist of library cells with at most one clock.
    lanes : int
        Number of lanes, at least 1.
    delays : Delays
        Delays of its cells.
    word_groups : array_like of int, shape (words,), optional
        Group of every word of 64 lanes, not decreasing from 0; toggles are summed by group.
        Default: one group.
    counted : ndarray of uint64, shape (words,), optional
        Lanes whose toggles are counted, one bit each; lanes past ``lanes`` never are.  Default:
        all.
    state_words : int
        In how many of the words of lanes the states of the cells, settled, are counted, other
        ones in each cycle; 0 for none.

    Raises
    ------
    ValueError
        If the netlist has black boxes or several clocks, an argument is out of range, or
        ``delays`` lacks an output.
    """

    def __init__(
        self,
        netlist: Netlist,
        lanes: int,
        delays: Delays,
        *,
        word_groups: npt.ArrayLike | None = None,
        counted: Words | None = None,
        state_words: int = 0,
    ) -> None:
        self.delays = delays
        super().__init__(
            netlist, lanes, word_groups=word_groups, counted=counted, state_words=state_words
        )

    @property
    def steps(self) -> int:
        """Steps from the clock edge to the last change that a net can make."""
        return self._schedule.steps

    def _make_counters(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        self._schedule = schedule = _Schedule(self.netlist, self.delays)
        inputs = [self._program.values[number][0] for number in schedule.inputs]
        states = np.arange(*self._program.state_rows.indices(self._program.row_count))
        self._source_rows = np.concatenate([np.array(inputs, np.intp), states])

        width = min(BLOCK_WORDS, self.words)
        arena = np.zeros((schedule.row_count, width), np.uint64)
        masks = None if self._mask is None else np.zeros(width, np.uint64)
        # The last block may be narrower than the others.
        bound: dict[int, _Bound] = {}
        self._blocks = []
        for begin in range(0, self.words, width):
            block = slice(begin, min(begin + width, self.words))
            size = block.stop - begin
            if size not in bound:
                bound[size] = _Bound(
                    schedule, arena[:, :size], None if masks is None else masks[:size]
                )
            self._blocks.append((block, bound[size]))
        return np.zeros((self.netlist.net_count, self.words), np.uint32)

    def _count(self) -> None:
        rows = self._source_rows
        for block, bound in self._blocks:
            mask = None if self._mask is None else self._mask[block]
            bound.run(self._settled[rows, block], self._coming[rows, block], mask)
            self._counters[self._schedule.counted, block] += bound.sums
        self._uncounted += 1
        if self._uncounted == CYCLES_PER_FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self._uncounted:
            sums = np.add.reduceat(self._counters, self._starts, axis=1, dtype=np.int64)
            self._toggles[self._present] += sums.T
            self._counters[:] = 0
            self._uncounted = 0

    def _net_toggles(self) -> npt.NDArray[np.int64]:
        return self._toggles.copy()


@dataclass(frozen=True, slots=True)
class _Rows:
    """So many rows one after another."""

    begin: int
    count: int

    @property
    def end(self) -> int:
        return self.begin + self.count

    def part(self, offset: int, count: int = 1) -> "_Rows":
        """So many of them, from the one with this offset on."""
        return _Rows(self.begin + offset, count)


@dataclass(frozen=True, slots=True)
class _Course:
    """What a net does in a cycle.

    The first row holds the value until step ``first``, the second the one from that step on, and
    so on; the last is the value that stays.  All of them are complements if ``inverted``.
    """

    rows: _Rows
    first: int
    inverted: bool = False

    @property
    def last(self) -> int:
        """Last step at which the net can change."""
        return self.first + self.rows.count - 2

    def between(self, begin: int, end: int) -> _Rows:
        """Rows of steps ``begin`` to ``end`` - 1, or the one that holds for all of them.

        Neither `first` nor `last` is inside of these steps.
        """
        if end <= self.first:
            return self.rows.part(0)
        if begin >= self.last:
            return self.rows.part(self.rows.count - 1)
        return self.rows.part(begin - self.first + 1, end - begin)


# Operation, the rows that it works on and those that it writes; one row works on all.  There are
# those of `synth.bitwise` and
# "latch": what sets, what holds, and a course of which the first row is known;
# "count": a course twice, and rows to work in.
_Operation = tuple[str, _Rows, _Rows, _Rows]


class _Schedule:
    """What has to be done in a cycle, as operations on rows of words.

    Attributes
    ----------
    row_count : int
        Rows that it takes.
    inputs : list of int
        Nets of the input ports.  The value in the cycle before, and that in this one, are to be
        written to rows 0 and 1, and so on, and behind them those of the states of all registers
        and of all gated clocks.
    operations : list of (str, _Rows, _Rows, _Rows)
        In their order.
    counted : list of int
        Net of each ``"count"``.
    steps : int
        Last step at which a net can change.
    """

    def __init__(self, netlist: Netlist, delays: Delays) -> None:
        self.operations: list[_Operation] = []
        self.counted: list[int] = []
        self.row_count = 0
        self.steps = 0
        self._free: list[_Rows] = []
        self.inputs = [
            number
            for port in netlist.ports.values()
            if port.direction == "input" and port.nets != (netlist.clock,)
            for number in port.nets
        ]
        # Nets whose course is not known yet are in neither.
        self._courses = {number: _Course(self._take(2), delays.inputs) for number in self.inputs}
        self._constants = {CONSTANT_0: ZERO, CONSTANT_1: ONE}
        states = {
            index: _Course(self._take(2), 0) for index in (*netlist.registers, *netlist.clock_gates)
        }
        for index in netlist.clock_gates:
            for number in netlist.instances[index].outputs.values():
                self._courses[number] = states[index]
        for number, course in self._courses.items():
            self._count(number, course)

        kept = set(self._courses)
        uses = [len(sinks) for sinks in netlist.sinks]
        ordered = set(netlist.order)
        for index in (*(i for i in netlist.registers if i not in ordered), *netlist.order):
            instance = netlist.instances[index]
            for pin in instance.outputs:
                if (index, pin) not in delays.outputs:
                    raise ValueError(f"delays must have output {pin} of {instance.name}")
                self._add_output(instance, pin, delays.outputs[index, pin], states.get(index))
            for number in instance.inputs.values():
                uses[number] -= 1
            for number in {*instance.inputs.values(), *instance.outputs.values()} - kept:
                if uses[number] == 0 and number in self._courses:
                    self._give(self._courses.pop(number).rows)

    def _add_output(
        self, instance: Instance, pin: str, delay: OutputDelay, state: _Course | None
    ) -> None:
        """Find what an output does, and count its toggles."""
        cell = instance.cell
        if cell is None:
            return
        expressions = Expressions()
        # Sources of the expression: courses, each as late as it is seen.
        sources: dict[int, _Course] = {}
        seen: dict[tuple[int, int], Value] = {}
        names = {}
        for name, number in instance.inputs.items():
            if number in self._constants:
                names[name] = self._constants[number]
            elif number in self._courses:
                late = delay.pins.get(name, 0)
                if (number, late) not in seen:
                    course = self._courses[number]
                    node = expressions.source()
                    seen[number, late] = node, course.inverted
                    sources[node] = _Course(course.rows, course.first + late)
                names[name] = seen[number, late]
        held = None
        if state is not None:
            held = expressions.source(), False
            sources[held[0]] = state
        node, inverted = expressions.output(cell, pin, names, held)
        number = instance.outputs[pin]
        if node == 0:
            self._constants[number] = node, inverted
            return
        expression = _Expression(expressions, node, sources)
        rise, fall = (delay.fall, delay.rise) if inverted else (delay.rise, delay.fall)
        rows, first = self._follow(expression, rise, fall)
        course = _Course(rows, first, inverted)
        self._courses[number] = course
        self._count(number, course)
        self.steps = max(self.steps, course.last)

    def _follow(self, expression: "_Expression", rise: int, fall: int) -> tuple[_Rows, int]:
        """Rows of what follows an expression with inertial delays, and its first step.

        Step t of the output is 1 if the expression was 1 in all of the steps t - rise to t - 1,
        0 if it was 0 in all of t - fall to t - 1, and else what it was in step t - 1.
        """
        first, last = expression.first, expression.last
        short, long = min(rise, fall), max(rise, fall)
        if first == last:
            # One change, which comes earlier or later by its direction.
            rows = self._take(2 + long - short)
            before, after = rows.part(0), rows.part(rows.count - 1)
            self._evaluate(expression, first - 1, before)
            self._evaluate(expression, first, after)
            if rise != fall:
                operation = "or" if rise < fall else "and"
                between = rows.part(1, long - short)
                self.operations.append((operation, before, after, between))
            return rows, first + short
        if long == 1:
            rows = self._take(last - first + 2)
            self._evaluate(expression, first - 1, rows)
            return rows, first + 1

        # From a step before the first change, and from the first that any window takes in.
        begin = min(first - 1, first + short - long)
        values = self._take(last + long - begin)
        self._evaluate(expression, begin, values)
        count = last + long - (first + short) + 1
        rows = self._take(1 + count)
        self.operations.append(("copy", values.part(0), values.part(0), rows.part(0)))
        windows = []
        for operation, width in (("and", rise), ("or", fall)):
            seen = values.part(first + short - width - begin, count + width - 1)
            windows.append(self._window(operation, seen, width))
        setting, holding = windows
        self.operations.append(("latch", setting, holding, rows))
        self._give(values)
        for window, width in ((setting, rise), (holding, fall)):
            if width > 1:
                self._give(window)
        return rows, first + short

    def _window(self, operation: str, rows: _Rows, width: int) -> _Rows:
        """Combine ``width`` rows from each on; the result has fewer rows."""
        span = 1
        while span < width:
            # The span doubles as long as it fits; two that overlap make the last one.
            shift = min(span, width - span)
            result = self._take(rows.count - shift)
            self.operations.append(
                (operation, rows.part(0, result.count), rows.part(shift, result.count), result)
            )
            if span > 1:
                self._give(rows)
            rows, span = result, span + shift
        return rows

    def _evaluate(self, expression: "_Expression", begin: int, target: _Rows) -> None:
        """Write an expression of the steps from ``begin`` on."""
        end = begin + target.count
        changes = {
            step for course in expression.sources.values() for step in (course.first, course.last)
        }
        cuts = sorted({begin, end, *(step for step in changes if begin < step < end)})
        space = {node: self._take(target.count) for node, _ in expression.inner[:-1]}
        for start, stop in pairwise(cuts):
            rows = {
                node: course.between(start, stop) for node, course in expression.sources.items()
            }
            whole = target.part(start - begin, stop - start)
            for node, (operation, a, b) in expression.inner:
                count = max(rows[a].count, rows[b].count)
                rows_of = whole if node == expression.node else space[node].part(0, count)
                self.operations.append((operation, rows[a], rows[b], rows_of))
                rows[node] = rows_of
            if not expression.inner:
                source = rows[expression.node]
                self.operations.append(("copy", source, source, whole))
        for used in space.values():
            self._give(used)

    def _count(self, number: int, course: _Course) -> None:
        changed = self._take(course.rows.count - 1)
        self.operations.append(("count", course.rows, course.rows, changed))
        self.counted.append(number)
        self._give(changed)

    def _take(self, count: int) -> _Rows:
        """Rows that hold nothing: the first that are free, or new ones."""
        for index, rows in enumerate(self._free):
            if rows.count >= count:
                if rows.count == count:
                    del self._free[index]
                else:
                    self._free[index] = rows.part(count, rows.count - count)
                return rows.part(0, count)
        begin = self.row_count
        if self._free and self._free[-1].end == begin:
            begin = self._free.pop().begin
        self.row_count = begin + count
        return _Rows(begin, count)

    def _give(self, rows: _Rows) -> None:
        """Let rows be used again."""
        merged: list[_Rows] = []
        for free in sorted((*self._free, rows), key=lambda rows: rows.begin):
            if merged and merged[-1].end == free.begin:
                merged[-1] = _Rows(merged[-1].begin, merged[-1].count + free.count)
            else:
                merged.append(free)
        self._free = merged


class _Expression:
    """What an output is a function of, and when that can change.

    Attributes
    ----------
    node : int
        Result.
    sources : dict of int to _Course
        Nodes that are courses.
    inner : list of (int, Node)
        Operations and their nodes, in their order; the result is the last.
    first, last : int
        Steps in which it can change.
    """

    def __init__(self, expressions: Expressions, node: int, sources: Mapping[int, _Course]) -> None:
        needed = {node}
        for index in range(node, 0, -1):
            if index in needed:
                needed.update(expressions.nodes[index][1:])
        needed.discard(0)
        self.node = node
        self.sources = {index: sources[index] for index in sorted(needed) if index in sources}
        self.inner = [
            (index, expressions.nodes[index]) for index in sorted(needed) if index not in sources
        ]
        self.first = min(course.first for course in self.sources.values())
        self.last = max(course.last for course in self.sources.values())


class _Bound:
    """A schedule and the words that it works on.

    Attributes
    ----------
    sums : ndarray of uint16 or uint32, shape (nets, words)
        Toggles of every net that is counted, after a run.
    """

    def __init__(self, schedule: _Schedule, arena: Words, mask: Words | None) -> None:
        words = arena.shape[1]
        longest = max(
            (changed.count for name, _, _, changed in schedule.operations if name == "count"),
            default=1,
        )
        kind = np.uint16 if longest * LANES_PER_WORD < 1 << 16 else np.uint32
        self.sums = np.zeros((len(schedule.counted), words), kind)
        self._mask = mask
        self._arena = arena
        counts = np.zeros((longest, words), np.uint8)
        single = list(arena)
        sums = iter(self.sums)
        self._calls: list[Callable[[], object]] = []
        for name, a, b, out in schedule.operations:
            if name == "latch":
                steps = zip(
                    single[out.begin : out.end - 1],
                    single[b.begin : b.end],
                    single[a.begin : a.end],
                    single[out.begin + 1 : out.end],
                    strict=True,
                )
                self._calls.append(partial(_latch, list(steps)))
                continue
            target = arena[out.begin : out.end]
            first, second = arena[a.begin : a.end], arena[b.begin : b.end]
            if name == "count":
                self._calls.append(
                    partial(_count, first, target, mask, counts[: out.count], next(sums))
                )
            elif name in ("not", "copy"):
                self._calls.append(partial(OPERATIONS[name], first, target))
            else:
                self._calls.append(partial(OPERATIONS[name], first, second, target))

    def run(self, before: Words, after: Words, mask: Words | None) -> None:
        """Run a cycle from the words of all sources in the cycle before and in this one."""
        self._arena[0 : 2 * len(before) : 2] = before
        self._arena[1 : 2 * len(after) : 2] = after
        if self._mask is not None and mask is not None:
            self._mask[:] = mask
        for call in self._calls:
            call()


def _latch(steps: Iterable[tuple[Words, Words, Words, Words]]) -> None:
    """Set each step from the one before, from what holds it and from what sets it."""
    both, either = np.bitwise_and, np.bitwise_or
    for before, hold, setting, after in steps:
        both(before, hold, after)
        either(after, setting, after)


def _count(
    course: Words,
    changed: Words,
    mask: Words | None,
    counts: npt.NDArray[np.uint8],
    total: npt.NDArray[np.unsignedinteger[Any]],
) -> None:
    """Count the lanes of each word that differ from one row to the next, over all rows."""
    np.bitwise_xor(course[1:], course[:-1], changed)
    if mask is not None:
        np.bitwise_and(changed, mask, changed)
    np.bitwise_count(changed, counts)
    np.add.reduce(counts, axis=0, dtype=total.dtype, out=total)
