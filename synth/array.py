"""A systolic array as mapped netlists of its units, run together on tiles of a layer.

An array is wiring between units (:mod:`hdl.array`), so each distinct unit is mapped once, and one
simulation holds all its instances as lanes.  The units feed one another through the same
connections as in the generated Verilog; the codes that leave are compared with the golden model's,
so what is measured is what was verified.
"""

import functools
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.mac import ROLES, ArraySpec, Operand
from hdl.array import (
    ArrayRow,
    Control,
    Drain,
    ProcessingElement,
    Skew,
    SkewStage,
    SystolicArray,
)
from hdl.datapath import Datapath
from hdl.hierarchy import mark_used
from synth.activity import LANES_PER_WORD, Activity, Simulator, Words, pack, unpack
from synth.cache import Cache, content_key
from synth.cells import CellLibrary
from synth.delays import Delays
from synth.flat import unit_wiring
from synth.glitch_samples import GlitchSampling, begin_samples, make_simulator
from synth.glitches import GlitchSimulator
from synth.netlist import CellClass, Netlist, classify
from synth.units import MappedModule, MappedUnit, MappedUnits, UnitsRun, map_modules, meet_clock
from synth.verilog import VerilogDesign, to_verilog

__all__ = ["MappedArray", "TileBatch"]

#: Most lanes of processing elements that are simulated at once; the rest of a wide array's
#: columns is left out, because all columns of a batch carry the same kind of data.
MAX_LANES = 1 << 14

#: Distributions whose versions stand in Verilog.
TOOLS = ("narrowgauge", "amaranth")

#: Class of the logic of each unit but the processing element.
LOGIC = {
    "activation_skew": CellClass.REGISTERS,
    "weight_skew": CellClass.REGISTERS,
    "activation_decoder": CellClass.DECODE,
    "weight_decoder": CellClass.DECODE,
    "drain": "encode",
    "control": "control",
}


@dataclass(frozen=True, kw_only=True)
class TileBatch:
    """Tiles of one layer, all of the same length, as an array gets them.

    Tiles are the lanes of the simulation's words, so there is a multiple of 64 of them.

    Parameters
    ----------
    activations : ndarray of int, shape (tiles, rows, length)
        Codes.
    weights : ndarray of int, shape (tiles, length, cols)
        Codes.
    bias : ndarray of int64, shape (tiles, cols)
        In units of the sum, see MacSpec.sum_shift.
    relu : bool
        Whether negative sums become zero.
    settings : mapping of str to int
        Run-time settings by port, see MacSpec.settings.
    results : ndarray of int, shape (tiles, rows, cols)
        Codes that the golden model says.
    products : int
        Products that the layer needs; lanes that only fill up a tile do not count.
    """

    activations: npt.NDArray[Any]
    weights: npt.NDArray[Any]
    bias: npt.NDArray[np.int64]
    relu: bool
    settings: Mapping[str, int]
    results: npt.NDArray[Any]
    products: int


class MappedArray(MappedUnits):
    """Units of a systolic array, mapped to a cell library.

    Parameters
    ----------
    datapath : Datapath
        Number system.
    spec : ArraySpec
        Size and options.
    library : CellLibrary
        Cells.
    clock_ns : float
        Clock period that mapping aims at.
    wire_cap_ff : float
        Capacitance of the wire to every pin.
    clock_gating : int, optional
        Fewest flip-flops of a unit with a common enable that get a clock gate; none get one without
        it.
    workers : int
        Yosys processes at a time.
    cache : Cache, optional
        Where the Verilog and the mapped netlists of units are kept, see
        `synth.yosys.map_netlist`.

    Attributes
    ----------
    units : dict of str to MappedUnit
        Keys ``"activation_skew"``, ``"weight_skew"``, ``"activation_decoder"``,
        ``"weight_decoder"``, ``"pe"``, ``"drain"``, ``"control"``; that of a skew is one of its
        stages.
    sources : VerilogDesign
        Modules of all units; its top is a small array of them.
    """

    def __init__(
        self,
        datapath: Datapath,
        spec: ArraySpec,
        library: CellLibrary,
        *,
        clock_ns: float,
        wire_cap_ff: float = 0.0,
        clock_gating: int | None = None,
        workers: int = 2,
        cache: Cache | None = None,
    ) -> None:
        self.datapath = datapath
        self.spec = spec
        self.library = library
        top = SystolicArray(datapath, spec)
        mark_used(top)  # made for its figures alone
        self.cycles = top.cycles

        parts: dict[str, tuple[Any, int]] = {
            "pe": (ProcessingElement(datapath, spec), spec.rows * spec.cols),
            "drain": (Drain(datapath, spec), spec.cols),
            "control": (Control(spec.rows, top.flush, top.drain_latency - 1), 1),
        }
        lanes: dict[Operand, int] = {"activation": spec.rows, "weight": spec.cols}
        for role, count in lanes.items():
            width = spec.mac.code_bits(role)
            parts[f"{role}_skew"] = (SkewStage(width), count * (count + 1) // 2)
        decoders = {role: datapath.decoder(role) for role in ROLES}
        self._decodes_in_element = any(
            decoder is not None and spec.decodes_in_element(role)
            for role, decoder in decoders.items()
        )
        for role, decoder in decoders.items():
            if decoder is None:
                continue
            mark_used(decoder)
            if not spec.decodes_in_element(role):
                parts[f"{role}_decoder"] = (decoder, lanes[role])

        for part, _ in parts.values():
            mark_used(part)  # most are made for their names alone
        names = {role: part.module_name for role, (part, _) in parts.items()}
        self.sources = _sources(datapath, spec, [part for part, _ in parts.values()], cache)

        def mapped(names: Iterable[str], clock_ns: float) -> dict[str, MappedModule]:
            return map_modules(
                self.sources,
                names,
                library,
                clock_ns=clock_ns,
                wire_cap_ff=wire_cap_ff,
                clock_gating=clock_gating,
                workers=workers,
                cache=cache,
            )

        modules = mapped(names.values(), clock_ns)
        # A decoder of an edge shares its cycle with what stands before and behind it.  One that
        # leaves too little to them is mapped again, for what they leave to it.
        for role in ROLES:
            if f"{role}_decoder" in parts:
                decoder = names[f"{role}_decoder"]
                before = modules[names[f"{role}_skew"]].timing.paths["register to output"]
                behind = modules[names["pe"]].timing.paths["input to register"]
                left = clock_ns - before.delay_ns - behind.delay_ns
                if 0 < left < modules[decoder].timing.paths["input to output"].delay_ns:
                    modules |= mapped([decoder], left)
        by_role, paths = meet_clock(
            {role: modules[name] for role, name in names.items()},
            lambda role, left_ns: mapped([names[role]], left_ns)[names[role]],
            _wiring(self.sources, datapath, spec, library, cache),
            library,
            counts={role: count for role, (_, count) in parts.items()},
            clock_ns=clock_ns,
            wire_cap_ff=wire_cap_ff,
        )
        units = {
            role: MappedUnit.of(
                module, names[role], parts[role][1], self._classes(role, module.netlist)
            )
            for role, module in by_role.items()
        }
        super().__init__(units, paths, clock_ns=clock_ns, wire_cap_ff=wire_cap_ff)

    @cached_property
    def verilog(self) -> VerilogDesign:
        """The whole array."""
        return to_verilog(SystolicArray(self.datapath, self.spec))

    def _classes(self, role: str, netlist: Netlist) -> str | Sequence[str]:
        """Class of each cell: by structure in a processing element, by unit elsewhere."""
        if role != "pe":
            return LOGIC[role]
        operands = {
            "activation": ["activation", "activation_out"],
            "weight": ["weight", "weight_out"],
        }
        return classify(
            netlist,
            operands=operands,
            accumulators=["accumulator"],
            decoders=self._decodes_in_element,
        )

    def run(
        self,
        batch: TileBatch,
        *,
        delays: Mapping[str, Delays] | None = None,
        glitches: GlitchSampling | None = None,
        state_words: int = 0,
    ) -> UnitsRun:
        """Run tiles on the mapped netlists.

        Parameters
        ----------
        batch : TileBatch
            Tiles.
        delays : mapping of str to Delays, optional
            Delays of units, by role, whose glitches are to be counted.  Each unit gets its inputs
            without those of the others.
        glitches : GlitchSampling, optional
            Counts the glitches of some cycles of all other units; the same one for all runs.
        state_words : int
            Words of lanes in which the states of the cells are counted, see `Simulator`.

        Raises
        ------
        ValueError
            If the codes that leave are not ``batch.results``, or ``delays`` names no unit.
        """
        for role in delays or ():
            if role not in self.units:
                raise ValueError(f"delays must be of {', '.join(self.units)}, not of {role!r}")
        return _Run(self, batch, delays or {}, glitches, state_words).run()


def _small(spec: ArraySpec) -> ArraySpec:
    """Smallest array that has all borders between units."""
    return replace(spec, rows=min(spec.rows, 3), cols=min(spec.cols, 3))


def _sources(
    datapath: Datapath, spec: ArraySpec, parts: Iterable[Any], cache: Cache | None
) -> VerilogDesign:
    """Write a small array, and those of its units whose size is that of the whole one."""

    def write() -> dict[str, Any]:
        small = to_verilog(SystolicArray(datapath, _small(spec)))
        modules, children = dict(small.modules), dict(small.children)
        for part in parts:
            if part.module_name not in modules:
                design = to_verilog(part)
                modules |= design.modules
                children |= design.children
        return {"top": small.top, "modules": modules, "children": children}

    if type(datapath).__module__.partition(".")[0] != "hdl":
        return VerilogDesign(**write())  # its code may be anywhere
    key = content_key(
        "Verilog of an array",
        _code_digest(),
        *(f"{tool.name} {tool.version}" for name in TOOLS for tool in distributions(name=name)),
        type(datapath).__qualname__,
        repr(vars(datapath)),
        repr(spec),
    )
    found: Any = (Cache() if cache is None else cache).compute_json(key, write)
    children = {name: Counter(counts) for name, counts in found["children"].items()}
    return VerilogDesign(**{**found, "children": children})


@functools.cache
def _code_digest() -> str:
    """Hash of the code that writes Verilog, and of that of all units."""
    root = Path(__file__).parents[1]
    folders = ("golden", "hdl", "synth")
    paths = [path for folder in folders for path in sorted((root / folder).glob("*.py"))]
    return content_key(*(path.read_bytes() for path in paths))


def _wiring(
    sources: VerilogDesign,
    datapath: Datapath,
    spec: ArraySpec,
    library: CellLibrary,
    cache: Cache | None,
) -> dict[str, Any]:
    """Wiring between the units of a small array, each as a cell of the type of its role."""
    small = _small(spec)
    lanes: dict[Operand, int] = {"activation": small.rows, "weight": small.cols}
    parts: list[Any] = [ArrayRow(datapath, small)]
    parts += [Skew(spec.mac.code_bits(role), count) for role, count in lanes.items()]
    for part in parts:
        mark_used(part)  # made for their names alone
    wires = {part.module_name for part in parts}
    units = {child for name in (sources.top, *wires) for child in sources.children[name]} - wires
    wiring = unit_wiring(sources, units, library, cache=cache)
    for name, cell in wiring["cells"].items():
        if cell["type"] in units:
            # Such as row_1.pe_2, or activation_skew.lane_2_stage_0.
            outer, _, inner = name.rpartition(".")
            instance = outer if outer.endswith("_skew") else inner
            cell["type"] = instance.rstrip("0123456789_")
    return wiring


class _SkewOrder:
    """How the stages of a skew follow one another; those of a lane come in a row.

    Parameters
    ----------
    lanes : int
        Lanes; lane n has n + 1 stages.

    Attributes
    ----------
    first, last : ndarray of int, shape (lanes,)
        First and last stage of each lane.
    before : ndarray of int, shape (stages,)
        What each stage follows: another one, or itself if it is the first of a lane.
    """

    def __init__(self, lanes: int) -> None:
        count = np.arange(1, lanes + 1)
        self.last = np.cumsum(count) - 1
        self.first = self.last - count + 1
        self.before = np.arange(count.sum()) - 1
        self.before[self.first] += 1


class _Run:
    """One simulation of all units on a batch of tiles; tiles are the lanes of a word."""

    def __init__(
        self,
        array: MappedArray,
        batch: TileBatch,
        delays: Mapping[str, Delays],
        glitches: GlitchSampling | None,
        state_words: int,
    ) -> None:
        self.array = array
        self.glitches = glitches
        self.batch = batch
        spec = array.spec
        self.rows = spec.rows
        tiles, rows, self.length = batch.activations.shape
        if rows != spec.rows or batch.weights.shape[:2] != (tiles, self.length):
            raise ValueError(
                f"batch must have {spec.rows} rows and weights of the same tiles and length, not "
                f"{batch.activations.shape} and {batch.weights.shape}"
            )
        if tiles % LANES_PER_WORD:
            raise ValueError(f"batch must have a multiple of 64 tiles, not {tiles}")
        self.words = tiles // LANES_PER_WORD
        columns = max(1, MAX_LANES // (spec.rows * self.words * LANES_PER_WORD))
        self.cols = min(spec.cols, columns)
        edges: dict[Operand, int] = {"activation": spec.rows, "weight": spec.cols}
        self.skews = {role: _SkewOrder(count) for role, count in edges.items()}
        lanes = {
            **{f"{role}_skew": len(order.before) for role, order in self.skews.items()},
            "activation_decoder": spec.rows,
            "weight_decoder": self.cols,
            "pe": spec.rows * self.cols,
            "drain": self.cols,
            "control": 1,
        }
        self.simulated = {role: lanes[role] for role in array.units}
        self.units: dict[str, Simulator] = {}
        for role, unit in array.units.items():
            count = lanes[role] * self.words * LANES_PER_WORD
            self.units[role] = (
                GlitchSimulator(unit.netlist, count, delays[role], state_words=state_words)
                if role in delays
                else make_simulator(unit.netlist, count, glitches, state_words=state_words)
            )
        self.settings = {
            port: pack(np.full(LANES_PER_WORD, value), self._width(port))
            for port, value in batch.settings.items()
        }

    def _width(self, port: str) -> int:
        config = self.array.datapath
        role, _, name = port.partition("_")
        shape = (
            config.encoder_config
            if role == "result"
            else config.decoder_config("weight" if role == "weight" else "activation")
        )[name]
        return shape if isinstance(shape, int) else int(shape.width)

    def _constant(self, words: Words, count: int) -> Words:
        """Repeat one word per bit over ``count`` instances."""
        return np.repeat(words, count * self.words, axis=1)

    def _reset(self) -> dict[str, Activity]:
        """Reset all units, let them settle, and return the activity that this took."""
        for unit in self.units.values():
            if "rst" in unit.netlist.ports:
                for flag in (True, False):
                    unit.step({"rst": self._flag(flag, unit.words)})
        return {role: unit.activity() for role, unit in self.units.items()}

    def _flag(self, value: bool, words: int) -> Words:
        """One bit for all lanes."""
        return np.full((1, words), ~np.uint64(0) if value else np.uint64(0))

    def run(self) -> UnitsRun:
        """Step all units through one tile, and compare the results."""
        batch, spec = self.batch, self.array.spec
        cycles = self.array.cycles(self.length)
        # Words by product, lane of the edge and bit.
        entering = {
            "activation": batch.activations.transpose(2, 1, 0),
            "weight": batch.weights.transpose(1, 2, 0),
        }
        codes = {
            role: pack(entering[role], spec.mac.code_bits(role)).transpose(0, 2, 1, 3)
            for role in ROLES
        }
        bias = pack(batch.bias.T[: self.cols], spec.mac.sum_width)
        bias = bias.transpose(1, 0, 2).reshape(spec.mac.sum_width, -1)
        edges: dict[str, deque[Words]] = {
            "activation": deque(maxlen=spec.cols),
            "weight": deque(maxlen=spec.rows),
        }
        before = self._reset()
        begin_samples(self.units.values())
        results: list[Words] = []
        for cycle in range(cycles):
            flags, shift, drain = self._control(cycle)
            for role in ROLES:
                now = codes[role][min(cycle, self.length - 1)]
                edges[role].appendleft(self._edge(role, flags, now))
            sums = self._elements(edges, shift)
            if (result := self._drains(sums, drain, bias)) is not None:
                results.append(result)
        self._compare(results)
        return UnitsRun(
            activity={
                role: unit.activity().since(before[role]) for role, unit in self.units.items()
            },
            cycles=cycles,
            simulated=self.simulated,
            glitches=self.array.glitches(self.glitches, self.units),
        )

    def _control(self, cycle: int) -> tuple[dict[str, Words], Words, dict[str, Words]]:
        """Signals of the controller, all tiles alike; those of skews and drains by port."""
        control = self.units["control"]
        flags = {
            "i_valid": cycle < self.length,
            "i_last": cycle == self.length - 1,
            "o_ready": True,
        }
        control.step(
            {
                name: np.full((1, self.words), -int(flag)).astype(np.uint64)
                for name, flag in flags.items()
            }
        )
        shift = control.settled("shift")
        drain = {"take": shift, "give": control.settled("give")}
        if "move" in control.netlist.ports:
            drain["move"] = control.settled("move")
        return {name: control.settled(name) for name in ("enter", "keep")}, shift, drain

    def _edge(self, role: Operand, flags: Mapping[str, Words], codes: Words) -> Words:
        """Operands that enter the array now, shape (bits of an operand, lanes, words)."""
        now = self._skewed(role, flags, codes)
        if role == "weight":
            now = np.ascontiguousarray(now[:, : self.cols])
        bits = len(now)
        decoder = self.units.get(f"{role}_decoder")
        if decoder is None:
            return now
        lanes = now.shape[1]
        inputs = {"code": now.reshape(bits, -1)}
        for name in self.array.datapath.decoder_config(role):
            inputs[name] = self._constant(self.settings[f"{role}_{name}"], lanes)
        decoder.step(inputs)
        return decoder.settled("operand").reshape(-1, lanes, self.words)

    def _skewed(self, role: Operand, flags: Mapping[str, Words], codes: Words) -> Words:
        """Step a skew; return what leaves it now, like ``codes`` of shape (bits, lanes, words)."""
        skew, order = self.units[f"{role}_skew"], self.skews[role]
        held = skew.state("o").reshape(len(codes), -1, self.words)
        coming = held.take(order.before, axis=1)
        coming[:, order.first] = codes
        passes = np.tile(flags["keep"], (len(order.before), 1))
        passes[order.first] = flags["enter"]
        skew.step({"i": coming.reshape(len(codes), -1), "passes": passes.reshape(1, -1)})
        return held.take(order.last, axis=1)

    def _elements(self, edges: Mapping[str, deque[Words]], shift: Words) -> Words:
        """Step all processing elements; return the last row's accumulators before the step."""
        elements = self.units["pe"]
        shape = (self.rows, self.cols, self.words)
        sums = elements.state("accumulator").reshape(-1, *shape)
        above = np.concatenate([np.zeros_like(sums[:, :1]), sums[:, :-1]], axis=1)
        inputs = {
            "activation": self._delayed(edges["activation"], self.cols, axis=2),
            "weight": self._delayed(edges["weight"], self.rows, axis=1),
            "accumulator_in": above.reshape(len(above), -1),
            "drain": np.tile(shift, (1, self.rows * self.cols)),
        }
        for role in ROLES:
            if self.array.spec.decodes_in_element(role):
                for name in self.array.datapath.decoder_config(role):
                    port = f"{role}_{name}"
                    inputs[port] = self._constant(self.settings[port], self.rows * self.cols)
        elements.step(inputs)
        return sums[:, -1].reshape(len(sums), -1)

    def _delayed(self, history: deque[Words], count: int, axis: int) -> Words:
        """Operands at each element: the edge's, one cycle older for each element passed."""
        empty = np.zeros_like(history[0])
        steps = [history[age] if age < len(history) else empty for age in range(count)]
        return np.stack(steps, axis=axis).reshape(len(empty), -1)

    def _drains(self, sums: Words, control: Mapping[str, Words], bias: Words) -> Words | None:
        """Step the drains; return the codes if this cycle loads them."""
        drains = self.units["drain"]
        relu = self._flag(self.batch.relu, bias.shape[1])
        inputs = {
            "accumulator": sums,
            "bias": bias,
            "relu": relu,
        } | {port: np.tile(words, (1, self.cols)) for port, words in control.items()}
        for name in self.array.datapath.encoder_config:
            port = f"result_{name}"
            inputs[port] = self._constant(self.settings[port], self.cols)
        drains.step(inputs)
        return drains.state("code") if control["give"][0, 0] else None

    def _compare(self, results: Sequence[Words]) -> None:
        """Compare with the golden model; the bottom row comes first."""
        for row, words in zip(reversed(range(self.rows)), results, strict=True):
            codes = unpack(words, words.shape[1] * LANES_PER_WORD)
            codes = codes.reshape(self.cols, -1).T
            expected = self.batch.results[:, row, : self.cols]
            if not np.array_equal(codes, expected):
                tile, col = np.argwhere(codes != expected)[0]
                raise ValueError(
                    f"mapped netlist must give code {expected[tile, col]} as the golden model, "
                    f"not {codes[tile, col]} (tile {tile}, row {row}, column {col})"
                )
