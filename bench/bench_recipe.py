"""Area, delay and energy of designs by how they are synthesised, to choose recipes by measurement.

Run as ``python bench/bench_recipe.py``.  Two tables for each library, of geometric means over the
designs below: at a clock that leaves time, where the smallest netlist counts, ratios to what the
default recipe of `synth.yosys.RECIPES` gives; and at one that does not, where the fastest counts,
ratios to what that recipe tries for such clocks first.  Rows vary one choice at a time.  Energy is
per cycle on bell-shaped operands.  A third table tells whether Yosys' ``share`` finds anything.
"""

import argparse
import functools
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from golden.formats import parse
from narrowgauge.catalogue import Options, find
from synth.activity import Simulator, pack
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.child import run_child
from synth.energy import EnergyModel
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.verilog import VerilogDesign, to_verilog
from synth.yosys import CHILD, Attempt, Recipe, map_netlist

DESIGNS = (
    ("fixed-mac", "fixed8"),
    ("tapered-mac", "tapered5"),
    ("dybit-mac", "dybit4:weight_bits=2"),
    ("elp_bsd-mac", "elp_bsd3:set=E3-1"),
    ("tapered-encoder", "tapered8:runs=4-7"),
)
LIBRARIES = ("nangate45", "sky130", "asap7")
#: Clocks in fan-outs of four; 91 are 2 ns in nangate45, and no design here does it in 20.
EASY_FO4, HARD_FO4 = 91.0, 20.0
SMALL = (
    *("chain, ripple, area", "rows, ripple, area", "rows, kogge-stone, area"),
    *("gates, ripple, area", "yosys, ripple, area", "carry-save, ripple, area"),
    *("separate, ripple, area", "booth, ripple, area"),
    *("chain, serial, area", "chain, brent-kung, area", "chain, kogge-stone, area"),
    *("chain, ripple, unsized", "chain, ripple, delay"),
)
FIRST = "fast-rows, kogge-stone, speed"
FAST = (
    *(FIRST, "rows, kogge-stone, speed", "gates, kogge-stone, speed"),
    *("carry-save, kogge-stone, speed", "booth, kogge-stone, speed"),
    *("fast-rows, brent-kung, speed", "fast-rows, sklansky, speed"),
    *("fast-rows, han-carlson, speed", "fast-rows, kogge-stone, delay"),
    *("fast-rows, kogge-stone, prefix", "gates, brent-kung, speed", "gates, kogge-stone, prefix"),
)
LANES = 512
CYCLES = 40
WORKERS = 2


def recipe(label: str) -> str | Recipe:
    """Recipe of one attempt, or the name of one."""
    if "," not in label:
        return label
    sums, carry, mapper = label.split(", ")
    return Recipe(description=label, attempts=(Attempt(sums=sums, carry=carry, mapper=mapper),))


def energy_pj(netlist: Netlist, model: EnergyModel) -> float:
    """Energy per cycle; single bits are tossed, and reset is rare."""
    generator = np.random.default_rng(1)
    simulator = Simulator(netlist, LANES)
    widths = {
        name: len(port.nets)
        for name, port in netlist.ports.items()
        if port.direction == "input" and name != "clk"
    }
    for _ in range(CYCLES):
        inputs = {}
        for name, width in widths.items():
            if width == 1:
                values = generator.random(LANES) < (0.02 if name == "rst" else 0.5)
            else:
                low, high = -(1 << width - 1), (1 << width - 1) - 1
                bell = generator.normal(0, 2.0 ** (width - 3), LANES)
                values = np.clip(np.round(bell), low, high)
            inputs[name] = pack(values.astype(np.int64), width)
        simulator.step(inputs)
    (energy,) = model.measure(simulator.activity())
    return energy.total_pj / energy.cycles


def measure(
    design: VerilogDesign, label: str, library: CellLibrary, clock_ns: float, cache: Cache
) -> tuple[float, float, float]:
    """Area, smallest clock period and energy per cycle."""
    mapped = map_netlist(
        design.modules, design.top, library, clock_ns=clock_ns, recipe=recipe(label), cache=cache
    )
    netlist = Netlist(mapped, library)
    timing = analyse(mapped.module, library)
    classes = ["all"] * len(netlist.instances)
    model = EnergyModel(netlist, classes, clock_ns=clock_ns, timing=timing)
    return mapped.area_um2, timing.critical_path_ns, energy_pj(netlist, model)


def print_table(
    designs: Mapping[str, VerilogDesign],
    labels: Sequence[str],
    library: CellLibrary,
    clock_ns: float,
    cache: Cache,
    *,
    each: bool,
) -> None:
    """Print ratios to the first label: geometric means, and for each design if asked for."""
    print(f"\n{library.name}, {clock_ns:.3g} ns clock; 1.000 is {labels[0]}")
    print(f"{'':32} {'area':>6} {'delay':>6} {'energy':>6} {'largest of one design':>24}")

    def row(label: str) -> np.ndarray:
        return np.array(
            [measure(design, label, library, clock_ns, cache) for design in designs.values()]
        )

    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(row, labels))
    for label, result in zip(labels, results, strict=True):
        ratios = result / results[0]
        mean = np.exp(np.log(ratios).mean(axis=0))
        print(
            f"{label:32} {mean[0]:6.3f} {mean[1]:6.3f} {mean[2]:6.3f}     "
            + " ".join(f"{worst:6.3f}" for worst in ratios.max(axis=0)),
            flush=True,
        )
        if each:
            for name, ratio, figures in zip(designs, ratios, result, strict=True):
                print(
                    f"    {name:28} {ratio[0]:6.3f} {ratio[1]:6.3f} {ratio[2]:6.3f}     "
                    f"{figures[0]:.1f} um2 {figures[1]:.3f} ns {figures[2]:.4f} pJ"
                )


def shared(design: VerilogDesign) -> int:
    """How many cells Yosys' ``share`` would have shared."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source.v").write_text("\n".join(design.modules.values()))
        commands = (
            "read_verilog source.v",
            f"synth -flatten -noshare -top {design.top} -run begin:fine",
            "share -aggressive",
        )
        (folder / "script.ys").write_text("".join(f"{command}\n" for command in commands))
        ended = run_child(CHILD, folder, seconds=120.0)
    if ended.status != 0:
        raise RuntimeError(ended.log[-500:])
    return sum(map(int, re.findall(r"Removing (\d+) cells in module", ended.log)))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Study of the synthesis recipes.")
    parser.add_argument("--library", action="append", help="name, or path of a Liberty file")
    parser.add_argument("--each", action="store_true", help="print every design")
    options = parser.parse_args()
    begin = time.perf_counter()
    cache = Cache()
    designs = {}
    for name, spec in DESIGNS:
        component = find(name).build(parse(spec), Options())
        designs[f"{name} {spec}"] = to_verilog(component)
    for name in options.library or LIBRARIES:
        library = load(name)
        table = functools.partial(print_table, designs, library=library, cache=cache)
        fo4_ns = library.fo4_delay_ns
        table(("default", *SMALL), clock_ns=EASY_FO4 * fo4_ns, each=options.each)
        table(FAST, clock_ns=HARD_FO4 * fo4_ns, each=options.each)
    print("\ncells that share -aggressive shares")
    for name, design in designs.items():
        print(f"{name:32} {shared(design):6d}")
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
