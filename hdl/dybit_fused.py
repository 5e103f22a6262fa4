"""DyBit-style numbers in a multiplier that is one wide or four narrow ones.

:class:`golden.dybit_mac.DybitFusedMacSpec` says what is in a word; what is computed is
:func:`golden.dot.dot` of the codes.  The multiplier is four rows of 7 x 2 bits.  In narrow mode a
row multiplies the integer of an activation, which has just 7 bits, by the significand of a weight;
in wide mode it multiplies the significand of the activation by a digit of that of the weight.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.dybit import magnitudes
from golden.dybit_mac import DybitFusedMacSpec
from golden.mac import Operand
from hdl.dybit import decode_magnitude, encode_unrounded
from hdl.requantiser import MULT_WIDTH, SHIFT_WIDTH

__all__ = [
    "DybitFusedDatapath",
    "DybitFusedDecoder",
    "DybitFusedEncoder",
    "DybitFusedProduct",
    "fused_operand_shape",
]

LANES = DybitFusedMacSpec.lanes
LANE_BITS = DybitFusedMacSpec.lane_bits

#: Digits of the significand of a wide weight, two bits each.
DIGITS = 3


def fused_operand_shape(role: Operand) -> data.StructLayout:
    """Shape of what travels; all bits zero is the value zero.

    Narrow words are codes and signs.  In wide words ``codes`` has, for an activation, significand
    and shift; for a weight, in each of three places, a digit of the significand and above it a bit
    of the shift.
    """
    bits = LANE_BITS if role == "activation" else LANE_BITS - 1
    fields: dict[str, Any] = {
        "codes": data.ArrayLayout(unsigned(bits), LANES),
        "negatives": unsigned(LANES),
    }
    # One operand's word for the mode is enough; that of a zero does not matter.
    return data.StructLayout(fields | ({"narrow": unsigned(1)} if role == "activation" else {}))


class DybitFusedDecoder(wiring.Component):
    """Combinational decoder of a word: wide codes in full, narrow ones down to their magnitudes.

    Members
    -------
    code : In(16)
        One wide code in bits 7 to 0, or four narrow ones.
    narrow : In(1)
        Which of the two.
    has_sign : In(1)
        Whether codes have a sign; absent for weights, which do.
    operand : Out(fused_operand_shape(role))
        Operand.

    Parameters
    ----------
    spec : DybitFusedMacSpec
        Widths.
    role : str
        ``"activation"`` or ``"weight"``.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_mac.DybitFusedMacSpec`.
    """

    code: Signal
    narrow: Signal
    has_sign: Signal
    operand: Any

    def __init__(self, spec: DybitFusedMacSpec, role: Operand):
        _check(spec)
        self.spec = spec
        self.role = role
        self.module_name = f"dybit_fused_{role}_decoder"
        members: dict[str, Any] = {
            "code": In(spec.code_bits(role)),
            "narrow": In(1),
            "operand": Out(fused_operand_shape(role)),
        }
        if role == "activation":
            members["has_sign"] = In(1)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        wide_code = self.code[: self.spec.bits]
        wide, wide_negative = self._magnitude(wide_code)
        significand, shift = decode_magnitude(m, wide, table=False)
        if self.role == "activation":
            fields = Cat(significand, Const(0, 2 * LANE_BITS - len(significand)), shift)
            rows = [fields[LANE_BITS * lane :][:LANE_BITS] for lane in range(LANES - 1)]
            m.d.comb += self.operand.narrow.eq(self.narrow & self.code.any())
        else:
            rows = [Cat(significand[2 * row :][:2], shift[row]) for row in range(DIGITS)]

        # The last row multiplies nothing in wide mode.
        rows.append(Const(0, 1))
        for lane in range(LANES):
            code = self.code[LANE_BITS * lane :][:LANE_BITS]
            field, negative = self._magnitude(code)
            m.d.comb += [
                self.operand.codes[lane].eq(Mux(self.narrow, field, rows[lane])),
                self.operand.negatives[lane].eq(
                    Mux(self.narrow, negative, wide_negative & (lane < LANES - 1))
                ),
            ]
        return m

    def _magnitude(self, code):
        """Magnitude and sign of a code; that of an activation is read as one without a sign."""
        below = code[:-1]
        negative = code[-1] & below.any()
        if self.role == "weight":
            return below, negative
        return Mux(self.has_sign, Cat(Const(0, 1), below), code), negative & self.has_sign


class DybitFusedProduct(wiring.Component):
    """Combinational product of wide operands, or sum of the products of four pairs of narrow ones.

    Members
    -------
    activation, weight : In(fused_operand_shape(role))
        Operands, in the same mode.
    term : Out(signed(spec.product_width))
        Product, or sum of products.

    Parameters
    ----------
    spec : DybitFusedMacSpec
        Widths.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_mac.DybitFusedMacSpec`.
    """

    activation: Any
    weight: Any
    term: Signal

    def __init__(self, spec: DybitFusedMacSpec):
        _check(spec)
        self.spec = spec
        self.module_name = "dybit_fused_product"
        super().__init__(
            {
                "activation": In(fused_operand_shape("activation")),
                "weight": In(fused_operand_shape("weight")),
                "term": Out(signed(spec.product_width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        narrow = self.activation.narrow
        significand_bits = self.spec.bits - 1  # of a wide activation, and of a narrow one's integer

        # Shift of a wide product: by up to 3 in the rows, by a multiple of 4 after their sum.
        codes = data.View(data.ArrayLayout(LANE_BITS, LANES), self.activation.codes.as_value())
        fields = Cat(*(codes[lane] for lane in range(LANES - 1)))
        digits = [self.weight.codes[lane] for lane in range(LANES)]
        shift = Signal(LANE_BITS)
        m.d.comb += shift.eq(
            Mux(narrow, 0, fields[2 * LANE_BITS :] + Cat(digit[2] for digit in digits[:DIGITS]))
        )

        terms = []
        for lane in range(LANES):
            integer = Signal(significand_bits, name=f"integer_{lane}")
            with m.Switch(Mux(narrow, codes[lane], 0)):
                for code, value in enumerate(magnitudes(LANE_BITS).tolist()):
                    with m.Case(code):
                        m.d.comb += integer.eq(value)
            factor = Signal(significand_bits, name=f"factor_{lane}")
            wide = fields[:significand_bits] if lane < DIGITS else 0
            m.d.comb += factor.eq(integer | Mux(narrow, 0, wide))

            digit = digits[lane]
            significand, amount = decode_magnitude(m, digit, table=True)
            row = Signal(significand_bits + 2, name=f"row_{lane}")
            m.d.comb += row.eq(factor * Mux(narrow, significand, digit[:2]))
            # A sum of three rows has 13 bits, and 3 more by the shift; one of narrow products 13.
            shifted = Signal(significand_bits + 5, name=f"shifted_{lane}")
            m.d.comb += shifted.eq(row << Mux(narrow, amount, shift[:2]))
            place = Signal(signed(2 * self.spec.bits + 1), name=f"place_{lane}")
            offset = 2 * lane if lane < DIGITS else 0
            m.d.comb += place.eq(Mux(narrow, shifted, shifted << offset))
            negative = Signal(name=f"negative_{lane}")
            m.d.comb += negative.eq(
                # A zero is not negated: it would turn all bits for nothing.
                (self.activation.negatives[lane] ^ self.weight.negatives[lane]) & factor.any()
            )
            terms += [place ^ negative.replicate(len(place)).as_signed(), negative]

        total = Signal(signed(2 * self.spec.bits + 1))
        m.d.comb += [total.eq(sum(terms)), self.term.eq(total << Cat(Const(0, 2), shift[2:]))]
        return m


class DybitFusedEncoder(wiring.Component):
    """Combinational rounding of a sum to a code of any width, in the upper bits of its place.

    Members
    -------
    total : In(signed(spec.sum_width))
        Exact sum of products and bias.
    mult, shift : In(16), In(6)
        The sum is ``total * mult / 2**(shift - 1)`` last places of an unsigned code of 8 bits.
    drop : In(3)
        Bits of that code's magnitude that the result does not have; at least 1 with a sign.
    has_sign : In(1)
        Whether the code has a sign; if not, a negative sum gives 0.
    code : Out(8)
        Result over zeros.

    Parameters
    ----------
    spec : DybitFusedMacSpec
        Widths.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_mac.DybitFusedMacSpec`.
    """

    total: Signal
    mult: Signal
    shift: Signal
    drop: Signal
    has_sign: Signal
    code: Signal

    def __init__(self, spec: DybitFusedMacSpec):
        _check(spec)
        self.spec = spec
        self.module_name = f"dybit_fused_encoder_s{spec.sum_width}"
        super().__init__(
            {
                "total": In(signed(spec.sum_width)),
                "mult": In(MULT_WIDTH),
                "shift": In(SHIFT_WIDTH),
                "drop": In(3),
                "has_sign": In(1),
                "code": Out(spec.bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self.spec.bits
        negative, number = encode_unrounded(m, self.total, self.mult, self.shift, bits)

        # The highest bit that is dropped is the guard.  Codes are monotone, so that a carry walks
        # into the next region.
        rounded = Signal(bits + 1)
        kept = Signal(bits)
        half = (1 << self.drop)[1:]
        m.d.comb += [
            rounded.eq(number[1:] + half + (number[0] & ~self.drop.any())),
            kept.eq((rounded[:-1] | rounded[-1].replicate(bits)) & (-1 << self.drop)),
        ]
        with m.If(self.has_sign):
            m.d.comb += self.code.eq(Cat(kept[1:], negative & kept.any()))
        with m.Elif(~negative):
            m.d.comb += self.code.eq(kept)
        return m


class DybitFusedDatapath:
    """Units of the fused multiplier for the array; see :class:`hdl.datapath.Datapath`."""

    def __init__(self, spec: DybitFusedMacSpec):
        _check(spec)
        self.spec = spec
        self.encoder_config: dict[str, ShapeLike] = {
            "mult": MULT_WIDTH,
            "shift": SHIFT_WIDTH,
            "drop": 3,
            "has_sign": 1,
        }

    def operand(self, role: Operand) -> ShapeLike:
        """Shape of a decoded word."""
        return fused_operand_shape(role)

    def decoder_config(self, role: Operand) -> dict[str, ShapeLike]:
        """Mode, and whether activations are signed."""
        return {"narrow": 1} | ({"has_sign": 1} if role == "activation" else {})

    def decoder(self, role: Operand) -> DybitFusedDecoder:
        """Make the decoder of a word."""
        return DybitFusedDecoder(self.spec, role)

    def product(self) -> DybitFusedProduct:
        """Make the multiplier."""
        return DybitFusedProduct(self.spec)

    def encoder(self) -> DybitFusedEncoder:
        """Make the rounding encoder."""
        return DybitFusedEncoder(self.spec)


def _check(spec: object) -> None:
    if not isinstance(spec, DybitFusedMacSpec):
        raise TypeError(f"spec must be a DybitFusedMacSpec, not {spec!r}")
