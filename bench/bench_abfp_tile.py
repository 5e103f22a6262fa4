"""Area of the ABFP tile by unit and per multiplier, mapped to NanGate 45 nm.

Run as ``python bench/bench_abfp_tile.py``.  Memories are left out: a flow has macros for them.
"""

import argparse
from collections import Counter

from golden.abfp_tile import AbfpTileSpec
from hdl.abfp import AbfpTile
from synth.library import load
from synth.timing import analyse
from synth.verilog import VerilogDesign, to_verilog
from synth.yosys import map_netlist

CLOCK_NS = 2.0

#: Start of the names of memories.
STORE = "abfp_store_"

#: Longest that mapping one unit may take, in seconds.
TIMEOUT_S = 600.0


def stubs(design: VerilogDesign, name: str) -> dict[str, str]:
    """Modules without contents for the units inside module ``name``."""
    return {
        child: design.modules[child].partition(");")[0] + ");\nendmodule\n"
        for child in design.children[name]
    }


def measure(spec: AbfpTileSpec, rows: int, lanes: int) -> None:
    """Print area and delay of each unit, and what the whole comes to."""
    design = to_verilog(AbfpTile(spec, rows=rows, lanes=lanes, max_tiles=4))
    counts = Counter(
        {name: count for name, count in design.counts().items() if not name.startswith(STORE)}
    )
    library = load("nangate45")
    total = 0.0
    print(f"{design.top}: {rows * lanes} multipliers, NanGate 45 nm, {CLOCK_NS} ns")
    print(f"{'unit':40} {'um2':>9} {'count':>5} {'um2 in all':>11} {'ns':>6}")
    for name, count in counts.items():
        inside = stubs(design, name)
        mapped = map_netlist(
            design.modules[name],
            name,
            library,
            clock_ns=CLOCK_NS,
            blackboxes=inside,
            timeout_s=TIMEOUT_S,
        )
        area = count * mapped.area_um2
        total += area
        # Paths through a unit with others inside are not known.
        delay = "" if inside else f"{analyse(mapped.module, library).critical_path_ns:6.2f}"
        print(f"{name:40} {mapped.area_um2:9.1f} {count:5} {area:11.1f} {delay}")
    print(f"{'all but the memories':40} {total:27.1f}, {total / (rows * lanes):.1f} um2/MAC\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tile", type=int, default=128, help="elements of a vector")
    parser.add_argument("--rows", type=int, default=16, help="dot products of a vector")
    parser.add_argument("--lanes", type=int, default=8, help="elements of a cycle")
    arguments = parser.parse_args()
    for exp_only in (False, True):
        measure(
            AbfpTileSpec(tile=arguments.tile, exp_only=exp_only), arguments.rows, arguments.lanes
        )
