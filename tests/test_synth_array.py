"""Mapped arrays: the codes that leave them, their area, and their operand tiles."""

from dataclasses import replace

import numpy as np
import pytest

from golden.dot import accumulator_exp, matmul
from golden.fixed import FixedSpec
from golden.fixed_mac import FixedMacSpec
from golden.mac import ArraySpec
from golden.tapered import TaperedSpec
from golden.tapered_mac import TaperedMacSpec
from hdl.fixed import FixedDatapath
from hdl.tapered import TaperedDatapath
from synth import array as synth_array
from synth.array import MappedArray, TileBatch
from synth.cache import Cache
from synth.delays import library_delays
from synth.energy import unit_energy
from synth.library import load

TILES = 64


def batch(datapath, formats, rows, cols, length, *, relu=False, seed=1):
    """Random tiles, with the codes that the golden model gives for them."""
    weights, activations, result = formats
    mac = datapath.spec
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 1 << mac.bits, (TILES, rows, length))
    w = rng.integers(0, 1 << mac.bits, (TILES, length, cols))
    bias_q = rng.integers(-50, 50, (TILES, cols))
    quire = matmul(
        weights, activations, w.transpose(0, 2, 1), a.transpose(0, 2, 1), bias_q[:, :, None]
    ).transpose(0, 2, 1)
    exponent = accumulator_exp(weights, activations)
    return TileBatch(
        activations=a,
        weights=w,
        bias=bias_q << mac.sum_shift(weights, activations),
        relu=relu,
        settings=mac.settings(weights, activations, result),
        results=result.requantise(quire, exponent, relu=relu),
        products=TILES * rows * cols * length,
    )


FIXED = (
    FixedDatapath(FixedMacSpec(bits=5, length=16)),
    [FixedSpec(bits=5, frac_bits=n) for n in (5, 3, 2)],
)
TAPERED = (
    TaperedDatapath(TaperedMacSpec(bits=6, min_run=4, max_run=5, length=16)),
    [
        TaperedSpec(bits=6, max_run=4, scale_exp=-2),
        TaperedSpec(bits=6, max_run=5),
        TaperedSpec(bits=6, max_run=4),
    ],
)


def mapped(case, rows, cols, **options):
    spec = ArraySpec(mac=case[0].spec, rows=rows, cols=cols, **options)
    return MappedArray(case[0], spec, load("nangate45"), clock_ns=2.0)


@pytest.mark.parametrize("case", [FIXED, TAPERED], ids=["fixed", "tapered"])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((1, 1), {}),
        ((3, 2), {}),
        ((2, 3), {"zero_gating": True}),
        ((2, 2), {"decoders": "pe"}),
        ((3, 2), {"pipelined": True, "zero_gating": True, "carry_save": True}),
    ],
    ids=str,
)
def test_codes_that_leave(case, size, options):
    """The mapped units together compute the golden model's codes, for two lengths."""
    array = mapped(case, *size, **options)
    for length, relu in ((1, False), (13, True)):
        run = array.run(batch(*case, *size, length, relu=relu))
        assert run.cycles == array.cycles(length)
        split, annotated = unit_energy(array, run, 1)
        assert annotated == 1.0
        assert min(split.values()) >= 0
        assert split["clock"] > 0


def test_wrong_codes_are_refused():
    array = mapped(TAPERED, 2, 2)
    good = batch(*TAPERED, 2, 2, 5)
    wrong = good.results.copy()
    wrong[63, 1, 0] ^= 1
    with pytest.raises(ValueError, match=r"as the golden model, .* \(tile 63, row 1, column 0\)"):
        array.run(replace(good, results=wrong))


def test_wrong_shapes_are_refused():
    array = mapped(FIXED, 2, 2)
    good = batch(*FIXED, 2, 2, 5)
    with pytest.raises(ValueError, match="batch must have 2 rows"):
        array.run(replace(good, activations=good.activations[:, :1]))
    with pytest.raises(ValueError, match="batch must have a multiple of 64 tiles, not 63"):
        array.run(replace(good, activations=good.activations[:63], weights=good.weights[:63]))


def test_glitches_of_an_element():
    """Delays of one unit add to its toggles, two at a time, and change nothing else."""
    array = mapped(FIXED, 2, 2)
    tiles = batch(*FIXED, 2, 2, 9)
    element = array.units["pe"]
    delays = {"pe": library_delays(element.netlist, timing=element.timing)}
    settled, late = array.run(tiles), array.run(tiles, delays=delays)
    for role, activity in settled.activity.items():
        more = late.activity[role].toggles - activity.toggles
        assert not (more % 2).any()
        assert (more >= 0).all()
        assert more.any() == (role == "pe")
    energies = [sum(unit_energy(array, run, tiles.products)[0].values()) for run in (settled, late)]
    assert 1.02 < energies[1] / energies[0] < 2
    with pytest.raises(ValueError, match=r"delays must be of .*pe.*, not of 'mac'"):
        array.run(tiles, delays={"mac": delays["pe"]})


def test_area_is_that_of_the_units():
    """An array costs its units as often as they stand, and its classes add up to that."""
    small, large = mapped(TAPERED, 2, 3), mapped(TAPERED, 4, 3)
    for array in (small, large):
        assert sum(array.area_breakdown_um2().values()) == pytest.approx(array.area_um2)
    counts = {role: unit.count for role, unit in large.units.items()}
    assert counts == {
        "activation_skew": 10,
        "weight_skew": 6,
        "pe": 12,
        "drain": 3,
        "control": 1,
        "activation_decoder": 4,
        "weight_decoder": 3,
    }
    # Two rows more: six elements, two decoders, longer skews, another controller.
    unit = {role: unit.mapped.area_um2 for role, unit in large.units.items()}
    before = {role: unit.mapped.area_um2 for role, unit in small.units.items()}
    expected = (
        6 * unit["pe"]
        + 2 * unit["activation_decoder"]
        + (3 + 4) * unit["activation_skew"]
        + unit["control"] - before["control"]
    )  # fmt: skip
    assert large.area_um2 - small.area_um2 == pytest.approx(expected)
    assert 0 < large.critical_path_ns < 2.0
    assert large.leakage_uw > small.leakage_uw > 0


def test_units_are_those_of_the_whole_array():
    """What is mapped is the text of the modules of the array, which is not written for that."""
    cases = ((FIXED, {}), (TAPERED, {"pipelined": True}), (TAPERED, {"decoders": "pe"}))
    for case, options in cases:
        array = mapped(case, 3, 2, **options)
        for unit in array.units.values():
            assert array.sources.modules[unit.name] == array.verilog.modules[unit.name]
            assert array.verilog.counts()[unit.name] == sum(
                other.count for other in array.units.values() if other.name == unit.name
            )


class OwnDatapath(FixedDatapath):
    """A datapath whose code is not that of this project."""


def test_verilog_is_kept_by_all_that_it_depends_on(tmp_path, monkeypatch):
    written = []

    def to_verilog(component):
        written.append(component.module_name)
        return convert(component)

    def sources(datapath=FIXED[0], **options):
        """Modules, and how many designs were written for them."""
        written.clear()
        spec = ArraySpec(mac=datapath.spec, **({"rows": 4, "cols": 4} | options))
        design = synth_array._sources(datapath, spec, [], Cache(tmp_path))
        return design, len(written)

    convert = synth_array.to_verilog
    monkeypatch.setattr(synth_array, "to_verilog", to_verilog)
    first, count = sources()
    assert count == 1
    again, count = sources()
    assert (again, count) == (first, 0)
    assert sum(n for name, n in again.counts().items() if "_pe" in name) == 9
    assert again.children[again.top]["no module"] == 0
    gated, count = sources(zero_gating=True)
    assert count == 1
    assert gated.modules.keys() != first.modules.keys()
    assert sources(TAPERED[0])[1] == 1
    wide = FixedDatapath(FIXED[0].spec)
    wide.encoder_config = {"shift": 7}
    assert sources(wide)[1] == 1
    # Nothing says what the code of other datapaths is.
    own = OwnDatapath(FIXED[0].spec)
    assert [sources(own) for _ in range(2)] == [(first, 1), (first, 1)]
    monkeypatch.setattr(synth_array, "_code_digest", lambda: "other code")
    assert sources()[1] == 1
    monkeypatch.setattr(synth_array, "distributions", lambda name: [])
    assert sources()[1] == 1


def test_zero_operands_cost_only_the_clock():
    """Without data nothing moves in an element: no energy but clock and leakage."""
    case = FIXED
    array = mapped(case, 2, 2)
    good = batch(*case, 2, 2, 9)
    still = replace(
        good,
        activations=np.zeros_like(good.activations),
        weights=np.zeros_like(good.weights),
        bias=np.zeros_like(good.bias),
        results=np.zeros_like(good.results),
    )
    split, _ = unit_energy(array, array.run(still), 1)
    moving, _ = unit_energy(array, array.run(good), 1)
    assert split["multiply"] == 0
    # A flip-flop's clock pin costs a little more in a cycle in which its state changes.
    assert 0.9 * moving["clock"] < split["clock"] < moving["clock"]
    assert split["accumulate"] < moving["accumulate"] / 10  # the drain moves its multiplexers
