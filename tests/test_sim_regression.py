"""The regression: what it runs, what it reports, and how a failure is repeated."""

import itertools
import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest

import narrowgauge.regression
import narrowgauge.tensors
from golden.formats import parse
from narrowgauge import cli
from narrowgauge.catalogue import DESIGNS, Options, find
from narrowgauge.regression import (
    Case,
    Outcome,
    bench_job,
    cases,
    default_seed,
    everything,
    run,
)
from sim.benches import bench_tests
from sim.layout import unpack
from tests.simulators import needs_icarus


def test_all_cases():
    """Every design in every preset; arrays in several shapes for the first one."""
    chosen = cases()
    # The same hardware for all formats is tried with one.
    once = {"abfp-bfloat16_mac", "dybit-fused_mac"}
    assert {(case.design, case.spec) for case in chosen} == {
        (design.name, spec)
        for design in DESIGNS.values()
        for spec in design.presets[: 1 if design.name in once else None]
    }
    names = [case.name for case in chosen]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"\S+", name) for name in names)
    arrays = [case.name.split("/")[1:] for case in chosen if case.design == "tapered-array"]
    sizes = [label for spec, label in arrays if spec == DESIGNS["tapered-array"].presets[0]]
    assert sizes[:5] == ["4x4", "1x3", "3x1-zero_gating", "2x5-pe", "3x2-pe-zero_gating"]
    assert "16x16" in sizes
    # The others run in the first size.
    assert [label for _, label in arrays[len(sizes) :]] == ["4x4"] * 3


def test_sizes_have_names():
    """Sizes of a unit have names of their own, so that one can be chosen."""
    for design in DESIGNS.values():
        sizes = {*design.unit.sizes, *design.unit.gate_sizes}
        labels = {design.unit.label(size) for size in sizes}
        assert len(labels) == len(sizes), design.name
        assert ("" in labels) == (len(sizes) == 1)


def test_chosen_cases():
    names = [case.name for case in cases(["tapered-mac", "fixed-mac", "tapered-mac"])]
    assert names[:3] == [
        "tapered-mac/tapered8:runs=4-7/default",
        "tapered-mac/tapered8:runs=4-7/pipelined",
        "tapered-mac/tapered8/default",
    ]
    assert "fixed-mac/fixed8/default" in names
    assert len(set(names)) == len(names)
    names = [case.name for case in cases(["tapered-decoder", "fixed-mac"], ["tapered7:max_run=4"])]
    assert names == ["tapered-decoder/tapered7:max_run=4"]
    names = [case.name for case in cases(["fixed-encoder"], ["fixed5", "fixed6"])]
    assert names == [
        "fixed-encoder/fixed5/default",
        "fixed-encoder/fixed5/pipelined",
        "fixed-encoder/fixed6/default",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["fixed-x"],), "design must be one of .*fixed-mac.*, not 'fixed-x'"),
        ((["fixed-mac"], ["tapered8"]), "spec must be a format of fixed-mac, not 'tapered8'"),
        ((["fixed-mac"], ["fixed99"]), "bits must be between 2 and 16, not 99"),
        ((["fixed-mac/fixed99"],), "bits must be between 2 and 16, not 99"),
        ((["fixed-mac/tapered8"],), "spec must be a format of fixed-mac, not 'tapered8'"),
        ((["fixed-array/fixed8/9x9"],), "size of fixed-array must be one of .*, not '9x9'"),
        ((["fixed-mac/fixed8/default/ties"],), "test must be one of every_pair, .*, not 'ties'"),
    ],
)
def test_refused_cases(arguments, message):
    with pytest.raises(ValueError, match=message):
        cases(*arguments)


def test_chosen_tests():
    """Of all designs, those that have one of the tests."""
    chosen = cases(["fixed-mac", "fixed-encoder", "fixed-array"], tests=["ties", "every_pair"])
    tests = {case.design: case.tests for case in chosen}
    assert tests == {"fixed-mac": ("every_pair",), "fixed-encoder": ("ties",)}
    (case,) = cases(["fixed-mac/fixed4/default/longest_sums"], tests=["every_pair"])
    assert case.tests == ("longest_sums",)
    with pytest.raises(ValueError, match=r"test must be one of ties, .*, not 'dot_products'"):
        cases(["fixed-encoder", "fixed-mac"], tests=["ties", "dot_products"])


def test_seed(monkeypatch):
    monkeypatch.delenv("NARROWGAUGE_SEED", raising=False)
    assert default_seed() == 1
    monkeypatch.setenv("NARROWGAUGE_SEED", "77")
    assert default_seed() == 77
    monkeypatch.setenv("NARROWGAUGE_SEED", "-1")
    with pytest.raises(ValueError, match="NARROWGAUGE_SEED must be an integer of at least 0, not"):
        default_seed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"jobs": 0}, "jobs must be at least 1, not 0"),
    ],
)
def test_refused_run(options, message):
    with pytest.raises(ValueError, match=message):
        run([], **options)
    with pytest.raises(ValueError, match="simulator must be one of icarus, verilator, not 'x'"):
        run(cases(["fixed-mac"], ["fixed4"], simulators=["x"]))
    with pytest.raises(ValueError, match="no_cells"):
        run(cases(["fixed-mac"], ["fixed4"], library="no_cells"))


def test_job_of_a_mac():
    """The bench learns of the latency, the ports and the widths from the component."""
    case = Case(
        design="tapered-mac",
        spec="tapered5",
        options=Options(length=100),
        thorough=False,
        tests=("every_pair",),
    )
    job = bench_job(case, seed=9)
    component = DESIGNS["tapered-mac"].build(parse("tapered5"), Options(length=100))
    assert job.top == component.module_name
    assert f"module {job.top} (" in job.verilog
    assert (job.seed, job.tests, job.arrays) == (9, ("every_pair",), {})
    parameters = json.loads(json.dumps(job.parameters))
    assert parameters["attributes"] == {"latency": component.latency}
    assert parameters["mac"]["length"] == 100
    assert parameters["thorough"] is False
    pair = parameters["ports"]["i__payload"]
    assert pair["direction"] == "in"
    fields = {name: [int(v) for v in column] for name, column in unpack(pair, [0x5C3]).items()}
    assert fields == {"activation": [3], "weight": [14], "last": [1]}
    assert parameters["ports"]["o__payload"]["direction"] == "out"
    declared = re.findall(r"^  (?:input|output) .* (\w+)[,;]?(?: +//.*)?$", job.verilog, re.M)
    ports = declared[: len(parameters["ports"]) + 2]
    assert set(ports) == {"clk", "rst", *parameters["ports"]}


def test_job_of_an_array():
    case = Case(design="fixed-array", spec="fixed8", options=Options(rows=2, cols=3))
    job = bench_job(case)
    component = DESIGNS["fixed-array"].build(parse("fixed8"), Options(rows=2, cols=3))
    attributes = job.parameters["attributes"]
    assert (attributes["rows"], attributes["cols"]) == (2, 3)
    assert all(cycles == component.cycles(length) for length, cycles in attributes["tiles"])
    layers = {key.split("/")[0] for key in job.arrays}
    assert len(layers) >= 4
    for name in layers:
        rows, length = job.arrays[f"{name}/activations"].shape
        assert job.arrays[f"{name}/weights"].shape == (length, 5)
        assert job.arrays[f"{name}/results"].shape == (rows, 5)
        assert parse(str(job.arrays[f"{name}/result_format"])).stem == "fixed"
    # Real tensors, not zeros: the codes of a layer differ.
    assert all(len(np.unique(job.arrays[f"{name}/results"])) > 5 for name in layers)


@needs_icarus
def test_run():
    """Outcomes in the order of the cases, whichever is done first."""
    chosen = [
        Case(design="fixed-mac", spec="fixed4", options=Options(), thorough=False),
        *cases(["tapered-decoder"], ["tapered4", "tapered3"]),
    ]
    told = {}
    outcomes = run(chosen, seed=3, progress=told.__setitem__)
    assert all(outcome.passed for outcome in outcomes), outcomes
    assert list(dict.fromkeys(outcome.case for outcome in outcomes)) == chosen
    assert [told[case] for case in chosen] == [
        [outcome for outcome in outcomes if outcome.case == case] for case in chosen
    ]
    assert {outcome.seed for outcome in outcomes} == {3}
    assert all(outcome.seconds >= 0 and outcome.message == "" for outcome in outcomes)
    assert all(re.fullmatch(r"icarus \d+\.\d+", outcome.simulator) for outcome in outcomes)
    assert outcomes[-2].name == "tapered-decoder/tapered3/every_code"


@needs_icarus
def test_repeat():
    """One test of one case, by name and seed."""
    (case,) = cases(["fixed-mac/fixed4/default"], thorough=False, tests=["longest_sums"])
    (outcome,) = run([case], seed=5, jobs=1)
    assert (outcome.test, outcome.passed, outcome.seed) == ("longest_sums", True, 5)
    (outcome,) = run([replace(case, tests=("no_such_test",))], jobs=1)
    assert (outcome.test, outcome.passed, outcome.message) == ("run", False, "no test ran")


@pytest.mark.parametrize("library", [None, "nangate45", "my cells.lib"])
def test_names(monkeypatch, library):
    """The command that an outcome states runs that test of that case alone, on the same seed."""
    asked = []
    monkeypatch.setattr(
        narrowgauge.regression, "run", lambda chosen, **options: asked.append((chosen, options))
    )
    monkeypatch.setattr("narrowgauge.outcomes.print_outcomes", lambda *_: None)
    for thorough, case in itertools.product((True, False), cases(library=library)):
        chosen = replace(case, simulator="verilator", thorough=thorough)
        test = bench_tests(find(case.design).unit.bench)[-1]
        outcome = outcome_of(chosen, test, seed=77)
        program, *words = shlex.split(outcome.command)
        assert (program, words[:2]) == ("narrowgauge", ["test", outcome.name])
        with pytest.raises(TypeError, match="NoneType"):  # nothing was run
            cli.narrowgauge(words, standalone_mode=False)
        ((got,), options) = asked.pop()
        assert got == replace(chosen, tests=(test,))
        assert options["seed"] == 77
        # What is no test of a bench is repeated as a whole.
        for step in ("map", "build", "run", "coverage"):
            whole = outcome_of(chosen, step, seed=3)
            assert shlex.split(whole.command)[2] == case.name


def outcome_of(case, test, seed):
    return Outcome(
        case=case,
        simulator="verilator 5.0",
        test=test,
        passed=False,
        seconds=0.0,
        case_seconds=0.0,
        message="",
        seed=seed,
    )


def test_everything():
    """All on the first simulator; each design once on the other, and once mapped to cells."""
    chosen = everything(["fixed-array", "tapered-mac"], simulators=["icarus", "verilator"])
    by_level = {
        level: [case.name for case in chosen if case.level == level]
        for level in ("icarus", "verilator", "icarus, gates")
    }
    assert by_level["icarus"] == [case.name for case in cases(["fixed-array", "tapered-mac"])]
    assert by_level["verilator"] == [
        "fixed-array/fixed8/4x4",
        "tapered-mac/tapered8:runs=4-7/default",
    ]
    assert by_level["icarus, gates"] == [
        "fixed-array/fixed8/2x3",
        "tapered-mac/tapered8:runs=4-7/default",
    ]
    assert {case.level for case in chosen} == set(by_level)
    assert len(set(chosen)) == len(chosen)
    # Thoroughly in the first size alone, and never on cells.
    assert {case.library for case in chosen if case.thorough} == {None}
    thorough = [case.name for case in chosen if case.level == "icarus" and case.thorough]
    assert thorough[:2] == ["fixed-array/fixed8/4x4", "fixed-array/fixed6/4x4"]
    assert thorough[-1] == "tapered-mac/tapered5/default"
    assert "fixed-array/fixed8/16x16" in by_level["icarus"]
    (named,) = cases(["fixed-array/fixed8/16x16"])
    assert named.thorough
    options = {"simulators": ["verilator"], "thorough": False}
    only, _, _ = everything(["tapered-mac"], ["tapered5"], **options)
    assert (only.simulator, only.thorough, only.library) == ("verilator", False, None)
    one = everything(["fixed-mac/fixed4/pipelined/every_pair"], simulators=["icarus"])
    assert [(case.level, case.tests) for case in one] == [
        ("icarus", ("every_pair",)),
        ("icarus, gates", ("every_pair",)),
    ]


@needs_icarus
def test_no_case():
    assert run([]) == []


def test_no_calibration(monkeypatch):
    """A file of the embedded network without calibration images is an error in words."""
    embedded = narrowgauge.tensors.digits()
    without = replace(embedded, data=replace(embedded.data, calibration=None))
    monkeypatch.setattr(narrowgauge.tensors, "digits", lambda: without)
    with pytest.raises(ValueError, match="calibration of the embedded network must be there"):
        narrowgauge.tensors.layer_tensors("fixed7")
