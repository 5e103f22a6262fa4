"""Hierarchical Verilog of a component: one module per distinct unit, the same text at every run."""

import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from amaranth.back import rtlil as amaranth_rtlil  # type: ignore[attr-defined]
from amaranth.hdl import ClockSignal, Fragment, Instance, ResetSignal, Signal, Value

# Not exported elsewhere in Amaranth 0.5.
from amaranth.hdl._ast import SignalDict
from amaranth.hdl._dsl import FSM
from amaranth.hdl._ir import PortDirection
from amaranth.lib.wiring import In, Out

from synth import rtlil
from synth.verilog_writer import write_module

__all__ = ["VerilogDesign", "to_verilog"]


_DIRECTIONS = {In: PortDirection.Input, Out: PortDirection.Output}


@dataclass(frozen=True)
class VerilogDesign:
    """Modules of one design.

    Attributes
    ----------
    top : str
        Name of the top module.
    modules : dict of str to str
        Text of each module by name; a module comes after those that it instantiates.
    children : dict of str to Counter
        Number of direct instances by module name, for each module.
    files : dict of str to str
        Text of each memory image that the modules load, by file name.
    """

    top: str
    modules: dict[str, str]
    children: dict[str, Counter[str]]
    files: dict[str, str] = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        """The whole design as one Verilog file, top module first."""
        return "\n".join(reversed(self.modules.values()))

    def counts(self) -> Counter[str]:
        """Instances of each module in the whole design, the top included."""
        totals: Counter[str] = Counter({self.top: 1})
        for name in reversed(self.modules):  # parents come before their children
            for child, count in self.children[name].items():
                totals[child] += totals[name] * count
        return totals


def to_verilog(component: Any, name: str | None = None) -> VerilogDesign:
    """Convert ``component`` and everything placed in it (:func:`hdl.hierarchy.place`).

    The text depends on the component and the versions of Narrowgauge and Amaranth alone.

    Parameters
    ----------
    component : Component
        Top of the design.
    name : str, optional
        Name of its module; its ``module_name`` by default.

    Raises
    ------
    ValueError
        If two different components have one module name, or a component has something that
        plain Verilog has not (an assertion, say).
    """
    hierarchy = _Hierarchy()
    top = hierarchy.convert(component, name or str(component.module_name))
    return VerilogDesign(top, hierarchy.modules, hierarchy.children, hierarchy.files)


class _Hierarchy:
    """Platform that turns placed components into instances of modules of their own."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self.children: dict[str, Counter[str]] = {}
        self.files: dict[str, str] = {}
        self._extra_ports: dict[str, list[str]] = {}  # clocks and resets
        self._kinds: dict[str, tuple[type, object]] = {}
        self._stack: list[_Level] = []

    def convert(self, component: Any, name: str) -> str:
        """Write the module of ``component`` unless it is there already; return its name."""
        kind = type(component), component.signature
        if self._kinds.setdefault(name, kind) != kind:
            raise ValueError(f"module_name must be of one component, not {name!r} of two")
        if name in self.modules:
            return name
        ports = {
            "__".join(map(str, path)): (Value.cast(value), _DIRECTIONS[member.flow])
            for path, member, value in component.signature.flatten(component)
        }
        self._stack.append(level := _Level())
        fragment = Fragment.get(component, self)
        text, paths = amaranth_rtlil.convert_fragment(fragment, ports, name, emit_src=False)
        self._stack.pop()

        # What is not placed is no unit of its own: it becomes part of the module.
        module = rtlil.flatten(rtlil.parse(text), name)
        wires = SignalDict((signal, "_".join(path[1:])) for signal, path in paths.items())
        extra = [
            wire.name for wire in module.wires.values() if wire.port and wire.name not in ports
        ]
        written = write_module(
            module,
            ports=[*sorted(extra), *ports],
            optional=extra,
            header=[_purpose(component), _generator()],
            states=_states(fragment, wires),
            hidden={wires[signal] for signal in level.ports if signal in wires},
        )
        # A unit whose registers need no reset has no input for it.
        self._extra_ports[name] = [port for port in extra if port in written.inputs]
        self.children[name] = level.children
        self.modules[name] = written.text
        self.files |= written.files
        return name

    def instantiate(self, component: Any) -> Instance:
        """Instance of ``component`` with the ports of its signature."""
        name = self.convert(component, component.module_name)
        level = self._stack[-1]
        level.children[name] += 1
        ports: dict[str, Any] = {}
        for extra in self._extra_ports[name]:
            domain, _, kind = extra.rpartition("_")
            make = ClockSignal if kind == "clk" else ResetSignal
            ports[f"i_{extra}"] = make(domain or "sync")
        for path, member, value in component.signature.flatten(component):
            direction = "i" if member.flow == In else "o"
            ports[f"{direction}_{'__'.join(map(str, path))}"] = value
            signal = Value.cast(value)
            if isinstance(signal, Signal):
                level.ports.append(signal)
        return Instance(name, **ports)


@dataclass
class _Level:
    """What is placed in the module that is being converted."""

    children: Counter[str] = field(default_factory=Counter)
    ports: list[Signal] = field(default_factory=list)


def _purpose(component: object) -> str:
    """First paragraph of the component's docstring."""
    paragraph = (type(component).__doc__ or type(component).__name__).strip().partition("\n\n")[0]
    return " ".join(paragraph.split())


def _generator() -> str:
    """Name and version of what writes the text."""
    try:
        version = f" {importlib.metadata.version('narrowgauge')}"
    except importlib.metadata.PackageNotFoundError:
        version = ""  # used from its sources
    amaranth = importlib.metadata.version("amaranth")
    return f"Generated by Narrowgauge{version} with Amaranth {amaranth}; do not edit."


def _states(fragment: Any, wires: Mapping[Signal, str]) -> dict[str, dict[int, str]]:
    """Names of the states of every state machine, by the wire that holds the state."""
    states: dict[str, dict[int, str]] = {}
    for item in fragment.generated.values():
        machine: Any = item
        if isinstance(item, FSM) and machine.state in wires:
            names = {value: str(name) for name, value in machine.encoding.items()}
            states[wires[machine.state]] = names
    for child, *_ in fragment.subfragments:
        states |= _states(child, wires)
    return states
