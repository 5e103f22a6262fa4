"""The benches on the generated Verilog with both simulators; less than `narrowgauge test` runs.

``NARROWGAUGE_SEED`` sets the seed; the message of a failure states it.
"""

from dataclasses import replace

import pytest

from narrowgauge.catalogue import DESIGNS, UNITS, Options
from narrowgauge.regression import Case, bench_job, cases, default_seed, run_case
from sim.benches import bench_tests
from sim.coverage import empty_bins
from sim.runner import find_simulator, workspace
from tests.simulators import needs_icarus, needs_verilator

MAC_TESTS = {
    "every_pair",
    *(f"dot_products/gaps={index}" for index in range(4)),
    "longest_sums",
    "offers_before_ready",
    "reset_in_the_middle",
    "latency_and_throughput",
}
ARRAY_TESTS = {
    *(f"matrix_products/gaps={index}" for index in range(4)),
    "tiles_with_other_settings",
    "tiles_back_to_back",
    "network_layers",
    "offers_before_ready",
    "reset_in_the_middle",
    "cycle_count",
}
ENGINE_TESTS = {
    *(f"layers/gaps={index}" for index in range(5)),
    "every_row_and_index",
    "network_layers",
    "whole_layer",
    "offers_before_ready",
    "reset_in_the_middle",
    "cycle_count",
}
TILE_TESTS = {
    *(f"products/gaps={index}" for index in range(4)),
    "limits",
    "bad_inputs",
    "noise",
    "network_layers",
    "throughput",
    "offers_before_ready",
    "reset_in_the_middle",
}
BFLOAT16_TESTS = {
    *(f"dot_products/gaps={index}" for index in range(4)),
    "every_significand",
    "limits",
    "latency_and_throughput",
    "offers_before_ready",
    "reset_in_the_middle",
}
TESTS = {
    "decoder": {"every_code"},
    "activation_decoder": {"every_code"},
    "encoder": {"ties", "limits", "random_sums"},
    "mac": MAC_TESTS,
    "array": ARRAY_TESTS,
    "engine": ENGINE_TESTS,
    "tile": TILE_TESTS,
    "converter": {"every_sum", "ties", "noise"},
    "bfloat16_mac": BFLOAT16_TESTS,
}

RUNS = "tapered8:runs=4-7"

DESIGNS_TESTED = [
    ("tapered-encoder", "tapered8", {}),
    ("fixed-mac", "fixed8", {}),
    ("tapered-mac", RUNS, {}),
    ("tapered-array", RUNS, {"rows": 4, "cols": 4}),
    ("tapered-decoder", RUNS, {}),
    ("fixed-array", "fixed8", {"rows": 2, "cols": 3, "zero_gating": True}),
    ("tapered-decoder", "tapered8", {}),
    ("tapered-decoder", "tapered5", {}),
    ("fixed-encoder", "fixed8", {}),
    ("fixed-mac", "fixed12", {}),
    ("fixed-mac", "fixed8:weight_bits=4", {}),
    ("fixed-array", "fixed4:weight_bits=6", {"rows": 2, "cols": 3, "decoders": "pe"}),
    ("tapered-mac", "tapered6", {}),
    ("tapered-mac", "tapered12", {"length": 2}),
    ("fixed-mac", "fixed4", {"length": 1}),
    ("fixed-array", "fixed4", {"rows": 4, "cols": 4}),
    ("tapered-array", RUNS, {"rows": 1, "cols": 3}),
    ("tapered-array", "tapered8", {"rows": 3, "cols": 1, "zero_gating": True}),
    ("tapered-array", RUNS, {"rows": 2, "cols": 5, "decoders": "pe"}),
    ("tapered-array", "tapered5", {"rows": 3, "cols": 2, "decoders": "pe", "zero_gating": True}),
    ("fixed-array", "fixed6", {"rows": 1, "cols": 1, "length": 300}),
    ("dybit-decoder", "dybit8", {}),
    ("dybit-decoder", "dybit4", {}),
    ("dybit-activation_decoder", "dybit8", {}),
    ("dybit-activation_decoder", "dybit4", {}),
    ("dybit-encoder", "dybit4", {}),
    ("dybit-mac", "dybit8", {}),
    ("dybit-mac", "dybit8:weight_bits=4", {"length": 9}),
    ("dybit-mac", "dybit2", {"length": 1}),
    ("dybit-array", "dybit4:weight_bits=2", {"rows": 2, "cols": 3}),
    ("dybit-array", "dybit8", {"rows": 3, "cols": 2, "decoders": "pe", "zero_gating": True}),
    ("elp_bsd-activation_decoder", "elp_bsd4", {}),
    ("elp_bsd-encoder", "elp_bsd4", {}),
    ("elp_bsd-mac", "elp_bsd4:set=E4-2", {}),
    ("elp_bsd-mac", "elp_bsd4", {"length": 9}),
    ("elp_bsd-encoder", "elp_bsd4:set=E4-2,scale_pow2=yes", {}),
    ("elp_bsd-mac", "elp_bsd4:set=E4-2,scale_pow2=yes", {}),
    ("elp_bsd-mac", "elp_bsd3:set=E3-1", {}),
    ("elp_bsd-mac", "elp_bsd6:set=E6-2", {}),
    ("elp_bsd-array", "elp_bsd4:set=E4-2", {"rows": 2, "cols": 3}),
    ("elp_bsd-array", "elp_bsd4", {"rows": 3, "cols": 2, "zero_gating": True}),
    ("elp_bsd-array", "elp_bsd6:set=E6-2", {"rows": 2, "cols": 2, "decoders": "pe"}),
    ("elp_bsd-array", "elp_bsd3:set=E3-1", {"rows": 1, "cols": 3, "zero_gating": True}),
    ("abfp-converter", "abfp6:tile=8,noise_bits=3", {}),
    ("abfp-converter", "abfp8:exp_only=yes", {}),
    ("abfp-bfloat16_mac", "abfp8", {}),
    ("abfp-bfloat16_mac", "abfp8", {"pipelined": True}),
    ("abfp-tile", "abfp8:tile=8", {"rows": 3, "lanes": 2, "length": 24}),
    ("abfp-tile", "abfp8:tile=16,exp_only=yes", {"rows": 2, "lanes": 2, "length": 32}),
    ("abfp-tile", "abfp6:tile=8,noise_bits=4", {"rows": 1, "length": 8, "pipelined": True}),
    ("weight_pool-engine", "weight_pool32:layout=nibble", {}),
]


def chosen():
    for design, spec, options in DESIGNS_TESTED:
        case = Case(design=design, spec=spec, options=Options(**options), thorough=False)
        yield pytest.param(case, id=case.name)


@pytest.mark.parametrize("name", TESTS)
def test_names(name):
    """What can be asked for is what runs."""
    assert set(bench_tests(UNITS[name].bench)) == TESTS[name]


@needs_icarus
@pytest.mark.parametrize("case", list(chosen()))
def test_bench(shared, case):
    done = find_simulator("icarus").run(bench_job(case, seed=default_seed()), shared)
    failed = [f"{result.name}: {result.message}" for result in done.results if not result.passed]
    assert not failed, "\n".join(failed)
    assert {result.name for result in done.results} == TESTS[case.design.rsplit("-", 1)[1]]
    assert empty_bins(done.coverage) == []
    assert done.coverage


def every_unit():
    """One design of each bench on the simulator that is slow to build, and each unit on cells."""
    benches = set()
    for unit in UNITS.values():
        design = next(design for design in DESIGNS.values() if design.unit is unit)
        ways = [(needs_icarus, {"library": "nangate45"})]
        if unit.bench not in benches:
            ways.append((needs_verilator, {"simulators": ["verilator"]}))
        benches.add(unit.bench)
        for mark, options in ways:
            case = cases([design.name], thorough=False, **options)[0]
            yield pytest.param(case, marks=mark, id=f"{case.level}-{case.name}")


@pytest.mark.parametrize("case", list(every_unit()))
def test_unit(shared, case):
    """Verilator takes several seconds to compile each of these, mapping to cells more."""
    simulator = find_simulator(case.simulator)
    outcomes = run_case(case, simulator, shared, default_seed(), 300.0)
    failed = [f"{one.test}: {one.message}" for one in outcomes if not one.passed]
    assert not failed, "\n".join(failed)
    assert outcomes[-1].test == "coverage"


@needs_verilator
def test_design_in_several_files(shared, monkeypatch):
    """Verilator splits large designs, and then uses precompiled headers."""
    simulator = find_simulator("verilator")
    split = [*simulator.build_args(), "--output-split", "300"]
    monkeypatch.setattr(type(simulator), "build_args", lambda _: split)
    case = Case(design="tapered-decoder", spec=RUNS, options=Options())
    (result,) = simulator.run(bench_job(case), shared).results
    assert result.passed, result.message


@needs_icarus
def test_seed():
    """The same seed makes the same stimuli, another one makes others."""
    case = Case(
        design="fixed-mac",
        spec="fixed4",
        options=Options(),
        thorough=False,
        tests=("dot_products/gaps=3",),
    )
    planted = bench_job(case).verilog.replace("activation * weight", "activation * weight + 8'sd16")

    def message(seed):
        job = bench_job(case, seed=seed)
        job = replace(job, verilog=planted)
        with workspace() as folder:
            (result,) = find_simulator("icarus").run(job, folder).results
        assert not result.passed
        return result.message

    first = message(5)
    assert first.endswith("seed 5")
    assert "activations [" in first
    assert message(5) == first
    assert message(6).partition(";")[0] != first.partition(";")[0]
