"""The ABFP tile and its digital surroundings: bfloat16 vectors in, bfloat16 results out."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import check_int, instance_of
from hdl.abfp_arithmetic import tile_latency
from hdl.abfp_control import (
    COUNTER_WIDTH,
    LoadSelect,
    RowTurns,
    TileStatus,
    VectorBuffer,
    WordSchedule,
    count_bits,
)
from hdl.abfp_output import TileOutput, row_distance
from hdl.abfp_tile import AbsMax, DotTile, NoiseSource, RowStore
from hdl.abfp_units import GAIN_WIDTH, AbfpQuantiser, check_flag, label
from hdl.hierarchy import place

__all__ = ["AbfpDatapath", "AbfpTile"]


class AbfpDatapath:
    """Sizes of a tile, for those who ask other number systems for their arithmetic.

    Parameters
    ----------
    spec : AbfpTileSpec
        Number formats and the tile width n.
    length : int
        Elements of the longest dot product, at least 1.
    """

    def __init__(self, spec: AbfpTileSpec, length: int):
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        check_int("length", length, 1, None)
        self.length = length

    def tile(self, rows: int, lanes: int, pipelined: bool) -> "AbfpTile":
        """Tile with room for the longest dot product; a whole vector in a cycle is the most."""
        return AbfpTile(
            self.spec,
            rows=rows,
            lanes=min(lanes, self.spec.tile),
            max_tiles=self.spec.tiles(self.length),
            pipelined=pipelined,
        )


class AbfpTile(wiring.Component):
    """Matrix-vector product in ABFP: twin of an analog tile and of what is digital around it.

    A vector of n elements is kept while its largest magnitude is found, quantised on the way to
    the rows, and multiplied there.  The rows then share one ADC, rescaler and adder, a row a
    cycle.  Vectors come in, are multiplied and are converted at the same time, each in
    :attr:`interval` cycles.  That is as many as a vector has words or the tile has rows, whichever
    is more; with very few rows, as many as it takes until a row's sum can be added to again.

    This module holds wires only: units and memories stand side by side in it.

    Parameters
    ----------
    spec : AbfpTileSpec
        Number formats and the tile width n; ``gain`` does not matter.
    rows : int
        Dot products of a vector, at least 1.
    lanes : int
        Elements of a cycle, a power of two, at most n.
    max_tiles : int
        Tiles in the longest dot product, at least 1.
    pipelined : bool
        Whether units have as many registers as they can, for short clock periods.

    Members
    -------
    i : In(stream.Signature(16 x lanes))
        Elements as bfloat16; n / lanes words are a vector, ``last_tile + 1`` vectors a product.
    o : Out(stream.Signature({"result", "last"}))
        Results as bfloat16, row by row; ``last`` is with the last row.
    gain : In(3)
        log2 G, 0 to 4.  Like ``relu``, ``last_tile`` and the loads, it may change between products
        only.
    relu : In(1)
        Replace negative results by zero.
    last_tile : In
        Tiles of a product, less one.
    load_row, load_address : In
        Where a load goes: the row, and the number of the tile; for codes, of their word among all
        words of the row.
    load_codes_en, load_codes : In
        Codes of ``lanes`` weights.
    load_scale_en, load_scale : In
        Scale of a row's weights of one tile; see :class:`hdl.abfp_units.AbfpRescaler`.
    load_bias_en, load_bias : In
        Bias of a row, a finite float32.
    noise_enable : In(1)
        Whether conversions have noise; this and the following absent without noise.
    noise_external, noise : In
        Whether noise words come from ``noise``, and the word for the conversion of this cycle.
    noise_step : Out(1)
        Whether there is one in this cycle.
    seed, load_seed : In
        Start of the internal noise; see :class:`hdl.abfp_tile.NoiseSource`.
    saturations : Out(32)
        Saturated conversions, modulo 2**32.
    bad_input : Out(1)
        Whether an infinity or NaN came in.
    clear : In(1)
        Clear both.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If one is out of range.
    """

    i: stream.Interface
    o: stream.Interface
    gain: Signal
    relu: Signal
    last_tile: Signal
    load_row: Signal
    load_address: Signal
    load_codes_en: Signal
    load_codes: Any
    load_scale_en: Signal
    load_scale: Signal
    load_bias_en: Signal
    load_bias: Signal
    noise_enable: Signal
    noise_external: Signal
    noise: Signal
    noise_step: Signal
    seed: Signal
    load_seed: Signal
    saturations: Signal
    bad_input: Signal
    clear: Signal

    def __init__(
        self,
        spec: AbfpTileSpec,
        *,
        rows: int,
        lanes: int,
        max_tiles: int,
        pipelined: bool = False,
    ):
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        check_int("rows", rows, 1, None)
        check_int("lanes", lanes, 1, spec.tile)
        check_int("max_tiles", max_tiles, 1, None)
        if lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes}")
        self.rows = rows
        self.lanes = lanes
        self.max_tiles = max_tiles
        self.pipelined = check_flag("pipelined", pipelined)
        #: Words of a vector.
        self.beats = spec.tile // lanes
        self.row_bits = count_bits(rows)
        quantiser = AbfpQuantiser.EXP_CUTS if spec.exp_only else AbfpQuantiser.CUTS
        self.quantiser_latency = tile_latency(quantiser, pipelined)
        self.dot_latency = (max if pipelined else min)(DotTile.CUTS)
        #: Cycles of a vector at the converter, and of a vector in all.
        self.slots = max(rows, row_distance(pipelined))
        self.interval = max(self.beats, self.slots)
        # A place is taken while words come in, while the scale is found, and while words go out.
        settle = len(AbsMax.cuts(lanes, pipelined)) + 1
        self.places = max(2, -(-(2 * self.beats + settle) // self.interval))
        self.throughput = f"a vector of {spec.tile} in {self.interval} cycles"
        self.module_name = (
            f"abfp_tile_{label(spec)}_rows{rows}_l{lanes}_t{max_tiles}"
            f"{'_pipelined' if pipelined else ''}"
        )
        result = data.StructLayout({"result": 16, "last": 1})
        members: dict[str, Any] = {
            "i": In(stream.Signature(data.ArrayLayout(16, lanes))),
            "o": Out(stream.Signature(result)),
            "gain": In(GAIN_WIDTH),
            "relu": In(1),
            "last_tile": In(count_bits(max_tiles)),
            "load_row": In(self.row_bits),
            "load_address": In(count_bits(max_tiles * self.beats)),
            "load_codes_en": In(1),
            "load_codes": In(data.ArrayLayout(signed(spec.weight_bits), lanes)),
            "load_scale_en": In(1),
            "load_scale": In(8 if spec.exp_only else 15),
            "load_bias_en": In(1),
            "load_bias": In(32),
            "saturations": Out(COUNTER_WIDTH),
            "bad_input": Out(1),
            "clear": In(1),
        }
        if spec.noise_bits:
            members |= {
                "noise_enable": In(1),
                "noise_external": In(1),
                "noise": In(spec.noise_bits),
                "noise_step": Out(1),
                "seed": In(32),
                "load_seed": In(1),
            }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        vectors = self._place_vectors(m, platform)
        quantisers = self._place_quantisers(m, platform, vectors)
        schedule = self._place_schedule(m, platform, vectors)
        rows = self._place_rows(m, platform, schedule, quantisers)
        turns = self._place_turns(m, platform, schedule, rows)
        output = self._place_output(m, platform, turns)
        for unit in (vectors, schedule, *quantisers, *rows):
            m.d.comb += unit.move.eq(turns.move)

        status = place(m, "status", TileStatus(), platform)
        m.d.comb += [
            status.saturated.eq(output.saturated),
            status.converted.eq(output.converted),
            status.move.eq(output.move),
            status.bad.eq(vectors.bad),
            status.clear.eq(self.clear),
            self.saturations.eq(status.saturations),
            self.bad_input.eq(status.bad_input),
        ]
        return m

    def _place_vectors(self, m: Module, platform: Any) -> Any:
        """Vectors come in, and wait for their scale."""
        vectors = place(
            m,
            "vectors",
            VectorBuffer(self.spec, self.lanes, self.places, self.pipelined),
            platform,
        )
        self.store = place(
            m, "store", RowStore(16 * self.lanes, self.places * self.beats), platform
        )
        m.d.comb += [
            vectors.i_valid.eq(self.i.valid),
            self.i.ready.eq(vectors.i_ready),
            *(
                vectors.magnitudes[lane].eq(self.i.p[lane][15 - len(vectors.scale) : 15])
                for lane in range(self.lanes)
            ),
            self.store.write_en.eq(vectors.write_en),
            self.store.write_address.eq(vectors.write_address),
            self.store.write_value.eq(self.i.payload),
            self.store.read_en.eq(vectors.read_en),
            self.store.read_address.eq(vectors.read_address),
        ]
        return vectors

    def _place_quantisers(self, m: Module, platform: Any, vectors: Any) -> list[Any]:
        """They go out again, and become codes."""
        spec = self.spec
        quantisers = []
        for lane in range(self.lanes):
            quantiser = place(
                m,
                f"quantiser_{lane}",
                AbfpQuantiser(spec.activation_bits, spec.exp_only, self.quantiser_latency),
                platform,
            )
            m.d.comb += [
                quantiser.valid.eq(vectors.valid),
                quantiser.element.eq(self.store.value.word_select(lane, 16)),
                quantiser.exponent.eq(vectors.scale[-8:]),
            ]
            if not spec.exp_only:
                m.d.comb += quantiser.reciprocal.eq(vectors.reciprocal)
            quantisers.append(quantiser)
        return quantisers

    def _place_schedule(self, m: Module, platform: Any, vectors: Any) -> Any:
        schedule = WordSchedule(
            self.spec,
            self.max_tiles * self.beats,
            self.max_tiles,
            self.quantiser_latency,
            self.dot_latency,
        )
        place(m, "schedule", schedule, platform)
        m.d.comb += [
            schedule.valid.eq(vectors.valid),
            schedule.first.eq(vectors.first),
            schedule.last.eq(vectors.last),
            schedule.scale.eq(vectors.scale),
            schedule.last_tile.eq(self.last_tile),
        ]
        return schedule

    def _place_rows(
        self, m: Module, platform: Any, schedule: Any, quantisers: list[Any]
    ) -> list[Any]:
        """Codes meet the weights of each row."""
        spec = self.spec
        select = place(m, "load_select", LoadSelect(self.rows), platform)
        m.d.comb += [select.enable.eq(self.load_codes_en), select.row.eq(self.load_row)]
        rows = []
        for row in range(self.rows):
            weights = RowStore(spec.weight_bits * self.lanes, self.max_tiles * self.beats)
            place(m, f"weights_{row}", weights, platform)
            dot = place(m, f"dot_{row}", DotTile(spec, self.lanes, self.pipelined), platform)
            m.d.comb += [
                weights.read_en.eq(schedule.read_en),
                weights.read_address.eq(schedule.address),
                weights.write_en.eq(select.selected[row]),
                weights.write_address.eq(self.load_address),
                weights.write_value.eq(self.load_codes),
                dot.weights.eq(weights.value),
                *(dot.activations[lane].eq(unit.code) for lane, unit in enumerate(quantisers)),
                dot.valid.eq(schedule.code_valid),
                dot.first.eq(schedule.code_first),
            ]
            rows.append(dot)
        return rows

    def _place_turns(self, m: Module, platform: Any, schedule: Any, rows: list[Any]) -> Any:
        """Dot products wait for their turn to be converted."""
        turns = place(
            m, "turns", RowTurns(self.spec, self.rows, self.slots, self.max_tiles), platform
        )
        m.d.comb += [
            getattr(turns, name).eq(getattr(schedule, name))
            for name in ("done", "done_scale", "done_tile", "done_first", "done_final")
        ]
        for row, dot in enumerate(rows):
            m.d.comb += [dot.take.eq(turns.take), turns.sums[row].eq(dot.sum)]
        return turns

    def _place_output(self, m: Module, platform: Any, turns: Any) -> Any:
        """They become results."""
        spec = self.spec
        output = place(
            m, "output", TileOutput(spec, self.rows, self.max_tiles, self.pipelined), platform
        )
        scales = RowStore(len(self.load_scale), self.max_tiles << self.row_bits)
        place(m, "weight_scales", scales, platform)
        biases = place(m, "biases", RowStore(32, self.rows), platform)
        m.d.comb += [
            *(
                getattr(output, name).eq(getattr(turns, name))
                for name in ("valid", "total", "row", "scale", "tile", "first", "final")
            ),
            turns.convert.eq(output.move),
            scales.read_en.eq(output.move),
            scales.read_address.eq(Cat(output.scale_row, output.scale_tile)),
            scales.write_en.eq(self.load_scale_en),
            scales.write_address.eq(Cat(self.load_row, self.load_address)),
            scales.write_value.eq(self.load_scale),
            output.weight_scale.eq(scales.value),
            biases.read_en.eq(output.move),
            biases.read_address.eq(output.bias_row),
            biases.write_en.eq(self.load_bias_en),
            biases.write_address.eq(self.load_row),
            biases.write_value.eq(self.load_bias),
            output.bias.eq(biases.value),
            output.gain.eq(self.gain),
            output.relu.eq(self.relu),
            self.o.valid.eq(output.o_valid),
            self.o.p.result.eq(output.o_result),
            self.o.p.last.eq(output.o_last),
            output.o_ready.eq(self.o.ready),
        ]
        if spec.noise_bits:
            source = place(m, "noise_source", NoiseSource(spec.noise_bits), platform)
            m.d.comb += [
                source.seed.eq(self.seed),
                source.load.eq(self.load_seed),
                source.step.eq(turns.step),
                source.external.eq(self.noise_external),
                source.given.eq(self.noise),
                output.noise.eq(source.word),
                output.noise_enable.eq(self.noise_enable),
                self.noise_step.eq(turns.step),
            ]
        return output
