"""Area, delay and energy of every design of the catalogue, in three libraries, at two clocks.

Run as ``python bench/bench_catalogue.py``; it prints a table in Markdown for each library.  With an
empty cache it takes about half an hour on two cores.

Each design is in its first preset.  The slow clock is 91 fan-outs of four of the library (2 ns in
nangate45), for hardware as it is by default; the fast one is half of that, for what ``pipelined``
makes of it where a design has that parameter.  An energy is

* of an array, the engine and the tile, that of a multiply-accumulate of the embedded network, as
  ``narrowgauge compare`` has it, and their area is that of one of the products of a cycle;
* of the fused array, the same of one layer in mode 8x8;
* of any other unit, that of a cycle in which all inputs are new, drawn uniformly.
"""

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import bench_dybit
from bench_dybit import DybitFusedDatapath, DybitFusedMacSpec

from golden.formats import parse
from narrowgauge.catalogue import DESIGNS, Design, Options
from narrowgauge.compare import MACHINES, Settings, compare
from narrowgauge.measure import Bench, simulate
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import read
from narrowgauge.stimuli import Distribution, random_stimuli
from synth.energy import EnergyModel
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.verilog import to_verilog
from synth.yosys import map_netlist

#: Clock periods of each library in ns: 91 fan-outs of four, and half of that.
CLOCKS_NS = {"nangate45": (2.0, 1.0), "sky130": (8.0, 4.0), "asap7": (1.8, 0.9)}

#: Units that ``compare`` measures on a network.
SYSTEM_UNITS = ("array", "engine", "tile")

STREAMS, CYCLES, SEED = 64, 64, 1


class Figures(NamedTuple):
    """What is measured of a design."""

    area_um2: float
    path_ns: float
    energy_pj: float


def measure_unit(design: Design, library_name: str, clock_ns: float, options: Options) -> Figures:
    """Measure a design as one netlist, with new inputs in every cycle."""
    library = load(library_name)
    form = parse(design.presets[0])
    verilog = to_verilog(design.build(form, options))
    mapped = map_netlist(verilog.modules, verilog.top, library, clock_ns=clock_ns)
    timing = analyse(mapped.module, library)
    netlist = Netlist(mapped, library)
    widths = {
        name: len(port.nets) for name, port in netlist.ports.items() if port.direction == "input"
    }
    clock = "clk" if widths.pop("clk", None) else None
    resets = {"rst": 1} if widths.pop("rst", None) else {}
    roles = Bench(clock=clock, resets=resets, widths=widths)
    stimuli = random_stimuli(
        widths, streams=STREAMS, cycles=CYCLES, seed=SEED, default=Distribution.parse("uniform")
    )
    activity = simulate(netlist, roles, stimuli, 4)
    model = EnergyModel(netlist, ["all"] * len(netlist.instances), clock_ns=clock_ns, timing=timing)
    (energy,) = model.measure(activity)
    return Figures(
        mapped.area_um2, timing.critical_path_ns, sum(energy.per(energy.cycles).values())
    )


def measure_systems(
    library: str, clock_ns: float, options: Options, jobs: int
) -> dict[str, Figures]:
    """Measure what runs a network, by design."""
    embedded = digits()
    formats = [DESIGNS[f"{stem}-{unit}"].presets[0] for stem, unit in system_designs()]
    settings = Settings(library=library, clock_ns=clock_ns, options=options)
    result = compare(read(embedded.model_path), embedded.data, formats, settings, jobs=jobs)
    return {
        row["design"]: Figures(
            row["area_per_mac_um2"], row["critical_path_ns"], row["energy_per_mac_pj"]
        )
        for row in result["rows"]
    }


def system_designs() -> Iterator[tuple[str, str]]:
    """Stems and units of what runs a network."""
    for design in DESIGNS.values():
        unit = design.name.removeprefix(f"{design.stem}-")
        if unit in SYSTEM_UNITS and design.stem in MACHINES:
            yield design.stem, unit


def measure_fused_array(library: str, clock_ns: float, *, pipelined: bool) -> Figures:
    """Measure the array that multiplies pairs of several widths, at its widest."""
    modes = tuple(Options().modes.split("-"))
    datapath = DybitFusedDatapath(DybitFusedMacSpec(length=Options().length, modes=modes))
    (wide,) = bench_dybit.measure(
        datapath, ["dybit8"], library=library, clock_ns=clock_ns, pipelined=pipelined
    )
    return Figures(wide.whole, wide.array_ns, sum(wide.split.values()))


def measure_library(library: str, jobs: int) -> dict[str, list[Figures]]:
    """Figures of all designs at both clocks."""
    figures: dict[str, list[Figures]] = {}
    for clock_ns, pipelined in zip(CLOCKS_NS[library], (False, True), strict=True):
        systems = measure_systems(library, clock_ns, Options(pipelined=pipelined), jobs)
        systems["dybit-fused_array"] = measure_fused_array(library, clock_ns, pipelined=pipelined)
        units = [design for name, design in DESIGNS.items() if name not in systems]

        def measure(design: Design, clock_ns=clock_ns, pipelined=pipelined) -> Figures:
            has_it = pipelined and "pipelined" in design.unit.options
            return measure_unit(design, library, clock_ns, Options(pipelined=has_it))

        with ThreadPoolExecutor(jobs) as pool:
            others = dict(zip([unit.name for unit in units], pool.map(measure, units), strict=True))
        for name in DESIGNS:
            figures.setdefault(name, []).append((systems | others)[name])
    return figures


def show(library: str, figures: dict[str, list[Figures]]) -> None:
    """Print a table in Markdown; paths that miss their clock are bold."""
    cells = load(library)
    slow, fast = CLOCKS_NS[library]
    print(
        f"\n### {library}: {cells.version}, {cells.voltage_v:g} V, {cells.temperature_c:g} C, "
        f"fan-out of four {1000 * cells.fo4_delay_ns:.1f} ps\n"
    )
    print(
        f"| design | format | {slow:g} ns: um2 | ns | pJ | {fast:g} ns, pipelined: um2 | ns | pJ |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name, columns in figures.items():
        texts = []
        for column, clock_ns in zip(columns, CLOCKS_NS[library], strict=True):
            path = f"{column.path_ns:.3f}"
            texts += [
                f"{column.area_um2:.4g}" if column.area_um2 < 1e4 else f"{column.area_um2:.0f}",
                f"**{path}**" if column.path_ns > clock_ns else path,
                f"{column.energy_pj:.3g}",
            ]
        print(f"| `{name}` | `{DESIGNS[name].presets[0]}` | {' | '.join(texts)} |", flush=True)
    misses = [
        sum(column.path_ns > clock_ns for column in by_clock)
        for by_clock, clock_ns in zip(
            zip(*figures.values(), strict=True), CLOCKS_NS[library], strict=True
        )
    ]
    print(f"\n{misses[0]} and {misses[1]} of {len(figures)} designs miss their clock (bold).")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=CLOCKS_NS, action="append", help="all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="designs at a time")
    arguments = parser.parse_args()
    for name in arguments.library or CLOCKS_NS:
        show(name, measure_library(name, arguments.jobs))
