"""Imports go one way: golden <- hdl <- {sim, synth} <- narrowgauge."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Folders of the project that each folder may import, itself included.
ALLOWED = {
    "golden": {"golden"},
    "hdl": {"golden", "hdl"},
    "sim": {"golden", "hdl", "sim"},
    "synth": {"golden", "hdl", "synth"},
    "narrowgauge": {"golden", "hdl", "sim", "synth", "narrowgauge"},
}
#: Everything else that these folders may import, but for the standard library.
THIRD_PARTY = {"golden": {"numpy"}, "hdl": {"amaranth"}}

#: Calls that import a module by name.
IMPORT_CALLS = {"__import__", "import_module"}


def imported(source, package):
    """Names of all modules that a source imports, at any depth, with their line numbers.

    ``package`` is the dotted name of the package that the source is in.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, node.lineno
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((".".join([*base, name]), node.lineno) for name in names)
        elif isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", None))
            if name in IMPORT_CALLS and node.args and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value, node.lineno


def offences(source, package):
    """Imports of a source that go against the direction, as "line: module"."""
    folder = package.split(".")[0]
    bad = []
    for module, line in imported(source, package):
        top = module.split(".")[0]
        if top in ALLOWED or top == "tests":
            good = top in ALLOWED[folder]
        else:
            others = THIRD_PARTY.get(folder)
            good = others is None or top in others or top in sys.stdlib_module_names
        if not good:
            bad.append(f"{line}: {module}")
    return bad


@pytest.mark.parametrize("folder", ALLOWED)
def test_direction(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = {}
    for path in paths:
        package = ".".join(path.relative_to(ROOT).parent.parts)
        found[path.relative_to(ROOT).as_posix()] = offences(path.read_text(), package)
    assert {path: bad for path, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    ("package", "source", "bad"),
    [
        ("golden", "import numpy as np\nimport json\nfrom golden.fixed import FixedSpec", []),
        ("golden", "import hdl.fixed", ["1: hdl.fixed"]),
        ("golden", "import json, amaranth.lib", ["1: amaranth.lib"]),
        ("golden", "def f():\n    from hdl import fixed", ["2: hdl"]),
        ("golden", "if TYPE_CHECKING:\n    import synth", ["2: synth"]),
        ("golden", "from ..hdl import fixed", ["1: hdl"]),
        ("golden", "import importlib\nimportlib.import_module('synth.yosys')", ["2: synth.yosys"]),
        ("golden", "__import__('scipy')", ["1: scipy"]),
        ("hdl", "from amaranth.hdl import Module\nfrom golden.fixed import FixedSpec", []),
        ("hdl", "import numpy", ["1: numpy"]),
        ("hdl", "from synth import verilog", ["1: synth"]),
        ("sim", "import cocotb\nfrom hdl import fixed", []),
        ("sim", "from synth import verilog", ["1: synth"]),
        ("synth.libraries", "from ...sim import tb", ["1: sim"]),
        ("synth.libraries", "from .. import yosys\nfrom . import nangate45", []),
        ("synth", "import narrowgauge", ["1: narrowgauge"]),
        ("narrowgauge", "import golden, hdl, sim, synth, click", []),
        ("narrowgauge", "from tests.simulate import run", ["1: tests.simulate"]),
    ],
)
def test_offences(package, source, bad):
    """The check itself finds every kind of import."""
    assert offences(source, package) == bad
