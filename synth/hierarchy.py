"""Mapping of a design module by module, so that each cell belongs to one instance of a module.

A design that is flattened before it is mapped becomes one sea of gates, whose cells belong to
nobody: mapping takes gates apart and shares them.  Here each distinct module is mapped by itself,
with black boxes for those in it, and the mapped modules are put together afterwards: the instance
whose module a cell was mapped in owns it.  Nothing is optimised across the borders of modules,
which is what such a netlist costs more than a flat one.
"""

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from synth.cache import Cache
from synth.cells import CellLibrary
from synth.child import private_folder
from synth.timing import analyse
from synth.yosys import (
    RECIPES,
    MappedNetlist,
    Recipe,
    YosysError,
    map_netlist,
    run_yosys,
    yosys_version,
)

__all__ = ["MappedHierarchy", "map_hierarchy"]

#: Names of ports, cells and modules in what Yosys gets: those of the user may hold anything.
PORT, CELL, MODULE = "port", "cell", "module"

Module = Mapping[str, Any]
Bit = int | str


@dataclass(frozen=True, kw_only=True)
class MappedHierarchy:
    """A design as one netlist whose cells belong to instances of modules.

    Attributes
    ----------
    mapped : MappedNetlist
        All cells; without Verilog.
    owners : tuple of str
        Path of the instance that owns each cell, in the order of the cells: names of instances with
        dots between, empty for the top module.
    modules : dict of str to str
        Module of each instance, by its path; an instance comes after the one that it is in.
    parents : dict of str to str
        Path of the instance that each instance is in; none for the top module.
    """

    mapped: MappedNetlist
    owners: tuple[str, ...]
    modules: dict[str, str]
    parents: dict[str, str]

    def shown(self, depth: int | None) -> dict[str, str]:
        """Find the instance that stands for each instance, if there are to be so many levels.

        Parameters
        ----------
        depth : int or None
            Levels below the top module; None for all.

        Returns
        -------
        dict of str to str
            By path; an instance comes after the one that it is in.
        """
        found: dict[str, str] = {}
        levels: dict[str, int] = {}
        for path in self.modules:
            parent = self.parents.get(path)
            levels[path] = 0 if parent is None else levels[parent] + 1
            is_deep = parent is not None and depth is not None and levels[path] > depth
            found[path] = found[self.parents[path]] if is_deep else path
        return found


@dataclass
class _Unit:
    """A distinct module: its name and its text for Yosys."""

    name: str
    text: str
    #: Modules of which it has instances.
    children: set[str] = field(default_factory=set)


def map_hierarchy(
    modules: Mapping[str, Module],
    top: str,
    library: CellLibrary,
    *,
    clock_ns: float,
    timeout_s: float = 300.0,
    workers: int = 2,
    cache: Cache | None = None,
) -> MappedHierarchy:
    """Map a design module by module.

    The attempts of the default recipe are made one after the other, each for all modules; the first
    whose netlist as a whole meets the clock is taken, or else the fastest.

    Parameters
    ----------
    modules : mapping of str to dict
        Modules as the JSON of Yosys, of words and registers, see `synth.foreign.ForeignDesign`.
    top : str
        Top module.
    library : CellLibrary
        Cells to map to.
    clock_ns : float
        Clock period that mapping aims at.
    timeout_s : float
        Longest time that all of it may take, in seconds.
    workers : int
        Yosys processes at a time.
    cache : Cache, optional
        Where mapped netlists are kept, see `synth.yosys.map_netlist`.

    Raises
    ------
    ValueError
        If an instance has a port that is no input or output, or two instances have one path.
    YosysError
        If a module cannot be mapped, or it takes too long.
    """
    deadline = time.monotonic() + timeout_s
    units, names = _units(modules, top, deadline, timeout_s)
    tried: list[tuple[float, MappedHierarchy]] = []
    for attempt in RECIPES["default"].attempts:
        recipe = Recipe(description="module by module", attempts=(attempt,))

        def mapped_unit(unit: _Unit, recipe: Recipe = recipe) -> Module:
            left = deadline - time.monotonic()
            if left <= 0:
                raise YosysError(f"Yosys took longer than {timeout_s:g} s to map {top}")
            stubs = {
                units[module].name: _stub(units[module].name, modules[module])
                for module in sorted(unit.children)
            }
            return map_netlist(
                unit.text,
                unit.name,
                library,
                clock_ns=clock_ns,
                recipe=recipe,
                blackboxes=stubs,
                timeout_s=left,
                cache=cache,
            ).module

        with ThreadPoolExecutor(workers) as pool:
            found = dict(zip(units, pool.map(mapped_unit, units.values()), strict=True))
        linked = _link(found, names, modules, top, library, clock_ns)
        delay_ns = analyse(linked.mapped.module, library).critical_path_ns
        tried.append((delay_ns, linked))
        if delay_ns <= clock_ns:
            return linked
    return min(tried, key=lambda pair: pair[0])[1]


def _units(
    modules: Mapping[str, Module], top: str, deadline: float, timeout_s: float
) -> tuple[dict[str, _Unit], dict[str, str]]:
    """Text of each distinct module for Yosys, by its first name, and that name for each module.

    Modules that are alike but for names are one: slang makes a module of each instance.
    """
    units: dict[str, _Unit] = {}
    names: dict[str, str] = {}
    seen: dict[str, str] = {}
    contents: dict[str, dict[str, Any]] = {}
    for name in _inner_first(modules, top):
        content, unit = _plain_names(modules, name, names, units, is_top=name == top)
        key = json.dumps(content)
        first = seen.setdefault(key, name)
        names[name] = first
        if first == name:
            unit.name = top if name == top else f"{MODULE}{len(units)}"
            units[name] = unit
            contents[name] = content
    with private_folder() as folder:
        commands = []
        for index, (name, content) in enumerate(contents.items()):
            design = {"modules": {units[name].name: content}}
            (folder / f"{index}.json").write_text(json.dumps(design), encoding="utf-8")
            commands += ["design -reset", f"read_json {index}.json"]
            commands += [f"write_verilog -noattr {index}.v"]
        run_yosys(commands, folder, top=top, names={}, deadline=deadline, timeout_s=timeout_s)
        for index, name in enumerate(contents):
            units[name].text = (folder / f"{index}.v").read_text(encoding="utf-8")
    return units, names


def _inner_first(modules: Mapping[str, Module], top: str) -> Iterator[str]:
    """Modules below ``top``, each once and after those in it."""
    done: set[str] = set()
    stack = [top]
    while stack:
        name = stack[-1]
        inner = [
            cell["type"]
            for cell in modules[name]["cells"].values()
            if cell["type"] in modules and cell["type"] not in done
        ]
        if inner:
            stack += inner[:1]
            continue
        stack.pop()
        done.add(name)
        yield name


def _plain_names(
    modules: Mapping[str, Module],
    name: str,
    names: Mapping[str, str],
    units: Mapping[str, _Unit],
    *,
    is_top: bool,
) -> tuple[dict[str, Any], _Unit]:
    """Content of a module with names of ours; the top module keeps those of its ports."""
    module = modules[name]
    unit = _Unit(name="", text="")
    ports = {}
    for index, (port, entry) in enumerate(module["ports"].items()):
        if entry["direction"] not in ("input", "output"):
            raise ValueError(f"port {port} of {name} must be an input or an output, not an inout")
        ports[port if is_top else f"{PORT}{index}"] = entry
    cells = {}
    for index, entry in enumerate(module["cells"].values()):
        connections, directions = entry["connections"], entry["port_directions"]
        kind = entry["type"]
        if kind in modules:
            unit.children.add(names[kind])
            pins = {port: f"{PORT}{number}" for number, port in enumerate(modules[kind]["ports"])}
            connections = {pins[port]: bits for port, bits in connections.items()}
            directions = {
                f"{PORT}{number}": port["direction"]
                for number, port in enumerate(modules[kind]["ports"].values())
            }
            kind = units[names[kind]].name
        cells[f"{CELL}{index}"] = {
            "hide_name": 0,
            "type": kind,
            "parameters": entry["parameters"],
            "attributes": {},
            "port_directions": directions,
            "connections": connections,
        }
    return {"attributes": {}, "ports": ports, "cells": cells, "netnames": {}}, unit


def _stub(name: str, module: Module) -> str:
    """Verilog of a module that is not looked into."""
    lines = [
        f"  {entry['direction']} [{len(entry['bits']) - 1}:0] {PORT}{index}"
        for index, entry in enumerate(module["ports"].values())
    ]
    return f"module {name}(\n" + ",\n".join(lines) + "\n);\nendmodule\n"


class _Nets:
    """Nets that become one where a module wires its ports together."""

    def __init__(self) -> None:
        # The constants 0 and 1 first; they stay what they are.
        self.parents = [0, 1]

    def new(self) -> int:
        """Make a net."""
        self.parents.append(len(self.parents))
        return len(self.parents) - 1

    def root(self, net: int) -> int:
        """Find the net that stands for all that ``net`` is wired to."""
        while self.parents[net] != net:
            self.parents[net] = self.parents[self.parents[net]]
            net = self.parents[net]
        return net

    def join(self, one: int, other: int) -> None:
        """Wire two nets together."""
        low, high = sorted((self.root(one), self.root(other)))
        self.parents[high] = low


def _link(
    found: Mapping[str, Module],
    names: Mapping[str, str],
    modules: Mapping[str, Module],
    top: str,
    library: CellLibrary,
    clock_ns: float,
) -> MappedHierarchy:
    """Put mapped modules into one another."""
    nets = _Nets()
    cells: dict[str, dict[str, Any]] = {}
    owners: list[str] = []
    paths: dict[str, str] = {}
    parents: dict[str, str] = {}

    def expand(name: str, path: str, given: Mapping[str, list[int]]) -> dict[str, Any]:
        if path in paths:
            raise ValueError(f"instances of {top} must have paths of their own, not both {path}")
        paths[path] = _source_name(name, modules[name])
        module = found[names[name]]
        local: dict[Bit, int] = {"0": 0, "1": 1, "x": 0, "z": 0}

        def net(bit: Bit) -> int:
            if bit not in local:
                local[bit] = nets.new()
            return local[bit]

        for port, bits in given.items():
            for bit, outer in zip(module["ports"][port]["bits"], bits, strict=True):
                nets.join(net(bit), outer)
        children = instances[name]
        for cell, entry in module["cells"].items():
            pins = {pin: [net(bit) for bit in bits] for pin, bits in entry["connections"].items()}
            if cell in children and entry["type"] not in library.cells:
                instance, kind = children[cell]
                inner = f"{path}.{instance}" if path else instance
                parents[inner] = path
                expand(kind, inner, pins)
            else:
                cells[f"{path}.{cell}" if path else cell] = entry | {"connections": pins}
                owners.append(path)
        return {
            port: entry | {"bits": [net(bit) for bit in entry["bits"]]}
            for port, entry in module["ports"].items()
        }

    # Modules that are one for Yosys may call what is in them otherwise.
    instances = {
        name: {
            f"{CELL}{index}": (cell, entry["type"])
            for index, (cell, entry) in enumerate(module["cells"].items())
        }
        for name, module in modules.items()
    }
    ports = expand(top, "", {})

    def bit(number: int) -> Bit:
        root = nets.root(number)
        return str(root) if root < 2 else root

    for port in ports.values():
        port["bits"] = [bit(number) for number in port["bits"]]
    for entry in cells.values():
        entry["connections"] = {
            pin: [bit(number) for number in numbers]
            for pin, numbers in entry["connections"].items()
        }
    by_type: dict[str, int] = {}
    for entry in cells.values():
        by_type[entry["type"]] = by_type.get(entry["type"], 0) + 1
    mapped = MappedNetlist(
        top=top,
        module={"ports": ports, "cells": cells, "netnames": {}},
        verilog="",
        area_um2=sum(library.cells[kind].area_um2 * count for kind, count in by_type.items()),
        cells_by_type=dict(sorted(by_type.items())),
        recipe="module by module",
        clock_ns=clock_ns,
        tool=yosys_version(),
    )
    return MappedHierarchy(mapped=mapped, owners=tuple(owners), modules=paths, parents=parents)


def _source_name(name: str, module: Module) -> str:
    """Name of a module in the source, without its parameters and the place of its instance."""
    return str(module["attributes"].get("hdlname", "")) or name.partition("$")[0]
