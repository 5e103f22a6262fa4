"""Static timing of a mapped netlist: the longest path, cell by cell.

Arrival times and slews go through the netlist separately for rising and falling edges; where
several inputs can make an output change, the latest arrival and the slowest slew of any of them
go on, as in the usual timing tools.  The load of a net is the capacitance of the pins on it and,
where asked for, so much of wire per pin.  There is one ideal clock: it reaches every flip-flop and
every clock gate at time 0 with the same slew, also behind a gate, inputs change at time 0, and
outputs, flip-flops and clock gates are awaited at the end of the period.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from synth.cells import Cell, CellLibrary, Table, TimingArc

__all__ = [
    "EDGES",
    "End",
    "Event",
    "Events",
    "Nets",
    "Path",
    "PathStep",
    "Timing",
    "analyse",
    "ends",
    "propagate",
    "steps",
]

EDGES = ("rise", "fall")


@dataclass(frozen=True, kw_only=True)
class PathStep:
    """One cell that a path goes through.

    Parameters
    ----------
    instance, cell : str
        Name of the instance and of its library cell; both empty for an input port.
    from_pin, pin : str
        Input and output pin; ``pin`` alone, the name of the port, for an input port.
    edge : str
        ``"rise"`` or ``"fall"`` of the output.
    delay_ns, arrival_ns : float
        Delay of this cell, and time at which its output changes.
    slew_ns : float
        Slew of the output.
    load_ff : float
        Load of the output for this edge.
    fanout : int
        Pins and output ports on the output.
    net : str
        Bit of a named signal of the design that the output is; empty if it is none.
    """

    instance: str
    cell: str
    from_pin: str
    pin: str
    edge: str
    delay_ns: float
    arrival_ns: float
    slew_ns: float
    load_ff: float
    fanout: int
    net: str = ""


@dataclass(frozen=True, kw_only=True)
class Path:
    """A path from an input or a flip-flop to an output or a flip-flop.

    Parameters
    ----------
    kind : str
        ``"input to register"``, ``"register to register"``, ``"register to output"`` or
        ``"input to output"``.
    steps : tuple of PathStep
        Cells in the order of the signal.
    endpoint : str
        Output bit, such as ``"y[3]"``, or instance and pin of a flip-flop, such as ``"acc/D"``.
    setup_ns : float
        Setup time at the end; 0 at an output.
    endpoint_net : str
        Bit of a named signal that the flip-flop at the end holds; empty if it is none.
    """

    kind: str
    steps: tuple[PathStep, ...]
    endpoint: str
    setup_ns: float
    endpoint_net: str = ""

    @property
    def delay_ns(self) -> float:
        """Time from the clock edge to the end of the path, setup time included, in ns."""
        return self.steps[-1].arrival_ns + self.setup_ns

    def table(self) -> str:
        """Lay the path out as text: one line per cell, times in ns, loads in fF."""
        lines = [f"{'delay':>8} {'arrival':>8} {'slew':>8} {'load':>8}  "]
        for step in self.steps:
            what = f"{step.instance}/{step.pin} ({step.cell})" if step.cell else f"{step.pin} (in)"
            lines.append(
                f"{step.delay_ns:8.4f} {step.arrival_ns:8.4f} {step.slew_ns:8.4f} "
                f"{step.load_ff:8.3f}  {'^' if step.edge == 'rise' else 'v'} {what}"
                + (f"  {step.net}" if step.cell and step.net else "")
            )
        if self.setup_ns:
            lines.append(f"{self.setup_ns:8.4f} {self.delay_ns:8.4f} {'':17}    setup")
        net = f"  {self.endpoint_net}" if self.endpoint_net else ""
        lines.append(f"{'':8} {self.delay_ns:8.4f} {'':17}    {self.endpoint}{net}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Result of :func:`analyse`.

    Parameters
    ----------
    paths : dict of str to Path
        Longest path of each kind that the netlist has.
    load_ff : dict of int to float
        Load of every net by its number, mean of both edges.
    slew_ns : dict of int to float
        Slew of every net that can change by its number, mean of both edges.
    """

    paths: dict[str, Path]
    load_ff: dict[int, float]
    slew_ns: dict[int, float]

    @property
    def critical_path(self) -> Path | None:
        """Longest of all paths; None when nothing depends on an input or a flip-flop."""
        return max(self.paths.values(), key=lambda path: path.delay_ns, default=None)

    @property
    def critical_path_ns(self) -> float:
        """Smallest clock period in ns."""
        path = self.critical_path
        return 0.0 if path is None else path.delay_ns

    @property
    def max_frequency_mhz(self) -> float:
        """Largest clock frequency in MHz; infinite when no path takes time."""
        return 1e3 / self.critical_path_ns if self.critical_path_ns > 0 else float("inf")

    def slack_ns(self, clock_ns: float) -> float:
        """Time in ns that a clock of this period leaves; negative when it is too fast."""
        return clock_ns - self.critical_path_ns


def analyse(
    module: Mapping[str, Any],
    library: CellLibrary,
    *,
    input_slew_ns: float | None = None,
    clock_slew_ns: float | None = None,
    output_load_ff: float = 0.0,
    wire_cap_ff: float = 0.0,
) -> Timing:
    """Find the longest paths of a flat mapped netlist with one clock.

    Parameters
    ----------
    module : mapping
        Module as Yosys' ``write_json`` gives it: ``ports``, ``cells`` and, for the names of nets,
        ``netnames``.
    library : CellLibrary
        Library that the netlist is mapped to.
    input_slew_ns, clock_slew_ns : float, optional
        Slew of every input and of the clock at every flip-flop, in ns; the library's
        ``fo4_slew_ns`` when left out.
    output_load_ff : float
        Load on every output port in fF.
    wire_cap_ff : float
        Capacitance of the wire to every pin or output port on a net, in fF.

    Returns
    -------
    Timing
        Longest path of each kind, and loads and slews of the nets.

    Raises
    ------
    ValueError
        If a cell or one of its pins is not of the library, a net has two drivers, gates form a
        loop, flip-flops do not share one clock input or one of them is clocked by the falling
        edge, or a parameter is negative.
    """
    given = {
        "input_slew_ns": library.fo4_slew_ns if input_slew_ns is None else input_slew_ns,
        "clock_slew_ns": library.fo4_slew_ns if clock_slew_ns is None else clock_slew_ns,
        "output_load_ff": output_load_ff,
        "wire_cap_ff": wire_cap_ff,
    }
    for name, value in given.items():
        if not value >= 0.0:
            raise ValueError(f"{name} must not be negative, not {value}")
    nets = Nets(module, library)
    nets.require_one_clock()
    loads = nets.net_loads(output_load_ff, wire_cap_ff)
    events: Events = {
        bit: {edge: Event(given["input_slew_ns"], {"input": (0.0, None)}) for edge in EDGES}
        for bit in nets.inputs
    }
    propagate(nets, loads, events, given["clock_slew_ns"])
    return Timing(
        paths=_longest_paths(nets, loads, events, given["clock_slew_ns"]),
        load_ff={bit: sum(load) / 2 for bit, load in loads.items()},
        slew_ns={
            bit: sum(event.slew for event in by_edge.values()) / len(by_edge)
            for bit, by_edge in events.items()
            if by_edge
        },
    )


class Nets:
    """The netlist by nets: what drives each, what loads it, and an order to visit the cells in."""

    def __init__(self, module: Mapping[str, Any], library: CellLibrary) -> None:
        self.cells: dict[str, Cell] = {}
        self.pins: dict[str, dict[str, int]] = {}
        self.drivers: dict[int, str] = {}
        self.loads: dict[int, list[tuple[str, str]]] = {}
        self.inputs: dict[int, str] = {}
        self.outputs: list[tuple[str, int]] = []
        self.fanout: dict[int, int] = {}
        for name, port in module["ports"].items():
            for index, bit in enumerate(port["bits"]):
                label = f"{name}[{index}]" if len(port["bits"]) > 1 else name
                if port["direction"] == "inout":
                    raise ValueError(f"port {name} must be an input or an output, not an inout")
                if port["direction"] == "input":
                    self.inputs[bit] = self.drivers[bit] = label
                elif isinstance(bit, int):
                    self.outputs.append((label, bit))
        for name, instance in module["cells"].items():
            self._add(name, instance, library)
        self.order = self._sorted()
        self.places = {name: place for place, name in enumerate(self.order)}
        self.names: dict[int, str] = {}
        for name, entry in module.get("netnames", {}).items():
            if not entry.get("hide_name"):
                self._name(name, entry["bits"])

    def _add(self, name: str, instance: Mapping[str, Any], library: CellLibrary) -> None:
        cell = library.cells.get(instance["type"])
        if cell is None:
            raise ValueError(
                f"cell {name} must be of library {library.name}, not {instance['type']!r}"
            )
        self.cells[name] = cell
        self.pins[name] = {}
        for pin, bits in instance["connections"].items():
            if pin not in cell.pins:
                raise ValueError(f"cell {name} must have pins of {cell.name} only, not {pin!r}")
            for bit in bits:
                if not isinstance(bit, int):
                    continue  # a constant never changes
                self.pins[name][pin] = bit
                if cell.pins[pin].direction == "input":
                    self.loads.setdefault(bit, []).append((name, pin))
                elif bit in self.drivers:
                    raise ValueError(
                        f"net of {name}/{pin} must have one driver, not also {self.drivers[bit]}"
                    )
                else:
                    self.drivers[bit] = f"{name}/{pin}"

    def _name(self, name: str, bits: Sequence[int | str]) -> None:
        """Name the bits of a signal; of several names of a net, the shortest stays."""
        for index, bit in enumerate(bits):
            label = f"{name}[{index}]" if len(bits) > 1 else name
            if isinstance(bit, int) and len(label) < len(self.names.get(bit, label + " ")):
                self.names[bit] = label

    def register_name(self, name: str) -> str:
        """Named bit that an output of a flip-flop is; empty if it is none."""
        found = (self.names.get(self.pins[name].get(pin, -1)) for pin in self.cells[name].outputs)
        return next((label for label in found if label), "")

    def _sorted(self) -> list[str]:
        """Instances such that the drivers of a gate come before it; clocked cells wait for none."""
        waiting = {
            name: 0
            if _is_clocked(cell)
            else sum(
                self.pins[name].get(pin) in self.drivers and self.pins[name][pin] not in self.inputs
                for pin in cell.inputs
            )
            for name, cell in self.cells.items()
        }
        ready = [name for name, count in waiting.items() if not count]
        for name in ready:  # grows while it is walked
            for pin in self.cells[name].outputs:
                for load, _ in self.loads.get(self.pins[name].get(pin, -1), ()):
                    if not _is_clocked(self.cells[load]):
                        waiting[load] -= 1
                        if not waiting[load]:
                            ready.append(load)
        if len(ready) < len(self.cells):
            stuck = next(name for name, count in waiting.items() if count)
            raise ValueError(f"netlist must have no loop of gates, not one that reaches {stuck}")
        return ready

    def require_one_clock(self) -> None:
        """Refuse flip-flops whose clock is not one and the same input, or the wrong edge of it."""
        clocks: dict[int | None, str] = {}
        gated = {
            self.pins[name].get(cell.clock_gate.output)
            for name, cell in self.cells.items()
            if cell.clock_gate is not None
        }
        for name, cell in self.cells.items():
            if cell.clock_gate is not None:
                clocks.setdefault(self.pins[name].get(cell.clock_gate.clock), name)
            if cell.ff is None:
                continue
            if cell.ff.clock_edge != "rising":
                raise ValueError(f"flip-flop {name} must be clocked by the rising edge")
            if (clock := self.pins[name].get(cell.ff.clock)) not in gated:
                clocks.setdefault(clock, name)
        for bit, name in clocks.items():
            if bit not in self.inputs:
                raise ValueError(f"clock of flip-flop {name} must be an input of the module")
        if len(clocks) > 1:
            names = ", ".join(sorted(self.inputs[bit] for bit in clocks if bit is not None))
            raise ValueError(f"netlist must have one clock, not {names}")

    def net_loads(
        self, output_load_ff: float, wire_cap_ff: float
    ) -> dict[int, tuple[float, float]]:
        """Load of every net in fF for a rising and a falling edge."""
        ports: dict[int, int] = {}
        for _, bit in self.outputs:
            ports[bit] = ports.get(bit, 0) + 1
        self.fanout = {
            bit: len(self.loads.get(bit, ())) + ports.get(bit, 0)
            for bit in (*self.drivers, *self.loads)
        }
        result = {}
        for bit, fanout in self.fanout.items():
            pins = [self.cells[name].pins[pin] for name, pin in self.loads.get(bit, ())]
            extra = wire_cap_ff * fanout + output_load_ff * ports.get(bit, 0)
            rise = sum(pin.rise_cap_ff for pin in pins) + extra
            fall = sum(pin.fall_cap_ff for pin in pins) + extra
            result[bit] = (rise, fall)
        return result


#: Why an edge is as late as it is: instance, input pin, output pin, edge of the input, delay.
Cause = tuple[str, str, str, str, float]


@dataclass(slots=True)
class Event:
    """One edge of a net: how slow it is at most, and when it comes at the latest.

    ``latest`` maps where a path starts, ``"input"`` or ``"register"``, to the time and its cause;
    an input port has no cause.
    """

    slew: float
    latest: dict[str, tuple[float, Cause | None]]


#: Events of every net by edge; a net that is not in it never changes.
Events = dict[int, dict[str, Event]]


def propagate(
    nets: Nets,
    loads: Mapping[int, tuple[float, float]],
    events: Events,
    clock_slew_ns: float,
    changed: set[int] | None = None,
) -> set[int]:
    """Let the events of inputs and registers go through a netlist.

    Parameters
    ----------
    nets : Nets
        The netlist.
    loads : mapping of int to (float, float)
        Load of every net for a rising and a falling edge.
    events : dict
        Those of the inputs; all others are added, or become later.
    clock_slew_ns : float
        Slew of the clock.
    changed : set of int, optional
        Nets whose events have changed since the last time; without it, this is the first time.

    Returns
    -------
    set of int
        All nets whose events have changed.
    """
    clock = {"rise": Event(clock_slew_ns, {"register": (0.0, None)})}
    first = changed is None
    changed = set(events) if changed is None else set(changed)
    # Many cells of one kind have the same loads: registers, and what is before them.
    looked_up: dict[tuple[int, int, float, float], tuple[float, float]] = {}
    for name in nets.order if first else _behind(nets, changed):
        cell, pins = nets.cells[name], nets.pins[name]
        if cell.clock_gate is not None:
            continue  # the clock is ideal behind it, too
        if cell.ff is None and first and changed.isdisjoint(pins.values()):
            continue
        for arc in cell.arcs:
            if arc.pin not in pins or arc.related not in pins:
                continue
            before = events.get(pins[arc.related], {}) if cell.ff is None else clock
            after = events.setdefault(pins[arc.pin], {})
            for edge, load in zip(EDGES, loads[pins[arc.pin]], strict=True):
                delay_table, slew_table = _tables(arc, edge)
                if delay_table is None or slew_table is None:
                    continue
                for from_edge, event in before.items():
                    if not _passes(arc.sense, from_edge, edge):
                        continue
                    place = id(delay_table), id(slew_table), event.slew, load
                    if place not in looked_up:
                        looked_up[place] = (
                            delay_table.value(event.slew, load),
                            slew_table.value(event.slew, load),
                        )
                    delay, slew = looked_up[place]
                    target = after.setdefault(edge, Event(0.0, {}))
                    if slew > target.slew:
                        target.slew = slew
                        changed.add(pins[arc.pin])
                    cause = (name, arc.related, arc.pin, from_edge, delay)
                    for start, (time, _) in event.latest.items():
                        known = target.latest.get(start)
                        if known is None or time + delay > known[0]:
                            target.latest[start] = (time + delay, cause)
                            changed.add(pins[arc.pin])
    return changed


def _behind(nets: Nets, changed: set[int]) -> Iterator[str]:
    """Visit the gates with an input in ``changed``, which may grow by their outputs, in order."""
    # Places in the order, smallest first; a gate is there once for each of its inputs.
    waiting: list[int] = []

    def add(bit: int) -> None:
        for name, _ in nets.loads.get(bit, ()):
            if not _is_clocked(nets.cells[name]):
                heappush(waiting, nets.places[name])

    for bit in changed:
        add(bit)
    last = -1
    while waiting:
        place = heappop(waiting)
        if place != last:
            last, name = place, nets.order[place]
            yield name
            for pin in nets.cells[name].outputs:
                if nets.pins[name].get(pin) in changed:
                    add(nets.pins[name][pin])


def _is_clocked(cell: Cell) -> bool:
    """Whether the outputs of a cell change with the clock alone."""
    return cell.ff is not None or cell.clock_gate is not None


def _tables(arc: TimingArc, edge: str) -> tuple[Table | None, Table | None]:
    if edge == "rise":
        return arc.delay_rise, arc.slew_rise
    return arc.delay_fall, arc.slew_fall


def _passes(sense: str, from_edge: str, edge: str) -> bool:
    """Whether an edge of an input makes this edge of the output."""
    if sense == "positive":
        return from_edge == edge
    if sense == "negative":
        return from_edge != edge
    return True


def _longest_paths(
    nets: Nets,
    loads: Mapping[int, tuple[float, float]],
    events: Events,
    clock_slew_ns: float,
) -> dict[str, Path]:
    """Find the longest path of each kind."""
    longest: dict[str, tuple[float, End]] = {}
    for end in ends(nets, events, clock_slew_ns):
        for start, (time, _) in events[end.bit][end.edge].latest.items():
            kind = f"{start} to {end.kind}"
            if kind not in longest or time + end.setup_ns > longest[kind][0]:
                longest[kind] = (time + end.setup_ns, end)
    return {
        kind: Path(
            kind=kind,
            steps=steps(nets, loads, events, end, kind.split()[0]),
            endpoint=end.label,
            setup_ns=end.setup_ns,
            endpoint_net=nets.register_name(end.instance) if end.instance else "",
        )
        for kind, (_, end) in sorted(longest.items())
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """An edge of a net that is awaited by an output or a flip-flop."""

    kind: str
    bit: int
    edge: str
    label: str
    setup_ns: float
    instance: str = ""


def ends(nets: Nets, events: Events, clock_slew_ns: float) -> Iterator[End]:
    """Find all edges that are awaited at the end of a period."""
    for label, bit in nets.outputs:
        for edge in events.get(bit, {}):
            yield End(kind="output", bit=bit, edge=edge, label=label, setup_ns=0.0)
    for name, cell in nets.cells.items():
        for arc in cell.setups:
            bit = nets.pins[name].get(arc.pin, -1)
            for edge, event in events.get(bit, {}).items():
                table = arc.rise if edge == "rise" else arc.fall
                if table is not None:
                    setup = table.value(clock_slew_ns, event.slew)
                    label = f"{name}/{arc.pin}"
                    yield End(
                        kind="register",
                        bit=bit,
                        edge=edge,
                        label=label,
                        setup_ns=setup,
                        instance=name,
                    )


def steps(
    nets: Nets,
    loads: Mapping[int, tuple[float, float]],
    events: Events,
    end: End,
    start: str,
) -> tuple[PathStep, ...]:
    """Walk back from the end of a path to its start, along the latest arrivals."""
    steps = []
    bit, edge = end.bit, end.edge
    while True:
        event = events[bit][edge]
        arrival, cause = event.latest[start]
        name, from_pin, pin, from_edge, delay = cause or ("", "", nets.inputs[bit], edge, 0.0)
        steps.append(
            PathStep(
                instance=name,
                cell=nets.cells[name].name if cause else "",
                from_pin=from_pin,
                pin=pin,
                edge=edge,
                delay_ns=delay,
                arrival_ns=arrival,
                slew_ns=event.slew,
                load_ff=loads[bit][EDGES.index(edge)],
                fanout=nets.fanout[bit],
                net=nets.names.get(bit, ""),
            )
        )
        if cause is None or nets.cells[name].ff is not None:
            return tuple(reversed(steps))
        bit, edge = nets.pins[name][from_pin], from_edge
