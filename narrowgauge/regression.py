"""The cocotb regression: benches of all designs on generated Verilog, several at a time.

``narrowgauge test`` is its command.  Nothing is printed here; progress goes to a callback.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Shape
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from golden.formats import parse
from golden.inference import quantise
from golden.spec import check_int
from golden.weight_pool import WeightPoolFormat
from golden.weight_pool_system import PoolOperands
from narrowgauge.catalogue import DESIGNS, SYSTEMS, Design, Options, find
from narrowgauge.networks import digits, retrained_digits
from narrowgauge.onnx_reader import read
from narrowgauge.workers import worker_pool
from sim.runner import BenchJob, Simulator, find_simulator, workspace
from synth.verilog import to_verilog

__all__ = ["DEFAULT_SEED", "Case", "Outcome", "bench_job", "cases", "default_seed", "run"]

#: Seed of all stimuli unless another one is asked for.
DEFAULT_SEED = 1

#: Arrays that are tested for the first preset of a number system.  The other presets get the first
#: of them, because the structure does not depend on the format.
ARRAYS = (
    Options(rows=4, cols=4),
    Options(rows=1, cols=3),
    Options(rows=3, cols=1, zero_gating=True),
    Options(rows=2, cols=5, decoders="pe"),
    Options(rows=3, cols=2, decoders="pe", zero_gating=True),
    Options(rows=16, cols=16),
)

#: Numbers of products for which the cycles of a tile are stated to the bench.
TILE_LENGTHS = (3, 1, 7, 2, 3)

#: Images whose layers are run on an array, and the most rows of activations of each layer.
IMAGES = 2
LAYER_ROWS = 5
LAYER_COLS = 5


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
        parts = [self.design, self.spec]
        if find(self.design).unit == "array":
            options = self.options
            marks = ["pe"] * (options.decoders == "pe") + ["gated"] * options.zero_gating
            parts.append("-".join([f"{options.rows}x{options.cols}", *marks]))
        return "/".join(parts)


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
        arrays = ARRAYS if index == 0 else ARRAYS[:1]
        for chosen in arrays if design.unit == "array" else (Options(),):
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
    mac = SYSTEMS[design.stem].datapath(form, case.options.length).spec
    attributes: dict[str, Any] = {}
    if design.unit == "mac":
        attributes = {"latency": component.latency}
    elif design.unit == "array":
        attributes = {
            "rows": component.spec.rows,
            "cols": component.spec.cols,
            "tiles": [[length, component.cycles(length)] for length in TILE_LENGTHS],
        }
    elif design.unit == "engine":
        attributes = {"latency": [mac.latency(bits) for bits in range(1, mac.max_act_bits + 1)]}
    make_arrays = {"array": _layer_arrays, "engine": _pool_arrays}.get(design.unit)
    verilog = to_verilog(component)
    return BenchJob(
        verilog=verilog.text,
        top=verilog.top,
        bench=design.bench,
        parameters={
            "stem": design.stem,
            "mac": asdict(mac),
            "ports": port_layouts(component),
            "attributes": attributes,
            "thorough": thorough,
        },
        arrays={} if make_arrays is None else make_arrays(case.spec),
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


@functools.cache
def _layer_arrays(spec: str) -> dict[str, npt.NDArray[Any]]:
    """Operands and stored results of the layers of the embedded network, a few rows of each."""
    embedded = digits()
    if embedded.data.calibration is None:
        raise ValueError("calibration of the embedded network must be there, not None")
    form = parse(spec)
    network = quantise(read(embedded.model_path), form.system(), embedded.data.calibration)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for stream in network.streams(embedded.data.images[:IMAGES]):
        operands = stream.operands
        # The logits are not rounded; a layer with weights of another number system runs elsewhere.
        if stream.output_codes is None or operands.weight_spec.stem != form.stem:
            continue
        # From all over the layer: neighbouring pixels and channels are much alike.
        rows = np.linspace(0, len(operands.activation_codes) - 1, LAYER_ROWS).astype(int)
        cols = np.linspace(0, len(operands.bias_q) - 1, LAYER_COLS).astype(int)
        arrays |= {
            f"{stream.name}/activations": operands.activation_codes[rows],
            f"{stream.name}/weights": operands.weight_codes[:, cols],
            f"{stream.name}/bias_q": operands.bias_q[cols],
            f"{stream.name}/results": stream.output_codes[np.ix_(rows, cols)],
            f"{stream.name}/relu": np.array(stream.relu),
            f"{stream.name}/weights_format": np.array(str(operands.weight_spec)),
            f"{stream.name}/activations_format": np.array(str(operands.activation_spec)),
            f"{stream.name}/result_format": np.array(str(stream.output_codec)),
        }
    return arrays


@functools.cache
def _pool_arrays(spec: str) -> dict[str, npt.NDArray[Any]]:
    """Operands and stored results of the pooled layers of the embedded network as retrained."""
    embedded = digits()
    form = parse(spec)
    assert isinstance(form, WeightPoolFormat)
    retrained = retrained_digits(read(embedded.model_path), form)
    if retrained is None or embedded.data.calibration is None:
        return {}
    network = quantise(*retrained, embedded.data.calibration)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for stream in network.streams(embedded.data.images[:1]):
        operands = stream.operands
        if not isinstance(operands, PoolOperands) or stream.output_codes is None:
            continue
        rows = np.linspace(0, len(operands.activation_codes) - 1, LAYER_ROWS).astype(int)
        arrays |= {
            "pool": operands.spec.pool,
            "lut_range_exp": np.array(operands.spec.lut_range_exp),
            "exact": np.array(operands.spec.exact),
            f"{stream.name}/activations": operands.activation_codes[rows],
            f"{stream.name}/channels": np.array(operands.channels),
            f"{stream.name}/indices": operands.indices,
            f"{stream.name}/bias_q": operands.bias_q,
            f"{stream.name}/results": stream.output_codes[rows],
            f"{stream.name}/relu": np.array(stream.relu),
            f"{stream.name}/activations_format": np.array(str(operands.activation_spec)),
            f"{stream.name}/result_format": np.array(str(stream.output_codec)),
        }
    return arrays


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
