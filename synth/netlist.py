"""A mapped netlist as numbers: nets, cells, drivers, sinks, levels and classes.

Everything that measures a netlist (activity, timing, energy) starts from `Netlist`, which checks
once what they all rely on: one driver per net, no combinational loop.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.cells import Cell, CellLibrary, ClockGate, FlipFlop
from synth.yosys import MappedNetlist

__all__ = [
    "CONSTANT_0",
    "CONSTANT_1",
    "CellClass",
    "Instance",
    "Netlist",
    "Port",
    "cell_models",
    "classify",
]

CONSTANT_0 = 0
CONSTANT_1 = 1
# Undefined constants may have either value; 0 is chosen.
CONSTANT_BITS: dict[int | str, int] = {
    "0": CONSTANT_0,
    "1": CONSTANT_1,
    "x": CONSTANT_0,
    "z": CONSTANT_0,
}


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the module.

    Parameters
    ----------
    name : str
        Name in the source.
    direction : str
        ``"input"`` or ``"output"``.
    nets : tuple of int
        Net of each bit, least significant first.
    """

    name: str
    direction: str
    nets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """A placed cell, or a black box.

    Parameters
    ----------
    name, type : str
        Name of the instance and of what it is an instance of.
    cell : Cell or None
        The library cell; None for a black box.
    inputs, outputs : dict of str to int
        Net at every connected pin; pins of black boxes are ``name[bit]``.
    """

    name: str
    type: str
    cell: Cell | None
    inputs: dict[str, int]
    outputs: dict[str, int]

    @property
    def ff(self) -> FlipFlop | None:
        """The flip-flop in the cell, if it is one."""
        return None if self.cell is None else self.cell.ff


class Netlist:
    """Nets and cells of one flattened module, in an order in which it can be evaluated.

    Nets are numbered from 0; the first two are the constants 0 and 1.

    Parameters
    ----------
    mapped : MappedNetlist
        Result of `synth.yosys.map_netlist`.
    library : CellLibrary
        The library that it was mapped to.

    Attributes
    ----------
    top : str
        Name of the module.
    library : CellLibrary
        Cells.
    net_names : list of str
        Name of every net; the shortest where it has several.
    yosys_bits : list of int or str
        Number of every net in the JSON of Yosys, which `synth.timing` uses.
    ports : dict of str to Port
        In the order of the module.
    instances : list of Instance
        Cells and black boxes, in the order of the netlist.
    drivers : list of (int, str) or None
        Instance and pin that drive each net; None for constants and input ports.
    sinks : list of list of (int, str)
        Instances and pins that each net drives.
    registers, clock_gates, blackboxes : list of int
        Instances that are flip-flops, that are clock gates, and that are not cells of the library.
    levels : ndarray of int, shape (instances,)
        Longest path in cells from a register, port, constant or black box to the instance;
        registers, clock gates and black boxes have 0.
    order : list of int
        Instances in an order in which each comes after those that drive it.  Flip-flops with an
        asynchronous set or reset are in it, because their outputs follow that pin at once; other
        flip-flops, clock gates and black boxes are not.

    Raises
    ------
    ValueError
        If a net has no driver or several, a port is an inout, a cell has a pin that the library
        does not know, or cells form a combinational loop.
    """

    def __init__(self, mapped: MappedNetlist, library: CellLibrary) -> None:
        self.top = mapped.top
        self.library = library
        numbers = dict(CONSTANT_BITS)
        self.net_names = ["1'b0", "1'b1"]
        self.yosys_bits: list[int | str] = ["0", "1"]

        def net(bit: int | str) -> int:
            if bit not in numbers:
                numbers[bit] = len(self.net_names)
                self.net_names.append("")
                self.yosys_bits.append(bit)
            return numbers[bit]

        module = mapped.module
        for name, port in module["ports"].items():
            if port["direction"] not in ("input", "output"):
                raise ValueError(f"port {name} must be an input or an output, not an inout")
        self.ports = {
            name: Port(name, port["direction"], tuple(net(bit) for bit in port["bits"]))
            for name, port in module["ports"].items()
        }
        self.instances = [
            _instance(name, cell, library, net) for name, cell in module["cells"].items()
        ]
        self._named_bits: dict[str, tuple[int, ...]] = {}
        self._name_nets(module["netnames"], numbers)

        numbered = list(enumerate(self.instances))
        self.registers = [index for index, instance in numbered if instance.ff is not None]
        self.clock_gates = [
            index
            for index, instance in numbered
            if instance.cell is not None and instance.cell.clock_gate is not None
        ]
        self.blackboxes = [index for index, instance in numbered if instance.cell is None]
        self._connect()
        self._levelise()

    def _name_nets(
        self, names: Mapping[str, Mapping[str, Any]], numbers: Mapping[int | str, int]
    ) -> None:
        """Give every net the shortest of its names, those that Yosys made only if need be."""
        ranked: dict[int, tuple[bool, int, str]] = {}
        for name, entry in names.items():
            bits = tuple(numbers.get(bit, -1) for bit in entry["bits"])
            if -1 not in bits:
                self._named_bits[name] = bits
            for index, number in enumerate(bits):
                full = name if len(bits) == 1 else f"{name}[{index}]"
                rank = (bool(entry.get("hide_name")), len(full), full)
                if number > CONSTANT_1 and (number not in ranked or rank < ranked[number]):
                    ranked[number] = rank
                    self.net_names[number] = full

    def _connect(self) -> None:
        self.drivers: list[tuple[int, str] | None] = [None] * len(self.net_names)
        self.sinks: list[list[tuple[int, str]]] = [[] for _ in self.net_names]
        sourced = {CONSTANT_0, CONSTANT_1}
        for port in self.ports.values():
            if port.direction == "input":
                sourced.update(port.nets)
        for index, instance in enumerate(self.instances):
            for pin, number in instance.outputs.items():
                if number in sourced:
                    raise ValueError(
                        f"net {self.net_names[number]} must have one driver, not also "
                        f"{instance.name}.{pin}"
                    )
                sourced.add(number)
                self.drivers[number] = (index, pin)
            for pin, number in instance.inputs.items():
                self.sinks[number].append((index, pin))
        used = {number for number, sinks in enumerate(self.sinks) if sinks}
        for port in self.ports.values():
            used.update(port.nets)
        for number in sorted(used - sourced):
            raise ValueError(f"net {self.net_names[number]} must have a driver, not none")

    def _levelise(self) -> None:
        """Kahn's algorithm over the instances whose outputs follow an input at once."""
        self.levels = np.zeros(len(self.instances), np.int32)
        pins = [_immediate_pins(instance) for instance in self.instances]
        ordered = {index for index, names in enumerate(pins) if names is not None}
        waiting = {
            index: sum(
                driver is not None and driver[0] in ordered
                for driver in (
                    self.drivers[self.instances[index].inputs[pin]] for pin in pins[index] or ()
                )
            )
            for index in ordered
        }
        self.order: list[int] = []
        ready = sorted(index for index, count in waiting.items() if count == 0)
        level = 0
        while ready:
            level += 1
            self.order += ready
            self.levels[ready] = level
            following = []
            for index in ready:
                for number in self.instances[index].outputs.values():
                    for sink, pin in self.sinks[number]:
                        if sink in ordered and pin in (pins[sink] or ()):
                            waiting[sink] -= 1
                            if waiting[sink] == 0:
                                following.append(sink)
            ready = sorted(following)
        stuck = sorted(self.instances[index].name for index, count in waiting.items() if count > 0)
        if stuck:
            raise ValueError(
                f"netlist {self.top} must have no combinational loop, not one through "
                f"{', '.join(stuck[:4])}{' and more' if len(stuck) > 4 else ''}"
            )

    @property
    def net_count(self) -> int:
        """Number of nets, the two constants among them."""
        return len(self.net_names)

    def bits(self, name: str) -> tuple[int, ...]:
        """Nets of a port, register or other named signal, least significant bit first.

        Raises
        ------
        ValueError
            If the netlist has no such name.
        """
        if name in self.ports:
            return self.ports[name].nets
        if name not in self._named_bits:
            raise ValueError(
                f"name must be a port or signal of {self.top} that mapping has kept, not {name!r}"
            )
        return self._named_bits[name]

    @cached_property
    def clock(self) -> int | None:
        """Net of the one clock before all clock gates; None if there is no flip-flop.

        Raises
        ------
        ValueError
            If flip-flops have different clocks or edges, or the clock is not an input port.
        """
        found: dict[tuple[int, str], str] = {}
        for instance in self.instances:
            gate = None if instance.cell is None else instance.cell.clock_gate
            if instance.ff is not None:
                clock = instance.inputs[instance.ff.clock]
                if clock in self.enables:
                    continue  # the gate has the clock
                found.setdefault((clock, instance.ff.clock_edge), instance.name)
            elif gate is not None:
                found.setdefault((instance.inputs[gate.clock], "rising"), instance.name)
        if len(found) > 1:
            raise ValueError(
                f"registers of {self.top} must share one clock and edge, not differ as "
                f"{' and '.join(list(found.values())[:2])} do"
            )
        for number, _ in found:
            if self.drivers[number] is not None or number in (CONSTANT_0, CONSTANT_1):
                raise ValueError(
                    f"clock of {self.top} must be an input port, not {self.net_names[number]}"
                )
            return number
        return None

    @property
    def clocks(self) -> tuple[int, ...]:
        """Nets of the clock and of all gated clocks."""
        return () if self.clock is None else (self.clock, *self.enables)

    @cached_property
    def enables(self) -> dict[int, int]:
        """Net that enables each gated clock, by the net of the gated clock.

        Raises
        ------
        ValueError
            If a test input of a clock gate is not held at 0, or a gated clock drives anything but
            clock pins of flip-flops of the rising edge.
        """
        enables = {}
        for index in self.clock_gates:
            instance = self.instances[index]
            gate = None if instance.cell is None else instance.cell.clock_gate
            if gate is None or gate.output not in instance.outputs:
                continue
            for pin in gate.tests:
                if instance.inputs[pin] not in self._zeros:
                    raise ValueError(f"test input {instance.name}.{pin} must be held at 0")
            number = instance.outputs[gate.output]
            if number in self.outside or any(
                (ff := self.instances[sink].ff) is None
                or pin != ff.clock
                or ff.clock_edge != "rising"
                for sink, pin in self.sinks[number]
            ):
                raise ValueError(
                    f"gated clock {self.net_names[number]} must drive the clock pins of "
                    "flip-flops of the rising edge alone"
                )
            enables[number] = instance.inputs[gate.enable]
        return enables

    @property
    def _zeros(self) -> set[int]:
        """Nets that are always 0: the constant, and what tie cells drive."""
        return {CONSTANT_0} | {
            number
            for instance in self.instances
            if instance.cell is not None and not instance.cell.inputs
            for pin, number in instance.outputs.items()
            if instance.cell.functions[pin].truth_table() == 0
        }

    @property
    def outside(self) -> set[int]:
        """Nets of output ports."""
        return {
            number
            for port in self.ports.values()
            if port.direction == "output"
            for number in port.nets
        }

    @property
    def area_um2(self) -> float:
        """Area of all library cells in um2."""
        return sum(item.cell.area_um2 for item in self.instances if item.cell is not None)

    @cached_property
    def cells_by_type(self) -> dict[str, int]:
        """Instances of each cell and black box, by name."""
        return dict(sorted(Counter(instance.type for instance in self.instances).items()))

    def loads_ff(
        self, *, wire_cap_ff: float = 0.0, output_load_ff: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Capacitance that the driver of each net sees, as `synth.timing.analyse` counts it.

        Parameters
        ----------
        wire_cap_ff : float
            Capacitance of the wire to every pin or output port on a net, in fF.
        output_load_ff : float
            Load on every output port, in fF.

        Returns
        -------
        ndarray of float64, shape (nets,)
            Pins, wires and output ports in fF; 0 for the constants.

        Raises
        ------
        ValueError
            If a capacitance is negative.
        """
        for field, value in (("wire_cap_ff", wire_cap_ff), ("output_load_ff", output_load_ff)):
            if not value >= 0:
                raise ValueError(f"{field} must not be negative, not {value}")
        loads = np.zeros(self.net_count)
        for number, sinks in enumerate(self.sinks):
            for index, pin in sinks:
                cell = self.instances[index].cell
                loads[number] += wire_cap_ff + (0.0 if cell is None else cell.pins[pin].cap_ff)
        for port in self.ports.values():
            if port.direction == "output":
                for number in port.nets:
                    loads[number] += wire_cap_ff + output_load_ff
        loads[[CONSTANT_0, CONSTANT_1]] = 0.0
        return loads


def _instance(
    name: str,
    entry: Mapping[str, Any],
    library: CellLibrary,
    net: Callable[[int | str], int],
) -> Instance:
    """Make an instance of an entry of Yosys' JSON."""
    cell = library.cells.get(entry["type"])
    pins: dict[str, dict[str, int]] = {"input": {}, "output": {}}
    for pin, bits in entry["connections"].items():
        if cell is not None and pin not in cell.pins:
            raise ValueError(f"instance {name} must have pins of {cell.name} only, not {pin!r}")
        direction = entry["port_directions"][pin] if cell is None else cell.pins[pin].direction
        for index, bit in enumerate(bits):
            # Only black boxes have pins of several bits.
            full = pin if cell is not None else f"{pin}[{index}]"
            pins[direction][full] = net(bit)
    return Instance(name, entry["type"], cell, pins["input"], pins["output"])


def _immediate_pins(instance: Instance) -> tuple[str, ...] | None:
    """List the inputs that outputs follow without waiting for a clock; None if there are none."""
    if instance.cell is None or instance.cell.clock_gate is not None:
        return None
    if instance.ff is None:
        return tuple(instance.inputs)
    controls = [control for control in (instance.ff.clear, instance.ff.preset) if control]
    return tuple({name for control in controls for name in control.inputs}) or None


def cell_models(library: CellLibrary, names: Iterable[str], *, any_state: bool = False) -> str:
    """Write the behaviour of cells as Verilog, for simulation of mapped netlists.

    Cells have no delay.

    Parameters
    ----------
    library : CellLibrary
        Where the functions of the cells stand.
    names : iterable of str
        Cells to write.
    any_state : bool
        Whether flip-flops start at random values, as those of a chip do, and not at 0.

    Returns
    -------
    str
        One Verilog-2005 module per cell.

    Raises
    ------
    ValueError
        If the library has no cell of one of these names.
    """
    texts = []
    for name in names:
        if name not in library.cells:
            raise ValueError(f"names must be cells of {library.name}, not {name!r}")
        cell = library.cells[name]
        lines = [f"  input {pin};" for pin in cell.inputs]
        lines += [f"  output {pin};" for pin in cell.outputs]
        if cell.ff is not None:
            lines += _flip_flop_model(cell.ff, "$random" if any_state else "0")
        if cell.clock_gate is not None:
            lines += _clock_gate_model(cell.clock_gate)
        lines += [f"  assign {pin} = {function};" for pin, function in cell.functions.items()]
        ports = ", ".join([*cell.inputs, *cell.outputs])
        texts.append("\n".join([f"module {name}({ports});", *lines, "endmodule\n"]))
    return "\n".join(texts)


def _clock_gate_model(gate: ClockGate) -> list[str]:
    enable = " | ".join((gate.enable, *gate.tests))
    return [
        "  reg held;",
        "  initial held = 0;",
        f"  always @* if (~{gate.clock}) held = {enable};",
        f"  assign {gate.output} = {gate.clock} & held;",
    ]


def _flip_flop_model(ff: FlipFlop, start: str) -> list[str]:
    events = [f"{'posedge' if ff.clock_edge == 'rising' else 'negedge'} {ff.clock}"]
    lines = [
        f"  reg {ff.state};",
        f"  initial {ff.state} = {start};",
        f"  wire {ff.inverted_state} = ~{ff.state};",
    ]
    action = f"{ff.state} <= {ff.next_state};"
    # The later one is tested first: both at once preset.
    for name, function, value in (("clear", ff.clear, 0), ("preset", ff.preset, 1)):
        if function is not None:
            lines.append(f"  wire {name}_ = {function};")
            events.append(f"posedge {name}_")
            action = f"if ({name}_) {ff.state} <= {value}; else {action}"
    return [*lines, f"  always @({' or '.join(events)}) {action}"]


class CellClass(StrEnum):
    """What a cell is there for."""

    DECODE = "decode"
    MULTIPLY = "multiply"
    ACCUMULATE = "accumulate"
    REGISTERS = "registers"
    CLOCK = "clock"


def classify(
    netlist: Netlist,
    *,
    operands: Mapping[str, Iterable[str]],
    accumulators: Iterable[str],
    decoders: bool = False,
) -> list[CellClass]:
    """Say for each instance of a multiply-accumulate unit what it is there for.

    The rule looks at the structure alone.  A cell *depends* on a signal if there is a path from it
    through combinational cells; dependence on operands goes on through registers that are not
    accumulators, so that pipelining does not matter.  In this order:

    1. flip-flops are ``registers``, clock gates are ``clock``;
    2. cells that depend on an accumulator are ``accumulate``, and so are cells that depend on no
       operand and from which a path leads to such a cell or to an accumulator (they steer it);
    3. cells that depend on exactly one operand are ``decode`` if ``decoders``;
    4. cells that depend on at most one operand, and from which every path leads, through such
       cells, to a register that is not an accumulator, are ``registers`` (they load, hold or reset
       it);
    5. all others are ``multiply``.

    Parameters
    ----------
    netlist : Netlist
        The unit; black boxes get a class like other cells.
    operands : mapping of str to iterable of str
        Ports and registers that carry each operand, by the operand's name.
    accumulators : iterable of str
        Ports and registers that carry the sum.
    decoders : bool
        Whether the unit decodes its operands.

    Returns
    -------
    list of CellClass
        Class of each of ``netlist.instances``.

    Raises
    ------
    ValueError
        If a name is not in the netlist.
    """
    accumulator_nets = {number for name in accumulators for number in netlist.bits(name)}
    operand_bits = {
        number: 1 << index
        for index, names in enumerate(operands.values())
        for name in names
        for number in netlist.bits(name)
    }
    depends = _dependence(netlist, operand_bits, accumulator_nets)
    on_sum = _dependence(netlist, dict.fromkeys(accumulator_nets, 1), None)
    beyond = [
        END_ACCUMULATE if on else END_ELSEWHERE if mask.bit_count() > 1 else 0
        for on, mask in zip(on_sum, depends, strict=True)
    ]
    ends = _ends(netlist, accumulator_nets, beyond)

    classes = []
    for index, instance in enumerate(netlist.instances):
        count = depends[index].bit_count()
        if instance.ff is not None:
            classes.append(CellClass.REGISTERS)
        elif instance.cell is not None and instance.cell.clock_gate is not None:
            classes.append(CellClass.CLOCK)
        elif on_sum[index] or (count == 0 and ends[index] & END_ACCUMULATE):
            classes.append(CellClass.ACCUMULATE)
        elif decoders and count == 1:
            classes.append(CellClass.DECODE)
        elif count <= 1 and ends[index] == END_REGISTER:
            classes.append(CellClass.REGISTERS)
        else:
            classes.append(CellClass.MULTIPLY)
    return classes


# Where paths from a cell lead: to the sum or its register, to another register, elsewhere.
END_ACCUMULATE = 1
END_REGISTER = 2
END_ELSEWHERE = 4


def _dependence(
    netlist: Netlist, sources: Mapping[int, int], barrier: set[int] | None
) -> list[int]:
    """Find the sources, as bits, on which each instance depends.

    With a ``barrier``, dependence goes on through registers unless they drive a net of it;
    without one, it ends at registers.
    """
    masks = [0] * len(netlist.instances)
    nets = [0] * netlist.net_count
    for number, bit in sources.items():
        nets[number] |= bit
    changed = True
    while changed:
        changed = False
        for index in [*netlist.registers, *netlist.blackboxes, *netlist.order]:
            instance = netlist.instances[index]
            mask = 0
            for number in instance.inputs.values():
                mask |= nets[number]
            masks[index] |= mask
            for number in instance.outputs.values():
                if instance.ff is not None and (barrier is None or number in barrier):
                    continue
                if mask & ~nets[number]:
                    nets[number] |= mask
                    changed = True
    return masks


def _ends(netlist: Netlist, accumulator_nets: set[int], beyond: list[int]) -> list[int]:
    """Find where the combinational paths from each instance lead, as a set of bits.

    A path into an instance of which ``beyond`` is not 0 leads there, too.
    """
    ends = [0] * len(netlist.instances)
    outside = netlist.outside

    def end_of(sink: int) -> int:
        instance = netlist.instances[sink]
        if instance.cell is None:
            return END_ELSEWHERE
        if instance.ff is not None:
            holds_sum = accumulator_nets.intersection(instance.outputs.values())
            return END_ACCUMULATE if holds_sum else END_REGISTER
        return ends[sink] | beyond[sink]

    for index in reversed(netlist.order):
        for number in netlist.instances[index].outputs.values():
            if number in outside:
                ends[index] |= END_ELSEWHERE
            for sink, _ in netlist.sinks[number]:
                ends[index] |= end_of(sink)
    return ends
