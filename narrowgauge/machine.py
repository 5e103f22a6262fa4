"""What a comparison asks of the hardware that runs a format, whatever it looks like inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from golden.inference import LayerStream, PreparedLayer
from narrowgauge.catalogue import Options
from synth.activity import STATE_WORDS
from synth.energy import glitch_energy
from synth.glitch_samples import GlitchSampling
from synth.units import MappedUnits, UnitsRun

__all__ = ["LayerRun", "Machine", "Memory", "Settings", "added_by_glitches"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all rows of a comparison have in common.

    Parameters
    ----------
    library : str
        Name of a built-in cell library, or path of a Liberty file.
    clock_ns : float
        Clock period that mapping aims at.
    options : Options
        Hardware.
    method : str
        How formats are fitted, see :meth:`golden.spec.Format.fit`.
    seed : int
        Of the choice of operands.
    clock_gating : int, optional
        Fewest flip-flops of a unit with a common enable that get a clock gate; none get one without
        it.
    memory : str or None
        Model of memories, see :func:`synth.memory.choose_model`.
    off_chip : str
        Off-chip memory, see :func:`synth.memory.off_chip`.
    glitches : bool
        Whether to count glitches too.
    states : bool
        Whether energy and leakage are by the states of cells that occur.
    """

    library: str = "nangate45"
    clock_ns: float = 2.0
    options: Options = field(default_factory=Options)
    method: Any = "sweep"
    seed: int = 1
    clock_gating: int | None = None
    memory: str | None = None
    off_chip: str = "ddr"
    glitches: bool = False
    states: bool = False

    @property
    def mapping(self) -> dict[str, Any]:
        """How units are mapped: arguments of all mapped hardware."""
        return {"clock_ns": self.clock_ns, "clock_gating": self.clock_gating}

    def counting(self) -> dict[str, Any]:
        """Say what is counted when one piece of hardware runs: arguments of all its runs."""
        state_words = STATE_WORDS if self.states else 0
        return {
            "glitches": GlitchSampling(state_words=state_words) if self.glitches else None,
            "state_words": state_words,
        }


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory beside the mapped units, which a flow would not build of gates.

    It has neither an area nor an energy here: those are of a model, see `synth.memory`.

    Parameters
    ----------
    name : str
        What it holds.
    row_bits : int
        Bits of a row; all of them are read or written together.
    rows : int
        Rows; 0 if ``holds`` says how many.
    banks : int
        Memories of equal size that have these rows together; an access is of one of them.
    holds : str
        ``"inputs"`` or ``"outputs"`` for the largest of all tensors that layers with
        multiply-accumulates read or make for one image; empty where ``rows`` is given.
    row_values : int
        Numbers of such a tensor in a row.
    """

    name: str
    row_bits: int
    rows: int = 0
    banks: int = 1
    holds: str = ""
    row_values: int = 1


@dataclass(frozen=True, kw_only=True)
class LayerRun:
    """What one layer cost on a machine.

    Parameters
    ----------
    weight_spec, activation_spec : str
        Formats of the layer.
    length : int
        Products in one dot product.
    products : int
        Products that the layer needs, of the operands that were run.
    cycles : int
        Cycles that they took.
    energy_pj : dict of str to float
        Energy of one product of the mapped units by class of cell.
    nets_annotated : float
        Smallest share of nets with known activity of any unit, 0 to 1.
    glitch_energy_pj : float, optional
        What glitches add to the energy of one product; None if they were not counted.
    accesses : dict of str to float
        Rows of each memory, by its name, that are read or written for one product.
    writes : dict of str to float
        Those of them that are written; a memory that is missing is only read.
    """

    weight_spec: str
    activation_spec: str
    length: int
    products: int
    cycles: int
    energy_pj: Mapping[str, float]
    nets_annotated: float
    glitch_energy_pj: float | None = None
    accesses: Mapping[str, float] = field(default_factory=dict)
    writes: Mapping[str, float] = field(default_factory=dict)


def added_by_glitches(hardware: MappedUnits, run: UnitsRun, products: int) -> float | None:
    """Energy that glitches add to one product of a run; None if they were not counted."""
    return glitch_energy(hardware, run, products) if run.glitches else None


class Machine(Protocol):
    """Mapped hardware for the layers of a network in one format.

    Attributes
    ----------
    design : str
        Name in the catalogue.
    weight_bits, activation_bits, accumulator_bits, length : int
        Widths, and products for which the accumulator is exact.
    products_per_cycle : int
        Most products of a cycle.
    memories : sequence of Memory
        What it needs beside.
    note : str
        What a reader of its row must know; empty if there is nothing.
    """

    design: str
    weight_bits: int
    activation_bits: int
    accumulator_bits: int
    length: int
    products_per_cycle: int
    memories: Sequence[Memory]
    note: str

    @property
    def hardware(self) -> MappedUnits:
        """Its units, with area, cells, leakage and critical paths."""

    def runs(self, stream: LayerStream) -> bool:
        """Whether it runs a layer; others need a machine beside."""

    def run(self, streams: Sequence[LayerStream]) -> LayerRun:
        """Run operands of one layer on the mapped units.

        Parameters
        ----------
        streams : sequence of LayerStream
            All groups of the layer.

        Raises
        ------
        ValueError
            If the codes that leave are not those of the golden model.
        """

    def values(self, layer: PreparedLayer) -> tuple[str, npt.NDArray[np.float64]]:
        """Format of a layer's weights, and the values that it has for them."""
