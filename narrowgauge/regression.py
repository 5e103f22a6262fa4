"""The cocotb regression: benches of all designs on generated Verilog, several at a time.

``narrowgauge test`` is its command.  Nothing is printed here; progress goes to a callback.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from golden.formats import parse
from golden.spec import check_int
from narrowgauge.catalogue import DESIGNS, Design, Options, find
from narrowgauge.workers import worker_pool
from sim.runner import BenchJob, Simulator, find_simulator, workspace
from synth.verilog import to_verilog

__all__ = ["DEFAULT_SEED", "Case", "Outcome", "bench_job", "cases", "default_seed", "run"]

#: Seed of all stimuli unless another one is asked for.
DEFAULT_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Case:
    """One design to test.

    Parameters
    ----------
    design : str
        Name in the catalogue.
    spec : str
        Format.
    options : Options
        Hardware parameters.
    """

    design: str
    spec: str
    options: Options

    @property
    def name(self) -> str:
        """All of it in one word without spaces, for people to read and to select by."""
        label = find(self.design).unit.label(self.options)
        return "/".join(filter(None, [self.design, self.spec, label]))


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
        Name of the test.
    passed : bool
        Whether it passed.
    seconds : float
        Wall-clock time.
    message : str
        Why it failed, with inputs, expected and actual result.
    seed : int
        With it, :func:`run` repeats the test.
    """

    case: Case
    simulator: str
    test: str
    passed: bool
    seconds: float
    message: str
    seed: int

    @property
    def name(self) -> str:
        """Name to select this test by."""
        return f"{self.case.name}/{self.test}"


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


def cases(designs: Sequence[str] = (), specs: Sequence[str] = ()) -> list[Case]:
    """List what the regression tests.

    Parameters
    ----------
    designs : sequence of str
        Names in the catalogue; all if empty.
    specs : sequence of str
        Formats, instead of the presets of the designs.

    Returns
    -------
    list of Case

    Raises
    ------
    ValueError
        If a design or a format is unknown, or a format is for none of the designs.
    """
    chosen = [find(name) for name in dict.fromkeys(designs)] or list(DESIGNS.values())
    for spec in specs:
        stem = parse(spec).stem
        if stem not in {design.stem for design in chosen}:
            names = ", ".join(design.name for design in chosen)
            raise ValueError(f"spec must be a format of {names}, not {spec!r}")
    return [case for design in chosen for case in _design_cases(design, specs)]


def _design_cases(design: Design, specs: Sequence[str]) -> Iterator[Case]:
    wanted = [str(parse(spec)) for spec in specs if parse(spec).stem == design.stem]
    for index, spec in enumerate(wanted or ([] if specs else design.presets)):
        for chosen in design.unit.sizes if index == 0 else design.unit.sizes[:1]:
            yield Case(design=design.name, spec=spec, options=chosen)


def bench_job(
    case: Case, *, seed: int = DEFAULT_SEED, thorough: bool = True, tests: Sequence[str] = ()
) -> BenchJob:
    """Generate the Verilog of a case, and everything that its bench has to know.

    Parameters
    ----------
    case : Case
        Design to test.
    seed : int
        Of all stimuli.
    thorough : bool
        Whether to try more; takes about three times as long.
    tests : sequence of str
        Names of the tests to run; all if empty.
    """
    design, form = find(case.design), parse(case.spec)
    component = design.build(form, case.options)
    verilog = to_verilog(component)
    return BenchJob(
        verilog=verilog.text,
        top=verilog.top,
        bench=design.unit.bench,
        parameters={
            "stem": design.model,
            "mac": asdict(design.datapath(form, case.options).spec),
            "ports": port_layouts(component),
            "attributes": design.unit.attributes(component),
            "thorough": thorough,
        },
        arrays=design.unit.arrays(case.spec),
        seed=seed,
        tests=tuple(tests),
    )


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
    simulator: str | None = None,
    seed: int | None = None,
    tests: Sequence[str] = (),
    thorough: bool = True,
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
    simulator : str, optional
        ``icarus`` or ``verilator``; default as in :func:`sim.runner.find_simulator`.
    seed : int, optional
        Of all stimuli; default as in :func:`default_seed`.
    tests : sequence of str
        Names of the tests to run; all if empty.
    thorough : bool
        Whether to try more; takes about three times as long.
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
        If the simulator or something that it needs is missing.
    ValueError
        If the name of the simulator, the seed or the number of jobs is not legal.
    """
    if seed is None:
        seed = default_seed()
    check_int("seed", seed, 0, None)
    if jobs is None:
        jobs = len(os.sched_getaffinity(0))
    check_int("jobs", jobs, 1, None)
    found = find_simulator(simulator)
    done: dict[Case, list[Outcome]] = {}
    with workspace() as shared, worker_pool(min(jobs, max(len(chosen), 1))) as pool:
        futures = {
            pool.submit(
                _run_case, case, found, shared, seed, tuple(tests), thorough, timeout_s
            ): case
            for case in chosen
        }
        for future in as_completed(futures):
            case = futures[future]
            done[case] = future.result()
            if progress is not None:
                progress(case, done[case])
    return [outcome for case in chosen for outcome in done[case]]


def _run_case(
    case: Case,
    simulator: Simulator,
    shared: Path,
    seed: int,
    tests: tuple[str, ...],
    thorough: bool,
    timeout_s: float,
) -> list[Outcome]:
    job = bench_job(case, seed=seed, thorough=thorough, tests=tests)
    return [
        Outcome(
            case=case,
            simulator=f"{simulator.name} {simulator.version}",
            test=result.name,
            passed=result.passed,
            seconds=result.seconds,
            message=result.message,
            seed=seed,
        )
        for result in simulator.run(job, shared, timeout_s=timeout_s)
    ]
