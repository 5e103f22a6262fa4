"""Two's-complement fixed point: product and encoder.

:class:`golden.fixed.FixedSpec` defines the results.  A code is its own operand: decoding is sign
extension, which the multiplier does.
"""

from amaranth.hdl import Cat, Const, Module, Mux, ShapeLike, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.fixed_mac import FixedMacSpec
from golden.mac import Operand

__all__ = ["FixedDatapath", "FixedEncoder", "FixedProduct"]


class FixedProduct(wiring.Component):
    """Combinational product of two codes.

    Parameters
    ----------
    spec : FixedMacSpec
        Widths.

    Members
    -------
    activation, weight : In(signed(spec.bits)), In(signed(spec.weight_bits))
        Codes.
    term : Out(signed(spec.product_width))
        Exact product.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.fixed.FixedMacSpec`.
    """

    activation: Signal
    weight: Signal
    term: Signal

    def __init__(self, spec: FixedMacSpec):
        if not isinstance(spec, FixedMacSpec):
            raise TypeError(f"spec must be a FixedMacSpec, not {spec!r}")
        self.spec = spec
        self.module_name = f"fixed_product_{spec.label}"
        super().__init__(
            {
                "activation": In(signed(spec.bits)),
                "weight": In(signed(spec.weight_bits)),
                "term": Out(signed(spec.product_width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.term.eq(self.activation * self.weight)
        return m


class FixedEncoder(wiring.Component):
    """Combinational rounding of a sum to a code: shift right, ties to even, saturate.

    Parameters
    ----------
    spec : FixedMacSpec
        Widths.

    Members
    -------
    total : In(signed(spec.sum_width))
        Exact sum of products and bias.
    shift : In(spec.shift_width)
        Fraction bits of the sum that the code does not have.
    code : Out(signed(spec.bits))
        Result.

    Raises
    ------
    TypeError
        If ``spec`` is not a :class:`~golden.fixed.FixedMacSpec`.
    """

    total: Signal
    shift: Signal
    code: Signal

    def __init__(self, spec: FixedMacSpec):
        if not isinstance(spec, FixedMacSpec):
            raise TypeError(f"spec must be a FixedMacSpec, not {spec!r}")
        self.spec = spec
        self.module_name = f"fixed_encoder_b{spec.bits}_s{spec.sum_width}"
        super().__init__(
            {
                "total": In(signed(spec.sum_width)),
                "shift": In(spec.shift_width),
                "code": Out(signed(spec.bits)),
            }
        )

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

        # One bit more than the sum: a shift by 0 leaves nothing to round, but the
        # largest integer plus a round-up must not wrap in the bits that the limits look at.
        integer = Signal(signed(spec.sum_width))
        rounded = Signal(signed(spec.sum_width + 1))
        m.d.comb += [
            integer.eq(shifted[max_shift:].as_signed()),
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
        if not isinstance(spec, FixedMacSpec):
            raise TypeError(f"spec must be a FixedMacSpec, not {spec!r}")
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

    def product(self) -> FixedProduct:
        """Make the multiplier."""
        return FixedProduct(self.spec)

    def encoder(self) -> FixedEncoder:
        """Make the rounding shifter."""
        return FixedEncoder(self.spec)
