"""Hierarchical Verilog of a component: one module per distinct unit, the same text at every run."""

import contextlib
import importlib.metadata
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from amaranth.back import rtlil as amaranth_rtlil  # type: ignore[attr-defined]  # not in stubs
from amaranth.hdl import ClockSignal, Fragment, Instance, ResetSignal, Signal, Value

# Not exported elsewhere in Amaranth 0.5.
from amaranth.hdl._ast import SignalDict
from amaranth.hdl._dsl import FSM
from amaranth.hdl._ir import PortDirection
from amaranth.lib.wiring import In, Out

from synth import rtlil
from synth.verilog_files import constraints, core_file, description, ports_of
from synth.verilog_names import plain_name
from synth.verilog_writer import write_module

__all__ = ["VerilogDesign", "to_verilog", "write"]

#: Waivers of ``verilator --lint-only -Wall``, each with its reason; they go with every design.
WAIVERS = Path(__file__).with_name("lint.vlt")

#: Part of the clock period that the constraints leave to what is outside, on either side.
OUTSIDE_SHARE = 0.2


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
    clocks, resets : tuple of str
        Inputs of the top module that are in no signature; resets are synchronous, active high.
    purpose : str
        What the design is for, in a sentence.
    """

    top: str
    modules: dict[str, str]
    children: dict[str, Counter[str]]
    files: dict[str, str] = field(default_factory=dict)
    clocks: tuple[str, ...] = ()
    resets: tuple[str, ...] = ()
    purpose: str = ""

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
        If two different components have one module name, one is no plain identifier, or a
        component has something that plain Verilog has not (an assertion, say).
    """
    hierarchy = _Hierarchy()
    top = hierarchy.convert(component, component.module_name if name is None else name)
    extra = hierarchy.extra_ports[top]
    return VerilogDesign(
        top,
        hierarchy.modules,
        hierarchy.children,
        hierarchy.files,
        clocks=tuple(port for port in extra if port.endswith("clk")),
        resets=tuple(port for port in extra if port.endswith("rst")),
        purpose=_purpose(component),
    )


def write(
    component: Any,
    folder: str | Path,
    *,
    name: str | None = None,
    spec: str = "",
    clock_ns: float = 2.0,
    input_delay_ns: float | None = None,
    output_delay_ns: float | None = None,
    latency: int | None = None,
    throughput: str | None = None,
) -> VerilogDesign:
    """Write the Verilog of ``component``, and beside it what a flow needs.

    The files are ``<top>.v``, ``<top>.json`` (ports, parameters, versions), ``<top>.sdc``
    (constraints), ``<top>.core`` (FuseSoC), ``<top>.vlt`` (waivers for Verilator) and a ``.hex``
    file for each memory.  They appear all or not at all.

    Parameters
    ----------
    component : Component
        Top of the design.
    folder : str or Path
        Where to write; it and those above it are made.  Files of these names are replaced.
    name : str, optional
        Name of the top module; its ``module_name`` by default.
    spec : str
        Number format, for the description.
    clock_ns : float
        Clock period of the constraints, in nanoseconds.
    input_delay_ns, output_delay_ns : float, optional
        Part of the period that is needed outside; a fifth of it by default, each.
    latency : int, optional
        Cycles from input to output; the component's own ``latency`` by default, and 0 without
        a clock.
    throughput : str, optional
        Results or inputs per cycle, in words; the component's own ``throughput`` by default.

    Returns
    -------
    VerilogDesign

    Raises
    ------
    ValueError
        If a time is out of range, or ``folder`` is no folder or cannot be written.
    """
    if not 0 < clock_ns < math.inf:
        raise ValueError(f"clock_ns must be a positive number, not {clock_ns}")
    outside = {}
    for field_name, delay in (
        ("input_delay_ns", input_delay_ns),
        ("output_delay_ns", output_delay_ns),
    ):
        outside[field_name] = OUTSIDE_SHARE * clock_ns if delay is None else delay
        if not 0 <= outside[field_name] < clock_ns:
            raise ValueError(f"{field_name} must be between 0 and the clock period, not {delay}")
    design = to_verilog(component, name)
    top = design.top
    ports = ports_of(component)
    named = {
        direction: [port for port, form in ports.items() if form["direction"] == direction]
        for direction in ("input", "output")
    }
    if latency is None:
        latency = getattr(component, "latency", None if design.clocks else 0)
    texts = {
        f"{top}.v": design.text,
        **design.files,
        f"{top}.sdc": constraints(
            top,
            clocks=design.clocks,
            inputs=[*design.resets, *named["input"]],
            outputs=named["output"],
            clock_ns=clock_ns,
            **outside,
        ),
        f"{top}.vlt": WAIVERS.read_text(encoding="utf-8"),
        f"{top}.core": core_file(
            top,
            purpose=design.purpose,
            version=_version("narrowgauge") or "0",
            images=list(design.files),
        ),
    }
    texts[f"{top}.json"] = description(
        component,
        name=top,
        purpose=design.purpose,
        spec=spec,
        clocks=design.clocks,
        resets=design.resets,
        instances=design.counts(),
        files=[*texts, f"{top}.json"],
        clock_ns=clock_ns,
        latency=latency,
        throughput=throughput or getattr(component, "throughput", None),
        tools={tool: _version(tool) or "unknown" for tool in ("narrowgauge", "amaranth")},
    )
    _write_together(Path(folder), texts)
    return design


def _write_together(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files into ``folder``: all of them, or none."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, not the file {str(folder)!r}")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    stage = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".narrowgauge-", dir=folder))
        for name, text in texts.items():
            (stage / name).write_text(text, encoding="utf-8", newline="\n")
        # Nothing but names changes from here on.
        for name in texts:
            (stage / name).replace(folder / name)
    except OSError as error:
        raise ValueError(
            f"folder must be writable, not {str(folder)!r} ({error.strerror})"
        ) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for path in missing:
            with contextlib.suppress(OSError):  # it holds something
                path.rmdir()


class _Hierarchy:
    """Platform that turns placed components into instances of modules of their own."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self.children: dict[str, Counter[str]] = {}
        self.files: dict[str, str] = {}
        self.extra_ports: dict[str, list[str]] = {}  # clocks and resets
        self._kinds: dict[str, tuple[type, object]] = {}
        self._stack: list[_Level] = []

    def convert(self, component: Any, name: str) -> str:
        """Write the module of ``component`` unless it is there already; return its name."""
        if plain_name(name) != name:
            raise ValueError(f"module_name must be a plain Verilog identifier, not {name!r}")
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
        wires = SignalDict((signal, "/".join(path[1:])) for signal, path in paths.items())
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
        self.extra_ports[name] = [port for port in extra if port in written.inputs]
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
        for extra in self.extra_ports[name]:
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
    names = {"Narrowgauge": _version("narrowgauge"), "Amaranth": _version("amaranth")}
    tools = [f"{tool} {version}".strip() for tool, version in names.items()]
    return f"Generated by {' with '.join(tools)}; do not edit."


def _version(distribution: str) -> str:
    """Version of a distribution, empty if it is used from its sources."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


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
