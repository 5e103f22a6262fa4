"""Compact cell libraries: a TOML file of a few numbers per cell in place of megabytes of tables.

Delay and slew of every arc, setup times and energies become linear functions of input slew and
load.  They are fitted where nets of synthesised logic lie: slews from half to four times that of
a fan-out of four, loads from 1/32 to 1/4 of what an output may drive at most (chosen).
"""

import itertools
import json
import math
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

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
from synth.liberty import Function

__all__ = ["compact_text", "is_compact", "parse_compact"]

#: Where the linear functions are fitted: multiples of the slew of a fan-out of four ...
SLEWS = (0.5, 1.0, 2.0, 4.0)
#: ... and fractions of an output's largest load.
LOADS = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
#: Fractions of the largest load at which an energy is kept that is too far from linear for that:
#: the largest error of the linear function, also at smaller loads, is more than this of the mean.
KNOTS = (0.0, 1 / 128, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
LARGEST_ERROR = 0.25

PS_PER_NS = 1e3
FJ_PER_PJ = 1e3

LEGEND = """\
# Compact cell library: figures taken from the library named below, no text of it.
# Units: ps, fF, fJ, nW, um2.  Three numbers [a, b, c] are a + b * load + c * slew, load in fF and
# slew of the input in ps; two numbers [a, c] are a + c * slew.  Delays are measured between the
# first two of `thresholds` (of the input and the output, in per cent of the supply), slews between
# the last two.
#   inputs    capacitance for a rising and a falling edge; nominal, where it is not the larger
#   outputs   function, largest load
#   arcs      input, output, sense, delay and then slew of a rising and of a falling output
#   energies  input, output, internal energy per transition of the output; where that is no linear
#             function of the load, c and then pairs of a load and of a at that load
#   powers    of cells whose energies depend on the state: pin, input that makes it change or "",
#             states of the other pins or "", energy of a rising and of a falling pin as in
#             `energies` or, of an input, in `passive`; `energies`, `passive` and `clock` are means
#   clock_gate  pins of a clock gate: clock, enable, gated clock, test inputs to hold at 0
#   setups    input, setup time of a rising and of a falling input; b belongs to the slew of the
#             clock in ps and c to that of the input
#   leaks     leakage of each state: bit i of its number is input i, and the state of a flip-flop
#             comes last
#   passive   energy per transition of an input beyond that of the outputs
#   clock     energy at the clock pin per period in which the state stays, and in which it changes;
#             of a clock gate, in which it is closed and in which it is open
"""

#: Load in fF, slew in ps, value in ps or fJ.
_Point = tuple[float, float, float]

#: Axes of the tables into which the linear functions are put; any two points would do.
_SLEW_AXIS = (0.01, 0.05)
_LOAD_AXIS = (1.0, 10.0)


def compact_text(library: CellLibrary) -> str:
    """Write a library in the compact form.

    Parameters
    ----------
    library : CellLibrary
        Library with tables of any kind; all of its cells are written.

    Returns
    -------
    str
        TOML; the same for equal libraries.

    Raises
    ------
    ValueError
        If the library has no inverter, whose slew sets the range of the fits.
    """
    if not library.of_kind("inverter"):
        raise ValueError(f"library must hold an inverter, not only {sorted(library.cells)}")
    head = {
        "name": library.name,
        "version": library.version,
        "source": library.source,
        "licence": library.licence,
        "voltage_v": library.voltage_v,
        "temperature_c": library.temperature_c,
    }
    if library.max_slew_ns is not None:
        head["max_slew"] = _rounded(library.max_slew_ns * PS_PER_NS)
    slews = [factor * library.fo4_slew_ns for factor in SLEWS]
    lines = [
        f"{LEGEND}{tomli_w.dumps(head)}thresholds = {_inline(library.thresholds_pct)}",
        "",
    ]
    for cell in library.cells.values():
        lines += _cell_lines(cell, slews)
    return "\n".join(lines) + "\n"


def _cell_lines(cell: Cell, slews: Sequence[float]) -> Iterator[str]:
    yield f"[cells.{json.dumps(cell.name)}]"
    yield f"area = {_rounded(cell.area_um2)}"
    yield f"leakage = {_rounded(cell.leakage_nw)}"
    if cell.leakage_states and cell.inputs and cell.clock_gate is None:
        yield f"leaks = {_inline(_leaks(cell))}"
    pins = cell.pins
    inputs = {}
    for name in cell.inputs:
        edges = [pins[name].rise_cap_ff, pins[name].fall_cap_ff]
        inputs[name] = edges if pins[name].cap_ff == max(edges) else [*edges, pins[name].cap_ff]
    outputs = {
        name: [str(cell.functions.get(name, "")), _max_load(cell, name)] for name in cell.outputs
    }
    yield f"inputs = {_inline(inputs)}"
    yield f"outputs = {_inline(outputs)}"
    if cell.ff is not None:
        yield f"ff = {_inline(_flip_flop_record(cell.ff))}"
    if (gate := cell.clock_gate) is not None:
        yield f"clock_gate = {_inline([gate.clock, gate.enable, gate.output, *gate.tests])}"
    yield from _rows("arcs", _arc_rows(cell, slews))
    yield from _rows("energies", _energy_rows(cell, slews))
    yield from _rows("powers", _power_rows(cell, slews))
    yield from _rows("setups", _setup_rows(cell, slews))
    if cell.passive:
        passive = {name: _line(table, slews) for name, table in cell.passive.items()}
        yield f"passive = {_inline(passive)}"
    if cell.clock_idle is not None and cell.clock_active is not None:
        both = [_line(cell.clock_idle, slews), _line(cell.clock_active, slews)]
        yield f"clock = {_inline(both)}"
    yield ""


def _state_names(inputs: Iterable[str], ff: FlipFlop | None) -> list[str]:
    return [*inputs, *([] if ff is None else [ff.state])]


def _leaks(cell: Cell) -> list[float]:
    """Leakage of every state; where the library does not list it, the mean of the cell."""
    names = _state_names(cell.inputs, cell.ff)
    states = np.arange(1 << len(names))
    values = {name: (states >> n & 1).astype(np.uint64) for n, name in enumerate(names)}
    if cell.ff is not None:
        values[cell.ff.inverted_state] = values[cell.ff.state] ^ np.uint64(1)
    values |= {pin: function.evaluate(values) for pin, function in cell.functions.items()}
    power, listed = np.zeros(len(states)), np.zeros(len(states))
    for when, value in cell.leakage_states:
        holds = (when.evaluate(values) & np.uint64(1)) == 1
        power += np.where(holds, value, 0.0)
        listed += holds
    return [float(x) for x in np.where(listed > 0, power / np.maximum(listed, 1), cell.leakage_nw)]


def _flip_flop_record(ff: FlipFlop) -> dict[str, str]:
    record = {
        "clock": ff.clock,
        "edge": ff.clock_edge,
        "next_state": str(ff.next_state),
        "state": ff.state,
        "inverted_state": ff.inverted_state,
    }
    for key, function in (("clear", ff.clear), ("preset", ff.preset)):
        if function is not None:
            record[key] = str(function)
    return record


def _max_load(cell: Cell, output: str) -> float:
    """Largest load of an output in fF: as stated, else the largest that its tables know."""
    stated = cell.pins[output].max_cap_ff
    if stated is not None:
        return stated
    tables = (arc.delay_rise or arc.delay_fall for arc in cell.arcs if arc.pin == output)
    return max((table.columns[-1] for table in tables if table is not None), default=0.0)


def _arc_rows(cell: Cell, slews: Sequence[float]) -> Iterator[list[Any]]:
    """One row per input, output and sense; of several arcs that of the slowest counts."""
    groups: dict[tuple[str, str, str], list[TimingArc]] = {}
    for arc in cell.arcs:
        groups.setdefault((arc.related, arc.pin, arc.sense), []).append(arc)
    for (related, pin, sense), arcs in groups.items():
        loads = [fraction * _max_load(cell, pin) for fraction in LOADS]
        row: list[Any] = [related, pin, sense]
        for name in ("delay_rise", "delay_fall", "slew_rise", "slew_fall"):
            tables = [table for arc in arcs if (table := getattr(arc, name)) is not None]
            points = _points(tables, slews, loads, PS_PER_NS)
            row.append(_fit(points, relative=True) if tables else [])
        yield row


def _energy_rows(cell: Cell, slews: Sequence[float]) -> Iterator[list[Any]]:
    for arc in cell.energies:
        yield [arc.related or "", arc.pin, *_energy_fits(cell, arc, slews, edges=False)]


def _power_rows(cell: Cell, slews: Sequence[float]) -> Iterator[list[Any]]:
    """One row for each state, of cells that have any."""
    if not any(arc.when is not None for arc in cell.powers):
        return
    for arc in cell.powers:
        head = [arc.pin, arc.related or "", "" if arc.when is None else str(arc.when)]
        if arc.pin in cell.inputs:
            yield [*head, _line(arc.rise, slews), _line(arc.fall, slews)]
        else:
            yield [*head, *_energy_fits(cell, arc, slews, edges=True)]


def _energy_fits(
    cell: Cell, arc: EnergyArc | PowerArc, slews: Sequence[float], *, edges: bool
) -> list[list[Any]]:
    """Fit the energies of a rising and of a falling output, or their mean."""
    largest = _max_load(cell, arc.pin)

    def sample(loads: Sequence[float], *tables: Table) -> list[_Point]:
        return [
            (
                load * largest,
                slew * PS_PER_NS,
                FJ_PER_PJ
                * sum(table.value(slew, load * largest) for table in tables)
                / len(tables),
            )
            for slew, load in itertools.product(slews, loads)
        ]

    mean = sample(LOADS, arc.rise, arc.fall)
    typical = float(np.mean([abs(value) for _, _, value in mean]))
    base, per_load, per_slew = _fit(mean, relative=False)
    error = max(
        abs(base + per_load * load + per_slew * slew - value)
        for load, slew, value in sample(KNOTS[1:], arc.rise, arc.fall)
    )
    fit, loads = (_fit_knots, KNOTS) if error > LARGEST_ERROR * typical else (_fit_plane, LOADS)
    curves = [(arc.rise,), (arc.fall,)] if edges else [(arc.rise, arc.fall)]
    return [fit(sample(loads, *tables), typical) for tables in curves]


def _fit_plane(points: Sequence[_Point], typical: float) -> list[Any]:
    return _fit(points, relative=False, typical=typical)


def _fit_knots(points: Sequence[_Point], typical: float) -> list[Any]:
    """Fit c * slew and a value at every load."""
    loads, slews, values = np.array(points).T
    knots = np.unique(loads)
    design = np.column_stack([slews, *(loads == knot for knot in knots)])
    (slope, *at), *_ = np.linalg.lstsq(design, values, rcond=None)
    decimals = max(0, math.ceil(-math.log10(max(typical / 500, 1e-9))))
    pairs = [
        [float(f"{knot:.4g}"), round(float(a), decimals)] for knot, a in zip(knots, at, strict=True)
    ]
    return [float(f"{slope:.2g}"), *pairs]


def _setup_rows(cell: Cell, slews: Sequence[float]) -> Iterator[list[Any]]:
    groups: dict[str, list[SetupArc]] = {}
    for arc in cell.setups:
        groups.setdefault(arc.pin, []).append(arc)
    for pin, arcs in groups.items():
        row: list[Any] = [pin]
        for name in ("rise", "fall"):
            tables = [table for arc in arcs if (table := getattr(arc, name)) is not None]
            # Slew of the clock by slew of the data; the first takes the place of the load.
            points = [
                (clock * PS_PER_NS, data * PS_PER_NS, value)
                for clock, data in itertools.product(slews, slews)
                for value in [max((t.value(clock, data) for t in tables), default=0.0) * PS_PER_NS]
            ]
            row.append(_fit(points, relative=False) if tables else [])
        yield row


def _points(
    tables: Sequence[Table], slews: Sequence[float], loads: Sequence[float], scale: float
) -> list[_Point]:
    """Sample the largest of some tables."""
    if not tables:
        return []
    return [
        (load, slew * PS_PER_NS, scale * max(table.value(slew, load) for table in tables))
        for slew, load in itertools.product(slews, loads)
    ]


def _fit(points: Sequence[_Point], *, relative: bool, typical: float | None = None) -> list[float]:
    """Fit a + b * load + c * slew by least squares of the absolute or the relative error."""
    table = np.array(points)
    loads, slews, values = table.T
    weights = 1 / np.abs(values) if relative and np.all(values) else np.ones_like(values)
    design = np.column_stack([np.ones_like(values), loads, slews])
    solution, *_ = np.linalg.lstsq(design * weights[:, None], values * weights, rcond=None)
    # Digits worth less than 1/500 of the typical value are noise, and make files longer.
    largest = np.maximum(np.abs(design).max(axis=0), 1e-9)
    typical = np.abs(values).mean() if typical is None else typical
    quantum = np.maximum(typical / 500, 1e-9) / largest
    decimals = np.maximum(np.ceil(-np.log10(quantum)), 0).astype(int)
    return [round(float(x), int(n)) for x, n in zip(solution, decimals, strict=True)]


def _line(table: Table, slews: Sequence[float]) -> list[float]:
    """Fit a + c * slew to an energy."""
    points = [(0.0, slew * PS_PER_NS, table.value(slew) * FJ_PER_PJ) for slew in slews]
    base, _, slope = _fit(points, relative=False)
    return [base, slope]


def _rounded(number: float) -> float:
    """Round to four significant digits; a zero loses its sign."""
    return float(f"{number:.4g}") + 0.0


def _inline(value: Any) -> str:
    """Write a value on one line, which the TOML package does not do for arrays."""
    match value:
        case str():
            return json.dumps(value)
        case float():
            return f"{_rounded(value):g}"
        case Mapping():
            return "{" + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + "}"
        case _:
            return "[" + ", ".join(_inline(item) for item in value) + "]"


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").isalnum() else json.dumps(name)


def _rows(key: str, rows: Iterator[list[Any]]) -> Iterator[str]:
    lines = [f"  {_inline(row)}," for row in rows]
    if lines:
        yield f"{key} = ["
        yield from lines
        yield "]"


def is_compact(path: Path) -> bool:
    """Whether a file begins as one that :func:`compact_text` made; False if it cannot be read."""
    first = LEGEND.split("\n", 1)[0].encode()
    try:
        with path.open("rb") as file:
            return file.read(len(first)) == first
    except OSError:
        return False


def parse_compact(text: str, origin: str) -> CellLibrary:
    """Read a library in the compact form.

    Parameters
    ----------
    text : str
        TOML as :func:`compact_text` writes it.
    origin : str
        What to call the text in messages.

    Returns
    -------
    CellLibrary

    Raises
    ------
    ValueError
        If the text is not TOML, or a part is missing or malformed.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        raise ValueError(f"library must be TOML, not {origin!r}: {reason}") from None
    except RecursionError:
        raise ValueError(f"library must be TOML, not {origin!r}, which is nested deeply") from None
    try:
        _require_finite(data)
        max_slew = data.get("max_slew")
        return CellLibrary(
            name=data["name"],
            version=data["version"],
            source=data["source"],
            licence=data["licence"],
            voltage_v=float(data["voltage_v"]),
            temperature_c=float(data["temperature_c"]),
            thresholds_pct=_four(data["thresholds"]),
            max_slew_ns=None if max_slew is None else max_slew / PS_PER_NS,
            cells={name: _cell(name, record) for name, record in data["cells"].items()},
        )
    except KeyError as error:
        raise ValueError(f"compact library {origin!r} must have a key {error}") from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"compact library {origin!r} must be well formed: {error}") from None


def _require_finite(data: Any) -> None:
    """Refuse "nan" and "inf", which TOML knows, before they spread to every result."""
    match data:
        case float() if not math.isfinite(data):
            raise ValueError(f"numbers must be finite, not {data}")
        case Mapping():
            for value in data.values():
                _require_finite(value)
        case list():
            for value in data:
                _require_finite(value)


def _four(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    a, b, c, d = (float(number) for number in numbers)
    return a, b, c, d


def _cell(name: str, record: Mapping[str, Any]) -> Cell:
    for word in (name, *record["inputs"], *record["outputs"]):
        if not IDENTIFIER.fullmatch(word):
            raise ValueError(f"names of cells and pins must be plain identifiers, not {word!r}")
    ff = _flip_flop(record["ff"]) if "ff" in record else None
    clock_gate = _clock_gate(*record["clock_gate"]) if "clock_gate" in record else None
    if clock_gate is not None:
        named = {clock_gate.clock, clock_gate.enable, *clock_gate.tests}
        if named != record["inputs"].keys() or [clock_gate.output] != list(record["outputs"]):
            raise ValueError(f"clock_gate of {name} must name each of its pins, not {named}")
    clock_pin = next((item.clock for item in (ff, clock_gate) if item is not None), "")
    pins = {}
    for pin, (rise, fall, *nominal) in record["inputs"].items():
        pins[pin] = Pin(
            name=pin,
            direction="input",
            cap_ff=float(nominal[0] if nominal else max(rise, fall)),
            rise_cap_ff=float(rise),
            fall_cap_ff=float(fall),
            is_clock=pin == clock_pin,
        )
    for pin, (function, max_cap) in record["outputs"].items():
        pins[pin] = Pin(
            name=pin,
            direction="output",
            function=None if clock_gate is not None else Function(function),
            max_cap_ff=float(max_cap) or None,
        )
    clock = [_energy_line(line) for line in record.get("clock", [])]
    return Cell(
        name=name,
        area_um2=float(record["area"]),
        leakage_nw=float(record["leakage"]),
        pins=pins,
        ff=ff,
        clock_gate=clock_gate,
        arcs=tuple(_timing_arc(*row) for row in record.get("arcs", [])),
        setups=tuple(
            SetupArc(pin=pin, related=clock_pin, rise=_setup(rise), fall=_setup(fall))
            for pin, rise, fall in record.get("setups", [])
        ),
        energies=tuple(_energy_arc(*row) for row in record.get("energies", [])),
        passive={pin: _energy_line(line) for pin, line in record.get("passive", {}).items()},
        leakage_states=tuple(_leakage_states(record, ff)),
        powers=tuple(_power_arc(*row, inputs=record["inputs"]) for row in record.get("powers", [])),
        clock_idle=clock[0] if clock else None,
        clock_active=clock[1] if clock else None,
    )


def _clock_gate(clock: str, enable: str, output: str, *tests: str) -> ClockGate:
    return ClockGate(clock=clock, enable=enable, output=output, tests=tests)


def _flip_flop(record: Mapping[str, str]) -> FlipFlop:
    clear, preset = (
        Function(record[key]) if key in record else None for key in ("clear", "preset")
    )
    return FlipFlop(
        clock=record["clock"],
        clock_edge=record["edge"],
        next_state=Function(record["next_state"]),
        state=record["state"],
        inverted_state=record["inverted_state"],
        clear=clear,
        preset=preset,
    )


def _timing_arc(
    related: str,
    pin: str,
    sense: str,
    delay_rise: Sequence[float],
    delay_fall: Sequence[float],
    slew_rise: Sequence[float],
    slew_fall: Sequence[float],
) -> TimingArc:
    return TimingArc(
        pin=pin,
        related=related,
        sense=sense,
        delay_rise=_time(delay_rise),
        delay_fall=_time(delay_fall),
        slew_rise=_time(slew_rise),
        slew_fall=_time(slew_fall),
    )


def _leakage_states(
    record: Mapping[str, Any], ff: FlipFlop | None
) -> Iterator[tuple[Function, float]]:
    leaks = record.get("leaks", [])
    names = _state_names(record["inputs"], ff)
    if leaks and (not names or len(leaks) != 1 << len(names)):
        raise ValueError(f"leaks must hold {1 << len(names)} states, not {len(leaks)}")
    for state, power in enumerate(leaks):
        literals = (f"{'' if state >> n & 1 else '!'}{name}" for n, name in enumerate(names))
        yield Function(" & ".join(literals)), float(power)


def _energy_arc(related: str, pin: str, numbers: Sequence[Any]) -> EnergyArc:
    table = _energy_table(numbers)
    return EnergyArc(pin=pin, related=related or None, rise=table, fall=table)


def _power_arc(
    pin: str,
    related: str,
    when: str,
    rise: Sequence[Any],
    fall: Sequence[Any],
    *,
    inputs: Container[str],
) -> PowerArc:
    read = _energy_line if pin in inputs else _energy_table
    return PowerArc(
        pin=pin,
        related=related or None,
        when=Function(when) if when else None,
        rise=read(rise),
        fall=read(fall),
    )


def _energy_table(numbers: Sequence[Any]) -> Table:
    """Energy of an output: linear in the load, or between loads."""
    if all(isinstance(number, float | int) for number in numbers):
        return _plane(numbers, _LOAD_AXIS, 1.0, FJ_PER_PJ)
    slope, *pairs = numbers
    loads = tuple(float(load) for load, _ in pairs)
    if len(loads) < 2 or any(low >= high for low, high in itertools.pairwise(loads)):
        raise ValueError(f"loads must be two or more and increase, not {loads}")
    values = tuple(
        tuple((a + slope * slew * PS_PER_NS) / FJ_PER_PJ for _, a in pairs) for slew in _SLEW_AXIS
    )
    return Table(_SLEW_AXIS, loads, values)


def _time(numbers: Sequence[float]) -> Table | None:
    return _plane(numbers, _LOAD_AXIS, 1.0, PS_PER_NS) if numbers else None


def _setup(numbers: Sequence[float]) -> Table | None:
    if not numbers:
        return None
    base, clock, data = numbers
    # Rows are the slew of the clock, columns that of the data.
    return _plane((base, data, clock), _SLEW_AXIS, PS_PER_NS, PS_PER_NS)


def _plane(
    numbers: Sequence[float], columns: tuple[float, float], column_unit: float, unit: float
) -> Table:
    """Put a + b * column + c * row into a table; rows are slews in ns, seen as ps by c."""
    a, b, c = numbers
    values = tuple(
        tuple((a + b * column * column_unit + c * row * PS_PER_NS) / unit for column in columns)
        for row in _SLEW_AXIS
    )
    return Table(_SLEW_AXIS, columns, values)


def _energy_line(numbers: Sequence[float]) -> Table:
    """Put a + c * slew into a table of one column."""
    a, c = numbers
    values = tuple(((a + c * slew * PS_PER_NS) / FJ_PER_PJ,) for slew in _SLEW_AXIS)
    return Table(_SLEW_AXIS, (0.0,), values)
