"""Area, delay and energy of the ABFP tile against fixed point and bfloat16, on real operands.

Run as ``python bench/bench_abfp_tile.py``.  All figures are of the same run, cell library, clock
and layer of the embedded network.  A product is one of the tile's multipliers in one cycle: dot
products are cut to whole vectors of n elements, and the layer as it is stands beside.  Memories
(vectors that wait, weights, scales, biases) are in no figure.
"""

import argparse
from typing import Any

import numpy as np

from golden.bfloat16 import to_bits
from golden.bfloat16_mac import dot
from golden.fixed_mac import FixedMacSpec
from golden.formats import parse
from golden.inference import LayerStream, quantise
from golden.mac import ArraySpec
from hdl.abfp import AbfpDatapath
from hdl.bfloat16_mac import Bfloat16Mac
from hdl.fixed import FixedDatapath
from narrowgauge.abfp_machine import draw_vectors
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import read
from narrowgauge.tiles import cut_tiles
from synth.abfp_tile import MappedTile
from synth.activity import LANES_PER_WORD, Simulator, pack, unpack
from synth.array import MappedArray
from synth.cells import CellLibrary
from synth.energy import EnergyModel, unit_energy
from synth.library import load
from synth.units import map_modules
from synth.verilog import to_verilog

#: Most energy of a product, in times that of fixed8 and of bfloat16.
FIXED_TARGET, BFLOAT16_TARGET = 1.00, 0.30

FAST_CLOCK_NS = 1.0
LENGTH = 2048

#: Pairs of each stream through the bfloat16 unit.
PAIRS = 240


def layer(name: str, format_name: str) -> list[LayerStream]:
    """Operands of a layer in a format."""
    embedded = digits()
    assert embedded.data.calibration is not None
    form = parse(format_name)
    network = quantise(read(embedded.model_path), form.system(), embedded.data.calibration)
    return [s for s in network.streams(embedded.data.images[::17]) if s.name == name]


def fixed8(library: CellLibrary, name: str, clock_ns: float) -> tuple[float, dict[str, float]]:
    """Area of the array's share of a product, and energy of a product."""
    spec = ArraySpec(mac=FixedMacSpec(bits=8, length=LENGTH), rows=16, cols=16)
    array = MappedArray(FixedDatapath(spec.mac), spec, library, clock_ns=clock_ns)
    streams = layer(name, "fixed8")
    batch = cut_tiles(spec, streams, streams[0].output_codec.spec, seed=1)
    split, _ = unit_energy(array, array.run(batch), batch.products)
    return array.area_um2 / 256, split


def bfloat16(library: CellLibrary, name: str, clock_ns: float) -> tuple[float, dict[str, float]]:
    """Area of the multiply-accumulate unit, and energy of a product; results are checked."""
    (stream,) = layer(name, "abfp8")
    unit = Bfloat16Mac()
    design = to_verilog(unit)
    mapped = map_modules(design, [design.top], library, clock_ns=clock_ns)[design.top]
    operands = stream.operands
    rng = np.random.default_rng(1)
    spec = operands.weights
    scale = np.repeat(operands.tile.scale_values(spec.scales), operands.tile.tile, axis=1)
    weights = to_bits((spec.codes * scale[:, : spec.length] / 127).astype(np.float32))
    inputs = operands.inputs.astype(np.float32).view(np.uint32) >> 16
    sums, length = unit.interleaved, PAIRS // unit.interleaved
    pixels = rng.integers(0, len(inputs), (LANES_PER_WORD, 1))
    channels = rng.integers(0, len(weights), (LANES_PER_WORD, sums))
    a = np.broadcast_to(inputs[pixels[:, 0], :length][:, None], (LANES_PER_WORD, sums, length))
    w = weights[channels][:, :, :length]
    classes = ["logic" if cell.ff is None else "registers" for cell in mapped.netlist.instances]
    model = EnergyModel(mapped.netlist, classes, clock_ns=clock_ns, timing=mapped.timing)
    simulator = Simulator(mapped.netlist, LANES_PER_WORD)
    ones, zeros = (np.full((1, 1), value, np.uint64) for value in (~np.uint64(0), 0))
    simulator.step({"rst": ones, "o__ready": ones})
    simulator.step({"rst": zeros})
    before = simulator.activity()
    results: list[Any] = []
    sent = 0
    while len(results) < sums:
        # A pair of each sum in turn.
        step, turn = divmod(min(sent, sums * length - 1), sums)
        words = [
            pack(a[:, turn, step].astype(np.int64), 16),
            pack(w[:, turn, step].astype(np.int64), 16),
            ones if step == length - 1 else zeros,
        ]
        offered = ones if sent < sums * length else zeros
        simulator.step({"i__payload": np.concatenate(words), "i__valid": offered})
        sent += int(simulator.settled("i__ready")[0, 0] & offered[0, 0] & np.uint64(1))
        if simulator.settled("o__valid")[0, 0]:
            results.append(unpack(simulator.settled("o__payload"), LANES_PER_WORD))
    if not np.array_equal(np.stack(results, axis=1), dot(a, w)):
        raise ValueError("mapped bfloat16 unit must give the results of the golden model")
    (energy,) = model.measure(simulator.activity().since(before))
    return mapped.mapped.area_um2, energy.per(LANES_PER_WORD * sums * length)


def print_units(hardware: MappedTile, energies: dict[str, dict[str, float]]) -> None:
    """Print area, delay and energy of each unit."""
    print(f"{'unit':42} {'count':>5} {'um2':>9} {'ns':>6} {'pJ/product':>10}   split")
    for name, unit in hardware.units.items():
        path = unit.timing.critical_path
        delay = "" if path is None else f"{path.delay_ns:6.3f}"
        split = energies.get(name, {})
        parts = "  ".join(f"{kind} {value:.4f}" for kind, value in split.items() if value >= 5e-5)
        area = unit.count * unit.mapped.area_um2
        total = f"{sum(split.values()):10.4f}" if split else f"{'':10}"
        print(f"{name:42} {unit.count:5} {area:9.1f} {delay:>6} {total}   {parts}")


def unit_splits(hardware: MappedTile, run: Any, products: int) -> dict[str, dict[str, float]]:
    """Energy of a product by unit and class."""
    splits = {}
    for name, unit in hardware.units.items():
        model = EnergyModel(
            unit.netlist, unit.classes, clock_ns=hardware.clock_ns, timing=unit.timing
        )
        (energy,) = model.measure(run.activity[name])
        splits[name] = energy.per(products)
    return splits


def main(rows: int, lanes: int, name: str, clock_ns: float) -> None:
    """Print everything."""
    library = load("nangate45")
    print(f"NanGate 45 nm, {clock_ns} ns, {rows} rows, {lanes} lanes, layer {name} of digits")
    area, split = fixed8(library, name, clock_ns)
    fixed = sum(split.values())
    print(f"fixed8, 16x16 array: {area:.1f} um2 and {fixed:.4f} pJ a product")
    area, split = bfloat16(library, name, clock_ns)
    floating = sum(split.values())
    parts = "  ".join(f"{kind} {value:.4f}" for kind, value in split.items())
    print(
        f"bfloat16 multiply-accumulate: {area:.1f} um2, {floating:.4f} pJ a product, "
        f"{floating / fixed:.3f} of fixed8   {parts}"
    )
    for format_name in ("abfp8", "abfp8:exp_only=yes", "abfp6"):
        (stream,) = layer(name, format_name)
        datapath = AbfpDatapath(parse(format_name).tile_spec(), LENGTH)
        hardware = MappedTile(datapath.tile(rows, lanes, False), library, clock_ns=clock_ns)
        width = datapath.spec.tile
        whole = stream.operands.inputs.shape[1] // width * width
        print(f"\n{format_name}: {hardware.area_um2 / (rows * lanes):.1f} um2 a product")
        for title, length in (("whole vectors", whole), ("the layer as it is", None)):
            if length == 0:
                continue
            batch, products = draw_vectors(hardware, stream, 1, length)
            run = hardware.run(batch)
            split, _ = unit_energy(hardware, run, products)
            energy = sum(split.values())
            print(
                f"{title}: {energy:.4f} pJ a product, {energy / fixed:.3f} of fixed8 (target "
                f"{FIXED_TARGET}), {energy / floating:.3f} of bfloat16 (target {BFLOAT16_TARGET}); "
                f"{products / run.cycles / len(batch.elements):.1f} products a cycle"
            )
            print("  ".join(f"{kind} {value:.4f}" for kind, value in split.items()))
            bits = {
                memory: count * len(batch.elements) / products
                for memory, count in run.accesses.items()
            }
            print(
                "words of memories a product:", "  ".join(f"{m} {c:.4f}" for m, c in bits.items())
            )
            if length is not None:
                print_units(hardware, unit_splits(hardware, run, products))
    print(f"\nunits with all registers, {FAST_CLOCK_NS} ns")
    for format_name in ("abfp8", "abfp8:exp_only=yes"):
        datapath = AbfpDatapath(parse(format_name).tile_spec(), LENGTH)
        tile = datapath.tile(rows, lanes, True)
        print_units(MappedTile(tile, library, clock_ns=FAST_CLOCK_NS), {})
    design = to_verilog(Bfloat16Mac(True))
    unit = map_modules(design, [design.top], library, clock_ns=FAST_CLOCK_NS)[design.top]
    print(f"{design.top:42} {1:5} {unit.mapped.area_um2:9.1f} {unit.timing.critical_path_ns:6.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16, help="dot products of a vector")
    parser.add_argument("--lanes", type=int, default=8, help="elements of a cycle")
    parser.add_argument("--layer", default="conv3", help="layer of the embedded network")
    parser.add_argument("--clock-ns", type=float, default=2.0, help="clock period")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.lanes, arguments.layer, arguments.clock_ns)
