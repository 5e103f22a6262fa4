"""Hierarchical Verilog of a component: one module per distinct unit, the same text at every run."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import ClockSignal, Instance, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["VerilogDesign", "to_verilog"]


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
    """

    top: str
    modules: dict[str, str]
    children: dict[str, Counter[str]]

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


def to_verilog(component: wiring.Component, name: str | None = None) -> VerilogDesign:
    """Convert ``component`` and everything placed in it (:func:`hdl.hierarchy.place`).

    The text depends on the component alone: the Yosys that comes with Amaranth is used, not one
    that happens to be installed, and no source paths are written.

    Parameters
    ----------
    component : Component
        Top of the design.
    name : str, optional
        Name of its module; its ``module_name`` by default.
    """
    writer = _HierarchyWriter()
    top = writer.convert(component, name or component.module_name)
    return VerilogDesign(top, writer.modules, writer.children)


class _HierarchyWriter:
    """Platform that turns placed components into instances of modules of their own."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self.children: dict[str, Counter[str]] = {}
        self._stack: list[Counter[str]] = []

    def convert(self, component: wiring.Component, name: str) -> str:
        """Write the module of ``component`` unless it is there already; return its name."""
        if name in self.modules:
            return name
        os.environ["AMARANTH_USE_YOSYS"] = "builtin"
        self._stack.append(Counter())
        text = verilog.convert(
            component, name=name, platform=self, emit_src=False, strip_internal_attrs=True
        )
        self.children[name] = self._stack.pop()
        self.modules[name] = _tidy(text)
        return name

    def instantiate(self, component: Any) -> Instance:
        """Instance of ``component`` with the ports of its signature."""
        name = self.convert(component, component.module_name)
        self._stack[-1][name] += 1
        ports: dict[str, Any] = {}
        if re.search(r"^  input clk;", self.modules[name], re.M):
            ports |= {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        for path, member, value in component.signature.flatten(component):
            direction = "i" if member.flow == In else "o"
            ports[f"{direction}_{'__'.join(map(str, path))}"] = value
        return Instance(name, **ports)


def _tidy(text: str) -> str:
    """Drop the lines that only the tool that wrote ``text`` needs."""
    lines = (line for line in text.splitlines() if not line.startswith("/*"))
    return "\n".join(lines).strip("\n") + "\n"
