"""Area, delay and energy of arithmetic by recipe, to choose the default by measurement.

Run as ``python bench/bench_recipe.py``.  The units are an 8-bit multiply-accumulate unit with a
28-bit sum, its multiplier alone, and a shifter with rounding such as an encoder has.  Every
attempt of `synth.yosys.Attempt` is a row; the rows above are whole recipes.  Energy is that of the
unit on bell-shaped weights and activations after a ReLU.
"""

import argparse
import itertools
import time

import numpy as np

from synth.activity import Simulator, pack
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.energy import EnergyModel
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.yosys import CARRIES, MAPPERS, RECIPES, SUMS, Attempt, Recipe, map_netlist

UNITS = {
    "mac": """\
module mac(input clk, input rst, input signed [7:0] a, input signed [7:0] b,
           output reg signed [27:0] acc);
  reg signed [7:0] x, y;
  always @(posedge clk) begin
    x <= a; y <= b; acc <= acc + x * y;
    if (rst) begin x <= 0; y <= 0; acc <= 0; end
  end
endmodule
""",
    "multiplier": """\
module multiplier(input signed [7:0] a, input signed [7:0] b, output signed [15:0] y);
  assign y = a * b;
endmodule
""",
    "rounder": """\
module rounder(input signed [7:0] a, input signed [7:0] b, output signed [7:0] y);
  wire signed [15:0] shifted = $signed({a, b}) >>> b[2:0];
  assign y = shifted[15:8] + (shifted[7] & (shifted[8] | |shifted[6:0]));
endmodule
""",
}
LANES = 2048
CYCLES = 60


def energy_pj(netlist: Netlist, model: EnergyModel) -> float:
    """Energy per cycle on operands like those of a network."""
    generator = np.random.default_rng(1)
    simulator = Simulator(netlist, LANES)
    for _ in range(CYCLES):
        a = np.clip(np.round(generator.laplace(0, 15, LANES)), 0, 127).astype(np.int8)
        b = np.clip(np.round(generator.normal(0, 25, LANES)), -128, 127).astype(np.int8)
        simulator.step({"a": pack(a, 8), "b": pack(b, 8)})
    (energy,) = model.measure(simulator.activity())
    return energy.total_pj / energy.cycles


def print_row(
    label: str, unit: str, recipe: Recipe, library: CellLibrary, clock_ns: float, cache: Cache
) -> None:
    """Map a unit by a recipe and print what came of it."""
    begin = time.perf_counter()
    mapped = map_netlist(UNITS[unit], unit, library, clock_ns=clock_ns, recipe=recipe, cache=cache)
    seconds = time.perf_counter() - begin
    netlist = Netlist(mapped, library)
    timing = analyse(mapped.module, library)
    classes = ["all"] * len(netlist.instances)
    model = EnergyModel(netlist, classes, clock_ns=clock_ns, timing=timing)
    late = " late" if timing.critical_path_ns > clock_ns else ""
    print(
        f"{label:32} {mapped.cell_count:6d} {mapped.area_um2:9.1f} "
        f"{timing.critical_path_ns:9.3f} {energy_pj(netlist, model):9.4f} {seconds:6.1f}{late}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Benchmark of the synthesis recipes.")
    parser.add_argument("--library", default="nangate45", help="name, or path of a Liberty file")
    parser.add_argument("--clock-ns", type=float, default=2.0, help="clock period to map for")
    parser.add_argument("--unit", choices=UNITS, action="append", help="unit; all by default")
    options = parser.parse_args()
    library = load(options.library)
    cache = Cache()
    attempts = [
        Attempt(sums=s, carry=c, mapper=m) for s, c, m in itertools.product(SUMS, CARRIES, MAPPERS)
    ]
    for unit in options.unit or UNITS:
        print(f"\n{unit}, {library.name}, {options.clock_ns:g} ns")
        print(f"{'':32} {'cells':>6} {'area um2':>9} {'delay ns':>9} {'pJ/cycle':>9} {'s':>6}")
        for name, recipe in RECIPES.items():
            print_row(f"recipe {name}", unit, recipe, library, options.clock_ns, cache)
        for attempt in attempts:
            label = f"{attempt.sums}, {attempt.carry}, {attempt.mapper}"
            recipe = Recipe(description=label, attempts=(attempt,))
            print_row(label, unit, recipe, library, options.clock_ns, cache)


if __name__ == "__main__":
    main()
