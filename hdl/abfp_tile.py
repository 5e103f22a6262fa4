"""Sequential units of the ABFP tile; :mod:`hdl.abfp` puts them together."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from golden.abfp_tile import AbfpTileSpec
from golden.spec import check_int
from hdl.abfp_float import Bfloat16Rounder, Float32Adder
from hdl.abfp_units import (
    GAIN_WIDTH,
    AbfpConverter,
    AbfpRescaler,
    check_flag,
    check_tile,
    label,
)
from hdl.hierarchy import place

__all__ = ["AbsMax", "DotTile", "NoiseSource", "RowStore", "TileOutput"]

#: Taps of x**32 + x**22 + x**2 + x + 1, whose register runs through all states but zero.
TAPS = 1 << 31 | 1 << 21 | 1 << 1 | 1 << 0


class AbsMax(wiring.Component):
    """Largest magnitude among bfloat16 numbers that come some at a time (section 7, step 1).

    Parameters
    ----------
    lanes : int
        Numbers of a cycle, a power of two from 1 to 1024.
    exp_only : bool
        Whether only exponents count.

    Members
    -------
    magnitudes : In(15 x lanes), or In(8 x lanes) with ``exp_only``
        Numbers without signs, or their exponent fields.  One with an exponent field of 0 or 255
        counts as zero.
    previous : In(15) or In(8)
        Largest so far.
    largest : Out(15) or Out(8)
        The same, these numbers included.
    bad : Out(1)
        Whether one of these is an infinity or NaN.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If ``lanes`` is out of range.
    """

    magnitudes: Any
    previous: Signal
    largest: Signal
    bad: Signal

    def __init__(self, lanes: int, exp_only: bool = False):
        check_int("lanes", lanes, 1, 1024)
        if lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes}")
        self.lanes = lanes
        self.width = 8 if check_flag("exp_only", exp_only) else 15
        self.module_name = f"abfp_abs_max_l{lanes}{'_exp' if exp_only else ''}"
        super().__init__(
            {
                "magnitudes": In(data.ArrayLayout(self.width, lanes)),
                "previous": In(self.width),
                "largest": Out(self.width),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        magnitudes = []
        bad = []
        for lane in range(self.lanes):
            field = self.magnitudes[lane][-8:]
            magnitude = Signal(self.width, name=f"magnitude_{lane}")
            m.d.comb += magnitude.eq(Mux((field == 0) | field.all(), 0, self.magnitudes[lane]))
            magnitudes.append(magnitude)
            bad.append(field.all())
        level = 0
        while len(magnitudes) > 1:
            level += 1
            larger = []
            for pair in range(len(magnitudes) // 2):
                first, second = magnitudes[2 * pair : 2 * pair + 2]
                winner = Signal(self.width, name=f"level_{level}_{pair}")
                m.d.comb += winner.eq(Mux(first > second, first, second))
                larger.append(winner)
            magnitudes = larger
        (last,) = magnitudes
        m.d.comb += [
            self.largest.eq(Mux(last > self.previous, last, self.previous)),
            self.bad.eq(Cat(bad).any()),
        ]
        return m


class DotTile(wiring.Component):
    """One row of the tile: dot product of codes that come some at a time, exact.

    Parameters
    ----------
    spec : AbfpTileSpec
        Widths.
    lanes : int
        Products of a cycle.

    Members
    -------
    weights, activations : In(signed x lanes)
        Codes.
    enable : In(1)
        Whether there are some in this cycle.
    first : In(1)
        Whether they are the first of their vectors.
    total : Out(signed(sum_bits))
        Sum of what came up to the last cycle, since the first.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If ``lanes`` is not between 1 and the tile width.
    """

    weights: Any
    activations: Any
    enable: Signal
    first: Signal
    total: Signal

    def __init__(self, spec: AbfpTileSpec, lanes: int):
        self.spec = check_tile(spec)
        check_int("lanes", lanes, 1, spec.tile)
        self.lanes = lanes
        self.module_name = (
            f"abfp_dot_w{spec.weight_bits}_x{spec.activation_bits}_n{spec.tile}_l{lanes}"
        )
        super().__init__(
            {
                "weights": In(data.ArrayLayout(signed(spec.weight_bits), lanes)),
                "activations": In(data.ArrayLayout(signed(spec.activation_bits), lanes)),
                "enable": In(1),
                "first": In(1),
                "total": Out(signed(spec.sum_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        dot = Signal(signed(self.spec.sum_bits))
        m.d.comb += dot.eq(
            sum(self.weights[lane] * self.activations[lane] for lane in range(self.lanes))
        )
        with m.If(self.enable):
            m.d.sync += self.total.eq(Mux(self.first, 0, self.total) + dot)
        return m


class NoiseSource(wiring.Component):
    """Seeded noise words: a Galois register of 32 bits that makes ``bits`` steps for each.

    Parameters
    ----------
    bits : int
        Bits of a word, 1 to 16.

    Members
    -------
    seed : In(32)
        State to start from; 0, which the register would never leave, counts as 1.
    load : In(1)
        Start from the seed.
    step : In(1)
        Make the next word.
    word : Out(bits)
        Low bits of the state.

    Raises
    ------
    TypeError
        If ``bits`` is no int.
    ValueError
        If it is out of range.
    """

    seed: Signal
    load: Signal
    step: Signal
    word: Signal

    def __init__(self, bits: int):
        check_int("bits", bits, 1, 16)
        self.bits = bits
        self.module_name = f"abfp_noise_r{bits}"
        super().__init__({"seed": In(32), "load": In(1), "step": In(1), "word": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        state = Signal(32, init=1)
        following = state
        for count in range(self.bits):
            stepped = Signal(32, name=f"after_{count + 1}")
            m.d.comb += stepped.eq(Cat(following[1:], Const(0, 1)) ^ Mux(following[0], TAPS, 0))
            following = stepped
        with m.If(self.load):
            m.d.sync += state.eq(Mux(self.seed == 0, 1, self.seed))
        with m.Elif(self.step):
            m.d.sync += state.eq(following)
        m.d.comb += self.word.eq(state[: self.bits])
        return m


class RowStore(wiring.Component):
    """Memory that is written from outside and read in order; a flow may replace it by a macro.

    A word is there one cycle after its address, and stays until another one is read.

    Parameters
    ----------
    width, depth : int
        Bits of a word, and words.

    Members
    -------
    read_en, read_address : In
        Word to read.
    value : Out(width)
        The word.
    write_en, write_address, write_value : In
        Word to write.

    Raises
    ------
    TypeError
        If a parameter is no int.
    ValueError
        If it is not positive.
    """

    read_en: Signal
    read_address: Signal
    value: Signal
    write_en: Signal
    write_address: Signal
    write_value: Signal

    def __init__(self, width: int, depth: int):
        check_int("width", width, 1, None)
        check_int("depth", depth, 1, None)
        self.width = width
        self.depth = depth
        # One word has an address too.
        self.address_bits = max((depth - 1).bit_length(), 1)
        self.module_name = f"abfp_store_w{width}_d{depth}"
        super().__init__(
            {
                "read_en": In(1),
                "read_address": In(self.address_bits),
                "value": Out(width),
                "write_en": In(1),
                "write_address": In(self.address_bits),
                "write_value": In(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words: Any = Memory(shape=self.width, depth=1 << self.address_bits, init=[])
        m.submodules.words = words
        read, write = words.read_port(), words.write_port()
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.read_address),
            self.value.eq(read.data),
            write.en.eq(self.write_en),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_value),
        ]
        return m


class TileOutput(wiring.Component):
    """From dot products to results: ADC, rescaler, accumulator, bias, bfloat16; a row a cycle.

    Parameters
    ----------
    spec : AbfpTileSpec
        The tile.
    rows : int
        Accumulators, at least 1.

    Members
    -------
    total : In(signed(sum_bits))
        Dot product of a row.
    row : In
        Its number.
    first, final : In(1)
        Whether it is of the first, of the last tile of a product.
    activation_scale : In(15) or In(8)
        Scale of its activations.
    valid : In(1)
        Whether it is there.
    move : Out(1)
        Whether everything moves in this cycle, and the dot product is taken.
    weight_scale : In(15) or In(8)
        Scale of the row's weights, one move after the dot product.
    bias : In(32)
        Bias of the row, a finite float32, three moves after the dot product.
    bias_row : Out
        Row whose bias is wanted one move later.
    gain : In(3)
        log2 G, 0 to 4.
    noise, noise_enable : In
        Noise of this conversion; absent without noise.
    saturated : Out(1)
        Whether a conversion in this cycle is one that saturates.
    o_valid, o_result, o_last, o_ready
        Stream of results.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If ``rows`` is not positive.
    """

    total: Signal
    row: Signal
    first: Signal
    final: Signal
    activation_scale: Signal
    valid: Signal
    move: Signal
    weight_scale: Signal
    bias: Signal
    bias_row: Signal
    gain: Signal
    noise: Signal
    noise_enable: Signal
    saturated: Signal
    o_valid: Signal
    o_result: Signal
    o_last: Signal
    o_ready: Signal

    def __init__(self, spec: AbfpTileSpec, rows: int):
        self.spec = check_tile(spec)
        check_int("rows", rows, 1, None)
        self.rows = rows
        self.row_bits = max((rows - 1).bit_length(), 1)
        self.module_name = f"abfp_output_{label(spec)}_rows{rows}"
        scale = 8 if spec.exp_only else 15
        members: dict[str, Any] = {
            "total": In(signed(spec.sum_bits)),
            "row": In(self.row_bits),
            "first": In(1),
            "final": In(1),
            "activation_scale": In(scale),
            "valid": In(1),
            "move": Out(1),
            "weight_scale": In(scale),
            "bias": In(32),
            "bias_row": Out(self.row_bits),
            "gain": In(GAIN_WIDTH),
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
        move = self.move
        m.d.comb += move.eq(self.o_ready | ~self.o_valid)

        converter = place(m, "converter", AbfpConverter(spec), platform)
        m.d.comb += [
            converter.total.eq(self.total),
            converter.gain.eq(self.gain),
            self.saturated.eq(move & self.valid & converter.saturated),
        ]
        if spec.noise_bits:
            m.d.comb += [
                converter.noise.eq(self.noise),
                converter.noise_enable.eq(self.noise_enable),
            ]
        code = Signal(signed(spec.adc_bits))
        code_scale = Signal.like(self.activation_scale)
        code_row, partial_row, total_row = (
            Signal(self.row_bits, name=name) for name in ("code_row", "partial_row", "total_row")
        )
        code_valid, partial_valid, total_valid = (
            Signal(name=name) for name in ("code_valid", "partial_valid", "total_valid")
        )
        code_first, partial_first = Signal(), Signal()
        code_final, partial_final = Signal(), Signal()

        rescaler = place(m, "rescaler", AbfpRescaler(spec), platform)
        m.d.comb += [
            rescaler.code.eq(code),
            rescaler.weight_scale.eq(self.weight_scale),
            rescaler.activation_scale.eq(code_scale),
            rescaler.gain.eq(self.gain),
        ]
        partial = Signal(16)

        accumulators = Array(Signal(32, name=f"accumulator_{row}") for row in range(self.rows))
        adder = place(m, "adder", Float32Adder(), platform)
        total = Signal(32)
        m.d.comb += [
            adder.a.eq(Mux(partial_first, 0, accumulators[partial_row])),
            adder.b.eq(Cat(Const(0, 16), partial)),
            self.bias_row.eq(partial_row),
        ]

        bias_adder = place(m, "bias_adder", Float32Adder(), platform)
        rounder = place(m, "rounder", Bfloat16Rounder(), platform)
        m.d.comb += [
            bias_adder.a.eq(total),
            bias_adder.b.eq(self.bias),
            rounder.total.eq(bias_adder.sum),
        ]

        with m.If(move):
            m.d.sync += [
                code_valid.eq(self.valid),
                partial_valid.eq(code_valid),
                total_valid.eq(partial_valid & partial_final),
                self.o_valid.eq(total_valid),
                code.eq(converter.code),
                code_scale.eq(self.activation_scale),
                code_row.eq(self.row),
                code_first.eq(self.first),
                code_final.eq(self.final),
                partial.eq(rescaler.partial),
                partial_row.eq(code_row),
                partial_first.eq(code_first),
                partial_final.eq(code_final),
                total.eq(adder.sum),
                total_row.eq(partial_row),
                self.o_result.eq(rounder.result),
                self.o_last.eq(total_row == self.rows - 1),
            ]
            with m.If(partial_valid):
                m.d.sync += accumulators[partial_row].eq(adder.sum)
        return m
