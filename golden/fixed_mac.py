"""Widths of fixed-point multiply-accumulate hardware."""

from dataclasses import dataclass
from typing import cast

from golden.fixed import FixedFormat, FixedSpec
from golden.mac import MacSpec, Operand, check_format
from golden.spec import check_int

__all__ = ["FixedMacSpec"]


@dataclass(frozen=True, kw_only=True)
class FixedMacSpec(MacSpec):
    """Exact multiply-accumulate of two's-complement codes.

    Parameters
    ----------
    bits : int
        Bits of a code of an activation or a result, 2 to 16.
    length : int
        Largest number of products in one dot product.
    weight_bits : int
        Bits of a code of a weight, 2 to 16.  Default: ``bits``.
    """

    stem = "fixed"

    weight_bits: int = cast(int, None)  # replaced as soon as bits is known to be good

    @classmethod
    def for_format(cls, form: FixedFormat, length: int) -> "FixedMacSpec":
        """Hardware for every spec that ``form`` can be fitted to; ValueError if it is unsigned."""
        if form.signed is False:
            raise ValueError(
                f"signed must be yes for multiply-accumulate hardware, not no in {form}"
            )
        return cls(bits=form.bits, length=length, weight_bits=form.weight_bits or form.bits)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 2, 16)
        if self.weight_bits is None:
            object.__setattr__(self, "weight_bits", self.bits)
        check_int("weight_bits", self.weight_bits, 2, 16)

    def code_bits(self, role: Operand) -> int:
        """Bits of the code of an operand."""
        return self.weight_bits if role == "weight" else self.bits

    def operand_max(self, role: Operand) -> int:
        """Largest magnitude of an operand."""
        return 1 << self.code_bits(role) - 1

    @property
    def shift_width(self) -> int:
        """Bits of the encoder's shift: enough to shift out the whole accumulator."""
        return self.accumulator_width.bit_length()

    @property
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""
        weights = "" if self.weight_bits == self.bits else f"w{self.weight_bits}"
        return f"b{self.bits}{weights}"

    def settings(
        self, weights: FixedSpec, activations: FixedSpec, result: FixedSpec
    ) -> dict[str, int]:
        """Run-time settings of a layer by port of the array."""
        for name, spec in (("weights", weights), ("activations", activations), ("result", result)):
            bits = self.weight_bits if name == "weights" else self.bits
            check_format(name, spec, FixedSpec, bits)
            if not spec.signed:
                raise ValueError(f"{name}.signed must be True, not False")
        shift = weights.frac_bits + activations.frac_bits - result.frac_bits
        largest = (1 << self.shift_width) - 1
        if not 0 <= shift <= largest:
            raise ValueError(
                f"weights.frac_bits + activations.frac_bits - result.frac_bits must be between 0 "
                f"and {largest}, not {shift}"
            )
        return {"result_shift": shift}
