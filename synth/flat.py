"""A design whose units are mapped one by one, as one flat netlist.

What is known of units by themselves can be checked on it: paths that cross borders between them,
loads at these borders, and the activity of all nets at once.  Its cells are those of the units, as
often as they stand in the design; none is left out, and none is added.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from synth.assembly import wires
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.verilog import VerilogDesign

__all__ = ["flat_module", "unit_wiring"]

#: A bit of a module in Yosys' JSON: a number, or a constant.
_Bit = int | str


def flat_module(
    design: VerilogDesign,
    units: Mapping[str, Mapping[str, Any]],
    library: CellLibrary,
    *,
    is_memory: Callable[[str], bool] = lambda name: False,
    cache: Cache | None = None,
) -> dict[str, Any]:
    """Put mapped units together as a design does.

    Parameters
    ----------
    design : VerilogDesign
        The design.
    units : mapping of str to mapping
        Each unit by the name of its module, in the JSON of Yosys.  Modules that are no units are
        wires between them, perhaps with a few gates.
    library : CellLibrary
        Cells, for constants and gates between units.
    is_memory : callable
        Whether a module, given by its name, is a memory.  It is cut out: what it gives becomes an
        input of the netlist, and what it takes an output.
    cache : Cache, optional
        See `synth.yosys.map_netlist`.

    Returns
    -------
    dict
        Module in the JSON of Yosys.  Cells, signals and ports of memories have the names of the
        instances that lead to them before their own, with dots.

    Raises
    ------
    ValueError
        If a port of a unit has other bits than what it is connected to.
    """
    return _Flat(design, units, library, is_memory, cache, expand=True).module()


def unit_wiring(
    design: VerilogDesign,
    units: Iterable[str],
    library: CellLibrary,
    *,
    is_memory: Callable[[str], bool] = lambda name: False,
    cache: Cache | None = None,
) -> dict[str, Any]:
    """Wire units up as `flat_module` does, each of them a cell of the type of its module.

    Parameters
    ----------
    units : iterable of str
        Names of their modules.
    design, library, is_memory, cache
        As there.
    """
    kept: dict[str, Mapping[str, Any]] = {name: {} for name in units}
    return _Flat(design, kept, library, is_memory, cache, expand=False).module()


class _Flat:
    """One netlist in the making; bits that turn out to be one net are joined."""

    def __init__(
        self,
        design: VerilogDesign,
        units: Mapping[str, Mapping[str, Any]],
        library: CellLibrary,
        is_memory: Callable[[str], bool],
        cache: Cache | None,
        *,
        expand: bool,
    ) -> None:
        self.top = design.top
        self.kept = set() if expand else set(units)
        self.is_memory = is_memory
        self.modules = {
            name: units[name] if name in units else wires(design, name, library, cache)
            for name in _reached(design, units, is_memory)
        }
        self.ports: dict[str, dict[str, Any]] = {}
        self.cells: dict[str, dict[str, Any]] = {}
        self.netnames: dict[str, dict[str, Any]] = {}
        self._joined: dict[_Bit, _Bit] = {}
        self._count = 1  # 0 and 1 are used for constants elsewhere

    def module(self) -> dict[str, Any]:
        """Place everything; give each net one number."""
        for port, entry in self.modules[self.top]["ports"].items():
            bits = [self._new() for _ in entry["bits"]]
            self.ports[port] = {"direction": entry["direction"], "bits": bits}
        self._place(self.top, "", {port: entry["bits"] for port, entry in self.ports.items()})
        for entry in (*self.ports.values(), *self.netnames.values()):
            entry["bits"] = [self._final(bit) for bit in entry["bits"]]
        for cell in self.cells.values():
            cell["connections"] = {
                pin: [self._final(bit) for bit in bits] for pin, bits in cell["connections"].items()
            }
        return {"ports": self.ports, "cells": self.cells, "netnames": self.netnames}

    def _place(self, name: str, path: str, given: Mapping[str, Sequence[_Bit]]) -> None:
        """Put in an instance of a module whose ports are connected to ``given``."""
        module = self.modules[name]
        local: dict[_Bit, _Bit] = {}

        def net(bit: _Bit) -> _Bit:
            if isinstance(bit, str):
                return bit
            if bit not in local:
                local[bit] = self._new()
            return local[bit]

        for port, entry in module["ports"].items():
            outer = given.get(port, ())
            if len(outer) not in (0, len(entry["bits"])):
                raise ValueError(
                    f"port {port} of {path or name} must be connected to {len(entry['bits'])} bits "
                    f"or none, not {len(outer)}"
                )
            for inside, outside in zip(entry["bits"], outer, strict=bool(outer)):
                self._join(net(inside), outside)
        for signal, entry in module.get("netnames", {}).items():
            bits = [net(bit) for bit in entry["bits"]]
            self.netnames[path + signal] = {**entry, "bits": bits}
        for instance, cell in module["cells"].items():
            inner = path + instance
            connections = {
                pin: [net(bit) for bit in bits] for pin, bits in cell["connections"].items()
            }
            if cell["type"] in self.modules and cell["type"] not in self.kept:
                self._place(cell["type"], f"{inner}.", connections)
            elif self.is_memory(cell["type"]):
                for pin, bits in connections.items():
                    given_by_it = cell["port_directions"][pin] == "output"
                    # Its clock is that of the design and no output of it.
                    if pin != "clk" and bits:
                        self.ports[f"{inner}.{pin}"] = {
                            "direction": "input" if given_by_it else "output",
                            "bits": bits,
                        }
            else:
                self.cells[inner] = {**cell, "connections": connections}

    def _new(self) -> int:
        self._count += 1
        return self._count

    def _final(self, bit: _Bit) -> _Bit:
        while bit in self._joined:
            bit = self._joined[bit]
        return bit

    def _join(self, one: _Bit, other: _Bit) -> None:
        one, other = self._final(one), self._final(other)
        if one != other:
            # A constant takes the place of a number.
            self._joined.update({other: one} if isinstance(one, str) else {one: other})


def _reached(
    design: VerilogDesign, units: Mapping[str, Any], is_memory: Callable[[str], bool]
) -> list[str]:
    """Name the modules that a design is made of down to its units, without memories."""
    found, waiting = [], [design.top]
    while waiting:
        name = waiting.pop()
        if name not in found and not is_memory(name):
            found.append(name)
            waiting += [] if name in units else design.children[name]
    return found
