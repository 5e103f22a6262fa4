"""The benches on netlists of library cells: they pass, and find faults of single cells."""

import re
from dataclasses import replace

import pytest

from narrowgauge import regression
from narrowgauge.catalogue import Options
from narrowgauge.regression import Case, bench_job, cases, run, run_case
from sim.runner import find_simulator
from synth.yosys import YosysError
from tests.simulators import needs_icarus, needs_verilator

DECODER = Case(
    design="tapered-decoder",
    spec="tapered5",
    options=Options(),
    library="nangate45",
    thorough=False,
)
MAC = replace(DECODER, design="fixed-mac", spec="fixed4", options=Options(length=20))


def test_netlist():
    """One module of instances of cells, with the ports of the design, and a model of each cell."""
    job = bench_job(MAC)
    generated = bench_job(replace(MAC, library=None))
    assert (job.top, job.bench) == (generated.top, generated.bench)
    assert job.parameters["ports"] == generated.parameters["ports"]
    top, *models = re.findall(r"^module .*?^endmodule", job.verilog, re.M | re.S)
    assert top.startswith(f"module {job.top}(")
    used = set(re.findall(r"^  ([A-Z]\w*_X\d+) ", top, re.M))
    assert {model.split("(")[0].split()[1] for model in models} == used
    assert "DFF_X1" in used
    assert "always" not in top
    for port, layout in generated.parameters["ports"].items():
        width = rf" \[{layout['width'] - 1}:0\]" if layout["width"] > 1 else ""
        assert re.search(rf"^  {layout['direction']}put( signed)?{width} {port};", top, re.M)


@pytest.mark.parametrize(
    ("simulator", "case"),
    [
        pytest.param("icarus", DECODER, marks=needs_icarus),
        pytest.param("icarus", MAC, marks=needs_icarus),
        pytest.param("verilator", DECODER, marks=needs_verilator),
    ],
)
def test_pass(shared, simulator, case):
    outcomes = run_case(case, find_simulator(simulator), shared, 1, 300.0)
    assert [outcome.message for outcome in outcomes if not outcome.passed] == []
    assert outcomes[-1].test == "coverage"


#: Faults of one instance: the cell, which one of its kind, and what takes its place.
FAULTS = [
    (DECODER, r"NAND2_X1", 0, "NOR2_X1"),
    (DECODER, r"INV_X1", 1, "BUF_X1"),
    (MAC, r"FA_X1", 2, "FA_X1_FAULT"),
    (MAC, r"XNOR2_X1", 0, "XOR2_X1"),
    (MAC, r"DFF_X1", 3, "DFF_X1_FAULT"),
]

#: Carry and sum exchanged; a flip-flop that never changes.
BROKEN = """
module FA_X1_FAULT(input A, input B, input CI, output S, output CO);
  FA_X1 cell_ (.A(A), .B(B), .CI(CI), .S(CO), .CO(S));
endmodule
module DFF_X1_FAULT(input D, input CK, output Q, output QN);
  assign Q = 1'b0;
  assign QN = 1'b1;
endmodule
module NOR2_X1_(input A1, input A2, output ZN);
  assign ZN = ~(A1 | A2);
endmodule
module BUF_X1_(input A, output ZN);
  assign ZN = A;
endmodule
module XOR2_X1_(input A, input B, output ZN);
  assign ZN = A ^ B;
endmodule
"""


@needs_icarus
@pytest.mark.parametrize(("case", "cell", "number", "other"), FAULTS)
def test_fault_is_found(shared, case, cell, number, other):
    job = bench_job(case)
    place = list(re.finditer(rf"^  {cell} ", job.verilog, re.M))[number]
    wrong = other if other.endswith("FAULT") else f"{other}_"
    text = f"{job.verilog[: place.start()]}  {wrong} {job.verilog[place.end() :]}"
    done = find_simulator("icarus").run(replace(job, verilog=text + BROKEN), shared)
    failed = [result.message for result in done.results if not result.passed]
    # It is a comparison that failed, not something around it.
    assert any("expected" in message for message in failed), failed


def test_gate_level_cases():
    """Every design once, in its small sizes; formats that are asked for instead of the first."""
    chosen = cases(library="nangate45", thorough=False)
    assert {case.design for case in chosen} == set(regression.DESIGNS)
    assert {case.library for case in chosen} == {"nangate45"}
    assert all(case.options in regression.DESIGNS[case.design].unit.gate_sizes for case in chosen)
    names = [case.name for case in cases(["fixed-array"], ["fixed5", "fixed6"], library="x")]
    assert names == ["fixed-array/fixed5/2x3", "fixed-array/fixed6/2x3"]


def test_refused_by_the_mapper(shared, monkeypatch):
    """A design that cannot be mapped is a failure of its own, and the others go on."""

    def refuse(*arguments, **options):
        raise YosysError("Yosys could not map fixed_mac: no cell")

    monkeypatch.setattr(regression, "map_netlist", refuse)
    (outcome,) = run_case(
        replace(MAC, options=Options()), find_simulator("icarus"), shared, 1, 300.0
    )
    assert (outcome.test, outcome.passed) == ("map", False)
    assert outcome.message == "Yosys could not map fixed_mac: no cell"
    assert outcome.command == (
        "narrowgauge test fixed-mac/fixed4/default --simulator icarus --seed 1 --gate-level --quick"
    )


def test_unreadable_library(tmp_path):
    broken = tmp_path / "cells.lib"
    broken.write_text("library (x) {")
    with pytest.raises(ValueError, match=r"cells\.lib"):
        run(cases(["fixed-mac"], ["fixed4"], library=str(broken)))
