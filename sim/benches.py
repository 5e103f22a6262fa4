"""What tests benches have, told from their text: outside of a simulator none can be loaded."""

import ast
import functools
import importlib.util
from pathlib import Path

__all__ = ["bench_tests"]


@functools.cache
def bench_tests(bench: str) -> tuple[str, ...]:
    """Names of the tests of a bench, as results have them.

    Parameters
    ----------
    bench : str
        Module, such as ``sim.tb_mac``.

    Returns
    -------
    tuple of str
        In the order of the file; a test with parameters has a name for each of their values, such
        as ``dot_products/gaps=0``.
    """
    spec = importlib.util.find_spec(bench)
    assert spec is not None
    assert spec.origin is not None
    names = []
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.AsyncFunctionDef):
            continue
        calls = {
            ast.unparse(call.func): call.keywords
            for call in node.decorator_list
            if isinstance(call, ast.Call)
        }
        parameters = calls.get("cocotb.parametrize", [])
        if parameters:
            (parameter,) = parameters
            assert isinstance(parameter.value, ast.List)
            names += [f"{node.name}/{parameter.arg}={i}" for i in range(len(parameter.value.elts))]
        elif "cocotb.test" in calls:
            names.append(node.name)
    return tuple(names)
