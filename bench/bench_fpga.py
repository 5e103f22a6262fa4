"""What the designs take of three FPGA families, and the frequencies that they reach on two.

Run as ``python bench/bench_fpga.py``; the frequencies need the extra ``fpga`` and are left out
without it, or with ``--no-frequency``.  Prints the tables of docs/fpga.md and fails if a memory of
a kilobit or more became flip-flops, or a design holds cells that are not counted.
"""

import argparse
import statistics
import sys
import time

from golden.formats import parse
from narrowgauge.catalogue import DESIGNS, Options, find
from synth.fpga import FAMILIES, FpgaNetlist, map_fpga
from synth.pnr import PlacementError, nextpnr_version, place_and_route, require_nextpnr
from synth.verilog import VerilogDesign, to_verilog

#: Devices for units, and for what is larger.
DEVICES = (("ice40", "hx8k"), ("ice40", "up5k"), ("ecp5", "25k"), ("xilinx", "a35t"))
LARGE_DEVICES = (("ice40", "hx8k"), ("ice40", "up5k"), ("ecp5", "85k"), ("xilinx", "a100t"))
MEMORIES = (
    ("abfp-tile", "abfp8:tile=32", Options(rows=4, lanes=8, length=256)),
    ("weight_pool-engine", "weight_pool32", Options()),
    ("weight_pool-engine", "weight_pool64", Options()),
    ("weight_pool-engine", "weight_pool64:layout=nibble", Options()),
)
#: Memories of fewer bits may become flip-flops.
SMALL_BITS = 1024
TARGET_MHZ = 100.0


def frequency(netlist: FpgaNetlist, design: VerilogDesign, seeds: int) -> str:
    """Median of some seeds in MHz, or why there is none."""
    try:
        runs = [
            place_and_route(
                netlist,
                clock=design.clocks[0] if design.clocks else None,
                target_mhz=TARGET_MHZ,
                seed=seed,
            )
            for seed in range(1, 1 + seeds)
        ]
    except PlacementError as error:
        return "does not fit" if "must fit" in str(error) else "failed"
    except ValueError:
        return "-"
    return f"{statistics.median_low(run.mhz for run in runs):.0f}"


def problems(netlist: FpgaNetlist) -> list[str]:
    """Memories that should have been block RAMs, and cells that nobody counts."""
    exploded = [
        f"{memory.name} of {memory.bits} bits is {memory.kind}"
        for memory in netlist.memories
        if memory.kind == "flip-flops" and memory.bits >= SMALL_BITS
    ]
    return exploded + [f"{cell} is not counted" for cell in netlist.others]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Designs on FPGAs.")
    parser.add_argument("--no-frequency", action="store_true", help="map only")
    parser.add_argument("--seeds", type=int, default=3, help="placements, for the median")
    parser.add_argument("--flat", action="store_true", help="map all modules together")
    parser.add_argument("--design", action="append", help="only this one; may be repeated")
    options = parser.parse_args()
    places = not options.no_frequency
    for family in ("ice40", "ecp5"):
        try:
            require_nextpnr(family)
            print(nextpnr_version(family), family)
        except PlacementError as error:
            places = False
            print(error)
    macs = [(name, find(name).presets[0], Options()) for name in DESIGNS if name.endswith("mac")]
    found = []
    for title, rows, devices in (
        ("Units", macs, DEVICES),
        ("Designs with memories", MEMORIES, LARGE_DEVICES),
    ):
        print(f"\n{title}\n\n| design | device | LUTs | flip-flops | carry | LUT RAMs |", end="")
        print(" block RAMs | DSPs | MHz | s |\n|---|---|---|---|---|---|---|---|---|---|")
        for name, spec, sizes in rows:
            if options.design and name not in options.design:
                continue
            design = to_verilog(find(name).build(parse(spec), sizes))
            for family, device in devices:
                begin = time.perf_counter()
                netlist = map_fpga(
                    design.modules,
                    design.top,
                    family,
                    device=device,
                    flat=options.flat,
                    images=design.files,
                    timeout_s=600.0,
                )
                used = netlist.resources
                cells = (used.luts, used.flip_flops, used.carries, used.lut_rams)
                mhz = frequency(netlist, design, options.seeds) if places else "-"
                print(
                    f"| `{name}` `{spec}` | {FAMILIES[family].devices[device].title} | "
                    f"{' | '.join(map(str, cells))} | {used.block_rams} | {used.dsps} | {mhz} | "
                    f"{time.perf_counter() - begin:.0f} |",
                    flush=True,
                )
                found += [f"{name} {spec} {family}: {text}" for text in problems(netlist)]
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
