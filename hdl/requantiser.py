"""Common requantiser: an exact sum times a real number, rounded once and clamped.

:class:`golden.requantiser.Multiplier` defines the results: its ``apply`` with the limits of the
code, and the ``rescale`` of a fixed-point spec.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import In, Out

from golden.spec import check_int
from hdl.pipeline import StagedUnit

__all__ = ["MULT_WIDTH", "SHIFT_WIDTH", "Requantiser"]

#: Bits of the multiplier, and of the shift that follows it.
MULT_WIDTH = 16
SHIFT_WIDTH = 6

#: Step of the shift after which there are registers: few bits are left.
REGISTERED_DISTANCE = 16


class Requantiser(StagedUnit):
    """Computes ``clamp(RNE(total * mult / 2**shift))``, ties to even.

    With registers, ``mult`` and ``shift`` must not change while a sum is on its way.

    Parameters
    ----------
    total_width : int
        Bits of the sum, 2 to 48.
    bits : int
        Bits of the code, 1 to 32.
    signed_code : bool, optional
        Whether the code is two's complement.  Default: a port says so at run time.
    latency : int
        Registers on the way, 0 to 3.

    Members
    -------
    total : In(signed(total_width))
        Exact sum.
    mult : In(16)
        Unsigned multiplier.
    shift : In(6)
        Bits by which the product is shifted to the right, of which the golden model uses 0 to 47.
    has_sign : In(1)
        Whether the code is two's complement; absent if that was settled before.
    move : In(1)
        Take the sum, whose code is there after ``latency`` such cycles; absent without registers.
    code : Out(bits)
        Result; where it is unsigned, a negative sum gives 0.

    Raises
    ------
    TypeError
        If a parameter is of another type.
    ValueError
        If a parameter is out of range.
    """

    # First the multiplication and large steps of the shift are parted from the rest, then the two
    # from each other, and then the multiplication in itself.
    places = ((), ("scaled",), ("product", "scaled"), ("parts", "product", "scaled"))

    total: Signal
    mult: Signal
    shift: Signal
    has_sign: Signal
    code: Signal

    def __init__(
        self,
        total_width: int,
        bits: int,
        signed_code: bool | None = None,
        *,
        latency: int = 0,
    ):
        check_int("total_width", total_width, 2, 48)
        check_int("bits", bits, 1, 32)
        if signed_code is not None and not isinstance(signed_code, bool):
            raise TypeError(f"signed_code must be a bool or None, not {signed_code!r}")
        self.total_width = total_width
        self.bits = bits
        self.signed_code = signed_code
        kind = {None: "", True: "_signed", False: "_unsigned"}[signed_code]
        members: dict[str, Any] = {
            "total": In(signed(total_width)),
            "mult": In(MULT_WIDTH),
            "shift": In(SHIFT_WIDTH),
            "code": Out(bits),
        }
        if signed_code is None:
            members["has_sign"] = In(1)
        super().__init__(f"requantiser_s{total_width}_b{bits}{kind}", members, latency)

    def elaborate(self, platform):
        m = Module()
        bits = self.bits
        stages = self.stages(m)
        product = Signal(signed(self.total_width + MULT_WIDTH))
        m.d.comb += product.eq(stages.multiply("parts", self.total, self.mult))
        (product,) = stages.cut("product", value=product)

        # One fraction bit stays, the guard.  Large steps of the shift come first: what no later
        # step can bring down into the code need not be shifted any more, only be known of.
        value: Value = Cat(Const(0, 1), product).as_signed()
        sticky: Value = Const(0, 1)
        too_large: Value = Const(0, 1)
        negative: Value = product[-1]
        for step in reversed(range(SHIFT_WIDTH)):
            distance = 1 << step
            # The code, a sign, the guard, and what the steps to come can shift out.
            width = bits + 2 + distance - 1
            shifted = Signal(signed(len(value)), name=f"shifted_by_{distance}")
            low = Signal(name=f"sticky_{distance}")
            m.d.comb += [
                shifted.eq(Mux(self.shift[step], value >> distance, value)),
                low.eq(sticky | (self.shift[step] & value[:distance].any())),
            ]
            value, sticky = shifted, low
            if width < len(value):
                over = Signal(name=f"too_large_{distance}")
                cut = value[width - 1 :]
                m.d.comb += over.eq(too_large | (cut.any() & ~cut.all()))
                value, too_large = value[:width].as_signed(), over
            if distance == REGISTERED_DISTANCE:
                value, sticky, too_large, negative = stages.cut(
                    "scaled", value=value, sticky=sticky, too_large=too_large, negative=negative
                )

        integer = Signal(bits + 1)
        rounded = Signal(bits + 1)
        outside = Signal()
        two: Value = self.has_sign if self.signed_code is None else Const(self.signed_code, 1)
        m.d.comb += [
            integer.eq(value[1:]),
            # The largest integer may wrap to the smallest: both are outside.
            rounded.eq(integer + (value[0] & (sticky | integer[0]))),
            # An unsigned code has one bit more, but no negative numbers.
            outside.eq(too_large | (rounded[bits] ^ (two & rounded[bits - 1]))),
        ]

        largest = Cat(Const((1 << bits - 1) - 1, bits - 1), ~two)
        smallest = Cat(Const(0, bits - 1), two)
        with m.If(outside):
            m.d.comb += self.code.eq(Mux(negative, smallest, largest))
        with m.Else():
            m.d.comb += self.code.eq(rounded[:bits])
        return m
