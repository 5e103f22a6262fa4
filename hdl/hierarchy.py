"""Placing one component inside another so that the generated Verilog keeps both as modules."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring

__all__ = ["mark_used", "place"]


def place(m: Module, name: str, component: wiring.Component, platform: Any) -> Any:
    """Add ``component`` to ``m`` as ``name`` and return it.

    In simulation it becomes an ordinary submodule.  A platform that writes Verilog has a method
    ``instantiate(component)`` and gets to turn it into an instance of a module that is emitted
    once, under ``component.module_name``, however often it is placed.
    """
    instantiate = getattr(platform, "instantiate", None)
    if instantiate is None:
        m.submodules[name] = component
    else:
        m.submodules[name] = instantiate(component)
        # It stands for a module that may have been written before.
        mark_used(component)
    return component


def mark_used(component: Any) -> None:
    """Keep Amaranth from warning that ``component`` was never elaborated."""
    vars(component)["_MustUse__used"] = True
