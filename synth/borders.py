"""Timing of hardware that is mapped unit by unit, across the borders of its units.

Each distinct unit is analysed once, with all its instances in mind: inputs come as late and as slow
as at any of them, outputs are loaded as at the one with the largest load.  What comes to an input
goes on to the outputs that depend on it and to the units behind them, until nothing gets later.
So no instance of a unit may feed another one of the same unit within a cycle.

Signals that go to many units, such as those that move the results of an array, would be buffered
in a flow.  Beyond :data:`MAX_SINKS` units, a net is taken to drive four of them, and the others
through levels of inverters with a fan-out of four, in pairs.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from synth.cells import CellLibrary
from synth.timing import EDGES, End, Event, Events, Nets, Path, ends, propagate, steps

__all__ = ["MAX_SINKS", "UnitPath", "longest_paths"]

#: Most units that a net between units drives without buffers.
MAX_SINKS = 16
#: Fan-out of the inverters of a tree.
TREE = 4

#: Most times that a unit is looked at; more say that units form a loop within a cycle.
MAX_ROUNDS = 100


@dataclass(frozen=True, kw_only=True)
class UnitPath:
    """A path through one unit or several.

    Attributes
    ----------
    units : tuple of str
        Units in the order of the signal.
    parts : tuple of Path
        What is in each of them; times count from the last part's end, and buffers between two units
        are part of the input of the second.
    """

    units: tuple[str, ...]
    parts: tuple[Path, ...]

    @property
    def delay_ns(self) -> float:
        """Time from the clock edge to the end of the path, setup time included, in ns."""
        return sum(part.delay_ns for part in self.parts)


def longest_paths(
    wiring: Mapping[str, Any],
    units: Mapping[str, Mapping[str, Any]],
    library: CellLibrary,
    *,
    counts: Mapping[str, int] | None = None,
    input_slew_ns: float | None = None,
    clock_slew_ns: float | None = None,
    output_load_ff: float = 0.0,
    wire_cap_ff: float = 0.0,
    max_sinks: float = MAX_SINKS,
) -> list[UnitPath]:
    """Find the longest path that ends in each unit, longest first.

    Parameters
    ----------
    wiring : mapping
        Units and what connects them, see `synth.flat.unit_wiring`.
    units : mapping of str to mapping
        Each of them by the name of its module, in the JSON of Yosys.
    library : CellLibrary
        Cells.
    counts : mapping of str to int, optional
        Instances of units in hardware of which the wiring is a small example.  A net that goes to
        all of its instances in the wiring goes to all of these.
    input_slew_ns, clock_slew_ns, output_load_ff, wire_cap_ff
        As in `synth.timing.analyse`; inputs and outputs are those of the whole.
    max_sinks : float
        Most inputs of units on a net without buffers.

    Raises
    ------
    ValueError
        If units depend on one another in a loop within a cycle.
    """
    slew_ns = library.fo4_slew_ns
    hardware = _Hardware(
        library, slew_ns if clock_slew_ns is None else clock_slew_ns, wire_cap_ff, max_sinks
    )
    hardware.connect(wiring, units, counts or {}, output_load_ff)
    hardware.settle(slew_ns if input_slew_ns is None else input_slew_ns)
    return sorted(hardware.paths(), key=lambda path: -path.delay_ns)


#: A unit, and a net of its netlist.
_Pin = tuple[str, int]


@dataclass(kw_only=True)
class _Unit:
    """A distinct unit, with all its instances in mind."""

    nets: Nets
    loads: dict[int, tuple[float, float]]
    events: Events = field(default_factory=dict)
    rounds: int = 0
    #: Inputs that have become later since the unit was looked at; None before the first time.
    later: set[int] | None = None
    #: What makes an edge of an input the latest: an output of a unit, and the buffers behind it.
    causes: dict[tuple[int, str], tuple[_Pin, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Link:
    """Where an output of a unit goes to in one of its instances."""

    sinks: Mapping[_Pin, int]
    ports: int

    @property
    def total(self) -> int:
        """Inputs of units."""
        return sum(self.sinks.values())


class _Hardware:
    """Units and what connects them."""

    def __init__(
        self, library: CellLibrary, clock_slew_ns: float, wire_cap_ff: float, max_sinks: float
    ) -> None:
        self.library = library
        self.clock_slew_ns = clock_slew_ns
        self.wire_cap_ff = wire_cap_ff
        self.max_sinks = max_sinks
        self.modules: dict[str, Mapping[str, Any]] = {}
        self.units: dict[str, _Unit] = {}
        self.links: dict[_Pin, list[_Link]] = {}
        self.entering: set[_Pin] = set()

    def connect(
        self,
        wiring: Mapping[str, Any],
        units: Mapping[str, Mapping[str, Any]],
        counts: Mapping[str, int],
        output_load_ff: float,
    ) -> None:
        """Read what is connected to what, and find the loads of all nets."""
        modules = self.modules = dict(units)
        drivers: dict[int, _Pin] = {}
        sinks: dict[int, Counter[_Pin]] = {}
        placed: Counter[str] = Counter()
        for name, cell in wiring["cells"].items():
            kind = cell["type"]
            if kind not in units:
                if "input" not in cell["port_directions"].values():
                    continue  # a constant never changes
                # A gate between units.
                kind = name
                modules[kind] = _alone(cell)
            placed[kind] += 1
            for port, bits in cell["connections"].items():
                entry = modules[kind]["ports"][port]
                # Of a unit whose width follows that of the whole, the small example has a part.
                for bit, inner in zip(bits, entry["bits"], strict=False):
                    if isinstance(bit, str) or isinstance(inner, str):
                        continue
                    if entry["direction"] == "output":
                        drivers[bit] = (kind, inner)
                    else:
                        sinks.setdefault(bit, Counter())[kind, inner] += 1
        ports: Counter[int] = Counter()
        for entry in wiring["ports"].values():
            for bit in entry["bits"]:
                if entry["direction"] == "output":
                    ports[bit] += 1
                else:
                    self.entering |= sinks.get(bit, {}).keys()
        for bit, driver in drivers.items():
            found = {
                pin: counts.get(pin[0], count) if count == placed[pin[0]] else count
                for pin, count in sinks.get(bit, {}).items()
            }
            self.links.setdefault(driver, []).append(_Link(sinks=found, ports=ports[bit]))
        for kind in placed:
            nets = Nets(modules[kind], self.library)
            nets.require_one_clock()
            nets.outputs = []
            loads = nets.net_loads(0.0, self.wire_cap_ff)
            self.units[kind] = _Unit(nets=nets, loads=loads)
        self._add_loads(output_load_ff)
        for bit, driver in drivers.items():
            # The whole ends where its outputs are.
            if ports[bit]:
                kind, inner = driver
                self.units[kind].nets.outputs.append((self._output(kind, inner), inner))

    def _output(self, kind: str, bit: int) -> str:
        """Name an output of a unit."""
        return next(
            f"{name}[{index}]" if len(entry["bits"]) > 1 else name
            for name, entry in self.modules[kind]["ports"].items()
            if entry["direction"] == "output"
            for index, inner in enumerate(entry["bits"])
            if inner == bit
        )

    def _add_loads(self, output_load_ff: float) -> None:
        """Load outputs with the inputs that they go to, those of the worst instance."""
        inside = {
            (kind, bit): unit.loads.get(bit, (0.0, 0.0))
            for kind, unit in self.units.items()
            for bit in unit.nets.inputs
        }
        for (kind, bit), links in self.links.items():
            loads = []
            for link in links:
                own = link.ports * (output_load_ff + self.wire_cap_ff)
                load = [
                    sum(count * inside[pin][edge] for pin, count in link.sinks.items())
                    for edge in range(len(EDGES))
                ]
                if link.total > self.max_sinks:
                    load = [value * TREE / link.total for value in load]
                loads.append([value + own for value in load])
            rise, fall = (max(load[edge] for load in loads) for edge in range(len(EDGES)))
            self.units[kind].nets.fanout[bit] += max(link.total + link.ports for link in links)
            before = self.units[kind].loads[bit]
            self.units[kind].loads[bit] = (before[0] + rise, before[1] + fall)

    def settle(self, input_slew_ns: float) -> None:
        """Let events go from unit to unit until none gets later."""
        for kind, bit in self.entering:
            self.units[kind].events[bit] = {
                edge: Event(input_slew_ns, {"input": (0.0, None)}) for edge in EDGES
            }
        waiting = list(self.units)
        while waiting:
            kind = waiting.pop(0)
            unit = self.units[kind]
            unit.rounds += 1
            if unit.rounds > MAX_ROUNDS:
                raise ValueError(f"units must not be in a loop, not one that reaches {kind}")
            later, unit.later = unit.later, set()
            changed = propagate(unit.nets, unit.loads, unit.events, self.clock_slew_ns, later)
            for bit in changed:
                for link in self.links.get((kind, bit), ()):
                    for pin in link.sinks:
                        if self._arrive(pin, (kind, bit), link.total) and pin[0] not in waiting:
                            waiting.append(pin[0])

    def _arrive(self, pin: _Pin, driver: _Pin, total: int) -> bool:
        """Let an output of a unit reach an input; say whether that has become later."""
        tree_ns = self._tree_ns(total)
        unit = self.units[pin[0]]
        events = unit.events.setdefault(pin[1], {})
        later = False
        for edge, source in self.units[driver[0]].events[driver[1]].items():
            slew = source.slew if not tree_ns else self.library.fo4_slew_ns
            target = events.setdefault(edge, Event(0.0, {}))
            if slew > target.slew:
                target.slew = slew
                later = True
            time = max(time for time, _ in source.latest.values()) + tree_ns
            if "input" not in target.latest or time > target.latest["input"][0]:
                target.latest["input"] = (time, None)
                unit.causes[pin[1], edge] = (driver, tree_ns)
                later = True
        if later and unit.later is not None:
            unit.later.add(pin[1])
        return later

    def _tree_ns(self, total: int) -> float:
        """Delay of the buffers in a net."""
        if total <= self.max_sinks:
            return 0.0
        pairs = math.ceil(math.log(total / TREE, TREE) / 2)
        return 2 * pairs * self.library.fo4_delay_ns

    def paths(self) -> list[UnitPath]:
        """Longest path to an end in each unit."""
        found = []
        for kind, unit in self.units.items():
            longest: tuple[float, End, str] | None = None
            for end in ends(unit.nets, unit.events, self.clock_slew_ns):
                for start, (time, _) in unit.events[end.bit][end.edge].latest.items():
                    if longest is None or time + end.setup_ns > longest[0]:
                        longest = (time + end.setup_ns, end, start)
            if longest is not None:
                found.append(self._path(kind, longest[1], longest[2]))
        return found

    def _path(self, kind: str, end: End, start: str) -> UnitPath:
        """Walk back from the end of a path through the units."""
        names: list[str] = []
        parts: list[Path] = []
        while True:
            unit = self.units[kind]
            walked = steps(unit.nets, unit.loads, unit.events, end, start)
            first = walked[0]
            entry = next(
                (bit for bit, label in unit.nets.inputs.items() if label == first.pin), None
            )
            cause = unit.causes.get((entry, first.edge)) if entry and not first.cell else None
            begin = 0.0
            if cause is not None:
                begin = first.arrival_ns - cause[1]
                first = replace(first, delay_ns=cause[1])
            parts.append(
                Path(
                    kind=f"{start} to {end.kind}",
                    steps=tuple(
                        replace(step, arrival_ns=step.arrival_ns - begin)
                        for step in (first, *walked[1:])
                    ),
                    endpoint=end.label,
                    setup_ns=end.setup_ns,
                    endpoint_net=unit.nets.register_name(end.instance) if end.instance else "",
                )
            )
            names.append(kind)
            if cause is None:
                return UnitPath(units=tuple(reversed(names)), parts=tuple(reversed(parts)))
            (kind, bit), _ = cause
            events = self.units[kind].events[bit]
            latest = events[walked[0].edge].latest
            start = max(latest, key=lambda name: latest[name][0])
            end = End(
                kind="output",
                bit=bit,
                edge=walked[0].edge,
                label=self._output(kind, bit),
                setup_ns=0.0,
            )


def _alone(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Make a module of a gate."""
    bits = {pin: number for number, pin in enumerate(cell["connections"], 2)}
    return {
        "ports": {
            pin: {"direction": cell["port_directions"][pin], "bits": [bit]}
            for pin, bit in bits.items()
        },
        "cells": {"gate": {**cell, "connections": {pin: [bit] for pin, bit in bits.items()}}},
    }
