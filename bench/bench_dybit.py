"""Hardware of dybit on the embedded network, and its fused multiplier, against fixed point.

Run as ``python bench/bench_dybit.py``.  Every figure is of the same cell library, mapping, clock,
length of dot products and layer; ratios are to the fixed-point array of 8 bits.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from amaranth.lib import wiring
from bench_array import CLOCK_NS, LAYER, LENGTH, network

from golden.dybit_fused import DybitFusedMacSpec
from golden.dybit_mac import DybitMacSpec
from golden.formats import parse
from golden.inference import LayerStream
from golden.mac import ArraySpec
from hdl.array import ProcessingElement
from hdl.datapath import Datapath
from hdl.dybit import DybitDatapath, DybitDecoder
from hdl.dybit_fused import DybitFusedDatapath
from hdl.hierarchy import mark_used
from narrowgauge.catalogue import SYSTEMS
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

#: Modes of the fused elements, and the format that runs in each of them.
VARIANTS = (("8x8", "4x4"), ("8x8", "4x8", "4x4"), ("8x8", "4x4", "2x2"))
NAMES = {"8x8": "dybit8", "4x8": "dybit8:weight_bits=4", "4x4": "dybit4", "2x2": "dybit2"}


class Figures(NamedTuple):
    """What is measured of an array in one format."""

    element: float
    whole: float
    element_ns: float
    array_ns: float
    products: int
    busy: float
    split: dict[str, float]

    @property
    def energies(self) -> tuple[float, float]:
        """Energy of a product over whole tiles, and times the share of cycles with a word."""
        total = sum(self.split.values())
        return total, total * self.busy


def streams(name: str) -> list[LayerStream]:
    """Operands of the layer in a format."""
    images = digits().data.images[::17]
    return [stream for stream in network(name).streams(images) if stream.name == LAYER]


def dybit_datapath(weight_bits: int, bits: int) -> DybitDatapath:
    """Array of one precision."""
    return DybitDatapath(DybitMacSpec(bits=bits, weight_bits=weight_bits, length=LENGTH))


def single(name: str) -> Datapath:
    """Array of one precision, for a format."""
    return SYSTEMS[parse(name).stem].datapath(parse(name), LENGTH)


def fused_batch(mac: DybitFusedMacSpec, batch: TileBatch, stream: LayerStream) -> TileBatch:
    """Tiles of an array of one precision, as words of the fused one."""
    weights, activations = stream.operands.weight_spec, stream.operands.activation_spec
    result = stream.output_codec.spec
    mode = mac.mode(weights, activations)
    columns = mac.words(weights, np.swapaxes(batch.weights, 1, 2), mode, "weight")
    shift = mac.sum_shift(weights, activations) - int(activations.signed)
    return replace(
        batch,
        activations=mac.words(activations, batch.activations, mode, "activation"),
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


def measure(
    datapath: Datapath,
    names: Sequence[str],
    *,
    library: str = LIBRARY,
    clock_ns: float = CLOCK_NS,
    **options: bool,
) -> list[Figures]:
    """Figures of one array in each of some formats."""
    spec = ArraySpec(mac=datapath.spec, rows=SIZE, cols=SIZE, **options)
    array = MappedArray(datapath, spec, load(library), clock_ns=clock_ns)
    element = array.units["pe"]
    figures = []
    for name in names:
        parts = streams(name)
        operands = parts[0].operands
        batch = cut_tiles(
            replace(spec, mac=single(name).spec), parts, parts[0].output_codec.spec, seed=1
        )
        products = 1
        if isinstance(datapath.spec, DybitFusedMacSpec):
            products = datapath.spec.mode(operands.weight_spec, operands.activation_spec).products
            batch = fused_batch(datapath.spec, batch, parts[0])
        run = array.run(batch)
        split, _ = unit_energy(array, run, batch.products)
        figures.append(
            Figures(
                element.mapped.area_um2,
                array.area_um2 / SIZE**2,
                element.timing.critical_path_ns,
                array.critical_path_ns,
                products,
                batch.activations.shape[2] / run.cycles,
                split,
            )
        )
    return figures


def arrays() -> None:
    """Arrays of one precision, and the fused ones in all of their modes."""
    print(f"{SIZE}x{SIZE} array, NanGate 45 nm, {CLOCK_NS} ns, length {LENGTH}, digits {LAYER}")
    print("area of a processing element, and of the whole array for each; products in a cycle;")
    print("energy of a product over whole tiles, and if a word entered in every cycle (full)")
    print(f"{'':30} {'um2/PE':>7} {'ratio':>6} {'array':>7} {'ratio':>6} {'PE ns':>6} {'ns':>6}")
    (baseline,) = measure(single("fixed8"), ["fixed8"])
    for name in ("fixed8", "fixed4", "dybit8", "dybit8:weight_bits=4", "dybit4", "dybit2"):
        show(name, measure(single(name), [name]), [name], baseline)
    for modes, pipelined in itertools.product(VARIANTS, (False, True)):
        spec = DybitFusedMacSpec(length=LENGTH, modes=modes)
        names = [NAMES[mode] for mode in modes]
        title = "fused " + " ".join(modes) + ", pipelined" * pipelined
        figures = measure(DybitFusedDatapath(spec), names, pipelined=pipelined)
        show(title, figures, names, baseline)
    print(f"targets: area {AREA_TARGET}, energy of 4x4 {ENERGY_TARGET}")


def show(title: str, figures: Sequence[Figures], names: Sequence[str], baseline: Figures) -> None:
    """Print the figures of one array as parts of the baseline."""
    first = figures[0]
    print(
        f"{title:30} {first.element:7.1f} {first.element / baseline.element:6.3f} "
        f"{first.whole:7.1f} {first.whole / baseline.whole:6.3f} "
        f"{first.element_ns:6.3f} {first.array_ns:6.3f}"
    )
    for name, each in zip(names, figures, strict=True):
        energies = "  ".join(
            f"{value:7.4f} {value / base:6.3f}"
            for value, base in zip(each.energies, baseline.energies, strict=True)
        )
        print(f"    {name:22} {each.products:2} a cycle, pJ {energies}")
        print("        " + "  ".join(f"{kind} {value:.3f}" for kind, value in each.split.items()))


def fused_split() -> None:
    """Where the area of the fused processing element goes, at the clock and at leisure."""
    units: dict[str, Callable[[], wiring.Component]] = {}
    for modes in VARIANTS:
        datapath = DybitFusedDatapath(DybitFusedMacSpec(length=LENGTH, modes=modes))
        spec = ArraySpec(mac=datapath.spec, rows=SIZE, cols=SIZE)
        title = "fused " + " ".join(modes)
        units[title] = partial(ProcessingElement, datapath, spec)
        units[f"{title}, product"] = datapath.product
    units |= {
        "dybit8 product": dybit_datapath(8, 8).product,
        "dybit4 product": dybit_datapath(4, 4).product,
        "fused encoder": datapath.encoder,
        "fixed8 encoder": single("fixed8").encoder,
    }
    print(f"{'um2 and ns':34} {CLOCK_NS} ns clock    3 times that")
    for title, make in units.items():
        columns = []
        for clock_ns in (CLOCK_NS, 3 * CLOCK_NS):
            component = make()
            mark_used(component)
            columns.append("{:8.1f} {:5.3f}".format(*unit_area(component, clock_ns)))
        print(f"    {title:30} {'  '.join(columns)}")


if __name__ == "__main__":
    decoders()
    fused_split()
    arrays()
