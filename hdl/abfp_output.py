"""From dot products to results: ADC, rescaler, accumulators, bias and bfloat16, a row a cycle."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import instance_of
from hdl.abfp_arithmetic import delayed, tile_latency
from hdl.abfp_control import count_bits
from hdl.abfp_float import Bfloat16Rounder, Float32Adder
from hdl.abfp_units import GAIN_WIDTH, AbfpConverter, AbfpRescaler, label
from hdl.hierarchy import place

__all__ = ["Accumulators", "ResultRegister", "RowTags", "TileOutput", "row_distance"]


def row_distance(pipelined: bool) -> int:
    """Cycles after which a row may come again: its sum is read, added to and kept by then."""
    return tile_latency(Float32Adder.CUTS, pipelined) + 2


class RowTags(wiring.Component):
    """What is known of a dot product, for each unit when it gets there.

    Parameters
    ----------
    rows, tiles : int
        Rows, and tiles in the longest dot product.
    scale_bits : int
        Bits of a scale.
    convert, rescale, add : int
        Latencies of the units.

    Members
    -------
    move : In(1)
        Whether everything advances.
    row, tile, first, final, scale : In
        Of the dot product that is taken now; see :class:`hdl.abfp_control.RowTurns`.
    scale_row, scale_tile : Out
        A cycle before its code is there, for the memory of scales.
    code_scale : Out
        When its code is there.
    add_row, add_first : Out
        A cycle before its partial result is there.
    bias_row, sum_row, sum_final : Out
        A cycle before its sum is there, and when it is.
    result_last : Out(1)
        Whether it is of the last row, when its result is there.
    """

    move: Signal
    row: Signal
    tile: Signal
    first: Signal
    final: Signal
    scale: Signal
    scale_row: Signal
    scale_tile: Signal
    code_scale: Signal
    add_row: Signal
    add_first: Signal
    bias_row: Signal
    sum_row: Signal
    sum_final: Signal
    result_last: Signal

    def __init__(
        self, rows: int, tiles: int, scale_bits: int, convert: int, rescale: int, add: int
    ) -> None:
        self.rows = rows
        self.latencies = (convert, rescale, add)
        self.module_name = f"abfp_tags_rows{rows}_t{tiles}_s{scale_bits}_d{convert}_{rescale}_{add}"
        row = count_bits(rows)
        super().__init__(
            {
                "move": In(1),
                "row": In(row),
                "tile": In(count_bits(tiles)),
                "first": In(1),
                "final": In(1),
                "scale": In(scale_bits),
                "scale_row": Out(row),
                "scale_tile": Out(count_bits(tiles)),
                "code_scale": Out(scale_bits),
                "add_row": Out(row),
                "add_first": Out(1),
                "bias_row": Out(row),
                "sum_row": Out(row),
                "sum_final": Out(1),
                "result_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        convert, rescale, add = self.latencies

        def later(value: Any, cycles: int, name: str) -> Any:
            return delayed(m, self.move, value, cycles, name)

        scale_row = later(self.row, convert - 1, "row")
        add_row = later(scale_row, rescale, "add_row")
        bias_row = later(add_row, add, "sum_row")
        sum_row = later(bias_row, 1, "row_done")
        m.d.comb += [
            self.scale_row.eq(scale_row),
            self.scale_tile.eq(later(self.tile, convert - 1, "tile")),
            self.code_scale.eq(later(self.scale, convert, "scale")),
            self.add_row.eq(add_row),
            self.add_first.eq(later(self.first, convert + rescale - 1, "first")),
            self.bias_row.eq(bias_row),
            self.sum_row.eq(sum_row),
            self.sum_final.eq(later(self.final, convert + rescale + add, "final")),
            self.result_last.eq(later(sum_row == self.rows - 1, add, "last")),
        ]
        return m


class Accumulators(wiring.Component):
    """A float32 sum for each row.

    Parameters
    ----------
    rows : int
        Sums.

    Members
    -------
    move : In(1)
        Whether everything advances.
    row, first : In
        Row whose sum is wanted in the next cycle; zero instead if the first tile is added to it.
    so_far : Out(32)
        That sum.
    sum_valid, sum_row, sum, sum_final : In
        A new sum, its row, and whether the last tile was added.
    finished : Out(1)
        Whether there is a new sum and that was the last tile.
    """

    move: Signal
    row: Signal
    first: Signal
    so_far: Signal
    sum_valid: Signal
    sum_row: Signal
    sum: Signal
    sum_final: Signal
    finished: Signal

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.module_name = f"abfp_accumulators_rows{rows}"
        super().__init__(
            {
                "move": In(1),
                "row": In(count_bits(rows)),
                "first": In(1),
                "so_far": Out(32),
                "sum_valid": In(1),
                "sum_row": In(count_bits(rows)),
                "sum": In(32),
                "sum_final": In(1),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sums = Array(Signal(32, name=f"sum_{row}", reset_less=True) for row in range(self.rows))
        m.d.comb += self.finished.eq(self.sum_valid & self.sum_final)
        with m.If(self.move):
            m.d.sync += self.so_far.eq(Mux(self.first, 0, sums[self.row]))
            # After the last tile nobody needs it.
            with m.If(self.sum_valid & ~self.sum_final):
                m.d.sync += sums[self.sum_row].eq(self.sum)
        return m


class ResultRegister(wiring.Component):
    """Rounds a sum to bfloat16 and offers it.

    Members
    -------
    valid, total, last : In
        A float32 that is neither subnormal nor infinite, and a flag that goes with it.
    relu : In(1)
        Whether a negative result becomes zero.
    move : Out(1)
        Whether everything advances: nothing is offered, or it is taken.
    o_valid, o_result, o_last, o_ready
        Stream of results.
    """

    valid: Signal
    total: Signal
    last: Signal
    relu: Signal
    move: Signal
    o_valid: Signal
    o_result: Signal
    o_last: Signal
    o_ready: Signal

    module_name = "abfp_result"

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": In(1),
                "total": In(32),
                "last": In(1),
                "relu": In(1),
                "move": Out(1),
                "o_valid": Out(1),
                "o_result": Out(16),
                "o_last": Out(1),
                "o_ready": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rounder = place(m, "rounder", Bfloat16Rounder(), platform)
        m.d.comb += [rounder.total.eq(self.total), self.move.eq(self.o_ready | ~self.o_valid)]
        with m.If(self.move):
            m.d.sync += self.o_valid.eq(self.valid)
            with m.If(self.valid):
                m.d.sync += [
                    self.o_result.eq(Mux(self.relu & self.total[-1], 0, rounder.result)),
                    self.o_last.eq(self.last),
                ]
        return m


class TileOutput(wiring.Component):
    """From dot products to results: ADC, rescaler, accumulator, bias, bfloat16; a row a cycle.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile.
    rows : int
        Accumulators.
    tiles : int
        Tiles in the longest dot product.
    pipelined : bool
        Whether units have as many registers as they can.

    Members
    -------
    valid, total, row, scale, tile, first, final : In
        See :class:`hdl.abfp_control.RowTurns`.
    move : Out(1)
        Whether the dot product is taken.
    scale_row, scale_tile : Out
        Where the memory of the scales of weights is read.
    weight_scale : In(15) or In(8)
        The scale, a move later.
    bias_row : Out
        Where the memory of biases is read.
    bias : In(32)
        The bias, a finite float32, a move later.
    gain : In(3)
        log2 G, 0 to 4.
    relu : In(1)
        Whether negative results become zero.
    noise, noise_enable : In
        Noise of this conversion; absent without noise.
    converted, saturated : Out(1)
        Whether there is a code, and whether the conversion saturated.
    o_valid, o_result, o_last, o_ready
        Stream of results.
    """

    valid: Signal
    total: Signal
    row: Signal
    scale: Signal
    tile: Signal
    first: Signal
    final: Signal
    move: Signal
    scale_row: Signal
    scale_tile: Signal
    weight_scale: Signal
    bias_row: Signal
    bias: Signal
    gain: Signal
    relu: Signal
    noise: Signal
    noise_enable: Signal
    converted: Signal
    saturated: Signal
    o_valid: Signal
    o_result: Signal
    o_last: Signal
    o_ready: Signal

    def __init__(self, spec: AbfpTileSpec, rows: int, tiles: int, pipelined: bool = False) -> None:
        self.spec = instance_of("spec", spec, AbfpTileSpec)
        self.rows = rows
        self.tiles = tiles
        rescaler = AbfpRescaler.EXP_CUTS if spec.exp_only else AbfpRescaler.CUTS
        self.latencies = tuple(
            tile_latency(cuts, pipelined)
            for cuts in (AbfpConverter.CUTS, rescaler, Float32Adder.CUTS)
        )
        self.module_name = (
            f"abfp_output_{label(spec)}_rows{rows}_t{tiles}{'_pipelined' if pipelined else ''}"
        )
        scale = 8 if spec.exp_only else 15
        members: dict[str, Any] = {
            "valid": In(1),
            "total": In(signed(spec.sum_bits)),
            "row": In(count_bits(rows)),
            "scale": In(scale),
            "tile": In(count_bits(tiles)),
            "first": In(1),
            "final": In(1),
            "move": Out(1),
            "scale_row": Out(count_bits(rows)),
            "scale_tile": Out(count_bits(tiles)),
            "weight_scale": In(scale),
            "bias_row": Out(count_bits(rows)),
            "bias": In(32),
            "gain": In(GAIN_WIDTH),
            "relu": In(1),
            "converted": Out(1),
            "saturated": Out(1),
            "o_valid": Out(1),
            "o_result": Out(16),
            "o_last": Out(1),
            "o_ready": In(1),
        }
        if spec.noise_bits:
            members |= {"noise": In(spec.noise_bits), "noise_enable": In(1)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        convert, rescale, add = self.latencies
        converter = place(m, "converter", AbfpConverter(spec, convert), platform)
        rescaler = place(m, "rescaler", AbfpRescaler(spec, rescale), platform)
        adder = place(m, "adder", Float32Adder(add), platform)
        bias_adder = place(m, "bias_adder", Float32Adder(add), platform)
        result = place(m, "result", ResultRegister(), platform)
        accumulators = place(m, "accumulators", Accumulators(self.rows), platform)
        tags = place(
            m,
            "tags",
            RowTags(self.rows, self.tiles, len(self.scale), convert, rescale, add),
            platform,
        )
        for unit in (converter, rescaler, adder, bias_adder, accumulators, tags):
            m.d.comb += unit.move.eq(result.move)
        m.d.comb += [
            self.move.eq(result.move),
            *(
                getattr(tags, name).eq(getattr(self, name))
                for name in ("row", "tile", "first", "final", "scale")
            ),
            converter.valid.eq(self.valid),
            converter.total.eq(self.total),
            converter.gain.eq(self.gain),
            self.converted.eq(converter.o_valid),
            self.saturated.eq(converter.saturated),
            self.scale_row.eq(tags.scale_row),
            self.scale_tile.eq(tags.scale_tile),
            rescaler.valid.eq(converter.o_valid),
            rescaler.code.eq(converter.code),
            rescaler.weight_scale.eq(self.weight_scale),
            rescaler.activation_scale.eq(tags.code_scale),
            rescaler.gain.eq(self.gain),
            accumulators.row.eq(tags.add_row),
            accumulators.first.eq(tags.add_first),
            adder.valid.eq(rescaler.o_valid),
            adder.a.eq(accumulators.so_far),
            adder.b.eq(Cat(Const(0, 16), rescaler.partial)),
            accumulators.sum_valid.eq(adder.o_valid),
            accumulators.sum_row.eq(tags.sum_row),
            accumulators.sum.eq(adder.sum),
            accumulators.sum_final.eq(tags.sum_final),
            self.bias_row.eq(tags.bias_row),
            bias_adder.valid.eq(accumulators.finished),
            bias_adder.a.eq(adder.sum),
            bias_adder.b.eq(self.bias),
            result.valid.eq(bias_adder.o_valid),
            result.total.eq(bias_adder.sum),
            result.last.eq(tags.result_last),
            result.relu.eq(self.relu),
            self.o_valid.eq(result.o_valid),
            self.o_result.eq(result.o_result),
            self.o_last.eq(result.o_last),
            result.o_ready.eq(self.o_ready),
        ]
        if spec.noise_bits:
            m.d.comb += [
                converter.noise.eq(self.noise),
                converter.noise_enable.eq(self.noise_enable),
            ]
        return m
