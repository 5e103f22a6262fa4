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
import functools
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import opensta_reference
from bench_library import FOLDER, LIBRARIES
from systems import SYSTEMS, system

from golden.formats import parse
from narrowgauge.catalogue import Options, find
from synth.borders import longest_paths
from synth.cells import CellLibrary
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


@functools.cache
def libraries(name: str) -> tuple[CellLibrary, CellLibrary, dict[str, str]]:
    """Compact table, library of the files as published, and their texts without wires, by name."""
    files = [FOLDER / file for file in LIBRARIES[name][0]]
    texts = {
        f"{name}_{number}.lib": opensta_reference.without_wires(read_text(file))
        for number, file in enumerate(files)
    }
    return load(name), load(files), texts


def conditions(name: str) -> tuple[float, dict[str, float]]:
    """Clock period of a library in ns, and what its periods are computed with."""
    compact, full, _ = libraries(name)
    return CLOCK_FO4 * compact.fo4_delay_ns, {
        "input_slew_ns": full.fo4_slew_ns,
        "clock_slew_ns": full.fo4_slew_ns,
        "output_load_ff": full.fo4_load_ff,
    }


def reference_ns(name: str, module: Mapping[str, Any]) -> float:
    """Smallest period of a netlist by OpenSTA."""
    _, _, texts = libraries(name)
    _, limits = conditions(name)
    with tempfile.TemporaryDirectory() as folder:
        for file, text in texts.items():
            Path(folder, file).write_text(text)
        return opensta_reference.period_ns(Path(folder), module, list(texts), **limits)


def check_unit(name: str, design: str, spec: str) -> tuple[str, float, float]:
    """Return the row of a unit that is mapped as a whole, and deviations: same tables, compact."""
    compact, full, _ = libraries(name)
    clock_ns, limits = conditions(name)
    verilog = to_verilog(find(design).build(parse(spec), Options()))
    elements = [name for name in verilog.modules if "_pe_" in name]
    top = elements[0] if design.endswith("-array") else verilog.top
    mapped = map_netlist(verilog.modules, top, compact, clock_ns=clock_ns)
    expected = reference_ns(name, mapped.module)
    periods = [
        analyse(mapped.module, library, **limits).critical_path_ns for library in (full, compact)
    ]
    errors = [period / expected - 1 for period in periods]
    row = (
        f"{design + ' ' + spec:36} {mapped.cell_count:6d} {expected:8.4f} {periods[0]:8.4f} "
        f"{errors[0]:+7.2%} {periods[1]:8.4f} {errors[1]:+7.2%}"
    )
    return row, abs(errors[0]), abs(errors[1])


def check_system(name: str, design: str) -> tuple[str, float, float]:
    """Return the same of hardware that is mapped unit by unit."""
    compact, full, _ = libraries(name)
    clock_ns, limits = conditions(name)
    whole = system(design, compact, clock_ns=clock_ns)
    module, wiring = whole.flat(), whole.wiring()
    expected = reference_ns(name, module)
    periods = [
        analyse(module, library, **limits).critical_path_ns for library in (full, compact)
    ] + [
        longest_paths(wiring, whole.modules, library, max_sinks=math.inf, **limits)[0].delay_ns
        for library in (full, compact)
    ]
    errors = [period / expected - 1 for period in periods]
    columns = " ".join(
        f"{period:8.4f} {error:+7.2%}" for period, error in zip(periods, errors, strict=True)
    )
    row = (
        f"{whole.name:36} {len(module['cells']):6d} {expected:8.4f} {columns} "
        f"{whole.hardware.critical_path_ns:8.4f}"
    )
    return row, max(abs(errors[0]), abs(errors[2])), max(abs(errors[1]), abs(errors[3]))


def bench(name: str, pool: ProcessPoolExecutor) -> tuple[float, float]:
    """Print the periods of one library; return the largest deviations."""
    missing = [file for file in LIBRARIES[name][0] if not (FOLDER / file).exists()]
    if missing:
        print(f"\n{name}: not compared, there is no {missing[0]} in {FOLDER}")
        return 0.0, 0.0
    units = [pool.submit(check_unit, name, *unit) for unit in DESIGNS]
    wholes = [pool.submit(check_system, name, design) for design in SYSTEMS]
    clock_ns, _ = conditions(name)
    print(f"\n{name}, {clock_ns:.3g} ns clock; smallest period in ns")
    print(f"{'':36} {'cells':>6} {'OpenSTA':>8} {'files':>8} {'':>7} {'table':>8}")
    deviations = [shown(*future.result()) for future in units]
    print("\nunit by unit: as one flat netlist, by units, and by units with buffers")
    print(
        f"{'':36} {'cells':>6} {'OpenSTA':>8} {'flat, files':>16} {'flat, table':>16} "
        f"{'units, files':>16} {'units, table':>16} {'buffers':>8}"
    )
    deviations += [shown(*future.result()) for future in wholes]
    same, compact = zip(*deviations, strict=True)
    return max(same), max(compact)


def shown(row: str, same: float, compact: float) -> tuple[float, float]:
    """Print a row; hand its deviations on."""
    print(row, flush=True)
    return same, compact


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Timing against OpenSTA.")
    parser.add_argument("--library", choices=LIBRARIES, action="append", help="all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    options = parser.parse_args()
    if opensta_reference.find() is None:
        print("OpenSTA (sta) is not installed: nothing is compared")
        return
    begin = time.perf_counter()
    met = True
    for name in options.library or LIBRARIES:
        # A library's processes end with it: each holds the files, parsed.
        with ProcessPoolExecutor(options.jobs) as pool:
            same, compact = bench(name, pool)
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
