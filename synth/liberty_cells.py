"""The meaning of a parsed Liberty file: its groups become the cells of a library.

Only what a synchronous design of plain gates, flip-flops and clock gates needs is read; a cell that
is something else (latch, scan cell, tri-state driver) is left out with a note.
"""

import copy
import itertools
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synth.cells import (
    IDENTIFIER,
    Cell,
    CellLibrary,
    ClockGate,
    EnergyArc,
    FlipFlop,
    Pin,
    PowerArc,
    SetupArc,
    Table,
    TimingArc,
)
from synth.liberty import Function, Group

__all__ = ["from_liberty"]

#: Most inputs of a cell: all of their states are looked at.
MAX_INPUTS = 12

#: Pins of scan flip-flops in libraries that do not say what such pins are for.
SCAN_PINS = ({"SE", "SI"}, {"SCE", "SCD"})

#: A cell that drives a constant and is larger than so many inverters has another purpose, such as
#: the spare cells that a layout is sprinkled with (chosen).
MAX_TIE_AREA = 4.0

#: Power of ten of a unit's prefix.
PREFIXES = {"": 0, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15, "k": 3, "M": 6}


class _UnusableError(Exception):
    """Why a cell is left out; becomes a note."""


@dataclass(frozen=True, kw_only=True)
class _Units:
    """Factors from the units of a Liberty file to ours, and its table templates."""

    time_ns: float
    cap_ff: float
    leakage_nw: float
    energy_pj: float
    templates: dict[str, tuple[Group, tuple[str, ...]]]
    root: Group


def from_liberty(root: Group, origin: str) -> CellLibrary:
    """Make a library from a parsed Liberty file.

    Parameters
    ----------
    root : Group
        The ``library`` group.
    origin : str
        What to call the file in messages and as source.

    Returns
    -------
    CellLibrary
        All cells with known functions, whatever their number.

    Raises
    ------
    ValueError
        If a unit or the operating voltage is missing or malformed, or a table is.
    """
    units = _units(root, origin)
    cells: dict[str, Cell] = {}
    notes: list[str] = []
    for group in root.all("cell"):
        try:
            if group.name in cells:
                raise _UnusableError("cell of this name is there twice")
            cells[group.name] = _cell(group, units)
        except _UnusableError as reason:
            notes.append(f"{_printable(group.name)} left out: {reason}")
    notes += _drop_spares(cells)
    voltage, temperature = _corner(root, origin)
    return CellLibrary(
        name=root.name,
        version=", ".join(filter(None, (root.simple.get(key) for key in ("revision", "date")))),
        source=Path(origin).name,
        licence="",
        voltage_v=voltage,
        temperature_c=temperature,
        cells=cells,
        max_slew_ns=_max_slew(root, units),
        thresholds_pct=_thresholds(root, origin),
        notes=tuple(notes),
    )


def _printable(name: str) -> str:
    """Name as it stands if it is a plain one, else in quotes with control characters escaped."""
    return name if IDENTIFIER.fullmatch(name) else repr(name)


def _drop_spares(cells: dict[str, Cell]) -> list[str]:
    """Remove what drives a constant but is no tie cell; return the notes about it."""
    smallest = min((cell.area_um2 for cell in cells.values() if cell.kind == "inverter"), default=0)
    spares = [
        cell.name
        for cell in cells.values()
        if not cell.inputs and smallest and cell.area_um2 > MAX_TIE_AREA * smallest
    ]
    for name in spares:
        del cells[name]
    return [f"{name} left out: spare cell" for name in spares]


def _max_slew(root: Group, units: _Units) -> float | None:
    try:
        return float(root.simple["default_max_transition"]) * units.time_ns
    except (KeyError, ValueError):
        return None


def _thresholds(root: Group, origin: str) -> tuple[float, float, float, float]:
    """Measuring points of a rising edge; where left out, the defaults of the format."""
    points = []
    for key, default in (
        ("input_threshold_pct_rise", "50"),
        ("output_threshold_pct_rise", "50"),
        ("slew_lower_threshold_pct_rise", "20"),
        ("slew_upper_threshold_pct_rise", "80"),
    ):
        text = root.simple.get(key, default)
        try:
            points.append(float(text))
        except ValueError:
            raise ValueError(f"{key} of {origin!r} must be a number, not {text!r}") from None
    return points[0], points[1], points[2], points[3]


def _corner(root: Group, origin: str) -> tuple[float, float]:
    """Supply in V and temperature in degrees C, of the default operating conditions if given."""
    chosen = root.simple.get("default_operating_conditions", "")
    conditions = next(
        (group for group in root.all("operating_conditions") if group.name == chosen), root
    )
    pair = []
    for key in ("voltage", "temperature"):
        text = conditions.simple.get(key) or root.simple.get(f"nom_{key}", "")
        try:
            pair.append(float(text))
        except ValueError:
            raise ValueError(f"nom_{key} of {origin!r} must be a number, not {text!r}") from None
    return pair[0], pair[1]


def _units(root: Group, origin: str) -> _Units:
    time = _unit(root, "time_unit", "1ns", "s", origin)
    volt = _unit(root, "voltage_unit", "1V", "V", origin)
    leakage = _unit(root, "leakage_power_unit", "1nW", "W", origin)
    load_unit = root.list("capacitive_load_unit") or ["1", "pf"]
    try:
        size, unit = load_unit
        farad = float(size) * 10.0 ** PREFIXES[unit.lower().removesuffix("f")]
    except (ValueError, KeyError):
        raise ValueError(
            f"capacitive_load_unit of {origin!r} must be a number and a unit, not {load_unit}"
        ) from None
    templates = {
        group.name: (group, tuple(group.simple.get(f"variable_{n}", "") for n in (1, 2, 3)))
        for kind in ("lu_table_template", "power_lut_template")
        for group in root.all(kind)
    }
    return _Units(
        time_ns=time * 1e9,
        cap_ff=farad * 1e15,
        leakage_nw=leakage * 1e9,
        # Liberty states no unit of energy: it is that of load times voltage squared.
        energy_pj=farad * volt**2 * 1e12,
        templates=templates,
        root=root,
    )


def _unit(root: Group, key: str, default: str, unit: str, origin: str) -> float:
    text = root.simple.get(key, default)
    match = re.fullmatch(rf"\s*([\d.]+)\s*([munpfkM]?){unit}\s*", text)
    if not match:
        raise ValueError(f"{key} of {origin!r} must be like {default!r}, not {text!r}")
    return float(match[1]) * 10.0 ** PREFIXES[match[2]]


def _number(group: Group, key: str, default: float | None = None) -> float:
    text = group.simple.get(key)
    if text is None:
        if default is None:
            raise _UnusableError(f"no {key}")
        return default
    try:
        number = float(text)
    except ValueError:
        raise _UnusableError(f"{key} is no number but {text!r}") from None
    if not math.isfinite(number):
        raise _UnusableError(f"{key} is {number}")
    return number


def _function(text: str) -> Function:
    try:
        return Function(text)
    except ValueError:
        raise _UnusableError(f"{text!r} is no Boolean expression") from None


#: Groups that say that a cell is something which is not handled, and what.
_UNHANDLED = {
    "latch": "latch",
    "latch_bank": "latch",
    "statetable": "state table",
    "test_cell": "scan cell",
    "ff_bank": "bank of flip-flops",
    "bus": "bus pin",
    "bundle": "bundle of pins",
}

#: The same for attributes of the cell.
_SPECIAL = {
    "is_macro_cell": "macro",
    "is_level_shifter": "level shifter",
    "is_isolation_cell": "isolation cell",
    "always_on": "cell on a second supply",
    "retention_cell": "retention cell",
    "switch_cell_type": "power switch",
}


def _cell(group: Group, units: _Units) -> Cell:
    if not IDENTIFIER.fullmatch(group.name):
        raise _UnusableError("name is no plain identifier")
    for key, what in _SPECIAL.items():
        if group.simple.get(key, "false") != "false":
            raise _UnusableError(what)
    pin_groups = {name: pin for pin in group.all("pin") for name in pin.arguments}
    clock_gate = _clock_gate(group, pin_groups)
    if clock_gate is not None:
        # Where its latch is kept.
        pin_groups = {
            name: pin
            for name, pin in pin_groups.items()
            if pin.simple.get("direction") != "internal"
        }
    for inner in group.groups:
        if inner.kind in _UNHANDLED and clock_gate is None:
            raise _UnusableError(_UNHANDLED[inner.kind])

    ff = _flip_flop(group)
    for name, pin in pin_groups.items():
        if not IDENTIFIER.fullmatch(name):
            raise _UnusableError(f"pin name {name!r} is no plain identifier")
        if pin.simple.get("nextstate_type", "").startswith("scan"):
            raise _UnusableError("scan cell")
    if ff is not None and any(pins <= pin_groups.keys() for pins in SCAN_PINS):
        raise _UnusableError("scan cell")
    clocks = {cell.clock for cell in (ff, clock_gate) if cell is not None}
    gated = set() if clock_gate is None else {clock_gate.output}
    pins = {name: _pin(name, pin, clocks, gated, units) for name, pin in pin_groups.items()}
    outputs = [pin for pin in pins.values() if pin.direction == "output"]
    if not outputs:
        raise _UnusableError("no output")
    known = {pin.name for pin in pins.values() if pin.direction == "input"}
    if ff is not None:
        if ff.clock not in known:
            raise _UnusableError(f"{ff.clock!r} is no input")
        known |= {ff.state, ff.inverted_state}
    used = [pin.function for pin in outputs] + ([ff.next_state, ff.clear, ff.preset] if ff else [])
    for function in used:
        for name in function.inputs if function is not None else ():
            if name not in known:
                raise _UnusableError(f"{name!r} is no input")

    # Tie cells are kept from optimisers, not from the step that replaces constants.
    if group.simple.get("dont_use", "false") == "true" and known:
        raise _UnusableError("dont_use")

    states = _States(pins, ff, clock_gate)
    arcs: list[TimingArc] = []
    setups: list[SetupArc] = []
    energies: list[EnergyArc] = []
    passive: dict[str, Table] = {}
    for name, pin in pin_groups.items():
        if pins[name].direction == "output":
            arcs += _timing_arcs(name, pin, units)
            # A gated clock only changes while its gate is open.
            held = states if clock_gate is None else states.among(states.open)
            energies += _energy_arcs(name, pin, held, units)
        else:
            setups += _setup_arcs(name, pin, units)
            if not pins[name].is_clock:
                table = _passive(pin, states, units)
                if table is not None:
                    passive[name] = table
    clock: tuple[Table | None, Table | None] = None, None
    if ff is not None:
        clock = _clock_tables(pin_groups[ff.clock], ff, states, units)
    if clock_gate is not None:
        clock = _clock_gate_tables(pin_groups[clock_gate.clock], clock_gate, states, units)
    leakage, leakage_states = _leakage(group, units)
    return Cell(
        name=group.name,
        area_um2=_number(group, "area"),
        leakage_nw=leakage,
        pins=pins,
        ff=ff,
        clock_gate=clock_gate,
        arcs=tuple(arcs),
        setups=tuple(setups),
        energies=tuple(energies),
        passive=passive,
        clock_idle=clock[0],
        clock_active=clock[1],
        leakage_states=leakage_states,
        powers=tuple(
            arc
            for name, pin in pin_groups.items()
            if clock_gate is None
            for arc in _power_arcs(name, pin, states, units)
        ),
    )


#: Clock gates with a latch that is open while the clock is low, with or without a test input.
_CLOCK_GATES = {"latch_posedge", "latch_posedge_precontrol"}


def _clock_gate(group: Group, pins: Mapping[str, Group]) -> ClockGate | None:
    kind = group.simple.get("clock_gating_integrated_cell", "")
    if not kind:
        return None
    if kind not in _CLOCK_GATES:
        raise _UnusableError(f"clock gate of kind {kind}")
    roles: dict[str, list[str]] = {}
    for role in ("clock", "enable", "out", "test"):
        key = f"clock_gate_{role}_pin"
        roles[role] = [name for name, pin in pins.items() if pin.simple.get(key) == "true"]
    if any(len(roles[role]) != 1 for role in ("clock", "enable", "out")):
        raise _UnusableError("clock gate without a clock, an enable and an output")
    return ClockGate(
        clock=roles["clock"][0],
        enable=roles["enable"][0],
        output=roles["out"][0],
        tests=tuple(roles["test"]),
    )


def _flip_flop(group: Group) -> FlipFlop | None:
    found = list(group.all("ff"))
    if not found:
        return None
    if len(found) > 1 or "clocked_on_also" in found[0].simple:
        raise _UnusableError("more than one flip-flop or clock")
    ff = found[0]
    names = ff.arguments
    if len(names) != 2 or "next_state" not in ff.simple or "clocked_on" not in ff.simple:
        raise _UnusableError("flip-flop without names, next_state or clocked_on")
    clock = _function(ff.simple["clocked_on"])
    if len(clock.inputs) != 1 or clock.truth_table() not in (0b10, 0b01):
        raise _UnusableError(f"clocked by {clock.text!r}")
    clear, preset = (
        _function(ff.simple[key]) if key in ff.simple else None for key in ("clear", "preset")
    )
    return FlipFlop(
        clock=clock.inputs[0],
        clock_edge="rising" if clock.truth_table() == 0b10 else "falling",
        next_state=_function(ff.simple["next_state"]),
        state=names[0],
        inverted_state=names[1],
        clear=clear,
        preset=preset,
    )


def _pin(
    name: str, group: Group, clocks: Container[str], gated: Container[str], units: _Units
) -> Pin:
    """Make a pin; ``clocks`` clock a flip-flop or a clock gate, ``gated`` leave one."""
    direction = group.simple.get("direction", "")
    if direction == "input":
        default = _number(units.root, "default_input_pin_cap", 0.0)
        cap = _number(group, "capacitance", default)
        return Pin(
            name=name,
            direction=direction,
            cap_ff=cap * units.cap_ff,
            rise_cap_ff=_number(group, "rise_capacitance", cap) * units.cap_ff,
            fall_cap_ff=_number(group, "fall_capacitance", cap) * units.cap_ff,
            is_clock=name in clocks,
        )
    if direction != "output":
        raise _UnusableError(f"pin {name} is {direction or 'without direction'}")
    if "three_state" in group.simple:
        raise _UnusableError("tri-state output")
    if "function" not in group.simple and name not in gated:
        raise _UnusableError(f"output {name} without function")
    return Pin(
        name=name,
        direction=direction,
        function=None if name in gated else _function(group.simple["function"]),
        max_cap_ff=(
            _number(group, "max_capacitance") * units.cap_ff
            if "max_capacitance" in group.simple
            else None
        ),
    )


class _States:
    """All states of a cell's pins, to weigh conditions: each state is taken as equally likely.

    Attributes
    ----------
    open, closed : ndarray of bool
        States in which a clock gate lets the clock pass, and in which it does not.
    """

    def __init__(
        self, pins: Mapping[str, Pin], ff: FlipFlop | None, gate: ClockGate | None
    ) -> None:
        free = [pin.name for pin in pins.values() if pin.direction == "input"]
        if ff is not None:
            free.append(ff.state)
        if gate is not None:
            free.append(_LATCH)
        if len(free) > MAX_INPUTS:
            raise _UnusableError(f"more than {MAX_INPUTS} inputs")
        rows = np.arange(1 << len(free))
        self.bits = {name: (rows >> n & 1).astype(np.uint64) for n, name in enumerate(free)}
        if ff is not None:
            self.bits[ff.inverted_state] = self.bits[ff.state] ^ np.uint64(1)
        for pin in pins.values():
            if pin.function is not None:
                self.bits[pin.name] = self.where(pin.function).astype(np.uint64)
        if gate is not None:
            self.bits[gate.output] = self.bits[gate.clock] & self.bits[_LATCH]
            tested = np.any([self.bits[name] for name in gate.tests], axis=0)
            enable, latch = self.bits[gate.enable] == 1, self.bits[_LATCH] == 1
            self.open, self.closed = enable & latch & ~tested, ~enable & ~latch & ~tested

    def among(self, selected: npt.NDArray[np.bool_]) -> "_States":
        """Keep some of the states."""
        kept = copy.copy(self)
        kept.bits = {name: bits[selected] for name, bits in self.bits.items()}
        return kept

    def where(self, function: Function) -> npt.NDArray[np.bool_]:
        """In which states a function of pins and state is true."""
        try:
            words = function.evaluate(self.bits)
        except ValueError:
            raise _UnusableError(f"condition {function.text!r} on unknown pins") from None
        one = np.uint64(1)
        return np.broadcast_to((words & one).astype(bool), self.bits_shape)

    @property
    def bits_shape(self) -> tuple[int, ...]:
        """Shape of every array: (states,)."""
        return next(iter(self.bits.values())).shape if self.bits else (1,)

    def share(self, group: Group) -> float:
        """Share of the states in which the ``when`` of a group holds; 1 without one."""
        when = group.simple.get("when")
        return 1.0 if when is None else float(self.where(_function(when)).mean())


#: What the latch of a clock gate holds, in the states of its pins.
_LATCH = " latch"

#: Roles of table variables; a table has one of each kind at most.
_ROW = {"input_net_transition", "input_transition_time", "related_pin_transition"}
_COLUMN = {"total_output_net_capacitance", "constrained_pin_transition"}


def _table(group: Group | None, units: _Units, scale: float) -> Table | None:
    """Make a table of ours from a group such as ``cell_rise``; values are multiplied by scale."""
    if group is None:
        return None
    values = group.numbers("values")
    if values is None:
        raise _UnusableError(f"{group.kind} without values")
    if group.name == "scalar":
        return Table((0.0,), (0.0,), ((float(values[0]) * scale,),))
    if group.name not in units.templates:
        raise _UnusableError(f"table template {group.name!r} is not defined")
    template, variables = units.templates[group.name]
    if variables[2] or not variables[0]:
        raise _UnusableError(f"{group.kind} is not over one or two variables")
    axes: dict[str, tuple[float, ...]] = {}
    shape = []
    for n, variable in enumerate(variables[:2], start=1):
        if not variable:
            continue
        index = group.numbers(f"index_{n}")
        if index is None:
            index = template.numbers(f"index_{n}")
        if index is None:
            raise _UnusableError(f"{group.kind} without index_{n}")
        shape.append(len(index))
        role = "row" if variable in _ROW else "column" if variable in _COLUMN else ""
        if not role or role in axes:
            raise _UnusableError(f"{group.kind} over {variable}")
        unit = units.cap_ff if variable == "total_output_net_capacitance" else units.time_ns
        axes[role] = tuple(float(at) * unit for at in index)
    if math.prod(shape) != len(values):
        raise _UnusableError(f"{group.kind} of {len(values)} values for {shape} points")
    grid = values.reshape(shape) * scale
    if next(iter(axes)) == "column":
        grid = grid.T if len(shape) == 2 else grid[None, :]
    elif len(shape) == 1:
        grid = grid[:, None]
    return Table(
        axes.get("row", (0.0,)),
        axes.get("column", (0.0,)),
        tuple(tuple(float(value) for value in row) for row in grid),
    )


def _related(group: Group) -> list[str]:
    return group.simple.get("related_pin", "").split()


def _first(group: Group, kind: str) -> Group | None:
    return next(group.all(kind), None)


_SENSES = {"positive_unate": "positive", "negative_unate": "negative", "non_unate": "either"}
_COMBINATIONAL = {"combinational", "combinational_rise", "combinational_fall"}
_EDGES = {"rising_edge": "rising", "falling_edge": "falling"}


def _timing_arcs(name: str, pin: Group, units: _Units) -> Iterator[TimingArc]:
    for group in pin.all("timing"):
        kind = group.simple.get("timing_type", "combinational")
        if kind in _COMBINATIONAL:
            sense = _SENSES.get(group.simple.get("timing_sense", "non_unate"), "either")
        elif kind in _EDGES:
            sense = _EDGES[kind]
        else:
            continue  # set and reset act outside of the clocked paths that are timed
        rises, falls = kind != "combinational_fall", kind != "combinational_rise"
        delay_rise = _table(_first(group, "cell_rise"), units, units.time_ns) if rises else None
        delay_fall = _table(_first(group, "cell_fall"), units, units.time_ns) if falls else None
        slew_rise = _table(_first(group, "rise_transition"), units, units.time_ns)
        slew_fall = _table(_first(group, "fall_transition"), units, units.time_ns)
        for related in _related(group):
            yield TimingArc(
                pin=name,
                related=related,
                sense=sense,
                delay_rise=delay_rise,
                delay_fall=delay_fall,
                slew_rise=slew_rise,
                slew_fall=slew_fall,
            )


def _setup_arcs(name: str, pin: Group, units: _Units) -> Iterator[SetupArc]:
    for group in pin.all("timing"):
        if group.simple.get("timing_type") not in ("setup_rising", "setup_falling"):
            continue
        for related in _related(group):
            yield SetupArc(
                pin=name,
                related=related,
                rise=_table(_first(group, "rise_constraint"), units, units.time_ns),
                fall=_table(_first(group, "fall_constraint"), units, units.time_ns),
            )


def _power_tables(group: Group, units: _Units) -> tuple[Table, Table]:
    """Energy of a rising and a falling pin; what the library leaves out is zero."""
    both = _first(group, "power")
    pair = (
        _table(_first(group, f"{edge}_power") or both, units, units.energy_pj)
        for edge in ("rise", "fall")
    )
    rise, fall = (_ZERO if table is None else table for table in pair)
    return rise, fall


_ZERO = Table((0.0,), (0.0,), ((0.0,),))


def _combine(terms: Sequence[tuple[float, Table]]) -> Table:
    """Weighted sum of tables, on the finest grid among them."""
    if len(terms) == 1:
        weight, table = terms[0]
        return table.scaled(weight)
    largest = max((table for _, table in terms), key=lambda t: len(t.rows) * len(t.columns))
    values = tuple(
        tuple(
            sum(weight * table.value(row, column) for weight, table in terms)
            for column in largest.columns
        )
        for row in largest.rows
    )
    return Table(largest.rows, largest.columns, values)


def _energy_arcs(name: str, pin: Group, states: _States, units: _Units) -> Iterator[EnergyArc]:
    """Gather internal energy by cause: means over the conditions, sums over the supply pins."""
    groups: dict[str | None, dict[str, list[Group]]] = {}
    everything: list[str | None] = [None]
    for group in pin.all("internal_power"):
        supply = group.simple.get("related_pg_pin", "")
        for related in _related(group) or everything:
            groups.setdefault(related, {}).setdefault(supply, []).append(group)
    for related, by_supply in groups.items():
        rises: list[tuple[float, Table]] = []
        falls: list[tuple[float, Table]] = []
        for members in by_supply.values():
            shares = [states.share(group) for group in members]
            # Conditions that never hold together are means; a library may also list none of them.
            total = sum(shares)
            for group, share in zip(members, shares, strict=True):
                rise, fall = _power_tables(group, units)
                weight = share / total if total else 1 / len(members)
                rises.append((weight, rise))
                falls.append((weight, fall))
        yield EnergyArc(pin=name, related=related, rise=_combine(rises), fall=_combine(falls))


def _power_arcs(name: str, pin: Group, states: _States, units: _Units) -> Iterator[PowerArc]:
    """Gather internal energy of a pin by cause and condition, summed over the supply pins."""
    groups: dict[str | None, dict[str, dict[str | None, list[Group]]]] = {}
    everything: list[str | None] = [None]
    for group in pin.all("internal_power"):
        supply = group.simple.get("related_pg_pin", "")
        when = group.simple.get("when")
        for related in _related(group) or everything:
            by_supply = groups.setdefault(related, {})
            by_supply.setdefault(supply, {}).setdefault(when, []).append(group)
    for related, by_supply in groups.items():
        conditions = [list(found) for found in by_supply.values()]
        if all(set(found) == set(conditions[0]) for found in conditions):
            choices = [(when, [when] * len(conditions)) for when in conditions[0]]
        else:
            choices = _joint(conditions)
        for text, whens in choices:
            condition = None if text is None else _function(text)
            if condition is not None and not states.where(condition).any():
                continue
            pairs = [
                (1 / len(members), _power_tables(group, units))
                for found, key in zip(by_supply.values(), whens, strict=True)
                for members in [found[key]]
                for group in members
            ]
            yield PowerArc(
                pin=name,
                related=related,
                when=condition,
                rise=_combine([(weight, rise) for weight, (rise, _) in pairs]),
                fall=_combine([(weight, fall) for weight, (_, fall) in pairs]),
            )


def _joint(
    conditions: Sequence[Sequence[str | None]],
) -> list[tuple[str | None, list[str | None]]]:
    """Conditions that hold together, one of each supply pin, and the text for all of them."""
    joint = []
    for whens in itertools.product(*conditions):
        terms = []
        for when, found in zip(whens, conditions, strict=True):
            others = " | ".join(f"({other})" for other in found if other is not None)
            if when is not None:
                terms.append(f"({when})")
            elif others:
                terms.append(f"!({others})")
        joint.append((" & ".join(terms) or None, list(whens)))
    return joint


def _passive(pin: Group, states: _States, units: _Units) -> Table | None:
    """Mean energy per transition of an input over all states, those not listed counting zero."""
    terms: list[tuple[float, Table]] = []
    for share, group in _shares(pin, states):
        rise, fall = _power_tables(group, units)
        terms += [(share / 2, rise), (share / 2, fall)]
    return _combine(terms) if terms else None


def _shares(pin: Group, states: _States) -> Iterator[tuple[float, Group]]:
    """Every internal_power of an input with its share; without condition: what the others leave."""
    conditional: dict[str, float] = {}
    groups = list(pin.all("internal_power"))
    for group in groups:
        if "when" in group.simple:
            supply = group.simple.get("related_pg_pin", "")
            conditional[supply] = conditional.get(supply, 0.0) + states.share(group)
    for group in groups:
        if "when" in group.simple:
            yield states.share(group), group
        else:
            rest = 1.0 - conditional.get(group.simple.get("related_pg_pin", ""), 0.0)
            yield max(rest, 0.0), group


def _clock_tables(
    pin: Group, ff: FlipFlop, states: _States, units: _Units
) -> tuple[Table | None, Table | None]:
    """Energy of a rising and a falling clock, where the state stays and where it changes."""
    groups = list(pin.all("internal_power"))
    if not groups:
        return _ZERO, _ZERO
    working = np.ones(states.bits_shape, dtype=bool)
    for function in (ff.clear, ff.preset):
        if function is not None:
            working &= ~states.where(function)
    changes = states.where(ff.next_state) ^ (states.bits[ff.state] != 0)
    tables = []
    for selected in (working & ~changes, working & changes):
        terms: list[tuple[float, Table]] = []
        listed: dict[str, npt.NDArray[np.bool_]] = {}
        # Conditions first, so that a group without one takes the states which they leave.
        for group in sorted(groups, key=lambda group: "when" not in group.simple):
            supply = group.simple.get("related_pg_pin", "")
            before = listed.get(supply, np.zeros_like(working))
            when = group.simple.get("when")
            held = ~before if when is None else states.where(_function(when))
            listed[supply] = before | held
            weight = float((held & selected).sum() / max(selected.sum(), 1))
            rise, fall = _power_tables(group, units)
            terms += [(weight, rise), (weight, fall)]
        tables.append(_combine(terms))
    return tables[0], tables[1]


def _clock_gate_tables(
    pin: Group, gate: ClockGate, states: _States, units: _Units
) -> tuple[Table, Table]:
    """Energy of a rising and a falling clock, where a clock gate is closed and where it is open."""
    tables = []
    for selected, moves in ((states.closed, False), (states.open, True)):
        terms: list[tuple[float, Table]] = []
        for share, group in _shares(pin, states.among(selected)):
            when = group.simple.get("when")
            # A condition on the output is one of edges at which that stays.
            if not (moves and when is not None and gate.output in _function(when).inputs):
                rise, fall = _power_tables(group, units)
                terms += [(share, rise), (share, fall)]
        tables.append(_combine(terms) if terms else _ZERO)
    return tables[0], tables[1]


def _leakage(group: Group, units: _Units) -> tuple[float, tuple[tuple[Function, float], ...]]:
    """Mean leakage in nW, and that of the states that are listed, summed over the supply pins."""
    by_state: dict[str | None, float] = {}
    for inner in group.all("leakage_power"):
        when = inner.simple.get("when")
        power = _number(inner, "value") * units.leakage_nw
        by_state[when] = by_state.get(when, 0.0) + power
    unconditional = by_state.pop(None, None)
    if "cell_leakage_power" in group.simple:
        mean = _number(group, "cell_leakage_power") * units.leakage_nw
    elif unconditional is not None:
        mean = unconditional
    elif by_state:
        mean = sum(by_state.values()) / len(by_state)
    else:
        mean = _number(units.root, "default_cell_leakage_power", 0.0) * units.leakage_nw
    return mean, tuple((_function(when), power) for when, power in by_state.items() if when)
