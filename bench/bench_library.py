"""The compact NanGate table against the full Liberty file: area, delay, energy, and time to load.

Run as ``python bench/bench_library.py NangateOpenCellLibrary_typical.lib``.  Every design is
mapped twice by the same recipe, once with each library, and timed and measured with the library
that it was mapped to, on the same operands.  The last column holds the netlist of the compact
table and measures it with the full tables, which separates the error of the table from what
mapping makes of it.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth.activity import Simulator, pack
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.energy import EnergyModel
from synth.library import load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.yosys import MappedNetlist, map_netlist

#: Largest deviation of a ratio from 1.
TARGET = 0.10
LANES = 1024
CYCLES = 100

DESIGNS = {
    "adder": "module adder(input [15:0] a, b, output [16:0] y); assign y = a + b; endmodule",
    "multiplier": """module multiplier(input signed [7:0] a, b, output signed [15:0] y);
        assign y = a * b; endmodule""",
    "mac": """module mac(input clk, rst, input signed [7:0] a, b, output reg signed [31:0] y);
        reg signed [15:0] p;
        always @(posedge clk) if (rst) begin p <= 0; y <= 0; end
        else begin p <= a * b; y <= y + p; end endmodule""",
    "shifter": """module shifter(input clk, input [15:0] a, input [3:0] b, output reg [15:0] y);
        reg [15:0] c; reg [3:0] d;
        always @(posedge clk) begin c <= a; d <= b; y <= $signed(c) >>> d; end endmodule""",
    "leading_one": """module leading_one(input clk, input [15:0] a, output reg [3:0] y);
        integer i; reg [3:0] n;
        always @* begin n = 0; for (i = 0; i < 16; i = i + 1) if (a[i]) n = i; end
        always @(posedge clk) y <= n; endmodule""",
    "registers": """module registers(input clk, input [31:0] a, output reg [31:0] y);
        reg [31:0] p, q; always @(posedge clk) begin p <= a; q <= p; y <= q; end endmodule""",
}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is compared."""

    area_um2: float
    delay_ns: float
    energy_pj: float

    def over(self, other: "Figures") -> list[float]:
        """Ratios of all figures."""
        return [
            self.area_um2 / other.area_um2,
            self.delay_ns / other.delay_ns,
            self.energy_pj / other.energy_pj,
        ]


#: Where the Liberty file is unless another is given.
LIBERTY = Path(__file__).parents[2] / "shared" / "liberty" / "nangate45_typ.lib.gz"


def measure(mapped: MappedNetlist, library: CellLibrary, clock_ns: float) -> Figures:
    """Area, smallest clock period, and energy per cycle on seeded operands."""
    netlist = Netlist(mapped, library)
    timing = analyse(mapped.module, library)
    simulator = Simulator(netlist, LANES)
    rng = np.random.default_rng(1)
    widths = {
        name: len(port.nets)
        for name, port in netlist.ports.items()
        if port.direction == "input" and name not in ("clk", "rst")
    }
    for _ in range(CYCLES):
        # Laplace operands: small values are common, as in the layers of a network.
        simulator.step(
            {
                name: pack(
                    np.clip(
                        rng.laplace(0, 2.0 ** (width - 4), LANES).round(),
                        -(2 ** (width - 1)),
                        2 ** (width - 1) - 1,
                    ).astype(np.int64),
                    width,
                )
                for name, width in widths.items()
            }
        )
    classes = ["cells"] * len(netlist.instances)
    model = EnergyModel(netlist, classes, clock_ns=clock_ns, timing=timing)
    (energy,) = model.measure(simulator.activity())
    return Figures(
        area_um2=netlist.area_um2,
        delay_ns=timing.critical_path_ns,
        energy_pj=energy.total_pj / energy.cycles,
    )


def main() -> None:
    """Print figures, ratios and the largest deviation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "liberty", type=Path, nargs="?", default=LIBERTY, help="file behind the compact table"
    )
    parser.add_argument("--recipe", default="default", help="key of synth.yosys.RECIPES")
    parser.add_argument("--clock-ns", type=float, default=2.0)
    arguments = parser.parse_args()
    clock_ns = arguments.clock_ns
    if not arguments.liberty.exists():
        print(f"skipped: there is no file {arguments.liberty}")
        return

    start = time.process_time()
    full = load(arguments.liberty)
    middle = time.process_time()
    compact = load("nangate45")
    end = time.process_time()
    print(
        f"processor time to load: Liberty file ({len(full.cells)} cells) {middle - start:.2f} s, "
        f"compact table ({len(compact.cells)} cells) {end - middle:.3f} s "
        f"({(middle - start) / (end - middle):.0f} times faster)"
    )
    print(f"{clock_ns:g} ns clock, recipe {arguments.recipe}; compact table over full table:")
    print(f"{'':12} {'full table':^27} {'each its own netlist':^21}  {'same netlist':^14}")
    heads = ("um2", "ns", "pJ/cycle", "area", "delay", "energy", "delay", "energy")
    print("{:12} {:>8} {:>8} {:>9}  {:>6} {:>6} {:>6}   {:>6} {:>6}".format("design", *heads))
    row = "{:12} {:8.1f} {:8.3f} {:9.4f}  {:6.3f} {:6.3f} {:6.3f}   {:6.3f} {:6.3f}"
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "clock_ns": clock_ns,
            "recipe": arguments.recipe,
            "cache": Cache(Path(folder)),
        }
        for name, text in DESIGNS.items():
            wide, narrow = (
                map_netlist(text, name, library, **options) for library in (full, compact)
            )
            reference = measure(wide, full, clock_ns)
            figures = measure(narrow, compact, clock_ns)
            ratios = figures.over(reference)
            worst = max(worst, *(abs(ratio - 1) for ratio in ratios))
            same = figures.over(measure(narrow, full, clock_ns))[1:]
            given = (reference.area_um2, reference.delay_ns, reference.energy_pj)
            print(row.format(name, *given, *ratios, *same), flush=True)
    print(
        f"largest deviation {worst:.1%} (target {TARGET:.0%}): "
        f"{'met' if worst <= TARGET else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
