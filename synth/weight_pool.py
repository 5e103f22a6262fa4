"""The look-up engine of weight pools as mapped netlists of its units, run on real operands.

Table, accumulators, their start values and final sums are memories, which no flow would build of
gates: they are arrays here, and every row that is read or written is counted.  All else is mapped,
each distinct unit once, and one simulation holds all its instances as lanes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.weight_pool_engine import EngineSpec
from hdl.weight_pool import WeightPoolEngine
from synth.activity import LANES_PER_WORD, Words, pack, unpack
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.flat import unit_wiring
from synth.glitch_samples import GlitchSampling, begin_samples, end_samples, make_simulator
from synth.netlist import CellClass
from synth.units import MappedModule, MappedUnit, MappedUnits, UnitsRun, map_modules, meet_clock
from synth.verilog import to_verilog

__all__ = ["EngineRun", "MappedEngine", "PixelBatch"]

Integers = npt.NDArray[np.integer[Any]]

#: Starts of the names of modules that are memories.
MEMORIES = tuple(f"weight_pool_{name}_" for name in ("table", "accumulators", "biases", "sums"))

#: Class of the gates of each unit by role: shifted and added, an entry stands for products.
CLASSES = {
    "transposer": CellClass.DECODE,
    "result": CellClass.MULTIPLY,
    "lane": CellClass.ACCUMULATE,
    "finisher": "encode",
    "control": "control",
}


@dataclass(frozen=True, kw_only=True)
class PixelBatch:
    """Pixels of one layer, as an engine gets them.

    Streams are the lanes of the simulation's words, so there is a multiple of 64 of them, each of
    one pixel or more.

    Parameters
    ----------
    groups : ndarray of int, shape (streams, pixels, blocks, group)
        Codes of activations.
    indices : ndarray of int, shape (blocks, outputs)
        Pool vectors.
    bias : ndarray of int, shape (outputs,)
        Start values of the accumulators.
    table : sequence of ndarray of int, shape (rows, entries)
        Entries of each bank.
    settings : mapping of str to int
        Run-time settings by port, see :meth:`golden.weight_pool_engine.EngineSpec.settings`.
    results : ndarray of int, shape (streams, pixels, outputs)
        Codes that the golden model says.
    """

    groups: Integers
    indices: Integers
    bias: Integers
    table: Sequence[Integers]
    settings: Mapping[str, int]
    results: Integers


@dataclass(frozen=True, kw_only=True)
class EngineRun(UnitsRun):
    """Switching activity of a batch of pixels, and what its memories did.

    The pixels follow one another over and over; what counts is from the first row of codes of the
    first pixel to the next time that it leaves, so that the pipeline is full all the time.

    Attributes
    ----------
    accesses : dict of str to int
        Rows of ``"table"``, ``"accumulators"``, ``"biases"`` and ``"sums"`` that one stream read or
        wrote; with two banks, a row of either counts.
    writes : dict of str to int
        Those of them that it wrote.
    """

    accesses: dict[str, int]
    writes: dict[str, int]


class MappedEngine(MappedUnits):
    """Units of an engine, mapped to a cell library.

    Parameters
    ----------
    spec : EngineSpec
        Sizes and widths.
    library : CellLibrary
        Cells.
    clock_ns : float
        Clock period that mapping aims at.
    clock_gating : int, optional
        Fewest flip-flops of a unit with a common enable that get a clock gate; none get one without
        it.
    workers : int
        Yosys processes at a time.
    cache : Cache, optional
        Where mapped netlists are kept, see `synth.yosys.map_netlist`.

    Attributes
    ----------
    units : dict of str to MappedUnit
        Keys ``"transposer"``, ``"result"``, ``"lane"``, ``"finisher"``, ``"control"``.
    """

    def __init__(
        self,
        spec: EngineSpec,
        library: CellLibrary,
        *,
        clock_ns: float,
        clock_gating: int | None = None,
        workers: int = 2,
        cache: Cache | None = None,
    ) -> None:
        self.spec = spec
        design = to_verilog(WeightPoolEngine(spec))
        names = {}
        for role in CLASSES:
            (names[role],) = (
                name for name in design.modules if name.startswith(f"weight_pool_{role}_")
            )
        counts = design.counts()

        def mapped(modules: Iterable[str], clock_ns: float) -> dict[str, MappedModule]:
            return map_modules(
                design,
                modules,
                library,
                clock_ns=clock_ns,
                clock_gating=clock_gating,
                workers=workers,
                cache=cache,
            )

        modules = mapped(names.values(), clock_ns)
        wiring = unit_wiring(
            design,
            names.values(),
            library,
            is_memory=lambda name: name.startswith(MEMORIES),
            cache=cache,
        )
        roles = {name: role for role, name in names.items()}
        for cell in wiring["cells"].values():
            cell["type"] = roles.get(cell["type"], cell["type"])
        by_role, paths = meet_clock(
            {role: modules[name] for role, name in names.items()},
            lambda role, left_ns: mapped([names[role]], left_ns)[names[role]],
            wiring,
            library,
            counts={role: counts[name] for role, name in names.items()},
            clock_ns=clock_ns,
        )
        units = {
            role: MappedUnit.of(by_role[role], names[role], counts[names[role]], kind)
            for role, kind in CLASSES.items()
        }
        super().__init__(units, paths, clock_ns=clock_ns)

    def run(
        self, batch: PixelBatch, *, glitches: GlitchSampling | None = None, state_words: int = 0
    ) -> EngineRun:
        """Run pixels on the mapped netlists.

        Parameters
        ----------
        batch : PixelBatch
            Pixels.
        glitches : GlitchSampling, optional
            Counts the glitches of some cycles; the same one for all runs.
        state_words : int
            Words of lanes in which the states of the cells are counted, see `Simulator`.

        Raises
        ------
        ValueError
            If the codes that leave are not ``batch.results``.
        """
        return _Run(self, batch, glitches, state_words).run()


class _Run:
    """One simulation of all units; all streams are in the same state but for their numbers."""

    def __init__(
        self,
        engine: MappedEngine,
        batch: PixelBatch,
        glitches: GlitchSampling | None,
        state_words: int,
    ) -> None:
        self.glitches = glitches
        self.engine, self.spec, self.batch = engine, engine.spec, batch
        spec = self.spec
        self.streams, self.pixels, self.blocks, group = batch.groups.shape
        if self.streams % LANES_PER_WORD or group != spec.group:
            raise ValueError(
                f"batch must have a multiple of 64 streams of groups of {spec.group}, "
                f"not {batch.groups.shape}"
            )
        self.groups = batch.groups.reshape(self.streams, -1, group)
        rows = spec.lane_words(batch.indices)
        self.rows = rows.shape[1]
        self.indices = rows.reshape(-1, spec.lanes)
        self.bias = spec.lane_words(batch.bias)
        self.units = {
            role: make_simulator(
                unit.netlist, unit.count * self.streams, glitches, state_words=state_words
            )
            for role, unit in engine.units.items()
        }
        self.accesses = dict.fromkeys(("table", "accumulators", "biases", "sums"), 0)
        self.writes = dict.fromkeys(("accumulators", "sums"), 0)
        self.cycles = 0
        self._constants: dict[tuple[str, str, int], Words] = {}

    def run(self) -> EngineRun:
        """Clock everything while the pipeline is full, and compare the codes that leave."""
        for role, unit in self.engine.units.items():
            if "rst" in unit.netlist.ports:
                for level in (1, 0):
                    self._step(role, {}, rst=level)
        count = self.rows * self.pixels
        rows: list[Integers] = []
        marks = []
        for codes in islice(self._codes(), count + 1):
            if len(rows) in (0, count):
                activity = {role: simulator.activity() for role, simulator in self.units.items()}
                marks.append((activity, self.cycles, dict(self.accesses), dict(self.writes)))
                change = end_samples if rows else begin_samples
                change(self.units.values())
            rows.append(codes)
        self._compare(np.stack(rows, axis=1))
        (before, begin, earlier, wrote), (after, end, later, written) = marks
        return EngineRun(
            activity={role: activity.since(before[role]) for role, activity in after.items()},
            cycles=end - begin,
            simulated={role: unit.count for role, unit in self.engine.units.items()},
            accesses={name: count - earlier[name] for name, count in later.items()},
            writes={name: count - wrote[name] for name, count in written.items()},
            glitches=self.engine.glitches(self.glitches, self.units),
        )

    def _compare(self, codes: Integers) -> None:
        """Compare rows [streams, rows, lanes] with the golden model, in the bits of its codes."""
        settings = self.batch.settings
        bits = settings["largest"].bit_length() + settings["result_has_sign"]
        rows = np.arange(codes.shape[1]) % (self.pixels * self.rows)
        results = self.spec.lane_words(self.batch.results)
        expected = results.reshape(self.streams, -1, self.spec.lanes)[:, rows]
        used = self.spec.lane_words(np.ones_like(self.batch.results[0]))
        used = used.reshape(-1, self.spec.lanes)[rows] == 1
        got = np.where(used, codes & (1 << bits) - 1, 0)
        if not np.array_equal(got, expected):
            place = tuple(np.argwhere(got != expected)[0].tolist())
            raise ValueError(
                f"mapped netlist must give code {expected[place]} as the golden model, "
                f"not {got[place]} (stream {place[0]}, row {place[1]}, lane {place[2]})"
            )

    def _constant(self, role: str, port: str, value: int) -> Words:
        """One value for all instances of a unit in all streams."""
        key = role, port, value
        if key not in self._constants:
            width = len(self.engine.units[role].netlist.ports[port].nets)
            words = pack(np.full(LANES_PER_WORD, value), width)
            self._constants[key] = np.repeat(words, self.units[role].words, axis=1)
        return self._constants[key]

    def _step(self, role: str, arrays: Mapping[str, Words], **values: int) -> None:
        """Clock the instances of a unit; ports that mapping has removed are passed over."""
        ports = self.engine.units[role].netlist.ports
        words = {name: word for name, word in arrays.items() if name in ports}
        words |= {
            name: self._constant(role, name, v) for name, v in values.items() if name in ports
        }
        self.units[role].step(words)

    def _output(self, role: str, name: str) -> int:
        """Output in the last cycle, which is the same in all streams."""
        return _first(self.units[role].settled(name))

    def _register(self, role: str, name: str) -> int:
        """Register that is the same in all streams, after the last clock."""
        return _first(self.units[role].state(name))

    def _lanes(self, values: Integers, width: int) -> Words:
        """Words of numbers [streams, instances]."""
        return pack(np.ascontiguousarray(values.T).ravel(), width)

    def _joined(self, words: Words) -> Words:
        """Words of one port that holds the numbers of all instances, from those by instance."""
        bits = len(words)
        parts = words.reshape(bits, -1, self.streams // LANES_PER_WORD)
        return parts.transpose(1, 0, 2).reshape(-1, parts.shape[2])

    def _codes(self) -> Iterator[Integers]:
        """Rows of codes [streams, lanes] as they leave; every cycle clocks each unit once."""
        spec = self.spec
        memory = (1 << spec.row_bits, self.streams, spec.lanes)
        accumulators, sums = np.zeros(memory, np.int64), np.zeros(memory, np.int64)
        # What the memories give now.
        entries: list[Integers] = [
            np.zeros((self.streams, spec.entries), np.int64) for _ in self.batch.table
        ]
        accumulator: Integers = np.zeros((self.streams, spec.lanes), np.int64)
        bias = final = accumulator
        group = row = 0
        while True:
            self.cycles += 1
            signals = self._control()
            reads_plane = signals["move"] and self._register("transposer", "plane_valid")
            group += self._transpose(group, signals["move"])
            bank = self._results(entries, signals)
            total = self._gather(row, bank, accumulator, bias, signals)
            row += signals["gather"]

            leaves, codes, read = self._finish(final, signals["finish"])
            if leaves:
                yield codes

            if reads_plane:
                entries = self._table_rows()
            if signals["accumulator_read"]:
                accumulator = accumulators[signals["row"]]
                if signals["accumulator_write"] and signals["row"] == signals["sum_row"]:
                    accumulator = total
            if signals["bias_read"]:
                bias = np.broadcast_to(self.bias[signals["row"]], accumulator.shape)
            if read is not None:
                final = sums[read]
            if signals["accumulator_write"]:
                accumulators[signals["sum_row"]] = total
            if signals["finish"]:
                sums[signals["sum_row"]] = total
            self.accesses["table"] += spec.banks * bool(reads_plane)
            self.accesses["accumulators"] += (
                signals["accumulator_read"] + signals["accumulator_write"]
            )
            self.accesses["biases"] += signals["bias_read"]
            self.accesses["sums"] += signals["finish"] + (read is not None)
            self.writes["accumulators"] += signals["accumulator_write"]
            self.writes["sums"] += signals["finish"]

    def _control(self) -> dict[str, int]:
        """Signals of the controller."""
        settings = self.batch.settings
        plane = self._register("transposer", "plane")
        self._step(
            "control",
            {},
            plane_valid=self._register("transposer", "plane_valid"),
            plane_first=plane == settings["top_plane"],
            plane_final=plane == 0,
            plane_last=self._register("transposer", "plane_last"),
            index_valid=1,
            room=self._register("finisher", "waiting") <= settings["last_row"],
            has_sign=settings["has_sign"],
            last_row=settings["last_row"],
        )
        ports = self.units["control"].netlist.ports.values()
        names = [port.name for port in ports if port.direction == "output"]
        return {name: self._output("control", name) for name in names}

    def _transpose(self, group: int, move: int) -> int:
        """Offer a group; whether it was accepted."""
        spec = self.spec
        now = group % self.groups.shape[1]
        codes = self._lanes(self.groups[:, now], spec.max_act_bits)
        self._step(
            "transposer",
            {"i_codes": self._joined(codes)},
            i_valid=1,
            i_last=now % self.blocks == self.blocks - 1,
            top_plane=self.batch.settings["top_plane"],
            move=move,
        )
        return self._output("transposer", "i_ready")

    def _table_rows(self) -> list[Integers]:
        """Rows [streams, entries] of each bank that the plane asks for."""
        spec = self.spec
        address = unpack(self.units["transposer"].settled("address"), self.streams)
        mask = (1 << spec.address_bits) - 1
        return [
            bank[address >> spec.address_bits * number & mask].astype(np.int64)
            for number, bank in enumerate(self.batch.table)
        ]

    def _results(self, entries: Sequence[Integers], signals: Mapping[str, int]) -> Words:
        """Clock the results of all pool vectors; the bank as a lane sees it before."""
        spec = self.spec
        bank = self._joined(self.units["result"].state("result"))
        words = np.concatenate([self._lanes(rows, spec.lut_bits) for rows in entries])
        names = ("step", "first", "negative", "latch")
        self._step("result", {"entries": words}, **{name: signals[name] for name in names})
        return bank

    def _gather(
        self,
        row: int,
        bank: Words,
        accumulator: Integers,
        bias: Integers,
        signals: Mapping[str, int],
    ) -> Integers:
        """Clock the lanes; their sums [streams, lanes]."""
        spec = self.spec
        index = self.indices[row % len(self.indices)]
        self._step(
            "lane",
            {
                "results": np.tile(bank, (1, spec.lanes)),
                "index": pack(np.repeat(index, self.streams), spec.index_bits),
                "accumulator": self._lanes(accumulator, spec.accumulator_bits),
                "bias": self._lanes(bias, spec.accumulator_bits),
            },
            gather=signals["gather"],
            start=signals["sum_start"],
        )
        total = unpack(self.units["lane"].settled("sum"), spec.lanes * self.streams, signed=True)
        return total.reshape(spec.lanes, self.streams).T

    def _finish(self, final: Integers, put: int) -> tuple[int, Integers, int | None]:
        """Clock the finisher: whether a row of codes leaves, the row, and which row it reads."""
        spec, settings = self.spec, self.batch.settings
        words = self._lanes(final, spec.accumulator_bits)
        self._step(
            "finisher",
            {"sums": self._joined(words)},
            put=put,
            o_ready=1,
            has_sign=settings["result_has_sign"],
            **{name: settings[name] for name in ("last_row", "relu", "mult", "shift", "largest")},
        )
        leaves = self._output("finisher", "o_valid")
        row = unpack(
            self.units["finisher"]
            .settled("o_codes")
            .reshape(spec.lanes, spec.bits, -1)
            .transpose(1, 0, 2)
            .reshape(spec.bits, -1),
            spec.lanes * self.streams,
        )
        reads = self._output("finisher", "read_en")
        return (
            leaves,
            row.reshape(spec.lanes, self.streams).T,
            self._output("finisher", "read_row") if reads else None,
        )


def _first(words: Words) -> int:
    """Read the number of the first lane."""
    return sum((int(word) & 1) << bit for bit, word in enumerate(words[:, 0]))
