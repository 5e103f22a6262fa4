"""Multiply-accumulate of bfloat16 numbers; :func:`golden.bfloat16_mac.dot` defines the results."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.bfloat16_mac import Bfloat16MacSpec
from hdl.abfp_arithmetic import Flow, checked_cuts, flow_ports, tile_latency
from hdl.abfp_float import LARGEST_FLOAT32, Bfloat16Rounder, Float32Adder
from hdl.abfp_units import check_flag
from hdl.hierarchy import place

__all__ = ["Bfloat16Datapath", "Bfloat16Mac", "Bfloat16Product"]


class Bfloat16Datapath:
    """The unit, for those who ask number systems for their arithmetic."""

    def __init__(self) -> None:
        self.spec = Bfloat16MacSpec()


class Bfloat16Product(wiring.Component):
    """Exact product of two bfloat16 numbers as a float32, after the rules of range.

    Parameters
    ----------
    latency : int
        Registers from operands to product: 0 if combinational; 1, or 3 for short clock periods.

    Members
    -------
    a, b : In(16)
        Operands; an exponent field of 0 or 255 reads as zero.
    product : Out(32)
    move, valid, o_valid
        See :func:`hdl.abfp_arithmetic.flow_ports`; absent if combinational.

    Raises
    ------
    ValueError
        If the latency is another.
    """

    #: Places that have registers, by latency.
    CUTS = {0: (), 1: ("product",), 3: ("parts", "significand", "product")}

    a: Signal
    b: Signal
    product: Signal

    def __init__(self, latency: int = 0) -> None:
        checked_cuts(self.CUTS, latency)
        self.latency = latency
        self.module_name = f"bfloat16_product_d{latency}"
        super().__init__({"a": In(16), "b": In(16), "product": Out(32)} | flow_ports(latency))

    def elaborate(self, platform):
        m = Module()
        flow = Flow(m, self, self.CUTS)
        operands = (self.a, self.b)
        fields = [operand[7:15] for operand in operands]
        is_zero = Signal()
        exponent = Signal(signed(10))
        significand = Signal(16)
        m.d.comb += [
            is_zero.eq(Cat((field == 0) | field.all() for field in fields).any()),
            exponent.eq(fields[0] + fields[1] - 127),
            significand.eq(
                flow.multiply("parts", *(Cat(x[:7], Const(1, 1)) for x in operands), width=4)
            ),
        ]
        tags: tuple[Any, ...] = (is_zero, exponent, self.a[15] ^ self.b[15])
        for place_name in ("parts", "significand"):
            tags = flow.cut(place_name, is_zero=tags[0], exponent=tags[1], negative=tags[2])
        is_zero, exponent, negative = tags
        (significand,) = flow.cut("significand", significand=significand)

        # From 1 to just below 4: the leading 1 is in one of two places.
        is_carried = significand[15]
        field = Signal(signed(11))
        product = Signal(32)
        m.d.comb += field.eq(exponent + is_carried)
        with m.If(~is_zero & (field > 0)):
            with m.If(field > 254):
                m.d.comb += product.eq(Cat(Const(LARGEST_FLOAT32, 31), negative))
            with m.Else():
                fraction = Mux(is_carried, significand[:15], Cat(Const(0, 1), significand[:14]))
                m.d.comb += product.eq(Cat(Const(0, 8), fraction, field[:8], negative))
        m.d.comb += self.product.eq(*flow.cut("product", product=product))
        return m


class Bfloat16Mac(wiring.Component):
    """Multiplies pairs of bfloat16 numbers, sums in float32, and rounds each sum to bfloat16.

    A float32 addition takes several cycles, and each needs the sum before it.  So that a pair can
    be taken in every cycle, :attr:`interleaved` dot products of one length are under way, whose
    pairs come in turns.

    Parameters
    ----------
    pipelined : bool
        Whether units have as many registers as they can, for short clock periods.

    Members
    -------
    i : In(stream.Signature({"activation", "weight", "last"}))
        One pair of each dot product in turn; ``last`` is with the last pair of each.
    o : Out(stream.Signature(16))
        Results, in the same turns, :attr:`latency` cycles after the last pair.

    Raises
    ------
    TypeError
        If ``pipelined`` is no bool.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, pipelined: bool = False) -> None:
        self.pipelined = check_flag("pipelined", pipelined)
        self.product_latency = tile_latency(Bfloat16Product.CUTS, pipelined)
        #: Dot products under way: as many as an addition takes cycles.
        self.interleaved = tile_latency(Float32Adder.CUTS, pipelined)
        # A register for the pair, and one for the result.
        self.latency = 1 + self.product_latency + self.interleaved + 1
        self.module_name = f"bfloat16_mac_d{self.latency}"
        pair = data.StructLayout({"activation": 16, "weight": 16, "last": 1})
        super().__init__({"i": In(stream.Signature(pair)), "o": Out(stream.Signature(16))})

    def elaborate(self, platform):
        m = Module()
        product = place(m, "product", Bfloat16Product(self.product_latency), platform)
        adder = place(m, "adder", Float32Adder(self.interleaved), platform)
        rounder = place(m, "rounder", Bfloat16Rounder(), platform)
        move = Signal()
        m.d.comb += move.eq(self.o.ready | ~self.o.valid)

        # Sums go round: whose turn it is, and who has the next pair; a pair waits for its turn.
        turn, wanted = (Signal(range(self.interleaved), name=name) for name in ("turn", "wanted"))
        pair = Signal.like(self.i.p, name="pair", reset_less=True)
        pair_valid = Signal()
        take = Signal()
        m.d.comb += [
            self.i.ready.eq(move & (turn == wanted)),
            take.eq(self.i.valid & self.i.ready),
        ]
        for number, event in ((turn, move), (wanted, take)):
            with m.If(event):
                m.d.sync += number.eq(Mux(number == self.interleaved - 1, 0, number + 1))
        with m.If(move):
            m.d.sync += pair_valid.eq(take)
        with m.If(take):
            m.d.sync += pair.eq(self.i.p)

        # Each sum starts with its first pair, which follows a last one of the same turn.
        last = pair.last
        for cycle in range(self.product_latency):
            register = Signal(name=f"last_{cycle}", reset_less=True)
            with m.If(move):
                m.d.sync += register.eq(last)
            last = register
        done = product.o_valid & last
        started = Signal(self.interleaved)
        m.d.comb += [
            product.a.eq(pair.activation),
            product.b.eq(pair.weight),
            product.valid.eq(pair_valid),
            product.move.eq(move),
            adder.move.eq(move),
            adder.valid.eq(1),
        ]
        # The oldest flag is that of the sum which comes out of the adder now.
        m.d.comb += [
            adder.a.eq(Mux(started[-1], adder.sum, 0)),
            adder.b.eq(Mux(product.o_valid, product.product, 0)),
        ]
        with m.If(move):
            m.d.sync += started.eq(
                Cat(Mux(product.o_valid, ~last, started[-1]), started[: self.interleaved - 1])
            )
        for cycle in range(self.interleaved):
            register = Signal(name=f"done_{cycle}")
            with m.If(move):
                m.d.sync += register.eq(done)
            done = register

        m.d.comb += rounder.total.eq(adder.sum)
        with m.If(move):
            m.d.sync += self.o.valid.eq(done)
            with m.If(done):
                m.d.sync += self.o.p.eq(rounder.result)
        return m
