"""A design as its mapped units, wired together as in its Verilog and clocked in step.

Modules that hold other units are wires only; everything else is mapped, each distinct module once,
and one simulation holds all its instances as lanes.  Memories are none of them: they are arrays
here, addressed alike in all streams.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.activity import LANES_PER_WORD, Activity, Simulator, Words
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.glitch_samples import GlitchSampling, make_simulator
from synth.units import MappedUnit
from synth.verilog import VerilogDesign
from synth.yosys import map_netlist

__all__ = ["Assembly", "Instance", "Wiring", "wires"]

#: Nets of the constants.
CONSTANTS = {"0": 0, "1": 1, "x": 0}


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A unit or a memory in a design.

    Attributes
    ----------
    name : str
        Names of the instances that lead to it, with dots.
    module : str
        Its module.
    ports : dict of str to list of int
        Nets of each port, the lowest bit first.
    """

    name: str
    module: str
    ports: dict[str, list[int]]


@dataclass
class Wiring:
    """What is connected to what in a design; nets 0 and 1 are the constants.

    Attributes
    ----------
    ports : dict of str to list of int
        Nets of the ports of the design.
    instances : list of Instance
        All units and memories.
    net_count : int
        Nets, the constants among them.
    """

    ports: dict[str, list[int]] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    net_count: int = 2

    @classmethod
    def of(
        cls,
        design: VerilogDesign,
        is_inside: Callable[[str], bool],
        library: CellLibrary,
        cache: Cache | None = None,
    ) -> "Wiring":
        """Read the wiring of a design.

        Parameters
        ----------
        design : VerilogDesign
            The design.
        is_inside : callable
            Whether a module, given by its name, is wires between others.
        library : CellLibrary
            Cells, of which those that make constants are used.
        cache : Cache, optional
            See `synth.yosys.map_netlist`.

        Raises
        ------
        ValueError
            If such a module has logic of its own.
        """
        wiring = cls()
        modules = {
            name: wires(design, name, library, cache) for name in design.modules if is_inside(name)
        }

        # Outputs that are constants; a cell may have one of each.
        tied = {
            (cell.name, pin): net
            for net, kind in enumerate(("tie0", "tie1"))
            for cell in library.of_kind(kind)
            for pin in cell.outputs
        }
        ties = {name for name, _ in tied}

        def expand(name: str, path: str, given: Mapping[str, list[int]]) -> dict[str, list[int]]:
            module = modules[name]
            nets: dict[Any, int] = dict(CONSTANTS)
            for port, bits in given.items():
                nets |= dict(zip(module["ports"][port]["bits"], bits, strict=True))

            def net(bit: Any) -> int:
                if bit not in nets:
                    nets[bit] = wiring.net_count
                    wiring.net_count += 1
                return nets[bit]

            for cell in module["cells"].values():
                if cell["type"] in ties:
                    for pin, bits in cell["connections"].items():
                        nets |= dict.fromkeys(bits, tied[cell["type"], pin])
            for instance, cell in module["cells"].items():
                if cell["type"] in ties:
                    continue
                if cell["type"] not in design.modules:
                    raise ValueError(f"module {name} must be wires only, not hold {instance}")
                inner = f"{path}.{instance}" if path else instance
                ports = {port: [net(b) for b in bits] for port, bits in cell["connections"].items()}
                if cell["type"] in modules:
                    expand(cell["type"], inner, ports)
                else:
                    wiring.instances.append(Instance(name=inner, module=cell["type"], ports=ports))
            return {
                port: [net(b) for b in entry["bits"]] for port, entry in module["ports"].items()
            }

        wiring.ports = expand(design.top, "", {})
        return wiring


def wires(
    design: VerilogDesign, name: str, library: CellLibrary, cache: Cache | None
) -> dict[str, Any]:
    """Read a module of wires as the JSON of Yosys."""
    stubs = {
        child: design.modules[child].partition(");")[0] + ");\nendmodule\n"
        for child in design.children[name]
    }
    mapped = map_netlist(design.modules[name], name, library, blackboxes=stubs, cache=cache)
    return mapped.module


class Assembly:
    """Streams of a design, simulated side by side.

    Parameters
    ----------
    wiring : Wiring
        The design.
    units : mapping of str to MappedUnit
        Mapped units by module; instances of other modules are memories with the ports of
        :class:`hdl.abfp_tile.RowStore`.
    streams : int
        Instances of the design, a multiple of 64.
    glitches : GlitchSampling, optional
        Keeps cycles whose glitches are to be counted.
    state_words : int
        Words of lanes in which the states of the cells are counted, see `Simulator`.

    Attributes
    ----------
    memories : dict of str to dict of int to Words
        Contents of each memory: rows of bits by address.
    accesses, writes : dict of str to int
        Words of each memory that one stream has read or written, and those that it has written.

    Raises
    ------
    ValueError
        If units depend on one another in a loop within a cycle.
    """

    def __init__(
        self,
        wiring: Wiring,
        units: Mapping[str, MappedUnit],
        streams: int,
        glitches: GlitchSampling | None = None,
        state_words: int = 0,
    ) -> None:
        self.wiring = wiring
        self.words = streams // LANES_PER_WORD
        self._values = np.zeros((wiring.net_count, self.words), np.uint64)
        self._values[1] = ~np.uint64(0)
        groups: dict[str, list[Instance]] = {}
        memories = []
        for instance in wiring.instances:
            if instance.module in units:
                groups.setdefault(instance.module, []).append(instance)
            else:
                memories.append(_Memory(instance, self._values))
        self._units = {
            module: _Group(units[module], instances, self._values, glitches, state_words)
            for module, instances in groups.items()
        }
        self._memories = memories
        self.memories = {memory.instance.name: memory.contents for memory in memories}
        self._order = self._sorted()

    @property
    def simulators(self) -> dict[str, Simulator]:
        """Simulators of the units, by module."""
        return {module: group.simulator for module, group in self._units.items()}

    @property
    def accesses(self) -> dict[str, int]:
        """Words of each memory that one stream has read or written."""
        return {memory.instance.name: memory.accesses for memory in self._memories}

    @property
    def writes(self) -> dict[str, int]:
        """Words of each memory that one stream has written."""
        return {memory.instance.name: memory.writes for memory in self._memories}

    def _sorted(self) -> list["_Group"]:
        """Put groups after those on which their inputs depend in the same cycle."""
        drivers: dict[int, str] = {}
        for module, group in self._units.items():
            for nets in group.immediate.values():
                drivers |= dict.fromkeys(nets.ravel().tolist(), module)
        before = {
            module: {
                drivers[net]
                for nets in group.inputs.values()
                for net in nets.ravel().tolist()
                if net in drivers
            }
            for module, group in self._units.items()
        }
        try:
            return [self._units[module] for module in TopologicalSorter(before).static_order()]
        except CycleError as error:
            raise ValueError(f"units must not be in a loop, not {error.args[1]}") from None

    def read(self, port: str) -> Words:
        """Words of a port of the design as settled in the last cycle, shape (width, words)."""
        return self._values[self.wiring.ports[port]]

    def step(self, inputs: Mapping[str, Words]) -> None:
        """Apply inputs, rows of bits by port; let everything settle, and clock it."""
        for port, words in inputs.items():
            self._values[self.wiring.ports[port]] = words
        for group in self._units.values():
            group.show()
        for memory in self._memories:
            memory.show()
        for group in self._order:
            group.step()
        for memory in self._memories:
            memory.step()

    def activity(self) -> dict[str, Activity]:
        """Activity of the units so far, by module."""
        return {module: group.simulator.activity() for module, group in self._units.items()}


class _Group:
    """Instances of one unit, which share a simulation."""

    def __init__(
        self,
        unit: MappedUnit,
        instances: list[Instance],
        values: npt.NDArray[np.uint64],
        glitches: GlitchSampling | None,
        state_words: int,
    ) -> None:
        self.values = values
        self.count, self.words = len(instances), values.shape[1]
        netlist = unit.netlist
        lanes = self.count * self.words * LANES_PER_WORD
        self.simulator = make_simulator(netlist, lanes, glitches, state_words=state_words)
        self.inputs: dict[str, npt.NDArray[np.intp]] = {}
        self.states: dict[str, npt.NDArray[np.intp]] = {}
        #: Outputs that are not those of registers.
        self.immediate: dict[str, npt.NDArray[np.intp]] = {}
        for port in netlist.ports.values():
            if port.nets == (netlist.clock,):
                continue
            nets = np.array([instance.ports[port.name] for instance in instances], np.intp)
            if port.direction == "input":
                self.inputs[port.name] = nets
            elif self._is_state(port.name):
                self.states[port.name] = nets
            else:
                self.immediate[port.name] = nets

    def _is_state(self, port: str) -> bool:
        try:
            self.simulator.state(port)
        except ValueError:
            return False
        return True

    def show(self) -> None:
        """Put what is in the registers on the nets."""
        for port, nets in self.states.items():
            self._put(nets, self.simulator.state(port))

    def step(self) -> None:
        """Settle, and clock."""
        self.simulator.step(
            {
                port: self.values[nets].transpose(1, 0, 2).reshape(nets.shape[1], -1)
                for port, nets in self.inputs.items()
            }
        )
        for port, nets in self.immediate.items():
            self._put(nets, self.simulator.settled(port))

    def _put(self, nets: npt.NDArray[np.intp], words: Words) -> None:
        self.values[nets] = words.reshape(-1, self.count, self.words).transpose(1, 0, 2)


class _Memory:
    """A memory that gives a word in the cycle after it was asked for."""

    def __init__(self, instance: Instance, values: npt.NDArray[np.uint64]) -> None:
        self.instance = instance
        self.values = values
        self.contents: dict[int, Words] = {}
        self.accesses = self.writes = 0
        self.word = np.zeros((len(instance.ports["value"]), values.shape[1]), np.uint64)

    def _number(self, port: str) -> int:
        """Value of a port that all streams have in common."""
        rows = self.values[self.instance.ports[port]]
        if (rows != rows[:, :1]).any() or not np.isin(
            rows, np.array([0, ~np.uint64(0)], np.uint64)
        ).all():
            raise ValueError(f"port {port} of {self.instance.name} must be the same in all streams")
        return sum(int(row & np.uint64(1)) << bit for bit, row in enumerate(rows[:, 0]))

    def show(self) -> None:
        """Put the word on its nets."""
        self.values[self.instance.ports["value"]] = self.word

    def step(self) -> None:
        """Read and write."""
        if self._number("read_en"):
            self.accesses += 1
            self.word = self.contents.get(self._number("read_address"), np.zeros_like(self.word))
        if self._number("write_en"):
            self.accesses += 1
            self.writes += 1
            address = self._number("write_address")
            self.contents[address] = self.values[self.instance.ports["write_value"]].copy()


def constant(value: int, width: int, words: int) -> Words:
    """Rows of bits of a number that all lanes have."""
    bits = [~np.uint64(0) if value >> bit & 1 else np.uint64(0) for bit in range(width)]
    return np.repeat(np.array(bits)[:, None], words, axis=1)
