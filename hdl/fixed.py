"""Two's-complement fixed point: product and encoder.

:class:`golden.fixed.FixedSpec` defines the results.  A code is its own operand: decoding is sign
extension, which the multiplier does.
"""

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, signed
from amaranth.lib.wiring import In, Out

from golden.fixed_mac import FixedMacSpec
from golden.mac import Operand
from golden.spec import instance_of
from hdl.pipeline import StagedUnit

__all__ = ["FixedDatapath", "FixedEncoder", "FixedProduct"]

#: Bits of a weight that are multiplied at a time if a product has registers.
PART_WIDTH = 6


class FixedProduct(StagedUnit):
    """Product of two codes.

    Parameters
    ----------
    spec : FixedMacSpec
        Widths.
    latency : int
        Registers on the way, 0 or 1; the settings must not change meanwhile.

    Members
    -------
    activation, weight : In(signed(spec.bits)), In(signed(spec.weight_bits))
        Codes.
    term : Out(signed(spec.product_width))
        Exact product.
    move : In(1)
        When the registers load; absent without any.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.fixed_mac.FixedMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ((), ("parts",))

    activation: Signal
    weight: Signal
    term: Signal

    def __init__(self, spec: FixedMacSpec, *, latency: int = 0):
        instance_of("spec", spec, FixedMacSpec)
        self.spec = spec
        members = {
            "activation": In(signed(spec.bits)),
            "weight": In(signed(spec.weight_bits)),
            "term": Out(signed(spec.product_width)),
        }
        super().__init__(f"fixed_product_{spec.label}", members, latency)

    def elaborate(self, platform):
        m = Module()
        stages = self.stages(m, reset_less=False)
        m.d.comb += self.term.eq(
            stages.multiply("parts", self.activation, self.weight, width=PART_WIDTH)
        )
        return m


class FixedEncoder(StagedUnit):
    """Rounding of a sum to a code: shift right, ties to even, saturate.

    Parameters
    ----------
    spec : FixedMacSpec
        Widths.
    latency : int
        Registers on the way, 0 or 1; the settings must not change meanwhile.

    Members
    -------
    total : In(signed(spec.sum_width))
        Exact sum of products and bias.
    shift : In(spec.shift_width)
        Fraction bits of the sum that the code does not have.
    move : In(1)
        When the registers load; absent without any.
    code : Out(signed(spec.bits))
        Result.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.fixed_mac.FixedMacSpec`, or ``latency`` no integer.
    ValueError
        If ``latency`` is out of range.
    """

    places = ((), ("shifted",))

    total: Signal
    shift: Signal
    code: Signal

    def __init__(self, spec: FixedMacSpec, *, latency: int = 0):
        instance_of("spec", spec, FixedMacSpec)
        self.spec = spec
        members = {
            "total": In(signed(spec.sum_width)),
            "shift": In(spec.shift_width),
            "code": Out(signed(spec.bits)),
        }
        super().__init__(f"fixed_encoder_b{spec.bits}_s{spec.sum_width}", members, latency)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        max_shift = (1 << spec.shift_width) - 1

        # Zeros below the binary point catch every bit that can be shifted out.
        shifted = Signal(signed(spec.sum_width + max_shift))
        m.d.comb += shifted.eq(Cat(Const(0, max_shift), self.total).as_signed() >> self.shift)
        guard = Signal()
        sticky = Signal()
        m.d.comb += [
            guard.eq(shifted[max_shift - 1]),
            sticky.eq(shifted[: max_shift - 1].any()),
        ]

        whole, guard, sticky = self.stages(m).cut(
            "shifted", integer=shifted[max_shift:].as_signed(), guard=guard, sticky=sticky
        )

        # One bit more than the sum: a shift by 0 leaves nothing to round, but the
        # largest integer plus a round-up must not wrap in the bits that the limits look at.
        integer = Signal(signed(spec.sum_width))
        rounded = Signal(signed(spec.sum_width + 1))
        m.d.comb += [
            integer.eq(whole),
            rounded.eq(integer + (guard & (sticky | integer[0]))),
        ]
        low, high = -(1 << spec.bits - 1), (1 << spec.bits - 1) - 1
        m.d.comb += self.code.eq(
            Mux(rounded < low, low, Mux(rounded > high, high, rounded[: spec.bits].as_signed()))
        )
        return m


class FixedDatapath:
    """Units of fixed point for the array; see :class:`hdl.datapath.Datapath`."""

    def __init__(self, spec: FixedMacSpec):
        instance_of("spec", spec, FixedMacSpec)
        self.spec = spec
        self.encoder_config: dict[str, ShapeLike] = {"shift": spec.shift_width}

    def operand(self, role: Operand) -> ShapeLike:
        """Shape of an operand."""
        return signed(self.spec.code_bits(role))

    def decoder_config(self, role: Operand) -> dict[str, ShapeLike]:
        """Nothing to set."""
        return {}

    def decoder(self, role: Operand) -> None:
        """Make nothing: a code is its own operand."""

    @property
    def product_latency(self) -> int:
        """One where a weight is too wide to be multiplied in one cycle."""
        return int(self.spec.weight_bits > 8)

    def product(self, *, latency: int = 0) -> FixedProduct:
        """Make the multiplier."""
        return FixedProduct(self.spec, latency=latency)

    def encoder_latency(self, *, pipelined: bool) -> int:
        """Count registers in the encoder of a shell."""
        return int(pipelined)

    def encoder(self, *, latency: int = 0) -> FixedEncoder:
        """Make the rounding shifter."""
        return FixedEncoder(self.spec, latency=latency)
