"""Energy of a cell by the states of its inputs, and how often these states occur.

In a cycle, the inputs of a cell go from one joint state to another: a cell of k inputs has 4**k
such pairs of states.  `StateCounter` counts them in the words of the simulation, exactly, so that
inputs that depend on one another need no assumption.  `cell_power` says, from the library, how
often a pair uses each of its tables:

* Inputs that change in the same cycle do so one after the other, all orders being equally likely.
  The transition of an output has as cause the input that makes it, while the others have the
  values that they have then.
* The state of a flip-flop changes with the clock, before its inputs do, and these change before
  the other edge of the clock.
* Leakage is that of the settled state; in a flip-flop, the mean of both levels of the clock.
* A gated clock is low in a cycle before which its enable was.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from synth.bitwise import Words
from synth.cells import Cell, PowerArc
from synth.liberty import Function
from synth.netlist import CONSTANT_0, Instance, Netlist

__all__ = [
    "ENABLE",
    "MAX_VARIABLES",
    "CellPower",
    "StateCounter",
    "StateCounts",
    "cell_power",
    "enable_of",
    "variables",
]

#: Variable of a flip-flop with a gated clock; no pin has such a name.
ENABLE = " enable"
#: Most inputs of a cell whose states are counted: all 4**6 pairs of states are kept.
MAX_VARIABLES = 6
#: Cells of more inputs than this are counted by sorting the pair of each lane, others by bits.
MAX_BITWISE = 3
#: Words of one operation, which stay in the first-level cache.
CHUNK_WORDS = 1 << 12
#: Where to count next: multiples of the golden ratio keep no step with anything that repeats.
GOLDEN = (5**0.5 - 1) / 2
#: Where not all words are counted, they are in one of so many cycles.
PAUSE = 4

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def variables(cell: Cell, *, gated: bool = False) -> tuple[str, ...] | None:
    """Name what makes the state of a cell.

    These are its inputs; of a flip-flop, those but the clock, its state, and, if its clock is
    ``gated``, :data:`ENABLE`.  None if there are none, or more than :data:`MAX_VARIABLES`, and for
    a clock gate.
    """
    names = cell.inputs
    if cell.ff is not None:
        names = (*(name for name in names if name != cell.ff.clock), cell.ff.state)
        if gated:
            names = (*names, ENABLE)
    counted = cell.clock_gate is None and 0 < len(names) <= MAX_VARIABLES
    return names if counted else None


# --- what a pair of states costs -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class CellPower:
    """How often each pair of states of a cell uses each of its tables.

    A state is an integer, of which bit i is variable i.  The pair (before, after) has the number
    before + after * 2**k.

    Attributes
    ----------
    arcs : tuple of (PowerArc, bool)
        Tables: an arc, and whether it is that of a rising edge.
    uses : ndarray of float64, shape (4**k, tables)
        Mean uses of each table in one cycle with this pair.
    toggles : dict of str to ndarray of bool, shape (4**k,)
        Whether each pin but the clock, settled, toggles.
    leakage_nw : ndarray of float64, shape (4**k,)
        Leakage in a cycle with this pair.
    """

    arcs: tuple[tuple[PowerArc, bool], ...]
    uses: Floats
    toggles: dict[str, Flags]
    leakage_nw: Floats


_powers: WeakKeyDictionary[Cell, dict[bool, CellPower]] = WeakKeyDictionary()


def cell_power(cell: Cell, *, gated: bool = False) -> CellPower | None:
    """Find what the states of a cell cost.

    Parameters
    ----------
    cell : Cell
        The cell.
    gated : bool
        Whether it is a flip-flop with a gated clock.

    Returns
    -------
    CellPower or None
        None for a cell without `variables`.
    """
    names = variables(cell, gated=gated)
    if names is None:
        return None
    known = _powers.setdefault(cell, {})
    if gated not in known:
        known[gated] = _Uses(cell, names).result()
    return known[gated]


def _stateless(cell: Cell) -> Iterator[PowerArc]:
    """Arcs of a cell of which no states are known: its means."""
    for arc in cell.energies:
        yield PowerArc(pin=arc.pin, related=arc.related, when=None, rise=arc.rise, fall=arc.fall)
    for pin, table in cell.passive.items():
        yield PowerArc(pin=pin, related=None, when=None, rise=table, fall=table)
    ff, idle, active = cell.ff, cell.clock_idle, cell.clock_active
    if ff is not None and idle is not None and active is not None:
        changes = Function(f"({ff.next_state}) ^ {ff.state}")
        none = idle.scaled(0.0)
        for when, table in ((Function(f"!({changes})"), idle), (changes, active)):
            # All of a period at the edge that finds whether the state is to change.
            rise, fall = (table, none) if ff.clock_edge == "rising" else (none, table)
            yield PowerArc(pin=ff.clock, related=None, when=when, rise=rise, fall=fall)


class _Uses:
    """Makes a `CellPower`."""

    def __init__(self, cell: Cell, names: Sequence[str]) -> None:
        self.cell, self.names = cell, names
        self.size = 1 << len(names)
        self.states = np.arange(self.size)
        #: Values of all pins in every state, for both levels of the clock of a flip-flop.
        self.levels = [self._values(level) for level in ((0, 1) if cell.ff is not None else (0,))]
        self.powers = cell.powers or tuple(_stateless(cell))
        self.arcs = tuple((arc, rising) for arc in self.powers for rising in (False, True))
        self.uses = np.zeros((self.size**2, len(self.arcs)))
        self.holds = [
            [self._holds(arc.when, values) for arc in self.powers] for values in self.levels
        ]

    def _values(self, level: int) -> dict[str, npt.NDArray[np.uint64]]:
        values = {
            name: (self.states >> n & 1).astype(np.uint64) for n, name in enumerate(self.names)
        }
        ff = self.cell.ff
        if ff is not None:
            values[ff.clock] = np.full(self.size, level, np.uint64)
            values[ff.inverted_state] = values[ff.state] ^ np.uint64(1)
        for pin, function in self.cell.functions.items():
            one = np.uint64(1)
            values[pin] = np.broadcast_to(function.evaluate(values) & one, self.size)
        return values

    def _true(self, function: Function, values: dict[str, npt.NDArray[np.uint64]]) -> Flags:
        one = np.uint64(1)
        return np.broadcast_to((function.evaluate(values) & one).astype(bool), self.size)

    def _holds(
        self, when: Function | None, values: dict[str, npt.NDArray[np.uint64]]
    ) -> Flags | None:
        return None if when is None else self._true(when, values)

    def result(self) -> CellPower:
        pairs = np.arange(self.size**2)
        before, after = pairs % self.size, pairs // self.size
        settled = self.levels[0]
        toggles = {
            pin: settled[pin][before] != settled[pin][after]
            for pin in (*self.cell.inputs, *self.cell.outputs)
            if self.cell.ff is None or pin != self.cell.ff.clock
        }
        if self.cell.ff is None:
            self._combinational()
        else:
            self._flip_flop()
        return CellPower(
            arcs=self.arcs, uses=self.uses, toggles=toggles, leakage_nw=self._leakage()
        )

    def _leakage(self) -> Floats:
        """Leakage of every pair; where the library does not list a state, the mean of the cell."""
        results = []
        for values in self.levels:
            power, listed = np.zeros(self.size), np.zeros(self.size)
            for function, value in self.cell.leakage_states:
                holds = self._true(function, values)
                power += np.where(holds, value, 0.0)
                listed += np.where(holds, 1.0, 0.0)
            mean = self.cell.leakage_nw
            results.append(np.where(listed > 0, power / np.maximum(listed, 1), mean))
        settled = np.broadcast_to(np.mean(results, axis=0)[:, None], (self.size, self.size))
        if ENABLE in self.names:
            # Without an edge the clock stays low.
            comes = self.states >> self.names.index(ENABLE) & 1
            settled = np.where(comes, settled, results[0][:, None])
        return settled.ravel()

    def _chosen(self, indices: Sequence[int], level: int, *, always: bool) -> Floats:
        """Share of each of some arcs in every state, shape (states, arcs of the cell).

        Those whose condition holds count alike; where none does, those without a condition, and
        where there is none of these, all of them if ``always`` and none if not.
        """
        shares = np.zeros((self.size, len(self.powers)))
        plain = [index for index in indices if self.holds[level][index] is None]
        for index in indices:
            holds = self.holds[level][index]
            if holds is not None:
                shares[:, index] = holds
        missed = shares.sum(axis=1) == 0
        rest = plain or (list(indices) if always else [])
        for index in rest:
            shares[missed, index] = 1.0
        total = shares.sum(axis=1, keepdims=True)
        return shares / np.maximum(total, 1.0)

    def _of_output(self, pin: str, related: str, level: int = 0) -> Floats:
        """Shares of the arcs of an output with one cause."""
        powers = self.powers
        own = [n for n, arc in enumerate(powers) if arc.pin == pin and arc.related == related]
        loose = [n for n, arc in enumerate(powers) if arc.pin == pin and arc.related is None]
        every = [n for n, arc in enumerate(powers) if arc.pin == pin]
        return self._chosen(own or loose or every, level, always=True)

    def _of_input(self, pin: str, level: int = 0) -> Floats:
        """Shares of the arcs of an input by itself."""
        own = [n for n, arc in enumerate(self.powers) if arc.pin == pin]
        return self._chosen(own, level, always=False)

    def _add(self, pairs: Any, shares: Floats, rising: Any, weight: Any) -> None:
        """Use arcs so often: shares [pairs, arcs], edge and weight of each pair."""
        weighted = shares * np.broadcast_to(np.asarray(weight, float), len(shares))[:, None]
        rises = np.broadcast_to(np.asarray(rising, bool), len(shares))[:, None]
        # Tables alternate: falling, rising.
        self.uses[pairs, 0::2] += np.where(rises, 0.0, weighted)
        self.uses[pairs, 1::2] += np.where(rises, weighted, 0.0)

    def _changes(self, free: Sequence[int]) -> Iterator[tuple[int, int, int, float]]:
        """Orders in which some of the variables can change.

        All that change, as bits; those that have changed already; the one that does now; the share
        of all orders in which that happens.
        """
        for count in range(1, len(free) + 1):
            for changing in combinations(free, count):
                whole = sum(1 << n for n in changing)
                for done in range(count):
                    share = (
                        math.factorial(done)
                        * math.factorial(count - done - 1)
                        / math.factorial(count)
                    )
                    for earlier in combinations(changing, done):
                        so_far = sum(1 << n for n in earlier)
                        for now in changing:
                            if not so_far >> now & 1:
                                yield whole, so_far, now, share

    def _combinational(self) -> None:
        passive = [self._of_input(name) for name in self.names]
        values = self.levels[0]
        # Which input makes an output change is known up to the order: uses, and orders.
        outputs = self.cell.outputs
        shape = (len(outputs), self.size**2)
        orders = np.zeros(shape)
        made = np.zeros((*shape, len(self.powers)))
        causes = {
            (pin, n): self._of_output(pin, name)
            for pin in outputs
            for n, name in enumerate(self.names)
        }
        before = self.states
        for whole, so_far, now, share in self._changes(range(len(self.names))):
            after, start = before ^ whole, before ^ so_far
            end = start ^ (1 << now)
            pairs = before + after * self.size
            self._add(pairs, passive[now][end], after >> now & 1, share)
            for number, pin in enumerate(outputs):
                value = values[pin]
                makes = (
                    (value[before] != value[after])
                    & (value[start] == value[before])
                    & (value[end] == value[after])
                )
                orders[number, pairs] += share * makes
                made[number, pairs] += (share * makes)[:, None] * causes[pin, now][end]
        everything = np.arange(self.size**2)
        for number, pin in enumerate(outputs):
            shares = made[number] / np.maximum(orders[number], 1e-12)[:, None]
            self._add(everything, shares, values[pin][everything // self.size] != 0, 1.0)

    def _flip_flop(self) -> None:
        ff = self.cell.ff
        assert ff is not None
        held = 1 << self.names.index(ff.state)
        gate = 1 << self.names.index(ENABLE) if ENABLE in self.names else 0
        rising = ff.clock_edge == "rising"
        pairs = np.arange(self.size**2)
        before, after = pairs % self.size, pairs // self.size
        # Whether the clock comes at all; with the new state, but the inputs of before.
        comes = before & gate == gate
        clocked = before & ~held | after & held
        at_edge = int(rising)
        for pin in self.cell.outputs:
            values = self.levels[0][pin]
            changes = values[before] != values[after]
            shares = self._of_output(pin, ff.clock, at_edge)[clocked]
            self._add(pairs, shares, values[after] != 0, changes)
        clock = self._of_input(ff.clock)
        self._add(pairs, clock[before], rising, comes)
        self._add(pairs, clock[after], not rising, comes)

        free = [n for n in range(len(self.names)) if not (held | gate) >> n & 1]
        opened = self.states & gate == gate
        levels = np.where(opened, at_edge, 1 - at_edge)
        passive = {
            n: np.array([self._of_input(self.names[n], level) for level in (0, 1)]) for n in free
        }
        for whole, so_far, now, share in self._changes(free):
            for switched in {0, held, gate, held | gate}:
                target = self.states ^ whole ^ switched
                end = self.states ^ switched ^ so_far ^ (1 << now)
                shares = passive[now][levels, end]
                self._add(self.states + target * self.size, shares, target >> now & 1, share)


# --- how often pairs of states occur -------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class StateCounts:
    """How often the cells of a netlist went from one joint state of their inputs to another.

    Parameters
    ----------
    pairs : dict of int to ndarray of int64, shape (groups, places, 4**k)
        Pairs of states by number of variables.
    places : dict of int to (int, int, int)
        Of each counted instance: number of variables, place, and the variables that are counted
        as complements.
    lane_cycles : ndarray of int64, shape (groups,)
        Lanes of each group times the cycles that were counted.
    """

    pairs: dict[int, Counts]
    places: dict[int, tuple[int, int, int]]
    lane_cycles: Counts

    def since(self, earlier: "StateCounts") -> "StateCounts":
        """Count what came after ``earlier``, of the same simulation."""
        return StateCounts(
            pairs={k: counts - earlier.pairs[k] for k, counts in self.pairs.items()},
            places=self.places,
            lane_cycles=self.lane_cycles - earlier.lane_cycles,
        )

    def of(self, group: int, instances: Sequence[int]) -> Counts:
        """Pairs of states of instances with the same number of variables.

        Parameters
        ----------
        group : int
            Group of the activity.
        instances : sequence of int
            Indices in the netlist; all of them are counted.

        Returns
        -------
        ndarray of int64, shape (instances, 4**k)
        """
        found = [self.places[index] for index in instances]
        ((k, _, _),) = {(k, 0, 0) for k, _, _ in found}
        flips = np.array([flip | flip << k for _, _, flip in found], np.intp)
        order = np.arange(1 << 2 * k) ^ flips[:, None]
        rows = np.array([place for _, place, _ in found], np.intp)
        return self.pairs[k][group][rows[:, None], order]


def enable_of(instance: Instance, netlist: Netlist) -> int | None:
    """Net that enables the clock of a flip-flop; None if that is not gated, and for others."""
    return None if instance.ff is None else netlist.enables.get(instance.inputs[instance.ff.clock])


class StateCounter:
    """Counts the pairs of states of all cells of a netlist.

    Parameters
    ----------
    netlist : Netlist
        Its cells.
    rows : dict of int to (int, bool)
        Row of each net in the words of a simulation, and whether it holds the complement.
    state_rows : dict of int to int
        Row of the state of each flip-flop.
    word_groups : ndarray of int, shape (words,)
        Group of every word.
    mask : ndarray of uint64, shape (words,)
        Lanes that count.
    words : int
        Words to count in each cycle.
    """

    def __init__(
        self,
        netlist: Netlist,
        rows: dict[int, tuple[int, bool]],
        state_rows: dict[int, int],
        *,
        word_groups: npt.NDArray[np.int64],
        mask: Words,
        words: int,
    ) -> None:
        self._groups, self._mask = word_groups, mask
        self._blocks = [
            slice(begin, min(begin + words, len(mask))) for begin in range(0, len(mask), words)
        ]
        self.places: dict[int, tuple[int, int, int]] = {}
        places: dict[int, dict[tuple[int, ...], int]] = {}
        for index, instance in enumerate(netlist.instances):
            enable = enable_of(instance, netlist)
            if instance.cell is None:
                continue
            names = variables(instance.cell, gated=enable is not None)
            if names is None:
                continue
            nets = instance.inputs if enable is None else {**instance.inputs, ENABLE: enable}
            found = [
                (state_rows[index], False)
                if instance.ff is not None and name == instance.ff.state
                else rows.get(nets.get(name, CONSTANT_0), (0, False))
                for name in names
            ]
            # Cells with the same inputs share a place.
            of_size = places.setdefault(len(names), {})
            place = of_size.setdefault(tuple(row for row, _ in found), len(of_size))
            flip = sum(1 << n for n, (_, inverted) in enumerate(found) if inverted)
            self.places[index] = len(names), place, flip
        self._rows = {k: np.array([*found], np.intp) for k, found in places.items()}
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        count = int(self._groups[-1]) + 1
        self._pairs = {
            k: np.zeros((count, len(rows), 1 << 2 * k), np.int64) for k, rows in self._rows.items()
        }
        self._lane_cycles = np.zeros(count, np.int64)
        self._cycles = 0

    def counts(self) -> StateCounts:
        """Give the counts since the last `reset`."""
        return StateCounts(
            pairs={k: pairs.copy() for k, pairs in self._pairs.items()},
            places=self.places,
            lane_cycles=self._lane_cycles.copy(),
        )

    def count(self, before: Words, after: Words) -> None:
        """Count a cycle.

        Parameters
        ----------
        before, after : ndarray of uint64, shape (rows, words)
            What all rows settled to in the cycle before, and in this one.
        """
        turns = len(self._blocks) * (PAUSE if len(self._blocks) > 1 else 1)
        turn = int((self._cycles + 1) * GOLDEN % 1 * turns)
        self._cycles += 1
        if turn >= len(self._blocks):
            return
        block = self._blocks[turn]
        mask = self._mask[block]
        groups, starts = np.unique(self._groups[block], return_index=True)
        self._lane_cycles[groups] += np.add.reduceat(np.bitwise_count(mask), starts, dtype=np.int64)
        step = max(1, CHUNK_WORDS // len(mask))
        before, after = before[:, block], after[:, block]
        for k, rows in self._rows.items():
            count = _bitwise if k <= MAX_BITWISE else _sorted
            for begin in range(0, len(rows), step):
                part = rows[begin : begin + step].T
                both = [*before[part], *after[part]]
                self._pairs[k][groups, begin : begin + step] += count(both, mask, starts)


def _bitwise(rows: Sequence[Words], mask: Words, starts: npt.NDArray[np.intp]) -> Counts:
    """Lanes of every joint value of some rows, shape (groups, cells, 2**rows).

    Only lanes in which all rows of a subset are 1 are counted; lanes in which just these are 1
    follow from that.
    """
    cells, words = rows[0].shape
    counts = np.zeros((len(starts), cells, 1 << len(rows)), np.int64)
    octets = np.empty((cells, words), np.uint8)

    def visit(first: int, subset: int, lanes: Words) -> None:
        np.bitwise_count(lanes, octets)
        counts[:, :, subset] = np.add.reduceat(octets, starts, axis=1, dtype=np.uint32).T
        for n in range(first, len(rows)):
            visit(n + 1, subset | 1 << n, lanes & rows[n])

    visit(0, 0, np.broadcast_to(mask, (cells, words)))
    for n in range(len(rows)):
        # Without and with row n: those with it do not count for those without it.
        split = counts.reshape(len(starts), cells, -1, 2, 1 << n)
        split[..., 0, :] -= split[..., 1, :]
    return counts


def _sorted(rows: Sequence[Words], mask: Words, starts: npt.NDArray[np.intp]) -> Counts:
    """Do the same for many rows: make the joint value of every lane, and put it into its bin."""
    cells, words = rows[0].shape
    size = 1 << len(rows)
    values = np.zeros((cells, words * 64), np.intp)
    for n, row in enumerate(rows):
        values |= _lanes(row).astype(np.intp) << n
    # Cells have bins of their own, with one more for lanes that do not count.
    values[:, _lanes(mask[None])[0] == 0] = size
    values += np.arange(cells)[:, None] * (size + 1)
    counts = np.zeros((len(starts), cells, size), np.int64)
    for group, (begin, end) in enumerate(pairwise((*starts.tolist(), words))):
        part = values[:, 64 * begin : 64 * end].ravel()
        bins = np.bincount(part, minlength=cells * (size + 1))
        counts[group] = bins.reshape(cells, size + 1)[:, :size]
    return counts


def _lanes(words: Words) -> npt.NDArray[np.uint8]:
    """Bit of every lane, shape (..., 64 * words), in no particular order inside of a word."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1)
