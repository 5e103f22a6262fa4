"""Signed-digit weights with fixed-point activations: decoders, product and datapath.

:class:`golden.elp_bsd.ElpBsdSpec` defines the results; section numbers below are those of the
format's specification.  The bits of a weight's code drive the product: each digit selects a fixed
shift of the activation and its sign.  There is no multiplier.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.elp_bsd import DigitSet
from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.mac import Operand
from golden.spec import instance_of
from hdl.hierarchy import place
from hdl.pipeline import StagedUnit
from hdl.requantiser import MULT_WIDTH, SHIFT_WIDTH, Requantiser

__all__ = [
    "ElpBsdActivationDecoder",
    "ElpBsdDatapath",
    "ElpBsdProduct",
    "ElpBsdShifter",
    "ElpBsdWeightDecoder",
    "needs_decoder",
    "weight_shape",
]


def digit_positions(spec: ElpBsdMacSpec) -> list[list[int]]:
    """Positions of each digit of the hardware: with several sets, those of any of them.

    Padded to a power of two, so that a select of any value has a position.
    """
    merged: list[list[int]] = []
    for digit in range(max(digits.digits for digits in spec.digit_sets)):
        lists = [digits.positions[digit : digit + 1] for digits in spec.digit_sets]
        positions = list(dict.fromkeys(p for listed in lists for each in listed for p in each))
        if len(spec.digit_sets) > 1:
            positions.sort()
        size = 1 << (len(positions) - 1).bit_length()
        merged.append(positions + positions[-1:] * (size - len(positions)))
    return merged


def needs_decoder(spec: ElpBsdMacSpec) -> bool:
    """Whether a code is not its own operand: there is a zero code, or a choice of sets."""
    return len(spec.sets) > 1 or spec.digit_sets[0].zero_code


def weight_shape(spec: ElpBsdMacSpec) -> data.StructLayout:
    """Shape of a decoded weight: that of its code, and whether digit 0 counts if it may not.

    A digit that does not count has no sign either, since that is a carry.
    """
    fields: dict[str, Any] = {}
    for digit, positions in enumerate(digit_positions(spec)):
        fields[f"select_{digit}"] = unsigned((len(positions) - 1).bit_length())
        fields[f"negative_{digit}"] = unsigned(1)
    if needs_decoder(spec):
        fields["enable"] = unsigned(len(digit_positions(spec)))
    return data.StructLayout(fields)


class ElpBsdActivationDecoder(wiring.Component):
    """Combinational extension of an activation by a zero or its sign.

    Members
    -------
    code : In(spec.bits)
        Fixed-point code.
    has_sign : In(1)
        Whether it is two's complement.
    operand : Out(signed(spec.bits + 1))
        Its integer.

    Parameters
    ----------
    spec : ElpBsdMacSpec
        Widths.

    Raises
    ------
    TypeError
        If ``spec`` is not an :class:`~golden.elp_bsd_mac.ElpBsdMacSpec`.
    """

    code: Signal
    has_sign: Signal
    operand: Signal

    def __init__(self, spec: ElpBsdMacSpec):
        instance_of("spec", spec, ElpBsdMacSpec)
        self.spec = spec
        self.module_name = f"elp_bsd_activation_decoder_b{spec.bits}"
        super().__init__(
            {
                "code": In(spec.bits),
                "has_sign": In(1),
                "operand": Out(signed(spec.bits + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.operand.eq(Cat(self.code, self.code[-1] & self.has_sign).as_signed())
        return m


class ElpBsdWeightDecoder(wiring.Component):
    """Combinational decoder of a weight, for a zero code or several sets of digits.

    Members
    -------
    code : In(spec.code_bits("weight"))
        Any bit pattern.
    set : In(spec.set_width)
        Index of the digit set; absent with one set.
    operand : Out(weight_shape(spec))
        Digits.

    Parameters
    ----------
    spec : ElpBsdMacSpec
        Sets.

    Raises
    ------
    TypeError
        If ``spec`` is not an :class:`~golden.elp_bsd_mac.ElpBsdMacSpec`.
    """

    code: Signal
    set: Signal
    operand: Any

    def __init__(self, spec: ElpBsdMacSpec):
        instance_of("spec", spec, ElpBsdMacSpec)
        self.spec = spec
        self.module_name = f"elp_bsd_weight_decoder_{spec.label}"
        members: dict[str, Any] = {
            "code": In(spec.code_bits("weight")),
            "operand": Out(weight_shape(spec)),
        }
        if spec.set_width:
            members["set"] = In(spec.set_width)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        if self.spec.set_width:
            with m.Switch(self.set):
                for index, digits in enumerate(self.spec.digit_sets):
                    with m.Case(index):
                        self._decode(m, digits)
        else:
            self._decode(m, self.spec.digit_sets[0])
        return m

    def _decode(self, m: Module, digits: DigitSet) -> None:
        """Fields of the operand for codes of one set."""
        nonzero: Value = ~(self.code == 1 << digits.bits - 1) if digits.zero_code else Const(1, 1)
        low = 0
        lists = zip(digits.positions, digit_positions(self.spec), strict=False)
        for digit, (positions, merged) in enumerate(lists):
            width = len(positions).bit_length() - 1
            field = self.code[low : low + width]
            low += width + 1
            select = self.operand[f"select_{digit}"]
            if merged == list(positions):
                m.d.comb += select.eq(field)
            else:
                with m.Switch(field):
                    for index, position in enumerate(positions):
                        with m.Case(index):
                            m.d.comb += select.eq(merged.index(position))
            m.d.comb += [
                self.operand[f"negative_{digit}"].eq(self.code[low - 1] & nonzero),
                self.operand.enable[digit].eq(nonzero),
            ]


class ElpBsdProduct(StagedUnit):
    """Product of an activation and signed digits as ``term + carry``.

    Members
    -------
    activation : In(signed(spec.bits + 1))
        Integer.
    weight : In(weight_shape(spec))
        Digits.
    term : Out(signed(spec.product_width))
        Sum of the shifted activations, complemented where a digit is negative, and of the carries
        of all digits but one.
    carry : Out(1)
        Carry of that digit; absent if no digit has the position 0.
    move : In(1)
        When the registers load; absent without any.

    Parameters
    ----------
    spec : ElpBsdMacSpec
        Widths.
    latency : int
        Registers on the way, 0 or 1.

    Raises
    ------
    TypeError
        If ``spec`` is not an :class:`~golden.elp_bsd_mac.ElpBsdMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ((), ("digits",))

    activation: Signal
    weight: Any
    term: Signal
    carry: Signal

    def __init__(self, spec: ElpBsdMacSpec, *, latency: int = 0):
        instance_of("spec", spec, ElpBsdMacSpec)
        self.spec = spec
        members: dict[str, Any] = {
            "activation": In(signed(spec.bits + 1)),
            "weight": In(weight_shape(spec)),
            "term": Out(signed(spec.product_width)),
        }
        if any(min(positions) == 0 for positions in digit_positions(spec)):
            members["carry"] = Out(1)
        super().__init__(f"elp_bsd_product_{spec.label}", members, latency)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        stages = self.stages(m, reset_less=False)
        addends: list[Value] = []
        carry_taken = False
        # A zero is not negated: it would turn all bits of the sum's other operand for nothing.
        nonzero = Signal()
        m.d.comb += nonzero.eq(self.activation[:-1].any())
        for digit, positions in enumerate(digit_positions(spec)):
            negative = Signal(name=f"negated_{digit}")
            m.d.comb += negative.eq(self.weight[f"negative_{digit}"] & nonzero)
            # The complement comes first, so that there are no gates for the bits that a shift
            # moves in: they are the sign.
            complement = Signal(signed(spec.bits + 1), name=f"complement_{digit}")
            gated: Value = self.activation
            if needs_decoder(spec):
                enabled = self.weight.enable[digit].replicate(spec.bits + 1)
                gated = self.activation & enabled.as_signed()
            m.d.comb += complement.eq(gated ^ negative.replicate(spec.bits + 1).as_signed())
            lowest = min(positions)
            shifted = Signal(
                signed(spec.bits + 1 + max(positions) - lowest), name=f"shifted_{digit}"
            )
            relative = [position - lowest for position in positions]
            m.d.comb += shifted.eq(
                _shift(complement, negative, relative, self.weight[f"select_{digit}"])
            )
            shifted, negative = stages.cut(
                "digits", **{f"shifted_{digit}": shifted, f"negated_{digit}": negative}
            )
            addends.append(shifted << lowest)
            # The digit is shifted by its lowest position whatever its code, and its carry with it.
            if lowest == 0 and not carry_taken:
                m.d.comb += self.carry.eq(negative)
                carry_taken = True
            else:
                addends.append(negative << lowest)
        m.d.comb += self.term.eq(reduce(add, addends))
        return m


class ElpBsdShifter(StagedUnit):
    """Computes ``clamp(RNE(total / 2**shift))``: a requantiser for scales of powers of two.

    Members
    -------
    total : In(signed(spec.sum_width))
        Exact sum of products and bias.
    shift : In(6)
        Bits by which it is shifted to the right.
    has_sign : In(1)
        Whether the code is two's complement; if not, a negative sum gives 0.
    move : In(1)
        When the registers load; absent without any.
    code : Out(spec.bits)
        Result.

    Parameters
    ----------
    spec : ElpBsdMacSpec
        Widths.
    latency : int
        Registers on the way, 0 or 1; the settings must not change meanwhile.

    Raises
    ------
    TypeError
        If ``spec`` is not an :class:`~golden.elp_bsd_mac.ElpBsdMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ((), ("scaled",))

    total: Signal
    shift: Signal
    has_sign: Signal
    code: Signal

    def __init__(self, spec: ElpBsdMacSpec, *, latency: int = 0):
        instance_of("spec", spec, ElpBsdMacSpec)
        self.spec = spec
        members = {
            "total": In(signed(spec.sum_width)),
            "shift": In(SHIFT_WIDTH),
            "has_sign": In(1),
            "code": Out(spec.bits),
        }
        super().__init__(f"elp_bsd_shifter_s{spec.sum_width}_b{spec.bits}", members, latency)

    def elaborate(self, platform):
        m = Module()
        requantiser = Requantiser(self.spec.sum_width, self.spec.bits, latency=self.latency)
        place(m, "requantiser", requantiser, platform)
        if self.latency:
            m.d.comb += requantiser.move.eq(self.move)
        m.d.comb += [
            requantiser.total.eq(self.total),
            requantiser.mult.eq(1),
            requantiser.shift.eq(self.shift),
            requantiser.has_sign.eq(self.has_sign),
            self.code.eq(requantiser.code),
        ]
        return m


def _shift(number: Value, fill: Value, positions: Sequence[int], select: Value) -> Value:
    """Shift ``number`` left by one of ``positions``; copies of ``fill`` come in at the right."""
    if len(positions) == 1:
        return Cat(fill.replicate(positions[0]), number).as_signed()
    half = len(positions) // 2
    low, high = positions[:half], positions[half:]
    step = high[0] - low[0]
    if step > 0 and all(b - a == step for a, b in zip(low, high, strict=True)):
        inner = _shift(number, fill, low, select[:-1])
        return Mux(select[-1], Cat(fill.replicate(step), inner).as_signed(), inner)
    return Mux(
        select[-1],
        _shift(number, fill, high, select[:-1]),
        _shift(number, fill, low, select[:-1]),
    )


class ElpBsdDatapath:
    """Units of signed digits for the array; see :class:`hdl.datapath.Datapath`."""

    def __init__(self, spec: ElpBsdMacSpec):
        instance_of("spec", spec, ElpBsdMacSpec)
        self.spec = spec
        self.encoder_config: dict[str, ShapeLike] = {"shift": SHIFT_WIDTH, "has_sign": 1}
        if spec.multiplier:
            self.encoder_config["mult"] = MULT_WIDTH

    def operand(self, role: Operand) -> ShapeLike:
        """Shape of a decoded operand."""
        return signed(self.spec.bits + 1) if role == "activation" else weight_shape(self.spec)

    def decoder_config(self, role: Operand) -> dict[str, ShapeLike]:
        """Whether activations are signed, and which set the weights are of."""
        if role == "activation":
            return {"has_sign": 1}
        return {"set": self.spec.set_width} if self.spec.set_width else {}

    def decoder(self, role: Operand) -> ElpBsdActivationDecoder | ElpBsdWeightDecoder | None:
        """Make the extension of activations, or the decoder of weights if they need one."""
        if role == "activation":
            return ElpBsdActivationDecoder(self.spec)
        return ElpBsdWeightDecoder(self.spec) if needs_decoder(self.spec) else None

    @property
    def product_latency(self) -> int:
        """One, between shifts and sum, where a digit has four positions or more to choose from."""
        return int(max(map(len, digit_positions(self.spec))) > 2 or self.spec.bits > 8)

    def product(self, *, latency: int = 0) -> ElpBsdProduct:
        """Make the shifts and the sum of the digits."""
        return ElpBsdProduct(self.spec, latency=latency)

    def encoder_latency(self, *, pipelined: bool) -> int:
        """Count registers in the encoder of a shell; if it multiplies, there always is one."""
        if self.spec.multiplier:
            return 3 if pipelined else 1
        return int(pipelined)

    def encoder(self, *, latency: int = 0) -> Requantiser | ElpBsdShifter:
        """Make the common requantiser, or its shifter alone."""
        if self.spec.multiplier:
            return Requantiser(self.spec.sum_width, self.spec.bits, latency=latency)
        return ElpBsdShifter(self.spec, latency=latency)
