"""DyBit-style numbers in a multiplier that takes one wide pair or four narrow ones.

:class:`golden.dybit_mac.DybitFusedMacSpec` says what is in a word; what is computed is
:func:`golden.dot.dot` of the codes.  Five multipliers share one accumulator: narrow significands
have 3 and 2 bits, so four small ones with small shifters cost less than the digits of a large one
would with the multiplexers between them.
"""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
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


def fused_operand_shape(role: Operand) -> data.StructLayout:
    """Shape of what travels; all bits zero is the value zero.

    A narrow word has codes and signs, a wide one significand and shift in ``codes``, and its sign
    with that of the first narrow code.
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
        field, negative = self._magnitude(self.code[: self.spec.bits])
        wide = Cat(*decode_magnitude(m, field, table=False))
        pairs = [self._magnitude(self.code[LANE_BITS * n :][:LANE_BITS]) for n in range(LANES)]
        codes, negatives = (Cat(*column) for column in zip(*pairs, strict=True))
        m.d.comb += [
            Value.cast(self.operand.codes).eq(Mux(self.narrow, codes, wide)),
            self.operand.negatives.eq(Mux(self.narrow, negatives, negative)),
        ]
        if self.role == "activation":
            m.d.comb += self.operand.narrow.eq(self.narrow & self.code.any())
        return m

    def _magnitude(self, code):
        """Magnitude and sign of a code; that of an activation is read as one without a sign."""
        below = code[:-1]
        negative = code[-1] & below.any()
        if self.role == "weight":
            return below, negative
        return Mux(self.has_sign, below << 1, code), negative & self.has_sign


class DybitFusedProduct(wiring.Component):
    """Combinational product of wide operands, or sum of the products of four pairs of narrow ones.

    Members
    -------
    activation, weight : In(fused_operand_shape(role))
        Operands, in the same mode.
    term : Out(signed(spec.product_width))
        Sum of products, or the one's complement of a wide one.
    carry : Out(1)
        One where ``term`` is a one's complement.

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
    carry: Signal

    def __init__(self, spec: DybitFusedMacSpec):
        _check(spec)
        self.spec = spec
        self.module_name = "dybit_fused_product"
        super().__init__(
            {
                "activation": In(fused_operand_shape("activation")),
                "weight": In(fused_operand_shape("weight")),
                "term": Out(signed(spec.product_width)),
                "carry": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        # Zeros instead of the activations keep those multipliers still that have nothing to do.
        wide = Mux(self.activation.narrow, 0, Value.cast(self.activation.codes))
        narrow = Mux(self.activation.narrow, Value.cast(self.activation.codes), 0)
        negatives = Signal(LANES)
        m.d.comb += negatives.eq(self.activation.negatives ^ self.weight.negatives)

        largest = int(magnitudes(LANE_BITS)[-1] * magnitudes(LANE_BITS - 1)[-1])
        sum_width = (LANES * largest).bit_length() + 1
        terms = []
        for lane in range(LANES):
            factors = (
                decode_magnitude(m, narrow[LANE_BITS * lane :][:LANE_BITS], table=True),
                decode_magnitude(m, self.weight.codes[lane], table=True),
            )
            term, negative = _product(m, factors, negatives[lane], largest.bit_length(), f"_{lane}")
            terms += [term, negative]

        weight = Value.cast(self.weight.codes)
        factors = (
            (wide[: spec.bits - 1], wide[spec.bits - 1 :][: spec.bits.bit_length()]),
            (weight[: spec.bits - 2], weight[spec.bits - 2 :][: (spec.bits - 1).bit_length()]),
        )
        term, negative = _product(m, factors, negatives[0], spec.product_width - 1, "_wide")
        # Of a wide product and the sum of narrow ones, one is zero.
        total = Signal(signed(sum_width))
        m.d.comb += [total.eq(sum(terms)), self.carry.eq(negative), self.term.eq(total | term)]
        return m


def _product(
    m: Module, factors: Any, opposite: Value, width: int, suffix: str
) -> tuple[Value, Signal]:
    """Product of significands and shifts, or its one's complement, and whether it is that."""
    (first, first_shift), (second, second_shift) = factors
    magnitude = Signal(width, name=f"magnitude{suffix}")
    negative = Signal(name=f"negative{suffix}")
    term = Signal(signed(width + 1), name=f"term{suffix}")
    shift = Signal(max(len(first_shift), len(second_shift)) + 1, name=f"shift{suffix}")
    m.d.comb += [
        shift.eq(first_shift + second_shift),
        # The largest product of two codes fits, whatever its shift.
        magnitude.eq((first * second) << shift),
        # A zero is not negated: it would turn all bits of the sum for nothing.
        negative.eq(opposite & first.any()),
        term.eq(magnitude ^ negative.replicate(width + 1)),
    ]
    return term, negative


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
