"""Floating point of the ABFP accumulator: float32 addition, and rounding to bfloat16.

No subnormal results, no negative zero, saturation (spec/abfp.md, section 6):
:func:`golden.abfp_tile.add_saturated` and :func:`golden.bfloat16.to_bits` define the results.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.abfp_arithmetic import Flow, checked_cuts, flow_ports, normalised, shifted_right

__all__ = ["Bfloat16Rounder", "Float32Adder"]

#: Bits of the largest float32 and of the largest bfloat16, without sign.
LARGEST_FLOAT32 = 0x7F7FFFFF
LARGEST_BFLOAT16 = 0x7F7F


class Float32Adder(wiring.Component):
    """Float32 addition: RNE, subnormal sums are +0, sums out of range saturate.

    One addition a cycle, whatever the latency.

    Parameters
    ----------
    latency : int
        Registers from operands to sum: 0 if combinational; 3, or 7 for short clock periods.

    Members
    -------
    a, b : In(32)
        Finite numbers, also subnormal ones.
    sum : Out(32)
    move, valid, o_valid
        See :func:`hdl.abfp_arithmetic.flow_ports`; absent if combinational.

    Raises
    ------
    ValueError
        If the latency is another.
    """

    #: Places that have registers, by latency.
    CUTS = {
        0: (),
        3: ("aligned", "shifted", "sum"),
        7: ("ordered", "aligned", "total", "shifted", "top", "rounded", "sum"),
    }

    a: Signal
    b: Signal
    sum: Signal

    def __init__(self, latency: int = 0) -> None:
        checked_cuts(self.CUTS, latency)
        self.latency = latency
        self.module_name = f"float32_adder_d{latency}"
        super().__init__({"a": In(32), "b": In(32), "sum": Out(32)} | flow_ports(latency))

    def elaborate(self, platform):
        m = Module()
        flow = Flow(m, self, self.CUTS)
        swap = Signal()
        m.d.comb += swap.eq(self.b[:31] > self.a[:31])
        fields, significands, signs = [], [], []
        for name, chosen, other in (("large", self.a, self.b), ("small", self.b, self.a)):
            number = Signal(32, name=name)
            # A subnormal number has the exponent of the field 1, and no leading 1.
            is_normal = number[23:31].any()
            field = Signal(8, name=f"{name}_field")
            m.d.comb += [
                number.eq(Mux(swap, other, chosen)),
                field.eq(Cat(number[23] | ~is_normal, number[24:31])),
            ]
            fields.append(field)
            significands.append(Cat(number[:23], is_normal))
            signs.append(number[31])
        large_field, small_field, large, small, sign, other_sign = flow.cut(
            "ordered",
            large_field=fields[0],
            small_field=fields[1],
            large=significands[0],
            small=significands[1],
            sign=signs[0],
            other_sign=signs[1],
        )

        distance = Signal(8)
        is_far = Signal()
        m.d.comb += [
            distance.eq(large_field - small_field),
            is_far.eq(distance[5:].any()),
        ]
        # Three bits below: of what is shifted further, only whether there is any matters, and what
        # is far below the last place does not matter at all.
        near, lost = shifted_right(m, Cat(Const(0, 2), small), distance[:5], "aligned")
        addend = Signal(27)
        with m.If(~is_far):
            m.d.comb += addend.eq(Cat(lost, near))
        large, addend, difference, field, sign = flow.cut(
            "aligned",
            large=large,
            addend=addend,
            difference=sign ^ other_sign,
            field=large_field,
            sign=sign,
        )

        minuend = Cat(Const(0, 3), large)
        total = Signal(28)
        # With the ones' complement and a carry in, one adder does both.
        m.d.comb += total.eq(minuend + (Cat(addend, 0) ^ difference.replicate(28)) + difference)
        total, field, sign = flow.cut("total", total=total, field=field, sign=sign)

        nonzero: Value = total.any()
        coarse, many = normalised(m, total, "total", range(4, 2, -1))
        coarse, many, nonzero, field, sign = flow.cut(
            "shifted", coarse=coarse, many=many, nonzero=nonzero, field=field, sign=sign
        )
        top, few = normalised(m, coarse, "coarse", range(2, -1, -1))
        # The leading 1 itself is not needed any more.
        below, zeros, nonzero, field, sign = flow.cut(
            "top", below=top[:-1], zeros=Cat(few, many), nonzero=nonzero, field=field, sign=sign
        )

        round_up = Signal()
        exponent = Signal(signed(10))
        rounded = Signal(signed(33))
        m.d.comb += [
            round_up.eq(below[3] & (below[:3].any() | below[4])),
            exponent.eq(field + 1 - zeros),
            # A carry out of the fraction leaves zeros there, and makes the exponent larger.
            rounded.eq(Cat(below[4:], exponent).as_signed() + round_up),
        ]
        rounded, nonzero, sign = flow.cut("rounded", rounded=rounded, nonzero=nonzero, sign=sign)

        result = Signal(32)
        rounded_field = Signal(signed(10))
        m.d.comb += rounded_field.eq(rounded[23:])
        with m.If(nonzero & (rounded_field > 0)):
            with m.If(rounded_field > 254):
                m.d.comb += result.eq(Cat(Const(LARGEST_FLOAT32, 31), sign))
            with m.Else():
                m.d.comb += result.eq(Cat(rounded[:31], sign))
        m.d.comb += self.sum.eq(*flow.cut("sum", result=result))
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
