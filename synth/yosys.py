"""Mapping of Verilog to the cells of a library with Yosys and ABC.

Yosys runs in a child process of its own session, because it can abort, hang or print without end:
the caller gets a mapped netlist or one `YosysError` of one line, and no process is left behind.
No name of the user's files reaches a script; texts are written under fixed names into a private
folder that is removed afterwards.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from synth.cache import Cache, content_key

__all__ = ["RECIPES", "MappedNetlist", "Recipe", "YosysError", "map_netlist", "yosys_version"]

# Part of every cache key: raised when the meaning of a stored result changes.
SCHEMA = 1

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")

CHILD = """\
import ctypes, signal, sys
# A parent that is killed cannot clean up; Linux then ends this process too.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
from pyosys import libyosys
design = libyosys.Design()
for line in open("script.ys", encoding="ascii"):
    libyosys.run_pass(line.strip(), design)
"""


class YosysError(ValueError):
    """Yosys refused the design, crashed, or ran out of time; the message is one line."""


class MappingLibrary(Protocol):
    """What mapping needs of a cell library."""

    @property
    def digest(self) -> str:
        """Hash of the library's contents."""

    def liberty_text(self) -> str:
        """Liberty source of all cells."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a design is synthesised.

    Parameters
    ----------
    description : str
        One line for reports.
    synth : str
        Options of Yosys' ``synth``.
    """

    description: str
    synth: str = ""


RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(
        description="Booth multipliers, ABC mapping with buffering and sizing", synth="-booth"
    ),
    "plain": Recipe(description="Yosys' synth and abc as they are"),
}


@dataclass(frozen=True, kw_only=True)
class MappedNetlist:
    """A design in terms of library cells.

    Parameters
    ----------
    top : str
        Name of the module.
    module : dict
        The module as Yosys' ``write_json`` gives it: ``ports``, ``cells``, ``netnames``.
    verilog : str
        The same netlist as Verilog.
    area_um2 : float
        Area of all library cells, in square micrometres; black boxes count as 0.
    cells_by_type : dict of str to int
        Instances of each cell and black box.
    recipe : str
        Name of the recipe.
    clock_ns : float or None
        Delay target, in nanoseconds.
    tool : str
        Name and version of the tool.
    """

    top: str
    module: dict[str, Any]
    verilog: str
    area_um2: float
    cells_by_type: dict[str, int]
    recipe: str
    clock_ns: float | None
    tool: str

    @property
    def cell_count(self) -> int:
        """Instances of all cells and black boxes."""
        return sum(self.cells_by_type.values())


def yosys_version() -> str:
    """Name and version of the synthesis tool, for reports."""
    return f"Yosys {importlib.metadata.version('pyosys')} (pyosys)"


def map_netlist(
    verilog: str | Mapping[str, str],
    top: str,
    library: MappingLibrary,
    *,
    clock_ns: float | None = None,
    recipe: str = "default",
    blackboxes: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
    cache: Cache | None = None,
) -> MappedNetlist:
    """Map a design to library cells; one result per content, kept in the cache.

    Parameters
    ----------
    verilog : str or mapping of str to str
        Verilog-2005 source, or several by name; the names appear in error messages only.
    top : str
        Module to map; what it instantiates is flattened into it.
    library : CellLibrary
        Cells to map to.
    clock_ns : float, optional
        Clock period that mapping aims at, in nanoseconds; without it, for area alone.
    recipe : str
        Key of `RECIPES`.
    blackboxes : mapping of str to str, optional
        Verilog stub of each module whose instances are kept as they are, by module name.
    timeout_s : float
        Longest time that Yosys may take, in seconds.
    cache : Cache, optional
        Default: `Cache` in its default folder.

    Returns
    -------
    MappedNetlist

    Raises
    ------
    ValueError
        If ``top`` or the name of a black box is not an identifier, ``recipe`` is unknown, or a
        time is not positive.
    YosysError
        If Yosys refuses the design (syntax, unknown module, latch, combinational loop, undriven
        net, cell not in the library), crashes or takes too long.
    """
    sources = {top: verilog} if isinstance(verilog, str) else dict(verilog)
    stubs = dict(blackboxes or {})
    for field, name in [("top", top), *(("blackboxes", name) for name in stubs)]:
        if not IDENTIFIER.fullmatch(name):
            raise ValueError(f"{field} must be a plain Verilog identifier, not {name!r}")
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, not {recipe!r}")
    if clock_ns is not None and not clock_ns > 0:
        raise ValueError(f"clock_ns must be positive, not {clock_ns}")
    if not timeout_s > 0:
        raise ValueError(f"timeout_s must be positive, not {timeout_s}")

    script = _script(top, RECIPES[recipe], clock_ns, len(sources), len(stubs))
    files = {f"source{index}.v": text for index, text in enumerate(sources.values())}
    files |= {f"blackbox{index}.v": text for index, text in enumerate(stubs.values())}
    key = content_key(
        SCHEMA, yosys_version(), library.digest, top, clock_ns, recipe, script, *files.values()
    )

    def run() -> bytes:
        names = {f"source{index}.v": name for index, name in enumerate(sources)}
        names |= {f"blackbox{index}.v": name for index, name in enumerate(stubs)}
        texts = files | {"cells.lib": library.liberty_text(), "script.ys": script}
        result = _run_yosys(top, texts, names, timeout_s)
        # Netlists shrink to a tenth, and most of the time of a warm run is reading them.
        return zlib.compress(json.dumps(result, separators=(",", ":")).encode(), 1)

    cache = Cache() if cache is None else cache
    result = json.loads(zlib.decompress(cache.compute(key, run)))
    return MappedNetlist(top=top, recipe=recipe, clock_ns=clock_ns, tool=yosys_version(), **result)


def _script(
    top: str, recipe: Recipe, clock_ns: float | None, source_count: int, blackbox_count: int
) -> str:
    """Yosys commands, one a line."""
    abc = "abc -liberty cells.lib"
    if clock_ns is not None:
        abc += f" -D {clock_ns * 1000:.0f}"
    return "\n".join(
        [
            "read_liberty -lib cells.lib",
            *(f"read_verilog -lib blackbox{index}.v" for index in range(blackbox_count)),
            *(f"read_verilog source{index}.v" for index in range(source_count)),
            f"hierarchy -check -top {top}",
            # Before optimisation, which can hide a loop or an undriven net behind a constant.
            "proc -latches error",
            "flatten",
            "opt_clean",
            "check -assert",
            f"synth -flatten -top {top} {recipe.synth}",
            "dfflibmap -liberty cells.lib",
            abc,
            "opt_clean -purge",
            "check -assert -mapped",
            "tee -q -o stat.json stat -json -liberty cells.lib",
            "write_json netlist.json",
            "write_verilog -noattr netlist.v",
            "",
        ]
    )


def _run_yosys(
    top: str, texts: Mapping[str, str], names: Mapping[str, str], timeout_s: float
) -> dict[str, Any]:
    """Run ``script.ys`` of ``texts`` in a private folder and read what it wrote."""
    with tempfile.TemporaryDirectory(prefix="narrowgauge-") as name:
        folder = Path(name)
        for file_name, text in texts.items():
            (folder / file_name).write_text(text, encoding="utf-8")
        _run_child(top, folder, names, timeout_s)
        statistics = json.loads((folder / "stat.json").read_text())["design"]
        design = json.loads((folder / "netlist.json").read_text())
        module = design["modules"][top]
        return {
            "module": {key: module[key] for key in ("ports", "cells", "netnames")},
            "verilog": (folder / "netlist.v").read_text(),
            "area_um2": statistics.get("area", 0.0),
            "cells_by_type": statistics["num_cells_by_type"],
        }


def _run_child(top: str, folder: Path, names: Mapping[str, str], timeout_s: float) -> None:
    log = folder / "yosys.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # ABC's own files; they go with the folder even if Yosys is killed.
            env=os.environ | {"TMPDIR": str(folder)},
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise YosysError(f"Yosys took longer than {timeout_s:g} s to map {top}") from None
        finally:
            if status != 0:
                # ABC, a child of the child, outlives it otherwise.
                _kill_group(process)
    if status < 0:
        raise YosysError(f"Yosys was ended by {_signal_name(-status)} while it mapped {top}")
    if status > 0:
        reason = _reason(log.read_text(encoding="utf-8", errors="replace"), names)
        raise YosysError(f"Yosys could not map {top}: {reason}")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and all that it started, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _reason(log: str, names: Mapping[str, str]) -> str:
    """One line that says why Yosys stopped, with the caller's names instead of file names."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if "ERROR:" in line]
    if not errors:
        return " | ".join(lines[-3:]) or "it printed nothing"
    reason = lines[errors[0]].replace("ERROR: ", "")
    if "'check -assert" in reason or "in 'check" in reason:
        # The findings stand above; the line itself gives only their number.
        begin = max(index for index, line in enumerate(lines[: errors[0]]) if "Checking" in line)
        findings = lines[begin + 1 : errors[0] - 1]
        reason = " ".join(line.removeprefix("Warning: ") for line in findings[:8])
    for file_name, name in names.items():
        reason = reason.replace(file_name, name)
    return reason
