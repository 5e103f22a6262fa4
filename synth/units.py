"""Hardware as mapped netlists of its distinct units, each with the number of its instances."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from synth.activity import Activity, Simulator
from synth.borders import UnitPath, longest_paths
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.glitch_samples import GlitchSamples, GlitchSampling
from synth.netlist import CellClass, Netlist
from synth.timing import Path, Timing, analyse
from synth.verilog import VerilogDesign
from synth.yosys import MappedNetlist, map_netlist

__all__ = ["MappedModule", "MappedUnit", "MappedUnits", "UnitsRun", "map_modules", "meet_clock"]

#: Most units that are mapped again to make paths between units shorter.
MAX_TRIES = 6


@dataclass(frozen=True, kw_only=True)
class MappedModule:
    """One module of a design, with all that is in it.

    Attributes
    ----------
    mapped : MappedNetlist
        Cells.
    netlist : Netlist
        The same, levelised.
    timing : Timing
        Longest paths.
    """

    mapped: MappedNetlist
    netlist: Netlist
    timing: Timing


@dataclass(frozen=True, kw_only=True)
class MappedUnit(MappedModule):
    """One distinct unit of some hardware.

    Attributes
    ----------
    name : str
        Module.
    count : int
        Instances in the hardware.
    classes : tuple of str
        What each instance of ``netlist`` is there for.
    """

    name: str
    count: int
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, module: MappedModule, name: str, count: int, classes: str | Sequence[str]
    ) -> "MappedUnit":
        """Make a unit of a mapped module; one class is that of all cells but flip-flops."""
        if isinstance(classes, str):
            classes = [
                CellClass.REGISTERS
                if cell.ff is not None
                else CellClass.CLOCK
                if index in module.netlist.clock_gates
                else classes
                for index, cell in enumerate(module.netlist.instances)
            ]
        return cls(
            mapped=module.mapped,
            netlist=module.netlist,
            timing=module.timing,
            name=name,
            count=count,
            classes=tuple(map(str, classes)),
        )


@dataclass(frozen=True, kw_only=True)
class UnitsRun:
    """Switching activity of some work.

    Attributes
    ----------
    activity : dict of str to Activity
        By unit; ``lane_cycles`` counts simulated instances times cycles.
    cycles : int
        Cycles of the hardware for one of the streams that were simulated side by side.
    simulated : dict of str to int
        Instances of each unit in one such stream that were simulated.
    glitches : mapping of str to GlitchSamples
        Some of these cycles with and without delays, by unit; empty if that was not asked for.
    """

    activity: dict[str, Activity]
    cycles: int
    simulated: dict[str, int]
    glitches: Mapping[str, GlitchSamples] = field(default_factory=dict)


def map_modules(
    design: VerilogDesign,
    names: Iterable[str],
    library: CellLibrary,
    *,
    clock_ns: float,
    wire_cap_ff: float = 0.0,
    clock_gating: int | None = None,
    workers: int = 2,
    cache: Cache | None = None,
) -> dict[str, MappedModule]:
    """Map modules of a design, each flattened with all that is in it.

    Parameters
    ----------
    design : VerilogDesign
        Verilog of the whole hardware.
    names : iterable of str
        Modules; a name may occur more than once.
    library : CellLibrary
        Cells.
    clock_ns : float
        Clock period that mapping aims at.
    wire_cap_ff : float
        Capacitance of the wire to every pin.
    clock_gating : int, optional
        Fewest flip-flops of a unit with a common enable that get a clock gate; none get one without
        it.
    workers : int
        Yosys processes at a time.
    cache : Cache, optional
        Where mapped netlists are kept, see `synth.yosys.map_netlist`.
    """

    def make(name: str) -> MappedModule:
        mapped = map_netlist(
            _sources(design, name),
            name,
            library,
            clock_ns=clock_ns,
            clock_gating=clock_gating,
            cache=cache,
        )
        timing = analyse(mapped.module, library, wire_cap_ff=wire_cap_ff)
        return MappedModule(mapped=mapped, netlist=Netlist(mapped, library), timing=timing)

    distinct = sorted(set(names))
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(distinct, pool.map(make, distinct), strict=True))


def meet_clock(
    modules: Mapping[str, MappedModule],
    again: Callable[[str, float], MappedModule],
    wiring: Mapping[str, Any],
    library: CellLibrary,
    *,
    counts: Mapping[str, int],
    clock_ns: float,
    wire_cap_ff: float = 0.0,
) -> tuple[dict[str, MappedModule], list[UnitPath]]:
    """Map units again whose inputs come too late for the clock.

    Units are mapped as if their inputs came at the clock edge.  One in which a path ends that began
    in another unit, and misses the clock, is mapped for what the other one leaves of it.

    Parameters
    ----------
    modules : mapping of str to MappedModule
        Units by role.
    again : callable
        Maps the unit of a role for another clock period in ns.
    wiring, library, counts, wire_cap_ff
        By role, see `synth.borders.longest_paths`.
    clock_ns : float
        Clock period.

    Returns
    -------
    modules : dict of str to MappedModule
        By role; as they were, but for units that the second attempt makes faster.
    paths : list of UnitPath
        Longest path that ends in each of them, longest first.
    """
    result = dict(modules)

    def longest() -> list[UnitPath]:
        netlists = {role: module.mapped.module for role, module in result.items()}
        return longest_paths(wiring, netlists, library, counts=counts, wire_cap_ff=wire_cap_ff)

    paths = longest()
    tried: set[tuple[str, float]] = set()
    while True:
        for path in paths:
            role, last = path.units[-1], path.parts[-1]
            # The input of the last part has the delay of the buffers before it.
            left_ns = clock_ns - path.delay_ns + last.delay_ns - last.steps[0].delay_ns
            missed = path.delay_ns > clock_ns and len(path.parts) > 1 and role in result
            if missed and left_ns > 0 and (role, left_ns) not in tried and len(tried) < MAX_TRIES:
                break
        else:
            return result, paths
        tried.add((role, left_ns))
        before, old = paths, result[role]
        result[role] = again(role, left_ns)
        paths = longest()
        if max(new.delay_ns for new in paths if new.units[-1] == role) >= path.delay_ns:
            result[role], paths = old, before


def _sources(design: VerilogDesign, name: str) -> dict[str, str]:
    """Collect module ``name`` and all that is in it, by module."""
    sources = {name: design.modules[name]}
    for child in design.children[name]:
        sources |= _sources(design, child)
    return sources


class MappedUnits:
    """Hardware as its mapped units.

    Memories that a flow replaces by macros are none of them.

    Parameters
    ----------
    units : mapping of str to MappedUnit
        Units by role.
    paths : sequence of UnitPath
        Longest path that ends in each of them, longest first; by role.
    clock_ns : float
        Clock period that mapping aimed at.
    wire_cap_ff : float
        Capacitance of the wire to every pin.

    Attributes
    ----------
    units, clock_ns, wire_cap_ff
        As given.
    """

    def __init__(
        self,
        units: Mapping[str, MappedUnit],
        paths: Sequence[UnitPath],
        *,
        clock_ns: float,
        wire_cap_ff: float = 0.0,
    ) -> None:
        self.units = dict(units)
        self._paths = list(paths)
        self.clock_ns = clock_ns
        self.wire_cap_ff = wire_cap_ff

    def glitches(
        self, sampling: GlitchSampling | None, simulators: Mapping[str, Simulator]
    ) -> dict[str, GlitchSamples]:
        """Cycles that a run has kept, with and without delays, by unit."""
        if sampling is None:
            return {}
        timings = {role: unit.timing for role, unit in self.units.items()}
        return sampling.samples_of(simulators, timings)

    @property
    def area_um2(self) -> float:
        """Area of all cells, in square micrometres."""
        return sum(unit.count * unit.mapped.area_um2 for unit in self.units.values())

    @property
    def cells(self) -> int:
        """All cells."""
        return sum(unit.count * unit.mapped.cell_count for unit in self.units.values())

    @property
    def leakage_uw(self) -> float:
        """Leakage of all cells, in microwatts."""
        return (
            sum(
                unit.count
                * sum(cell.cell.leakage_nw for cell in unit.netlist.instances if cell.cell)
                for unit in self.units.values()
            )
            / 1e3
        )

    def area_breakdown_um2(self) -> dict[str, float]:
        """Area by class of cell; adds up to `area_um2`."""
        areas: dict[str, float] = {}
        for unit in self.units.values():
            for instance, kind in zip(unit.netlist.instances, unit.classes, strict=True):
                if instance.cell is not None:
                    areas[kind] = areas.get(kind, 0.0) + unit.count * instance.cell.area_um2
        return areas

    def critical_paths(self) -> list[tuple[str, Sequence[Path]]]:
        """Longest path that ends in each unit, longest first: units, and the parts of each path.

        Paths begin and end at registers, memories and ports of the hardware, wherever the borders
        of units are; see `synth.borders`.
        """
        names = {role: unit.name for role, unit in self.units.items()}
        return [
            (" to ".join(names.get(role, role) for role in path.units), path.parts)
            for path in self._paths
        ]

    @property
    def critical_path_ns(self) -> float:
        """Shortest clock period."""
        return self._paths[0].delay_ns
