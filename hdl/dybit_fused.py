"""DyBit-style numbers in a multiplier that takes one wide pair, or several narrow ones.

:class:`golden.dybit_fused.DybitFusedMacSpec` says what is in a word; what is computed is
:func:`golden.dot.dot` of the codes.  One multiplier for each kind of product shares the operand
registers and the accumulator with the others: narrow significands have 3 and 2 bits, so that a few
small multipliers with small shifters cost no more than the digits of a large one would, with what
brings operands to them and their sums to one more shifter (docs/dybit.md, section 5).
"""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.dybit import magnitudes
from golden.dybit_fused import MODES, DybitFusedMacSpec
from golden.mac import Operand
from golden.spec import instance_of
from hdl.dybit import ENCODER_PLACES, decode_magnitude, encode_unrounded
from hdl.pipeline import StagedUnit, Stages
from hdl.requantiser import MULT_WIDTH, SHIFT_WIDTH

__all__ = [
    "DybitFusedDatapath",
    "DybitFusedDecoder",
    "DybitFusedEncoder",
    "DybitFusedProduct",
    "fused_operand_shape",
]

#: Products of narrow pairs in a cycle, and bits of their codes.
LANES = MODES["4x4"].products
LANE_BITS = MODES["4x4"].bits
#: Lanes that take wide activations.
HALVES = MODES["4x8"].products
#: Products of the narrowest pairs in a cycle; so many of them are summed first.
PAIRS = MODES["2x2"].products
GROUP = 4

MODE_WIDTH = (len(MODES) - 1).bit_length()


def _magnitude_bits(role: Operand, bits: int) -> int:
    """Bits of the magnitude of a code; that of an activation is read as one without a sign."""
    return bits if role == "activation" else bits - 1


def _factor_bits(role: Operand, bits: int) -> tuple[int, int]:
    """Bits of significand and shift of a code."""
    width = _magnitude_bits(role, bits)
    return width - 1, width.bit_length()


def _lane_bits(spec: DybitFusedMacSpec, role: Operand) -> list[int]:
    """Bits that travel for each lane: of significand and shift, or of a magnitude."""
    plain = _magnitude_bits(role, LANE_BITS)
    if role == "weight" or "4x8" not in spec.modes:
        return [plain] * LANES
    return [sum(_factor_bits(role, spec.bits))] * HALVES + [plain] * (LANES - HALVES)


def fused_operand_shape(spec: DybitFusedMacSpec, role: Operand) -> data.StructLayout:
    """Shape of what travels; all bits zero is the value zero.

    In ``bits`` are the signs of the lanes, and what :func:`_lane_bits` says of each; or the sign of
    a wide code in place of the first one, and its significand and shift in place of the lanes; or
    the codes of the narrowest pairs.  An activation says for both which it is.
    """
    width = LANES + sum(_lane_bits(spec, role))
    flags = ["lanes"]
    if "2x2" in spec.modes:
        width = max(width, PAIRS * MODES["2x2"].place_bits(role))
        flags.append("pairs")
    fields = {"bits": unsigned(width)}
    if role == "activation":
        fields |= {flag: unsigned(1) for flag in flags}
    return data.StructLayout(fields)


class DybitFusedDecoder(wiring.Component):
    """Combinational decoder of a word: wide codes in full, narrow ones down to their magnitudes.

    Members
    -------
    code : In(spec.code_bits(role))
        As many codes as the mode says, the first one lowest; what is above them does not matter.
    mode : In(2)
        :attr:`golden.dybit_fused.Mode.index` of a mode in ``spec.modes``.
    has_sign : In(1)
        Whether codes have a sign; absent for weights, which do.
    operand : Out(fused_operand_shape(spec, role))
        Operand.

    Parameters
    ----------
    spec : DybitFusedMacSpec
        Widths and modes.
    role : str
        ``"activation"`` or ``"weight"``.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_fused.DybitFusedMacSpec`.
    """

    code: Signal
    mode: Signal
    has_sign: Signal
    operand: Any

    def __init__(self, spec: DybitFusedMacSpec, role: Operand):
        instance_of("spec", spec, DybitFusedMacSpec)
        self.spec = spec
        self.role = role
        self.module_name = f"dybit_fused_{role}_decoder_{spec.label}"
        members: dict[str, Any] = {
            "code": In(spec.code_bits(role)),
            "mode": In(MODE_WIDTH),
            "operand": Out(fused_operand_shape(spec, role)),
        }
        if role == "activation":
            members["has_sign"] = In(1)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        is_mode = {name: Signal(name=f"is_{name}") for name in self.spec.modes}
        for name, flag in is_mode.items():
            m.d.comb += flag.eq(self.mode == MODES[name].index)

        pairs = [self._magnitude(self._place("4x4", lane)) for lane in range(LANES)]
        lanes: list[Value] = [magnitude for magnitude, _ in pairs]
        negatives = [negative for _, negative in pairs]
        if "4x8" in is_mode and self.role == "activation":
            for lane in range(HALVES):
                lanes[lane], negatives[lane] = self._wide_lane(m, lane, is_mode)
            narrow = is_mode["4x4"].replicate(LANE_BITS)
            lanes[HALVES:] = [lane & narrow for lane in lanes[HALVES:]]
            negatives[HALVES:] = [sign & is_mode["4x4"] for sign in negatives[HALVES:]]
            bits: Value = Cat(*negatives, *lanes)
        else:
            magnitude, negative = self._magnitude(self._place("8x8", 0))
            wide = Cat(negative.replicate(LANES), *decode_magnitude(m, magnitude, table=False))
            bits = Mux(is_mode["8x8"], wide, Cat(*negatives, *lanes))
        if "2x2" in is_mode:
            bits = Mux(is_mode["2x2"], self._narrowest(), bits)
        m.d.comb += self.operand.bits.eq(bits)

        if self.role == "activation":
            narrow = Cat(flag for name, flag in is_mode.items() if name in ("4x8", "4x4")).any()
            m.d.comb += self.operand.lanes.eq(narrow & self.code.any())
            if "2x2" in is_mode:
                m.d.comb += self.operand.pairs.eq(is_mode["2x2"] & self.code.any())
        return m

    def _place(self, mode: str, index: int) -> Value:
        bits = MODES[mode].place_bits(self.role)
        return self.code[bits * index :][:bits]

    def _magnitude(self, code):
        """Magnitude and sign of a code; that of an activation is read as one without a sign."""
        below = code[:-1]
        negative = code[-1] & below.any()
        if self.role == "weight":
            return below, negative
        return Mux(self.has_sign, below << 1, code), negative & self.has_sign

    def _wide_lane(self, m, lane, is_mode):
        """Significand and shift, and sign, of a lane's activation of either width."""
        code = Signal(self.spec.bits, name=f"code_{lane}")
        narrow = self._place("4x4", lane) << self.spec.bits - LANE_BITS
        byte = self._place("4x8", lane)
        if lane:
            byte &= is_mode["4x8"].replicate(self.spec.bits)
        m.d.comb += code.eq(Mux(is_mode["4x4"], narrow, byte))
        magnitude, negative = self._magnitude(code)
        significand, shift = decode_magnitude(m, magnitude, table=False)
        # A code over zeros has the shift of the shorter one, and its significand over zeros.
        shorter = significand >> self.spec.bits - LANE_BITS
        return Cat(Mux(is_mode["4x4"], shorter, significand), shift), negative

    def _narrowest(self):
        """Codes of the narrowest pairs; of weights first whether there is one, then its sign."""
        codes = [self._place("2x2", index) for index in range(PAIRS)]
        if self.role == "weight":
            codes = [Cat(code[0], code.all()) for code in codes]
        return Cat(*codes)


class DybitFusedProduct(StagedUnit):
    """Product of wide operands, or sum of the products of several pairs of narrow ones.

    Members
    -------
    activation, weight : In(fused_operand_shape(spec, role))
        Operands, in the same mode.
    term : Out(signed(spec.product_width))
        Sum of products, or the one's complement of a wide one.
    carry : Out(1)
        One where ``term`` is a one's complement.
    move : In(1)
        When the registers load; absent without any.

    Parameters
    ----------
    spec : DybitFusedMacSpec
        Widths and modes.
    latency : int
        Registers on the way, 0 to 2.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_fused.DybitFusedMacSpec`, or ``latency`` no
        integer.
    ValueError
        If ``latency`` is out of range.
    """

    # Each about half-way on its path; where lanes are wide, also behind the gates of one flag.
    places = (
        (),
        ("multiplied_wide", "shifted_lanes", "grouped"),
        ("gated", "multiplied_wide", "complemented_lanes", "grouped"),
    )

    activation: Any
    weight: Any
    term: Signal
    carry: Signal

    def __init__(self, spec: DybitFusedMacSpec, *, latency: int = 0):
        instance_of("spec", spec, DybitFusedMacSpec)
        self.spec = spec
        members = {
            "activation": In(fused_operand_shape(spec, "activation")),
            "weight": In(fused_operand_shape(spec, "weight")),
            "term": Out(signed(spec.product_width)),
            "carry": Out(1),
        }
        super().__init__(f"dybit_fused_product_{spec.label}", members, latency)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        stages = self.stages(m, reset_less=False)
        # Zeros instead of the activations keep those multipliers still that have nothing to do.
        activation, weight = self.activation.bits, self.weight.bits
        has_pairs = "2x2" in spec.modes
        wide = ~(self.activation.lanes | (self.activation.pairs if has_pairs else 0))
        negatives = Signal(LANES)
        m.d.comb += negatives.eq(activation[:LANES] ^ weight[:LANES])

        sums = [self._lanes(m, stages, negatives)]
        if has_pairs:
            sums.append(self._pairs(m, stages))
        factors = (
            _split(Mux(wide, activation[LANES:], 0), _factor_bits("activation", spec.bits)),
            _split(weight[LANES:], _factor_bits("weight", spec.bits)),
        )
        width = spec.product_width - 1
        term, negative = _product(m, stages, "wide", factors, negatives[0], width)
        # All but one of them are zero.
        for total in sums:
            term |= total
        m.d.comb += [self.carry.eq(negative), self.term.eq(term)]
        return m

    def _lanes(self, m: Module, stages: Stages, negatives: Value) -> Value:
        """Sum of the products of narrow weights with activations of either width."""
        spec = self.spec
        activations = _split(self.activation.bits[LANES:], _lane_bits(spec, "activation"))
        weights = _split(self.weight.bits[LANES:], _lane_bits(spec, "weight"))
        plain = _magnitude_bits("activation", LANE_BITS)
        terms: list[Value] = []
        largest = 0
        for lane in range(LANES):
            is_plain = len(activations[lane]) == plain
            first: Any
            if is_plain:
                magnitude = Mux(self.activation.lanes, activations[lane], 0)
                first = decode_magnitude(m, magnitude, table=False)
            else:
                significand, shift = _split(
                    activations[lane], _factor_bits("activation", spec.bits)
                )
                # To tell more bits would take longer than their multiplication.
                first = (Mux(self.activation.lanes, significand, 0), shift)
            second = decode_magnitude(m, weights[lane], table=False)
            top = int(
                magnitudes(plain if is_plain else spec.bits)[-1]
                * magnitudes(_magnitude_bits("weight", LANE_BITS))[-1]
            )
            largest += top
            terms += _product(
                m, stages, "lanes", (first, second), negatives[lane], top.bit_length(), f"{lane}"
            )
        total = Signal(signed(largest.bit_length() + 1), name="lanes_total")
        m.d.comb += total.eq(sum(terms))
        return total

    def _pairs(self, m: Module, stages: Stages) -> Value:
        """Sum of the products of the narrowest pairs.

        An activation's magnitude is 0, 1, 2 or 4: its code, and one more if both bits are set.
        Complementing all three bits negates that but for 4, which every positive pair counts
        instead: each is 4 too much.
        """
        groups: list[Value] = []
        for start in range(0, PAIRS, GROUP):
            terms: list[Value] = []
            for index in range(start, start + GROUP):
                low, high = self.activation.bits[2 * index :][:2]
                there, sign = self.weight.bits[2 * index :][:2]
                use = Signal(name=f"use_{index}")
                negative = Signal(name=f"pair_negative_{index}")
                code = Signal(2, name=f"pair_{index}")
                m.d.comb += [
                    use.eq(there & self.activation.pairs),
                    negative.eq(sign & use),
                    code.eq(Cat(low & use, high & use)),
                ]
                values = {f"pair_{index}": code, f"pair_negative_{index}": negative}
                code, negative = stages.cut("gated", **values)
                terms += [
                    Cat(code ^ negative.replicate(2), ~negative),
                    code.all() ^ negative,
                ]
            # Nothing is zero, as registers are after a reset.
            group = Signal(range(-4 * GROUP, 4 * GROUP + 1), name=f"group_{start // GROUP}")
            m.d.comb += group.eq(sum(terms) - 4 * GROUP)
            groups += stages.cut("grouped", **{f"group_{start // GROUP}": group})
        total = Signal(signed((4 * PAIRS).bit_length() + 1), name="pairs_total")
        m.d.comb += total.eq(sum(groups))
        return total


def _split(bits: Any, widths: Any) -> list[Any]:
    """Cut ``bits`` in fields, from the lowest."""
    fields = []
    start = 0
    for width in widths:
        fields.append(bits[start : start + width])
        start += width
    return fields


def _product(
    m: Module, stages: Stages, kind: str, factors: Any, opposite: Value, width: int, which: str = ""
) -> tuple[Value, Value]:
    """Product of significands and shifts, or its one's complement, and whether it is that."""
    (first, first_shift), (second, second_shift) = factors
    name = which or kind
    values = {f"first_{name}": first, f"first_shift_{name}": first_shift}
    values |= {f"second_{name}": second, f"second_shift_{name}": second_shift}
    values |= {f"opposite_{name}": opposite}
    first, first_shift, second, second_shift, opposite = stages.cut("gated", **values)
    product = Signal(len(first) + len(second), name=f"product_{name}")
    shift = Signal(max(len(first_shift), len(second_shift)) + 1, name=f"shift_{name}")
    negative = Signal(name=f"negative_{name}")
    m.d.comb += [
        product.eq(first * second),
        shift.eq(first_shift + second_shift),
        # A zero is not negated: it would turn all bits of the sum for nothing.
        negative.eq(opposite & first.any()),
    ]
    values = {f"product_{name}": product, f"shift_{name}": shift, f"negative_{name}": negative}
    product, shift, negative = stages.cut(f"multiplied_{kind}", **values)
    magnitude = Signal(width, name=f"magnitude_{name}")
    # The largest product of two codes fits, whatever its shift.
    m.d.comb += magnitude.eq(product << shift)
    values = {f"magnitude_{name}": magnitude, f"negative_{name}": negative}
    magnitude, negative = stages.cut(f"shifted_{kind}", **values)
    term = Signal(signed(width + 1), name=f"term_{name}")
    m.d.comb += term.eq(magnitude ^ negative.replicate(width + 1))
    values = {f"term_{name}": term, f"negated_{name}": negative}
    return stages.cut(f"complemented_{kind}", **values)


class DybitFusedEncoder(StagedUnit):
    """Rounding of a sum to a code of any width, in the upper bits of its place.

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
    move : In(1)
        When the registers load; absent without any.
    code : Out(8)
        Result over zeros.

    Parameters
    ----------
    spec : DybitFusedMacSpec
        Widths.
    latency : int
        Registers on the way, 0 to 5; the settings must not change meanwhile.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.dybit_fused.DybitFusedMacSpec`, or ``latency`` no
        integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ENCODER_PLACES

    total: Signal
    mult: Signal
    shift: Signal
    drop: Signal
    has_sign: Signal
    code: Signal

    def __init__(self, spec: DybitFusedMacSpec, *, latency: int = 0):
        instance_of("spec", spec, DybitFusedMacSpec)
        self.spec = spec
        members = {
            "total": In(signed(spec.sum_width)),
            "mult": In(MULT_WIDTH),
            "shift": In(SHIFT_WIDTH),
            "drop": In(3),
            "has_sign": In(1),
            "code": Out(spec.bits),
        }
        super().__init__(f"dybit_fused_encoder_s{spec.sum_width}", members, latency)

    def elaborate(self, platform):
        m = Module()
        bits = self.spec.bits
        stages = self.stages(m)
        negative, number = encode_unrounded(m, stages, self.total, self.mult, self.shift, bits)

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
        instance_of("spec", spec, DybitFusedMacSpec)
        self.spec = spec
        self.encoder_config: dict[str, ShapeLike] = {
            "mult": MULT_WIDTH,
            "shift": SHIFT_WIDTH,
            "drop": 3,
            "has_sign": 1,
        }

    def operand(self, role: Operand) -> ShapeLike:
        """Shape of a decoded word."""
        return fused_operand_shape(self.spec, role)

    def decoder_config(self, role: Operand) -> dict[str, ShapeLike]:
        """Mode, and whether activations are signed."""
        return {"mode": MODE_WIDTH} | ({"has_sign": 1} if role == "activation" else {})

    def decoder(self, role: Operand) -> DybitFusedDecoder:
        """Make the decoder of a word."""
        return DybitFusedDecoder(self.spec, role)

    @property
    def product_latency(self) -> int:
        """Two where a lane multiplies wide activations."""
        return 1 + ("4x8" in self.spec.modes)

    def product(self, *, latency: int = 0) -> DybitFusedProduct:
        """Make the multiplier."""
        return DybitFusedProduct(self.spec, latency=latency)

    def encoder_latency(self, *, pipelined: bool) -> int:
        """Count the registers of the encoder, which multiplies and so always has some."""
        return 5 if pipelined else 1

    def encoder(self, *, latency: int = 0) -> DybitFusedEncoder:
        """Make the rounding encoder."""
        return DybitFusedEncoder(self.spec, latency=latency)
