"""Area, delay and energy of one foreign design, on what its inputs do.

The design is mapped as a whole, with the same recipe as our own, and simulated from its reset
state on: registers start at 0, the resets that are known are held for some cycles that do not
count, then every row of the stimuli is one cycle.
"""

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from narrowgauge.stimuli import Stimuli, Stream
from narrowgauge.versions import code_digest
from synth.activity import STATE_WORDS, Activity, Simulator, Words
from synth.cells import CellLibrary
from synth.delays import Delays, library_delays, unit_delays
from synth.energy import EnergyModel
from synth.foreign import RESET_NAME, ForeignDesign
from synth.glitches import GlitchSimulator
from synth.hierarchy import map_hierarchy
from synth.netlist import Netlist
from synth.timing import Path as TimingPath
from synth.timing import Timing, analyse
from synth.yosys import MappedNetlist, map_netlist, yosys_version

__all__ = ["DELAYS", "SCHEMA", "Bench", "Settings", "bench", "measure", "simulate"]

#: Version of the form of ``measure.json``.
SCHEMA = 1

#: Delays with which activity is simulated; without any, glitches are not seen.
DELAYS = ("none", "unit", "library")

LOGIC, REGISTERS, CLOCK = "logic", "registers", "clock"

#: Cycles whose inputs are made at a time.
CHUNK = 256
#: A combinational design has no memory of the cycle before, so one stream becomes many lanes.
LANES = 4096

NW_PER_UW = 1e3
UW_PER_PJ_NS = 1e3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    clock_ns : float
        Clock period that mapping aims at, and for which power and leakage are charged.
    operations : float
        Useful operations of the design in a cycle.
    macs : float, optional
        Multiply-accumulates of the design in a cycle; without it, nothing is stated for one.
    reset_cycles : int
        Cycles for which resets are held before anything counts.
    timeout_s : float
        Longest time of mapping, in seconds.
    delays : str
        One of `DELAYS`.
    clock_gating : int, optional
        Fewest flip-flops with a common enable that get a clock gate; none get one without it.
    glitches : bool
        Whether to simulate once more with the delays of the library, for the energy with glitches
        beside that of settled values.
    hierarchy : int, optional
        Levels of instances below the top module whose costs are told apart, in a netlist that is
        mapped module by module; what is deeper belongs to the one that it is in.
    states : bool
        Whether energy and leakage are by the states of cells that occur.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    clock_ns: float = 2.0
    operations: float = 1.0
    macs: float | None = None
    reset_cycles: int = 4
    timeout_s: float = 300.0
    delays: str = "none"
    clock_gating: int | None = None
    glitches: bool = False
    states: bool = False
    hierarchy: int | None = None

    def __post_init__(self) -> None:
        for name in ("clock_ns", "operations", "macs", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.reset_cycles < 1:
            raise ValueError(f"reset_cycles must be at least 1, not {self.reset_cycles}")
        if self.delays not in DELAYS:
            raise ValueError(f"delays must be one of {', '.join(DELAYS)}, not {self.delays!r}")
        if self.glitches and self.delays != "none":
            raise ValueError(f"delays must be none to count glitches apart, not {self.delays!r}")
        if self.hierarchy is not None and self.hierarchy < 1:
            raise ValueError(f"hierarchy must be at least 1, not {self.hierarchy}")
        if self.hierarchy is not None and self.clock_gating is not None:
            raise ValueError(
                f"clock_gating must be left out with a hierarchy, not {self.clock_gating}"
            )

    @property
    def state_words(self) -> int:
        """Words of lanes in which states are counted."""
        return STATE_WORDS if self.states else 0

    def delays_of(self, netlist: Netlist, timing: Timing) -> Delays | None:
        """Delays of the cells of a netlist; None without any."""
        if self.delays == "none":
            return None
        return (
            unit_delays(netlist)
            if self.delays == "unit"
            else library_delays(netlist, timing=timing)
        )


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Roles of the inputs of a design.

    Parameters
    ----------
    clock : str or None
        Clock.
    resets : dict of str to int
        Resets and their active levels.
    constants : dict of str to Stream
        Inputs that keep one value, which they have during reset too.
    widths : dict of str to int
        Bits of the inputs that need stimuli.
    """

    clock: str | None
    resets: dict[str, int] = field(default_factory=dict)
    constants: dict[str, Stream] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)


def bench(
    design: ForeignDesign,
    *,
    clock: str | None = None,
    resets: Mapping[str, int | None] | None = None,
    constants: Mapping[str, int] | None = None,
    driven: Iterable[str] = (),
) -> Bench:
    """Give every input of a design its role.

    Parameters
    ----------
    design : ForeignDesign
        Design.
    clock : str, optional
        Clock, which must be the port that was found.
    resets : mapping of str to int, optional
        Resets and their active levels, besides those that were found; None for the level that was
        found, or 1.
    constants : mapping of str to int, optional
        Inputs that keep a value.
    driven : iterable of str
        Inputs that have stimuli of their own even if they were found to be resets.

    Returns
    -------
    Bench

    Raises
    ------
    ValueError
        If a name is not an input, or has two roles.
    """
    widths = {port.name: port.width for port in design.ports if port.direction == "input"}
    named = dict(resets or {})
    held = dict(constants or {})
    own = list(driven)
    given = (("reset", named), ("value", held), ("stimuli", own))
    for label, names in ((("clock", [clock] if clock else [])), *given):
        for name in names:
            if name not in widths:
                known = ", ".join(widths) or "none"
                raise ValueError(
                    f"{label} must be of an input of {design.top} ({known}), not {name!r}"
                )
            if label != "clock" and name == design.clock:
                raise ValueError(f"{label} must not be of {name}, which is the clock")
    if clock is not None and clock != design.clock:
        rule = (
            f"the port that clocks the flip-flops, {design.clock}"
            if design.clock
            else "left out for a design without flip-flops"
        )
        raise ValueError(f"clock must be {rule}, not {clock!r}")
    for name in named:
        if widths[name] != 1:
            raise ValueError(f"reset {name} must be a port of one bit, not of {widths[name]}")
        if name in held or name in own:
            raise ValueError(f"{name} must be a reset or have values of its own, not both")
    for name in own:
        if name in held:
            raise ValueError(f"{name} must have one value or stimuli, not both")
    levels = {
        name: level for name, level in design.resets.items() if name not in held and name not in own
    }
    for name, asked in named.items():
        levels[name] = levels.get(name, 1) if asked is None else asked
    kept = {name: Stream.constant(name, value, widths[name]) for name, value in held.items()}
    rest = {
        name: width
        for name, width in widths.items()
        if name != design.clock and name not in levels and name not in kept
    }
    return Bench(clock=design.clock, resets=levels, constants=kept, widths=rest)


def measure(
    design: ForeignDesign,
    roles: Bench,
    stimuli: Stimuli,
    library: CellLibrary,
    settings: Settings,
) -> tuple[dict[str, Any], MappedNetlist]:
    """Map, simulate and measure a design.

    Parameters
    ----------
    design : ForeignDesign
        Design.
    roles : Bench
        Roles of its inputs.
    stimuli : Stimuli
        What the inputs of ``roles.widths`` do.
    library : CellLibrary
        Cells.
    settings : Settings
        How to measure.

    Returns
    -------
    result : dict
        Figures in a form that JSON can hold; see ``docs/measure.md``.
    mapped : MappedNetlist
        Cells.

    Raises
    ------
    ValueError
        If nothing is left of the design, or its clock drives more than flip-flops.
    YosysError
        If it cannot be mapped.
    """
    mapped = map_netlist(
        design.verilog,
        design.top,
        library,
        clock_gating=settings.clock_gating,
        clock_ns=settings.clock_ns,
        timeout_s=settings.timeout_s,
    )
    netlist = Netlist(mapped, library)
    if not netlist.instances:
        raise ValueError(f"design {design.top} must hold at least one cell, but maps to wires")
    _require_pure_clock(netlist)
    timing = analyse(mapped.module, library)

    activity = simulate(
        netlist,
        roles,
        stimuli,
        settings.reset_cycles,
        delays=settings.delays_of(netlist, timing),
        state_words=settings.state_words,
    )
    hierarchy = None
    if settings.hierarchy is not None:
        hierarchy = _hierarchy(design, roles, stimuli, library, settings, (netlist, activity))
    classes = _classes(netlist)
    model = EnergyModel(netlist, classes, clock_ns=settings.clock_ns, timing=timing)
    [energy] = model.measure(activity)
    split = energy.per(energy.cycles)
    areas = dict.fromkeys((LOGIC, REGISTERS, CLOCK), 0.0)
    with_glitches = None
    if settings.glitches:
        delays = library_delays(netlist, timing=timing)
        delayed = simulate(
            netlist,
            roles,
            stimuli,
            settings.reset_cycles,
            delays=delays,
            state_words=settings.state_words,
        )
        [whole] = model.measure(delayed)
        with_glitches = whole.total_pj / whole.cycles
    leakage_nw = 0.0
    for instance, kind in zip(netlist.instances, classes, strict=True):
        if instance.cell is not None:
            areas[kind] += instance.cell.area_um2
            leakage_nw += instance.cell.leakage_nw
    per_cycle = sum(split.values())
    result = {
        "schema": SCHEMA,
        "design": {
            "top": design.top,
            "clock": design.clock,
            "clock_edge": _edge(design),
            "resets": roles.resets,
            "inputs": _widths(design, "input"),
            "outputs": _widths(design, "output"),
        },
        "area_um2": mapped.area_um2,
        "area_breakdown_um2": areas,
        "cells": mapped.cell_count,
        "flip_flops": len(netlist.registers),
        "clock_gates": len(netlist.clock_gates),
        "memory_bits": design.memory_bits,
        **_timing_facts(timing, settings.clock_ns),
        "energy_per_cycle_pj": per_cycle,
        "energy_per_operation_pj": per_cycle / settings.operations,
        "macs_per_cycle": settings.macs,
        "energy_per_mac_pj": None if settings.macs is None else per_cycle / settings.macs,
        "energy_with_glitches_per_cycle_pj": with_glitches,
        "energy_breakdown_pj": split,
        "power_uw": UW_PER_PJ_NS * per_cycle / settings.clock_ns,
        "leakage_uw": leakage_nw / NW_PER_UW,
        "hierarchy": hierarchy,
        "nets_annotated": energy.nets_annotated,
        "cycles": energy.cycles,
        "delays": settings.delays,
        "states": settings.states,
        "clock_gating": settings.clock_gating,
        "cells_by_type": mapped.cells_by_type,
        "recipe": mapped.recipe,
        "notes": [
            *design.notes,
            *_notes(design, netlist, timing, roles, settings),
            *(
                ["module by module, outputs toggle otherwise: the source leaves values open"]
                if hierarchy is not None and hierarchy["same_outputs"] is False
                else []
            ),
        ],
        "library": {
            name: getattr(library, name)
            for name in ("name", "version", "source", "licence", "voltage_v", "temperature_c")
        }
        | {"digest": library.digest},
        "tools": {
            "narrowgauge": importlib.metadata.version("narrowgauge"),
            "yosys": yosys_version(),
            "numpy": np.__version__,
            "python": platform.python_version(),
            "code": code_digest(),
        },
    }
    return result, mapped


def _classes(netlist: Netlist) -> list[str]:
    classes = [LOGIC if instance.ff is None else REGISTERS for instance in netlist.instances]
    for index in netlist.clock_gates:
        classes[index] = CLOCK
    return classes


def _hierarchy(
    design: ForeignDesign,
    roles: Bench,
    stimuli: Stimuli,
    library: CellLibrary,
    settings: Settings,
    flat: tuple[Netlist, Activity],
) -> dict[str, Any]:
    """Map the design module by module, and say what each instance costs on the same stimuli."""
    tree = map_hierarchy(
        design.modules,
        design.top,
        library,
        clock_ns=settings.clock_ns,
        timeout_s=settings.timeout_s,
    )
    netlist = Netlist(tree.mapped, library)
    _require_pure_clock(netlist)
    timing = analyse(tree.mapped.module, library)
    activity = simulate(
        netlist,
        roles,
        stimuli,
        settings.reset_cycles,
        delays=settings.delays_of(netlist, timing),
        state_words=settings.state_words,
    )
    shown = tree.shown(settings.hierarchy)
    owners = [shown[owner] for owner in tree.owners]
    model = EnergyModel(
        netlist, _classes(netlist), clock_ns=settings.clock_ns, timing=timing, owners=owners
    )
    [energy] = model.measure(activity)
    instances: dict[str, dict[str, Any]] = {
        path: {
            "path": path,
            "module": tree.modules[path],
            "area_um2": 0.0,
            "cells": 0,
            "flip_flops": 0,
            "leakage_uw": 0.0,
            "energy_per_cycle_pj": 0.0,
            "energy_breakdown_pj": dict.fromkeys((LOGIC, REGISTERS, "clock", "leakage"), 0.0),
        }
        for path in dict.fromkeys(shown.values())
    }
    for owner, instance in zip(owners, netlist.instances, strict=True):
        entry = instances[owner]
        entry["cells"] += 1
        entry["flip_flops"] += instance.ff is not None
        if instance.cell is not None:
            entry["area_um2"] += instance.cell.area_um2
            entry["leakage_uw"] += instance.cell.leakage_nw / NW_PER_UW
    for name, value in energy.per(energy.cycles).items():
        owner, _, kind = name.rpartition("/")
        instances[owner]["energy_breakdown_pj"][kind] += value
        instances[owner]["energy_per_cycle_pj"] += value
    return {
        "depth": settings.hierarchy,
        "area_um2": netlist.area_um2,
        "cells": len(netlist.instances),
        "critical_path_ns": timing.critical_path_ns,
        "energy_per_cycle_pj": sum(energy.per(energy.cycles).values()),
        "leakage_uw": sum(entry["leakage_uw"] for entry in instances.values()),
        "same_outputs": (
            _same_outputs(flat, (netlist, activity)) if settings.delays == "none" else None
        ),
        "instances": list(instances.values()),
    }


def _same_outputs(one: tuple[Netlist, Activity], other: tuple[Netlist, Activity]) -> bool:
    """Whether two netlists of a design have toggled alike at every bit of every output."""
    toggles = [
        [
            activity.toggles[0, list(port.nets)].tolist()
            for _, port in sorted(netlist.ports.items())
            if port.direction == "output"
        ]
        for netlist, activity in (one, other)
    ]
    return toggles[0] == toggles[1]


def simulate(
    netlist: Netlist,
    roles: Bench,
    stimuli: Stimuli,
    reset_cycles: int,
    *,
    delays: Delays | None = None,
    state_words: int = 0,
) -> Activity:
    """Switching activity of a netlist, without that of the reset.

    Parameters
    ----------
    netlist : Netlist
        Mapped design.
    roles : Bench
        Roles of its inputs.
    stimuli : Stimuli
        What the other inputs do.
    reset_cycles : int
        Cycles for which resets are held.
    delays : Delays, optional
        Delays of the cells, to count glitches.
    state_words : int
        Words of lanes in which the states of the cells are counted, see `Simulator`.

    Returns
    -------
    Activity
        One group; the change from the last cycle of the reset, or from 0, to the first row counts.
    """
    streams, cycles = stimuli.streams, stimuli.cycles
    moving = {
        name: stream.spread(streams, cycles)
        for name, stream in (*stimuli.ports.items(), *roles.constants.items())
    }
    if not netlist.registers:
        return _combinational(
            netlist, moving, roles.constants, streams, cycles, delays, state_words
        )
    simulator = _simulator(netlist, streams, delays, state_words)
    before = {
        name: stream.spread(streams, 1).words(0, 1)[0] for name, stream in roles.constants.items()
    }
    active = {name: _level(level, streams) for name, level in roles.resets.items()}
    for _ in range(reset_cycles if active or before else 0):
        simulator.step(before | active)
    reset = simulator.activity()
    idle = {name: _level(1 - level, streams) for name, level in roles.resets.items()}
    for begin in range(0, cycles, CHUNK):
        words = {name: stream.words(begin, begin + CHUNK) for name, stream in moving.items()}
        for index in range(min(CHUNK, cycles - begin)):
            simulator.step({name: rows[index] for name, rows in words.items()} | idle)
    return simulator.activity().since(reset)


def _combinational(
    netlist: Netlist,
    moving: Mapping[str, Stream],
    constants: Mapping[str, Stream],
    streams: int,
    cycles: int,
    delays: Delays | None,
    state_words: int,
) -> Activity:
    """Activity without registers: each lane begins with the row before its own, uncounted."""
    length = -(-cycles * streams // LANES)
    pieces = -(-cycles // length)
    # Row 0 is the one before the first; the last one is repeated, which costs nothing.
    rows = np.minimum(length * np.arange(pieces)[:, None] + np.arange(length + 1), cycles)
    lanes = {}
    for name, stream in moving.items():
        first = constants[name].numbers if name in constants else np.zeros_like(stream.numbers)
        padded = np.concatenate(
            [np.broadcast_to(first[:, :1], stream.numbers[:, :1].shape), stream.numbers], axis=1
        )
        numbers = padded[:, rows].reshape(streams * pieces, length + 1, -1)
        lanes[name] = Stream(numbers, stream.bits)
    simulator = _simulator(netlist, streams * pieces, delays, state_words)
    before: Activity | None = None
    for begin in range(0, length + 1, CHUNK):
        words = {name: stream.words(begin, begin + CHUNK) for name, stream in lanes.items()}
        for index in range(min(CHUNK, length + 1 - begin)):
            simulator.step({name: rows[index] for name, rows in words.items()})
            before = before or simulator.activity()
    assert before is not None  # there is at least one cycle
    activity = simulator.activity().since(before)
    return replace(activity, lane_cycles=np.array([streams * cycles]))


def _simulator(netlist: Netlist, lanes: int, delays: Delays | None, state_words: int) -> Simulator:
    if delays is None:
        return Simulator(netlist, lanes, state_words=state_words)
    return GlitchSimulator(netlist, lanes, delays, state_words=state_words)


def _level(level: int, lanes: int) -> Words:
    return Stream.constant("", level, 1).spread(lanes, 1).words(0, 1)[0]


def _require_pure_clock(netlist: Netlist) -> None:
    """Refuse a clock that is data too: it is simulated at the flip-flops only."""
    clock = netlist.clock
    if clock is None:
        return
    ends = [
        cell is not None and cell.pins[pin].is_clock
        for cell, pin in (
            (netlist.instances[index].cell, pin) for index, pin in netlist.sinks[clock]
        )
    ]
    outputs = [port for port in netlist.ports.values() if port.direction == "output"]
    if not all(ends) or any(clock in port.nets for port in outputs):
        raise ValueError(
            f"clock of {netlist.top} must clock flip-flops only, not be an input of gates or an "
            "output too"
        )


def _edge(design: ForeignDesign) -> str | None:
    if design.clock is None:
        return None
    return "falling" if design.falling_edge else "rising"


def _widths(design: ForeignDesign, direction: str) -> dict[str, int]:
    return {port.name: port.width for port in design.ports if port.direction == direction}


def _timing_facts(timing: Timing, clock_ns: float) -> dict[str, Any]:
    path = timing.critical_path
    frequency = timing.max_frequency_mhz
    return {
        "clock_ns": clock_ns,
        "critical_path_ns": timing.critical_path_ns,
        "slack_ns": timing.slack_ns(clock_ns),
        "max_frequency_mhz": frequency if path is not None else None,
        "critical_path_kind": None if path is None else path.kind,
        "critical_path": [] if path is None else _steps(path),
        "critical_path_end": None if path is None else path.endpoint,
        "setup_ns": 0.0 if path is None else path.setup_ns,
    }


def _steps(path: TimingPath) -> list[dict[str, Any]]:
    fields = ("instance", "cell", "pin", "edge", "delay_ns", "arrival_ns", "slew_ns", "load_ff")
    return [{name: getattr(step, name) for name in fields} for step in path.steps]


def _notes(
    design: ForeignDesign, netlist: Netlist, timing: Timing, roles: Bench, settings: Settings
) -> list[str]:
    notes = []
    if timing.slack_ns(settings.clock_ns) < 0:
        notes.append(
            f"misses the clock of {settings.clock_ns:g} ns, for which energy is stated, by "
            f"{-timing.slack_ns(settings.clock_ns):.3f} ns"
        )
    if design.clock is not None and not netlist.registers:
        notes.append("no flip-flop is left after mapping")
    elif design.clock is not None and not roles.resets:
        notes.append("no reset is known; registers start at 0")
    for name in roles.widths:
        # As where it passes through more than an inverter.
        nets = netlist.ports[name].nets
        if len(nets) == 1 and RESET_NAME.search(name) and netlist.sinks[nets[0]]:
            notes.append(f"{name} has stimuli like data; --reset {name}=LEVEL if it is a reset")
    return notes
