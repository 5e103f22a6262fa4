"""The ABFP tile as mapped netlists of its units, run on real operands.

Vectors that wait, weights, scales and biases are in memories, which no flow would build of gates;
all else is mapped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdl.abfp import AbfpTile
from synth.activity import LANES_PER_WORD, Words, pack, unpack
from synth.assembly import Assembly, Wiring, constant
from synth.cache import Cache
from synth.cells import CellLibrary
from synth.flat import unit_wiring
from synth.glitch_samples import GlitchSampling, begin_samples
from synth.netlist import CellClass
from synth.units import MappedModule, MappedUnit, MappedUnits, UnitsRun, map_modules, meet_clock
from synth.verilog import to_verilog

__all__ = ["MappedTile", "TileRun", "VectorBatch"]

#: Starts of the names of modules that are memories, and of those that are wires between units.
MEMORY = "abfp_store_"
WIRES = ("abfp_tile_", "abfp_output_")

#: Class of the gates of each unit, by the start of its module's name.
CLASSES = {
    "abfp_vectors": "abs-max",
    "abfp_quantiser": CellClass.DECODE,
    "abfp_dot": CellClass.MULTIPLY,
    "abfp_converter": "encode",
    "abfp_rescaler": "encode",
    "float32_adder": CellClass.ACCUMULATE,
    "abfp_accumulators": CellClass.ACCUMULATE,
    "abfp_result": "encode",
}

#: Cycles without a result after which a run is given up.
PATIENCE = 2000

Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class VectorBatch:
    """Products of some streams that are run side by side.

    Parameters
    ----------
    elements : ndarray of int, [streams, vectors, tiles * n]
        Bits of bfloat16; there is a multiple of 64 streams.
    codes : ndarray of int, [streams, rows, tiles * n]
        Codes of weights.
    scales : ndarray of int, [streams, rows, tiles]
        Their scales.
    bias : ndarray of int, [streams, rows]
        Bits of float32.
    settings : mapping of str to int
        Ports ``gain``, ``relu``.
    results : ndarray of int, [streams, vectors, rows]
        Bits of bfloat16 that the golden model says.
    """

    elements: Integers
    codes: Integers
    scales: Integers
    bias: Integers
    settings: Mapping[str, int]
    results: Integers


@dataclass(frozen=True, kw_only=True)
class TileRun(UnitsRun):
    """Switching activity of a batch, and what its memories did.

    Attributes
    ----------
    accesses : dict of str to int
        Words of each memory that one stream read or wrote; of the weights, those of all rows.
    writes : dict of str to int
        Those of them that it wrote.
    """

    accesses: dict[str, int]
    writes: dict[str, int]


class MappedTile(MappedUnits):
    """Units of a tile, mapped to a cell library.

    Parameters
    ----------
    tile : AbfpTile
        The tile; without noise.
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
    tile : AbfpTile
        As given.
    units : dict of str to MappedUnit
        By module.
    """

    def __init__(
        self,
        tile: AbfpTile,
        library: CellLibrary,
        *,
        clock_ns: float,
        clock_gating: int | None = None,
        workers: int = 2,
        cache: Cache | None = None,
    ) -> None:
        self.tile = tile
        design = to_verilog(tile)
        self._wiring = Wiring.of(design, lambda name: name.startswith(WIRES), library, cache)
        counts = design.counts()
        names = {
            instance.module
            for instance in self._wiring.instances
            if not instance.module.startswith(MEMORY)
        }

        def mapped(names: Iterable[str], clock_ns: float) -> dict[str, MappedModule]:
            return map_modules(
                design,
                names,
                library,
                clock_ns=clock_ns,
                clock_gating=clock_gating,
                workers=workers,
                cache=cache,
            )

        wiring = unit_wiring(
            design, names, library, is_memory=lambda name: name.startswith(MEMORY), cache=cache
        )
        modules, paths = meet_clock(
            mapped(names, clock_ns),
            lambda name, left_ns: mapped([name], left_ns)[name],
            wiring,
            library,
            counts=counts,
            clock_ns=clock_ns,
        )
        units = {}
        for name, module in sorted(modules.items()):
            kind = next(
                (kind for start, kind in CLASSES.items() if name.startswith(start)), "control"
            )
            units[name] = MappedUnit.of(module, name, counts[name], kind)
        super().__init__(units, paths, clock_ns=clock_ns)

    def run(
        self, batch: VectorBatch, *, glitches: GlitchSampling | None = None, state_words: int = 0
    ) -> TileRun:
        """Run products on the mapped netlists, with weights in place.

        Parameters
        ----------
        batch : VectorBatch
            Products.
        glitches : GlitchSampling, optional
            Counts the glitches of some cycles; the same one for all runs.
        state_words : int
            Words of lanes in which the states of the cells are counted, see `Simulator`.

        Raises
        ------
        ValueError
            If the results are not ``batch.results``.
        """
        tile = self.tile
        streams, vectors, length = batch.elements.shape
        if streams % LANES_PER_WORD or batch.codes.shape != (streams, tile.rows, length):
            raise ValueError(
                f"batch must have a multiple of 64 streams and codes of {tile.rows} rows, "
                f"not {batch.elements.shape} and {batch.codes.shape}"
            )
        assembly = Assembly(self._wiring, self.units, streams, glitches, state_words)
        words = streams // LANES_PER_WORD
        self._preload(assembly, batch)

        def number(port: str, value: int) -> Words:
            return constant(value, len(self._wiring.ports[port]), words)

        settings = {
            port: number(port, value)
            for port, value in (
                *batch.settings.items(),
                ("last_tile", length // tile.spec.tile - 1),
                ("o__ready", 1),
            )
        }
        beats = batch.elements.reshape(streams, -1, tile.lanes).transpose(1, 2, 0)
        entering = pack(beats, 16).reshape(len(beats), -1, words)
        assembly.step(settings | {"rst": number("rst", 1)})
        assembly.step({"rst": number("rst", 0)})
        before = assembly.activity()
        begin_samples(assembly.simulators.values())
        results: list[Integers] = []
        sent = cycles = idle = 0
        while len(results) < vectors * tile.rows:
            now = min(sent, len(entering) - 1)
            assembly.step(
                {
                    "i__payload": entering[now],
                    "i__valid": number("i__valid", int(sent < len(entering))),
                }
            )
            cycles += 1
            idle += 1
            sent += int(assembly.read("i__ready")[0, 0] & np.uint64(1))
            if assembly.read("o__valid")[0, 0] & np.uint64(1):
                idle = 0
                results.append(unpack(assembly.read("o__payload")[:16], streams))
            if idle > PATIENCE:
                raise ValueError(f"mapped units must give results, not none in {PATIENCE} cycles")
        got = np.stack(results, axis=1).reshape(streams, vectors, tile.rows)
        if not np.array_equal(got, batch.results):
            stream, vector, row = np.argwhere(got != batch.results)[0]
            raise ValueError(
                f"mapped units must give {batch.results[stream, vector, row]:04X} as the golden "
                f"model, not {got[stream, vector, row]:04X} (stream {stream}, vector {vector}, "
                f"row {row})"
            )
        return TileRun(
            activity={
                name: activity.since(before[name]) for name, activity in assembly.activity().items()
            },
            cycles=cycles,
            simulated={name: unit.count for name, unit in self.units.items()},
            accesses=_by_kind(assembly.accesses),
            writes=_by_kind(assembly.writes),
            glitches=self.glitches(glitches, assembly.simulators),
        )

    def _preload(self, assembly: Assembly, batch: VectorBatch) -> None:
        """Put weights, scales and biases into the memories."""
        tile = self.tile
        bits = tile.spec.weight_bits
        for row in range(tile.rows):
            cut = batch.codes[:, row].reshape(len(batch.codes), -1, tile.lanes).transpose(1, 2, 0)
            packed = pack(cut.astype(np.int64), bits)
            memory = assembly.memories[f"weights_{row}"]
            for address, lanes in enumerate(packed):
                memory[address] = lanes.reshape(tile.lanes * bits, -1)
            scales = assembly.memories["weight_scales"]
            for number in range(batch.scales.shape[2]):
                scales[number << tile.row_bits | row] = pack(
                    batch.scales[:, row, number].astype(np.int64), len(tile.load_scale)
                )
            assembly.memories["biases"][row] = pack(batch.bias[:, row].astype(np.int64), 32)


def _by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    """Words by memory, those of the weights of all rows together."""
    found: dict[str, int] = {}
    for name, count in counts.items():
        kind = "weights" if name.startswith("weights_") else name
        found[kind] = found.get(kind, 0) + count
    return found
