"""Bins: what counts as a hit, what an empty one leads to, and what the bins of benches mean."""

import json
from dataclasses import replace

import numpy as np
import pytest

from golden.dybit import DybitSpec
from golden.elp_bsd import DigitSet, ElpBsdSpec
from golden.fixed import FixedSpec
from golden.tapered import TaperedSpec
from narrowgauge.catalogue import DESIGNS, Options
from narrowgauge.regression import Case, cases, run, run_case
from sim import dybit, elp_bsd, fixed, tapered
from sim.bins import ElementBins
from sim.coverage import Coverage, empty_bins, merge
from sim.runner import find_simulator
from sim.system import Layer, exact_sums, largest_bias, rounded, scaling, steered_biases
from tests.simulators import needs_icarus, needs_verilator


def test_hits(tmp_path):
    cover = Coverage()
    cover.declare("gain", (1, 2, 4))
    cover.declare("end", ["low", "high"])
    assert not cover.is_full
    cover.count("gain", [[1, 4], [4, 4]])
    cover.count("end", np.array([], str))
    cover.mark("end", {"low": np.array([True, False, True]), "high": False})
    assert cover.counts == {"gain": {"1": 1, "2": 0, "4": 3}, "end": {"low": 2, "high": 0}}
    assert empty_bins(cover.counts) == ["gain: 2", "end: high"]
    cover.declare("gain", (2, 4))
    cover.hit("gain", "2", 5)
    cover.hit("end", "high")
    assert cover.is_full
    assert cover.counts["gain"] == {"1": 1, "2": 5, "4": 3}
    cover.write(tmp_path)
    assert json.loads((tmp_path / "coverage.json").read_text()) == cover.counts


@pytest.mark.parametrize(
    ("hit", "message"),
    [
        (lambda cover: cover.count("gain", [1, 3]), "bin must be one of 1, 2 in 'gain', not '3'"),
        (lambda cover: cover.mark("gain", {"x": True}), "one of 1, 2 in 'gain', not 'x'"),
        (lambda cover: cover.hit("pain", "1"), "bin must be one of  in 'pain', not '1'"),
    ],
)
def test_unknown_bin(hit, message):
    cover = Coverage()
    cover.declare("gain", (1, 2))
    with pytest.raises(ValueError, match=message):
        hit(cover)


def test_merge():
    one = {"a": {"x": 1, "y": 0}, "b": {"z": 0}}
    other = {"a": {"y": 2, "w": 0}, "c": {"v": 3}}
    merged = merge([one, other])
    assert merged == {"a": {"x": 1, "y": 2, "w": 0}, "b": {"z": 0}, "c": {"v": 3}}
    assert empty_bins(merged) == ["a: w", "b: z"]
    assert (one["a"], other["a"]) == ({"x": 1, "y": 0}, {"y": 2, "w": 0})
    assert merge([]) == {}


# What bins mean.


def bins(system, *codes):
    made = ElementBins(Coverage(), system)
    for spec in codes:
        made.declare_codes("code", [spec])
    return made


def test_bins_of_codes():
    """Hand-picked codes of the specifications' tables."""
    made = bins(tapered.make_system({"bits": 8}), TaperedSpec(bits=8, max_run=7))
    assert list(made.coverage.counts["run length of code"]) == list("1234567")
    made.count_codes("code", TaperedSpec(bits=8, max_run=7), np.array([0x7F, 0x80, 0, 0x01, 0xFF]))
    counts = made.coverage.counts
    assert counts["sign of code"] == {
        "largest": 1, "negative": 1, "positive": 1, "smallest": 1, "zero": 1,
    }  # fmt: skip
    assert counts["run length of code"] == {
        "1": 3, "2": 0, "3": 0, "4": 0, "5": 0, "6": 0, "7": 2,
    }  # fmt: skip

    digits = ElpBsdSpec(set=DigitSet.parse("E4-2"), scale=0.3)
    made = bins(elp_bsd.make_system({"sets": ("E4-2",)}), digits)
    assert len(made.coverage.counts["digits of code"]) == 16
    assert "largest" in made.coverage.counts["sign of code"]

    unsigned = DybitSpec(bits=4, signed=False, scale=7.0)
    made = bins(dybit.make_system({"bits": 4}), unsigned)
    # 64 is 1 * 2**... of the table in the specification: no bits of a significand are left.
    made.count_codes("code", unsigned, np.array([15, 0, 7, 8]))
    assert made.coverage.counts["sign of code"] == {"largest": 1, "positive": 2, "zero": 1}
    assert sum(made.coverage.counts["shift of code"].values()) == 4


def test_bins_of_wide_codes():
    """No table of pairs is made, which would not fit any memory."""
    made = ElementBins(Coverage(), fixed.make_system({"bits": 16, "weight_bits": 16}))
    made.declare_layers()
    assert len(made.coverage.counts["signs of operands"]) == 9


def test_bins_of_results():
    """Sums in quarters of a result: half-way is where 2 is left, and saturation beyond the ends."""
    made = ElementBins(Coverage(), fixed.make_system({"bits": 4}))
    made.declare_results(has_ties=True)
    result = FixedSpec(bits=4, frac_bits=0)
    sums = np.array([2, 6, -2, -6, 0, 1, 28, 29, -32, -33, 30])
    # Ties go to even: 2 -> 0, 6 -> 2, -2 -> 0, -6 -> -2 operands; 30 saturates.
    expected = result.requantise(sums, -2)
    assert (expected[:5] & 15).tolist() == [0, 2, 0, 14, 0]
    made.count_results(result, sums, -2, expected)
    assert made.coverage.counts["result"] == {
        "below all values": 1,
        "above all values": 2,
        "zero": 1,
        "tie, rounded up": 2,
        "tie, rounded down": 2,
    }
    # The other way, sums are many times a result, and as large as they can be.
    made.count_results(result, np.array([1 << 61, -(1 << 61), 0]), 3, np.array([7, 8, 0]))
    assert made.coverage.counts["result"]["above all values"] == 3
    assert made.coverage.counts["result"]["below all values"] == 2
    assert made.coverage.counts["result"]["zero"] == 2


def test_bins_without_ties():
    made = ElementBins(Coverage(), dybit.make_system({"bits": 8}))
    made.declare_layers()
    assert list(made.coverage.counts["result"]) == ["below all values", "above all values", "zero"]


def test_bins_of_products():
    """Two dot products by hand: 3 * 0 - 2 with ReLU, and -1 * 2 + 5 without."""
    system = fixed.make_system({"bits": 4, "weight_bits": 4, "length": 8})
    made = ElementBins(Coverage(), system)
    made.declare_layers()
    spec = FixedSpec(bits=4, frac_bits=0)
    layer = Layer(spec, spec, spec)
    for activation, weight, bias, relu in ((3, 0, -2, True), (15, 2, 5, False)):
        sums = exact_sums(layer, np.array([[activation]]), np.array([[weight]]), [bias])
        made.count_layer(
            layer,
            np.array([activation]),
            np.array([weight]),
            sums=sums,
            bias_q=[bias],
            relu=relu,
            expected=rounded(layer, sums, relu=relu),
        )
    counts = made.coverage.counts
    hit = {group: {n: c for n, c in named.items() if c} for group, named in counts.items()}
    assert hit == {
        "sign of weight": {"zero": 1, "positive": 1},
        "sign of activation": {"positive": 1, "negative": 1},
        "signs of operands": {"positive x zero": 1, "negative x positive": 1},
        "bits that are cut": {"none": 2},
        "relu": {"clears a negative sum": 1},
        "bias": {"negative": 1, "positive": 1, "turns the sign": 1},
        "result": {},
    }


SYSTEMS = {
    "fixed": fixed.make_system({"bits": 8, "weight_bits": 8, "length": 100}),
    "tapered": tapered.make_system({"bits": 8, "length": 100}),
    "dybit": dybit.make_system({"bits": 8, "weight_bits": 8, "length": 100}),
    "elp_bsd": elp_bsd.make_system(
        {"sets": ("E4-2",), "bits": 8, "length": 100, "multiplier": False}
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_steered_biases(name):
    """Most of them lead to zero or to a tie, in all systems that have ties."""
    system = SYSTEMS[name]
    rng = np.random.default_rng(3)
    made = ElementBins(Coverage(), system)
    made.declare_results(has_ties=True)
    count = 0
    for _ in range(60):
        layer = system.random_layer(rng)
        sums = rng.integers(-500, 500, 5)
        biases = steered_biases(rng, system.mac, layer, 3, sums)
        assert np.abs(biases).max() <= largest_bias(system.mac, layer, 3)
        totals = sums + biases
        mult, exponent = scaling(layer)
        expected = rounded(layer, totals, relu=False)
        made.count_results(layer.result, totals * mult, exponent, expected)
        count += len(sums)
    hits = made.coverage.counts["result"]
    steered = hits["zero"] + hits["tie, rounded up"] + hits["tie, rounded down"]
    assert hits["zero"] > 3
    assert steered > 0.9 * count
    assert (hits["tie, rounded up"] > 20) == (hits["tie, rounded down"] > 20) == system.has_ties


# What an empty bin leads to.

BENCH = """
import cocotb
from sim.parameters import load

COVER = load().coverage
COVER.declare("word", ["seen", "never", 3])


@cocotb.test()
async def one(dut):
    COVER.count("word", ["seen", "seen"])


@cocotb.test()
async def other(dut):
    COVER.hit("word", "seen")
"""


@pytest.fixture
def lacking(tmp_path, monkeypatch, shared):
    """Runs the tapered decoder on a bench that does not fill its bins."""
    (tmp_path / "tb_lacking.py").write_text(BENCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    design = DESIGNS["tapered-decoder"]
    unit = replace(design.unit, bench="tb_lacking")
    monkeypatch.setitem(DESIGNS, design.name, replace(design, unit=unit))
    case = Case(design=design.name, spec="tapered4", options=Options())

    def run_lacking(simulator, tests=()):
        # Here, for the workers of a whole run load the catalogue themselves.
        chosen = replace(case, simulator=simulator, tests=tests)
        return run_case(chosen, find_simulator(simulator), shared, 1, 300.0)

    return run_lacking


@pytest.mark.parametrize(
    "simulator",
    [
        pytest.param("icarus", marks=needs_icarus),
        pytest.param("verilator", marks=needs_verilator),
    ],
)
def test_empty_bin(lacking, simulator):
    """It fails, by name; the hits of both tests are there."""
    *passed, failed = lacking(simulator)
    assert [(each.test, each.passed) for each in passed] == [("one", True), ("other", True)]
    assert (failed.test, failed.passed) == ("coverage", False)
    assert failed.coverage == {"word": {"seen": 3, "never": 0, "3": 0}}
    assert failed.message == "every bin must be hit, but these were not: word: never; word: 3"
    assert failed.command.startswith("narrowgauge test tapered-decoder/tapered4 --simulator")


@needs_icarus
def test_no_judgement(lacking):
    """Nothing is said of bins if some tests only were run, or if one failed."""
    (outcome,) = lacking("icarus", ("one",))
    assert (outcome.test, outcome.passed) == ("one", True)
    case = Case(design="fixed-mac", spec="fixed4", options=Options(), thorough=False)
    results = run([replace(case, tests=("longest_sums",))], jobs=1)
    assert {outcome.test for outcome in results} == {"longest_sums"}
    (stopped,) = run([case], jobs=1, timeout_s=0.01)
    assert (stopped.passed, stopped.coverage) == (False, {})


@needs_icarus
def test_full_bins():
    (case,) = cases(["tapered-decoder"], ["tapered4"])
    decoded, covered = run([case], jobs=1)
    assert (decoded.test, covered.test, covered.passed) == ("every_code", "coverage", True)
    assert covered.message == ""
    runs = covered.coverage["run length of code"]
    assert list(runs) == ["1", "2", "3", "4"]
    assert all(runs.values())
