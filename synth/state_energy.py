"""What the states of the cells change in the energy of a netlist, against means over all states."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synth.cells import Cell
from synth.netlist import CONSTANT_0, Netlist
from synth.states import StateCounts, cell_power, enable_of

__all__ = ["StateTerms"]

PJ_PER_NW_NS = 1e-6

Floats = npt.NDArray[np.float64]


class StateTerms:
    """Cells of one type: their energy by state, less the means that `EnergyModel` begins with.

    The cycles in which states were counted tell what a toggle of each pin costs; all toggles,
    glitches among them, are taken to cost that.  A pin that toggles in none of these cycles keeps
    its mean.

    Parameters
    ----------
    cell : Cell
        Type of the cells, one with a `synth.states.cell_power`.
    netlist : Netlist
        Where they are.
    indices : sequence of int
        Which they are; the clocks of all of them are gated, or those of none.
    slews_ns, loads_ff : sequence of float
        Slew and load of every net.
    clock_ns : float
        Clock period in ns.

    Raises
    ------
    ValueError
        If the cell has no states.
    """

    def __init__(
        self,
        cell: Cell,
        netlist: Netlist,
        indices: Sequence[int],
        *,
        slews_ns: Sequence[float],
        loads_ff: Sequence[float],
        clock_ns: float,
    ) -> None:
        gated = enable_of(netlist.instances[indices[0]], netlist) is not None
        power = cell_power(cell, gated=gated)
        if power is None:
            raise ValueError(f"cell must have states that can be counted, not be {cell.name}")
        self.indices = indices
        self._power, self._cell, self._clock_ns = power, cell, clock_ns
        instances = [netlist.instances[index] for index in indices]
        self._nets = {
            pin: np.array(
                [(item.inputs | item.outputs).get(pin, CONSTANT_0) for item in instances], np.intp
            )
            for pin in (*cell.inputs, *cell.outputs)
        }
        slew = {pin: np.array(slews_ns)[self._nets[pin]] for pin in cell.inputs}
        load = {pin: np.array(loads_ff)[self._nets[pin]] for pin in cell.outputs}
        none = np.zeros(len(indices))
        mean_slew = sum(slew.values(), none) / max(len(slew), 1)

        self._table_pj = np.zeros((len(indices), len(power.arcs)))
        self._tables: dict[str, list[int]] = {pin: [] for pin in self._nets}
        for number, (arc, rising) in enumerate(power.arcs):
            edge = slew.get(arc.related or arc.pin, mean_slew)
            table = arc.rise if rising else arc.fall
            self._table_pj[:, number] = table.at(edge, load.get(arc.pin, none))
            self._tables[arc.pin].append(number)

        # The means: of an input, and of an output by each of its causes.
        causes = cell.inputs if cell.ff is None else (cell.ff.clock,)
        self._passive_pj = {
            pin: np.array([cell.passive_energy(pin, x) for x in slew[pin]]) for pin in cell.inputs
        }
        self._transition_pj = {
            (pin, cause): np.array(
                [
                    cell.transition_energy(pin, cause, x, y)
                    for x, y in zip(slew[cause], load[pin], strict=True)
                ]
            )
            for pin in cell.outputs
            for cause in causes
        }
        if cell.ff is not None:
            clock_slews = slew[cell.ff.clock]
            self._idle_pj, self._active_pj = (
                np.array([cell.clock_energy(x, share) for x in clock_slews]) for share in (0.0, 1.0)
            )

    def difference_pj(
        self, states: StateCounts, group: int, toggles: npt.NDArray[np.int64], cycles: int
    ) -> tuple[Floats, Floats, Floats]:
        """Energy by state less means.

        Parameters
        ----------
        states : StateCounts
            States of the cells.
        group : int
            Group of the activity.
        toggles : ndarray of int64, shape (nets,)
            Its toggles.
        cycles : int
            Its cycles.

        Returns
        -------
        cells, clock, leakage : ndarray of float64, shape (cells,)
            Energy inside each cell, at its clock pin and through its leakage, in pJ.
        """
        pairs = states.of(group, self.indices).astype(np.float64)
        counted_pj = (pairs @ self._power.uses) * self._table_pj
        ratio = cycles / int(states.lane_cycles[group])

        cells = np.zeros(len(self.indices))
        for pin, toggle in self._power.toggles.items():
            counted = pairs @ toggle
            all_toggles = toggles[self._nets[pin]]
            tables = self._tables[pin]
            mean_pj = (
                self._passive_pj[pin]
                if pin in self._passive_pj
                else self._mean_transition_pj(pin, toggles)
            )
            by_state = counted_pj[:, tables].sum(axis=1)
            per_toggle = np.divide(by_state, counted, out=mean_pj.copy(), where=counted > 0)
            cells += all_toggles * (per_toggle - mean_pj)

        clock = np.zeros(len(self.indices))
        ff = self._cell.ff
        if ff is not None:
            changes = toggles[self._nets[self._cell.outputs[0]]]
            pulses = toggles[self._nets[ff.clock]] / 2
            means = pulses * self._idle_pj + changes * (self._active_pj - self._idle_pj)
            by_state = ratio * counted_pj[:, self._tables[ff.clock]].sum(axis=1)
            clock = by_state - means

        leakage_nw = ratio * (pairs @ self._power.leakage_nw) - cycles * self._cell.leakage_nw
        return cells, clock, leakage_nw * self._clock_ns * PJ_PER_NW_NS

    def _mean_transition_pj(self, pin: str, toggles: npt.NDArray[np.int64]) -> Floats:
        """Mean over the causes of an output, by how often they toggle."""
        total, weighted = np.zeros(len(self.indices)), np.zeros(len(self.indices))
        for (output, cause), energy in self._transition_pj.items():
            if output == pin:
                weight = toggles[self._nets[cause]].astype(np.float64)
                total += weight
                weighted += weight * energy
        return np.divide(weighted, total, out=np.zeros_like(total), where=total > 0)
