"""The mapped look-up engine: its units, what it measures, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from golden.weight_pool_engine import EngineSpec
from sim.weight_pool import PoolSystem
from synth.energy import unit_energy
from synth.library import load
from synth.weight_pool import MappedEngine, PixelBatch

SPEC = EngineSpec(
    entries=3,
    group=4,
    layout="nibble",
    max_act_bits=4,
    lanes=2,
    max_outputs=6,
    length=9,
    accumulator_bits=17,
)
ROLES = {"transposer": 1, "result": 3, "lane": 2, "finisher": 1, "control": 1}


@pytest.fixture(scope="module")
def engine():
    return MappedEngine(SPEC, load("nangate45"), clock_ns=2.0)


def make_batch(*, outputs=5, channels=8, act_bits=4, pixels=2, has_sign=True, spec=SPEC):
    """Random pixels of a layer, the same layer for all 64 streams."""
    rng = np.random.default_rng(3)
    system = PoolSystem(spec)
    pool = system.random_pool(rng)
    layer = system.random_layer(
        rng,
        pool,
        outputs=outputs,
        channels=channels,
        act_bits=act_bits,
        has_sign=has_sign,
        pixels=64 * pixels,
    )
    bits = layer.settings["largest"].bit_length() + layer.settings["result_has_sign"]
    return PixelBatch(
        groups=layer.groups.reshape(64, pixels, *layer.groups.shape[1:]),
        indices=layer.indices,
        bias=layer.bias_q,
        table=spec.stored(pool),
        settings=layer.settings,
        results=layer.expected.reshape(64, pixels, -1) & (1 << bits) - 1,
    )


def test_units(engine):
    assert {role: unit.count for role, unit in engine.units.items()} == ROLES
    areas = {role: unit.count * unit.mapped.area_um2 for role, unit in engine.units.items()}
    assert engine.area_um2 == pytest.approx(sum(areas.values()))
    split = engine.area_breakdown_um2()
    assert sum(split.values()) == pytest.approx(engine.area_um2)
    assert set(split) == {"decode", "multiply", "accumulate", "encode", "control", "registers"}
    # Memories are none of the registers: a bank of results, sums on their way, the requantiser.
    registers = sum(
        unit.count * sum(cell.ff is not None for cell in unit.netlist.instances)
        for unit in engine.units.values()
    )
    assert registers < 400
    assert engine.critical_path_ns <= 2.0


@pytest.mark.parametrize(
    ("sizes", "cycles"),
    [
        # Two groups of 4 planes each, 3 rows to gather.
        ({}, 8),
        # One group, gathered in 3 cycles; both lanes of 3 rows share a requantiser.
        ({"channels": 4, "act_bits": 1}, 6),
        ({"channels": 12, "act_bits": 2, "outputs": 6}, 9),
        ({"outputs": 1, "act_bits": 3}, 6),
    ],
)
def test_steady_state(engine, sizes, cycles):
    """Cycles of a pixel, and rows of memories that it touches."""
    batch = make_batch(**sizes)
    run = engine.run(batch)
    assert run.cycles == 2 * cycles
    blocks, outputs = batch.indices.shape
    rows = -(-outputs // 2)
    planes = batch.settings["top_plane"] + 1
    assert run.accesses == {
        "table": 2 * 2 * blocks * planes,
        "accumulators": 2 * 2 * (blocks - 1) * rows,
        "biases": 2 * rows,
        "sums": 2 * 2 * rows,
    }
    assert run.simulated == ROLES
    split, annotated = unit_energy(engine, run, 64 * 2 * outputs * blocks * 4)
    assert annotated == 1.0
    assert all(split[kind] > 0 for kind in ("multiply", "accumulate", "clock", "leakage"))


def test_energy_follows_the_activations(engine):
    """Zeros move the enables of the shift-accumulators alone; the clock costs the same."""
    busy = make_batch(has_sign=False)
    # Biases of zero and activations of zero: every code is zero.
    still = replace(
        busy,
        groups=np.zeros_like(busy.groups),
        bias=np.zeros_like(busy.bias),
        results=np.zeros_like(busy.results),
    )
    moving, _ = unit_energy(engine, engine.run(busy), 1)
    resting, _ = unit_energy(engine, engine.run(still), 1)
    assert resting["multiply"] < 0.25 * moving["multiply"]
    # That of a register that changes is a little more.
    assert 0.9 * moving["clock"] < resting["clock"] <= moving["clock"]
    # By state it is not quite the same.
    assert resting["leakage"] == pytest.approx(moving["leakage"], rel=0.1)


def test_several_requantisers():
    spec = replace(SPEC, requantisers=2, layout="full", pipelined=True)
    engine = MappedEngine(spec, load("nangate45"), clock_ns=2.0)
    run = engine.run(make_batch(spec=spec, channels=4, act_bits=1))
    assert run.cycles == 2 * 3
    assert run.accesses["table"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: {"groups": batch.groups[:63]}, r"64 streams of .* not \(63, 2, 2, 4\)"),
        (lambda batch: {"groups": batch.groups[..., :3]}, r"groups of 4, not \(64, 2, 2, 3\)"),
        (
            lambda batch: {"results": batch.results ^ (np.arange(5) == 3)},
            r"netlist must give code \d+ as the golden model, not \d+ \(stream 0, row 1, lane 1",
        ),
    ],
)
def test_bad_batch(engine, change, message):
    batch = make_batch()
    with pytest.raises(ValueError, match=message):
        engine.run(replace(batch, **change(batch)))
