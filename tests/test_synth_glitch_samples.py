"""Glitches of some cycles: which are kept, and that they are what the whole run would give."""

from types import SimpleNamespace

import numpy as np
import pytest

from golden.mac import ArraySpec
from synth.activity import Simulator, pack
from synth.array import MappedArray
from synth.delays import library_delays
from synth.energy import glitch_energy, unit_energy
from synth.glitch_samples import GlitchSampling, SampledSimulator, begin_samples, end_samples
from synth.library import load
from synth.netlist import Netlist
from synth.yosys import map_netlist
from tests import test_synth_abfp_tile as tile
from tests import test_synth_array as arrays
from tests import test_synth_weight_pool as pool

EVERYTHING = 1 << 20


@pytest.fixture(scope="module")
def library():
    return load("nangate45")


@pytest.fixture(scope="module")
def register(library):
    """A module that shows what it is given a cycle later."""
    text = """module register(input clk, input [11:0] x, output reg [11:0] q);
      always @(posedge clk) q <= x; endmodule"""
    return Netlist(map_netlist(text, "register", library, clock_ns=2.0), library)


def numbered(netlist, cycles, lanes, samples):
    """Which cycles and lanes are kept, when all have numbers, and those that are no part of it."""
    simulator = SampledSimulator(netlist, lanes, samples=samples)
    rest = pack(np.full(lanes, 4095), 12)
    simulator.step({"x": rest})
    begin_samples([simulator])
    for cycle in range(cycles):
        simulator.step({"x": pack(np.arange(lanes) + cycle * lanes, 12)})
    end_samples([simulator, Simulator(netlist, 64)])
    for _ in range(cycles):
        simulator.step({"x": rest})
    before, after = simulator.kept
    weights = 1 << np.arange(12)
    # Rows of the inputs come first.
    was, now = (weights @ rows[:12].astype(int) for rows in (before, after))
    return was, now


@pytest.mark.parametrize(("lanes", "cycles"), [(64, 40), (128, 31), (64, 5)])
@pytest.mark.parametrize("samples", [1, 7, 100])
def test_one_of_each_stretch(register, lanes, cycles, samples):
    was, now = numbered(register, cycles, lanes, samples)
    count = cycles * lanes
    assert min(samples, count) <= len(now) <= 2 * samples
    # As far from one to the next as there are of them, but for what two stretches are apart.
    assert (np.diff(now) > 0).all()
    assert max(np.diff([0, *now, count - 1])) <= 6 * count / len(now)
    # What a lane had a cycle before; the first cycle follows what nobody counts.
    expected = np.where(now < lanes, 4095, now - lanes)
    assert (was == expected).all()


def test_all_are_kept(register):
    _, now = numbered(register, 10, 64, 640)
    assert (now == np.arange(640)).all()


def test_choices_are_spread(register):
    """Over the lanes too, not only over time; from the first cycle to the last."""
    _, now = numbered(register, 60, 64, 200)
    for part in (now[: len(now) // 2], now[len(now) // 2 :]):
        lanes = np.bincount(part % 64, minlength=64)
        # Of 64 lanes with two or three each, one in ten is missed.
        assert (lanes > 0).sum() > 40
        assert lanes.max() < 6 * len(part) / 64


def test_stretches_of_several_cycles(register):
    """Of 64 lanes in 60 cycles, one in two cycles is kept, in the second of the two as well."""
    _, now = numbered(register, 60, 64, 16)
    late = now[len(now) // 2 :] // 64
    assert len(late) >= 8
    assert set(late % 2) == {0, 1}


def test_again_and_again(register):
    """Another beginning forgets what was kept, and the choice is the same each time."""
    simulator = SampledSimulator(register, 64, samples=30)
    kept = []
    for _ in range(2):
        simulator.begin()
        for cycle in range(20):
            simulator.step({"x": pack(np.arange(64) + 64 * cycle, 12)})
        kept.append(simulator.kept[1][:12])
    assert (kept[0] == kept[1]).all()


def test_bad_arguments(register):
    with pytest.raises(ValueError, match="lanes must be a multiple of 64, not 65"):
        SampledSimulator(register, 65)
    with pytest.raises(ValueError, match="samples must be at least 1, not 0"):
        SampledSimulator(register, 64, samples=0)


@pytest.mark.parametrize("gating", [None, 4])
def test_whole_run_of_an_array(library, gating):
    """With everything kept, glitches are those of a run with delays, in every unit."""
    datapath, formats = arrays.FIXED
    spec = ArraySpec(mac=datapath.spec, rows=2, cols=2)
    array = MappedArray(datapath, spec, library, clock_ns=2.0, clock_gating=gating)
    tiles = arrays.batch(datapath, formats, 2, 2, 6)
    delays = {
        role: library_delays(unit.netlist, timing=unit.timing) for role, unit in array.units.items()
    }
    plain, late = array.run(tiles), array.run(tiles, delays=delays)
    assert plain.glitches == {}
    sampling = GlitchSampling(EVERYTHING)
    for _ in range(2):  # the same one for all runs
        run = array.run(tiles, glitches=sampling)
        assert set(run.glitches) == set(array.units)
        for role, samples in run.glitches.items():
            assert (run.activity[role].toggles == plain.activity[role].toggles).all()
            assert (samples.settled.toggles == plain.activity[role].toggles).all(), role
            assert (samples.delayed.toggles == late.activity[role].toggles).all(), role
        energies = [
            sum(unit_energy(array, one, tiles.products)[0].values()) for one in (plain, late)
        ]
        added = glitch_energy(array, run, tiles.products)
        assert added == pytest.approx(energies[1] - energies[0])
        assert added > 0.02 * energies[0]
    few = array.run(tiles, glitches=GlitchSampling(512))
    assert glitch_energy(array, few, tiles.products) == pytest.approx(added, rel=0.1)
    assert few.glitches["pe"].settled.lane_cycles[0] < run.activity["pe"].lane_cycles[0] / 2


@pytest.mark.parametrize("kind", ["tile", "engine"])
def test_whole_run_of_others(library, kind):
    """Cycles that are kept are those that count."""
    if kind == "tile":
        hardware = tile.MappedTile(
            tile.AbfpDatapath(tile.SPEC, tile.TILES * tile.SPEC.tile).tile(2, 4, False),
            library,
            clock_ns=4.0,
        )
        work = tile.batch()
    else:
        hardware = pool.MappedEngine(pool.SPEC, library, clock_ns=2.0)
        work = pool.make_batch()
    run = hardware.run(work, glitches=GlitchSampling(EVERYTHING))
    assert set(run.glitches) == set(hardware.units)
    for role, samples in run.glitches.items():
        assert (samples.settled.toggles == run.activity[role].toggles).all(), role
        assert samples.settled.lane_cycles.tolist() == run.activity[role].lane_cycles.tolist()
        assert (samples.delayed.toggles >= samples.settled.toggles).all()
    split, _ = unit_energy(hardware, run, 1)
    assert 0.01 < glitch_energy(hardware, run, 1) / sum(split.values()) < 1


def test_share_of_a_unit():
    """By hand: two units of which half were simulated, and a quarter of their cycles kept."""

    class Model:
        def measure(self, activity):
            return [SimpleNamespace(total_pj=float(activity.toggles.sum()))]

    def activity(toggles, cycles):
        return SimpleNamespace(toggles=np.array([[toggles]]), lane_cycles=np.array([cycles]))

    hardware = SimpleNamespace(units={"u": SimpleNamespace(count=2)})
    run = SimpleNamespace(
        simulated={"u": 1},
        activity={"u": activity(0, 40)},
        glitches={"u": SimpleNamespace(settled=activity(10, 10), delayed=activity(13, 10))},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synth.energy._unit_models", lambda _: {"u": Model()})
        assert glitch_energy(hardware, run, 6) == 2 * (13 - 10) * 4 / 6
