"""Delays of the cells of a mapped netlist in whole steps of time, for simulation with glitches.

Every output of a cell has three kinds of delay:

* each input reaches the function of the output after so many steps, every edge of it (transport);
* a rise of the output follows so many steps after the function has become 1, and a fall after it
  has become 0;
* a pulse of the function that ends sooner than the delay of the edge that it began with never
  shows at the output (inertial delay, as of ``assign #(rise, fall)`` in Verilog).

Delays of a library are looked up once per arc, with the load of the output and the slew of the
input.  The inertial delays of an output are the smallest of all its arcs, each input gets what its
own arcs take longer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from synth.cells import Cell, TimingArc
from synth.energy import net_slews_ns
from synth.netlist import Instance, Netlist
from synth.timing import Timing

__all__ = ["Delays", "OutputDelay", "library_delays", "unit_delays"]


@dataclass(frozen=True, kw_only=True)
class OutputDelay:
    """Delays of one output of an instance, in steps.

    Parameters
    ----------
    rise, fall : int
        From the function of the output to the output; at least 1.
    pins : mapping of str to int
        From an input to the function, where it is not 0.

    Raises
    ------
    ValueError
        If a delay is smaller.
    """

    rise: int
    fall: int
    pins: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("rise", self.rise, 1),
            ("fall", self.fall, 1),
            *((f"delay of pin {pin}", steps, 0) for pin, steps in self.pins.items()),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Delays:
    """Delays of all cells of a netlist.

    Parameters
    ----------
    outputs : mapping of (int, str) to OutputDelay
        Delays of every output by the number of the instance and the name of the pin.  Those of a
        flip-flop count from the clock edge.
    inputs : int
        Steps from the clock edge to the change of the input ports, at least 0.
    step_ns : float or None
        What one step is in ns; None if it is no time but one cell.

    Raises
    ------
    ValueError
        If ``inputs`` is negative.
    """

    outputs: Mapping[tuple[int, str], OutputDelay]
    inputs: int
    step_ns: float | None = None

    def __post_init__(self) -> None:
        if self.inputs < 0:
            raise ValueError(f"inputs must not be negative, not {self.inputs}")


def unit_delays(netlist: Netlist) -> Delays:
    """Give every cell one step; input ports change with the outputs of flip-flops."""
    one = OutputDelay(rise=1, fall=1)
    return Delays(
        outputs={
            (index, pin): one
            for index, instance in enumerate(netlist.instances)
            for pin in instance.outputs
        },
        inputs=1,
    )


def library_delays(
    netlist: Netlist,
    *,
    timing: Timing | None = None,
    step_ns: float | None = None,
    wire_cap_ff: float = 0.0,
    output_load_ff: float = 0.0,
) -> Delays:
    """Delays from the tables of the library, rounded to steps.

    Where a library has several arcs from an input to an output, for the states of other inputs,
    their mean counts.  What has no table takes the least there is.  Input ports change when the
    smallest plain flip-flop of the library would, with the load of a fan-out of four: they come
    out of registers of the same clock.

    Parameters
    ----------
    netlist : Netlist
        Netlist of library cells.
    timing : Timing, optional
        Slews of the nets; without it, every net has the library's ``fo4_slew_ns``.
    step_ns : float, optional
        Time of a step in ns; a quarter of the library's ``fo4_delay_ns`` when left out.
    wire_cap_ff : float
        Capacitance of the wire to every pin or output port on a net, in fF.
    output_load_ff : float
        Load on every output port, in fF.

    Returns
    -------
    Delays

    Raises
    ------
    ValueError
        If ``step_ns`` is not positive, or a capacitance is negative.
    """
    library = netlist.library
    if step_ns is None:
        step_ns = library.fo4_delay_ns / 4
    if not step_ns > 0:
        raise ValueError(f"step_ns must be positive, not {step_ns}")
    loads = netlist.loads_ff(wire_cap_ff=wire_cap_ff, output_load_ff=output_load_ff).tolist()
    slews = net_slews_ns(netlist, timing)
    for number in netlist.clocks:
        slews[number] = library.fo4_slew_ns
    outputs = {}
    for index, instance in enumerate(netlist.instances):
        if instance.cell is not None:
            for pin, number in instance.outputs.items():
                outputs[index, pin] = _output_delay(
                    instance.cell, instance, pin, slews, loads[number], step_ns
                )
    register = library.plain_flip_flops[0]
    edges = _edges(
        (arc for arc in register.arcs if arc.pin == register.outputs[0]),
        library.fo4_slew_ns,
        library.fo4_load_ff,
    )
    return Delays(
        outputs=outputs,
        inputs=round(sum(edges) / len(edges) / step_ns) if edges else 1,
        step_ns=step_ns,
    )


def _output_delay(
    cell: Cell, instance: Instance, pin: str, slews: list[float], load_ff: float, step_ns: float
) -> OutputDelay:
    found = {}
    for related, number in instance.inputs.items():
        arcs = [arc for arc in cell.arcs if (arc.pin, arc.related) == (pin, related)]
        edges = _edges(arcs, slews[number], load_ff)
        if edges:
            found[related] = edges
    if not found:
        return OutputDelay(rise=1, fall=1)
    if cell.ff is not None and cell.ff.clock in found:
        rise_ns, fall_ns = found.pop(cell.ff.clock)
    else:
        rise_ns = min(rise for rise, _ in found.values())
        fall_ns = min(fall for _, fall in found.values())
    rise, fall = max(1, round(rise_ns / step_ns)), max(1, round(fall_ns / step_ns))
    pins = {
        related: steps
        for related, edges in found.items()
        # Both roundings together are off by half a step at most.
        if (steps := round((sum(edges) / step_ns - rise - fall) / 2)) > 0
    }
    return OutputDelay(rise=rise, fall=fall, pins=pins)


def _edges(arcs: Iterable[TimingArc], slew_ns: float, load_ff: float) -> tuple[float, ...]:
    """Mean delay in ns of a rising and of a falling output, the same if one has no table."""
    rises: list[float] = []
    falls: list[float] = []
    for arc in arcs:
        for table, values in ((arc.delay_rise, rises), (arc.delay_fall, falls)):
            if table is not None:
                values.append(table.value(slew_ns, load_ff))
    if not rises and not falls:
        return ()
    rise = sum(rises) / len(rises) if rises else sum(falls) / len(falls)
    fall = sum(falls) / len(falls) if falls else rise
    return rise, fall
