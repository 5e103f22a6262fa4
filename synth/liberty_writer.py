"""Writing of Liberty text from the cells of a library, for Yosys, ABC and timing tools.

The units are those of :mod:`synth.cells`, except that Liberty has no unit of energy of its own:
load times voltage squared, here fJ.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the cells offer this writer as a method
    from synth.cells import Cell, CellLibrary, ClockGate, Pin, Table

__all__ = ["write_liberty"]

FJ_PER_PJ = 1e3

#: What the two variables of a table are, by the use that is made of it.
VARIABLES = {
    "delay": ("lu_table_template", "input_net_transition", "total_output_net_capacitance"),
    "setup": ("lu_table_template", "related_pin_transition", "constrained_pin_transition"),
    "power": ("power_lut_template", "input_transition_time", "total_output_net_capacitance"),
}

#: Name of the latch in a clock gate.
LATCH = "IQ"

SENSES = {"positive": "positive_unate", "negative": "negative_unate", "either": "non_unate"}


def write_liberty(library: "CellLibrary") -> str:
    """Write a library as Liberty text.

    Parameters
    ----------
    library : CellLibrary
        Library to write; all of its cells are.

    Returns
    -------
    str
        The text; the same for equal libraries.
    """
    writer = _Writer()
    cells = [line for cell in library.cells.values() for line in writer.cell(cell)]
    head = [
        # A name may hold anything; those of cells and pins are identifiers.
        f'library ("{re.sub(r"[^A-Za-z0-9_.-]", "_", library.name)}") {{',
        "  delay_model : table_lookup;",
        '  time_unit : "1ns";',
        '  voltage_unit : "1V";',
        '  current_unit : "1mA";',
        '  pulling_resistance_unit : "1kohm";',
        '  leakage_power_unit : "1nW";',
        "  capacitive_load_unit (1, ff);",
        "  nom_process : 1;",
        f"  nom_voltage : {library.voltage_v:g};",
        f"  nom_temperature : {library.temperature_c:g};",
        # Tools that report power take the supply from here.
        "  operating_conditions (corner) {",
        "    process : 1;",
        f"    voltage : {library.voltage_v:g};",
        f"    temperature : {library.temperature_c:g};",
        "  }",
        "  default_operating_conditions : corner;",
    ]
    points = ("input_threshold", "output_threshold", "slew_lower_threshold", "slew_upper_threshold")
    for point, percent in zip(points, library.thresholds_pct, strict=True):
        head += [f"  {point}_pct_{edge} : {percent:g};" for edge in ("rise", "fall")]
    if library.max_slew_ns is not None:
        head.append(f"  default_max_transition : {library.max_slew_ns:.6g};")
    return "\n".join([*head, *writer.templates(), *cells, "}", ""])


class _Writer:
    """Collects the table templates that the cells need while it writes them."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, tuple[float, ...], tuple[float, ...]], str] = {}

    def templates(self) -> Iterator[str]:
        """Lines of all templates in the order of their first use."""
        for (use, rows, columns), name in self._templates.items():
            kind, row, column = VARIABLES[use]
            yield f"  {kind} ({name}) {{"
            axes = [(row, rows), (column, columns)]
            # A variable without influence is left out; Liberty wants at least one.
            used = [axis for axis in axes if len(axis[1]) > 1] or axes[:1]
            for number, (variable, grid) in enumerate(used, start=1):
                yield f"    variable_{number} : {variable};"
                yield f"    index_{number} ({_quoted(grid)});"
            yield "  }"

    def cell(self, cell: "Cell") -> Iterator[str]:
        """Lines of one cell."""
        yield f'  cell ("{cell.name}") {{'
        yield f"    area : {cell.area_um2:.6g};"
        yield f"    cell_leakage_power : {cell.leakage_nw:.6g};"
        for condition, power in cell.leakage_states:
            yield f'    leakage_power () {{ when : "{condition}"; value : {power:.6g}; }}'
        if cell.clock_gate is not None:
            yield from _latch(cell.clock_gate)
        if cell.ff is not None:
            yield f'    ff ("{cell.ff.state}", "{cell.ff.inverted_state}") {{'
            inversion = "" if cell.ff.clock_edge == "rising" else "!"
            yield f'      clocked_on : "{inversion}{cell.ff.clock}";'
            yield f'      next_state : "{cell.ff.next_state}";'
            for key in ("clear", "preset"):
                function = getattr(cell.ff, key)
                if function is not None:
                    yield f'      {key} : "{function}";'
            yield "    }"
        for pin in cell.pins.values():
            yield f'    pin ("{pin.name}") {{'
            yield f"      direction : {pin.direction};"
            yield from (
                self._input(cell, pin) if pin.direction == "input" else self._output(cell, pin)
            )
            yield "    }"
        yield "  }"

    def _input(self, cell: "Cell", pin: "Pin") -> Iterator[str]:
        yield f"      capacitance : {pin.cap_ff:.6g};"
        yield f"      rise_capacitance : {pin.rise_cap_ff:.6g};"
        yield f"      fall_capacitance : {pin.fall_cap_ff:.6g};"
        if pin.is_clock:
            yield "      clock : true;"
        gate = cell.clock_gate
        if gate is not None:
            roles = {gate.clock: "clock", gate.enable: "enable"}
            yield f"      clock_gate_{roles.get(pin.name, 'test')}_pin : true;"
        for arc in cell.setups:
            if arc.pin != pin.name:
                continue
            yield "      timing () {"
            yield f'        related_pin : "{arc.related}";'
            yield f"        timing_type : setup_{cell.ff.clock_edge if cell.ff else 'rising'};"
            yield from self._tables(
                "setup", {"rise_constraint": arc.rise, "fall_constraint": arc.fall}
            )
            yield "      }"
        if cell.powers:
            yield from self._powers(cell, pin)
            return
        passive = cell.passive.get(pin.name)
        if passive is not None:
            yield from self._power({}, passive, passive)
        if pin.is_clock and cell.clock_idle is not None and cell.clock_active is not None:
            changes = _change_condition(cell)
            # The energy of a period is that of two edges.
            idle, active = cell.clock_idle.scaled(0.5), cell.clock_active.scaled(0.5)
            if gate is not None:
                yield from self._power({"when": f"!{gate.enable}"}, idle, idle)
                yield from self._power({"when": gate.enable}, active, active)
            elif changes is None:
                yield from self._power({}, idle, idle)
            else:
                yield from self._power({"when": f"!({changes})"}, idle, idle)
                yield from self._power({"when": changes}, active, active)

    def _output(self, cell: "Cell", pin: "Pin") -> Iterator[str]:
        if cell.clock_gate is None:
            yield f'      function : "{pin.function}";'
        else:
            yield f'      state_function : "({cell.clock_gate.clock} & {LATCH})";'
            yield "      clock_gate_out_pin : true;"
        if pin.max_cap_ff is not None:
            yield f"      max_capacitance : {pin.max_cap_ff:.6g};"
        for arc in cell.arcs:
            if arc.pin != pin.name:
                continue
            yield "      timing () {"
            yield f'        related_pin : "{arc.related}";'
            if arc.sense in SENSES:
                yield f"        timing_sense : {SENSES[arc.sense]};"
            else:
                yield f"        timing_type : {arc.sense}_edge;"
            delays = {
                "cell_rise": arc.delay_rise,
                "cell_fall": arc.delay_fall,
                "rise_transition": arc.slew_rise,
                "fall_transition": arc.slew_fall,
            }
            yield from self._tables("delay", delays)
            yield "      }"
        if cell.powers:
            yield from self._powers(cell, pin)
            return
        for energy in cell.energies:
            if energy.pin == pin.name:
                related = {} if energy.related is None else {"related_pin": energy.related}
                yield from self._power(related, energy.rise, energy.fall)

    def _powers(self, cell: "Cell", pin: "Pin") -> Iterator[str]:
        for arc in cell.powers:
            if arc.pin == pin.name:
                related = {} if arc.related is None else {"related_pin": arc.related}
                when = {} if arc.when is None else {"when": str(arc.when)}
                yield from self._power(related | when, arc.rise, arc.fall)

    def _power(self, attributes: Mapping[str, str], rise: "Table", fall: "Table") -> Iterator[str]:
        yield "      internal_power () {"
        for key, value in attributes.items():
            yield f'        {key} : "{value}";'
        tables = {"rise_power": rise.scaled(FJ_PER_PJ), "fall_power": fall.scaled(FJ_PER_PJ)}
        yield from self._tables("power", tables)
        yield "      }"

    def _tables(self, use: str, tables: "Mapping[str, Table | None]") -> Iterator[str]:
        for kind, table in tables.items():
            if table is None:
                continue
            if len(table.rows) == len(table.columns) == 1:
                yield f'        {kind} (scalar) {{ values ("{table.values[0][0]:.6g}"); }}'
                continue
            template = self._templates.setdefault(
                (use, table.rows, table.columns), f"{use}_{len(self._templates)}"
            )
            rows = table.values
            if len(table.columns) == 1:
                rows = (tuple(row[0] for row in rows),)
            values = ", ".join(_quoted(row) for row in rows)
            yield f"        {kind} ({template}) {{ values ({values}); }}"


def _latch(gate: "ClockGate") -> Iterator[str]:
    """Lines of what holds the enable of a clock gate; a test input is as good as the enable."""
    kind = "latch_posedge_precontrol" if gate.tests else "latch_posedge"
    enables = (gate.enable, *gate.tests)
    rows = [
        " ".join(["L", *states, ":", "-", ":", "H" if "H" in states else "L"])
        for states in itertools.product("LH", repeat=len(enables))
    ]
    rows.append(" ".join(["H", *("-" for _ in enables), ": - : N"]))
    yield f"    clock_gating_integrated_cell : {kind};"
    yield f'    statetable ("{" ".join((gate.clock, *enables))}", "{LATCH}") {{'
    yield f'      table : "{", ".join(rows)}";'
    yield "    }"
    yield f"    pin ({LATCH}) {{ direction : internal; internal_node : {LATCH}; }}"


def _quoted(numbers: Iterable[float]) -> str:
    return '"' + ", ".join(f"{number:.6g}" for number in numbers) + '"'


def _change_condition(cell: "Cell") -> str | None:
    """Condition on the pins of a flip-flop under which the next clock changes its state."""
    if cell.ff is None:
        return None
    for pin in cell.pins.values():
        if pin.function is None:
            continue
        inverted = str(pin.function) == cell.ff.inverted_state
        if inverted or str(pin.function) == cell.ff.state:
            held = f"(!{pin.name})" if inverted else pin.name
            names = {cell.ff.state: held, cell.ff.inverted_state: f"(!{held})"}
            return f"{cell.ff.next_state.renamed(names)} ^ {held}"
    return None
