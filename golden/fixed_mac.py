"""Widths of fixed-point multiply-accumulate hardware."""

from dataclasses import dataclass

from golden.fixed import FixedFormat, FixedSpec
from golden.mac import MacSpec, check_format
from golden.spec import check_int

__all__ = ["FixedMacSpec"]


@dataclass(frozen=True, kw_only=True)
class FixedMacSpec(MacSpec):
    """Exact multiply-accumulate of two's-complement codes.

    Parameters
    ----------
    bits : int
        Bits of a code, 2 to 16.
    length : int
        Largest number of products in one dot product.
    """

    stem = "fixed"

    @classmethod
    def for_format(cls, form: FixedFormat, length: int) -> "FixedMacSpec":
        """Hardware for every spec that ``form`` can be fitted to; ValueError if it is unsigned."""
        if form.signed is False:
            raise ValueError(
                f"signed must be yes for multiply-accumulate hardware, not no in {form}"
            )
        return cls(bits=form.bits, length=length)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("bits", self.bits, 2, 16)

    @property
    def operand_max(self) -> int:
        """Largest magnitude of an operand."""
        return 1 << self.bits - 1

    @property
    def operand_width(self) -> int:
        """Bits of an operand."""
        return self.bits

    @property
    def shift_width(self) -> int:
        """Bits of the encoder's shift: enough to shift out the whole accumulator."""
        return self.accumulator_width.bit_length()

    @property
    def label(self) -> str:
        """Parameters of the units, as they appear in module names."""
        return f"b{self.bits}"

    def settings(
        self, weights: FixedSpec, activations: FixedSpec, result: FixedSpec
    ) -> dict[str, int]:
        """Run-time settings of a layer by port of the array."""
        for name, spec in (("weights", weights), ("activations", activations), ("result", result)):
            check_format(name, spec, FixedSpec, self.bits)
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

    def sum_exp(self, weights: FixedSpec, activations: FixedSpec) -> int:
        """Exponent of the last place of the sum to which the bias is added."""
        return weights.operand_exp + activations.operand_exp
