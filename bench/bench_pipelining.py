"""Units at a clock of 1 ns with registers in them, and what accumulators of two words cost.

Run as ``python bench/bench_pipelining.py``; the first time it takes minutes of mapping.  The first
table has the longest path that ends in every unit of a pipelined 16x16 array, its slack, and the
area of that unit; and those of decoders, encoders and multiply-accumulate units by themselves.  The
second one compares plain accumulators with carry-save ones, not pipelined and pipelined, at 2 ns
and at 1 ns, on a layer of the digits.
"""

import argparse
from typing import Any

from bench_array import LAYER, LENGTH, measure, network

from golden.formats import parse
from golden.mac import ROLES, ArraySpec
from hdl.datapath import Datapath
from hdl.mac import Mac
from narrowgauge.catalogue import SYSTEMS
from synth.array import MappedArray
from synth.library import load
from synth.timing import analyse
from synth.verilog import to_verilog
from synth.yosys import map_netlist

#: Number systems whose units are timed: all presets.
STEMS = ("fixed", "tapered", "dybit", "elp_bsd")
#: Formats whose accumulators are compared.
COMPARED = ("fixed8", "tapered8:runs=4-7", "dybit8", "elp_bsd4:set=E4-2,scale_pow2=yes")
CLOCK_NS = 1.0

#: Clock period and options of each row of the comparison.
CHOICES: tuple[tuple[float, dict[str, bool]], ...] = (
    (2.0, {}),
    (2.0, {"carry_save": True}),
    (1.0, {}),
    (1.0, {"carry_save": True}),
    (1.0, {"pipelined": True}),
    (1.0, {"pipelined": True, "carry_save": True}),
)


def datapath_of(name: str) -> Datapath:
    """Arithmetic of a format."""
    form = parse(name)
    datapath: Datapath = SYSTEMS[form.stem].datapath(form, LENGTH)
    return datapath


def print_slack(name: str, area_um2: float, delay_ns: float) -> None:
    """Print one row of the first table."""
    print(f"    {name:66} {area_um2:9.1f} {delay_ns:7.3f} {CLOCK_NS - delay_ns:+7.3f}", flush=True)


def slacks(name: str) -> float:
    """Print the units of a format, and return the least slack."""
    library = load("nangate45")
    datapath = datapath_of(name)
    spec = ArraySpec(mac=datapath.spec, pipelined=True)
    array = MappedArray(datapath, spec, library, clock_ns=CLOCK_NS)
    areas = {unit.name: unit.mapped.area_um2 for unit in array.units.values()}
    paths = {units: sum(part.delay_ns for part in path) for units, path in array.critical_paths()}
    print(f"{name}: tile of 64 products in {array.cycles(64)} cycles")
    for units, delay_ns in paths.items():
        *_, last = units.split(" to ")
        print_slack(units, areas[last], delay_ns)

    encoder = datapath.encoder(latency=datapath.encoder_latency(pipelined=True))
    decoders = [datapath.decoder(role) for role in ROLES]
    alone: list[Any] = [encoder, Mac(datapath, pipelined=True)]
    for component in alone + [decoder for decoder in decoders if decoder is not None]:
        design = to_verilog(component)
        if design.top not in paths:
            mapped = map_netlist(design.modules, design.top, library, clock_ns=CLOCK_NS)
            paths[design.top] = analyse(mapped.module, library).critical_path_ns
            print_slack(design.top, mapped.area_um2, paths[design.top])
    return CLOCK_NS - max(paths.values())


def compare_accumulators(name: str) -> None:
    """Print arrays of a format with accumulators of one word and of two."""
    quantised, datapath = network(name), datapath_of(name)
    print(name)
    for clock_ns, options in CHOICES:
        area, delay, energy, split = measure(datapath, quantised, clock_ns=clock_ns, **options)
        label = f"{clock_ns:g} ns {' '.join(options) or 'plain'}"
        late = " late" if delay > clock_ns else ""
        parts = ", ".join(f"{kind} {value:.3f}" for kind, value in split.items())
        print(f"    {label:30} {area:8.1f} {delay:6.3f} {energy:7.4f}{late}  {parts}", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Benchmark of pipelined units.")
    parser.add_argument("--spec", action="append", help="format; all presets by default")
    arguments = parser.parse_args()
    names = arguments.spec or [name for stem in STEMS for name in SYSTEMS[stem].presets]

    print(f"Pipelined units, NanGate 45 nm, {CLOCK_NS:g} ns, length {LENGTH}")
    print(f"    {'':66} {'um2':>9} {'ns':>7} {'slack':>7}")
    least = {name: slacks(name) for name in names}
    worst = min(least, key=lambda name: least[name])
    print(f"least slack: {least[worst]:+.3f} ns, {worst}")

    print(f"\nAccumulators of a 16x16 array, digits {LAYER}: um2/PE, ns, pJ/MAC, and its split")
    for name in arguments.spec or COMPARED:
        compare_accumulators(name)


if __name__ == "__main__":
    main()
