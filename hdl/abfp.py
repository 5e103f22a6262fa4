"""The ABFP tile and its digital surroundings: bfloat16 vectors in, bfloat16 results out."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import check_int
from hdl.abfp_tile import AbsMax, DotTile, NoiseSource, RowStore, TileOutput
from hdl.abfp_units import GAIN_WIDTH, AbfpQuantiser, AbfpReciprocal, check_tile, label
from hdl.hierarchy import place

__all__ = ["AbfpTile"]

#: Bits of the counter of saturated conversions.
COUNTER_WIDTH = 32


class AbfpTile(wiring.Component):
    """Matrix-vector product in ABFP: twin of an analog tile and of what is digital around it.

    A vector of n elements is kept while its largest magnitude is found, quantised on the way to
    the rows, and multiplied there.  The rows then share one ADC, rescaler and adder, a row a
    cycle.  Three vectors are under way at a time: one comes in, one is multiplied, one converted;
    each takes ``max(n / lanes, rows)`` cycles.

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

    Members
    -------
    i : In(stream.Signature(16 x lanes))
        Elements as bfloat16; n / lanes words are a vector, ``last_tile + 1`` vectors a product.
    o : Out(stream.Signature({"result", "last"}))
        Results as bfloat16, row by row; ``last`` is with the last row.
    gain : In(3)
        log2 G, 0 to 4.  Like ``last_tile`` and the loads, it may change between products only.
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

    def __init__(self, spec: AbfpTileSpec, *, rows: int, lanes: int, max_tiles: int):
        self.spec = check_tile(spec)
        check_int("rows", rows, 1, None)
        check_int("lanes", lanes, 1, spec.tile)
        check_int("max_tiles", max_tiles, 1, None)
        if lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes}")
        self.rows = rows
        self.lanes = lanes
        self.max_tiles = max_tiles
        #: Words of a vector.
        self.beats = spec.tile // lanes
        self.row_bits = max((rows - 1).bit_length(), 1)
        self.tile_bits = max((max_tiles - 1).bit_length(), 1)
        self.address_bits = max((max_tiles * self.beats - 1).bit_length(), 1)
        self.throughput = f"a vector of {spec.tile} in {max(self.beats, rows)} cycles"
        self.module_name = f"abfp_tile_{label(spec)}_rows{rows}_l{lanes}_t{max_tiles}"
        result = data.StructLayout({"result": 16, "last": 1})
        members: dict[str, Any] = {
            "i": In(stream.Signature(data.ArrayLayout(16, lanes))),
            "o": Out(stream.Signature(result)),
            "gain": In(GAIN_WIDTH),
            "last_tile": In(self.tile_bits),
            "load_row": In(self.row_bits),
            "load_address": In(self.address_bits),
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
        spec = self.spec
        beat_bits = (self.beats - 1).bit_length()

        # Vectors come in: two places, each with the largest magnitude of its vector.
        places = place(m, "vectors", RowStore(16 * self.lanes, 2 * self.beats), platform)
        abs_max = place(m, "abs_max", AbsMax(self.lanes, spec.exp_only), platform)
        full = Signal(2)
        scale_width = abs_max.width
        scales = Array(Signal(scale_width, name=f"scale_{index}") for index in range(2))
        running = Signal(scale_width)
        fill_beat = Signal(beat_bits)
        fill_place = Signal()
        fill = Signal()
        is_filled = Signal()
        m.d.comb += [
            self.i.ready.eq(~full.bit_select(fill_place, 1)),
            fill.eq(self.i.valid & self.i.ready),
            is_filled.eq(fill & (fill_beat == self.beats - 1)),
            abs_max.previous.eq(Mux(fill_beat == 0, 0, running)),
            places.write_en.eq(fill),
            places.write_address.eq(Cat(fill_beat, fill_place)),
            places.write_value.eq(self.i.p),
        ]
        for lane in range(self.lanes):
            m.d.comb += abs_max.magnitudes[lane].eq(self.i.p[lane][15 - scale_width : 15])
        with m.If(fill):
            m.d.sync += [fill_beat.eq(fill_beat + 1), running.eq(abs_max.largest)]
        with m.If(is_filled):
            m.d.sync += [
                fill_place.eq(~fill_place),
                scales[fill_place].eq(abs_max.largest),
            ]

        # They go out again: read, quantised, multiplied, summed; all move together, or wait until
        # the sums of the vector before have been converted.
        move = Signal()
        read_beat = Signal(beat_bits)
        read_place = Signal()
        read = Signal()
        is_read = Signal()
        m.d.comb += [
            read.eq(move & full.bit_select(read_place, 1)),
            is_read.eq(read & (read_beat == self.beats - 1)),
            places.read_en.eq(read),
            places.read_address.eq(Cat(read_beat, read_place)),
        ]
        with m.If(read):
            m.d.sync += read_beat.eq(read_beat + 1)
        with m.If(is_read):
            m.d.sync += read_place.eq(~read_place)
        for index in range(2):
            with m.If(is_filled & (fill_place == index)):
                m.d.sync += full[index].eq(1)
            with m.Elif(is_read & (read_place == index)):
                m.d.sync += full[index].eq(0)

        element_valid, element_first, element_last = (
            Signal(name=f"element_{name}") for name in ("valid", "first", "last")
        )
        element_scale = Signal(scale_width)
        exponent = element_scale[-8:]
        address = Signal(self.address_bits)
        tile = Signal(self.tile_bits)
        is_final = Signal()
        step = Signal()
        m.d.comb += [is_final.eq(tile == self.last_tile), step.eq(move & element_valid)]
        with m.If(move):
            m.d.sync += [
                element_valid.eq(read),
                element_first.eq(read_beat == 0),
                element_last.eq(read_beat == self.beats - 1),
            ]
        with m.If(read):
            m.d.sync += element_scale.eq(scales[read_place])
        with m.If(step):
            m.d.sync += address.eq(address + 1)
            with m.If(element_last):
                m.d.sync += tile.eq(tile + 1)
                with m.If(is_final):
                    m.d.sync += [tile.eq(0), address.eq(0)]

        codes = Signal(data.ArrayLayout(signed(spec.activation_bits), self.lanes))
        if not spec.exp_only:
            reciprocal = place(m, "reciprocal", AbfpReciprocal(spec.activation_bits), platform)
            m.d.comb += reciprocal.fraction.eq(element_scale[:7])
        elements = Signal(data.ArrayLayout(16, self.lanes))
        m.d.comb += elements.eq(places.value)
        for lane in range(self.lanes):
            quantiser = place(
                m, f"quantiser_{lane}", AbfpQuantiser(spec.activation_bits, spec.exp_only), platform
            )
            m.d.comb += [
                quantiser.element.eq(elements[lane]),
                quantiser.exponent.eq(exponent),
            ]
            if not spec.exp_only:
                m.d.comb += quantiser.reciprocal.eq(reciprocal.reciprocal)
            with m.If(step):
                m.d.sync += codes[lane].eq(quantiser.code)

        scale: Any = element_scale
        if spec.exp_only:
            scale = Mux(exponent == 0, 0, exponent + 1)[:8]
        code_valid, code_first, code_last = (
            Signal(name=f"code_{name}") for name in ("valid", "first", "last")
        )
        code_scale = Signal(len(scale))
        code_tile = Signal(self.tile_bits)
        code_final = Signal()
        with m.If(move):
            m.d.sync += [
                code_valid.eq(element_valid),
                code_first.eq(element_first),
                code_last.eq(element_last),
                code_scale.eq(scale),
                code_tile.eq(tile),
                code_final.eq(is_final),
            ]

        take = Signal()
        sums = Array(Signal(signed(spec.sum_bits), name=f"sum_{row}") for row in range(self.rows))
        for row in range(self.rows):
            weights = RowStore(spec.weight_bits * self.lanes, self.max_tiles * self.beats)
            place(m, f"weights_{row}", weights, platform)
            dot = place(m, f"dot_{row}", DotTile(spec, self.lanes), platform)
            m.d.comb += [
                weights.read_en.eq(step),
                weights.read_address.eq(address),
                weights.write_en.eq(self.load_codes_en & (self.load_row == row)),
                weights.write_address.eq(self.load_address),
                weights.write_value.eq(self.load_codes),
                dot.weights.eq(weights.value),
                dot.activations.eq(codes),
                dot.enable.eq(move & code_valid),
                dot.first.eq(code_first),
            ]
            with m.If(take):
                m.d.sync += sums[row].eq(dot.total)

        done = Signal()
        done_scale = Signal.like(code_scale)
        done_tile = Signal(self.tile_bits)
        done_final = Signal()
        with m.If(move):
            m.d.sync += [
                done.eq(code_valid & code_last),
                done_scale.eq(code_scale),
                done_tile.eq(code_tile),
                done_final.eq(code_final),
            ]

        # Finished sums wait here to be converted, row after row.
        output = place(m, "output", TileOutput(spec, self.rows), platform)
        sums_valid = Signal()
        sums_scale = Signal.like(code_scale)
        sums_tile = Signal(self.tile_bits)
        sums_final = Signal()
        row_index = Signal(self.row_bits)
        convert = Signal()
        is_converted = Signal()
        m.d.comb += [
            convert.eq(output.move & sums_valid),
            is_converted.eq(convert & (row_index == self.rows - 1)),
            take.eq(done & (~sums_valid | is_converted)),
            move.eq(~done | take),
        ]
        with m.If(take):
            m.d.sync += [
                sums_valid.eq(1),
                sums_scale.eq(done_scale),
                sums_tile.eq(done_tile),
                sums_final.eq(done_final),
            ]
        with m.Elif(is_converted):
            m.d.sync += sums_valid.eq(0)
        with m.If(is_converted):
            m.d.sync += row_index.eq(0)
        with m.Elif(convert):
            m.d.sync += row_index.eq(row_index + 1)

        weight_scales = RowStore(len(self.load_scale), self.max_tiles << self.row_bits)
        place(m, "weight_scales", weight_scales, platform)
        biases = place(m, "biases", RowStore(32, self.rows), platform)
        m.d.comb += [
            weight_scales.read_en.eq(output.move),
            weight_scales.read_address.eq(Cat(row_index, sums_tile)),
            weight_scales.write_en.eq(self.load_scale_en),
            weight_scales.write_address.eq(Cat(self.load_row, self.load_address)),
            weight_scales.write_value.eq(self.load_scale),
            biases.read_en.eq(output.move),
            biases.read_address.eq(output.bias_row),
            biases.write_en.eq(self.load_bias_en),
            biases.write_address.eq(self.load_row),
            biases.write_value.eq(self.load_bias),
            output.total.eq(sums[row_index]),
            output.row.eq(row_index),
            output.first.eq(sums_tile == 0),
            output.final.eq(sums_final),
            output.activation_scale.eq(sums_scale),
            output.valid.eq(sums_valid),
            output.weight_scale.eq(weight_scales.value),
            output.bias.eq(biases.value),
            output.gain.eq(self.gain),
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
                source.step.eq(convert),
                output.noise.eq(Mux(self.noise_external, self.noise, source.word)),
                output.noise_enable.eq(self.noise_enable),
                self.noise_step.eq(convert),
            ]

        with m.If(self.clear):
            m.d.sync += [self.saturations.eq(0), self.bad_input.eq(0)]
        with m.Else():
            with m.If(output.saturated):
                m.d.sync += self.saturations.eq(self.saturations + 1)
            with m.If(fill & abs_max.bad):
                m.d.sync += self.bad_input.eq(1)
        return m
