"""Arrays, engine and tile as one flat netlist each, small ones with all units and borders."""

from dataclasses import dataclass
from typing import Any

from golden.formats import parse
from narrowgauge.catalogue import Options, array_spec, find
from synth import abfp_tile, weight_pool
from synth.abfp_tile import MappedTile
from synth.array import MappedArray
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.flat import flat_module, unit_wiring
from synth.units import MappedUnits
from synth.verilog import VerilogDesign, to_verilog
from synth.weight_pool import MappedEngine

__all__ = ["SYSTEMS", "System", "system"]

#: Designs that are mapped unit by unit: format and size.
SYSTEMS = {
    "fixed-array": ("fixed8", Options(rows=3, cols=2)),
    "tapered-array": ("tapered8:runs=4-7", Options(rows=3, cols=2)),
    "dybit-array": ("dybit8", Options(rows=3, cols=2)),
    "dybit-fused_array": ("dybit8", Options(rows=3, cols=2)),
    "elp_bsd-array": ("elp_bsd4:set=E4-2", Options(rows=3, cols=2)),
    "abfp-tile": ("abfp8:tile=8", Options(rows=2)),
    "weight_pool-engine": ("weight_pool8", Options(lanes=2, outputs=8)),
}

MEMORIES = (abfp_tile.MEMORY, *weight_pool.MEMORIES)


@dataclass(frozen=True, kw_only=True)
class System:
    """A design that is mapped unit by unit.

    Attributes
    ----------
    name : str
        Design, format and size.
    hardware : MappedUnits
        Its units.
    verilog : VerilogDesign
        The whole design.
    library : CellLibrary
        Cells.
    """

    name: str
    hardware: MappedUnits
    verilog: VerilogDesign
    library: CellLibrary
    cache: Cache | None = None

    @property
    def modules(self) -> dict[str, dict[str, Any]]:
        """Mapped units by module."""
        return {unit.name: unit.mapped.module for unit in self.hardware.units.values()}

    def flat(self) -> dict[str, Any]:
        """All of it, memories cut out."""
        return flat_module(
            self.verilog, self.modules, self.library, is_memory=is_memory, cache=self.cache
        )

    def wiring(self) -> dict[str, Any]:
        """Wire its units up."""
        return unit_wiring(
            self.verilog, self.modules, self.library, is_memory=is_memory, cache=self.cache
        )


def is_memory(name: str) -> bool:
    """Whether a module is a memory."""
    return name.startswith(MEMORIES)


def system(
    name: str, library: CellLibrary, *, clock_ns: float, cache: Cache | None = None
) -> System:
    """Map one of :data:`SYSTEMS`."""
    spec, options = SYSTEMS[name]
    design, form = find(name), parse(spec)
    datapath = design.datapath(form, options)
    component = design.build(form, options)
    given = {"clock_ns": clock_ns, "cache": cache}
    size = f"{options.rows} rows" if name.endswith("tile") else f"{options.lanes} lanes"
    hardware: MappedUnits
    if name.endswith("array"):
        hardware = MappedArray(datapath, array_spec(datapath.spec, options), library, **given)
        size = f"{options.rows}x{options.cols}"
    elif name.endswith("tile"):
        hardware = MappedTile(component, library, **given)
    else:
        hardware = MappedEngine(datapath.spec, library, **given)
    return System(
        name=f"{name} {spec} {size}",
        hardware=hardware,
        verilog=to_verilog(component),
        library=library,
        cache=cache,
    )
