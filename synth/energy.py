"""Energy of a mapped netlist from the toggles of its nets.

Energy is counted where it is spent:

* each toggle of a net charges or discharges its load: half of C V^2, with the pins, wire and
  output ports on it;
* each toggle of an output costs energy inside its cell, by the input that caused it; counts of
  toggles do not tell which, so inputs share it in proportion to their own toggles;
* each toggle of an input costs what the library calls its passive energy;
* each pulse of a clock costs the energy inside every flip-flop and clock gate at its clock pin,
  and the load of the clock;
* leakage is power times time.

Toggles may be those of settled values (`synth.activity`) or include glitches (`synth.glitches`),
each of which counts as a full swing.

Sums are kept by class of cell.  The load of a net belongs to the class of the cell that drives it,
and where an input port drives it, to those of the cells behind its pins, so that units that are
wired together count every pin once.  Everything about the clock is class ``clock``; energy through
leakage is class ``leakage``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from synth.activity import Activity
from synth.cells import Cell
from synth.netlist import CONSTANT_1, Netlist
from synth.state_energy import StateTerms
from synth.states import StateCounts, enable_of
from synth.timing import Timing

if TYPE_CHECKING:
    from synth.units import MappedUnits, UnitsRun

__all__ = ["Energy", "EnergyModel", "glitch_energy", "net_slews_ns", "unit_energy"]

CLOCK = "clock"
LEAKAGE = "leakage"

# 1 fF V^2 and 1 nW ns in picojoules.
PJ_PER_FF_V2 = 1e-3
PJ_PER_NW_NS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy of many cycles, split by class.

    Parameters
    ----------
    split_pj : dict of str to float
        Energy of each class in pJ, ``clock`` and ``leakage`` among them.
    cycles : int
        Cycles of one instance that it is the energy of.
    nets_annotated : float
        Share of the nets whose toggles are known, 0 to 1.
    """

    split_pj: dict[str, float]
    cycles: int
    nets_annotated: float

    @property
    def total_pj(self) -> float:
        """Energy of all classes in pJ."""
        return sum(self.split_pj.values())

    def per(self, operations: float) -> dict[str, float]:
        """Split of the energy of one of so many operations, in pJ.

        Raises
        ------
        ValueError
            If ``operations`` is not positive.
        """
        if not operations > 0:
            raise ValueError(f"operations must be positive, not {operations}")
        return {kind: energy / operations for kind, energy in self.split_pj.items()}


class EnergyModel:
    """What every toggle and every cycle of a netlist costs.

    Parameters
    ----------
    netlist : Netlist
        Netlist of library cells.
    classes : sequence of str
        Class of each of ``netlist.instances``, such as `synth.netlist.classify` gives.
    clock_ns : float
        Clock period in ns, for leakage.
    timing : Timing, optional
        Slews of the nets; without it, every net has the library's ``fo4_slew_ns``.
    wire_cap_ff : float
        Capacitance of the wire to every pin or output port on a net, in fF.
    output_load_ff : float
        Load on every output port, in fF.
    clock_slew_ns : float, optional
        Slew of the clock at every flip-flop in ns; the library's ``fo4_slew_ns`` when left out.
    owners : sequence of str, optional
        What each of ``netlist.instances`` belongs to.  Sums are then kept by owner and class, as
        ``owner/class``, those of clock and leakage too.

    Raises
    ------
    ValueError
        If the netlist has black boxes, ``classes`` or ``owners`` has another length, or a number
        is negative.
    """

    def __init__(
        self,
        netlist: Netlist,
        classes: Sequence[str],
        *,
        clock_ns: float,
        timing: Timing | None = None,
        wire_cap_ff: float = 0.0,
        output_load_ff: float = 0.0,
        clock_slew_ns: float | None = None,
        owners: Sequence[str] | None = None,
    ) -> None:
        if netlist.blackboxes:
            found = netlist.instances[netlist.blackboxes[0]]
            raise ValueError(
                f"netlist {netlist.top} must hold library cells only, not {found.name} "
                f"of type {found.type}"
            )
        for field, entries in (("classes", classes), ("owners", owners)):
            if entries is not None and len(entries) != len(netlist.instances):
                raise ValueError(
                    f"{field} must have one entry for each of {len(netlist.instances)} instances, "
                    f"not {len(entries)}"
                )
        for field, value in (("clock_ns", clock_ns), ("clock_slew_ns", clock_slew_ns or 0.0)):
            if not value >= 0:
                raise ValueError(f"{field} must not be negative, not {value}")
        self.netlist = netlist
        self.classes = [str(kind) for kind in classes]
        for index in netlist.clock_gates:
            self.classes[index] = CLOCK
        # Python numbers, because tables are looked up one value at a time.
        self._loads = netlist.loads_ff(
            wire_cap_ff=wire_cap_ff, output_load_ff=output_load_ff
        ).tolist()
        self._slews = net_slews_ns(netlist, timing)
        if clock_slew_ns is None:
            clock_slew_ns = netlist.library.fo4_slew_ns
        for number in netlist.clocks:
            self._slews[number] = clock_slew_ns

        self._clock_ns = clock_ns
        self._owners = None if owners is None else list(owners)
        if self._owners is not None:
            pairs = zip(self._owners, self.classes, strict=True)
            self.classes = [_owned(owner, kind) for owner, kind in pairs]
        overheads = [
            _owned(owner, kind)
            for kind in (CLOCK, LEAKAGE)
            for owner in ([None] if self._owners is None else sorted(set(self._owners)))
        ]
        self._kinds = [*dict.fromkeys((*sorted(set(self.classes)), *overheads))]
        self._rows = {kind: row for row, kind in enumerate(self._kinds)}
        self._toggle_pj = np.zeros((len(self._kinds), netlist.net_count))
        self._cycle_pj = np.zeros(len(self._kinds))
        self._add_loads(wire_cap_ff, output_load_ff)
        self._add_inputs()
        self._add_clock_pins(clock_slew_ns)
        self._add_leakage(clock_ns)
        self._arcs = self._collect_arcs()
        self._states: list[tuple[StateTerms, npt.NDArray[np.intp]]] | None = None

    def measure(self, activity: Activity) -> list[Energy]:
        """Energy of all lanes and cycles of an activity.

        Parameters
        ----------
        activity : Activity
            Toggles of the same netlist.

        Returns
        -------
        list of Energy
            For each group of the activity.  Without states of the cells, or for cells whose
            states are not counted, means over equally likely states.

        Raises
        ------
        ValueError
            If the activity has another number of nets.
        """
        if activity.toggles.shape[1] != self.netlist.net_count:
            raise ValueError(
                f"activity must have {self.netlist.net_count} nets, not {activity.toggles.shape[1]}"
            )
        annotated = float(activity.annotated[CONSTANT_1 + 1 :].mean())
        results = []
        for group, cycles in enumerate(activity.lane_cycles.tolist()):
            toggles = activity.toggles[group]
            # Exact sums: those of BLAS depend on the processor in their last digit.
            energy = np.array([math.fsum(row * toggles) for row in self._toggle_pj])
            energy += self._cycle_pj * cycles
            energy += self._arcs.energy_pj(toggles, len(self._kinds))
            if activity.states is not None and activity.states.lane_cycles[group]:
                for terms, rows in self._state_terms(activity.states):
                    parts = terms.difference_pj(activity.states, group, toggles, cycles)
                    for part, of_part in zip(parts, rows, strict=True):
                        energy += np.bincount(of_part, part, len(self._kinds))
            split = dict(zip(self._kinds, energy.tolist(), strict=True))
            results.append(Energy(split_pj=split, cycles=cycles, nets_annotated=annotated))
        return results

    def _add_loads(self, wire_cap_ff: float, output_load_ff: float) -> None:
        """Charge of loads, to the driver's class or to those of the pins."""
        netlist = self.netlist
        scale = PJ_PER_FF_V2 * netlist.library.voltage_v**2 / 2
        for number in range(CONSTANT_1 + 1, netlist.net_count):
            driver = netlist.drivers[number]
            if number == netlist.clock and self._owners is None:
                self._toggle_pj[self._overhead(CLOCK), number] += scale * self._loads[number]
            elif number == netlist.clock:
                for index, pin in netlist.sinks[number]:
                    cell = netlist.instances[index].cell
                    if cell is not None:
                        cap = cell.pins[pin].cap_ff + wire_cap_ff
                        self._toggle_pj[self._overhead(CLOCK, index), number] += scale * cap
            elif driver is not None:
                self._toggle_pj[self._row(driver[0]), number] += scale * self._loads[number]
            else:
                for index, pin in netlist.sinks[number]:
                    cell = netlist.instances[index].cell
                    if cell is not None:
                        cap = cell.pins[pin].cap_ff + wire_cap_ff
                        self._toggle_pj[self._row(index), number] += scale * cap

    def _add_leakage(self, clock_ns: float) -> None:
        """Power of every cell, for the time of a cycle."""
        powers_nw: dict[int, float] = {}
        for index, instance in enumerate(self.netlist.instances):
            if instance.cell is not None:
                row = self._overhead(LEAKAGE, index)
                powers_nw[row] = powers_nw.get(row, 0.0) + instance.cell.leakage_nw
        for row, power_nw in powers_nw.items():
            self._cycle_pj[row] += power_nw * clock_ns * PJ_PER_NW_NS

    def _state_terms(self, states: StateCounts) -> list[tuple[StateTerms, npt.NDArray[np.intp]]]:
        """Make what states change, by type of cell, with the rows of cells, clocks and leakage."""
        if self._states is None:
            by_cell: dict[tuple[Cell, bool], list[int]] = {}
            for index in states.places:
                instance = self.netlist.instances[index]
                if instance.cell is not None:
                    gated = enable_of(instance, self.netlist) is not None
                    by_cell.setdefault((instance.cell, gated), []).append(index)
            self._states = []
            for (cell, _), indices in by_cell.items():
                rows = [
                    (
                        self._row(index),
                        self._overhead(CLOCK, index),
                        self._overhead(LEAKAGE, index),
                    )
                    for index in indices
                ]
                terms = StateTerms(
                    cell,
                    self.netlist,
                    indices,
                    slews_ns=self._slews,
                    loads_ff=self._loads,
                    clock_ns=self._clock_ns,
                )
                self._states.append((terms, np.array(rows, np.intp).T))
        return self._states

    def _row(self, index: int) -> int:
        return self._rows[self.classes[index]]

    def _overhead(self, kind: str, index: int | None = None) -> int:
        """Row of what clock or leakage cost an instance; the one of all without owners."""
        if self._owners is None or index is None:
            return self._rows[kind]
        return self._rows[_owned(self._owners[index], kind)]

    def _add_inputs(self) -> None:
        """Passive energy of the inputs of cells."""
        for index, instance in enumerate(self.netlist.instances):
            if instance.cell is None:
                continue
            for pin, number in instance.inputs.items():
                if number > CONSTANT_1 and not instance.cell.pins[pin].is_clock:
                    energy = instance.cell.passive_energy(pin, self._slews[number])
                    self._toggle_pj[self._row(index), number] += energy

    def _add_clock_pins(self, clock_slew_ns: float) -> None:
        """Energy at clock pins; it depends on whether a state changes or a clock gate is open."""
        energies: dict[str, tuple[float, float]] = {}
        for index in (*self.netlist.registers, *self.netlist.clock_gates):
            instance = self.netlist.instances[index]
            if instance.cell is None:
                continue
            row = self._overhead(CLOCK, index)
            if instance.type not in energies:
                energies[instance.type] = (
                    instance.cell.clock_energy(clock_slew_ns, 0.0),
                    instance.cell.clock_energy(clock_slew_ns, 1.0),
                )
            idle, active = energies[instance.type]
            pulses = 1.0
            if instance.ff is None:
                self._cycle_pj[row] += idle
                pulses = 0.5  # a gated clock toggles twice in a period in which it is open
            else:
                # Each pulse is two toggles.
                self._toggle_pj[row, instance.inputs[instance.ff.clock]] += idle / 2
            # Both outputs toggle with the state, so one of them tells.
            for number in list(instance.outputs.values())[:1]:
                self._toggle_pj[row, number] += pulses * (active - idle)

    def _collect_arcs(self) -> "_Arcs":
        """Energy inside cells of each transition of an output, by the input that causes it."""
        outputs: list[int] = []
        output_kinds: list[int] = []
        arcs: list[tuple[int, int, float]] = []
        # Many cells of one kind have the same loads.
        known: dict[tuple[str, str, str, float, float], float] = {}
        for index, instance in enumerate(self.netlist.instances):
            cell = instance.cell
            if cell is None:
                continue
            causes = instance.inputs
            if instance.ff is not None:
                causes = {instance.ff.clock: instance.inputs[instance.ff.clock]}
            if cell.clock_gate is not None:
                causes = {cell.clock_gate.clock: instance.inputs[cell.clock_gate.clock]}
            for pin, number in instance.outputs.items():
                for related, cause in causes.items():
                    slew, load = self._slews[cause], self._loads[number]
                    place = instance.type, pin, related, slew, load
                    if place not in known:
                        known[place] = cell.transition_energy(pin, related, slew, load)
                    arcs.append((len(outputs), cause, known[place]))
                outputs.append(number)
                output_kinds.append(self._row(index))
        output_indices, causes_of, energies = zip(*arcs, strict=True) if arcs else ((), (), ())
        return _Arcs(
            outputs=np.array(outputs, np.intp),
            kinds=np.array(output_kinds, np.intp),
            arc_outputs=np.array(output_indices, np.intp),
            arc_causes=np.array(causes_of, np.intp),
            arc_pj=np.array(energies, np.float64),
        )


def _owned(owner: str | None, kind: str) -> str:
    """Name of what some owner spends on some class; the class itself without owners."""
    return kind if owner is None else f"{owner}/{kind}"


@dataclass(frozen=True, kw_only=True)
class _Arcs:
    """Transitions of outputs.

    Net and class of each output; output, causing net and energy of each arc.
    """

    outputs: npt.NDArray[np.intp]
    kinds: npt.NDArray[np.intp]
    arc_outputs: npt.NDArray[np.intp]
    arc_causes: npt.NDArray[np.intp]
    arc_pj: npt.NDArray[np.float64]

    def energy_pj(self, toggles: npt.NDArray[np.int64], kind_count: int) -> npt.NDArray[np.float64]:
        """Energy of each class: toggles of every output times the mean over its causes."""
        count = len(self.outputs)
        weights = toggles[self.arc_causes].astype(np.float64)
        total = np.bincount(self.arc_outputs, weights, count)
        weighted = np.bincount(self.arc_outputs, weights * self.arc_pj, count)
        mean = np.divide(weighted, total, out=np.zeros(count), where=total > 0)
        return np.bincount(self.kinds, mean * toggles[self.outputs], kind_count).astype(np.float64)


def net_slews_ns(netlist: Netlist, timing: Timing | None) -> list[float]:
    """Slew of every net in ns; the library's ``fo4_slew_ns`` where ``timing`` does not say."""
    slews = [netlist.library.fo4_slew_ns] * netlist.net_count
    if timing is not None:
        for number, bit in enumerate(netlist.yosys_bits):
            if isinstance(bit, int):
                slews[number] = timing.slew_ns.get(bit, slews[number])
    return slews


def unit_energy(
    hardware: "MappedUnits", run: "UnitsRun", operations: float
) -> tuple[dict[str, float], float]:
    """Energy of some hardware per operation.

    Parameters
    ----------
    hardware : MappedUnits
        Units, and how often the hardware has each.
    run : UnitsRun
        Activity of the units; those that were not simulated spend what the others of their kind
        do on average.
    operations : float
        Useful operations of the run.

    Returns
    -------
    split : dict of str to float
        Energy per operation by class, in pJ.
    nets_annotated : float
        Smallest share of annotated nets of any unit, 0 to 1.
    """
    split: dict[str, float] = {}
    annotated = 1.0
    models = _unit_models(hardware)
    for role, unit in hardware.units.items():
        model = models[role]
        share = unit.count / run.simulated[role]
        for energy in model.measure(run.activity[role]):
            annotated = min(annotated, energy.nets_annotated)
            for kind, value in energy.per(operations).items():
                split[kind] = split.get(kind, 0.0) + share * value
    return split, annotated


def glitch_energy(hardware: "MappedUnits", run: "UnitsRun", operations: float) -> float:
    """Energy that glitches add to that of some hardware per operation.

    Parameters
    ----------
    hardware : MappedUnits
        Units, and how often the hardware has each.
    run : UnitsRun
        Activity of the units, and the cycles that were gone through with delays: all others spend
        what these do on average.
    operations : float
        Useful operations of the run.

    Returns
    -------
    float
        Energy per operation in pJ, which is to be added to that of `unit_energy`.
    """
    models = _unit_models(hardware)
    total = 0.0
    for role, samples in run.glitches.items():
        settled, delayed = (
            sum(energy.total_pj for energy in models[role].measure(activity))
            for activity in (samples.settled, samples.delayed)
        )
        cycles = int(run.activity[role].lane_cycles.sum())
        share = hardware.units[role].count / run.simulated[role]
        total += share * cycles * (delayed - settled) / int(samples.settled.lane_cycles.sum())
    return total / operations


# Hardware runs on the operands of many layers.
_models: WeakKeyDictionary["MappedUnits", dict[str, EnergyModel]] = WeakKeyDictionary()


def _unit_models(hardware: "MappedUnits") -> dict[str, EnergyModel]:
    """Energy model of each unit."""
    if hardware not in _models:
        _models[hardware] = {
            role: EnergyModel(
                unit.netlist,
                unit.classes,
                clock_ns=hardware.clock_ns,
                timing=unit.timing,
                wire_cap_ff=hardware.wire_cap_ff,
            )
            for role, unit in hardware.units.items()
        }
    return _models[hardware]
