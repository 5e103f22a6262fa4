"""Smallest clock periods against OpenSTA, for all designs of the catalogue and three libraries.

Run as ``python bench/bench_opensta.py``.  Every design is mapped with the compact table at a clock
of 91 fan-outs of four (2 ns in nangate45), and its period is computed three ways: by
`synth.timing` from the compact table, by `synth.timing` from the Liberty files as published, and by
OpenSTA from the latter.  What is published of wire loads is left out on both sides.

Arrays, engine and tile are mapped unit by unit.  They are small here, but have all units and all
borders between them; OpenSTA gets the flat netlist of the whole, `synth.timing` too, and
`synth.borders`, which the figures of hardware come from, gets units and what connects them.  For
that comparison, nets have no buffers, however many units they go to; the last column has them.
Memories are cut out: what they give comes at the clock edge, and what they take is awaited at it.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import opensta_reference
from bench_library import FOLDER, LIBRARIES
from systems import systems

from golden.formats import parse
from narrowgauge.catalogue import Options, find
from synth.borders import longest_paths
from synth.cache import Cache
from synth.liberty import read_text
from synth.library import load
from synth.timing import analyse
from synth.verilog import to_verilog
from synth.yosys import map_netlist

DESIGNS = (
    ("fixed-mac", "fixed8"),
    ("fixed-encoder", "fixed8"),
    ("tapered-mac", "tapered5"),
    ("tapered-decoder", "tapered8"),
    ("tapered-encoder", "tapered8:runs=4-7"),
    ("dybit-mac", "dybit4:weight_bits=2"),
    ("dybit-fused_mac", "dybit8"),
    ("dybit-decoder", "dybit8"),
    ("dybit-activation_decoder", "dybit8"),
    ("dybit-encoder", "dybit4"),
    ("elp_bsd-mac", "elp_bsd3:set=E3-1"),
    ("elp_bsd-activation_decoder", "elp_bsd4:set=E4-2"),
    ("elp_bsd-encoder", "elp_bsd4:set=E4-2"),
    ("abfp-converter", "abfp8"),
    ("abfp-bfloat16_mac", "abfp8"),
    # Of arrays, the processing element.
    ("fixed-array", "fixed8"),
    ("tapered-array", "tapered8:runs=4-7"),
    ("dybit-array", "dybit8"),
    ("elp_bsd-array", "elp_bsd4:set=E4-2"),
)
CLOCK_FO4 = 91.0
#: Largest deviation of a period: with the same tables, and of the compact table.
SAME_TARGET, COMPACT_TARGET = 0.005, 0.05


def bench(name: str, folder: Path, cache: Cache) -> tuple[float, float]:
    """Print the periods of one library; return the largest deviations."""
    files = [FOLDER / file for file in LIBRARIES[name][0]]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        print(f"\n{name}: not compared, there is no {missing[0]} in {FOLDER}")
        return 0.0, 0.0
    compact, full = load(name), load(files)
    texts = []
    for file in files:
        texts.append(f"{name}_{len(texts)}.lib")
        text = opensta_reference.without_wires(read_text(file))
        (folder / texts[-1]).write_text(text)
    clock_ns = CLOCK_FO4 * compact.fo4_delay_ns
    limits = {
        "input_slew_ns": full.fo4_slew_ns,
        "clock_slew_ns": full.fo4_slew_ns,
        "output_load_ff": full.fo4_load_ff,
    }
    print(f"\n{name}, {clock_ns:.3g} ns clock; smallest period in ns")
    print(f"{'':36} {'cells':>6} {'OpenSTA':>8} {'files':>8} {'':>7} {'table':>8}")
    worst = [0.0, 0.0]
    for design, spec in DESIGNS:
        verilog = to_verilog(find(design).build(parse(spec), Options()))
        elements = [name for name in verilog.modules if "_pe_" in name]
        top = elements[0] if design.endswith("-array") else verilog.top
        mapped = map_netlist(verilog.modules, top, compact, clock_ns=clock_ns, cache=cache)
        expected = opensta_reference.period_ns(folder, mapped.module, texts, **limits)
        periods = [
            analyse(mapped.module, library, **limits).critical_path_ns
            for library in (full, compact)
        ]
        errors = [period / expected - 1 for period in periods]
        worst = [max(known, abs(error)) for known, error in zip(worst, errors, strict=True)]
        print(
            f"{design + ' ' + spec:36} {mapped.cell_count:6d} {expected:8.4f} {periods[0]:8.4f} "
            f"{errors[0]:+7.2%} {periods[1]:8.4f} {errors[1]:+7.2%}",
            flush=True,
        )

    print("\nunit by unit: as one flat netlist, by units, and by units with buffers")
    print(
        f"{'':36} {'cells':>6} {'OpenSTA':>8} {'flat, files':>16} {'flat, table':>16} "
        f"{'units, files':>16} {'units, table':>16} {'buffers':>8}"
    )
    for system in systems(compact, clock_ns=clock_ns, cache=cache):
        module, wiring = system.flat(), system.wiring()
        expected = opensta_reference.period_ns(folder, module, texts, **limits)
        periods = [
            analyse(module, library, **limits).critical_path_ns for library in (full, compact)
        ] + [
            longest_paths(wiring, system.modules, library, max_sinks=math.inf, **limits)[0].delay_ns
            for library in (full, compact)
        ]
        errors = [period / expected - 1 for period in periods]
        worst = [
            max(worst[0], abs(errors[0]), abs(errors[2])),
            max(worst[1], abs(errors[1]), abs(errors[3])),
        ]
        columns = " ".join(
            f"{period:8.4f} {error:+7.2%}" for period, error in zip(periods, errors, strict=True)
        )
        print(
            f"{system.name:36} {len(module['cells']):6d} {expected:8.4f} {columns} "
            f"{system.hardware.critical_path_ns:8.4f}",
            flush=True,
        )
    return worst[0], worst[1]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Timing against OpenSTA.")
    parser.add_argument("--library", choices=LIBRARIES, action="append", help="all by default")
    options = parser.parse_args()
    if opensta_reference.find() is None:
        print("OpenSTA (sta) is not installed: nothing is compared")
        return
    begin = time.perf_counter()
    cache = Cache()
    met = True
    for name in options.library or LIBRARIES:
        with tempfile.TemporaryDirectory() as folder:
            same, compact = bench(name, Path(folder), cache)
        good = same <= SAME_TARGET and compact <= COMPACT_TARGET
        met &= good
        print(
            f"largest deviation: files {same:.2%} (target {SAME_TARGET:.1%}), compact table "
            f"{compact:.2%} (target {COMPACT_TARGET:.0%}): {'met' if good else 'MISSED'}"
        )
    print(f"\n{time.perf_counter() - begin:.0f} s")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
