"""DyBit-style numbers, reconstructed: decoder, product and encoder.

:class:`golden.dybit.DybitSpec` defines the results; section numbers below are those of the
format's specification.  A decoded operand is sign, significand and shift, so that only the few
significant bits of a code are multiplied, and the product is shifted.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.dybit import magnitudes
from golden.dybit_mac import DybitMacSpec
from golden.mac import Operand
from golden.spec import instance_of
from hdl.pipeline import StagedUnit, Stages
from hdl.requantiser import MULT_WIDTH, REGISTERED_DISTANCE, SHIFT_WIDTH

__all__ = [
    "DybitDatapath",
    "DybitDecoder",
    "DybitEncoder",
    "DybitProduct",
    "decode_magnitude",
    "encode_unrounded",
    "operand_shape",
]

#: Magnitudes of up to this many bits are decoded by a table, which is faster there and about as
#: large: 0.14 against 0.20 ns and 19 against 17 um2 at 4 bits (bench/bench_dybit.py).
TABLE_WIDTH = 4

#: Places of registers in an encoder by latency.
ENCODER_PLACES = (
    (),
    ("scaled",),
    ("product", "scaled"),
    ("parts", "product", "scaled"),
    ("complement", "parts", "product", "scaled"),
    ("complement", "parts", "product", "scaled", "number"),
)


def operand_shape(spec: DybitMacSpec, role: Operand) -> data.StructLayout:
    """Shape of a decoded operand; all bits zero is the value zero, and nothing else is."""
    return data.StructLayout(
        {
            "significand": unsigned(spec.significand_bits(role)),
            "shift": unsigned(spec.max_shift(role).bit_length()),
            "negative": unsigned(1),
        }
    )


def decode_magnitude(m: Module, field: Value, *, table: bool) -> tuple[Value, Value]:
    """Significand and shift of a magnitude code (section 1), by a table or by a shifter."""
    width = len(field)
    if width == 1:
        return field, Const(0, 0)
    significand = Signal(width - 1)
    shift = Signal(range(width + 1))
    if table:
        with m.Switch(field):
            for code, magnitude in enumerate(magnitudes(width).tolist()):
                amount = max(magnitude.bit_length() - (width - 1), 0)
                with m.Case(code):
                    m.d.comb += [significand.eq(magnitude >> amount), shift.eq(amount)]
        return significand, shift

    # The shift is the number of leading ones.  The last of them and the terminator leave to the
    # left; from one leading one on, a hidden one stands where the terminator was.
    rest = Signal(width - 1)
    m.d.comb += rest.eq(field)
    for ones in range(1, width + 1):
        with m.If(field[width - ones :].all()):
            m.d.comb += [shift.eq(ones), rest.eq(field << ones - 1)]
    m.d.comb += significand.eq(rest | field[-1] << width - 2)
    return significand, shift


class DybitDecoder(wiring.Component):
    """Combinational decoder of a code.

    Members
    -------
    code : In(spec.code_bits(role))
        Any bit pattern; -0 is read as 0.
    has_sign : In(1)
        Whether the code has a sign; absent for weights, which do.
    operand : Out(operand_shape(spec, role))
        Operand.  An activation is in units of the last place of an unsigned code, which is half of
        that of a signed one.

    Parameters
    ----------
    spec : DybitMacSpec
        Widths.
    role : str
        ``"activation"`` or ``"weight"``.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_mac.DybitMacSpec`.
    """

    code: Signal
    has_sign: Signal
    operand: Any

    def __init__(self, spec: DybitMacSpec, role: Operand):
        instance_of("spec", spec, DybitMacSpec)
        self.spec = spec
        self.role = role
        width = spec.magnitude_bits(role)
        self.table = spec.table and width <= TABLE_WIDTH
        form = "" if spec.table else "_shifter"
        self.module_name = f"dybit_{role}_decoder_b{spec.code_bits(role)}{form}"
        members: dict[str, Any] = {
            "code": In(spec.code_bits(role)),
            "operand": Out(operand_shape(spec, role)),
        }
        if role == "activation":
            members["has_sign"] = In(1)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        width = self.spec.magnitude_bits(self.role)
        field = Signal(width)
        below = self.code[:-1]
        negative = Signal()
        if self.role == "activation":
            # A signed code and a zero, read as an unsigned code, is twice the signed one.
            m.d.comb += [
                field.eq(Mux(self.has_sign, below << 1, self.code)),
                negative.eq(self.code[-1] & self.has_sign),
            ]
        else:
            m.d.comb += [field.eq(below), negative.eq(self.code[-1])]
        significand, shift = decode_magnitude(m, field, table=self.table)
        m.d.comb += [
            self.operand.significand.eq(significand),
            self.operand.shift.eq(shift),
            self.operand.negative.eq(negative & below.any()),
        ]
        return m


class DybitProduct(StagedUnit):
    """Product of two operands as ``term + carry``.

    Members
    -------
    activation, weight : In(operand_shape(spec, role))
        Operands.
    term : Out(signed(spec.product_width))
        Product, or its one's complement.
    carry : Out(1)
        One where ``term`` is a one's complement.
    move : In(1)
        When the registers load; absent without any.

    Parameters
    ----------
    spec : DybitMacSpec
        Widths.
    latency : int
        Registers on the way, 0 or 1.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_mac.DybitMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ((), ("product",))

    activation: Any
    weight: Any
    term: Signal
    carry: Signal

    def __init__(self, spec: DybitMacSpec, *, latency: int = 0):
        instance_of("spec", spec, DybitMacSpec)
        self.spec = spec
        members = {
            "activation": In(operand_shape(spec, "activation")),
            "weight": In(operand_shape(spec, "weight")),
            "term": Out(signed(spec.product_width)),
            "carry": Out(1),
        }
        super().__init__(f"dybit_product_{spec.label}", members, latency)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        stages = self.stages(m, reset_less=False)
        product = Signal(spec.significand_bits("activation") + spec.significand_bits("weight"))
        shift = Signal(range(spec.max_shift("activation") + spec.max_shift("weight") + 1))
        m.d.comb += [
            product.eq(self.activation.significand * self.weight.significand),
            shift.eq(self.activation.shift + self.weight.shift),
        ]
        # A zero is not negated: it would turn all bits of the sum's other operand for nothing.
        negative = self.activation.negative ^ self.weight.negative
        carry = negative & self.activation.significand.any()
        product, shift, carry = stages.cut(
            "product", significand=product, shift=shift, negative=carry
        )
        # The largest product fits product_width - 1 bits, whatever its shift.
        magnitude = Signal(spec.product_width - 1)
        m.d.comb += [
            magnitude.eq(product << shift),
            self.carry.eq(carry),
            self.term.eq(magnitude ^ self.carry.replicate(spec.product_width)),
        ]
        return m


def encode_unrounded(
    m: Module, stages: Stages, total: Signal, mult: Signal, shift: Signal, bits: int
) -> tuple[Any, Any]:
    """Whether a scaled sum is negative, and its magnitude's code and guard bit (section 2).

    Parameters
    ----------
    m : Module
        Gets the logic.
    stages : Stages
        Registers at places of ``ENCODER_PLACES``.
    total, mult, shift : Signal
        The sum is ``total * mult / 2**(shift - 1)`` last places of an unsigned code.
    bits : int
        Bits of an unsigned code.  Any shorter code is the upper part of this one, and the next bit
        is its guard: a code with a zero appended means twice the number (chosen).

    Returns
    -------
    negative, number : Signal
        The unrounded code from bit 1 on, above the guard bit.
    """
    negative = Signal()
    complement = Signal(len(total))
    product = Signal(len(total) + MULT_WIDTH)
    m.d.comb += [
        negative.eq(total[-1]),
        complement.eq(total ^ negative.replicate(len(total))),
    ]
    # The magnitude is one more than the complement.
    complement, once_more, negative = stages.cut(
        "complement",
        value=complement,
        once_more=mult & negative.replicate(MULT_WIDTH),
        negative=negative,
    )
    m.d.comb += product.eq(stages.multiply("parts", complement, mult, plus=once_more))
    (negative,) = stages.cut("parts", negative=negative)
    product, negative = stages.cut("product", value=product, negative=negative)

    # Bits 1 and up are the number in last places of an unsigned code, bit 0 is its guard.
    # Large steps of the shift come first: what no later step can bring down into the code need
    # not be shifted any more, only be known of.  What falls off below has no say.
    value: Value = Cat(Const(0, 2), product)
    too_large: Value = Const(0, 1)
    for step in reversed(range(SHIFT_WIDTH)):
        distance = 1 << step
        shifted = Signal(len(value), name=f"shifted_by_{distance}")
        m.d.comb += shifted.eq(Mux(shift[step], value >> distance, value))
        width = 2 * bits - 1 + distance - 1
        value = shifted
        if width < len(value):
            over = Signal(name=f"too_large_{distance}")
            m.d.comb += over.eq(too_large | value[width:].any())
            value, too_large = value[:width], over
        if distance == REGISTERED_DISTANCE:
            value, too_large, negative = stages.cut(
                "scaled", value=value, too_large=too_large, negative=negative
            )

    # The code follows from the place of the leading one: so many ones, a terminator, and the
    # bits after the leading one; the next bit is the guard.
    integer = value[1:]
    number = Signal(bits + 1)
    m.d.comb += number.eq(value[:bits])
    for ones in range(1, bits):
        leading = bits - 2 + ones
        rest = integer[2 * ones - 2 : leading]
        with m.If(integer[leading]):
            m.d.comb += number.eq(Cat(rest, Const(0, 1), Const(-1, ones)))
    with m.If(too_large):
        m.d.comb += number.eq(Cat(Const(0, 1), Const(-1, bits)))
    return stages.cut("number", negative=negative, value=number)


class DybitEncoder(StagedUnit):
    """Rounding of a sum to a code: multiply, find the leading one, round half up.

    The magnitude is rounded, so that ties go away from zero; the unrounded product decides, as in
    :meth:`golden.element.ScaledSpec.rescale` (section 2, integer encoder).

    Members
    -------
    total : In(signed(spec.sum_width))
        Exact sum of products and bias.
    mult, shift : In(16), In(6)
        The sum is ``total * mult / 2**(shift - 1)`` last places of an unsigned code, and half as
        many of a signed one.
    has_sign : In(1)
        Whether the code has a sign; if not, a negative sum gives 0.
    move : In(1)
        When the registers load; absent without any.
    code : Out(spec.bits)
        Result.

    Parameters
    ----------
    spec : DybitMacSpec
        Widths.
    latency : int
        Registers on the way, 0 to 5; the settings must not change meanwhile.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_mac.DybitMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ENCODER_PLACES

    total: Signal
    mult: Signal
    shift: Signal
    has_sign: Signal
    code: Signal

    def __init__(self, spec: DybitMacSpec, *, latency: int = 0):
        instance_of("spec", spec, DybitMacSpec)
        self.spec = spec
        members = {
            "total": In(signed(spec.sum_width)),
            "mult": In(MULT_WIDTH),
            "shift": In(SHIFT_WIDTH),
            "has_sign": In(1),
            "code": Out(spec.bits),
        }
        super().__init__(f"dybit_encoder_b{spec.bits}_s{spec.sum_width}", members, latency)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        bits = spec.bits

        stages = self.stages(m)
        negative, number = encode_unrounded(m, stages, self.total, self.mult, self.shift, bits)
        guard, unrounded = number[0], number[1:]

        # A signed code has one bit less: the last bit of the unsigned one is its guard.  Codes are
        # monotone, so that a carry walks into the next region.
        rounded = Signal(bits)
        m.d.comb += rounded.eq(Mux(self.has_sign, unrounded[1:] + unrounded[0], unrounded + guard))
        with m.If(self.has_sign):
            limited = Signal(bits - 1)
            m.d.comb += [
                limited.eq(rounded[: bits - 1] | rounded[bits - 1].replicate(bits - 1)),
                self.code.eq(Cat(limited, negative & limited.any())),
            ]
        with m.Elif(~negative):
            m.d.comb += self.code.eq(rounded)  # the largest code has no guard
        return m


class DybitDatapath:
    """Units of dybit for the array; see :class:`hdl.datapath.Datapath`."""

    def __init__(self, spec: DybitMacSpec):
        instance_of("spec", spec, DybitMacSpec)
        self.spec = spec
        self.encoder_config: dict[str, ShapeLike] = {
            "mult": MULT_WIDTH,
            "shift": SHIFT_WIDTH,
            "has_sign": 1,
        }

    def operand(self, role: Operand) -> ShapeLike:
        """Shape of a decoded operand."""
        return operand_shape(self.spec, role)

    def decoder_config(self, role: Operand) -> dict[str, ShapeLike]:
        """Whether activations are signed."""
        return {"has_sign": 1} if role == "activation" else {}

    def decoder(self, role: Operand) -> DybitDecoder:
        """Make the decoder of leading ones."""
        return DybitDecoder(self.spec, role)

    @property
    def product_latency(self) -> int:
        """Registers between multiplier and shifter, where the two are too long for one cycle."""
        return int(self.spec.significand_bits("activation") > 3)

    def product(self, *, latency: int = 0) -> DybitProduct:
        """Make the multiplier."""
        return DybitProduct(self.spec, latency=latency)

    def encoder_latency(self, *, pipelined: bool) -> int:
        """Count registers in the encoder of a shell: it multiplies, and so there always is one."""
        return 5 if pipelined else 1

    def encoder(self, *, latency: int = 0) -> DybitEncoder:
        """Make the rounding encoder."""
        return DybitEncoder(self.spec, latency=latency)
