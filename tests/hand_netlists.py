"""Netlists written by hand, in the form in which mapping gives them."""

from collections.abc import Mapping, Sequence
from typing import Any

from synth.yosys import MappedNetlist

__all__ = ["hand_mapped", "hand_module"]


def hand_module(
    cells: Mapping[str, tuple[str, Mapping[str, int]]],
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Module in JSON of Yosys: instances as ``name: (type, pin=bit)``, and bits of each port."""
    ports = {name: ("input", bits) for name, bits in inputs.items()}
    ports |= {name: ("output", bits) for name, bits in outputs.items()}
    return {
        "ports": {
            name: {"direction": direction, "bits": list(bits)}
            for name, (direction, bits) in ports.items()
        },
        "cells": {
            name: {"type": kind, "connections": {pin: [bit] for pin, bit in pins.items()}}
            for name, (kind, pins) in cells.items()
        },
        "netnames": {},
    }


def hand_mapped(module: dict[str, Any], top: str = "hand") -> MappedNetlist:
    """Result of mapping with a module and nothing else."""
    return MappedNetlist(
        top=top,
        module=module,
        verilog="",
        area_um2=0.0,
        cells_by_type={},
        recipe="default",
        clock_ns=None,
        tool="",
    )
