"""Mapped units of the ABFP tile, run together on drawn operands."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from golden.abfp_tile import AbfpTileSpec
from hdl.abfp import AbfpDatapath
from sim.abfp import AbfpSystem
from synth.abfp_tile import MappedTile, VectorBatch
from synth.activity import LANES_PER_WORD
from synth.assembly import Wiring, constant
from synth.cache import Cache
from synth.energy import unit_energy
from synth.library import load
from synth.verilog import VerilogDesign, to_verilog

SPEC = AbfpTileSpec(tile=8, weight_bits=4, activation_bits=4, gain=2)
ROWS, LANES, VECTORS, TILES = 2, 4, 3, 2


@pytest.fixture(scope="module")
def hardware():
    tile = AbfpDatapath(SPEC, TILES * SPEC.tile).tile(ROWS, LANES, False)
    return MappedTile(tile, load("nangate45"), clock_ns=4.0)


def batch(*, relu=False):
    rng = np.random.default_rng(1)
    products = [
        AbfpSystem(SPEC).random_product(
            rng, rows=ROWS, vectors=VECTORS, length=TILES * SPEC.tile, gain=2, relu=relu
        )
        for _ in range(LANES_PER_WORD)
    ]
    return VectorBatch(
        elements=np.stack([product.elements for product in products]),
        codes=np.stack([product.codes for product in products]),
        scales=np.stack([product.scales for product in products]),
        bias=np.stack([product.bias_bits for product in products]),
        settings={"gain": 1, "relu": int(relu)},
        results=np.stack([product.results for product in products]),
    )


@pytest.mark.parametrize("relu", [False, True])
def test_run(hardware, relu):
    """Results are those of the model; cycles and accesses are those of the tile's steady state."""
    run = hardware.run(batch(relu=relu))
    words = VECTORS * TILES * SPEC.tile // LANES
    # Each word is written once and read once; each row reads the weights of each word.
    assert run.accesses["store"] == 2 * words
    assert run.accesses["weights"] == ROWS * words
    interval = hardware.tile.interval
    assert VECTORS * TILES * interval <= run.cycles < (VECTORS * TILES + 8) * interval
    products = LANES_PER_WORD * VECTORS * ROWS * TILES * SPEC.tile
    split, annotated = unit_energy(hardware, run, products)
    assert annotated == 1
    assert split["multiply"] > 0
    assert split["abs-max"] > 0
    # Simulated lanes: all instances of all streams, in each cycle.
    (dot,) = (name for name in hardware.units if name.startswith("abfp_dot"))
    assert hardware.units[dot].count == ROWS
    assert run.activity[dot].lane_cycles.tolist() == [ROWS * LANES_PER_WORD * run.cycles]


def test_wrong_result(hardware):
    good = batch()
    wrong = good.results.copy()
    wrong[5, 1, 1] ^= 1
    with pytest.raises(ValueError, match=r"as the golden model, not .* \(stream 5, vector 1"):
        hardware.run(replace(good, results=wrong))


def test_bad_batch(hardware):
    good = batch()
    with pytest.raises(ValueError, match="batch must have a multiple of 64 streams"):
        hardware.run(replace(good, elements=good.elements[:3]))


def test_wiring_with_logic():
    """A module that is said to be wires must not have gates."""
    design = to_verilog(AbfpDatapath(SPEC, 8).tile(2, 4, False))
    wires = ("abfp_tile", "abfp_output", "abfp_load")
    with pytest.raises(ValueError, match="module abfp_load_rows2 must be wires only, not hold"):
        Wiring.of(design, lambda name: name.startswith(wires), load("nangate45"))


def test_constant():
    ones = ~np.uint64(0)
    assert constant(5, 4, 2).tolist() == [[ones] * 2, [0] * 2, [ones] * 2, [0] * 2]


@pytest.mark.parametrize("library", ["nangate45", "sky130", "asap7"])
def test_constants_between_units(library, tmp_path):
    """The cell of sky130 that makes constants makes both of them."""
    design = VerilogDesign(
        top="top",
        modules={
            "top": "module top (input wire [1:0] i, output wire [1:0] o);\n"
            "  leaf first (.a(4'd5), .b(i), .o(o[0]));\n"
            "  leaf second (.a({i, 2'd1}), .b(2'd0), .o(o[1]));\nendmodule\n",
            "leaf": "module leaf (input wire [3:0] a, input wire [1:0] b, output wire o);\n"
            "endmodule\n",
        },
        children={"top": Counter(leaf=2), "leaf": Counter()},
    )
    wiring = Wiring.of(design, lambda name: name == "top", load(library), Cache(tmp_path))
    ports = {instance.name: instance.ports for instance in wiring.instances}
    inputs = wiring.ports["i"]
    first, second = ([net] for net in wiring.ports["o"])
    assert ports["first"] == {"a": [1, 0, 1, 0], "b": inputs, "o": first}
    assert ports["second"] == {"a": [1, 0, *inputs], "b": [0, 0], "o": second}
