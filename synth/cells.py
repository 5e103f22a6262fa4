"""The cells of a library: function, area, capacitance, delay and energy of each.

Every figure has the unit that its name or its docstring says, whatever the library came from: area
in um2, capacitance in fF, time in ns, energy in pJ, leakage in nW.
"""

import hashlib
import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from synth.liberty import Function
from synth.liberty_writer import write_liberty

__all__ = [
    "IDENTIFIER",
    "Cell",
    "CellLibrary",
    "ClockGate",
    "EnergyArc",
    "FlipFlop",
    "Pin",
    "PowerArc",
    "SetupArc",
    "Table",
    "TimingArc",
]

#: What cells and pins may be called: the names go into scripts and Verilog as they are.
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Table:
    """A quantity over two variables, between and beyond whose grid points it is bilinear.

    Parameters
    ----------
    rows : tuple of float
        Grid of the first variable, increasing; one point means that it has no influence.  Input
        slew in ns for delays, slews and energies; slew of the clock in ns for setup times.
    columns : tuple of float
        Grid of the second variable, likewise.  Load in fF; slew of the data in ns for setup times.
    values : tuple of tuple of float
        Value at every grid point, ``values[row][column]``, in ns or pJ.
    """

    rows: tuple[float, ...]
    columns: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def value(self, row: float, column: float = 0.0) -> float:
        """Interpolate; outside of the grid the outermost cell goes on, as timing tools do."""
        i, u = _segment(self.rows, row)
        j, v = _segment(self.columns, column)
        here = self.values[i]
        low = here[j] if v == 0.0 else here[j] + v * (here[j + 1] - here[j])
        if u == 0.0:
            return low
        there = self.values[i + 1]
        high = there[j] if v == 0.0 else there[j] + v * (there[j + 1] - there[j])
        return low + u * (high - low)

    def at(
        self, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Interpolate at many points at once, as `value` does at one."""
        values = np.array(self.values)
        i, u = _segments(self.rows, rows)
        j, v = _segments(self.columns, columns)
        below, right = (
            np.minimum(i + 1, len(self.rows) - 1),
            np.minimum(j + 1, len(self.columns) - 1),
        )
        low = values[i, j] + v * (values[i, right] - values[i, j])
        high = values[below, j] + v * (values[below, right] - values[below, j])
        return np.asarray(low + u * (high - low), np.float64)

    def scaled(self, factor: float) -> "Table":
        """Multiply every value."""
        values = tuple(tuple(factor * value for value in row) for row in self.values)
        return Table(self.rows, self.columns, values)


def _segment(grid: tuple[float, ...], at: float) -> tuple[int, float]:
    """Find the grid interval to use for a value, and the place in it (0 to 1 inside)."""
    if len(grid) == 1:
        return 0, 0.0
    index = min(max(bisect_right(grid, at) - 1, 0), len(grid) - 2)
    return index, (at - grid[index]) / (grid[index + 1] - grid[index])


def _segments(
    grid: tuple[float, ...], at: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """`_segment` of many values."""
    if len(grid) == 1:
        return np.zeros(at.shape, np.intp), np.zeros(at.shape)
    points = np.array(grid)
    index = np.clip(np.searchsorted(points, at, side="right") - 1, 0, len(grid) - 2)
    return index, (at - points[index]) / (points[index + 1] - points[index])


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One signal pin of a cell.

    Parameters
    ----------
    name : str
        Name in the library.
    direction : str
        ``"input"`` or ``"output"``.
    cap_ff : float
        Capacitance of an input in fF, 0 for outputs.
    rise_cap_ff, fall_cap_ff : float
        The same seen by a rising and a falling edge, which is what delays depend on.
    function : Function or None
        What an output computes from the inputs, or from the state of a flip-flop.
    is_clock : bool
        Whether a flip-flop is clocked by this pin.
    max_cap_ff : float or None
        Largest load of an output in fF, where stated.
    """

    name: str
    direction: str
    cap_ff: float = 0.0
    rise_cap_ff: float = 0.0
    fall_cap_ff: float = 0.0
    function: Function | None = None
    is_clock: bool = False
    max_cap_ff: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipFlop:
    """What makes a cell a flip-flop.

    Parameters
    ----------
    clock : str
        Clock pin.
    clock_edge : str
        ``"rising"`` or ``"falling"``: the edge at which the state changes.
    next_state : Function
        Next state, a function of the inputs and perhaps of the present state.
    state, inverted_state : str
        Names of the state and of its complement in ``next_state`` and in the functions of outputs.
    clear, preset : Function or None
        Asynchronous reset to 0 and set to 1, active when the function is true.
    """

    clock: str
    clock_edge: str
    next_state: Function
    state: str
    inverted_state: str
    clear: Function | None = None
    preset: Function | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockGate:
    """What makes a cell an integrated clock gate for flip-flops of the rising edge.

    The clock passes if the enable was high when it rose: a latch that is open while the clock is
    low holds the enable for the rest of the period.

    Parameters
    ----------
    clock, enable, output : str
        Pins: the clock, the enable, active high, and the gated clock.
    tests : tuple of str
        Inputs that open the gate for tests; they are held at 0.
    """

    clock: str
    enable: str
    output: str
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingArc:
    """Delay from an input, or the clock, to an output.

    Parameters
    ----------
    pin : str
        Output.
    related : str
        Input.
    sense : str
        ``"positive"``: the output follows the input; ``"negative"``: it goes the other way;
        ``"either"``; ``"rising"`` or ``"falling"``: this edge of the clock alone makes both.
    delay_rise, delay_fall, slew_rise, slew_fall : Table or None
        Delay and output slew in ns, for a rising and a falling output, over input slew in ns and
        load in fF; None where the output makes no such transition.
    """

    pin: str
    related: str
    sense: str
    delay_rise: Table | None
    delay_fall: Table | None
    slew_rise: Table | None
    slew_fall: Table | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SetupArc:
    """How long before the clock edge an input of a flip-flop must hold still.

    Parameters
    ----------
    pin : str
        Input.
    related : str
        Clock pin.
    rise, fall : Table or None
        Setup time in ns of a rising and a falling input over the slew of the clock and of the
        input, both in ns.
    """

    pin: str
    related: str
    rise: Table | None
    fall: Table | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyArc:
    """Energy inside a cell when an output changes, without that of charging its load.

    Parameters
    ----------
    pin : str
        Output.
    related : str or None
        Input that causes the transition; None where the library makes no difference.
    rise, fall : Table
        Energy in pJ of a rising and a falling output over input slew in ns and load in fF;
        conditions on the other inputs are averaged.
    """

    pin: str
    related: str | None
    rise: Table
    fall: Table

    def mean(self, slew_ns: float, load_ff: float) -> float:
        """Mean energy in pJ of a rising and a falling output."""
        return (self.rise.value(slew_ns, load_ff) + self.fall.value(slew_ns, load_ff)) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerArc:
    """Energy inside a cell when a pin changes, in some states of the other pins.

    Parameters
    ----------
    pin : str
        Pin that changes: an output, or an input by itself.
    related : str or None
        Input that makes an output change; None for an input, and where the library makes no
        difference.
    when : Function or None
        States of the other pins; None for all that no other arc of the same pins has.
    rise, fall : Table
        Energy in pJ of a rising and of a falling pin over input slew in ns and, of an output, load
        in fF.
    """

    pin: str
    related: str | None
    when: Function | None
    rise: Table
    fall: Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One cell of a library.

    Parameters
    ----------
    name : str
        Name in the library.
    area_um2 : float
        Area in um2.
    leakage_nw : float
        Leakage power in nW, averaged over the states of the inputs.
    pins : dict of str to Pin
        Signal pins by name.
    ff : FlipFlop or None
        Present if the cell is a flip-flop.
    clock_gate : ClockGate or None
        Present if the cell is a clock gate; its output has no function then.
    arcs : tuple of TimingArc
        Delays from inputs, or the clock, to outputs.
    setups : tuple of SetupArc
        Setup times of a flip-flop, or of the enable of a clock gate.
    energies : tuple of EnergyArc
        Internal energy per transition of an output.
    passive : dict of str to Table
        Energy in pJ per transition of an input over its slew in ns, beyond what output
        transitions cost: mean of rise and fall and of the states of the other pins.  The clock
        of a flip-flop is not in it.
    clock_idle, clock_active : Table or None
        Energy in pJ at the clock pin of a flip-flop per clock period over the slew of the clock,
        in periods in which the state stays and in which it changes.  The change itself is in
        ``energies``.  Of a clock gate, in periods in which it is closed and in which it is open;
        the gated clock itself is in ``energies``.
    leakage_states : tuple of (Function, float)
        Leakage power in nW in the states of the pins for which the library tells it.
    powers : tuple of PowerArc
        Internal energy by state and edge, of which ``energies``, ``passive``, ``clock_idle`` and
        ``clock_active`` are means.
    """

    name: str
    area_um2: float
    leakage_nw: float
    pins: dict[str, Pin]
    ff: FlipFlop | None = None
    clock_gate: ClockGate | None = None
    arcs: tuple[TimingArc, ...] = ()
    setups: tuple[SetupArc, ...] = ()
    energies: tuple[EnergyArc, ...] = ()
    passive: dict[str, Table] = field(default_factory=dict)
    clock_idle: Table | None = None
    clock_active: Table | None = None
    leakage_states: tuple[tuple[Function, float], ...] = ()
    powers: tuple[PowerArc, ...] = ()

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input pins in the order of the library."""
        return tuple(pin.name for pin in self.pins.values() if pin.direction == "input")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output pins in the order of the library."""
        return tuple(pin.name for pin in self.pins.values() if pin.direction == "output")

    @cached_property
    def functions(self) -> dict[str, Function]:
        """Function of every output: of the inputs, or of the state of a flip-flop."""
        return {pin.name: pin.function for pin in self.pins.values() if pin.function is not None}

    @cached_property
    def _energy_arcs(self) -> dict[tuple[str, str | None], tuple[EnergyArc, ...]]:
        """Arcs by output and cause; by output alone under the cause None."""
        found: dict[tuple[str, str | None], tuple[EnergyArc, ...]] = {}
        for arc in self.energies:
            for key in {(arc.pin, arc.related), (arc.pin, None)}:
                found[key] = (*found.get(key, ()), arc)
        return found

    def transition_energy(
        self, pin: str, related: str | None, slew_ns: float, load_ff: float
    ) -> float:
        """Look up the internal energy of one transition of an output.

        Parameters
        ----------
        pin : str
            Output that changes.
        related : str or None
            Input that causes it; None takes the mean over all inputs.
        slew_ns : float
            Slew of that input in ns.
        load_ff : float
            Load of the output in fF.

        Returns
        -------
        float
            Energy in pJ, mean of rise and fall; 0 where the library has no such arc.
        """
        arcs = self._energy_arcs.get((pin, related)) or self._energy_arcs.get((pin, None), ())
        if not arcs:
            return 0.0
        return sum(arc.mean(slew_ns, load_ff) for arc in arcs) / len(arcs)

    def passive_energy(self, pin: str, slew_ns: float) -> float:
        """Energy in pJ of one transition of an input, beyond what output transitions cost."""
        table = self.passive.get(pin)
        return 0.0 if table is None else table.value(slew_ns)

    def clock_energy(self, slew_ns: float, toggling: float = 0.0) -> float:
        """Energy at the clock pin of a cell per clock period, without that of its wire.

        Parameters
        ----------
        slew_ns : float
            Slew of the clock in ns.
        toggling : float
            Share of the periods in which the state of a flip-flop changes, or in which a clock
            gate is open, 0 to 1.

        Returns
        -------
        float
            Energy in pJ; 0 for a cell without clock.
        """
        if self.clock_idle is None or self.clock_active is None:
            return 0.0
        idle, active = self.clock_idle.value(slew_ns), self.clock_active.value(slew_ns)
        return idle + toggling * (active - idle)

    def is_flip_flop(self, has_clear: bool, has_preset: bool) -> bool:
        """Whether this is a rising-edge D flip-flop with just these asynchronous inputs."""
        ff = self.ff
        return (
            ff is not None
            and ff.clock_edge == "rising"
            and next(iter(ff.next_state.inputs), None) in self.inputs
            and ff.next_state.truth_table() in (0b10, 0b01)
            and (ff.clear is not None) == has_clear
            and (ff.preset is not None) == has_preset
        )

    @cached_property
    def kind(self) -> str:
        """What the cell is, from its function alone.

        One of ``"flip-flop"``, ``"clock gate"``, ``"tie0"``, ``"tie1"``, ``"buffer"``,
        ``"inverter"``, ``"nand"``, ``"nor"``, ``"and"``, ``"or"``, ``"xor"``, ``"xnor"``,
        ``"mux"``, ``"logic"`` and ``"multi-output"``.
        """
        if self.ff is not None:
            return "flip-flop"
        if self.clock_gate is not None:
            return "clock gate"
        if len(self.outputs) != 1:
            return "multi-output"
        function = self.functions[self.outputs[0]]
        count = len(self.inputs)
        table, rows = function.truth_table(self.inputs), 1 << count
        ones = (1 << rows) - 1
        if count == 0:
            return f"tie{table}"
        if count == 1 and table in (0b10, 0b01):
            return "buffer" if table == 0b10 else "inverter"
        parity = sum(1 << row for row in range(rows) if row.bit_count() % 2)
        known = {
            1 << rows - 1: "and",
            ones ^ 1 << rows - 1: "nand",
            ones ^ 1: "or",
            1: "nor",
            parity: "xor",
            ones ^ parity: "xnor",
        }
        if table in known:
            return known[table]
        if count == 3 and table in _MULTIPLEXERS:
            return "mux"
        return "logic"


def _multiplexers() -> frozenset[int]:
    """Truth tables of a 2:1 multiplexer for every order of its three inputs."""
    return frozenset(
        sum((bits[b] if bits[s] else bits[a]) << row for row, bits in enumerate(_BITS_OF_3))
        for a, b, s in itertools.permutations(range(3))
    )


_BITS_OF_3 = [(row & 1, row >> 1 & 1, row >> 2) for row in range(8)]
_MULTIPLEXERS = _multiplexers()


@dataclass(frozen=True, kw_only=True, eq=False)
class CellLibrary:
    """A library of standard cells at one corner of process, voltage and temperature.

    Parameters
    ----------
    name : str
        Name of the library.
    version, source, licence : str
        Where its figures come from; empty when the file does not say.
    voltage_v, temperature_c : float
        Supply and temperature for which the figures hold.
    cells : dict of str to Cell
        Usable cells by name.
    max_slew_ns : float or None
        Slowest edge that the library allows in ns, where stated.
    thresholds_pct : tuple of float
        Between which points of an edge times are measured, in per cent of the supply: delays from
        the first of an input to the second of an output, slews from the third to the fourth.
    notes : tuple of str
        Cells that were left out, each with the reason.
    """

    name: str
    version: str
    source: str
    licence: str
    voltage_v: float
    temperature_c: float
    cells: dict[str, Cell]
    max_slew_ns: float | None = None
    thresholds_pct: tuple[float, float, float, float] = (50.0, 50.0, 20.0, 80.0)
    notes: tuple[str, ...] = ()

    def liberty_text(self) -> str:
        """Write Liberty text of the cells.

        It takes the place of the file that a library came from, in which mapping would also find
        the cells that were left out.
        """
        return self._text

    @cached_property
    def _text(self) -> str:
        return write_liberty(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the Liberty text: equal for equal cells, whatever file they came from."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def select(self, names: Iterable[str]) -> "CellLibrary":
        """Make a library of some of the cells.

        Parameters
        ----------
        names : iterable of str
            Cells to keep; they stay in the order of this library.

        Returns
        -------
        CellLibrary

        Raises
        ------
        ValueError
            If the library has no cell of one of these names.
        """
        wanted = set(names)
        unknown = sorted(wanted - self.cells.keys())
        if unknown:
            raise ValueError(f"names must be cells of {self.name}, not {unknown[0]!r}")
        kept = {name: cell for name, cell in self.cells.items() if name in wanted}
        return replace(self, cells=kept)

    def of_kind(self, kind: str) -> list[Cell]:
        """Cells of one kind (see :attr:`Cell.kind`), smallest area first, then by name.

        A cell that drives both constants counts as ``"tie0"`` and as ``"tie1"``, each time with
        the one output alone.
        """
        found = [cell for cell in self.cells.values() if cell.kind == kind]
        if kind in ("tie0", "tie1"):
            found += [
                replace(cell, pins={pin: cell.pins[pin]})
                for cell in self.cells.values()
                if not cell.inputs and len(cell.outputs) > 1
                for pin in cell.outputs
                if f"tie{cell.functions[pin].truth_table()}" == kind
            ]
        return sorted(found, key=lambda cell: (cell.area_um2, cell.name))

    @property
    def fo4_slew_ns(self) -> float:
        """Slew in ns in a chain of inverters that each drive four like themselves.

        It is what a typical net of a library has, whatever the technology, and stands in where a
        slew is not known.  Mean of rise and fall of the smallest inverter, of equally small ones
        the one whose chain is fastest (chosen).
        """
        return self._fo4[1]

    @property
    def fo4_delay_ns(self) -> float:
        """Delay in ns of one inverter of that chain, mean of rise and fall."""
        return self._fo4[0]

    @property
    def fo4_load_ff(self) -> float:
        """Load in fF of four of those inverters."""
        return self._fo4[2]

    @cached_property
    def _fo4(self) -> tuple[float, float, float]:
        inverters = self.of_kind("inverter")
        area = inverters[0].area_um2
        return min(_fan_out_of_4(cell) for cell in inverters if cell.area_um2 == area)

    @property
    def plain_flip_flops(self) -> list[Cell]:
        """Flip-flops of a rising edge without set or reset, smallest area first, then by name."""
        return [cell for cell in self.of_kind("flip-flop") if cell.is_flip_flop(False, False)]

    @property
    def clock_gates(self) -> list[Cell]:
        """Clock gates, those without test inputs first, then by area and name."""

        def tests(cell: Cell) -> int:
            return 0 if cell.clock_gate is None else len(cell.clock_gate.tests)

        return sorted(self.of_kind("clock gate"), key=tests)


def _fan_out_of_4(inverter: Cell) -> tuple[float, float, float]:
    """Delay and slew in ns of an inverter that drives four like itself, and the load in fF."""
    load = 4 * inverter.pins[inverter.inputs[0]].cap_ff
    slew = 0.0
    for _ in range(20):
        slew = _mean_of_edges(inverter, ("slew_rise", "slew_fall"), slew, load)
    return _mean_of_edges(inverter, ("delay_rise", "delay_fall"), slew, load), slew, load


def _mean_of_edges(cell: Cell, fields: tuple[str, str], slew_ns: float, load_ff: float) -> float:
    """Mean of some tables over all arcs of a cell."""
    values = [
        table.value(slew_ns, load_ff)
        for arc in cell.arcs
        for field in fields
        if (table := getattr(arc, field)) is not None
    ]
    return sum(values) / len(values)
