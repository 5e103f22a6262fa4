"""Switching activity of a mapped netlist on operand streams, simulated 64 lanes a word.

A lane is one instance of the netlist with its own inputs and registers: a processing element, or
an independent stream.  Every cell becomes a few bitwise operations of NumPy on rows of words, so
that one cycle of tens of thousands of lanes costs about a microsecond per cell.

Delays are zero.  Each cycle every net settles once, and a net toggles when it settles to another
value than in the cycle before; glitches are not seen.  The clock toggles twice a cycle.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from synth.bitwise import ONE, OPERATIONS, ZERO, Expressions, Node, Value, Words
from synth.netlist import CONSTANT_0, CONSTANT_1, Instance, Netlist
from synth.states import StateCounter, StateCounts

__all__ = ["LANES_PER_WORD", "Activity", "Simulator", "Words", "pack", "unpack"]

LANES_PER_WORD = 64
# Rows of this many words keep the rows of one cell in the first-level cache, and make the cost of
# calling NumPy small against that of the operation.
BLOCK_WORDS = 512
# The rows of this many nets are compared and counted at a time, to stay in the second level; more
# of them where rows are short.
BLOCK_ROWS = 64
# In rows of up to so many words, an operation costs less than calling NumPy for it: operations that
# do not wait for one another are done together, if there are so many of them on average.
FEW_WORDS = 8
MANY_OPERATIONS = 16
# Toggles of a word are counted in bytes: 3 * 64 is the most that fits.
STEPS_PER_BYTE = 3
#: Where the states of cells are to be counted, it is in so many words a cycle: all of them in small
#: runs, and else enough to know a mean over many cycles to a small part of a per cent.
STATE_WORDS = 8


def pack(values: npt.ArrayLike, width: int) -> Words:
    """Turn integers of many lanes into words of one bit each.

    Parameters
    ----------
    values : array_like of int, shape (..., lanes)
        Value of each lane; negative values as two's complement.
    width : int
        Bits to keep, 1 to 64.

    Returns
    -------
    ndarray of uint64, shape (..., width, words)
        Bit i of word j of row k is bit k of lane 64 j + i.  Lanes that fill the last word are 0.

    Raises
    ------
    TypeError
        If values are not integers.
    ValueError
        If ``width`` is out of range, or a value does not fit.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "iub":
        raise TypeError(f"values must be integers, not {values.dtype}")
    if not 1 <= width <= 64:
        raise ValueError(f"width must be between 1 and 64, not {width}")
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < -(1 << width - 1) or high >= 1 << width:
            raise ValueError(f"values must fit in {width} bits, not {low} to {high}")
    # Each byte of the integers becomes eight rows.
    byte_count = -(-width // 8)
    size = max(values.dtype.itemsize, 1 << (byte_count - 1).bit_length())
    kind = "i" if values.dtype.kind == "i" else "u"
    lanes = values.shape[-1]
    word_count = -(-lanes // LANES_PER_WORD)
    padded = np.zeros((*values.shape[:-1], word_count * LANES_PER_WORD), f"{kind}{size}")
    padded[..., :lanes] = values
    octets = padded.view(np.uint8).reshape(*padded.shape, size)[..., :byte_count]
    planes = np.ascontiguousarray(np.moveaxis(octets, -1, -2))
    blocks = _transpose(planes.view(np.uint64))
    rows = blocks.view(np.uint8).reshape(*blocks.shape, 8)
    packed: Words = np.ascontiguousarray(np.moveaxis(rows, -1, -2)).view(np.uint64)
    return packed.reshape(*values.shape[:-1], byte_count * 8, word_count)[..., :width, :]


def unpack(words: Words, lanes: int, *, signed: bool = False) -> npt.NDArray[np.int64]:
    """Turn words of one bit each back into integers; inverse of `pack`.

    Parameters
    ----------
    words : ndarray of uint64, shape (..., width, words)
        Rows of bits, the least significant first; at most 63, or 64 if signed.
    lanes : int
        Number of lanes to return.
    signed : bool
        Whether the last row is the sign of two's complement.

    Returns
    -------
    ndarray of int64, shape (..., lanes)

    Raises
    ------
    ValueError
        If there are too many rows, or fewer lanes in the words.
    """
    *shape, width, word_count = words.shape
    if not 1 <= width <= 63 + signed:
        raise ValueError(f"words must have 1 to {63 + signed} rows, not {width}")
    if not 0 <= lanes <= word_count * LANES_PER_WORD:
        raise ValueError(f"lanes must be between 0 and {word_count * LANES_PER_WORD}, not {lanes}")
    rows = np.zeros((*shape, 64, word_count), np.uint64)
    rows[..., :width, :] = words
    if signed:
        rows[..., width:, :] = words[..., -1:, :]
    octets = rows.view(np.uint8).reshape(*shape, 8, 8, word_count * 8)
    blocks = _transpose(np.ascontiguousarray(np.moveaxis(octets, -2, -1)).view(np.uint64))
    planes = blocks.view(np.uint8).reshape(*shape, 8, word_count * LANES_PER_WORD)
    values = np.ascontiguousarray(np.moveaxis(planes, -2, -1)).view(np.int64)
    return values.reshape(*shape, word_count * LANES_PER_WORD)[..., :lanes]


def _transpose(blocks: Words) -> Words:
    """Transpose every word as a matrix of 8 x 8 bits (Warren, Hacker's Delight, section 7-3)."""
    for shift, mask in (
        (7, 0x00AA00AA00AA00AA),
        (14, 0x0000CCCC0000CCCC),
        (28, 0x00000000F0F0F0F0),
    ):
        swapped = (blocks ^ blocks >> np.uint64(shift)) & np.uint64(mask)
        blocks = blocks ^ swapped ^ swapped << np.uint64(shift)
    return blocks


@dataclass(frozen=True, kw_only=True)
class Activity:
    """How often nets toggled.

    Parameters
    ----------
    toggles : ndarray of int64, shape (groups, nets)
        Changes of the settled value, summed over the lanes of each group and over all cycles.
        The clock has two per lane and cycle.
    lane_cycles : ndarray of int64, shape (groups,)
        Lanes of each group times cycles.
    annotated : ndarray of bool, shape (nets,)
        Nets whose toggles are known.
    states : StateCounts or None
        States of the cells, settled, in the cycles in which they were counted.
    """

    toggles: npt.NDArray[np.int64]
    lane_cycles: npt.NDArray[np.int64]
    annotated: npt.NDArray[np.bool_]
    states: StateCounts | None = None

    def since(self, earlier: "Activity") -> "Activity":
        """Count what came after ``earlier``, an activity of the same simulation."""
        return Activity(
            toggles=self.toggles - earlier.toggles,
            lane_cycles=self.lane_cycles - earlier.lane_cycles,
            annotated=self.annotated,
            states=(
                None
                if self.states is None or earlier.states is None
                else self.states.since(earlier.states)
            ),
        )

    @property
    def rates(self) -> npt.NDArray[np.float64]:
        """Toggles per lane and cycle, shape (groups, nets); 0 where there was no cycle."""
        return self.toggles / np.maximum(self.lane_cycles, 1)[:, None]


class Simulator:
    """Many lanes of one netlist, stepped together.

    Parameters
    ----------
    netlist : Netlist
        Netlist of library cells with at most one clock.
    lanes : int
        Number of lanes, at least 1.
    word_groups : array_like of int, shape (words,), optional
        Group of every word of 64 lanes, not decreasing from 0; toggles are summed by group.
        Default: one group.
    counted : ndarray of uint64, shape (words,), optional
        Lanes whose toggles are counted, one bit each; lanes past ``lanes`` never are.  Default:
        all.
    state_words : int
        In how many of the words of lanes the states of the cells are counted, other ones in each
        cycle, such as :data:`STATE_WORDS`; 0 for none.

    Raises
    ------
    ValueError
        If the netlist has black boxes or several clocks, or an argument is out of range.
    """

    def __init__(
        self,
        netlist: Netlist,
        lanes: int,
        *,
        word_groups: npt.ArrayLike | None = None,
        counted: Words | None = None,
        state_words: int = 0,
    ) -> None:
        if netlist.blackboxes:
            found = netlist.instances[netlist.blackboxes[0]]
            raise ValueError(
                f"netlist {netlist.top} must hold library cells only, not {found.name} "
                f"of type {found.type}"
            )
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}")
        if state_words < 0:
            raise ValueError(f"state_words must not be negative, not {state_words}")
        self.netlist = netlist
        self.lanes = lanes
        self.words = -(-lanes // LANES_PER_WORD)
        groups = np.zeros(self.words, np.int64) if word_groups is None else np.asarray(word_groups)
        if groups.shape != (self.words,):
            raise ValueError(
                f"word_groups must have one entry for each of {self.words} words, "
                f"not shape {groups.shape}"
            )
        if groups[0] < 0 or (np.diff(groups) < 0).any():
            raise ValueError("word_groups must be 0 or more and not decreasing")
        self._program = _program(netlist)
        self._inputs = {
            port.name: self._program.input_rows[port.name]
            for port in netlist.ports.values()
            if port.direction == "input" and port.nets != (netlist.clock,)
        }
        self._readers: dict[str, tuple[npt.NDArray[np.intp], Words | None]] = {}

        # Two sets of rows: the values settled last, and those of the cycle to come.
        shape = (self._program.row_count, self.words)
        self._settled = np.zeros(shape, np.uint64)
        self._coming = np.zeros(shape, np.uint64)
        temporaries = np.zeros((self._program.temporary_count, BLOCK_WORDS), np.uint64)
        blocks = [
            slice(begin, min(begin + BLOCK_WORDS, self.words))
            for begin in range(0, self.words, BLOCK_WORDS)
        ]
        self._rows = {
            id(values): [
                (*values[:, block], *temporaries[:, : block.stop - block.start]) for block in blocks
            ]
            for values in (self._settled, self._coming)
        }

        mask = pack(np.ones(lanes, np.uint8), 1)[0]
        if counted is not None:
            if counted.shape != mask.shape or counted.dtype != np.uint64:
                raise ValueError(
                    f"counted must be {self.words} words of uint64, not {counted.dtype} of shape "
                    f"{counted.shape}"
                )
            mask &= counted
        self._mask = None if (mask == ~np.uint64(0)).all() else mask

        self._levels = None
        if self.words <= FEW_WORDS and self._program.levels.mean_operations >= MANY_OPERATIONS:
            self._levels = self._program.levels
            self._nodes = np.zeros((self._levels.node_count, self.words), np.uint64)

        self._group_count = int(groups[-1]) + 1
        self._present, self._starts = np.unique(groups, return_index=True)
        self._group_lanes = np.zeros(self._group_count, np.int64)
        np.add.at(self._group_lanes, groups, np.bitwise_count(mask))
        self._counters = self._make_counters()
        self._states = None
        if state_words:
            states = range(*self._program.state_rows.indices(self._program.row_count))
            self._states = StateCounter(
                netlist,
                self._program.values,
                dict(zip((*netlist.registers, *netlist.clock_gates), states, strict=True)),
                word_groups=groups,
                mask=mask,
                words=state_words,
            )
        self.reset()

    def reset(self) -> None:
        """Set registers and inputs to 0, let everything settle, and forget all toggles."""
        self._coming[:] = 0
        self._settle()
        self._clock_registers()
        # The reset state is what the first cycle starts from, not what it would become.
        self._coming[:] = 0
        self._toggles = np.zeros((self._group_count, len(self._counters)), np.int64)
        self._counters[:] = 0
        self._uncounted = 0
        self._cycles = 0
        if self._states is not None:
            self._states.reset()

    def step(
        self, inputs: "Mapping[str, Words] | Callable[[Simulator], Mapping[str, Words]]"
    ) -> None:
        """Apply inputs, let all nets settle, count toggles, and clock the registers once.

        Parameters
        ----------
        inputs : mapping of str to ndarray of uint64, shape (width, words), or callable
            Words of each input port; ports left out keep their values.  A callable gets the
            simulator, whose `state` gives register outputs, so that lanes can feed one another.

        Raises
        ------
        ValueError
            If a name is not an input port or an array has another shape.
        """
        given = inputs(self) if callable(inputs) else inputs
        for name in given:
            if name not in self._inputs:
                raise ValueError(f"input must be one of {', '.join(self._inputs)}, not {name!r}")
        for name, rows in self._inputs.items():
            target = self._coming[rows]
            words = given.get(name, self._settled[rows])
            if words.shape != target.shape:
                raise ValueError(f"input {name} must have shape {target.shape}, not {words.shape}")
            target[:] = words
        if self._stands_still():
            self._coming[:] = self._settled
        else:
            self._settle()
        self._count()
        if self._states is not None:
            self._states.count(self._settled, self._coming)
        self._clock_registers()
        self._cycles += 1

    def source_rows(self) -> npt.NDArray[np.intp]:
        """Rows that all others follow from: those of inputs and of registers."""
        every = np.arange(self._program.row_count)
        parts = [every[rows] for rows in (*self._inputs.values(), self._program.state_rows)]
        return np.concatenate(parts)

    def replay(self, before: Words, after: Words) -> None:
        """Count a cycle that another simulator of the same netlist has seen; nothing is clocked.

        Parameters
        ----------
        before, after : ndarray of uint64, shape (source rows, words)
            What the rows of `source_rows` were in the cycle before, and in this one.
        """
        rows = self.source_rows()
        self._coming[rows] = before
        self._settle()
        self._settled, self._coming = self._coming, self._settled
        self._coming[rows] = after
        self._settle()
        self._count()
        if self._states is not None:
            self._states.count(self._settled, self._coming)
        self._cycles += 1

    def settled(self, name: str) -> Words:
        """Words of a port or named signal as settled in the last cycle, shape (width, words)."""
        return self._read(self._settled, name)

    def state(self, name: str) -> Words:
        """Words of registers after the last clock edge, shape (width, words).

        Parameters
        ----------
        name : str
            A port or signal, all bits of which are outputs of flip-flops or constants.

        Raises
        ------
        ValueError
            If a bit depends on anything else.
        """
        for number in self.netlist.bits(name):
            if number not in self._program.state_nets:
                raise ValueError(
                    f"state must be asked of register outputs, not of {name!r}, whose bit "
                    f"{self.netlist.net_names[number]} is none"
                )
        return self._read(self._coming, name)

    def activity(self) -> Activity:
        """Toggles since the last `reset`."""
        self._flush()
        toggles = self._net_toggles()
        toggles[:, list(self.netlist.enables)] *= 2
        lane_cycles = self._group_lanes * self._cycles
        if self.netlist.clock is not None:
            toggles[:, self.netlist.clock] = 2 * lane_cycles
        annotated = np.zeros(self.netlist.net_count, bool)
        annotated[list(self._program.values)] = True
        return Activity(
            toggles=toggles,
            lane_cycles=lane_cycles,
            annotated=annotated,
            states=None if self._states is None else self._states.counts(),
        )

    def _net_toggles(self) -> npt.NDArray[np.int64]:
        """Toggles of every net but the clock, shape (groups, nets)."""
        toggles = np.zeros((self._group_count, self.netlist.net_count), np.int64)
        numbers = [number for number in self._program.values if number > CONSTANT_1]
        rows = [self._program.values[number][0] for number in numbers]
        toggles[:, numbers] = self._toggles[:, rows]
        return toggles

    def _read(self, values: Words, name: str) -> Words:
        if name not in self._readers:
            found = [self._program.values[number] for number in self.netlist.bits(name)]
            inverted = np.array([[~np.uint64(0) if bar else np.uint64(0)] for _, bar in found])
            rows = np.array([row for row, _ in found], np.intp)
            self._readers[name] = rows, inverted if inverted.any() else None
        rows, inversion = self._readers[name]
        words = values[rows]
        if inversion is not None:
            words ^= inversion
        return words

    def _settle(self) -> None:
        if self._levels is not None:
            self._levels.settle(self._coming, self._nodes)
            return
        for rows in self._rows[id(self._coming)]:
            self._program.settle(rows)

    def _stands_still(self) -> bool:
        """Whether inputs and registers are what they were, and so all nets.

        Among many lanes there is always one that moves, which is not worth looking for.
        """
        sources = slice(0, self._program.state_rows.stop)
        return self.words <= FEW_WORDS and np.array_equal(
            self._settled[sources], self._coming[sources]
        )

    def _clock_registers(self) -> None:
        """Exchange the sets of rows, and write the next states into the one to come."""
        self._settled, self._coming = self._coming, self._settled
        program = self._program
        states = self._coming[program.state_rows]
        # The mode "clip" lets NumPy write without a buffer of its own.
        np.take(self._settled, program.next_rows, axis=0, out=states, mode="clip")
        states[program.next_inverted] ^= ~np.uint64(0)
        if program.computes_states:
            for before, after in zip(
                self._rows[id(self._settled)], self._rows[id(self._coming)], strict=True
            ):
                program.clock(before, after)

    def _make_counters(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Counters of every word, and what counting needs."""
        shape = (self._program.row_count, self.words)
        rows = BLOCK_ROWS * max(1, BLOCK_WORDS // self.words)
        rows = min(rows, shape[0])
        changed = np.zeros((rows, self.words), np.uint64)
        counts = np.zeros((rows, self.words), np.uint8)
        self._count_blocks = [
            (slice(begin, end), changed[: end - begin], counts[: end - begin])
            for begin in range(0, shape[0], rows)
            for end in [min(begin + rows, shape[0])]
        ]
        return np.zeros(shape, np.uint8)

    def _count(self) -> None:
        for block, changed, counts in self._count_blocks:
            np.bitwise_xor(self._settled[block], self._coming[block], changed)
            if self._mask is not None:
                np.bitwise_and(changed, self._mask, changed)
            np.bitwise_count(changed, counts)
            counters = self._counters[block]
            np.add(counters, counts, counters)
        self._uncounted += 1
        if self._uncounted == STEPS_PER_BYTE:
            self._flush()

    def _flush(self) -> None:
        """Move the counts in bytes to the sums by group."""
        if self._uncounted:
            sums = np.add.reduceat(self._counters, self._starts, axis=1, dtype=np.uint32)
            self._toggles[self._present] += sums.T
            self._counters[:] = 0
            self._uncounted = 0


class _Program:
    """A netlist as two functions of straight-line bitwise operations.

    Nets that are complements of one another share a row, and an inverter or buffer costs nothing.
    Rows hold the inputs, the states of the flip-flops and whatever nets need; intermediate results
    of a cell go to temporary rows behind them, which are used over and over.

    Attributes
    ----------
    row_count, temporary_count : int
        Rows to keep, and rows for intermediate results.
    values : dict of int to (int, bool)
        Row of each net, and whether it holds the complement.
    input_rows : dict of str to slice
        Rows of each input port; never complements.
    state_rows : slice
        Rows of the states of the flip-flops; never complements.
    state_nets : set of int
        Nets that depend on nothing but the state of one flip-flop, and constants.
    next_rows : ndarray of int
        Row that becomes the next state of each flip-flop; 0 if it has to be computed.
    next_inverted : ndarray of int
        Flip-flops, numbered from 0, whose next state is the complement of that row.
    computes_states : bool
        Whether any next state has to be computed.
    """

    def __init__(self, netlist: Netlist) -> None:
        self._expressions = expressions = Expressions()
        nodes = expressions.nodes
        nets: dict[int, Value] = {CONSTANT_0: ZERO, CONSTANT_1: ONE}
        # Sources come first, so that rows of a port, and those of all states, follow one another.
        self.input_rows: dict[str, slice] = {}
        for port in netlist.ports.values():
            if port.direction == "input":
                begin = len(nodes)
                nets |= {number: (expressions.source(), False) for number in port.nets}
                self.input_rows[port.name] = slice(begin, len(nodes))
        begin = len(nodes)
        # A gated clock is a state that changes with each pulse: it toggles once where the clock
        # toggles twice.
        clocked = (*netlist.registers, *netlist.clock_gates)
        states = {index: (expressions.source(), False) for index in clocked}
        self.state_rows = slice(begin, len(nodes))

        for index in netlist.clock_gates:
            nets |= dict.fromkeys(netlist.instances[index].outputs.values(), states[index])
        for index in set(netlist.registers) - set(netlist.order):
            self._add_outputs(netlist.instances[index], states[index], nets)
        for index in netlist.order:
            self._add_outputs(netlist.instances[index], states.get(index), nets)
        # Also behind an inverter, which is where a flip-flop with an inverted output alone has it.
        held = {states[index][0] for index in netlist.registers}
        self.state_nets = {CONSTANT_0, CONSTANT_1}
        self.state_nets.update(number for number, (node, _) in nets.items() if node in held)
        kept = {node: None for node, _ in (ZERO, *states.values(), *nets.values())}
        rows = self._kept = {node: row for row, node in enumerate(sorted(kept))}
        self.row_count = len(rows)
        self.values = {number: (rows[node], inverted) for number, (node, inverted) in nets.items()}
        settled = len(nodes)

        # The temporaries of one function are gone when the other runs.
        expressions.forget()
        following = {
            rows[state]: self._next_state(netlist, index, (state, False), nets)
            for index, (state, _) in states.items()
        }
        self.next_rows = np.array([rows.get(node, 0) for node, _ in following.values()], np.intp)
        self.next_inverted = np.array(
            [index for index, (_, inverted) in enumerate(following.values()) if inverted], np.intp
        )
        computed = {row: value for row, value in following.items() if value[0] not in rows}
        self.computes_states = bool(computed)

        self._first, self._second = range(settled), range(settled, len(nodes))
        self._first_rows = self._allocate(self._first, rows)
        self._second_rows = self._allocate(
            self._second, rows, [node for node, _ in computed.values()]
        )
        last_row = max(*self._first_rows.values(), *self._second_rows.values())
        self.temporary_count = last_row + 1 - self.row_count
        self._computed = computed

    @cached_property
    def settle(self) -> "Callable[..., None]":
        """Function that computes every net from inputs and states, given the rows."""
        return self._compile(self._first, self._first_rows)

    @cached_property
    def levels(self) -> "_Levels":
        """The same for rows of few words."""
        return _Levels(self._expressions.nodes[: len(self._first)], sorted(self._kept))

    @cached_property
    def clock(self) -> "Callable[..., None]":
        """Function that writes the next states that have to be computed, given two sets of rows."""
        moves = (
            f"{'not' if inverted else 'copy'}_(r{self._second_rows[node]}, following[{row}])"
            for row, (node, inverted) in self._computed.items()
        )
        return self._compile(self._second, self._second_rows, moves)

    def _add_outputs(self, instance: Instance, state: Value | None, nets: dict[int, Value]) -> None:
        """Compute the outputs of a cell; of a flip-flop, from its state."""
        if instance.cell is not None:
            names = {pin: nets[number] for pin, number in instance.inputs.items() if number in nets}
            for pin, number in instance.outputs.items():
                nets[number] = self._expressions.output(instance.cell, pin, names, state)

    def _next_state(
        self, netlist: Netlist, index: int, state: Value, nets: Mapping[int, Value]
    ) -> Value:
        instance = netlist.instances[index]
        if instance.ff is None:
            enables = [nets[netlist.enables[number]] for number in instance.outputs.values()]
            return self._expressions.flipped(state, *enables) if enables else state
        names = {pin: nets[number] for pin, number in instance.inputs.items()}
        clock = instance.inputs[instance.ff.clock]
        enable = nets[netlist.enables[clock]] if clock in netlist.enables else ONE
        return self._expressions.next_state(instance.ff, state, names, enable)

    def _allocate(
        self, nodes: range, rows: Mapping[int, int], results: Iterable[int] = ()
    ) -> dict[int, int]:
        """Row of every node: those of ``rows``, then temporaries, which are used again."""
        last_use = {}
        for node in nodes:
            for operand in self._expressions.nodes[node][1:]:
                last_use[operand] = node
        pinned = {*rows, *results}
        allocated = dict(rows)
        free: list[int] = []
        end = self.row_count
        for node in nodes:
            for operand in set(self._expressions.nodes[node][1:]) - pinned:
                if last_use[operand] == node:
                    free.append(allocated[operand])
            if node not in rows:
                if not free:
                    free.append(end)
                    end += 1
                allocated[node] = free.pop()
        return allocated

    def _compile(
        self, nodes: range, rows: Mapping[int, int], moves: Iterable[str] = ()
    ) -> "Callable[..., None]":
        """Make the operations of ``nodes``, and then ``moves``, a function of rows."""
        count = max(rows.values()) + 1
        lines = ["def function(rows, following=None):"]
        lines.append(f" {', '.join(f'r{row}' for row in range(count))}, = rows[:{count}]")
        for node in nodes:
            operation, a, b = self._expressions.nodes[node]
            if operation == "not":
                lines.append(f" not_(r{rows[a]}, r{rows[node]})")
            elif operation:
                lines.append(f" {operation}_(r{rows[a]}, r{rows[b]}, r{rows[node]})")
        lines += [f" {move}" for move in moves]
        # The text holds row numbers and the names below, nothing from a file.
        space: dict[str, Any] = {f"{name}_": call for name, call in OPERATIONS.items()}
        exec("\n".join(lines), space)
        return space["function"]


class _Levels:
    """Operations on nodes, those of one kind that do not wait for one another together.

    Parameters
    ----------
    nodes : sequence of Node
        Sources, which come first, and operations.
    kept : sequence of int
        Nodes that have rows, in the order of the rows; the sources are the first of them.
    """

    def __init__(self, nodes: Sequence[Node], kept: Sequence[int]) -> None:
        self.node_count = len(nodes)
        depths = [0] * len(nodes)
        groups: dict[tuple[int, str], list[int]] = {}
        for index, (operation, a, b) in enumerate(nodes):
            if operation:
                depths[index] = 1 + max(depths[a], depths[b])
                groups.setdefault((depths[index], operation), []).append(index)
        self._sources = len(nodes) - sum(map(len, groups.values()))
        # Results of a group are neighbours.
        places = np.arange(len(nodes))
        end = self._sources
        self._steps = []
        for (_, operation), group in sorted(groups.items()):
            begin, end = end, end + len(group)
            places[group] = np.arange(begin, end)
            operands = np.array([nodes[index][1:] for index in group], np.intp).T
            used = places[operands[:1] if operation == "not" else operands]
            self._steps.append((OPERATIONS[operation], used, slice(begin, end)))
        self._kept = places[list(kept)]

    @property
    def mean_operations(self) -> float:
        """Operations that are done at a time."""
        return (self.node_count - self._sources) / max(1, len(self._steps))

    def settle(self, rows: Words, nodes: Words) -> None:
        """Compute every row from those of the sources, with room for all nodes."""
        nodes[: self._sources] = rows[: self._sources]
        for operation, operands, results in self._steps:
            operation(*nodes[operands], nodes[results])
        np.take(nodes, self._kept, axis=0, out=rows, mode="clip")


# One netlist is simulated many times, on the streams of every layer.
_programs: WeakKeyDictionary[Netlist, _Program] = WeakKeyDictionary()


def _program(netlist: Netlist) -> _Program:
    if netlist not in _programs:
        _programs[netlist] = _Program(netlist)
    return _programs[netlist]
