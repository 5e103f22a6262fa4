"""Tapered fixed point (TENT): decoder, product and encoder.

:class:`golden.tapered.TaperedSpec` defines the results; section and pitfall numbers below are
those of the format's specification, ``docs/tapered.md``.

A decoded operand is either a plain integer, or sign, significand and shift.  In the second form
only the few significant bits of a code are multiplied and the product is shifted, instead of
multiplying integers that are mostly zeros; see :class:`golden.tapered.TaperedMacSpec`.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.mac import Operand
from golden.spec import instance_of
from golden.tapered_mac import TaperedMacSpec
from hdl.pipeline import StagedUnit

__all__ = ["TaperedDatapath", "TaperedDecoder", "TaperedEncoder", "TaperedProduct", "operand_shape"]

#: Bits of an operand that are multiplied at a time if a product of integers has registers.
PART_WIDTH = 6


def operand_shape(spec: TaperedMacSpec) -> ShapeLike:
    """Shape of a decoded operand; all bits zero is the value zero."""
    if spec.form == "integer":
        return signed(spec.operand_width)
    return data.StructLayout(
        {
            "significand": unsigned(spec.significand_width),
            "shift": unsigned(spec.shift_width),
            "negative": unsigned(1),
        }
    )


def _clamp(value: Signal, low: int, high: int) -> Value:
    """``value`` limited to ``low`` .. ``high``, with the comparisons that can matter."""
    limited: Value = value
    if high < (1 << len(value)) - 1:
        limited = Mux(value > high, high, limited)
    if low > 0:
        limited = Mux(value < low, low, limited)
    return limited


class TaperedDecoder(wiring.Component):
    """Combinational decoder of a code, with the longest run set at run time.

    Members
    -------
    code : In(spec.bits)
        Any bit pattern.
    run_limit : In(spec.run_width)
        Longest run IS, minus one.  IS = 1 is decoded as IS = 2: the codes are the same with a
        scale exponent one less, and the encoder's ``scale_exp`` accounts for it.  Values
        outside ``spec.runs`` act as the nearest one inside.
    operand : Out(operand_shape(spec))
        Operand in units of 2**-(spec.bits - 2).

    Parameters
    ----------
    spec : TaperedMacSpec
        Widths, runs and form of the operand.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.tapered.TaperedMacSpec`.
    """

    code: Signal
    run_limit: Signal
    operand: Any

    def __init__(self, spec: TaperedMacSpec):
        instance_of("spec", spec, TaperedMacSpec)
        self.spec = spec
        self.module_name = f"tapered_decoder_{spec.label}"
        super().__init__(
            {
                "code": In(spec.bits),
                "run_limit": In(spec.run_width),
                "operand": Out(operand_shape(spec)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        bits = spec.bits
        lowest, highest = max(spec.min_run, 2) - 1, spec.max_run_limit

        # Work on the magnitude; the negative of a code is its two's complement.  Only the most
        # negative code has no positive partner: its magnitude keeps the top bit.
        negative = Signal()
        magnitude = Signal(bits)
        m.d.comb += [
            negative.eq(self.code[-1]),
            magnitude.eq(Mux(negative, -self.code.as_signed(), self.code)[:bits]),
        ]

        # limit = IS - 1 within the runs that this hardware was built for.
        limit = Signal(range(highest + 1))
        m.d.comb += limit.eq(_clamp(self.run_limit, lowest, highest))

        # The integer part is the number of leading ones, at most `limit`.
        field = magnitude[: bits - 1]
        integer = Signal(range(highest + 2))
        fraction = Signal(bits - 1)
        m.d.comb += fraction.eq(field << 1)  # no ones: only the terminator goes
        for run in range(1, highest + 1):
            with m.If(field[bits - 1 - run :].all() & (limit >= run)):
                with m.If(limit == run):  # the longest run has no terminator
                    m.d.comb += fraction.eq(field << run)
                with m.Else():
                    m.d.comb += fraction.eq(field << run + 1)
                m.d.comb += integer.eq(run)
        with m.If(magnitude[-1]):  # the most negative code is exactly -IS
            m.d.comb += [integer.eq(limit + 1), fraction.eq(0)]

        # The lowest fraction bit is always zero, because IS >= 2 here.
        value = Signal(bits - 2 + len(integer))
        m.d.comb += value.eq(Cat(fraction[1:], integer))

        if spec.form == "integer":
            m.d.comb += self.operand.eq(Mux(negative, -value, value))
            return m

        # Larger values have fewer significant bits: everything shifted out here is zero.
        shift = Signal(spec.shift_width)
        for low in range(1, highest + 2):
            with m.If(integer >= low):
                m.d.comb += shift.eq(spec.shift_of(low))
        m.d.comb += [
            self.operand.significand.eq(value >> (shift << spec.shift_step - 1)),
            self.operand.shift.eq(shift),
            self.operand.negative.eq(negative),
        ]
        return m


class TaperedProduct(StagedUnit):
    """Product of two operands as ``term + carry``.

    Members
    -------
    activation, weight : In(operand_shape(spec))
        Operands.
    term : Out(signed(spec.product_width))
        Product, or its one's complement.
    carry : Out(1)
        One where ``term`` is a one's complement; absent in the integer form.
    move : In(1)
        When the registers load; absent without any.

    Parameters
    ----------
    spec : TaperedMacSpec
        Widths and form of the operands.
    latency : int
        Registers on the way, 0 or 1.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.tapered_mac.TaperedMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ((), ("product",))

    activation: Any
    weight: Any
    term: Signal
    carry: Signal

    def __init__(self, spec: TaperedMacSpec, *, latency: int = 0):
        instance_of("spec", spec, TaperedMacSpec)
        self.spec = spec
        members = {
            "activation": In(operand_shape(spec)),
            "weight": In(operand_shape(spec)),
            "term": Out(signed(spec.product_width)),
        }
        if spec.form != "integer":
            members["carry"] = Out(1)
        super().__init__(f"tapered_product_{spec.label}", members, latency)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        stages = self.stages(m, reset_less=False)
        if spec.form == "integer":
            m.d.comb += self.term.eq(
                stages.multiply("product", self.activation, self.weight, width=PART_WIDTH)
            )
            return m

        product = Signal(2 * spec.significand_width)
        m.d.comb += product.eq(self.activation.significand * self.weight.significand)
        if spec.max_shift == 1:
            # Two shifts by one step; the second one is needed where both operands have one, which
            # is seldom, so that little moves there.
            steps = [
                self.activation.shift | self.weight.shift,
                self.activation.shift & self.weight.shift,
            ]
            shift = Signal(len(steps))
            m.d.comb += shift.eq(Cat(steps))
        else:
            shift = Signal(range(2 * spec.max_shift + 1))
            m.d.comb += shift.eq(self.activation.shift + self.weight.shift)
        # A zero is not negated: it would turn all bits of the sum's other operand for nothing.
        negative = self.activation.negative ^ self.weight.negative
        carry = negative & self.activation.significand.any()
        product, shift, carry = stages.cut(
            "product", significand=product, shift=shift, negative=carry
        )
        # The largest product fits product_width - 1 bits, whatever its shift.
        magnitude = Signal(spec.product_width - 1)
        step = spec.shift_step
        if spec.max_shift == 1:
            once = Signal(len(product) + step)
            m.d.comb += [
                once.eq(Mux(shift[0], product << step, product)),
                magnitude.eq(Mux(shift[1], once << step, once)),
            ]
        else:
            m.d.comb += magnitude.eq(product << (shift << step - 1))
        m.d.comb += [
            self.carry.eq(carry),
            self.term.eq(magnitude ^ self.carry.replicate(spec.product_width)),
        ]
        return m


class TaperedEncoder(StagedUnit):
    """Rounding of a quire to a code: guard and sticky bits, ties to even code.

    Members
    -------
    total : In(signed(spec.sum_width))
        Exact sum of products and bias, in units of 2**(scale_exp - 2 * (spec.bits - 1)).
    run_limit : In(spec.run_width)
        Longest run IS of the result, minus one; 0 to spec.bits - 1, larger acts as that.
    scale_exp : In(signed(spec.scale_width))
        Scale exponent of the sum: those of both operands, less that of the result, less one for
        each operand with IS = 1.
    move : In(1)
        When the registers load; absent without any.
    code : Out(spec.bits)
        Result.

    Parameters
    ----------
    spec : TaperedMacSpec
        Widths.
    latency : int
        Registers on the way, 0 to 2; the settings must not change meanwhile.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.tapered_mac.TaperedMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ((), ("aligned",), ("aligned", "shifted"))

    total: Signal
    run_limit: Signal
    scale_exp: Signal
    code: Signal

    def __init__(self, spec: TaperedMacSpec, *, latency: int = 0):
        instance_of("spec", spec, TaperedMacSpec)
        self.spec = spec
        members = {
            "total": In(signed(spec.sum_width)),
            "run_limit": In(spec.run_width),
            "scale_exp": In(signed(spec.scale_width)),
            "code": Out(spec.bits),
        }
        super().__init__(f"tapered_encoder_b{spec.bits}_s{spec.sum_width}", members, latency)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        bits = spec.bits

        # Align so that the binary point no longer depends on the scale; nothing is lost.
        lowest = 1 << spec.scale_width - 1
        fraction_width = 2 * (bits - 1) + lowest
        amount = Signal(spec.scale_width)
        aligned = Signal(signed(spec.sum_width + 2 * lowest - 1))
        m.d.comb += [
            amount.eq(self.scale_exp + lowest),
            aligned.eq(self.total << amount),
        ]
        stages = self.stages(m)
        (aligned,) = stages.cut("aligned", total=aligned)
        negative = Signal()
        integer = Signal(signed(len(aligned) - fraction_width))
        run = Signal(len(integer))  # length of the result's run, minus one
        m.d.comb += [
            negative.eq(aligned[-1]),
            integer.eq(aligned[fraction_width:].as_signed()),
            run.eq(Mux(negative, ~integer, integer)),
        ]

        limit = Signal(range(bits))
        too_large = Signal()
        m.d.comb += [
            limit.eq(_clamp(self.run_limit, 0, bits - 1)),
            # On the whole integer part, before it is cut (pitfall 4).
            too_large.eq(run > limit),
        ]

        # bits - 1 fraction bits, a guard bit and a sticky bit: IS = 1 needs all (pitfall 2).
        fraction = Signal(bits + 1)
        kept = aligned[fraction_width - bits : fraction_width]
        dropped = aligned[: fraction_width - bits]  # every dropped bit counts (pitfall 3)
        m.d.comb += fraction.eq(Cat(dropped.any(), kept))

        # Start and terminator of the run; the longest run has no terminator (pitfall 1).
        # Zeros below catch what the run pushes out: at most bits - 2 places with a terminator,
        # one more without, but then a zero stands in for it.
        word = Signal(signed(2 * bits + 1))
        shifted = Signal(signed(2 * bits + 1))
        below = Const(0, bits - 2)
        with m.If(run == limit):
            m.d.comb += word.eq(Cat(below, Const(0, 1), fraction, ~negative))
        with m.Else():
            m.d.comb += word.eq(Cat(below, fraction, negative, ~negative))
        m.d.comb += shifted.eq(word >> run[: len(limit)])
        shifted, too_large, negative = stages.cut(
            "shifted", word=shifted, too_large=too_large, negative=negative
        )

        top = Signal(bits)
        guard = Signal()
        sticky = Signal()
        rounded = Signal(bits + 1)
        m.d.comb += [
            top.eq(shifted[bits + 1 :]),
            guard.eq(shifted[bits]),
            sticky.eq(shifted[:bits].any()),
            rounded.eq(top + (guard & (sticky | top[0]))),
        ]

        # The word starts with the complement of the sign; a code starts with the sign.
        largest = Cat((~negative).replicate(bits - 1), negative)
        with m.If(too_large | rounded[-1]):
            m.d.comb += self.code.eq(largest)
        with m.Else():
            m.d.comb += self.code.eq(Cat(rounded[: bits - 1], ~rounded[bits - 1]))
        return m


class TaperedDatapath:
    """Units of tapered fixed point for the array; see :class:`hdl.datapath.Datapath`."""

    def __init__(self, spec: TaperedMacSpec):
        instance_of("spec", spec, TaperedMacSpec)
        self.spec = spec
        self.encoder_config: dict[str, ShapeLike] = {
            "run_limit": spec.run_width,
            "scale_exp": signed(spec.scale_width),
        }

    def operand(self, role: Operand) -> ShapeLike:
        """Shape of a decoded operand."""
        return operand_shape(self.spec)

    def decoder_config(self, role: Operand) -> dict[str, ShapeLike]:
        """Longest run."""
        return {"run_limit": self.spec.run_width}

    def decoder(self, role: Operand) -> TaperedDecoder:
        """Make the run-length decoder."""
        return TaperedDecoder(self.spec)

    @property
    def product_latency(self) -> int:
        """One, between multiplier and shifter, where the two are too long for one cycle."""
        return int(self.spec.bits > 5)

    def product(self, *, latency: int = 0) -> TaperedProduct:
        """Make the multiplier."""
        return TaperedProduct(self.spec, latency=latency)

    def encoder_latency(self, *, pipelined: bool) -> int:
        """Count registers in the encoder of a shell."""
        return 2 if pipelined else 0

    def encoder(self, *, latency: int = 0) -> TaperedEncoder:
        """Make the rounding encoder."""
        return TaperedEncoder(self.spec, latency=latency)
