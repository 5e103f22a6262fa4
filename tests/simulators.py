"""Marks for tests that need a simulator."""

import importlib.util
import shutil

import pytest

__all__ = ["needs_icarus", "needs_verilator"]

COCOTB = importlib.util.find_spec("cocotb") is not None

needs_icarus = pytest.mark.skipif(
    not (COCOTB and shutil.which("iverilog")), reason="needs cocotb and Icarus Verilog"
)
needs_verilator = pytest.mark.skipif(
    not (
        COCOTB
        and (importlib.util.find_spec("verilator") or shutil.which("verilator"))
        and any(map(shutil.which, ("c++", "g++", "clang++")))
        and shutil.which("make")
        and shutil.which("perl")
    ),
    reason="needs cocotb, Verilator, a C++ compiler, make and perl",
)
