"""Hardware of dybit on the embedded network, and its fused multiplier, against fixed point.

Run as ``python bench/bench_dybit.py``.  Every figure is of the same cell library, mapping, clock,
length of dot products and layer; ratios are to the fixed-point array of 8 bits.
"""

from dataclasses import replace

import numpy as np
from amaranth.lib import wiring
from bench_array import CLOCK_NS, LAYER, LENGTH, network

from golden.dybit_mac import DybitFusedMacSpec, DybitMacSpec
from golden.fixed_mac import FixedMacSpec
from golden.inference import LayerStream
from golden.mac import ArraySpec
from hdl.array import ProcessingElement
from hdl.datapath import Datapath
from hdl.dybit import DybitDatapath, DybitDecoder
from hdl.dybit_fused import DybitFusedDatapath
from hdl.fixed import FixedDatapath
from hdl.hierarchy import mark_used
from narrowgauge.networks import digits
from narrowgauge.tiles import cut_tiles
from synth.array import MappedArray, TileBatch
from synth.energy import unit_energy
from synth.library import load
from synth.timing import analyse
from synth.verilog import to_verilog
from synth.yosys import map_netlist

#: Targets of the fused processing element, as parts of the fixed-point one.
AREA_TARGET = 2.0
ENERGY_TARGET = 0.45

SIZE = 16
LIBRARY = "nangate45"


def streams(name: str) -> list[LayerStream]:
    """Operands of the layer in a format."""
    images = digits().data.images[::17]
    return [stream for stream in network(name).streams(images) if stream.name == LAYER]


def dybit_datapath(weight_bits: int, bits: int) -> DybitDatapath:
    """Array of one precision."""
    return DybitDatapath(DybitMacSpec(bits=bits, weight_bits=weight_bits, length=LENGTH))


def fused_batch(mac: DybitFusedMacSpec, batch: TileBatch, stream: LayerStream) -> TileBatch:
    """Tiles of an array of one precision, as words of the fused one."""
    weights, activations = stream.operands.weight_spec, stream.operands.activation_spec
    result = stream.output_codec.spec
    narrow = mac.is_narrow(weights, activations)
    columns = mac.words(weights, np.swapaxes(batch.weights, 1, 2), narrow=narrow)
    shift = mac.sum_shift(weights, activations) - int(activations.signed)
    return replace(
        batch,
        activations=mac.words(activations, batch.activations, narrow=narrow),
        weights=np.swapaxes(columns, 1, 2),
        bias=batch.bias << shift,
        settings=mac.settings(weights, activations, result),
        results=batch.results << mac.bits - result.bits,
    )


def unit_area(component: wiring.Component, clock_ns: float = CLOCK_NS) -> tuple[float, float]:
    """Area and longest path of one unit."""
    design = to_verilog(component)
    library = load(LIBRARY)
    mapped = map_netlist(design.modules, design.top, library, clock_ns=clock_ns)
    return mapped.area_um2, analyse(mapped.module, library, wire_cap_ff=0.0).critical_path_ns


def decoders() -> None:
    """Tables against leading-one detectors with shifters."""
    print(f"decoders, um2 and ns: {'table':>14} {'shifter':>14}")
    for bits in (2, 3, 4, 5, 8):
        columns = []
        for table in (True, False):
            spec = DybitMacSpec(bits=bits, length=LENGTH, table=table)
            columns.append("{:8.1f} {:5.3f}".format(*unit_area(DybitDecoder(spec, "activation"))))
        print(f"    activations of {bits} bits  {'  '.join(columns)}")


def arrays() -> None:
    """Arrays of one precision, and the fused one in both of its modes."""
    fused = DybitFusedDatapath(DybitFusedMacSpec(length=LENGTH))
    cases: list[tuple[str, Datapath, str, Datapath]] = []
    for bits in (8, 4):
        fixed = FixedDatapath(FixedMacSpec(bits=bits, length=LENGTH))
        cases.append((f"fixed{bits}", fixed, f"fixed{bits}", fixed))
    for weight_bits, bits in ((8, 8), (4, 8), (4, 4)):
        single = dybit_datapath(weight_bits, bits)
        name = f"dybit{bits}" + (f":weight_bits={weight_bits}" if weight_bits != bits else "")
        cases += [
            (name, single, name, single),
            (f"fused {weight_bits}x{bits}", fused, name, single),
        ]

    print(f"{SIZE}x{SIZE} array, NanGate 45 nm, {CLOCK_NS} ns, length {LENGTH}, digits {LAYER}")
    print("area of a processing element and of the whole array for each; energy of a product over")
    print("whole tiles, and of a product times the share of the cycles in which one is made")
    print(f"{'':22} {'um2/PE':>8} {'ratio':>6} {'array':>8} {'ratio':>6} {'PE ns':>6} {'ns':>6}")
    print(f"{'':22} {'pJ':>8} {'ratio':>6} {'full':>8} {'ratio':>6}")
    baseline: list[float] = []
    for title, datapath, name, plain in cases:
        spec = ArraySpec(mac=datapath.spec, rows=SIZE, cols=SIZE)
        array = MappedArray(datapath, spec, load(LIBRARY), clock_ns=CLOCK_NS)
        parts = streams(name)
        result = parts[0].output_codec.spec
        batch = cut_tiles(replace(spec, mac=plain.spec), parts, result, seed=1)
        if isinstance(datapath.spec, DybitFusedMacSpec):
            batch = fused_batch(datapath.spec, batch, parts[0])
        run = array.run(batch)
        split, _ = unit_energy(array, run, batch.products)
        element = array.units["pe"]
        energy = sum(split.values())
        busy = batch.activations.shape[2] / run.cycles
        figures = [element.mapped.area_um2, array.area_um2 / SIZE**2, energy, energy * busy]
        baseline = baseline or figures
        area, whole, each, full = (
            f"{value:8.4g} {value / base:6.3f}"
            for value, base in zip(figures, baseline, strict=True)
        )
        print(
            f"{title:22} {area} {whole} {element.timing.critical_path_ns:6.3f} "
            f"{array.critical_path_ns:6.3f}"
        )
        print(f"{'':22} {each} {full}")
        print("    " + "  ".join(f"{kind} {value:.3f}" for kind, value in split.items()))
        if title == "fused 4x4":
            print(f"    targets: area {AREA_TARGET}, energy {ENERGY_TARGET}")


def fused_split() -> None:
    """Where the area of the fused processing element goes, at the clock and at leisure."""
    datapath = DybitFusedDatapath(DybitFusedMacSpec(length=LENGTH))
    spec = ArraySpec(mac=datapath.spec, rows=SIZE, cols=SIZE)
    units = {
        "fused processing element": lambda: ProcessingElement(datapath, spec),
        "its product": datapath.product,
        "dybit8 product": dybit_datapath(8, 8).product,
        "fused encoder": datapath.encoder,
        "fixed8 encoder": FixedDatapath(FixedMacSpec(bits=8, length=LENGTH)).encoder,
    }
    print(f"{'um2 and ns':30} {CLOCK_NS} ns clock    3 times that")
    for title, make in units.items():
        columns = []
        for clock_ns in (CLOCK_NS, 3 * CLOCK_NS):
            component = make()
            mark_used(component)
            columns.append("{:8.1f} {:5.3f}".format(*unit_area(component, clock_ns)))
        print(f"    {title:26} {'  '.join(columns)}")


if __name__ == "__main__":
    decoders()
    fused_split()
    arrays()
