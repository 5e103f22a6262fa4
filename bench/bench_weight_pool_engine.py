"""Look-up engine of weight pools: area and energy of its logic, against a fixed8 array.

Run as ``python bench/bench_weight_pool_engine.py``.  Units are mapped once each and simulated
together on a layer of the embedded network as retrained with a pool; the codes that leave must be
those of the golden model.  Tables and accumulators are memories, which no flow would build of
gates: their cells are left out, and what is read and written stands beside.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.fixed_mac import FixedMacSpec
from golden.formats import parse
from golden.inference import LayerStream, QuantisedNetwork, quantise
from golden.mac import ArraySpec
from golden.weight_pool import WeightPoolFormat
from golden.weight_pool_engine import EngineSpec
from golden.weight_pool_system import PoolOperands
from hdl.fixed import FixedDatapath
from hdl.weight_pool import WeightPoolEngine
from narrowgauge.networks import digits, retrained_digits
from narrowgauge.onnx_reader import read
from narrowgauge.tiles import cut_tiles
from synth.activity import LANES_PER_WORD, Simulator, Words, pack, unpack
from synth.array import MappedArray
from synth.energy import EnergyModel, unit_energy
from synth.library import CellLibrary, load
from synth.netlist import Netlist
from synth.timing import analyse
from synth.verilog import to_verilog
from synth.yosys import map_netlist

CLOCK_NS = 2.0
LENGTH = 2048

#: Streams of pixels that are simulated side by side, one lane each, and pixels of each.
STREAMS = LANES_PER_WORD
PIXELS = 3

#: Units of logic by the role that the table below gives them.
ROLES = {
    "transposer": "transposer",
    "control": "control",
    "result": "shift-accumulators, bank",
    "lane": "gather, add, requantise",
}

IMAGES = slice(None, None, 17)


class Unit:
    """One module, mapped, with its energy model."""

    def __init__(self, verilog: dict[str, str], name: str, library: CellLibrary):
        mapped = map_netlist(verilog, name, library, clock_ns=CLOCK_NS, timeout_s=900)
        self.netlist = Netlist(mapped, library)
        self.area_um2 = mapped.area_um2
        timing = analyse(mapped.module, library)
        self.critical_path_ns = timing.critical_path_ns
        classes = ["logic" if cell.ff is None else "registers" for cell in self.netlist.instances]
        self.model = EnergyModel(self.netlist, classes, clock_ns=CLOCK_NS, timing=timing)


class MappedEngine:
    """Units of an engine, and how many it has of each."""

    def __init__(self, spec: EngineSpec, library: CellLibrary):
        self.spec = spec
        design = to_verilog(WeightPoolEngine(spec))
        counts = design.counts()
        self.units, self.counts = {}, {}
        for role in ROLES:
            (name,) = (name for name in design.modules if name.startswith(f"weight_pool_{role}"))
            sources = {part: design.modules[part] for part in (name, *design.children[name])}
            self.units[role] = Unit(sources, name, library)
            self.counts[role] = counts[name]

    @property
    def area_um2(self) -> float:
        """Area of all logic."""
        return sum(unit.area_um2 * self.counts[role] for role, unit in self.units.items())

    def run(self, stream: LayerStream) -> tuple[dict[str, dict[str, float]], int, int]:
        """Energy by role and class in pJ, and the cycles and products that it was spent on.

        Raises
        ------
        ValueError
            If a code is not that of the golden model.
        """
        return EngineRun(self, stream).run()


class EngineRun:
    """Streams of pixels of one layer in lockstep; memories are arrays."""

    def __init__(self, engine: MappedEngine, stream: LayerStream):
        operands = stream.operands
        assert isinstance(operands, PoolOperands)
        spec = engine.spec
        self.engine, self.spec = engine, spec
        chosen = np.linspace(0, len(operands.activation_codes) - 1, STREAMS * PIXELS).astype(int)
        chosen = chosen.reshape(STREAMS, PIXELS)
        codes = operands.activation_codes[chosen.ravel()]
        groups = spec.activation_words(codes, operands.channels)
        self.blocks = groups.shape[1]
        self.groups = groups.reshape(STREAMS, PIXELS * self.blocks, spec.group)
        rows = spec.lane_words(operands.indices)
        self.indices = np.tile(rows.reshape(-1, spec.lanes), (PIXELS, 1))
        self.rows = rows.shape[1]
        self.bias = spec.lane_words(operands.bias_q)
        assert stream.output_codes is not None
        self.expected = stream.output_codes[chosen]
        self.outputs = self.expected.shape[-1]
        self.products = chosen.size * self.outputs * operands.activation_codes.shape[1]
        result = stream.output_codec.spec
        self.settings = spec.settings(
            operands.spec, operands.activation_spec, result, self.outputs
        ) | {"relu": int(stream.relu)}
        (self.table,) = spec.stored(operands.spec)
        self.simulators = {
            role: Simulator(unit.netlist, engine.counts[role] * STREAMS)
            for role, unit in engine.units.items()
        }

    def words(self, role: str, port: str, value: int) -> Words:
        """One value for all lanes of a role."""
        width = len(self.engine.units[role].netlist.ports[port].nets)
        return np.repeat(
            pack(np.full(LANES_PER_WORD, value), width), self.engine.counts[role], axis=1
        )

    def step(self, role: str, arrays: dict[str, Words], **flags: int) -> None:
        """Clock the units of a role."""
        ports = self.engine.units[role].netlist.ports
        scalars = {name: self.words(role, name, value) for name, value in flags.items()}
        self.simulators[role].step({k: v for k, v in (arrays | scalars).items() if k in ports})

    def flag(self, role: str, name: str) -> int:
        """Output that is the same for all lanes."""
        return int(unpack(self.simulators[role].settled(name), 1)[0])

    def run(self) -> tuple[dict[str, dict[str, float]], int, int]:
        """Clock everything until the last code has left."""
        for role, unit in self.engine.units.items():
            if "rst" in unit.netlist.ports:
                for level in (1, 0):
                    self.step(role, {}, rst=level)
        before = {role: simulator.activity() for role, simulator in self.simulators.items()}
        codes = list(self._cycles())
        got = np.stack(codes, axis=1).reshape(STREAMS, PIXELS, -1)[..., : self.outputs]
        mask = (1 << self.settings["largest"].bit_length() + self.settings["result_has_sign"]) - 1
        if not np.array_equal(got & mask, self.expected):
            raise ValueError("mapped units must give the codes of the golden model")
        energy: dict[str, dict[str, float]] = {}
        for role, simulator in self.simulators.items():
            (total,) = self.engine.units[role].model.measure(
                simulator.activity().since(before[role])
            )
            energy[role] = total.split_pj
        return energy, self.cycles * STREAMS, self.products

    def _cycles(self) -> Iterator[npt.NDArray[Any]]:
        """Codes [streams, lanes] of each row, as they leave."""
        spec, settings, simulators = self.spec, self.settings, self.simulators
        group = row = self.cycles = 0
        left = PIXELS * self.rows
        table_row = np.zeros((STREAMS, spec.entries), np.int64)
        sums = np.zeros((1 << spec.row_bits, STREAMS, spec.lanes), np.int64)
        accumulator = bias = np.zeros((STREAMS, spec.lanes), np.int64)
        transposer, control = simulators["transposer"], simulators["control"]
        while left:
            self.cycles += 1
            plane = int(unpack(transposer.state("plane"), 1)[0])
            plane_valid = int(unpack(transposer.state("plane_valid"), 1)[0])
            self.step(
                "control",
                {},
                plane_valid=plane_valid,
                plane_first=plane == settings["top_plane"],
                plane_final=plane == 0,
                plane_last=int(unpack(transposer.state("plane_last"), 1)[0]),
                index_valid=row < len(self.indices),
                o_ready=1,
                **{name: settings[name] for name in ("has_sign", "last_row")},
            )
            names = [
                port.name for port in control.netlist.ports.values() if port.direction == "output"
            ]
            signals = {name: self.flag("control", name) for name in names}

            now = min(group, self.groups.shape[1] - 1)
            columns = self.groups[:, now].T
            self.step(
                "transposer",
                {"i_codes": np.concatenate([pack(c, spec.max_act_bits) for c in columns])},
                i_valid=group < self.groups.shape[1],
                i_last=now % self.blocks == self.blocks - 1,
                top_plane=settings["top_plane"],
                move=signals["move"],
            )
            group += self.flag("transposer", "i_ready")

            bank = simulators["result"].state("result").reshape(spec.result_bits, spec.entries, -1)
            bank = bank.transpose(1, 0, 2).reshape(spec.result_bits * spec.entries, -1)
            self.step(
                "result",
                {"entries": pack(table_row.T.ravel(), spec.lut_bits)},
                **{name: signals[name] for name in ("step", "first", "negative", "latch")},
            )
            if signals["move"] and plane_valid:
                table_row = self.table[unpack(transposer.settled("address"), STREAMS)]

            index = self.indices[min(row, len(self.indices) - 1)]
            words = {
                "results": np.tile(bank, (1, spec.lanes)),
                "index": pack(np.repeat(index, STREAMS), spec.index_bits),
                "accumulator": pack(accumulator.T.ravel(), spec.accumulator_bits),
                "bias": pack(bias.T.ravel(), spec.accumulator_bits),
            }
            self.step(
                "lane",
                words,
                start=signals["sum_start"],
                has_sign=settings["result_has_sign"],
                **{name: signals[name] for name in ("gather", "finish", "scale", "encode")},
                **{name: settings[name] for name in ("mult", "shift", "relu", "largest")},
            )
            lanes = STREAMS * spec.lanes
            if signals["accumulator_write"]:
                total = unpack(simulators["lane"].settled("sum"), lanes, signed=True)
                sums[signals["sum_row"]] = total.reshape(spec.lanes, STREAMS).T
            if signals["accumulator_read"]:
                accumulator = sums[signals["row"]]
            if signals["bias_read"]:
                bias = np.tile(self.bias[signals["row"]], (STREAMS, 1))
            row += signals["gather"]
            if signals["encode"]:
                yield unpack(simulators["lane"].state("code"), lanes).reshape(spec.lanes, STREAMS).T
                left -= 1


def pooled(act_bits: int, entries: int) -> QuantisedNetwork:
    """Embedded network as retrained, with activations of so many bits."""
    embedded = digits()
    form = WeightPoolFormat(entries=entries, act_bits=act_bits)
    retrained = retrained_digits(read(embedded.model_path), form)
    assert retrained is not None
    assert embedded.data.calibration is not None
    return quantise(*retrained, embedded.data.calibration)


def fixed_array(library: CellLibrary, layers: list[str]) -> tuple[float, dict[str, float]]:
    """Area of a processing element's share, and energy per product of the layers in pJ."""
    spec = ArraySpec(mac=FixedMacSpec(bits=8, length=LENGTH), rows=16, cols=16)
    array = MappedArray(FixedDatapath(spec.mac), spec, library, clock_ns=CLOCK_NS)
    embedded = digits()
    assert embedded.data.calibration is not None
    network = quantise(
        read(embedded.model_path), parse("fixed8").system(), embedded.data.calibration
    )
    streams = list(network.streams(embedded.data.images[IMAGES]))
    energy = {}
    for name in layers:
        parts = [stream for stream in streams if stream.name == name]
        batch = cut_tiles(spec, parts, parts[0].output_codec.spec, seed=1)
        energy[name] = sum(unit_energy(array, array.run(batch), batch.products)[0].values())
    return array.area_um2 / (spec.rows * spec.cols), energy


def main(entries: int, lanes: int, layers: list[str]) -> None:
    """Print areas, then energies of each layer at 8 and 4 bits of activations."""
    library = load("nangate45")
    spec = EngineSpec(entries=entries, lanes=lanes, length=-(-LENGTH // 8))
    engine = MappedEngine(spec, library)
    area, baseline = fixed_array(library, layers)
    print(f"engine of {entries} pool vectors and {lanes} lanes, NanGate 45 nm, {CLOCK_NS} ns")
    print(f"{'unit':28} {'count':>5} {'um2 each':>9} {'um2':>9} {'ns':>6}")
    for role, unit in engine.units.items():
        count = engine.counts[role]
        delay = unit.critical_path_ns
        print(
            f"{ROLES[role]:28} {count:5} {unit.area_um2:9.1f} {count * unit.area_um2:9.1f} "
            f"{delay:6.3f}"
        )
    products = lanes * spec.group
    print(
        f"logic {engine.area_um2:.0f} um2 for {products} products per cycle: "
        f"{engine.area_um2 / products:.1f} um2 each; fixed8 array {area:.1f} um2 each: ratio "
        f"{engine.area_um2 / products / area:.3f}; table of "
        f"{entries * spec.lut_bits << spec.group} bits not counted"
    )
    print(
        f"{'layer':8} {'M':>2} {'products/cycle':>14} {'pJ/product':>10} {'fixed8':>7} "
        f"{'ratio':>6} {'table':>6} {'sums':>5}   (bits read per product)"
    )
    for act_bits in (8, 4):
        network = pooled(act_bits, entries)
        for stream in network.streams(digits().data.images[:1]):
            if stream.name not in layers:
                continue
            energy, cycles, count = engine.run(stream)
            total = sum(sum(split.values()) for split in energy.values()) / count
            outputs = stream.output_codes.shape[1]
            print(
                f"{stream.name:8} {act_bits:2} {count / cycles:14.1f} {total:10.4f} "
                f"{baseline[stream.name]:7.4f} {total / baseline[stream.name]:6.3f} "
                f"{spec.table_bits_per_mac(act_bits, outputs):6.1f} "
                f"{spec.accumulator_bits_per_mac(outputs):5.1f}"
            )
            for role, split in energy.items():
                parts = "  ".join(f"{kind} {pj / count:.4f}" for kind, pj in split.items())
                print(f"    {ROLES[role]:26} {parts}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=64, choices=(32, 64))
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--layers", nargs="+", default=["conv3", "conv5"])
    arguments = parser.parse_args()
    main(arguments.entries, arguments.lanes, arguments.layers)
