"""Floating point of the ABFP accumulator: float32 addition, and rounding to bfloat16.

No subnormal results, no negative zero, saturation (spec/abfp.md, section 6):
:func:`golden.abfp_tile.add_saturated` and :func:`golden.bfloat16.to_bits` define the results.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.abfp_arithmetic import normalised, shifted_right

__all__ = ["Bfloat16Rounder", "Float32Adder"]

#: Bits of the largest float32 and of the largest bfloat16, without sign.
LARGEST_FLOAT32 = 0x7F7FFFFF
LARGEST_BFLOAT16 = 0x7F7F


class Float32Adder(wiring.Component):
    """Combinational float32 addition: RNE, subnormal sums are +0, sums out of range saturate.

    Members
    -------
    a, b : In(32)
        Finite numbers, also subnormal ones.
    sum : Out(32)
    """

    a: Signal
    b: Signal
    sum: Signal

    module_name = "float32_adder"

    def __init__(self) -> None:
        super().__init__({"a": In(32), "b": In(32), "sum": Out(32)})

    def elaborate(self, platform):
        m = Module()
        large = Signal(32)
        small = Signal(32)
        with m.If(self.a[:31] >= self.b[:31]):
            m.d.comb += [large.eq(self.a), small.eq(self.b)]
        with m.Else():
            m.d.comb += [large.eq(self.b), small.eq(self.a)]

        # A subnormal number has the exponent of the field 1, and no leading 1.
        fields = []
        significands = []
        for name, number in (("large", large), ("small", small)):
            field = Signal(8, name=f"{name}_field")
            significand = Signal(24, name=f"{name}_significand")
            is_normal = number[23:31].any()
            m.d.comb += [
                field.eq(Cat(number[23] | ~is_normal, number[24:31])),
                significand.eq(Cat(number[:23], is_normal)),
            ]
            fields.append(field)
            significands.append(significand)

        distance = Signal(8)
        is_far = Signal()
        m.d.comb += [
            distance.eq(fields[0] - fields[1]),
            is_far.eq(distance[5:].any()),
        ]
        # Three bits below: of what is shifted further, only whether there is any matters, and what
        # is far below the last place does not matter at all.
        wide = Cat(Const(0, 2), significands[1])
        near, lost = shifted_right(m, wide, distance[:5], "aligned")
        addend = Signal(27)
        with m.If(~is_far):
            m.d.comb += addend.eq(Cat(lost, near))

        total = Signal(28)
        minuend = Cat(Const(0, 3), significands[0])
        is_difference = large[31] ^ small[31]
        m.d.comb += total.eq(Mux(is_difference, minuend - addend, minuend + addend))
        top, zeros = normalised(m, total, "total")
        round_up = Signal()
        exponent = Signal(signed(10))
        rounded = Signal(signed(33))
        field = Signal(signed(10))
        m.d.comb += [
            round_up.eq(top[3] & (top[:3].any() | top[4])),
            exponent.eq(fields[0] + 1 - zeros),
            # A carry out of the fraction leaves zeros there, and makes the exponent larger.
            rounded.eq(Cat(top[4:-1], exponent).as_signed() + round_up),
            field.eq(rounded[23:].as_signed()),
        ]
        with m.If(total.any() & (field > 0)):
            with m.If(field > 254):
                m.d.comb += self.sum.eq(Cat(Const(LARGEST_FLOAT32, 31), large[31]))
            with m.Else():
                m.d.comb += self.sum.eq(Cat(rounded[:31], large[31]))
        return m


class Bfloat16Rounder(wiring.Component):
    """Combinational rounding of an accumulator to bfloat16: RNE, saturating.

    Members
    -------
    total : In(32)
        A finite float32 that is not subnormal.
    result : Out(16)
    """

    total: Signal
    result: Signal

    module_name = "bfloat16_rounder"

    def __init__(self) -> None:
        super().__init__({"total": In(32), "result": Out(16)})

    def elaborate(self, platform):
        m = Module()
        magnitude = Signal(15)
        m.d.comb += magnitude.eq(
            self.total[16:31] + (self.total[15] & (self.total[:15].any() | self.total[16]))
        )
        with m.If(magnitude[7:].all()):
            m.d.comb += self.result.eq(Cat(Const(LARGEST_BFLOAT16, 15), self.total[31]))
        with m.Else():
            m.d.comb += self.result.eq(Cat(magnitude, self.total[31]))
        return m
