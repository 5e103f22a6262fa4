"""What the states of cells change: energy and leakage by state against means over all states.

Run as ``python bench/bench_states.py``; exits 1 if a target is missed.  Every unit is mapped with
the built-in table of a library and simulated with uniformly random inputs (the plain 8-bit unit:
with operands like those of a network), once without delays and once with glitches.

*  Energy per cycle with means, and what states change of it, of the energy inside cells, of the
   clock and of leakage; the same with glitches.
*  Sampled: what it changes that states are counted in some words of lanes only.
*  Full: the change through states with the Liberty files in place of the table, same netlist.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bench_activity
import numpy as np
from bench_library import FOLDER, LIBRARIES

from golden.formats import parse
from narrowgauge.catalogue import Options, find
from synth.activity import LANES_PER_WORD, Activity, Simulator, pack
from synth.cells import CellLibrary
from synth.delays import library_delays
from synth.energy import EnergyModel
from synth.glitches import GlitchSimulator
from synth.library import load
from synth.netlist import Netlist
from synth.timing import Timing, analyse
from synth.units import map_modules
from synth.verilog import to_verilog
from synth.yosys import MappedNetlist, map_netlist

UNITS = {
    "fixed8": "fixed-mac",
    "tapered8:runs=4-7": "tapered-mac",
    "dybit8": "dybit-mac",
    "elp_bsd4:set=E4-2": "elp_bsd-mac",
}
PLAIN = "plain 8-bit"
WORDS, CYCLES = 64, 60
#: Words in which states are counted, and what counting them in no others may change.
SAMPLED_WORDS, SAMPLED_TARGET = 8, 0.002
#: Largest difference between what states change with a table and with the files it was made of.
FULL_TARGET = 0.005


def operands(netlist: Netlist, title: str) -> Iterator[dict[str, np.ndarray]]:
    """Words of every input in every cycle."""
    lanes = WORDS * LANES_PER_WORD
    if title == PLAIN:
        a, b = bench_activity.operands((CYCLES, lanes))
        for x, y in zip(a, b, strict=True):
            yield {"a": pack(x, 8), "b": pack(y, 8)}
        return
    rng = np.random.default_rng(1)
    widths = {
        name: len(port.nets)
        for name, port in netlist.ports.items()
        if port.direction == "input" and port.nets != (netlist.clock,)
    }
    for _ in range(CYCLES):
        words = {}
        for name, width in widths.items():
            often = {"rst": 0.0, "i__valid": 0.9, "o__ready": 0.9}.get(name, 0.5)
            bits = rng.random((width, lanes)) < often
            words[name] = np.concatenate([pack(row.astype(np.uint8), 1) for row in bits])
        yield words


def simulate(simulator: Simulator, title: str) -> Activity:
    """Toggles and states of a run."""
    for words in operands(simulator.netlist, title):
        simulator.step(words)
    return simulator.activity()


class Change:
    """Energy with means and with states.

    Attributes
    ----------
    means, states : dict of str to float
        Energy per cycle in pJ inside cells, at clock pins and through leakage.
    """

    def __init__(
        self, netlist: Netlist, timing: Timing, activity: Activity, clock_ns: float
    ) -> None:
        model = EnergyModel(
            netlist, ["cells"] * len(netlist.instances), clock_ns=clock_ns, timing=timing
        )
        (states,) = model.measure(activity)
        (means,) = model.measure(replace(activity, states=None))
        self.means, self.states = means.per(means.cycles), states.per(states.cycles)

    def of(self, *kinds: str) -> float:
        """Relative change of some parts, or of the whole."""
        kinds = kinds or tuple(self.means)
        return sum(self.states[kind] for kind in kinds) / sum(self.means[k] for k in kinds) - 1


def bench(
    title: str,
    mapped: MappedNetlist,
    library: CellLibrary,
    full: CellLibrary | None,
    clock_ns: float,
) -> bool:
    """Print the row of a unit and say whether the targets were met."""
    netlist, timing = Netlist(mapped, library), analyse(mapped.module, library)
    lanes = WORDS * LANES_PER_WORD

    def change(simulator: Simulator, timing: Timing = timing) -> Change:
        return Change(simulator.netlist, timing, simulate(simulator, title), clock_ns)

    exact = change(Simulator(netlist, lanes, state_words=WORDS))
    sampled = change(Simulator(netlist, lanes, state_words=SAMPLED_WORDS))
    delays = library_delays(netlist, timing=timing)
    late = change(GlitchSimulator(netlist, lanes, delays, state_words=SAMPLED_WORDS))
    error = sum(sampled.states.values()) / sum(exact.states.values()) - 1
    difference = 0.0
    if full is not None:
        whole = Netlist(mapped, full)
        files = change(Simulator(whole, lanes, state_words=WORDS), analyse(mapped.module, full))
        difference = files.of() - exact.of()
    print(
        f"{title:20} {len(netlist.instances):5d} {sum(exact.means.values()):8.4f} "
        f"{exact.of():+7.2%} {exact.of('cells'):+7.2%} {exact.of('clock'):+7.2%} "
        f"{1e6 * exact.means['leakage'] / clock_ns / 1e3:8.3f} {exact.of('leakage'):+7.2%} "
        f"{sum(late.means.values()):8.4f} {late.of():+7.2%} {error:+8.3%} "
        + (f"{exact.of() + difference:+7.2%}" if full is not None else f"{'-':>7}"),
        flush=True,
    )
    return abs(error) <= SAMPLED_TARGET and abs(difference) <= FULL_TARGET


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=LIBRARIES, action="append", help="all by default")
    parser.add_argument("--unit", choices=[PLAIN, *UNITS], action="append", help="all by default")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the Liberty files are")
    arguments = parser.parse_args()
    met = True
    for name in arguments.library or LIBRARIES:
        files, clock_ns = LIBRARIES[name]
        paths = [arguments.folder / file for file in files]
        library = load(name)
        full = load(paths) if all(path.exists() for path in paths) else None
        print(f"\n{name}, {clock_ns:g} ns; energies in pJ per cycle, leakage in uW")
        print(
            f"{'':26} {'':8} {'change through states':^23} {'leakage':^16} {'with glitches':^16} "
            f"{'sampled':>8} {'full':>7}"
        )
        print(
            f"{'unit':20} {'cells':>5} {'means':>8} {'all':>7} {'cells':>7} {'clock':>7} "
            f"{'means':>8} {'states':>7} {'means':>8} {'states':>7} {'':>8} {'states':>7}"
        )
        for title in arguments.unit or [PLAIN, *UNITS]:
            if title == PLAIN:
                mapped = map_netlist(bench_activity.MAC, "mac", library, clock_ns=clock_ns)
            else:
                component = find(UNITS[title]).build(parse(title), Options(length=2048))
                verilog = to_verilog(component)
                units = map_modules(verilog, [verilog.top], library, clock_ns=clock_ns)
                mapped = units[verilog.top].mapped
            met &= bench(title, mapped, library, full, clock_ns)
    print(
        f"\ntargets: sampling within {SAMPLED_TARGET:.1%} of counting all, the change of the table "
        f"within {FULL_TARGET:.1%} of that of the files: {'met' if met else 'MISSED'}"
    )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
