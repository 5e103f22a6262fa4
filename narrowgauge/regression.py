"""The cocotb regression: benches of all designs on generated Verilog, several at a time.

``narrowgauge test`` is its command.  Nothing is printed here; progress goes to a callback.
"""

import functools
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from golden.formats import parse
from golden.spec import check_int
from narrowgauge.catalogue import DESIGNS, Design, Options, find
from narrowgauge.workers import worker_pool
from sim.benches import bench_tests
from sim.coverage import Counts, empty_bins
from sim.runner import BenchJob, BenchResult, BenchRun, Simulator, find_simulator, workspace
from synth.cells import CellLibrary
from synth.library import load
from synth.netlist import cell_models
from synth.verilog import VerilogDesign, to_verilog
from synth.yosys import YosysError, map_netlist

__all__ = [
    "DEFAULT_LIBRARY",
    "DEFAULT_SEED",
    "Case",
    "Outcome",
    "bench_job",
    "cases",
    "default_seed",
    "everything",
    "run",
    "run_case",
]

#: Seed of all stimuli unless another one is asked for.
DEFAULT_SEED = 1

#: Cells that designs are mapped to unless others are asked for.
DEFAULT_LIBRARY = "nangate45"

#: Longest time that mapping one design to cells may take, in seconds.
MAPPING_S = 600.0

#: What can fail besides the tests of a bench: mapping to cells and filling all bins; building and
#: running the simulation, which :mod:`sim.runner` names.
MAP, COVERAGE = "map", "coverage"
STEPS = (MAP, "build", "run", COVERAGE)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One design to test, and how.

    Parameters
    ----------
    design : str
        Name in the catalogue.
    spec : str
        Format.
    options : Options
        Hardware parameters.
    simulator : str
        ``icarus`` or ``verilator``.
    library : str, optional
        Cell library, by name or file, to which the design is mapped first; by default its Verilog
        is simulated as it was generated.
    thorough : bool
        Whether to try more; takes about three times as long.  Less thoroughly, cells are not tried
        with all pairs of operands and all settings, but with a sample of them.
    tests : tuple of str
        Names of the tests to run; all if empty.
    """

    design: str
    spec: str
    options: Options
    simulator: str = "icarus"
    library: str | None = None
    thorough: bool = True
    tests: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What is tested, in one word without spaces, for people to read and to select by."""
        label = find(self.design).unit.label(self.options)
        return "/".join(filter(None, [self.design, self.spec, label]))

    @property
    def level(self) -> str:
        """Simulator, and whether the design was mapped to cells."""
        return self.simulator if self.library is None else f"{self.simulator}, gates"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one test of one case said.

    Attributes
    ----------
    case : Case
        What was tested.
    simulator : str
        Name and version.
    test : str
        Name of the test, or one of ``STEPS``.
    passed : bool
        Whether it passed.
    seconds : float
        Wall-clock time.
    case_seconds : float
        The same of all tests of the case, with all that was built for them.
    message : str
        Why it failed, with inputs, expected and actual result.
    seed : int
        With it, :func:`run` repeats the test.
    coverage : dict of str to dict of str to int
        Hits by group and bin of all tests of the case, in the outcome called ``coverage``.
    """

    case: Case
    simulator: str
    test: str
    passed: bool
    seconds: float
    case_seconds: float
    message: str
    seed: int
    coverage: Counts = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name to select this test by."""
        return f"{self.case.name}/{self.test}"

    @property
    def command(self) -> str:
        """Command that repeats this test alone; the whole case if it is none of its tests."""
        case = self.case
        words = ["narrowgauge", "test", case.name if self.test in STEPS else self.name]
        words += ["--simulator", case.simulator, "--seed", str(self.seed)]
        if case.library is not None:
            words.append("--gate-level")
            words += ["--library", case.library] * (case.library != DEFAULT_LIBRARY)
        words += ["--quick"] * (not case.thorough)
        return shlex.join(words)


def default_seed() -> int:
    """Seed of the regression: ``NARROWGAUGE_SEED`` of the environment, or the default one.

    Raises
    ------
    ValueError
        If that variable is no integer of at least 0.
    """
    text = os.environ.get("NARROWGAUGE_SEED", str(DEFAULT_SEED))
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"NARROWGAUGE_SEED must be an integer of at least 0, not {text!r}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A design, and what is left open of it: None for any format or any size."""

    design: Design
    spec: str | None = None
    options: Options | None = None
    tests: tuple[str, ...] = ()


def cases(
    names: Sequence[str] = (),
    specs: Sequence[str] = (),
    *,
    simulators: Sequence[str] = ("icarus",),
    library: str | None = None,
    thorough: bool = True,
    tests: Sequence[str] = (),
) -> list[Case]:
    """List what the regression tests.

    Parameters
    ----------
    names : sequence of str
        Designs of the catalogue, or names of cases or of outcomes; all designs if empty.
    specs : sequence of str
        Formats, instead of the presets of the designs.
    simulators : sequence of str
        Each runs all of them.
    library : str, optional
        Cell library to map to, which is done in one format and few sizes unless others are named.
    thorough : bool
        Whether to try more, in the first size of each format and in sizes that ``names`` name.
    tests : sequence of str
        Names of the tests to run, in the designs that have one of them; all if empty, but for those
        that ``names`` name.

    Returns
    -------
    list of Case

    Raises
    ------
    ValueError
        If a name or a format is unknown, or a format or test is for none of the designs.
    """
    chosen = _choices(names, specs, tests)
    return [
        replace(case, simulator=simulator, thorough=thorough and case.thorough)
        for simulator in simulators
        for choice in chosen
        for case in _cases(choice, specs, library)
    ]


def everything(
    names: Sequence[str] = (),
    specs: Sequence[str] = (),
    *,
    simulators: Sequence[str],
    library: str = DEFAULT_LIBRARY,
    thorough: bool = True,
    tests: Sequence[str] = (),
) -> list[Case]:
    """List what the regression tests in all ways that there are.

    Every format and size on the first simulator, the first of each design on the others.  Mapped to
    cells is what :func:`cases` chooses for that, where the less thorough form has to do.
    Parameters are those of :func:`cases`.
    """
    listed = functools.partial(cases, names, specs, tests=tests)
    first, *others = simulators
    everywhere = listed(simulators=[first], thorough=thorough)
    firsts = {case.design: case for case in reversed(everywhere)}
    elsewhere = [
        replace(case, simulator=other)
        for other in others
        for case in everywhere
        if case == firsts[case.design]
    ]
    return everywhere + elsewhere + listed(simulators=[first], library=library, thorough=False)


def _choices(
    names: Sequence[str], specs: Sequence[str], tests: Sequence[str] = ()
) -> list[_Choice]:
    chosen = [_choice(name) for name in dict.fromkeys(names)]
    chosen = chosen or [_Choice(design=design) for design in DESIGNS.values()]
    wanted = {choice: choice.tests or tuple(tests) for choice in chosen}
    has = {choice: bench_tests(choice.design.unit.bench) for choice in chosen}
    known = dict.fromkeys(chain.from_iterable(has.values()))
    for name in chain.from_iterable(wanted.values()):
        if name not in known:
            raise ValueError(f"test must be one of {', '.join(known)}, not {name!r}")
    chosen = [
        replace(choice, tests=tuple(name for name in wanted[choice] if name in has[choice]))
        for choice in chosen
        if not wanted[choice] or {*wanted[choice]} & {*has[choice]}
    ]
    for spec in specs:
        if parse(spec).stem not in {choice.design.stem for choice in chosen}:
            listed = ", ".join(choice.design.name for choice in chosen)
            raise ValueError(f"spec must be a format of {listed}, not {spec!r}")
    return chosen


def _choice(name: str) -> _Choice:
    """Look up the name of a design, a case or an outcome."""
    first, _, rest = name.partition("/")
    design = find(first)
    if not rest:
        return _Choice(design=design)
    text, _, rest = rest.partition("/")
    form = parse(text)
    if form.stem != design.stem:
        raise ValueError(f"spec must be a format of {design.name}, not {text!r}")
    sizes = {design.unit.label(size): size for size in _sizes(design)}
    options = None
    if rest and "" not in sizes:
        label, _, rest = rest.partition("/")
        if label not in sizes:
            known = ", ".join(sizes)
            raise ValueError(f"size of {design.name} must be one of {known}, not {label!r}")
        options = sizes[label]
    return _Choice(design=design, spec=text, options=options, tests=(rest,) if rest else ())


def _sizes(design: Design) -> tuple[Options, ...]:
    """All sizes that a name can be of; the first of those with the same name counts."""
    return (*design.unit.gate_sizes[::-1], *design.unit.sizes[::-1])


def _cases(choice: _Choice, specs: Sequence[str], library: str | None) -> Iterator[Case]:
    design, unit = choice.design, choice.design.unit
    if choice.spec is not None:
        wanted = [choice.spec]
    elif specs:
        wanted = [str(parse(spec)) for spec in specs if parse(spec).stem == design.stem]
    elif library is not None:
        wanted = [unit.gate_spec or design.presets[0]]
    else:
        wanted = list(design.presets[:1] if unit.one_format else design.presets)
    sizes = unit.sizes if library is None else unit.gate_sizes
    for index, spec in enumerate(wanted):
        sizes = sizes if index == 0 or library is not None else sizes[:1]
        for options in sizes if choice.options is None else (choice.options,):
            yield Case(
                design=design.name,
                spec=spec,
                options=options,
                library=library,
                thorough=options in (choice.options, sizes[0]),
                tests=choice.tests,
            )


def bench_job(case: Case, *, seed: int = DEFAULT_SEED) -> BenchJob:
    """Generate the Verilog of a case, and everything that its bench has to know.

    Parameters
    ----------
    case : Case
        Design to test.
    seed : int
        Of all stimuli.

    Raises
    ------
    ValueError
        If the library is unknown or cannot be read.
    YosysError
        If the design cannot be mapped to it.
    """
    design, form = find(case.design), parse(case.spec)
    component = design.build(form, case.options)
    verilog = to_verilog(component)
    return BenchJob(
        verilog=verilog.text if case.library is None else _mapped(verilog, case.library),
        top=verilog.top,
        bench=design.unit.bench,
        parameters={
            "stem": design.model,
            "mac": asdict(design.datapath(form, case.options).spec),
            "ports": port_layouts(component),
            "attributes": design.unit.attributes(component),
            "thorough": case.thorough,
            "exhaustive": case.thorough or case.library is None,
        },
        arrays=design.unit.arrays(case.spec),
        seed=seed,
        tests=case.tests,
    )


@functools.cache
def _library(name: str) -> CellLibrary:
    return load(name)


def _mapped(design: VerilogDesign, library_name: str) -> str:
    """Netlist of a design, flattened, and what its cells do."""
    library = _library(library_name)
    mapped = map_netlist(design.text, design.top, library, timeout_s=MAPPING_S)
    models = cell_models(library, mapped.cells_by_type, any_state=True)
    return f"{mapped.verilog}\n{models}"


def port_layouts(component: "wiring.Component[Any]") -> dict[str, dict[str, Any]]:
    """Direction and :mod:`sim.layout` of each port of the generated Verilog but clock and reset."""
    return {
        "__".join(map(str, path)): {
            "direction": "in" if member.flow == In else "out",
            **_layout(member.shape),
        }
        for path, member, _ in component.signature.flatten(component)
    }


def _layout(shape: Any) -> dict[str, Any]:
    width = Shape.cast(shape).width
    match shape:
        case data.StructLayout():
            fields = {
                name: {"offset": field.offset, **_layout(field.shape)} for name, field in shape
            }
            return {"width": width, "fields": fields}
        case data.ArrayLayout():
            return {"width": width, "lanes": shape.length, "lane": _layout(shape.elem_shape)}
        case _:
            return {"width": width, "signed": Shape.cast(shape).signed}


def run(
    chosen: Sequence[Case],
    *,
    seed: int | None = None,
    jobs: int | None = None,
    timeout_s: float = 900.0,
    progress: Callable[[Case, list[Outcome]], None] | None = None,
) -> list[Outcome]:
    """Run the benches of some cases.

    An interruption, or an error, ends all processes that were started and removes their files.

    Parameters
    ----------
    chosen : sequence of Case
        What to test; see :func:`cases`.
    seed : int, optional
        Of all stimuli; default as in :func:`default_seed`.
    jobs : int, optional
        Processes at a time; default: the processors that this one may use.
    timeout_s : float
        Longest time for one case, in seconds.
    progress : callable, optional
        Called with each case and its outcomes when they are known, in any order.

    Returns
    -------
    list of Outcome
        In the order of the cases; at least one for each.

    Raises
    ------
    SimulatorError
        If a simulator or something that it needs is missing.
    ValueError
        If the name of a simulator, a library, the seed or the number of jobs is not legal.
    """
    if seed is None:
        seed = default_seed()
    check_int("seed", seed, 0, None)
    if jobs is None:
        jobs = len(os.sched_getaffinity(0))
    check_int("jobs", jobs, 1, None)
    found = {name: find_simulator(name) for name in {case.simulator for case in chosen}}
    for name in {case.library for case in chosen} - {None}:
        _library(str(name))
    done: dict[Case, list[Outcome]] = {}
    with workspace() as shared, worker_pool(min(jobs, max(len(chosen), 1))) as pool:
        futures = {
            pool.submit(run_case, case, found[case.simulator], shared, seed, timeout_s): case
            for case in chosen
        }
        for future in as_completed(futures):
            case = futures[future]
            done[case] = future.result()
            if progress is not None:
                progress(case, done[case])
    return [outcome for case in chosen for outcome in done[case]]


def run_case(
    case: Case, simulator: Simulator, shared: Path, seed: int, timeout_s: float
) -> list[Outcome]:
    """Run the bench of one case.

    Parameters
    ----------
    case : Case
        What to test.
    simulator : Simulator
        What to test it with.
    shared : Path
        Folder of all cases of a run; see :func:`sim.runner.workspace`.
    seed : int
        Of all stimuli.
    timeout_s : float
        Longest time, in seconds.

    Returns
    -------
    list of Outcome
        One for each test that was run, or one that names the step that failed.
    """
    start = time.monotonic()
    try:
        job = bench_job(case, seed=seed)
    except YosysError as error:
        seconds = time.monotonic() - start
        failure = BenchResult(name=MAP, passed=False, seconds=seconds, message=str(error))
        done = BenchRun(results=[failure], coverage={})
    else:
        done = simulator.run(job, shared, timeout_s=timeout_s)
    results = list(done.results)
    # A test that failed, or was left out, has not filled its bins.
    is_judged = bool(done.coverage) and not case.tests and all(each.passed for each in results)
    if is_judged:
        empty = "; ".join(empty_bins(done.coverage))
        message = f"every bin must be hit, but these were not: {empty}" if empty else ""
        results.append(BenchResult(name=COVERAGE, passed=not empty, seconds=0.0, message=message))
    case_seconds = time.monotonic() - start
    return [
        Outcome(
            case=case,
            simulator=f"{simulator.name} {simulator.version}",
            test=result.name,
            passed=result.passed,
            seconds=result.seconds,
            case_seconds=case_seconds,
            message=result.message,
            seed=seed,
            coverage=done.coverage if result.name == COVERAGE else {},
        )
        for result in results
    ]
